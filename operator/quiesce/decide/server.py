"""The next step for one server."""

import math
from typing import cast

import msgspec

from quiesce.decide.boot import (
    BOOTING,
    BRIEF_SECONDS,
    NOT_READY,
    REPEAT_SECONDS,
    SLOW_POLL_SECONDS,
    TROUBLE_SECONDS,
    boot,
    not_ready,
)
from quiesce.decide.drain import ending, finished, record, take_out, withdrawing
from quiesce.decide.observation import (
    NO_EFFECT_SECONDS,
    NODE_COMES_SECONDS,
    OUT_OF_SERVICE,
    OVERDUE_SECONDS,
    PASSING_SECONDS,
    NodeSays,
    Observation,
)
from quiesce.decide.one_shots import new_request, one_shots
from quiesce.decide.podspec import (
    BadTemplateError,
    build_pod,
    has_hold_and_gate,
    hash_of,
    owner_reference,
    pod_labels,
)
from quiesce.decide.refusal import Refusal
from quiesce.decide.requests import Aim, accepted_suspend, aim_of
from quiesce.decide.target import flaw, flaw_of_group, has_same_pod, target_spec
from quiesce.model import names
from quiesce.model.objects import Pod
from quiesce.model.plan import (
    Act,
    AddFinalizer,
    AdoptPod,
    CheckTemplate,
    ConsumeAnnotation,
    CreatePod,
    DeletePod,
    LabelPod,
    RemoveFinalizer,
    ResumeServer,
    ServerPlan,
    SetGate,
    Shed,
    StopServer,
    Unshed,
    in_words,
)
from quiesce.model.resources import STAYS, Drain, LastDrain, Outcome
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Seconds, seconds

replace = msgspec.structs.replace

SUSPENDED_POLL_SECONDS = 10.0
# A pod that ended at a younger age is not recreated before it.
YOUNG_SECONDS = 10
# Removed labels are restored at most once in this time.
LABELS_SECONDS = 10
# Since the API server accepted a template's pod, a quota may have been used up or reduced.
CHECKED_SECONDS = 10
# For a pod that there is no reason to hold.
NOTHING_TO_DRAIN_GRACE_SECONDS = 2


def decide(o: Observation) -> ServerPlan:
    """What to do now, given the notes that `Observation.measured` updated."""
    step = _after_its_group(o, _step(o, aim_of(o.server, o.group)))
    asked = new_request(o, step)
    plan = _paced(o, asked) if asked else None
    if plan is None or plan.act is None:
        due = plan.wake if plan else None
        plan = _without_successor(o, _labelled(o, _awake(_paced(o, step), due)))
    for request in one_shots(o):
        plan = _consumed(o, plan, request) if o.notes.has_taken_up(request) else plan
    passes_in = plan.stalls_at - o.now if plan.stalled else 0
    if plan.stalled not in ("", o.told_stalled, o.told_reason if passes_in > 0 else ""):
        plan = replace(plan, tell_within=0)
    if 0 < passes_in < math.inf:
        plan = _awake(plan, passes_in)
    _, complaint = accepted_suspend(o.server.metadata, o.server.status.accepted_suspend)
    return replace(plan, notes=(*plan.notes, complaint)) if complaint else plan


def _consumed(o: Observation, plan: ServerPlan, request: ConsumeAnnotation) -> ServerPlan:
    """Remove the annotation of a request that is already in effect, once the status that records it is written.

    Until then, the request isn't repeated for the next pod or drain. Only a new process can't tell it from a new
    request, and repeats it once.
    """
    plan = plan if plan.stalled else _told(o, plan, o.notes.refused(request))
    untold = o.notes.untold
    return _awake(plan, max(0, untold.due - o.now)) if untold else _beside(o, plan, request)


