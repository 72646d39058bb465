"""Events are written in the background, aggregated and bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from quiesce.cluster.port import ClusterError
from quiesce.control import events
from quiesce.control.events import BURST, REFILL_SECONDS, SERIES_SECONDS, WAITING, Recorder
from quiesce.model.plan import Note
from quiesce.model.times import moment
from tests.unit.build import NOW, group, server
from tests.unit.fake import FakeCluster, refusing

STALLED = Note("NodeLost", "its node does not respond")


class Written:
    """A recorder at work, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cluster = FakeCluster()
        self.recorder = Recorder(self.cluster, "quiesce-0", lambda: self.now)

    def record(self, note: Note = STALLED, name: str = "shop-0") -> None:
        self.recorder.record(server(name), note, NOW + self.now)

    async def events(self) -> list[tuple[str, int]]:
        await self.recorder.flush()
        return [(e["reason"], e.get("series", {}).get("count", 1)) for e in self.cluster.events.values()]


@pytest.fixture
async def written() -> AsyncIterator[Written]:
    one = Written()
    task = asyncio.create_task(one.recorder.run())
    yield one
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_same_again_is_counted_in_one_event(written: Written) -> None:
    written.record()
    assert await written.events() == [("NodeLost", 1)]
    for _ in range(2):
        written.now += SERIES_SECONDS - 1
        written.record()
        await written.recorder.flush()
    assert await written.events() == [("NodeLost", 3)]
    (event,) = written.cluster.events.values()
    assert datetime.fromisoformat(event["series"]["lastObservedTime"]) == moment(NOW + written.now)
    written.now += SERIES_SECONDS
    written.record()
    assert await written.events() == [("NodeLost", 3), ("NodeLost", 1)]


@pytest.mark.parametrize(
    ("note", "name"),
    [
        pytest.param(STALLED, "shop-1", id="of another object"),
        pytest.param(Note("NodeLost", "other words"), "shop-0", id="with another message"),
        pytest.param(Note("DeletionOverdue", STALLED.message), "shop-0", id="with another reason"),
        pytest.param(Note("NodeLost", STALLED.message, warning=False), "shop-0", id="of another type"),
    ],
)
async def test_what_is_different_is_an_event_of_its_own(note: Note, name: str, written: Written) -> None:
    written.record()
    written.record(note, name)
    assert await written.events() == [("NodeLost", 1), (note.reason, 1)]


async def test_what_comes_before_it_can_be_written_is_written_once(written: Written) -> None:
    for _ in range(5):
        written.record()
    assert await written.events() == [("NodeLost", 5)]
    assert written.cluster.asked == ["create_event"]


async def test_an_unexpected_error_costs_one_event_and_is_logged(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    def break_once(request: str, _: str) -> None:
        written.cluster.refuse = refusing("nothing", 0)
        raise ValueError(f"{request} got an answer that is not JSON")

    written.cluster.refuse = break_once
    written.record()
    written.record(name="shop-1")
    assert await written.events() == [("NodeLost", 1)]
    assert "shop/shop-0: Event NodeLost not written: create_event got an answer that is not JSON" in caplog.text


async def test_what_comes_while_it_is_written_is_counted(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    create, goes_on = written.cluster.create_event, asyncio.Event()

    async def slow(event: dict[str, object]) -> None:
        await goes_on.wait()
        await create(event)

    monkeypatch.setattr(written.cluster, "create_event", slow)
    written.record()
    for _ in range(3):
        await asyncio.sleep(0)
        written.record()
    goes_on.set()
    assert await written.events() == [("NodeLost", 4)]
    assert written.cluster.asked == ["create_event", "count_event"]


async def test_an_event_that_is_gone_is_created_again(written: Written) -> None:
    written.record()
    await written.events()
    written.cluster.events.clear()
    written.record()
    assert await written.events() == [("NodeLost", 2)]


async def test_no_object_fills_a_namespace_with_events(written: Written) -> None:
    for number in range(100):
        written.record(Note("Drained", f"{number}"))
    written.record(name="shop-1")
    assert len(await written.events()) == BURST + 1
    written.now += REFILL_SECONDS
    for number in range(100):
        written.record(Note("Drained", f"later {number}"))
    assert len(await written.events()) == BURST + 2


async def test_a_count_that_is_held_back_is_written_later(written: Written) -> None:
    for _ in range(BURST + 5):
        written.record()
        await written.recorder.flush()
    assert await written.events() == [("NodeLost", BURST)]
    written.now += REFILL_SECONDS
    written.record()
    assert await written.events() == [("NodeLost", BURST + 6)]


async def test_nothing_waits_for_an_api_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FLUSH_SECONDS", 0.05)
    one, hangs = Written(), asyncio.Event()

    async def hang(_: object) -> None:
        await hangs.wait()

    monkeypatch.setattr(one.cluster, "create_event", hang)
    task = asyncio.create_task(one.recorder.run())
    for number in range(2 * WAITING):
        one.record(name=f"shop-{number}")  # what is too much is dropped
    began = asyncio.get_running_loop().time()
    await one.recorder.flush()
    assert asyncio.get_running_loop().time() - began < 1
    assert one.recorder._waiting.qsize() <= WAITING
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("code", "tries"), [(403, 1), (422, 1), (404, 1), (0, 3), (429, 3), (503, 3)])
async def test_what_is_refused_is_given_up_and_what_fails_is_tried_again(
    code: int, tries: int, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "RETRY_SECONDS", 0.0)
    written.cluster.refuse = refusing("create_event", code)
    written.record()
    assert await written.events() == []
    assert written.cluster.asked == ["create_event"] * tries
    written.cluster.refuse = refusing("nothing", 0)
    written.record(Note("Drained", ""))
    assert await written.events() == [("Drained", 1)]


async def test_an_answer_that_was_lost_makes_no_second_event(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RETRY_SECONDS", 0.0)
    create = written.cluster.create_event

    async def lost(event: dict[str, object]) -> None:
        await create(event)
        raise ClusterError(0, "no answer")

    monkeypatch.setattr(written.cluster, "create_event", lost)
    written.record()
    await written.recorder.flush()
    written.record()
    assert await written.events() == [("NodeLost", 2)]
    assert written.cluster.asked == ["create_event", "create_event", "count_event"]


async def test_without_a_reason_nothing_is_sent(written: Written) -> None:
    written.record(Note("", "words"))
    assert await written.events() == []


async def test_what_the_api_server_checks_of_an_event(written: Written) -> None:
    long = group(1)
    recorder = Recorder(written.cluster, "i" * 200, lambda: 0.0)
    name = f"{'a' * 199}-{'b' * 50}"
    event = events._event(server(name), Note("R" * 200, "n\n" * 2000), NOW, recorder._instance)
    assert not event["metadata"]["name"].startswith(f"{'a' * 199}-.")
    assert len(event["reason"]) == len(event["action"]) == len(event["reportingInstance"]) == 128
    assert len(event["note"].encode()) <= 1024
    assert event["eventTime"] == "2027-01-15T08:00:00.000000Z"
    assert events._event(long, STALLED, NOW, "i")["regarding"]["kind"] == "ServerGroup"


def test_the_memory_of_the_past_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REMEMBERED", 10)
    one = Written()
    for number in range(100):
        one.record(name=f"shop-{number}")
    assert (len(one.recorder._series), len(one.recorder._budgets)) == (10, 10)
