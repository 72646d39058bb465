"""What a server waits for until it serves: its container, the server in it, and its pod."""

from typing import cast

import msgspec

from quiesce.decide.observation import NODE_COMES_SECONDS, Observation
from quiesce.model import names
from quiesce.model.objects import Condition, ContainerStatus, Pod, Waiting
from quiesce.model.plan import ServerPlan, SetGate
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Moment, Seconds, seconds

replace = msgspec.structs.replace

BOOT_POLL_SECONDS = 0.25
QUICK_BOOT_SECONDS = 30
SLOW_BOOT_POLL_SECONDS = 1.0
SLOW_POLL_SECONDS = 5.0
REPEAT_SECONDS = 1.0
# A server that hasn't responded for so long since its container started needs attention.
BOOT_STALLED_SECONDS = 120
# A server that responds may deploy large applications: it has as long as a Deployment's progressDeadlineSeconds.
BOOT_OVERDUE_SECONDS = 600
# A pod that isn't Ready for so long while its server runs lacks something else.
NOT_READY_STALLED_SECONDS = 120
# What a container waits for in any normal start.
ORDINARY_WAITING = ("", "ContainerCreating", "PodInitializing")
# The kubelet alternates between these and others while it retries.
CRASH_LOOP, IMAGE_PULL = "CrashLoopBackOff", "ImagePullBackOff"
# What a late Secret, volume or container runtime doesn't explain.
CERTAIN = (CRASH_LOOP, IMAGE_PULL, "InvalidImageName", "ErrImageNeverPull")
SAME_TROUBLE = {"RunContainerError": CRASH_LOOP, "ErrImagePull": IMAGE_PULL}
# What the kubelet changes last when a pod loses its containers or its sandbox, for example in a reboot of its node.
LOST = ("ContainersReady", "PodReadyToStartContainers")
# For a server that has booted into a mode in which it accepts no requests.
NOT_NORMAL = "NotInNormalMode"
# How soon a new message for a problem that is already reported is written.
TROUBLE_SECONDS = 60.0
# A drained server takes about two seconds to end, a readiness probe about one; the next state reports it.
BRIEF_SECONDS = 3.0

BOOTING = ServerPlan("Starting", "Booting", "waiting for the server to report that it runs")
NOT_READY = ServerPlan("Starting", "PodNotReady", "waiting for the pod's readiness probe", tell_within=BRIEF_SECONDS)


def boot(o: Observation) -> ServerPlan | None:
    """What a server that does not run yet waits for; None if it runs."""
    waiting: ServerPlan | None = None
    if o.container is None:
        waiting = _waiting_for_container(o)
    elif isinstance(o.admin, Report):
        waiting = None if o.admin.runs else _waiting_for_server(o, o.container)
    else:
        waiting = _waiting_for_answer(o, o.container)
    loops = o.told_stalled == CRASH_LOOP and o.pod is not None and any(s.restart_count for s in _statuses(o.pod))
    if waiting and waiting.state == "Starting" and loops:  # until it runs: most retries fail like the last one
        waiting = replace(o.as_told(), wake=waiting.wake)
    # The gate stays open when the container restarts in place, or the server reloads into a mode without requests.
    gate_is_stale = o.pod is not None and o.pod.holds(names.GATE) and (not o.has_served or o.waits_for)
    if waiting and gate_is_stale:
        return replace(waiting, act=SetGate(open=False, reason="ServerNotRunning"))
    return waiting


def not_ready(o: Observation, pod: Pod) -> ServerPlan:
    """The server runs and its gate is open: the rest is up to the kubelet, and to whoever sets other gates."""
    waiting = replace(NOT_READY, state="Running" if o.server.status.state == "Running" else "Starting")
    changes = (condition.last_transition_time for kind in (names.GATE, "Ready") if (condition := pod.condition(kind)))
    due = max((at.timestamp() for at in changes if at), default=o.now) + NOT_READY_STALLED_SECONDS
    if o.now < due:
        return replace(waiting, wake=due - o.now)
    containers = [status.name for status in pod.status.container_statuses if not status.ready]
    gates = [gate.condition_type for gate in pod.spec.readiness_gates if not pod.holds(gate.condition_type)]
    missing = [f"container {name} is not ready (see its readiness probe and the pod's Events)" for name in containers]
    missing += [f"readiness gate {gate} is not True (its own controller sets it)" for gate in gates]
    why = "; ".join(missing) or "see the pod's conditions"
    return replace(waiting, stalled="PodNotReady", message=f"the server runs, but its pod is not Ready: {why}")


def _waiting_for_server(o: Observation, container: ContainerStatus) -> ServerPlan:
    """The server responds, and reports itself what else it waits for."""
    up_for = _up_for(o, container)
    booting = replace(BOOTING, wake=_boot_poll(up_for))
    if not o.waits_for:
        booting_for = min(up_for, o.now - (o.notes.booting_since or 0))
        return booting if booting_for < BOOT_OVERDUE_SECONDS else _overdue(o, container)
    stalled = NOT_NORMAL if up_for >= BOOT_STALLED_SECONDS else ""  # the first part of a boot may run in another mode
    return replace(booting, reason=NOT_NORMAL, message=f"waiting for {o.waits_for}", stalled=stalled)