def _without_successor(o: Observation, plan: ServerPlan) -> ServerPlan:
    """The existing pod keeps running, and it is reported immediately that it could not be recreated."""
    if o.pod is None or plan.stalled or not aim_of(o.server, o.group).keep:
        return plan
    bad = flaw(o.server.spec)
    if o.group and not bad and not o.group.metadata.deletion_timestamp:
        bad = "" if has_same_pod(o.server.spec, target_spec(o.group)) else flaw_of_group(o.group)
    return replace(plan, stalled="BadTemplate", message=bad) if bad else plan


def _labelled(o: Observation, plan: ServerPlan) -> ServerPlan:
    """Restore a pod's labels: without them, the watch, and the group's Services and budget, miss it.

    One of them follows the gate, and one says what this pod was created from, which may not be what its server now asks
    for. A pod from before these labels existed gets them here.
    """
    pod = o.pod
    if pod is None or o.leaving or not pod.metadata.is_owned_by(o.server.metadata.uid):
        return plan
    made_of = pod.metadata.annotations.get(names.TEMPLATE_HASH, "")
    wanted = {**pod_labels(o.server, made_of), names.GATE: "true" if pod.holds(names.GATE) else None}
    lost = {label: value for label, value in wanted.items() if pod.metadata.labels.get(label) != value}
    if not lost:
        return plan
    act, rests_for = LabelPod(lost), o.notes.labelled_at + LABELS_SECONDS - o.now
    plan = plan if plan.stalled else _told(o, plan, o.notes.refused(act))
    return _awake(plan, rests_for) if rests_for > 0 else _beside(o, plan, act)


def _after_its_group(o: Observation, plan: ServerPlan) -> ServerPlan:
    """No server starts, or returns to service, with a spec that its group is about to replace."""
    act = plan.act
    comes_up = isinstance(act, CreatePod | Unshed | ResumeServer) or (isinstance(act, SetGate) and act.open)
    if not (comes_up and o.group_is_ahead):
        return plan
    told = o.as_told()
    if not told.reason:  # a new server without a status
        told = replace(told, reason="WaitsForGroup", message="waiting for its group's spec to be applied to it")
    return replace(told, wake=REPEAT_SECONDS)


def _paced(o: Observation, plan: ServerPlan) -> ServerPlan:
    """An act that was refused is reported and retried later; one without an effect is not repeated immediately."""
    notes, act = o.notes, plan.act
    if act is None:
        return plan
    refusal = notes.refused(act)
    next_at = refusal.retry_at if refusal else notes.acted_at + REPEAT_SECONDS if notes.acted == act else 0
    plan = _told(o, plan, refusal)
    in_vain_for = o.in_vain_for(act)
    if in_vain_for >= NO_EFFECT_SECONDS:
        message = f"the request to {in_words(act)} was accepted, but has had no effect; retrying"
        plan = replace(plan, stalled="NoEffect", stalls_at=o.now - in_vain_for + PASSING_SECONDS, message=message)
    return plan if o.now >= next_at else replace(plan, act=None, wake=next_at - o.now)


def _told(o: Observation, plan: ServerPlan, refusal: Refusal | None) -> ServerPlan:
    if refusal is None or (refusal.count == 1 and isinstance(refusal.act, Shed)):
        return plan  # it is retried soon, or given up
    if o.now < refusal.tell_at:
        return _awake(plan, refusal.tell_at - o.now)
    stalls_at = math.inf if isinstance(refusal.act, CreatePod) and o.is_dispensable else refusal.stalls_at
    told = replace(plan, stalled=refusal.reason, stalls_at=stalls_at, message=refusal.message)
    before = o.server.status
    is_known = refusal.count > 1 and (plan.state, plan.drain, plan.finished) == (before.state, before.suspend, None)
    # Each retry may return a different message for the same problem.
    is_known = is_known and refusal.reason in (o.told_stalled, o.told_reason)
    return replace(told, tell_within=TROUBLE_SECONDS) if is_known else told


def _beside(o: Observation, plan: ServerPlan, act: Act) -> ServerPlan:
    """`plan`, and if it has nothing to do now, `act`: whether it succeeds or not, the plan continues."""
    if plan.act:
        return plan
    refusal = o.notes.refused(act)
    if refusal is None or o.now >= refusal.retry_at:
        return replace(plan, act=act)
    return _awake(plan, refusal.retry_at - o.now)


