"""The queue: when keys are worked on, and when not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from quiesce.cluster.port import ClusterError
from quiesce.control.queue import Key, Queue, back_off

A: Key = ("server", "shop", "a")
B: Key = ("server", "shop", "b")


class Clock:
    """A clock that only moves with the event loop's timers."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """What is reconciled, and when; `answers` says what each key returns or raises, one after the other."""

    def __init__(
        self, clock: Callable[[], float], answers: dict[Key, list[float | Exception | None]] | None = None
    ) -> None:
        self.done: list[tuple[Key, float]] = []
        self.gate: dict[Key, asyncio.Event] = {}
        self._clock = clock
        self._answers = answers or {}

    async def __call__(self, key: Key) -> float | None:
        self.done.append((key, self._clock()))
        if key in self.gate:
            await self.gate[key].wait()
        answers = self._answers.get(key)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def keys(self) -> list[Key]:
        return [key for key, _ in self.done]

    def times(self, key: Key) -> list[float]:
        return [time for done, time in self.done if done == key]


@contextlib.asynccontextmanager
async def running(queue: Queue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def pass_time(clock: Clock, queue: Queue, seconds: float, step: float = 0.25) -> None:
    """Time passes in small steps; a request for an unused key wakes the queue to check its clock."""
    await turns()
    for _ in range(round(seconds / step)):
        clock.now += step
        queue.add(("group", "nobody", "nothing"))
        await turns()


async def test_requests_for_a_key_coalesce() -> None:
    clock = Clock()
    worker = Worker(clock)
    queue = Queue(worker, clock)
    for _ in range(5):
        queue.add(A)
    async with running(queue):
        await turns()
    assert worker.keys() == [A]


async def test_the_earliest_request_counts_and_the_later_is_dropped() -> None:
    clock = Clock()
    worker = Worker(clock)
    queue = Queue(worker, clock)
    async with running(queue):
        for after in (5, 2, 3):
            queue.add(A, after)
        await pass_time(clock, queue, 10)
    assert worker.times(A) == [2.0]


async def test_a_key_is_looked_at_again_when_it_asked_to_be() -> None:
    clock = Clock()
    worker = Worker(clock, {A: [1.0, 2.0, None]})
    queue = Queue(worker, clock)
    queue.add(A)
    async with running(queue):
        await pass_time(clock, queue, 10)
    assert worker.times(A) == [0.0, 1.0, 3.0]


async def test_a_key_has_one_worker_at_a_time_and_a_request_in_the_meantime_is_kept() -> None:
    clock = Clock()
    worker = Worker(clock)
    queue = Queue(worker, clock)
    worker.gate[A] = asyncio.Event()
    async with running(queue):
        for _ in range(3):
            queue.add(A)
            await turns()
        assert worker.keys() == [A]
        worker.gate[A].set()
        await turns()
        assert worker.keys() == [A, A]


async def test_a_key_at_work_holds_up_no_other() -> None:
    clock = Clock()
    worker = Worker(clock)
    queue = Queue(worker, clock)
    worker.gate[A] = asyncio.Event()
    async with running(queue):
        queue.add(A)
        queue.add(B)
        await turns()
        assert worker.keys() == [A, B]


async def test_failures_back_off_and_a_success_forgets_them(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = ClusterError(500, "etcd is away")
    worker = Worker(clock, {A: [trouble, trouble, trouble, None, trouble, None]})
    queue = Queue(worker, clock)
    queue.add(A)
    async with running(queue):
        await pass_time(clock, queue, 5)
        queue.add(A)
        await pass_time(clock, queue, 5)
    assert worker.times(A) == [0.0, 0.5, 1.5, 3.5, 5.0, 5.5]
    assert "etcd is away" in caplog.text


async def test_an_api_server_that_asks_to_wait_is_not_asked_earlier() -> None:
    clock = Clock()
    busy = ClusterError(429, "too many requests", retry_after=7)
    worker = Worker(clock, {A: [busy, None]})
    queue = Queue(worker, clock)
    queue.add(A)
    async with running(queue):
        await pass_time(clock, queue, 10)
    assert worker.times(A) == [0.0, 7.0]


def test_back_off_doubles_up_to_a_limit() -> None:
    assert [back_off(count, 0.5) for count in (1, 2, 3, 7, 8, 2000)] == [0.5, 1.0, 2.0, 30.0, 30.0, 30.0]
    assert [back_off(count, 5.0, 600.0) for count in (1, 2, 7, 8, 2000)] == [5.0, 10.0, 320.0, 600.0, 600.0]


async def test_a_key_that_always_fails_stops_neither_the_others_nor_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    """More often than a float has powers of two: with 30 s between them, 9 hours."""
    caplog.set_level("ERROR")
    clock = Clock()
    failed = 0
    others: list[Key] = []

    async def reconcile(key: Key) -> float | None:
        nonlocal failed
        if key != A:
            others.append(key)
            return None
        failed += 1
        raise ClusterError(500, "away")

    queue = Queue(reconcile, clock)
    async with running(queue):
        for _ in range(1100):
            queue.add(A)
            await turns(4)
        queue.add(B)
        await turns()
    assert failed == 1100
    assert others == [B]


async def test_a_loop_that_turns_is_not_stale_and_one_that_hangs_is() -> None:
    clock = Clock()
    worker = Worker(clock)
    queue = Queue(worker, clock)
    worker.gate[A] = asyncio.Event()
    async with running(queue):
        queue.add(A)
        await turns()
        assert queue.stale_for() == 0
        await pass_time(clock, queue, 300, step=1)
        assert queue.stale_for() == 0  # one key's reconcile is slow: the others continue
    clock.now += 60
    assert queue.stale_for() == pytest.approx(50)  # the loop itself does not turn


async def test_a_reconcile_that_never_returns_is_ended_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("quiesce.control.queue.TURN_SECONDS", 0.01)
    monkeypatch.setattr("quiesce.control.queue.FIRST_RETRY_SECONDS", 0.01)
    tries, again = 0, asyncio.Event()

    async def reconcile(_: Key) -> float | None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        again.set()
        return None

    queue = Queue(reconcile, asyncio.get_running_loop().time)
    async with running(queue):
        queue.add(A)
        async with asyncio.timeout(5):
            await again.wait()
    assert "server shop/a: TimeoutError within 0.01 s; retrying in 0.01 s" in caplog.text


async def test_the_queue_wakes_by_itself() -> None:
    loop = asyncio.get_running_loop()
    again = asyncio.Event()
    looked: list[float] = []

    async def reconcile(_: Key) -> float | None:
        looked.append(loop.time())
        if len(looked) == 2:
            again.set()
        return 0.05

    reconciles: Callable[[Key], Awaitable[float | None]] = reconcile
    queue = Queue(reconciles, loop.time)
    queue.add(A)
    async with running(queue), asyncio.timeout(5):
        await again.wait()
    assert looked[1] - looked[0] >= 0.05
