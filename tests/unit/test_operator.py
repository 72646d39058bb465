"""The operator's parts put together."""

import asyncio
import contextlib

import pytest

from quiesce.cluster.port import ClusterError
from quiesce.control.operator import Operator
from quiesce.model.plan import Note
from tests.unit.build import NOW, group, server
from tests.unit.fake import FakeCluster, refusing


async def test_nothing_is_ready_before_the_first_look() -> None:
    cluster = FakeCluster(group(1), server())
    operator = Operator(cluster, "test")
    assert not operator.ready
    cluster.refuse = refusing("everything", 0)
    with pytest.raises(ClusterError):
        await operator.prime()
    assert not operator.ready
    cluster.refuse = refusing("nothing", 0)
    await operator.prime()
    assert operator.ready


async def test_a_resync_that_fails_is_tried_again_and_does_not_end_the_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("quiesce.control.operator.RESYNC_AFTER_SECONDS", 0.01)
    cluster, looked = FakeCluster(), asyncio.Event()
    operator = Operator(cluster, "test")

    def refuse_twice(request: str, _: str) -> None:
        if request == "everything" and cluster.count(request) <= 2:
            raise ClusterError(500, "etcd is away")
        looked.set()

    cluster.refuse = refuse_twice
    operator.listed()
    task = asyncio.create_task(operator.run())
    try:
        async with asyncio.timeout(5):
            await asyncio.wait({task, asyncio.create_task(looked.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done()
        assert cluster.count("everything") == 3
        assert caplog.text.count("etcd is away") == 2
        await asyncio.sleep(0.05)
        assert cluster.count("everything") == 3  # and rests then
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_was_recorded_before_the_end_is_written() -> None:
    cluster = FakeCluster()
    operator = Operator(cluster, "test")
    task = asyncio.create_task(operator.run())
    await asyncio.sleep(0)
    operator._events.record(server(), Note("Drained", ""), NOW)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [event["reason"] for event in cluster.events.values()] == ["Drained"]
