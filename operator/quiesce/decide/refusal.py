"""Acts that failed: since when, when they are retried, and when that is reported."""

from typing import Self

import msgspec

from quiesce.model.plan import Act
from quiesce.model.times import Seconds

# A refusal that lasts for less may come from a webhook that restarts, or a namespace that is still being set up.
REFUSED_SECONDS = 10


class Refusal(msgspec.Struct, frozen=True):
    act: Act
    reason: str
    message: str
    retry_at: Seconds
    count: int = 1
    since: Seconds = 0  # when it failed for the first time
    may_pass: bool = False  # the API server was busy, restarted or did not answer: nobody has refused anything

    def moved(self, by: Seconds) -> Self:
        return msgspec.structs.replace(self, retry_at=self.retry_at + by, since=self.since + by)

    @property
    def stalls_at(self) -> Seconds:
        return self.since + REFUSED_SECONDS

    @property
    def tell_at(self) -> Seconds:
        return self.stalls_at if self.may_pass else self.since
