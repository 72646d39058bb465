"""A small world for `decide` to act in: one group, its servers' pods, the kubelet, the endpoints, a clock.

What `decide` and `decide_group` return is carried out in the order of `control`: the status first, then the act.
The promises that hold at every moment are checked with every act (`BrokenError`).
"""

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from quiesce.decide.budget import max_unavailable
from quiesce.decide.group import GroupObservation, decide_group, is_pending
from quiesce.decide.members import UNREADY_SECONDS, Member
from quiesce.decide.observation import Notes, Observation
from quiesce.decide.podspec import admin_port, is_of, revision
from quiesce.decide.refusal import Refusal
from quiesce.decide.requests import aim_of
from quiesce.decide.server import decide
from quiesce.decide.status import group_due, group_status, to_tell
from quiesce.decide.target import has_room
from quiesce.model import names, plan
from quiesce.model.objects import (
    Condition,
    Container,
    ContainerState,
    ContainerStatus,
    Metadata,
    NamedPort,
    OwnerReference,
    OwnMetadata,
    Pod,
    PodSpec,
    PodStatus,
    ReadinessGate,
    Running,
    Waiting,
)
from quiesce.model.resources import AppServer, AppServerSpec, AppServerStatus, ServerGroup
from quiesce.model.server import AdminFailure, Report, SuspendState
from quiesce.model.times import Seconds, moment
from tests.unit.build import NOW, group, template
from tests.unit.fake import relabelled

BOOT_SECONDS = 3.0
REFUSED = "refused:1"  # an image that no API server would take
NEVER_READY = "never-ready:1"  # one whose readiness probe fails
# Of nothing to do, with nothing under way: longer than any timeout here, and than one waits for a server to get ready.
AT_REST_SECONDS = UNREADY_SECONDS + 3
replace = msgspec.structs.replace
Own = TypeVar("Own", AppServer, ServerGroup)


class BrokenError(AssertionError):
    """A promise that did not hold."""


@dataclass
class Process:
    """A WildFly in a container."""

    container_id: str
    started_at: Seconds
    suspend_state: SuspendState = "RUNNING"
    shed: bool = False
    active: int = 0
    was_routed: bool = False  # an EndpointSlice had it as ready

    def runs(self, now: Seconds) -> bool:
        return now >= self.started_at + BOOT_SECONDS

    def end_requests(self, count: int) -> None:
        self.active = max(0, self.active - count)
        if self.suspend_state == "SUSPENDING" and self.active == 0:
            self.suspend_state = "SUSPENDED"


@dataclass
class RunningPod:
    """What etcd, the kubelet and the container runtime know of a pod."""

    name: str
    uid: str
    owner_uid: str
    annotations: dict[str, str]
    image: str
    containers: tuple[Container, ...]
    created_at: Seconds
    grace: int
    gate: bool = False
    gate_since: Seconds = 0
    labels: dict[str, str] = field(default_factory=dict)
    ready: bool = False
    ready_since: Seconds = 0  # or not ready
    deleted_at: Seconds | None = None
    process: Process | None = None
    shed_survives: bool = False

    @property
    def hold_ends(self) -> Seconds | None:
        if self.deleted_at is None:
            return None
        return self.deleted_at + min(int(self.annotations[names.HOLD_SECONDS]), self.grace)

    def seen(self) -> Pod:
        process = self.process
        gone_at = None if self.deleted_at is None else moment(self.deleted_at + self.grace)
        state = ContainerState(running=Running(moment(process.started_at))) if process else ContainerState(Waiting())
        since = moment(float(int(self.ready_since)))
        ready = Condition("Ready", str(self.ready), last_transition_time=since)
        owner = OwnerReference("AppServer", self.name, self.owner_uid, controller=True)
        gate = Condition(names.GATE, str(self.gate), last_transition_time=moment(float(int(self.gate_since))))
        return Pod(
            metadata=Metadata(
                name=self.name,
                namespace="shop",
                uid=self.uid,
                creation_timestamp=moment(float(int(self.created_at))),
                deletion_timestamp=gone_at,
                deletion_grace_period_seconds=None if gone_at is None else self.grace,
                labels=self.labels,
                annotations=self.annotations,
                owner_references=(owner,) if self.owner_uid else (),
            ),
            spec=PodSpec(self.containers, readiness_gates=(ReadinessGate(names.GATE),)),
            status=PodStatus(
                phase="Running",
                conditions=(ready, gate),
                container_statuses=(ContainerStatus("wildfly", process.container_id if process else "", state=state),),
            ),
        )


