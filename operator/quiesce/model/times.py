"""Times: seconds since the epoch for calculations, `datetime` where Kubernetes writes them (RFC 3339)."""

from datetime import UTC, datetime

Seconds = float
Moment = datetime


def seconds(time: datetime | None) -> Seconds | None:
    return None if time is None else time.timestamp()


def moment(time: Seconds) -> datetime:
    """A time to record, in milliseconds: a drain takes seconds, and its phases less."""
    return datetime.fromtimestamp(round(time, 3), UTC)
