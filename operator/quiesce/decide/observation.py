"""What a decision about one server is based on."""

import math
from typing import Self

import msgspec

from quiesce.decide.podspec import admin_port, hash_of, is_of, revision
from quiesce.decide.refusal import Refusal
from quiesce.model import names
from quiesce.model.objects import ContainerStatus, Node, Pod, Target
from quiesce.model.plan import (
    Act,
    AddFinalizer,
    CheckTemplate,
    ConsumeAnnotation,
    LabelPod,
    ResumeServer,
    ServerPlan,
    SetGate,
    Shed,
    SuspendServer,
    Unshed,
)
from quiesce.model.resources import STAYS, AppServer, AppServerStatus, ServerGroup
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Moment, Seconds, moment, seconds

# A drain proceeds to the stop this long before the kubelet would end the hold, or half-way through a short hold.
STOP_RESERVE_SECONDS = 5
# The kubelet removes a deleted pod within its grace period and this.
OVERDUE_SECONDS = 10
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
# An act that was accepted and has had no effect for so long is reported. After twice as long, the drain of a server
# that is being stopped continues without it; if the server stays, there is time to fix it.
NO_EFFECT_SECONDS = 3
REPEATED_SECONDS = 30
# A server that doesn't respond for less is queried again before that is reported.
SILENT_SECONDS = 5
# A problem with a server that lasts for less may be a pause, a reload or a new Secret, and resolve itself.
PASSING_SECONDS = 30
# An autoscaler adds a node, and a node reboots, within about this time.
NODE_COMES_SECONDS = 120

# A smaller correction of the time of day means that the API server's clock is now known better, a larger one that it
# was set.
CLOCK_SET_SECONDS = 2

# Acts that are retried independently of the others: neither kind blocks the other.
ASIDE = (CheckTemplate, ConsumeAnnotation, LabelPod)


# The fields of a server's notes that are times.
OWN_TIMES = (
    "confirmed_at",
    "shed_at",
    "answered_at",
    "quiet_since",
    "silent_since",
    "failing_since",
    "booting_since",
    "acted_at",
    "acted_since",
    "labelled_at",
    "checked_at",
    "write_at",
)


class Untold(msgspec.Struct, frozen=True):
    """A status that is in effect but not written yet: it may not last, or the API server rejects it."""

    server_uid: str
    written: AppServerStatus
    status: AppServerStatus
    since: Seconds
    due: Seconds


class NodeSays(msgspec.Struct, frozen=True):
    """What is known about the node of a pod that is not gone in time: certainly off, healthy, or neither."""

    is_off: bool
    is_ready: bool
    words: str


def node_says(node: Node | None) -> NodeSays:
    if node is None:
        return NodeSays(is_off=True, is_ready=False, words="no longer exists")
    if any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints):
        return NodeSays(is_off=True, is_ready=False, words=f"has the taint {OUT_OF_SERVICE}")
    condition = node.status.condition("Ready")
    ready = condition.status if condition else "Unknown"
    words = "is Ready" if ready == "True" else f"does not respond (Ready is {ready})"
    return NodeSays(is_off=False, is_ready=ready == "True", words=words)


