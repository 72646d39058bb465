"""The operator's parts put together."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import pytest

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import ClusterError, Snapshot
from quiesce.control.operator import Operator
from quiesce.model.plan import Note
from tests.unit.build import NOW, group, pod, server
from tests.unit.fake import FakeCluster, FakeWildFly, refusing
from tests.unit.test_world import version

replace = msgspec.structs.replace


async def test_nothing_is_ready_before_the_first_look() -> None:
    cluster = FakeCluster(group(1), server())
    operator = Operator(cluster, "test", Clock())
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
    operator = Operator(cluster, "test", Clock())

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


async def test_what_went_while_no_watch_reported_anything_is_missed_sooner_or_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was the only one of its kind: when the watch starts again, its list has nothing to report."""
    monkeypatch.setattr("quiesce.control.operator.RESYNC_AFTER_SECONDS", 0.01)
    monkeypatch.setattr("quiesce.control.operator.RESYNC_SECONDS", 0.1)
    monkeypatch.setattr("quiesce.control.admins.WildFly", FakeWildFly)
    cluster, asked, created = FakeCluster(server(), pod()), asyncio.Event(), asyncio.Event()
    events = {"secret": asked, "create_pod": created}
    cluster.refuse = lambda request, _: events[request].set() if request in events else None
    operator = Operator(cluster, "test", Clock())
    await operator.prime()
    task = asyncio.create_task(operator.run())
    try:
        async with asyncio.timeout(5):
            await asked.wait()
            cluster.take("shop", "shop-0")
            await created.wait()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_list_wakes_only_those_whose_objects_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    of = group(3)
    servers, pods = [server(f"shop-{n}", of=of) for n in range(3)], [pod(f"shop-{n}") for n in range(3)]
    other = replace(of, metadata=replace(of.metadata, name="other", uid="uid-other"))
    cluster = FakeCluster(of, other, *servers, *pods)
    operator = Operator(cluster, "test", Clock())
    woken: list[tuple[str, str, str]] = []
    monkeypatch.setattr(operator._queue, "add", woken.append)
    await operator.prime()
    everything = [("server", "shop", f"shop-{n}") for n in range(3)]
    assert sorted(woken) == [("group", "shop", "other"), ("group", "shop", "shop"), *everything]
    woken.clear()
    await operator.prime()
    assert woken == []
    cluster.take("shop", "shop-1")
    await operator.prime()
    assert sorted(woken) == [("group", "shop", "shop"), ("server", "shop", "shop-1")]


class Interrupted(FakeCluster):
    """Something happens between two of the lists of a resync."""

    happens: Callable[[], None]

    async def everything(self) -> Snapshot:
        listed = await super().everything()
        self.happens()
        return listed


async def test_what_is_deleted_between_two_lists_is_not_brought_back() -> None:
    cluster = Interrupted(group(1), server(of=group(1)), pod())
    one, its_pod = cluster.latest(server()), cluster.latest(pod())
    operator = Operator(cluster, "test", Clock())

    def delete_both() -> None:
        operator.see_pod(version(its_pod, 1_000), gone=True)
        operator.see_server(version(one, 1_001), gone=True)

    cluster.happens = delete_both
    await operator.prime()
    assert (operator._world.pods, operator._world.servers) == ({}, {})
    assert list(operator._world.groups) == [("shop", "shop")]


async def test_a_server_that_leaves_its_group_wakes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(FakeCluster(), "test", Clock())
    operator.see_server(version(server(of=group(1)), 1), gone=False)
    woken: list[tuple[str, str, str]] = []
    monkeypatch.setattr(operator._queue, "add", woken.append)
    operator.see_server(version(server(), 2), gone=False)
    assert woken == [("server", "shop", "shop-0"), ("group", "shop", "shop")]
    assert operator._world.members(("shop", "shop")) == []


async def test_what_was_recorded_before_the_end_is_written() -> None:
    cluster = FakeCluster()
    operator = Operator(cluster, "test", Clock())
    task = asyncio.create_task(operator.run())
    await asyncio.sleep(0)
    operator._events.record(server(), Note("Drained", ""), NOW)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [event["reason"] for event in cluster.events.values()] == ["Drained"]