def _overdue(o: Observation, container: ContainerStatus) -> ServerPlan:
    pod, report = cast("Pod", o.pod), cast("Report", o.admin)
    log = _log_command(pod, container)
    message = f"the server has reported {report.server_state!r} for {BOOT_OVERDUE_SECONDS} s: see `{log}`"
    return ServerPlan("Starting", "BootOverdue", message, stalled="BootOverdue", wake=SLOW_BOOT_POLL_SECONDS)


def _up_for(o: Observation, container: ContainerStatus) -> Seconds:
    return o.now - ((seconds(container.state.running.started_at) if container.state.running else None) or o.now)


def _boot_poll(up_for: Seconds) -> Seconds:
    return BOOT_POLL_SECONDS if up_for < QUICK_BOOT_SECONDS else SLOW_BOOT_POLL_SECONDS


def _waiting_for_answer(o: Observation, container: ContainerStatus) -> ServerPlan:
    failure = o.admin if isinstance(o.admin, AdminFailure) else AdminFailure("Unreachable", "not queried yet")
    up_for = _up_for(o, container)
    if failure.kind == "Unreachable" and up_for < BOOT_STALLED_SECONDS:
        return replace(BOOTING, wake=_boot_poll(up_for))
    if o.missed and o.server.status.conditions:
        return replace(o.as_told(), wake=REPEAT_SECONDS)
    reason = f"Admin{failure.kind}"
    unknown = ServerPlan("Unknown", reason, failure.message, stalled=reason, stalls_at=o.admin_stalls_at)
    return replace(unknown, wake=SLOW_POLL_SECONDS)


def _waiting_for_container(o: Observation) -> ServerPlan:
    pod = cast("Pod", o.pod)
    scheduled = pod.condition("PodScheduled")
    created_at = seconds(pod.metadata.creation_timestamp) or o.now
    if scheduled and scheduled.status == "False":
        return _unscheduled(scheduled, created_at)
    statuses = _statuses(pod)
    for container in statuses:
        waiting = container.state.waiting
        if waiting and waiting.reason not in ORDINARY_WAITING:
            reason, message = _trouble(pod, container, waiting)
            stalls_at = 0 if reason in CERTAIN else created_at + BOOT_STALLED_SECONDS
            return ServerPlan(
                "Pending", reason, message, stalled=reason, stalls_at=stalls_at, tell_within=TROUBLE_SECONDS
            )
    for init in pod.status.init_container_statuses:
        if init.state.running and not init.started:
            return _waiting_for_init(o, pod, init)
    lost = (condition.last_transition_time for kind in LOST if (condition := pod.condition(kind)))
    since = [pod.metadata.creation_timestamp, *lost, *(at for status in statuses for at in _changes(status))]
    due = max((at.timestamp() for at in since if at), default=o.now) + BOOT_STALLED_SECONDS
    if o.now < due:
        return replace(BOOTING, wake=due - o.now)
    message = (
        f"the server's container has not started, nor has any other for {BOOT_STALLED_SECONDS} s: see the pod's Events"
    )
    return ServerPlan("Pending", "ContainerNotRunning", message, stalled="ContainerNotRunning")


def _unscheduled(scheduled: Condition, created_at: Seconds) -> ServerPlan:
    """The pod has no node. With a scheduling gate, it waits in a queue, for as long as that takes."""
    waiting = ServerPlan("Pending", scheduled.reason or "Unschedulable", scheduled.message)
    if scheduled.reason == "SchedulingGated":
        return waiting
    since = seconds(scheduled.last_transition_time) or created_at
    return replace(waiting, stalled="Unschedulable", stalls_at=since + NODE_COMES_SECONDS)


def _waiting_for_init(o: Observation, pod: Pod, init: ContainerStatus) -> ServerPlan:
    up_for = _up_for(o, init)
    if up_for < BOOT_STALLED_SECONDS:
        return replace(BOOTING, wake=BOOT_STALLED_SECONDS - up_for)
    log = _log_command(pod, init)
    message = f"waiting for init container {init.name}, which has run for {BOOT_STALLED_SECONDS} s: see `{log}`"
    return ServerPlan("Pending", "InitContainerRunning", message, stalled="InitContainerRunning")


def _changes(status: ContainerStatus) -> tuple[Moment | None, ...]:
    """When a container started, or ended."""
    running = status.state.running.started_at if status.state.running else None
    ends = (state.terminated.finished_at for state in (status.state, status.last_state) if state.terminated)
    return (running, *ends)


def _trouble(pod: Pod, container: ContainerStatus, waiting: Waiting) -> tuple[str, str]:
    """Why a container does not start, in a message that stays the same across retries."""
    reason = SAME_TROUBLE.get(waiting.reason, waiting.reason)
    if reason == CRASH_LOOP:
        end = container.last_state.terminated
        how = f" ({end.reason}, exit code {end.exit_code})" if end else ""
        log = _log_command(pod, container)
        return reason, f"container {container.name} exits repeatedly{how}: see `{log} --previous`"
    if reason == IMAGE_PULL:
        cause = waiting.message.rsplit("ErrImagePull: ", 1)[-1]
        return reason, f"container {container.name}: image {container.image} can't be pulled: {cause}"
    return reason, f"container {container.name}: {waiting.message or reason}"


def _statuses(pod: Pod) -> tuple[ContainerStatus, ...]:
    return (*pod.status.init_container_statuses, *pod.status.container_statuses)


def _log_command(pod: Pod, container: ContainerStatus) -> str:
    return f"kubectl -n {pod.metadata.namespace} logs {pod.metadata.name} -c {container.name}"
