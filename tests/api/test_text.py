"""Text of users on its way through the operator's own client to the API server and back."""

from collections.abc import AsyncIterator

import pytest

from quiesce.cluster.kube import KubeCluster

HALVES = "".join(map(chr, range(0xD800, 0xE000)))
# Every character of the basic plane, and of the others some that JSON writes as a pair.
EVERY = "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 0x10000))) + "😀🫨\U0001ffff\U0010ffff"


@pytest.fixture
async def cluster() -> AsyncIterator[KubeCluster]:
    connected = await KubeCluster.connect()
    yield connected
    await connected.close()


async def test_an_apply_brings_every_character_as_it_is(cluster: KubeCluster, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop", "namespace": namespace, "annotations": {"note": EVERY, "half": f"a{HALVES}b"}},
        "spec": {"ports": [{"port": 80}]},
    }
    applied = await cluster.apply_object(service)
    assert applied.metadata.annotations == {"note": EVERY, "half": "a" + len(HALVES) * "\ufffd" + "b"}
    again = await cluster.apply_object(service)
    assert again.metadata.resource_version == applied.metadata.resource_version
