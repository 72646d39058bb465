"""What a server reports at its admin endpoint."""

from typing import Literal

import msgspec

SuspendState = Literal["RUNNING", "PRE_SUSPEND", "SUSPENDING", "SUSPENDED"]


class Report(msgspec.Struct, frozen=True):
    """One look at a server.

    `runs` is false while it boots or stops, and while it serves no requests until someone intervenes: `waits_for` says
    how. `active_requests` is None if the server does not count them.
    `shed` says whether any HTTP host closes connections with its responses, `sheds_all` whether every host does: both
    are true for a server that is shed, and only the second for a server without HTTP hosts.
    """

    suspend_state: SuspendState
    server_state: str
    runs: bool
    active_requests: int | None
    shed: bool
    sheds_all: bool
    waits_for: str = ""


FailureKind = Literal["Unreachable", "Unauthorized", "Forbidden", "Unexpected", "Misconfigured"]


class AdminFailure(msgspec.Struct, frozen=True):
    """Why a server could not be queried, in words for whoever can fix it.

    Servers are `Unreachable` also while they boot and stop; the other kinds need intervention.
    """

    kind: FailureKind
    message: str
    hung_up: bool = False  # something accepted the connection, and ended it without an answer
