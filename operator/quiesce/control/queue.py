"""A keyed queue: one worker per key at a time, requests for the same key coalesce, failures back off."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from quiesce.cluster.port import ClusterError
from quiesce.model.times import Seconds

# The kind of object, its namespace and name.
Key = tuple[Literal["server", "group"], str, str]
# Reconciles a key; returns the time after which to requeue it, or None to wait for an event.
Reconcile = Callable[[Key], Awaitable[Seconds | None]]

FIRST_RETRY_SECONDS = 0.5
BEAT_SECONDS = 1.0
# A reconcile makes a few requests with timeouts; one that takes longer than this is cancelled, and retried.
TURN_SECONDS = 120.0

logger = logging.getLogger(__name__)


def back_off(count: int, first: Seconds, most: Seconds = 30.0) -> Seconds:
    """How long to wait after the `count`th failure in a row."""
    return min(first * 2.0 ** min(count - 1, 10), most)


class Queue:
    def __init__(self, reconcile: Reconcile, clock: Callable[[], Seconds]) -> None:
        """`clock` is monotonic."""
        self._reconcile = reconcile
        self._clock = clock
        self._due: dict[Key, Seconds] = {}
        self._heap: list[tuple[Seconds, Key]] = []
        self._started: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._beat: Seconds | None = None

    def add(self, key: Key, after: Seconds = 0) -> None:
        """Enqueue a key; the earliest request counts."""
        due = self._clock() + after
        if due < self._due.get(key, due + 1):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    def stale_for(self) -> Seconds:
        """For how long the loop has been stuck; 0 if it is not. A single key that waits doesn't count."""
        if self._beat is None:
            return 0.0  # it has not started: that is for the readiness probe
        return max(self._clock() - self._beat - 10 * BEAT_SECONDS, 0.0)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._beat = now = self._clock()
                self._changed.clear()
                for key in self._take(now):
                    self._started.add(key)
                    tasks.create_task(self._work(key))
                following = self._heap[0][0] - self._clock() if self._heap else BEAT_SECONDS
                try:
                    async with asyncio.timeout(max(0.0, min(following, BEAT_SECONDS))):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def _take(self, now: Seconds) -> list[Key]:
        taken = []
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) != due or key in self._started:
                continue  # superseded by an earlier request, or in progress: `_work` puts it back
            del self._due[key]
            taken.append(key)
        return taken

    async def _work(self, key: Key) -> None:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                wake = await self._reconcile(key)
            self._failures.pop(key, None)
        except Exception as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            wake, trace = back_off(count, FIRST_RETRY_SECONDS), True
            if isinstance(error, ClusterError):  # gets one line; anything else is a bug, and gets a traceback
                wake, trace = max(wake, error.retry_after), False
            said = str(error) or f"{type(error).__name__} within {TURN_SECONDS:g} s"
            logger.warning("%s %s/%s: %s; retrying in %g s", *key, said, wake, exc_info=trace)
        finally:
            self._started.remove(key)
        if (asked := self._due.get(key)) is not None:
            heapq.heappush(self._heap, (asked, key))
            self._changed.set()
        if wake is not None:
            self.add(key, wake)
