"""What a decision says: what to do next, why, and what to report. Plans are values; `control` carries them out."""

from typing import Any

import msgspec

from quiesce.model import names
from quiesce.model.resources import Drain, LastDrain, State
from quiesce.model.text import MESSAGE_BYTES, REASON_BYTES, shown
from quiesce.model.times import Seconds


class Act(msgspec.Struct, frozen=True):
    """One step. `control` performs it, returns, and observes the cluster again."""


class AddFinalizer(Act, frozen=True):
    pass


class RemoveFinalizer(Act, frozen=True):
    pass


class ConsumeAnnotation(Act, frozen=True):
    """Remove a one-shot annotation, once the request is recorded in the status. Another value is another request."""

    annotation: str
    value: str


class CheckTemplate(Act, frozen=True):
    """Ask the API server, with a dry run, whether it would accept the pod of a new template."""

    pod: dict[str, Any]
    template_hash: str


class CreatePod(Act, frozen=True):
    pod: dict[str, Any]


class AdoptPod(Act, frozen=True):
    """Become the owner of a pod that has none, or whose owner, with the UID `gone`, no longer exists."""

    owner: dict[str, Any]
    gone: str = ""


class SetGate(Act, frozen=True):
    """Open or close the readiness gate, and add or remove the label of the same name, in one write.

    `served_container` is recorded with it: the container that receives requests, or did.
    """

    open: bool
    reason: str
    served_container: str = ""


class LabelPod(Act, frozen=True):
    """Restore labels that were removed or changed; None removes one."""

    labels: dict[str, str | None]


class Shed(Act, frozen=True):
    """From now on, every response of the server closes its connection."""


class Unshed(Act, frozen=True):
    pass


class SuspendServer(Act, frozen=True):
    """The hard suspend: the server refuses new work from now on."""


class ResumeServer(Act, frozen=True):
    pass


class StopServer(Act, frozen=True):
    """End the server's process. Only if the kubelet is terminating the container too: otherwise, it restarts it."""


class DeletePod(Act, frozen=True):
    """Delete this pod, and no other with its name. `grace_seconds` None: the pod's own grace period."""

    grace_seconds: int | None = None


class ApplyServer(Act, frozen=True):
    """Create an AppServer of a group, or update it to this manifest."""

    manifest: dict[str, Any]


class DeleteServer(Act, frozen=True):
    name: str
    uid: str


class ApplyObject(Act, frozen=True):
    """Create an object that the group maintains besides its servers, or update it to this manifest."""

    manifest: dict[str, Any]


class DeleteObject(Act, frozen=True):
    kind: str
    name: str
    uid: str


# What an act asks for, after "the request to".
WORDS: dict[type[Act], str] = {
    AddFinalizer: f"add the finalizer {names.FINALIZER}",
    RemoveFinalizer: f"remove the finalizer {names.FINALIZER}",
    CreatePod: "create the pod",
    AdoptPod: "make the AppServer the owner of the pod",
    Shed: "close connections with each response",
    Unshed: "keep connections open again",
    SuspendServer: "suspend the server",
    ResumeServer: "resume the server",
    StopServer: "shut down the server",
    DeletePod: "delete the pod",
}


def in_words(act: Act) -> str:
    match act:
        case ConsumeAnnotation(annotation):
            return f"remove the annotation {annotation}"
        case SetGate(is_open):
            return f"{'open' if is_open else 'close'} the readiness gate {names.GATE}"
        case _:
            return WORDS[type(act)]


# Before these, the objects are read live: what they do can't be undone immediately.
DISRUPTIVE = (RemoveFinalizer, AdoptPod, SetGate, SuspendServer, StopServer, DeletePod, ApplyServer, DeleteServer)


class Note(msgspec.Struct, frozen=True):
    """Something to report as an Event: a bad value, a request with nothing to act on."""

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
    # How long the status may stay unwritten: what is over by then is reported together with what comes next.
    tell_within: Seconds = 0
    drain: Drain | None = None
    finished: LastDrain | None = None
    restart_pod_uid: str | None = None
    stalled: str = ""  # a reason, if something is wrong that may need intervention
    stalls_at: Seconds = 0  # when it counts as stalled: until then, it may resolve itself
    drifted: bool = False
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        _fit_to_be_shown(self, reason=REASON_BYTES, message=MESSAGE_BYTES, stalled=REASON_BYTES)


def _fit_to_be_shown(said: Note | ServerPlan, **limits: int) -> None:
    """Text from outside reaches these fields in many ways: it is escaped and truncated here, for all of them."""
    for field, limit in limits.items():
        msgspec.structs.force_setattr(said, field, shown(getattr(said, field), limit))
