"""What a decision says: what to do next, why, and what to tell. Plans are values; `control` carries them out."""

from typing import Any

import msgspec

from quiesce.model.resources import Drain, LastDrain, State
from quiesce.model.text import MESSAGE_BYTES, REASON_BYTES, shown
from quiesce.model.times import Seconds


class Act(msgspec.Struct, frozen=True):
    """One step. `control` does it, returns, and looks at the world again."""


class AddFinalizer(Act, frozen=True):
    pass


class RemoveFinalizer(Act, frozen=True):
    pass


class ConsumeAnnotation(Act, frozen=True):
    """Take a one-shot annotation away; what it asked for stands in the status by then."""

    annotation: str


class CheckTemplate(Act, frozen=True):
    """Ask the API server, by a dry run, whether it would take the pod of a new template."""

    pod: dict[str, Any]
    template_hash: str


class CreatePod(Act, frozen=True):
    pod: dict[str, Any]


class AdoptPod(Act, frozen=True):
    """Become the owner of a pod that has none, or in place of one that is gone, which this UID names."""

    owner: dict[str, Any]
    gone: str = ""


class SetGate(Act, frozen=True):
    """Open or close the readiness gate, and put the label of its name on the pod or take it off, in one write.

    `served_container` is written down with it: the container that clients are, or were, let in to.
    """

    open: bool
    reason: str
    served_container: str = ""


class LabelPod(Act, frozen=True):
    """Put labels back that somebody has taken off, or changed; None takes one off."""

    labels: dict[str, str | None]


class Shed(Act, frozen=True):
    """Every answer of the server closes its connection from now on."""


class Unshed(Act, frozen=True):
    pass


class SuspendServer(Act, frozen=True):
    """The hard suspend: the server refuses new work from here on."""


class ResumeServer(Act, frozen=True):
    pass


class StopServer(Act, frozen=True):
    """End the server's process. Only where the kubelet is ending it too: it starts any other process again."""


class DeletePod(Act, frozen=True):
    """Delete this pod, no other of its name. `grace_seconds` None: the pod's own grace period."""

    grace_seconds: int | None = None


class ApplyServer(Act, frozen=True):
    """Create an AppServer of a group, or bring it to this manifest."""

    manifest: dict[str, Any]


class DeleteServer(Act, frozen=True):
    name: str
    uid: str


class ApplyObject(Act, frozen=True):
    """Create an object that the group keeps beside its servers, or bring it to this manifest."""

    manifest: dict[str, Any]


class DeleteObject(Act, frozen=True):
    kind: str
    name: str
    uid: str


# Before these, the world is looked at live: they take something away that the next look can't give back at once.
DISRUPTIVE = (RemoveFinalizer, AdoptPod, SetGate, SuspendServer, StopServer, DeletePod, ApplyServer, DeleteServer)


class Note(msgspec.Struct, frozen=True):
    """Something to tell as an Event: a bad value, a request with nothing to act on."""

    reason: str
    message: str
    warning: bool = True

    def __post_init__(self) -> None:
        _fit_to_be_shown(self, reason=REASON_BYTES, message=MESSAGE_BYTES)


class ServerPlan(msgspec.Struct, frozen=True):
    """What to do with one server: `state`, `reason` and `message` go to the status, the log and the Event alike."""

    state: State
    reason: str
    message: str
    act: Act | None = None
    wake: Seconds | None = None
    # For how long it may stay unwritten: what is over by then is told along with what comes next.
    tell_within: Seconds = 0
    drain: Drain | None = None
    finished: LastDrain | None = None
    restart_pod_uid: str | None = None
    stalled: str = ""  # a reason, when something is wrong that a person may have to mend
    stalls_at: Seconds = 0  # from when on: what is wrong for less than so long may pass by itself
    drifted: bool = False
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        _fit_to_be_shown(self, reason=REASON_BYTES, message=MESSAGE_BYTES, stalled=REASON_BYTES)


def _fit_to_be_shown(said: Note | ServerPlan, **limits: int) -> None:
    """What others wrote comes into these fields by many ways: it is cleaned and bounded here, for all of them."""
    for field, limit in limits.items():
        msgspec.structs.force_setattr(said, field, shown(getattr(said, field), limit))
