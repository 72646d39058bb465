"""Text of users on its way through the operator's own client to the API server and back."""

import asyncio
import time
from collections.abc import AsyncIterator

import pykube
import pytest

from quiesce.cluster.kube import KubeCluster
from quiesce.control.events import Recorder
from quiesce.model.objects import OwnMetadata
from quiesce.model.plan import Note
from quiesce.model.resources import Admin, AppServer, AppServerSpec, SecretRef

HALVES = "".join(map(chr, range(0xD800, 0xE000)))
# Every character of the basic plane, and of the others some that JSON writes as a pair.
EVERY = "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 0x10000))) + "😀🫨\U0001ffff\U0010ffff"


@pytest.fixture
async def cluster() -> AsyncIterator[KubeCluster]:
    connected = await KubeCluster.connect()
    yield connected
    await connected.close()


async def test_the_same_event_again_is_counted_in_the_first(
    cluster: KubeCluster, api: pykube.HTTPClient, namespace: str
) -> None:
    recorder = Recorder(cluster, "test", time.monotonic)
    own = OwnMetadata(name="shop-0", namespace=namespace, uid="1")
    admin = Admin("management", SecretRef("admin"))
    one = AppServer(own, AppServerSpec(admin, {}))
    notes = [Note("StatusRefused", f"😀 {EVERY}"), Note("Drained", "", warning=False)]
    task = asyncio.create_task(recorder.run())
    for _ in range(3):
        for note in notes:
            recorder.record(one, note, time.time())
        await recorder.flush()
    task.cancel()
    kind = pykube.object_factory(api, "events.k8s.io/v1", "Event")
    events = {event.obj["reason"]: event.obj for event in kind.objects(api, namespace=namespace)}
    assert {reason: event["series"]["count"] for reason, event in events.items()} == {"StatusRefused": 3, "Drained": 3}
    assert events["StatusRefused"]["note"] == notes[0].message


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