def _awake(plan: ServerPlan, due: Seconds | None) -> ServerPlan:
    """`plan`, reconciled again after `due` at the latest."""
    wakes = [wake for wake in (plan.wake, due) if wake is not None]
    return replace(plan, wake=min(wakes, default=None))


def _step(o: Observation, aim: Aim) -> ServerPlan:
    server, pod = o.server, o.pod
    if aim.scope != "Removal" and names.FINALIZER not in server.metadata.finalizers:
        return replace(o.as_told(), reason="Adopting", message="preparing the server", act=AddFinalizer())
    if pod is None:
        return _without_pod(o, aim)
    if not pod.metadata.is_owned_by(server.metadata.uid):
        return _removed(o) if aim.scope == "Removal" else _take_over(o, pod, aim)
    if o.leaving:
        leaving = _leave(o, aim)
        if leaving.act:
            return leaving
        if o.overdue_in <= 0 or (o.node and not o.node.is_ready):
            return _overdue(o, pod, leaving)
        return _awake(leaving, o.overdue_in)
    if aim.scope == "Removal":
        return _delete(o, aim)  # it can't return to service
    if o.restart_ends_in:
        return _restarted_in_place(o, pod)
    if pod.status.phase in ("Succeeded", "Failed"):
        why = pod.status.message or pod.status.reason or f"the pod has {pod.status.phase.lower()}"
        ended = ServerPlan("Pending", "PodEnded", why)
        # A pod that its node rejected would be recreated immediately, and may be rejected again.
        young_for = (seconds(pod.metadata.creation_timestamp) or 0) + YOUNG_SECONDS - o.now
        return _awake(ended, young_for) if 0 < young_for <= YOUNG_SECONDS else replace(ended, act=DeletePod())
    if not aim.keep:
        return _stop(o, aim)
    if o.out_of_date:
        return _replace(o, aim)
    return _keep(o, aim)


def _keep(o: Observation, aim: Aim) -> ServerPlan:
    return _serve(o) if aim.serve else _suspend(o, aim)


def _take_over(o: Observation, pod: Pod, aim: Aim) -> ServerPlan:
    """A pod without an owner: restored from a backup, or orphaned by another workload.

    A pod that an operator created is adopted. Any other is replaced within the budget, and only its own preStop hook
    drains it.
    """
    owner = pod.metadata.owner
    # An owning AppServer of the same name can only be a predecessor that left its pod.
    is_free = owner is None or (owner.kind, owner.name) == ("AppServer", o.server.metadata.name)
    if is_free and has_hold_and_gate(pod):
        adopt = AdoptPod(owner_reference(o.server), owner.uid if owner else "")
        takes = "taking over the pod of the same name, which has lost its owner"
        return replace(o.as_told(), reason="Adopting", message=takes, act=adopt)
    if owner or o.leaving:
        return _name_taken(o, pod)
    replaced = f"replacing pod {pod.metadata.name}, which has no owner and was not created by an operator"
    there = ServerPlan("Pending", "ReplacesPod", replaced, wake=SLOW_POLL_SECONDS)
    if not aim.keep:
        return replace(there, act=DeletePod())
    wanted = hash_of(o.server.spec)
    try:
        check = CheckTemplate(build_pod(o.server, o.group), wanted)
    except BadTemplateError as error:
        return replace(there, stalled="BadTemplate", message=str(error))
    is_taken = o.notes.checked_template == wanted
    if is_taken and aim.serve and not o.has_room and pod.holds("Ready"):
        waits = f"{replaced}: waiting for others of its group to serve"
        return replace(there, reason="WaitsForBudget", message=waits, wake=REPEAT_SECONDS)
    if is_taken and o.now - o.notes.checked_at < CHECKED_SECONDS:
        return replace(there, act=DeletePod())
    return _beside(o, _told(o, there, o.notes.refused(check)), check)


