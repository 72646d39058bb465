"""Leadership: of all the operator's processes, only the one that holds the Lease acts.

A process that waits goes only by its own clock: a Lease that has not been written for its whole duration no longer has
a holder. The holder stops well before that, so that its last requests can't take effect once another process may act.
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
# From the beginning of the last successful renewal. The rest of the duration is for requests in flight: the process
# exits, which closes its connections, and the API server abandons these requests.
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
        """`lost` is called with the reason when this process may not act any more; it must stop immediately.

        `identity` is the pod's name, so that a restarted container continues with its own Lease. `now` is the time of
        day, which is recorded for users and never compared.
        """
        self._leases = leases
        self._key = key
        self._identity = identity
        self._now = now
        self._lost = lost
        self._known: Lease | None = None  # as it was last seen or written
        self._seen_at: Seconds | None = None  # when it was first seen so; None if it has never existed
        self._deadline: asyncio.TimerHandle | None = None
        self._version = 0  # of the Lease, as last read or written
        self._trouble = ""
        self.waits_for = ""

    async def acquire(self) -> None:
        """Wait for the Lease while another process renews it."""
        while True:
            wait = await self._try()
            if wait is None:
                break
            await asyncio.sleep(wait)
        self.waits_for = ""
        logger.info("acquired the lease %s/%s as %s", *self._key, self._identity)

    async def keep(self) -> None:
        """Renew the Lease until it is lost."""
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
        """Release the Lease if it is ours, for another process to take immediately. The loop has already stopped."""
        if self._deadline:
            self._deadline.cancel()
        try:
            for _ in range(2):  # a cancelled renewal may still succeed between the two requests
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
            logger.warning("could not release the lease %s/%s, which will expire: %s", *self._key, error)

    async def _try(self) -> Seconds | None:
        """None if the Lease is ours now, else when to look again."""
        loop = asyncio.get_running_loop()
        try:
            found = await self._ask(self._leases.lease(*self._key))
            if found != self._known:
                self._known, self._seen_at = found, loop.time()
            left = self._left(loop.time())
            if left > 0:
                self._tell_holder(found.holder if found else "no one: it was deleted")
                return min(left, LOOK_SECONDS)
            await self._renew()
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT and str(error) != self._trouble:
                logger.warning("could not acquire the lease %s/%s: %s; retrying", *self._key, error)
            self._trouble = str(error)
            return LOOK_SECONDS
        return None

    def _left(self, at: Seconds) -> Seconds:
        """How long the Lease has to remain unchanged before it may be taken."""
        if self._seen_at is None:
            return 0
        if self._known is None:  # deleted: it may have a holder that will create it again
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
        """Check who holds it now; a write of our own that seemed to fail may have succeeded."""
        try:
            self._known = await self._ask(self._leases.lease(*self._key))
        except ClusterError as error:
            self._trouble = str(error)
            return True  # unknown: the deadline decides
        if self._goes_backwards():
            return False
        if self._known is None or self._known.holder == self._identity:
            return True
        self._lose(f"{self._known.holder or 'no one'} holds it")
        return False

    def _goes_backwards(self) -> bool:
        """Whether etcd was restored from a backup. A watch from a future version reports nothing until then.

        A new process lists everything.
        """
        version = int(self._known.metadata["resourceVersion"]) if self._known else self._version
        goes_backwards, self._version = version < self._version, version
        if goes_backwards:
            self._lose("its version has gone backwards, as after a restore of etcd: everything must be listed again")
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
        # A timer, which no task can delay; if the process was paused, it fires before the tasks' next steps.
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_at(began + DEADLINE_SECONDS, self._miss)

    def _miss(self) -> None:
        self._lose(f"it could not be renewed for {DEADLINE_SECONDS:g} s: {self._trouble or 'the process was paused'}")

    def _lose(self, reason: str) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._lost(f"lost the lease {'/'.join(self._key)}: {reason}")

    def _tell_holder(self, holder: str) -> None:
        if holder != self.waits_for:
            logger.info("waiting: the lease %s/%s is held by %s", *self._key, holder)
        self.waits_for = holder

    def _time(self) -> str:
        return moment(self._now()).isoformat(timespec="microseconds").replace("+00:00", "Z")

    async def _ask(self, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await request
        except TimeoutError as error:
            raise ClusterError(0, f"no answer within {REQUEST_SECONDS:g} s") from error