class Notes(msgspec.Struct, frozen=True):
    """What this process has measured and learned about one container. Losing it costs time, never a request."""

    container_id: str = ""
    confirmed_at: Seconds | None = None  # since when no EndpointSlice lists the pod as ready
    shed_at: Seconds | None = None  # since when every response closes its connection
    # When all requests that were in flight at the shed had ended: their responses left their connections open.
    answered_at: Seconds | None = None
    shed_refused: str = ""  # why the server can't be shed in this drain
    quiet_since: Seconds | None = None  # since when nothing was active
    silent_since: Seconds | None = None  # since when the admin endpoint doesn't respond
    failing_since: Seconds | None = None  # since when it returns nothing about the server
    booting_since: Seconds | None = None  # since when the server has responded, but not reported that it runs
    acted: Act | None = None  # the last act that was not refused
    acted_at: Seconds = 0
    acted_since: Seconds | None = None  # when it was first performed, until it has an effect
    refusal: Refusal | None = None
    aside: tuple[Refusal, ...] = ()  # of acts that are retried independently, one of each kind
    # Requests that are in effect, although the status that records them can't be written: they stay on the object.
    unrecorded: tuple[ConsumeAnnotation, ...] = ()
    labelled_at: Seconds = 0  # when labels that were removed from the pod were restored
    checked_template: str = ""  # the hash of the template that the API server last accepted
    checked_at: Seconds = 0
    untold: Untold | None = None
    unwritten: int = 0  # how often in a row the status could not be written
    write_at: Seconds = 0  # when it is retried
    # Times of the drain and of the deletion as written, and as the clock would have shown them had it been set as now.
    stamps: dict[Moment, Moment] = {}

    def moved(self, by: Seconds) -> Self:
        """The same notes after a correction of the time of day: elapsed and remaining times stay the same."""
        if not by:
            return self
        replace = msgspec.structs.replace
        untold = self.untold
        moved = {name: at + by for name in OWN_TIMES if (at := getattr(self, name))}
        clock_set = abs(by) >= CLOCK_SET_SECONDS
        stamps = {written: moment(at.timestamp() + by) for written, at in self.stamps.items()}
        return replace(
            self,
            **moved,
            refusal=self.refusal and self.refusal.moved(by),
            aside=tuple(refusal.moved(by) for refusal in self.aside),
            untold=untold and replace(untold, since=untold.since + by, due=untold.due + by),
            stamps=stamps if clock_set else self.stamps,
        )

    def refused(self, act: Act) -> Refusal | None:
        return next((refusal for refusal in (self.refusal, *self.aside) if refusal and refusal.act == act), None)

    def has_taken_up(self, act: ConsumeAnnotation) -> bool:
        """Whether a request is in effect, and only its annotation is still there."""
        return act in self.unrecorded or self.refused(act) is not None

    def repeats(self, act: Act, now: Seconds) -> bool:
        """Whether it repeats the last act; an act much later has a reason of its own."""
        return self.acted == act and now - self.acted_at < REPEATED_SECONDS

    def after(self, act: Act, refusal: Refusal | None, now: Seconds) -> Self:
        """The notes, with the result of an act."""
        replace = msgspec.structs.replace
        since = self.acted_since if self.repeats(act, now) and self.acted_since is not None else now
        if not isinstance(act, ASIDE):
            return replace(self, refusal=refusal, acted=None if refusal else act, acted_at=now, acted_since=since)
        others = tuple(other for other in self.aside if _kind(other.act) != _kind(act))
        aside = (*others, refusal) if refusal else others
        if isinstance(act, LabelPod):
            return replace(self, aside=aside, labelled_at=now)
        if isinstance(act, CheckTemplate):
            taken = "" if refusal else act.template_hash
            return replace(self, aside=aside, checked_template=taken, checked_at=now)
        if refusal:
            return replace(self, aside=aside)
        unrecorded = tuple(other for other in self.unrecorded if other != act)  # set again, it is another request
        return replace(self, aside=aside, unrecorded=unrecorded, acted=act, acted_at=now, acted_since=since)