def _name_taken(o: Observation, pod: Pod) -> ServerPlan:
    if o.leaving:
        message = f"waiting for pod {pod.metadata.name}, which is not this server's, to be deleted"
        return ServerPlan("Pending", "NameTaken", message, wake=REPEAT_SECONDS)
    message = f"the name is taken by a pod that is not this server's: delete pod {pod.metadata.name}"
    return ServerPlan("Pending", "NameTaken", message, stalled="NameTaken", wake=SLOW_POLL_SECONDS)


def _removed(o: Observation) -> ServerPlan:
    held = names.FINALIZER in o.server.metadata.finalizers
    return ServerPlan("Stopped", "Removed", "the server has no pod", act=RemoveFinalizer() if held else None)


def _without_pod(o: Observation, aim: Aim) -> ServerPlan:
    if aim.scope == "Removal":
        return _removed(o)
    if not aim.keep:
        return ServerPlan("Stopped", "Stopped", aim.reason)
    try:
        create = CreatePod(build_pod(o.server, o.group))
    except BadTemplateError as error:
        return ServerPlan("Pending", "BadTemplate", str(error), stalled="BadTemplate")
    if o.gives_way:
        waits = "the pods of the servers that are being replaced are created first: a quota may have no room for more"
        behind = replace(BOOTING, reason="WaitsForOthers", message=waits, wake=REPEAT_SECONDS)
        return _told(o, behind, o.notes.refused(create))
    return replace(BOOTING, act=create)


def _replace(o: Observation, aim: Aim) -> ServerPlan:
    """Drain and delete a pod that is out of date, once the API server would accept its successor."""
    wanted = hash_of(o.server.spec)
    try:
        check = CheckTemplate(build_pod(o.server, o.group), wanted)
    except BadTemplateError as error:
        return replace(_keep(o, aim), stalled="BadTemplate", message=str(error))
    if o.notes.checked_template != wanted:
        return _check(o, aim, check)
    drain = _ours(o)
    is_suspended = drain is not None and drain.scope in STAYS and isinstance(o.admin, Report)
    if aim.serve and not o.has_room and o.pod and (o.pod.holds(names.GATE) or is_suspended):
        # The budget had room when the group applied the template; since then, others may have gone, or this server's
        # suspension may have ended.
        waits = "its template has changed: waiting for enough others of its group to serve"
        return replace(_keep(o, aim), reason="WaitsForBudget", message=waits, wake=REPEAT_SECONDS)
    step = _stop(o, ending(o, aim) or aim)
    begins = drain is None or drain.scope != "Rollout"
    if (begins or isinstance(step.act, DeletePod)) and o.now - o.notes.checked_at >= CHECKED_SECONDS:
        return _check(o, aim, check)
    return step


def _check(o: Observation, aim: Aim, check: CheckTemplate) -> ServerPlan:
    """Until the API server would accept the new pod, the old one continues as requested."""
    refusal = o.notes.refused(check)
    if refusal is None and aim.serve and _ours(o):  # a drain in progress waits for the answer before it is undone
        state, drain = o.server.status.state or "Pending", o.server.status.suspend
        return ServerPlan(state, "CheckingTemplate", "checking the new template with a dry run", drain=drain, act=check)
    # A refused act must not delay the check of a template that may fix it.
    return _beside(o, _told(o, _paced(o, _keep(o, aim)), refusal), check)


def _stop(o: Observation, aim: Aim) -> ServerPlan:
    """Drain, then delete the pod. Until the deletion, the server can return to service.

    With `Termination`, a server that serves is drained after the deletion. A suspended one is already withdrawn.
    """
    if o.server.spec.withdrawal == "Termination" and o.reachable and o.pod and o.pod.holds(names.GATE):
        return _delete(o, aim)
    outcome = take_out(o, aim, stops=True) if o.reachable else "Drained"
    if isinstance(outcome, ServerPlan):
        return outcome
    return replace(_stopping(o, outcome, aim), act=DeletePod(_grace(o)))


