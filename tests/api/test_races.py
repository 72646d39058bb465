"""Requests of the operator that race with someone else's, as the API server decides between them."""

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import pykube
import pytest

from quiesce.cluster.kube import KubeCluster
from quiesce.cluster.port import ClusterError
from quiesce.cluster.world import World
from quiesce.model import names
from quiesce.model.resources import AppServer

Manifest = Callable[[str], dict[str, object]]


@pytest.fixture
async def cluster() -> AsyncIterator[KubeCluster]:
    connected = await KubeCluster.connect()
    yield connected
    await connected.close()


async def made(cluster: KubeCluster, manifest: Manifest) -> AppServer:
    return await cluster.apply_server(manifest("AppServer"))


@pytest.mark.parametrize("value", ["once more", "now"])
async def test_a_one_shot_that_was_set_again_is_not_removed(
    cluster: KubeCluster, api: pykube.HTTPClient, namespace: str, manifest: Manifest, value: str
) -> None:
    """The same value too: someone else has removed it, and it was set again."""
    await made(cluster, manifest)
    kind = pykube.object_factory(api, names.API_VERSION, "AppServer")
    by_hand = kind.objects(api, namespace=namespace).get_by_name("shop")
    by_hand.patch({"metadata": {"annotations": {names.RESTART: "now"}}})
    seen = await cluster.server(namespace, "shop")
    assert seen
    by_hand.patch({"metadata": {"annotations": {names.RESTART: None}}})
    by_hand.patch({"metadata": {"annotations": {names.RESTART: value}}})
    with pytest.raises(ClusterError) as refused:
        await cluster.remove_annotation(seen, names.RESTART)
    assert refused.value.status == HTTPStatus.CONFLICT
    there = await cluster.server(namespace, "shop")
    assert there
    assert there.metadata.annotations[names.RESTART] == value
    assert (await cluster.remove_annotation(there, names.RESTART)).metadata.annotations == {}


async def test_a_list_that_is_older_than_a_deletion_brings_nothing_back(
    cluster: KubeCluster, namespace: str, manifest: Manifest
) -> None:
    one, world = await made(cluster, manifest), World()
    before, listed = world.known(), await cluster.everything()
    assert [server for server in listed.servers.things if server.metadata.key == one.metadata.key]
    await cluster.delete_server(namespace, "shop", one.metadata.uid)
    world.forget_server(one.metadata.key, one.metadata.uid, int(one.metadata.resource_version) + 1)
    world.see_all(listed, before)
    assert one.metadata.key not in world.servers
    again = await made(cluster, manifest)
    world.see_all(await cluster.everything(), world.known())
    assert world.servers[one.metadata.key].metadata.uid == again.metadata.uid
