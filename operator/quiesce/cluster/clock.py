"""The time: a monotonic clock, and the time of day by the API server's clock.

Deadlines that outlive this process are written by the API server, or compared with what it writes. So its clock
counts, not that of the operator's node: each of its responses has a Date.
"""

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from quiesce.model.times import Seconds

# The Date of a response has whole seconds: only a larger change means that a clock was set.
CHANGE_SECONDS = 2.0
# API servers whose clocks differ answer in turn. Each clock is logged once, and again only if no answer has had it for
# so long.
FORGET_SECONDS = 600.0

logger = logging.getLogger(__name__)


class Reported:
    """What the log says already, and until when: a value that comes and goes is reported only once."""

    def __init__(self) -> None:
        self._until: dict[Seconds, Seconds] = {}

    def has(self, value: Seconds, now: Seconds) -> bool:
        """Whether a value was reported, which holds for longer each time that it is seen again."""
        known = [near for near, until in self._until.items() if now < until and abs(near - value) < CHANGE_SECONDS]
        self._until |= dict.fromkeys(known, now + FORGET_SECONDS)
        return bool(known)

    def add(self, value: Seconds, now: Seconds) -> None:
        self._until = {near: until for near, until in self._until.items() if now < until}
        self._until[value] = now + FORGET_SECONDS


class Clock:
    def __init__(self, wall: Callable[[], Seconds] = time.time, tick: Callable[[], Seconds] = time.monotonic) -> None:
        self._wall = wall
        self.tick = tick  # for intervals: it can't be set
        self.offset = wall() - tick()  # of the time of day
        self._has_heard = False
        self._reported_offsets, self._reported_skews = Reported(), Reported()
        self._skew: Seconds = 0.0

    def now(self) -> Seconds:
        """The time of day, in seconds since the epoch. It is corrected: see `offset`."""
        return self.tick() + self.offset

    def hear(self, date: str | None, sent_at: Seconds) -> None:
        """Process the Date (RFC 9110) of a response that has just arrived, to a request sent at that tick."""
        try:
            said = parsedate_to_datetime(date).timestamp() if date else None
        except ValueError:
            return
        if said is None:
            return
        # It was that time at some moment since the request was sent. The offset is corrected only as far as necessary.
        corrected = min(max(self.offset, said - self.tick()), said + 1 - sent_at)
        changed_by, self.offset = corrected - self.offset, corrected
        is_reported = self._reported_offsets.has(self.offset, self.tick())
        if self._has_heard and abs(changed_by) >= CHANGE_SECONDS and not is_reported:
            self._reported_offsets.add(self.offset, self.tick())
            logger.warning("the API server's clock has been set by %+.0f s", changed_by)
        self._has_heard = True
        self._report_skew()

    def _report_skew(self) -> None:
        skew = self._wall() - self.now()
        is_reported = self._reported_skews.has(skew, self.tick())
        if abs(skew - self._skew) < CHANGE_SECONDS:
            return
        self._skew = skew
        if not is_reported:
            self._reported_skews.add(skew, self.tick())
            logger.warning("this node's clock differs by %+.0f s from the API server's, which the operator uses", skew)
