"""Leadership: of all the operator's processes, only the one that holds the Lease acts.

Whoever waits reckons by its own clock alone: a Lease that nobody has written for its whole duration has no holder any
more. The holder stops well before that, so that what it began can't land once another may act.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import msgspec

from quiesce.cluster.port import ClusterError, Leases
from quiesce.model.lease import Lease, LeaseSpec
from quiesce.model.times import Seconds, moment

DURATION_SECONDS = 12
RENEW_SECONDS = 2.0
# From the beginning of the last renewal that came through. What is left of the duration is for requests that were on
# their way: the process ends, its connections with it, and the API server gives up what they asked for.
DEADLINE_SECONDS = 8.0
REQUEST_SECONDS = 2.0
LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Leadership:
    def __init__(
        self,
        leases: Leases,
        key: tuple[str, str],
        identity: str,
        now: Callable[[], Seconds],
        lost: Callable[[str], None],
    ) -> None:
        """`lost` is called with the reason when this process may not act any more; what it began has to end at once.

        `identity` is the pod's name, so that a container that was started again goes on with its own lease. `now` is
        the time of day, which is written down for people and compared with nothing.
        """
        self._leases = leases
        self._key = key
        self._identity = identity
        self._now = now
        self._lost = lost
        self._known: Lease | None = None  # as it was last seen or written
        self._seen_at: Seconds | None = None  # when it was first seen so; None as long as there has never been one
        self._deadline: asyncio.TimerHandle | None = None
        self._version = 0  # of the lease, as it was last read or written
        self._trouble = ""
        self.waits_for = ""

    async def acquire(self) -> None:
        """Wait for the lease, for as long as another one renews it."""
        while True:
            wait = await self._try()
            if wait is None:
                break
            await asyncio.sleep(wait)
        self.waits_for = ""
        logger.info("holds the lease %s/%s as %s", *self._key, self._identity)

    async def keep(self) -> None:
        """Renew the lease until it is lost."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._renew()
            except ClusterError as error:
                self._trouble = str(error)
                logger.warning("could not renew the lease %s/%s: %s", *self._key, error)
                if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND) and not await self._is_still_ours():
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await asyncio.sleep(began + RENEW_SECONDS - loop.time())

    async def release(self) -> None:
        """Let another one have the lease at once, if it is ours. Whatever acts has stopped before."""
        if self._deadline:
            self._deadline.cancel()
        try:
            for _ in range(2):  # a renewal that was given up may come through between the two requests
                found = await self._ask(self._leases.lease(*self._key))
                if found is None or found.holder != self._identity:
                    return
                spec = msgspec.structs.replace(found.spec, holder_identity="", renew_time=self._time())
                try:
                    await self._ask(self._leases.write_lease(msgspec.structs.replace(found, spec=spec)))
                except ClusterError as error:
                    if error.status != HTTPStatus.CONFLICT:
                        raise
                else:
                    logger.info("released the lease %s/%s", *self._key)
                    return
        except ClusterError as error:
            logger.warning("could not release the lease %s/%s, which runs out by itself: %s", *self._key, error)

    async def _try(self) -> Seconds | None:
        """None if the lease is ours now, else when to look again."""
        loop = asyncio.get_running_loop()
        try:
            found = await self._ask(self._leases.lease(*self._key))
            if found != self._known:
                self._known, self._seen_at = found, loop.time()
            left = self._left(loop.time())
            if left > 0:
                self._tell_holder(found.holder if found else "nobody: it was deleted")
                return min(left, LOOK_SECONDS)
            await self._renew()
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT and str(error) != self._trouble:
                logger.warning("can't get the lease %s/%s: %s; tries again", *self._key, error)
            self._trouble = str(error)
            return LOOK_SECONDS
        return None

    def _left(self, at: Seconds) -> Seconds:
        """How long the lease as it is has to go on unchanged before it may be taken."""
        if self._seen_at is None:
            return 0
        if self._known is None:  # deleted: it may have a holder, who will write it anew
            return self._seen_at + DURATION_SECONDS - at
        if self._known.holder in ("", self._identity):
            return 0
        return self._seen_at + (self._known.spec.lease_duration_seconds or DURATION_SECONDS) - at

    async def _renew(self) -> None:
        began = asyncio.get_running_loop().time()
        self._known = await self._ask(self._leases.write_lease(self._written(self._known)))
        self._trouble = ""
        self._arm(began)
        self._goes_backwards()

    async def _is_still_ours(self) -> bool:
        """Look at what another one has made of it; a write of our own that seemed to fail may be there too."""
        try:
            self._known = await self._ask(self._leases.lease(*self._key))
        except ClusterError as error:
            self._trouble = str(error)
            return True  # nobody knows: the deadline counts
        if self._goes_backwards():
            return False
        if self._known is None or self._known.holder == self._identity:
            return True
        self._lose(f"{self._known.holder or 'nobody'} holds it")
        return False

    def _goes_backwards(self) -> bool:
        """Whether etcd was restored from a backup. Watches that go on from a version to come report nothing until then.

        A process that starts again lists everything.
        """
        version = int(self._known.metadata["resourceVersion"]) if self._known else self._version
        goes_backwards, self._version = version < self._version, version
        if goes_backwards:
            self._lose("its version has gone backwards, as after a restore of etcd: all has to be read again")
        return goes_backwards

    def _written(self, known: Lease | None) -> Lease:
        before = known.spec if known else LeaseSpec()
        is_ours = before.holder_identity == self._identity
        spec = LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=DURATION_SECONDS,
            acquire_time=before.acquire_time if is_ours else self._time(),
            renew_time=self._time(),
            lease_transitions=before.lease_transitions + (0 if is_ours else 1),
        )
        namespace, name = self._key
        return Lease(known.metadata if known else {"namespace": namespace, "name": name}, spec)

    def _arm(self, began: Seconds) -> None:
        if self._deadline:
            self._deadline.cancel()
        # A timer, which no task can hold up; after a process was stopped and goes on, it comes before their next steps.
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_at(began + DEADLINE_SECONDS, self._miss)

    def _miss(self) -> None:
        self._lose(f"it could not be renewed for {DEADLINE_SECONDS:g} s: {self._trouble or 'the process stood still'}")

    def _lose(self, reason: str) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._lost(f"lost the lease {'/'.join(self._key)}: {reason}")

    def _tell_holder(self, holder: str) -> None:
        if holder != self.waits_for:
            logger.info("waits: the lease %s/%s is held by %s", *self._key, holder)
        self.waits_for = holder

    def _time(self) -> str:
        return moment(self._now()).isoformat(timespec="microseconds").replace("+00:00", "Z")

    async def _ask(self, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await request
        except TimeoutError as error:
            raise ClusterError(0, f"no answer within {REQUEST_SECONDS:g} s") from error