def _delete(o: Observation, aim: Aim) -> ServerPlan:
    """The pod's deletion takes it out of its Services; it is drained while it terminates, which bounds the drain."""
    drain = record(o, aim) if o.reachable else None
    return replace(withdrawing(aim), drain=drain, act=DeletePod(_grace(o)))


def _grace(o: Observation) -> int | None:
    """The pod's own grace period, unless there is nothing to drain and no server to ask to stop."""
    return None if o.reachable or isinstance(o.admin, Report) else NOTHING_TO_DRAIN_GRACE_SECONDS


def _leave(o: Observation, aim: Aim) -> ServerPlan:
    """A pod that is being deleted, by anyone: drain it while the hold lasts, then stop the server."""
    aim = ending(o, aim) or aim
    if o.container is None:
        return _stopping(o, None, aim)
    if o.notes.acted == StopServer():
        # If it doesn't stop, the kubelet signals it when the hold is over.
        return _stopping(o, None, aim)
    outcome = take_out(o, aim, stops=True) if o.reachable else "Drained"
    if isinstance(outcome, ServerPlan):
        return outcome
    if isinstance(o.admin, Report):
        return replace(_stopping(o, outcome, aim), act=StopServer())
    grace = o.pod.metadata.deletion_grace_period_seconds if o.pod else None
    if (outcome == "Forced" or not o.reachable) and (grace or 0) > NOTHING_TO_DRAIN_GRACE_SECONDS:
        # There is no server to ask to stop, and nothing to wait for: the kubelet accepts a shorter grace period.
        return replace(_stopping(o, outcome, aim), act=DeletePod(NOTHING_TO_DRAIN_GRACE_SECONDS))
    return replace(_stopping(o, outcome, aim), wake=SLOW_POLL_SECONDS)


def _restarted_in_place(o: Observation, pod: Pod) -> ServerPlan:
    """The kubelet restarts the container, because of a probe or a changed image.

    It runs the preStop hook first, as for a deletion. Stopping the server ends the hook, so that the next container
    starts as soon as without it.
    """
    message = "the kubelet restarts the container in place: see the pod's Events"
    ending = ServerPlan("Stopping", "ContainerRestarted", message, drain=_ours(o), wake=REPEAT_SECONDS)
    if pod.holds(names.GATE):
        return replace(ending, act=SetGate(open=False, reason="ContainerRestarted"))
    if isinstance(o.admin, Report) and o.notes.acted != StopServer():
        return replace(ending, act=StopServer())
    return replace(ending, wake=min(SLOW_POLL_SECONDS, o.restart_ends_in))


def _overdue(o: Observation, pod: Pod, leaving: ServerPlan) -> ServerPlan:
    """A pod that doesn't go away. It is force-deleted only if it can't run any more, or two could use its volumes."""
    unknown = NodeSays(is_off=False, is_ready=False, words="is unknown: the operator is not allowed to read it")
    node = o.node or unknown
    where = f"node {pod.spec.node_name} {node.words}"
    if node.is_off and not isinstance(o.admin, Report):
        message = f"the pod is force-deleted, and the server starts on another node: its {where}"
        return replace(leaving, reason="NodeLost", message=message, act=DeletePod(0))
    told = replace(leaving, state="Stopping", wake=OVERDUE_SECONDS)
    overdue_at, silent_since = o.now + o.overdue_in, o.notes.silent_since
    if pod.metadata.finalizers and o.container is None:
        held = ", ".join(pod.metadata.finalizers)
        told = replace(told, message=f"the pod is held by its finalizers: {held}")
        return replace(told, stalled="DeletionOverdue", stalls_at=overdue_at + PASSING_SECONDS)
    if isinstance(o.admin, Report) or node.is_ready:
        message = f"the pod should be gone, but may still run, and its {where}: check the kubelet there"
        return replace(told, stalled="DeletionOverdue", stalls_at=overdue_at + PASSING_SECONDS, message=message)
    message = (
        f"the pod is being deleted, and its {where}: bring the node back; or if it is certainly off, delete the Node "
        f"or taint it {OUT_OF_SERVICE}, and the server starts on another node"
    )
    lost_at = overdue_at if silent_since is None else min(overdue_at, silent_since + NODE_COMES_SECONDS)
    return replace(told, stalled="NodeLost", stalls_at=lost_at, message=message)


