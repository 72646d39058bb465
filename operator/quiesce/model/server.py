"""What a server says at its admin endpoint."""

from typing import Literal

import msgspec

SuspendState = Literal["RUNNING", "PRE_SUSPEND", "SUSPENDING", "SUSPENDED"]


class Report(msgspec.Struct, frozen=True):
    """One look at a server.

    `runs` is false while it boots or stops, and while it serves nobody until something else is done to it: `waits_for`
    says what. `active_requests` is None when the server does not count them.
    `shed` says whether something makes answers close their connections, `sheds_all` whether nothing is left that does
    not: both hold for a server that is shed, and only the second for one that has no HTTP hosts.
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
    """Why a server could not be asked, in words for the person who can mend it.

    `Unreachable` is what booting and stopping servers do as well; the other kinds need a person.
    """

    kind: FailureKind
    message: str
    hung_up: bool = False  # something accepted the connection, and ended it without an answer