@dataclass
class Simulation:
    group: ServerGroup
    now: Seconds = NOW
    servers: dict[str, AppServer] = field(default_factory=dict)
    pods: dict[str, RunningPod] = field(default_factory=dict)
    endpoints: set[str] = field(default_factory=set)  # UIDs of pods that an EndpointSlice has as ready
    notes: dict[str, Notes] = field(default_factory=dict)
    broken_admin: bool = False
    log: list[str] = field(default_factory=list)
    writes: int = 0
    taken_up: int = 0  # the generation of the group that its servers have been brought up to
    cut: set[str] = field(default_factory=set)  # containers that ended with active requests
    _group_written_at: Seconds = 0
    _numbers: Any = field(default_factory=itertools.count)

    @classmethod
    def of(cls, replicas: int = 3, **changes: Any) -> "Simulation":
        simulation = cls(group(replicas, **{"suspend_timeout_seconds": 8, "pre_suspend_seconds": 1, **changes}))
        simulation.settle()
        return simulation

    # The operator.

    def operate_on_server(self, name: str, *, crash: bool = False) -> Seconds | None:
        """One reconcile; `crash`: the operator dies between the status and the act."""
        server = self.servers.get(name)
        if server is None:
            self.notes.pop(name, None)
            return None
        o = self._observe(server)
        decision = decide(o)
        self.notes[name] = o.notes
        status, untold = to_tell(o, decision)
        self.notes[name] = replace(o.notes, untold=untold)
        if status:
            self._check_record(o, server, decision)
            self._check_account(o, server, status)
            self.writes += 1
            self.log.append(f"{self._at()} {name}: {decision.state} {decision.reason}")
            server = replace(server, status=msgspec.convert(msgspec.to_builtins(status), type(status)))
            self.servers[name] = server
        if crash:
            self.lose_notes()
            return 0
        if decision.act is None:
            wakes = (decision.wake, untold.due - self.now if untold else None)
            return min((wake for wake in wakes if wake is not None), default=None)
        if not isinstance(decision.act, plan.CheckTemplate):
            self.log.append(f"{self._at()} {name}: {type(decision.act).__name__}")
        self._check_act(replace(o, server=replace(server, status=untold.status) if untold else server), decision.act)
        refusal = self._refused(o, decision.act) if self._act_on_server(server, decision.act) else None
        if name in self.notes:
            self.notes[name] = self.notes[name].after(decision.act, refusal, self.now)
        return 0

    def operate_on_group(self, *, crash: bool = False) -> Seconds | None:
        o = GroupObservation(self.now, self.group, self._members())
        decision = decide_group(o)
        after = group_status(o, decision)
        if not is_pending(o, decision):
            self.taken_up = self.group.metadata.generation
        due = group_due(self.group.status, after, self._group_written_at)
        is_told = not decision.acts or decision.restart_requested_at is not None
        if is_told and due is not None and due <= self.now:
            self.writes += 1
            self._group_written_at, due = self.now, None
            self.group = replace(self.group, status=msgspec.convert(msgspec.to_builtins(after), type(after)))
        if crash:
            self.lose_notes()
            return 0
        self._check_budget(decision.acts)
        for act in decision.acts:
            self.log.append(f"{self._at()} group: {type(act).__name__} {getattr(act, 'name', '')}")
            match act:
                case plan.ConsumeAnnotation(annotation):
                    self.annotate_group(annotation, None)
                case plan.ApplyServer(manifest):
                    self._apply(manifest)
                case plan.DeleteServer(name, _):
                    self.delete_server(name)
        return 0 if decision.acts else None if due is None else due - self.now

    def lose_notes(self) -> None:
        """The operator is restarted."""
        self.notes.clear()

    # The cluster: what happens without the operator or a user.

    def endpoints_controller(self) -> None:
        routed = [pod for pod in self.pods.values() if pod.ready and pod.deleted_at is None]
        self.endpoints = {pod.uid for pod in routed}
        for pod in routed:
            if pod.process:
                pod.process.was_routed = True

    def kubelet(self, name: str) -> None:
        pod = self.pods.get(name)
        if pod is None:
            return
        process = pod.process
        if pod.deleted_at is not None:
            ends = pod.hold_ends
            if process is None or (ends is not None and self.now >= ends):
                self._end(pod)
                del self.pods[name]
                return
        elif process is None:
            number = next(self._numbers)
            pod.process = process = Process(f"containerd://{number}", self.now, shed=pod.shed_survives)
        answers = process is not None and process.runs(self.now) and process.suspend_state == "RUNNING"
        self._set_ready(pod, is_ready=pod.gate and answers and pod.image != NEVER_READY)

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def traffic(self, name: str, count: int) -> None:
        """Requests come to a server that clients can reach."""
        pod = self.pods.get(name)
        if pod and pod.process and pod.uid in self.endpoints and pod.process.suspend_state == "RUNNING":
            pod.process.active += count

    def requests_end(self, name: str, count: int = 100) -> None:
        pod = self.pods.get(name)
        if pod and pod.process:
            pod.process.end_requests(count)

    def container_ends(self, name: str, *, shed_survives: bool = False) -> None:
        """The container crashes, or is stopped; the kubelet starts another."""
        pod = self.pods.get(name)
        if pod:
            pod.shed_survives = shed_survives and pod.process is not None and pod.process.shed
            self._end(pod)
            self._set_ready(pod, is_ready=False)

    # Users.

    def annotate_server(self, name: str, annotation: str, value: str | None) -> None:
        if name in self.servers:
            self.servers[name] = _annotated(self.servers[name], annotation, value)

    def annotate_group(self, annotation: str, value: str | None) -> None:
        self.group = _annotated(self.group, annotation, value)

    def change_template(self, image: str) -> None:
        spec = self.group.spec.template.spec
        self._change_servers(template=template(image), admin=replace(spec.admin, port="management"))

    def rename_port(self, name: str) -> None:
        spec = self.group.spec.template.spec
        pod_template = msgspec.json.decode(
            msgspec.json.encode(spec.template).replace(spec.admin.port.encode(), name.encode())
        )
        self._change_servers(template=pod_template, admin=replace(spec.admin, port=name))

    def change_port(self, name: str) -> None:
        self._change_servers(admin=replace(self.group.spec.template.spec.admin, port=name))

    def scale(self, replicas: int) -> None:
        self._change_group(replicas=replicas)

    def desire(self, state: Literal["Running", "Suspended", "Stopped"]) -> None:
        self._change_group(desired_state=state)

    def desire_of_servers(self, state: Literal["Running", "Suspended", "Stopped"]) -> None:
        self._change_servers(desired_state=state)

    def change_timeout(self, seconds: int) -> None:
        self._change_servers(suspend_timeout_seconds=seconds)

    def change_withdrawal(self, withdrawal: str) -> None:
        self._change_servers(withdrawal=withdrawal)

    def strip_label(self, name: str) -> None:
        if pod := self.pods.get(name):
            pod.labels = relabelled(pod.labels, {names.GATE: None})

    def delete_pod(self, name: str, grace: int | None = None) -> None:
        pod = self.pods.get(name)
        if pod is None:
            return
        if pod.deleted_at is None:
            pod.deleted_at = self.now
            pod.grace = pod.grace if grace is None else grace
        elif grace is not None:
            pod.grace = min(pod.grace, grace)  # a second deletion can only shorten it
        self._set_ready(pod, is_ready=False)

    def delete_server(self, name: str) -> None:
        server = self.servers.get(name)
        if server and not server.metadata.finalizers:
            del self.servers[name]
            self.delete_pod(name)  # by the garbage collector
        elif server and server.metadata.deletion_timestamp is None:
            self.servers[name] = replace(server, metadata=replace(server.metadata, deletion_timestamp=moment(self.now)))

    def orphan(self, name: str) -> None:
        """A pod loses its owner."""
        if name in self.pods:
            self.pods[name].owner_uid = ""

    def strip_finalizers(self, name: str) -> None:
        """By an uninstall, or manually."""
        server = self.servers.get(name)
        if server and server.metadata.deletion_timestamp is None:
            self.servers[name] = replace(server, metadata=replace(server.metadata, finalizers=()))

    def withdraw_intents(self, image: str) -> None:
        self.group = replace(self.group, metadata=replace(self.group.metadata, annotations={}))
        self.desire("Running")
        self.change_template(image)
        for name, server in self.servers.items():
            self.servers[name] = replace(server, metadata=replace(server.metadata, annotations={}))

    # Time passes until nothing happens any more.

    def settle(self, *, requests_end: bool = True, limit: int = 4000, lose_notes: bool = False) -> None:
        """To the fixed point; BrokenError when there is none within `limit` rounds."""
        changed_at = self.now
        for _ in range(limit):
            before = self._trace()
            wakes = [self.operate_on_group()]
            for name in self._names():
                self.kubelet(name)
                if requests_end:
                    self.requests_end(name, 1)
                if lose_notes:
                    self.lose_notes()
                wakes.append(self.operate_on_server(name))
            self.endpoints_controller()
            leaving = any(pod.deleted_at is not None for pod in self.pods.values())
            if before != self._trace() or leaving:
                changed_at = self.now
            elif self.now - changed_at >= AT_REST_SECONDS:
                return
            moved = changed_at == self.now
            self.tick(0.2 if moved else max(0.2, min((wake for wake in wakes if wake is not None), default=1.0)))
        raise BrokenError("no fixed point:\n" + "\n".join(self.log[-40:]))

    def all_serve(self) -> bool:
        return len(self.pods) == self.group.spec.replicas == len(self.servers) and all(
            self.servers[name].status.state == "Running"
            and self.servers[name].status.suspend is None
            and pod.gate
            and names.GATE in pod.labels
            and pod.ready
            and pod.uid in self.endpoints
            and pod.process is not None
            and pod.process.suspend_state == "RUNNING"
            and not pod.process.shed
            for name, pod in self.pods.items()
        )

    # Promises.

    def _check_act(self, o: Observation, act: plan.Act) -> None:
        pod, drain = self.pods.get(o.server.metadata.name), o.server.status.suspend
        if pod is None:
            return
        self._check_room(o, act, pod)
        self._check_withdrawal(o, act, pod)
        in_reach = pod.uid in self.endpoints or (pod.gate and pod.deleted_at is None)
        forced = drain is not None and drain.forced
        hold_ends = pod.hold_ends
        reserve = 0.0 if hold_ends is None or pod.deleted_at is None else min(5.0, (hold_ends - pod.deleted_at) / 2)
        out_of_time = hold_ends is not None and self.now >= hold_ends - reserve
        match act:
            case plan.SuspendServer() if in_reach and not forced and not out_of_time:
                self._break(f"{pod.name} is suspended while clients can come to it")
            case plan.SuspendServer() | plan.StopServer() if (
                pod.process and pod.process.was_routed and not o.was_reached
            ):
                self._break(f"{pod.name} has served, and is treated as if it had not")
            case plan.StopServer() if pod.deleted_at is None:
                self._break(f"{pod.name} is stopped, and the kubelet will restart it")
            case plan.StopServer() if (
                pod.process and pod.process.active and self.servers[pod.name].status.state != "Stopping"
            ):
                self._break(f"{pod.name} is stopped with {pod.process.active} active requests, and nobody was told")
            case plan.StopServer() if pod.uid in self.endpoints and not forced and not out_of_time:
                self._break(f"{pod.name} is stopped while clients can come to it")
            case plan.DeletePod(grace) if grace is not None and o.has_served and not forced:
                self._break(f"{pod.name} has served, and is given no time to drain")
            case plan.SetGate(True) if not pod.process or not pod.process.runs(self.now):
                self._break(f"the gate of {pod.name} opens before its server runs")
            case plan.SetGate(True) if pod.process and (pod.process.suspend_state != "RUNNING" or pod.process.shed):
                self._break(f"the gate of {pod.name} opens while its server is suspended or shed")

    def _check_withdrawal(self, o: Observation, act: plan.Act, pod: RunningPod) -> None:
        by_gate, drain, hold_ends = o.server.spec.withdrawal == "Gate", o.server.status.suspend, pod.hold_ends
        # The last half of a short hold, and the last 5 s of a long one, are for the stop.
        out_of_time = hold_ends is not None and self.now >= max(hold_ends - 5, (hold_ends + (pod.deleted_at or 0)) / 2)
        process = pod.process
        match act:
            case plan.SuspendServer() | plan.StopServer() if by_gate and pod.gate and process and not out_of_time:
                self._break(f"{pod.name} is taken out with its gate open")
            case plan.SetGate(False) if not by_gate and pod.deleted_at is not None:
                self._break(f"the gate of {pod.name} closes while it terminates")
            case plan.DeletePod() if o.server.metadata.deletion_timestamp or (pod.gate and not by_gate):
                pass  # what it still has to do, it does while it terminates
            case plan.DeletePod() if pod.deleted_at is None and pod.gate and process:
                self._break(f"{pod.name} is deleted while it serves")
            case plan.DeletePod() if (
                process and process.active and not (drain and (drain.forced or self._timed_out(o)))
            ):
                self._break(f"{pod.name} is deleted with {process.active} active requests")

    def _timed_out(self, o: Observation) -> bool:
        drain = o.server.status.suspend
        return drain is not None and drain.deadline is not None and self.now >= drain.deadline.timestamp()

    def _check_budget(self, acts: tuple[plan.Act, ...]) -> None:
        manifests = {
            act.manifest["metadata"]["name"]: act.manifest for act in acts if isinstance(act, plan.ApplyServer)
        }
        up = {name for name in self.servers if self._is_up(name)}
        taken_back = {name for name in up if names.SURGE in self.servers[name].metadata.annotations}
        gone = {name for name in up & set(manifests) if self._takes_out(name, manifests[name]["spec"])} - taken_back
        floor = self.group.spec.replicas - max_unavailable(self.group)
        if gone and len(up - gone) < floor:
            self._break(f"{sorted(gone)} are taken out of {sorted(up)}; {floor} have to serve")

    def _is_up(self, name: str) -> bool:
        """Whether a server serves, and nothing else is requested."""
        server, pod = self.servers[name], self.pods.get(name)
        return (
            pod is not None
            and pod.deleted_at is None
            and pod.gate
            and pod.ready
            and server.metadata.deletion_timestamp is None
            and server.status.state == "Running"
            and names.RESTART not in server.metadata.annotations
            and server.status.restart_pod_uid != pod.uid
            and is_of(pod.seen(), revision(server.spec))
            and aim_of(server, self.group).serve
        )

    def _check_room(self, o: Observation, act: plan.Act, pod: RunningPod) -> None:
        closes = isinstance(act, plan.SetGate) and act.reason == "Rollout"
        if not (closes or isinstance(act, plan.DeletePod)) or not o.template_has_changed:
            return
        if not closes and (o.server.metadata.deletion_timestamp or not aim_of(o.server, self.group).serve):
            return  # it is not the roll that takes it
        others = sum(self._is_ready(other) for other in self.pods.values() if other is not pod)
        if self._is_ready(pod) and others < self.group.spec.replicas - max_unavailable(self.group):
            self._break(f"a roll takes {pod.name} out, and only {others} others serve")

    def _is_ready(self, pod: RunningPod) -> bool:
        return pod.gate and pod.ready and pod.deleted_at is None

    def _takes_out(self, name: str, spec: dict[str, Any]) -> bool:
        changed = not is_of(self.pods[name].seen(), revision(msgspec.convert(spec, AppServerSpec)))
        return changed or spec.get("desiredState", "Running") != "Running"

    def _check_record(self, o: Observation, before: AppServer, decision: plan.ServerPlan) -> None:
        """The clock of a drain starts once, whatever becomes of the operator."""
        old, new, pod = before.status.suspend, decision.drain, o.pod
        if old is None or new is None or old.container_id != new.container_id or old.suspending_since is None:
            return
        back_in_service = pod is not None and pod.holds(names.GATE) and not o.leaving
        if new.suspending_since != old.suspending_since and not back_in_service:
            self._break(f"the clock of {before.metadata.name}'s drain was started again")

    def _check_account(self, o: Observation, before: AppServer, after: AppServerStatus) -> None:
        """What is reported about a drain is true, no matter what the operator has seen of it."""
        drain, told = o.server.status.suspend, after.last_drain
        is_new = told is not None and told.outcome == "Drained" and told != before.status.last_drain
        if is_new and drain and drain.container_id in self.cut:
            self._break(f"{before.metadata.name} is told as drained, and its requests were cut")

    def _break(self, message: str) -> None:
        raise BrokenError(f"{message}\n" + "\n".join(self.log[-40:]))

    # How things are done.

    def _members(self) -> tuple[Member, ...]:
        members = [
            Member(server, pod.seen() if (pod := self.pods.get(name)) else None)
            for name, server in self.servers.items()
        ]
        return tuple(sorted(members, key=lambda member: member.ordinal))

    def _observe(self, server: AppServer) -> Observation:
        name = server.metadata.name
        pod = self.pods.get(name)
        o = Observation(
            self.now,
            server,
            self.group,
            pod.seen() if pod else None,
            group_is_ahead=self.taken_up != self.group.metadata.generation,
            notes=self.notes.get(name, Notes()),
        )
        if pod is None:
            return o.measured()
        routes = ("shop",) if pod.uid in self.endpoints else ()
        others = tuple(member for member in self._members() if member.name != name)
        room = not o.template_has_changed or has_room(self.group, Member(server, o.pod), others, self.now)
        return replace(o, routes=routes, admin=self._asked(server, pod), has_room=room).measured()

    def _asked(self, server: AppServer, pod: RunningPod) -> Report | AdminFailure | None:
        process = pod.process
        if process is None:
            return None
        if self.broken_admin:
            return AdminFailure("Unauthorized", "wrong password")
        if not self._is_reached(server, pod):
            return AdminFailure("Unexpected", "this is not the management endpoint")
        if self.now < process.started_at + BOOT_SECONDS / 2:
            return AdminFailure("Unreachable", "connection refused")
        runs = process.runs(self.now)
        state = "running" if runs else "starting"
        return Report(process.suspend_state, state, runs, process.active, process.shed, process.shed)

    def _is_reached(self, server: AppServer, pod: RunningPod) -> bool:
        return admin_port(server, pod.seen()) == NamedPort("wildfly", 9990)

    def _act_on_server(self, server: AppServer, act: plan.Act) -> bool:
        """Whether it was refused."""
        name = server.metadata.name
        pod = self.pods.get(name)
        match act:
            case plan.AddFinalizer():
                finalizers = (*server.metadata.finalizers, names.FINALIZER)
                self.servers[name] = replace(server, metadata=replace(server.metadata, finalizers=finalizers))
            case plan.CheckTemplate(manifest, _):
                return bool(manifest["spec"]["containers"][0]["image"] == REFUSED)
            case plan.RemoveFinalizer():
                del self.servers[name]
            case plan.ConsumeAnnotation(annotation):
                self.annotate_server(name, annotation, None)
            case plan.CreatePod(manifest):
                if pod is None:
                    self._create_pod(manifest)
            case _ if pod is None:
                self._break(f"{act} without a pod")
            case plan.AdoptPod(owner, _):
                pod.owner_uid = owner["uid"]
            case plan.SetGate() | plan.LabelPod():
                self._change_pod(pod, act)
            case plan.DeletePod(grace):
                self.delete_pod(name, grace)
            case _:
                return self._ask(server, pod, act)
        return False

    def _change_pod(self, pod: RunningPod, act: plan.SetGate | plan.LabelPod) -> None:
        if isinstance(act, plan.LabelPod):
            pod.labels = relabelled(pod.labels, act.labels)
            return
        pod.gate, pod.gate_since = act.open, self.now
        pod.labels = relabelled(pod.labels, {names.GATE: "true" if act.open else None})
        if act.served_container:
            pod.annotations = {**pod.annotations, names.SERVED_CONTAINER: act.served_container}

    def _refused(self, o: Observation, act: plan.Act) -> Refusal:
        before = o.notes.refused(act)
        count = before.count + 1 if before else 1
        return Refusal(act, "Refused", "refused", self.now + min(2.0 ** min(count - 1, 5), 30), count)

    def _ask(self, server: AppServer, pod: RunningPod, act: plan.Act) -> bool:
        process = pod.process
        if process is None or self.broken_admin or not self._is_reached(server, pod):
            return True
        match act:
            case plan.Shed():
                process.shed = True
            case plan.Unshed():
                process.shed = False
            case plan.SuspendServer():
                process.suspend_state = "SUSPENDING"
                process.end_requests(0)
            case plan.ResumeServer():
                process.suspend_state = "RUNNING"
            case plan.StopServer():
                self._end(pod)
        return False

    def _end(self, pod: RunningPod) -> None:
        if pod.process and pod.process.active:
            self.cut.add(pod.process.container_id)
        pod.process = None

    def _set_ready(self, pod: RunningPod, *, is_ready: bool) -> None:
        if pod.ready != is_ready:
            pod.ready, pod.ready_since = is_ready, self.now

    def _create_pod(self, manifest: dict[str, Any]) -> None:
        own, spec = manifest["metadata"], manifest["spec"]
        self.pods[own["name"]] = RunningPod(
            name=own["name"],
            uid=f"pod-{next(self._numbers)}",
            owner_uid=own["ownerReferences"][0]["uid"],
            labels=own["labels"],
            annotations=own["annotations"],
            image=spec["containers"][0]["image"],
            containers=msgspec.convert(spec["containers"], tuple[Container, ...]),
            created_at=self.now,
            ready_since=self.now,
            grace=spec["terminationGracePeriodSeconds"],
        )

    def _apply(self, manifest: dict[str, Any]) -> None:
        own = manifest["metadata"]
        name, spec = own["name"], msgspec.convert(manifest["spec"], AppServerSpec)
        known = self.servers.get(name)
        if known:
            generation = known.metadata.generation + (spec != known.spec)
            others = {key: value for key, value in known.metadata.annotations.items() if key != names.SURGE}
            annotations = {**others, **own["annotations"]}  # an apply removes what it no longer contains
            metadata = replace(known.metadata, generation=generation, labels=own["labels"], annotations=annotations)
            self.servers[name] = replace(known, metadata=metadata, spec=spec)
            return
        metadata = msgspec.convert({**own, "uid": f"uid-{next(self._numbers)}", "generation": 1}, OwnMetadata)
        self.servers[name] = AppServer(metadata, spec)

    def _change_servers(self, **changes: Any) -> None:
        servers = self.group.spec.template
        self._change_group(template=replace(servers, spec=replace(servers.spec, **changes)))

    def _change_group(self, **changes: Any) -> None:
        metadata = replace(self.group.metadata, generation=self.group.metadata.generation + 1)
        self.group = replace(self.group, metadata=metadata, spec=replace(self.group.spec, **changes))

    def acts(self) -> list[str]:
        """What was done, in order."""
        words = [line.split()[2] for line in self.log]
        return [word for word in words if word in vars(plan) and issubclass(getattr(plan, word), plan.Act)]

    def story(self) -> str:
        return "\n".join(self.log[-60:])

    def _trace(self) -> Any:
        return (self.writes, len(self.log), [(pod.uid, pod.gate, pod.ready) for pod in self.pods.values()])

    def _names(self) -> list[str]:
        return sorted({*self.servers, *self.pods})

    def _at(self) -> str:
        return f"{self.now - NOW:6.1f}"


def _annotated(owner: Own, annotation: str, value: str | None) -> Own:
    rest = {key: kept for key, kept in owner.metadata.annotations.items() if key != annotation}
    annotations = rest if value is None else {**rest, annotation: value}
    return replace(owner, metadata=replace(owner.metadata, annotations=annotations))
