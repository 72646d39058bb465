"""Events for users: what changed, and what they have to do (events.k8s.io/v1).

They are recorded immediately and written in the background, as by client-go's recorder: nothing waits for an Event.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.model import names
from quiesce.model.plan import Note
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.text import REASON_BYTES, shown
from quiesce.model.times import Seconds, moment

# A repetition within this time is counted in the existing Event.
SERIES_SECONDS = 360.0
# For one object, so many writes in a burst, and one more in each such interval.
BURST, REFILL_SECONDS = 25, 300.0
# How many are remembered, and how many can wait to be written.
REMEMBERED, WAITING = 4096, 1000
WRITERS = 4
TRIES, RETRY_SECONDS = 3, 2.0
FLUSH_SECONDS = 2.0

K = TypeVar("K")
V = TypeVar("V")
# The object's UID, and the Event's type, reason and note.
Key = tuple[str, bool, str, str]

logger = logging.getLogger(__name__)


class Series(msgspec.Struct):
    """The occurrences of the same Event for the same object."""

    event: dict[str, Any]
    count: int = 0
    last: Seconds = 0  # time of day
    recorded_at: Seconds = 0  # by the clock for intervals
    written: int = 0  # the count that the API server has
    is_waiting: bool = False  # or is being written


class Recorder:
    def __init__(self, cluster: Cluster, instance: str, clock: Callable[[], Seconds]) -> None:
        """`clock` is monotonic."""
        self._cluster = cluster
        self._instance = shown(instance, REASON_BYTES)
        self._clock = clock
        self._series: OrderedDict[Key, Series] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, Seconds]] = OrderedDict()  # remaining writes, and as of when
        self._waiting: asyncio.Queue[Series] = asyncio.Queue(WAITING)

    def record(self, owner: AppServer | ServerGroup, note: Note, now: Seconds) -> None:
        """`now` is the time of day. The log also has the Events that are not written because there are too many."""
        own = owner.metadata
        logger.info("%s/%s: %s: %s", own.namespace, own.name, note.reason, note.message)
        if not note.reason:  # the API server refuses such an Event
            return
        key, at = (own.uid, note.warning, note.reason, note.message), self._clock()
        series = self._series.get(key)
        if series is None or at - series.recorded_at >= SERIES_SECONDS:
            series = Series(_event(owner, note, now, self._instance))
        series.count, series.last, series.recorded_at = series.count + 1, now, at
        _remember(self._series, key, series)
        if not series.is_waiting and self._may_write(own.uid, at):
            self._enqueue(series)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self._write_all())

    async def flush(self) -> None:
        """Wait briefly until all recorded Events are written, while `run` continues."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("%d Events are not written: the API server is too slow", self._waiting.qsize())

    def _may_write(self, uid: str, at: Seconds) -> bool:
        left, since = self._budgets.get(uid, (BURST, at))
        left = min(BURST, left + (at - since) / REFILL_SECONDS)
        _remember(self._budgets, uid, (max(0.0, left - 1) if left >= 1 else left, at))
        return left >= 1

    def _enqueue(self, series: Series) -> None:
        try:
            self._waiting.put_nowait(series)
            series.is_waiting = True
        except asyncio.QueueFull:
            logger.warning("an Event is not written: %d wait for the API server", WAITING)

    async def _write_all(self) -> None:
        while True:
            series = await self._waiting.get()
            try:
                await self._write(series)
                while series.written < series.count and self._may_write(
                    series.event["regarding"]["uid"], self._clock()
                ):
                    await self._write(series)  # it has happened again in the meantime
            except Exception as error:  # whatever it is, the next Events are to be written
                about, reason = series.event["regarding"], series.event["reason"]
                trace = None if isinstance(error, ClusterError) else error
                logger.warning(
                    "%s/%s: Event %s not written: %s", about["namespace"], about["name"], reason, error, exc_info=trace
                )
            finally:
                series.is_waiting = False
                self._waiting.task_done()

    async def _write(self, series: Series) -> None:
        for _ in range(TRIES - 1):
            try:
                return await self._create_or_count(series)
            except ClusterError as error:
                if error.is_refusal or error.status == HTTPStatus.NOT_FOUND:  # the namespace is gone, or about to go
                    raise
            await asyncio.sleep(RETRY_SECONDS)
        return await self._create_or_count(series)

    async def _create_or_count(self, series: Series) -> None:
        count, counted = series.count, {"count": series.count, "lastObservedTime": _micro(series.last)}
        if series.written:
            if await self._cluster.count_event(series.event["metadata"], counted):
                series.written = count
                return
            # The API server deletes Events after a while.
            series.event["metadata"]["name"] = _name(series.event["regarding"]["name"])
        try:
            await self._cluster.create_event({**series.event, **({"series": counted} if count > 1 else {})})
            series.written = count
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            series.written = 1  # by an earlier try, whose response was lost


def _event(owner: AppServer | ServerGroup, note: Note, now: Seconds, instance: str) -> dict[str, Any]:
    own = owner.metadata
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": _name(own.name), "namespace": own.namespace},
        "eventTime": _micro(now),
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "action": note.reason,
        "note": note.message,
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": type(owner).__name__,
            "namespace": own.namespace,
            "name": own.name,
            "uid": own.uid,
        },
    }


def _name(owner: str) -> str:
    return f"{owner[:200].rstrip('-.')}.{secrets.token_hex(8)}"


def _micro(time: Seconds) -> str:
    return moment(time).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > REMEMBERED:
        cache.popitem(last=False)