class Observation(msgspec.Struct, frozen=True):
    """A snapshot of everything around a server. `admin` is None if the server could not be queried yet."""

    now: Seconds
    server: AppServer
    group: ServerGroup | None = None
    pod: Pod | None = None
    routes: tuple[str, ...] = ()  # Services whose EndpointSlices still list the pod as ready
    unconfirmable: tuple[str, ...] = ()  # Services that publish addresses that are not ready
    targets: tuple[Target, ...] = ()  # the pod's ports that Services send requests to, as long as it is ready
    admin: Report | AdminFailure | None = None
    killed_at: Seconds | None = None  # when the kubelet began to restart the server's container
    group_is_ahead: bool = False  # whether its group has yet to update the servers' specs
    has_room: bool = True  # whether a rollout may take it out: enough others of its group serve
    is_dispensable: bool = False  # whether it is a surge server, and the rollout continues without it
    gives_way: bool = False  # whether it is a surge server, and pods of its group's other servers are created first
    node: NodeSays | None = None  # only of a pod that is overdue
    notes: Notes = Notes()

    def in_vain_for(self, act: Act) -> Seconds:
        """For how long an act has been repeated, each time reported as done, without an effect."""
        since = self.notes.acted_since
        return self.now - since if since is not None and self.notes.repeats(act, self.now) else 0

    @property
    def container(self) -> ContainerStatus | None:
        """The container that runs the server, if it runs."""
        found = self.own_status
        return found if found and found.state.running and found.container_id else None

    @property
    def own_status(self) -> ContainerStatus | None:
        """The status of the server's container: the one with the admin port."""
        if self.pod is None:
            return None
        port = admin_port(self.server, self.pod)
        return next((c for c in self.pod.status.container_statuses if port and c.name == port.container), None)

    @property
    def missed(self) -> bool:
        """Whether the server didn't respond this time, but did a moment ago."""
        silent_since = self.notes.silent_since
        return silent_since is not None and self.now - silent_since < SILENT_SECONDS

    @property
    def told_stalled(self) -> str:
        """What the status reports as stalled."""
        stalled = self.server.status.holding("Stalled")
        return stalled.reason if stalled else ""

    @property
    def told_reason(self) -> str:
        """What the status says the server does or waits for."""
        told = self.server.status.condition("Progressing")
        return told.reason if told else ""

    @property
    def told_settled(self) -> bool:
        """Whether the status says that nothing is left to do."""
        told = self.server.status.condition("Progressing")
        return told is not None and told.status == "False"

    @property
    def progressing_since(self) -> Seconds | None:
        """Since when the status says that something is left to do."""
        told = self.server.status.holding("Progressing")
        return seconds(told.last_transition_time) if told else None

    @property
    def drifted_since(self) -> Seconds | None:
        """Since when the status says that someone else has suspended the server."""
        drifted = self.server.status.holding("Drifted")
        return seconds(drifted.last_transition_time) if drifted else None

    @property
    def admin_stalls_at(self) -> Seconds:
        """When a failing admin endpoint counts as stalled."""
        return (self.now if self.notes.failing_since is None else self.notes.failing_since) + PASSING_SECONDS

    @property
    def leaving(self) -> bool:
        return self.pod is not None and self.pod.metadata.deletion_timestamp is not None

    @property
    def leaving_for(self) -> Seconds:
        """How long ago its pod was deleted; its deletionTimestamp includes the grace period."""
        gone_at = seconds(self.pod.metadata.deletion_timestamp) if self.pod else None
        grace = (self.pod.metadata.deletion_grace_period_seconds if self.pod else None) or 0
        return 0 if gone_at is None else self.now - (gone_at - grace)

    @property
    def overdue_in(self) -> Seconds:
        """When a pod that is being deleted should be gone; its deletionTimestamp includes the grace period."""
        gone_at = seconds(self.pod.metadata.deletion_timestamp) if self.pod else None
        return math.inf if gone_at is None else gone_at + OVERDUE_SECONDS - self.now

    @property
    def may_be_lost(self) -> bool:
        """Whether there is a reason to check the node of a pod that is being deleted."""
        silent = self.notes.silent_since is not None and self.now - self.notes.silent_since >= SILENT_SECONDS
        return self.leaving and (self.overdue_in <= 0 or silent)

    @property
    def pod_may_be_gone(self) -> bool:
        """Whether there is a reason to check the pod: its server says nothing, or it should be gone by now."""
        failing_since = self.notes.failing_since
        fails = failing_since is not None and self.now - failing_since >= SILENT_SECONDS
        return fails or self.overdue_in <= 0

    @property
    def restart_ends_in(self) -> Seconds:
        """How long the kubelet may still take to end the container that it restarts in place; 0 if it doesn't.

        A kubelet that was itself restarted in the meantime may not continue.
        """
        running = self.container.state.running if self.container else None
        started_at = seconds(running.started_at) if running else None
        if self.pod is None or self.leaving or self.killed_at is None or started_at is None:
            return 0
        if self.killed_at <= started_at:
            return 0  # it was an earlier container
        limit = self.killed_at + self.pod.spec.termination_grace_period_seconds + OVERDUE_SECONDS
        return max(0, limit - self.now)

    @property
    def has_served(self) -> bool:
        """Whether the operator has opened the gate for this container."""
        return self.container is not None and self._served_container == self.container.container_id

    @property
    def was_reached(self) -> bool:
        """Whether clients can have connections to this container, no matter who opened the gate.

        A gate that is still open after a restart in place was opened for the previous container: no client gets in
        before the pod is ready.
        """
        if self.container is None or self.pod is None or self.has_served:
            return self.has_served
        return self.pod.holds(names.GATE) and (not self._served_container or self.pod.holds("Ready"))

    @property
    def _served_container(self) -> str:
        return self.pod.metadata.annotations.get(names.SERVED_CONTAINER, "") if self.pod else ""

    @property
    def reachable(self) -> bool:
        """Whether there is anything to drain: the gate is or was open, and the server still accepts requests."""
        if self.container is None or self.waits_for:
            return False
        return self.has_served or (self.pod is not None and self.pod.holds(names.GATE))

    @property
    def waits_for(self) -> str:
        """What a server that responds to the operator still needs from someone before it accepts requests."""
        return self.admin.waits_for if isinstance(self.admin, Report) else ""

    def as_told(self) -> ServerPlan:
        """A plan that repeats what the status says already."""
        status, told = self.server.status, self.server.status.condition("Progressing")
        return ServerPlan(
            status.state or "Pending",
            told.reason if told else "",
            told.message if told else "",
            drain=status.suspend,
            stalled=self.told_stalled,
            drifted=self.drifted_since is not None,
        )

    @property
    def template_has_changed(self) -> bool:
        """Whether the pod was created from another template, or for another admin port."""
        return self.pod is not None and not is_of(self.pod, revision(self.server.spec))

    @property
    def out_of_date(self) -> str:
        """Why the pod has to be replaced; empty if it is up to date."""
        if self.pod is None:
            return ""
        if self.template_has_changed:
            of_template = self.pod.metadata.annotations.get(names.TEMPLATE_HASH)
            is_same = of_template == hash_of(self.server.spec)
            return "the admin port has changed" if is_same else "the template has changed"
        if self.server.status.restart_pod_uid == self.pod.metadata.uid:
            return "a restart was requested"
        return ""

    @property
    def stop_at(self) -> Seconds | None:
        """When the server of a pod that is being deleted is stopped, even if the drain is not complete.

        The kubelet signals it at the end of the hold, or of the grace period if that is shorter.
        """
        if self.pod is None or self.pod.metadata.deletion_timestamp is None:
            return None
        grace = self.pod.metadata.deletion_grace_period_seconds or 0
        end = seconds(self.pod.metadata.deletion_timestamp)
        if end is None:
            return None
        try:
            hold = int(self.pod.metadata.annotations.get(names.HOLD_SECONDS, grace))
        except ValueError:  # someone has edited it
            hold = grace
        held = max(0, min(hold, grace))
        return end - grace + held - min(STOP_RESERVE_SECONDS, held / 2)

    def _booting_since(self, report: Report | None, known: Seconds | None) -> Seconds | None:
        """A server that has run also boots when it reloads, in the same container."""
        if report and report.runs:
            return None
        if report is None or known is not None:
            return known
        has_run = self.server.status.state not in (None, "Pending", "Starting")
        return self.now if has_run else self.progressing_since or 0

    def _still_asks(self, act: Act) -> bool:
        """False if someone else has removed the annotation, or set it again: that is another request."""
        annotations = self.server.metadata.annotations
        return not isinstance(act, ConsumeAnnotation) or annotations.get(act.annotation) == act.value

    def _has_effect(self, act: Act | None) -> bool:
        """Whether an act has had its effect: if that is gone later, someone else has undone it."""
        report = self.admin if isinstance(self.admin, Report) else None
        match act, self.pod, report:
            case AddFinalizer(), _, _:
                return names.FINALIZER in self.server.metadata.finalizers
            case SetGate(is_open, _, served), Pod() as pod, _:
                return pod.holds(names.GATE) == is_open and served in ("", self._served_container)
            case Shed() | Unshed(), _, Report(shed=shed, sheds_all=sheds_all):
                return sheds_all if isinstance(act, Shed) else not shed
            case SuspendServer() | ResumeServer(), _, Report(suspend_state=state):
                return (state == "RUNNING") == isinstance(act, ResumeServer)
            case _:
                return False

    def measured(self) -> Self:
        """The same observation, with the notes updated from it, and with the status that is yet to be written."""
        container_id = self.container.container_id if self.container else ""
        notes, server = self.notes, self.server
        if notes.untold and notes.untold.server_uid != server.metadata.uid:
            notes = msgspec.structs.replace(notes, untold=None)
        if notes.untold:
            server = msgspec.structs.replace(server, status=notes.untold.status)
        written = _stamps(server, self.pod)
        notes = msgspec.structs.replace(notes, stamps={at: notes.stamps.get(at, at) for at in written})
        server, pod = _restamped(server, self.pod, notes.stamps)
        if notes.container_id != container_id:
            notes = msgspec.structs.replace(
                notes,
                container_id=container_id,
                confirmed_at=None,
                shed_at=None,
                answered_at=None,
                quiet_since=None,
                silent_since=None,
                failing_since=None,
                booting_since=None,
                shed_refused="",
                acted=None,
            )
        # A pod that the kubelet still reports as ready can still be added to the endpoints, if its gate was just open.
        closed = self.pod is not None and not self.pod.holds(names.GATE) and not self.pod.holds("Ready")
        withdrawn = not self.routes and (self.leaving or closed)
        report = self.admin if isinstance(self.admin, Report) else None
        shed = report.sheds_all if report else notes.shed_at is not None
        quiet = report is not None and report.active_requests == 0
        drain = server.status.suspend
        shed_refused = notes.shed_refused if drain else ""  # the next drain tries again
        if drain and drain.scope not in STAYS and not shed and self.in_vain_for(Shed()) >= 2 * NO_EFFECT_SECONDS:
            shed_refused = "the server accepts the filter, but does not apply it"
        fails = isinstance(self.admin, AdminFailure)
        silent = isinstance(self.admin, AdminFailure) and self.admin.kind == "Unreachable"
        return msgspec.structs.replace(
            self,
            server=server,
            pod=pod,
            notes=msgspec.structs.replace(
                notes,
                aside=tuple(refusal for refusal in notes.aside if self._still_asks(refusal.act)),
                unrecorded=tuple(act for act in notes.unrecorded if self._still_asks(act)),
                acted=notes.acted if notes.acted and self._still_asks(notes.acted) else None,
                acted_since=None if self._has_effect(notes.acted) else notes.acted_since,
                confirmed_at=(notes.confirmed_at or self.now) if withdrawn else None,
                shed_at=(notes.shed_at or self.now) if shed else None,
                answered_at=(notes.answered_at or (self.now if quiet else None)) if shed else None,
                shed_refused=shed_refused,
                quiet_since=(notes.quiet_since or self.now) if quiet else None,
                silent_since=(notes.silent_since or self.now) if silent else None,
                failing_since=(notes.failing_since or self.now) if fails else None,
                booting_since=self._booting_since(report, notes.booting_since),
            ),
        )


def _kind(act: Act) -> tuple[type, str]:
    """Of acts of the same kind, only the last refusal counts."""
    return type(act), act.annotation if isinstance(act, ConsumeAnnotation) else ""


def _stamps(server: AppServer, pod: Pod | None) -> list[Moment]:
    """The times that a drain depends on, written by the API server's clock or a process that follows it."""
    drain = server.status.suspend
    at = (drain.since if drain else None, drain.suspending_since if drain else None)
    return [stamp for stamp in (*at, pod.metadata.deletion_timestamp if pod else None) if stamp]


def _restamped(server: AppServer, pod: Pod | None, stamps: dict[Moment, Moment]) -> tuple[AppServer, Pod | None]:
    if all(written == at for written, at in stamps.items()):
        return server, pod
    replace, drain = msgspec.structs.replace, server.status.suspend
    if drain:
        began = drain.suspending_since and stamps[drain.suspending_since]
        drain = replace(drain, since=stamps[drain.since], suspending_since=began)
        server = replace(server, status=replace(server.status, suspend=drain))
    if pod and (deleted := pod.metadata.deletion_timestamp):
        pod = replace(pod, metadata=replace(pod.metadata, deletion_timestamp=stamps[deleted]))
    return server, pod
