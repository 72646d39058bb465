"""Acts that failed: each is paced and reported, and keeps no other act from being tried."""

from http import HTTPStatus

from quiesce.admin.port import AdminError
from quiesce.cluster.port import ClusterError
from quiesce.control.queue import back_off
from quiesce.decide.refusal import Refusal
from quiesce.model.plan import Act
from quiesce.model.times import Seconds

FIRST_REFUSED_SECONDS = 1.0


def refused(act: Act, error: ClusterError | AdminError, before: Refusal | None, now: Seconds) -> Refusal:
    """`before`: how the same act failed the last time, if it has not succeeded since."""
    count, since = (before.count + 1, before.since) if before else (1, now)
    wait = back_off(count, FIRST_REFUSED_SECONDS)
    if isinstance(error, AdminError):
        return Refusal(act, f"Admin{error.failure.kind}", error.failure.message, now + wait, count, since)
    wait = max(wait, error.retry_after)
    if error.status == HTTPStatus.CONFLICT and count == 1:
        wait = 0  # with a write at the same time: the next one sees it
    reason = f"{type(act).__name__}Refused"
    return Refusal(act, reason, error.message, now + wait, count, since, may_pass=not error.is_refusal)
