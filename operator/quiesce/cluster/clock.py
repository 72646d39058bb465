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

logger = logging.getLogger(__name__)


class Clock:
    def __init__(self, wall: Callable[[], Seconds] = time.time, tick: Callable[[], Seconds] = time.monotonic) -> None:
        self._wall = wall
        self.tick = tick  # for intervals: it can't be set
        self.offset = wall() - tick()  # of the time of day
        self._has_heard = False
        self._reported_skew: Seconds = 0.0

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
        if self._has_heard and abs(changed_by) >= CHANGE_SECONDS:
            logger.warning("the API server's clock has been set by %+.0f s", changed_by)
        self._has_heard = True
        self._report_skew()

    def _report_skew(self) -> None:
        skew = self._wall() - self.now()
        if abs(skew - self._reported_skew) >= CHANGE_SECONDS:
            self._reported_skew = skew
            logger.warning(
                "this node's clock differs by %+.0f s from the API server's, which the operator uses",
                skew,
            )