def _stopping(o: Observation, outcome: Outcome | None, aim: Aim) -> ServerPlan:
    done = finished(o, outcome) if outcome and o.server.status.state != "Stopping" else None
    why = f"stopping: {aim.reason}"
    stopping = ServerPlan("Stopping", "Stopping", why, drain=o.server.status.suspend, finished=done)
    # Cut requests can't be counted afterwards; a stop without any is reported with the start of the next pod.
    is_brief = aim.keep and outcome in (None, "Drained")
    return replace(stopping, tell_within=BRIEF_SECONDS) if is_brief else stopping


def _suspend(o: Observation, aim: Aim) -> ServerPlan:
    if not o.reachable and (booting := boot(o)):
        return replace(booting, drain=_ours(o))
    outcome = take_out(o, aim, stops=False)
    if isinstance(outcome, ServerPlan):
        return outcome
    message = f"refusing requests: {aim.reason}"
    return ServerPlan(
        "Suspended",
        "Suspended",
        message,
        drain=replace(record(o, aim), drained=True),
        finished=finished(o, outcome),
        wake=SUSPENDED_POLL_SECONDS,
    )


def _serve(o: Observation) -> ServerPlan:
    """To Running from any state: unshed, resume, and then back to its Services."""
    pod = cast("Pod", o.pod)
    gate_open = pod.holds(names.GATE)
    serves = gate_open and o.has_served and pod.holds("Ready")
    running = ServerPlan("Running", "Running", "serving")
    if o.missed and serves and not o.told_stalled:
        return replace(running, wake=REPEAT_SECONDS)
    if isinstance(o.admin, AdminFailure) and serves:
        # Requests are served; only the admin endpoint is broken. That is reported, and the server stays in service.
        told = replace(running, stalled=f"Admin{o.admin.kind}", stalls_at=o.admin_stalls_at, message=o.admin.message)
        return replace(told, wake=SUSPENDED_POLL_SECONDS)
    if booting := boot(o):
        return replace(booting, drain=_ours(o))
    report, container = cast("Report", o.admin), o.container
    if report.suspend_state != "RUNNING" and o.has_served and not _ours(o):
        message = (
            f"the server is {report.suspend_state}, but the operator did not suspend it: "
            "resume it the way it was suspended"
        )
        stalls_at = (o.now if o.drifted_since is None else o.drifted_since) + PASSING_SECONDS
        drifted = ServerPlan("Unknown", "Drifted", message, drifted=True, stalled="Drifted", wake=SLOW_POLL_SECONDS)
        return replace(drifted, stalls_at=stalls_at)
    resuming = ServerPlan("Starting", "Resuming", "returning to service", drain=_ours(o), finished=_aborted(o))
    if report.shed:
        return replace(resuming, act=Unshed())
    if report.suspend_state != "RUNNING":
        return replace(resuming, act=ResumeServer())
    if not gate_open or not o.has_served:
        # Nothing is left to undo: a request from here on is another drain, with its own timeout.
        served = container.container_id if container else ""
        gate = SetGate(open=True, reason="ServerRuns", served_container=served)
        taken_back = o.server.status.suspend is not None
        return replace(
            NOT_READY, finished=_aborted(o), act=gate, tell_within=0 if taken_back else NOT_READY.tell_within
        )
    return running if pod.holds("Ready") else not_ready(o, pod)


def _ours(o: Observation) -> Drain | None:
    """The suspension that is recorded for this container: the operator may undo it."""
    drain = o.server.status.suspend
    return drain if drain and o.container and drain.container_id == o.container.container_id else None


def _aborted(o: Observation) -> LastDrain | None:
    return finished(o, "Aborted") if o.server.status.state in ("PreSuspend", "Suspending") else None
