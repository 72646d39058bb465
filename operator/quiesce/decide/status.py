"""The statuses: from an observation and the plan that was made from it."""

import math
from collections.abc import Iterable

import msgspec

from quiesce.decide.boot import TROUBLE_SECONDS
from quiesce.decide.group import GroupObservation, GroupPlan, is_pending, subject
from quiesce.decide.observation import Observation, Untold
from quiesce.decide.requests import accepted_suspend, aim_of, declared_of, strongest
from quiesce.decide.warnings import proxied, unsafe_probe
from quiesce.model import names
from quiesce.model.objects import Condition
from quiesce.model.plan import CheckTemplate, Note, ServerPlan
from quiesce.model.resources import AppServerStatus, ServerGroupStatus, ServerSays
from quiesce.model.server import Report
from quiesce.model.text import QUOTE_BYTES, REASON_BYTES, shown
from quiesce.model.times import Moment, Seconds, moment

replace = msgspec.structs.replace

NAMED = 5  # a message names at most so many
SETTLED = ("Running", "Suspended", "Stopped")
# The reasons of a group's condition Ready, by the servers' declared state: for all in it, and for some not.
READY_REASONS = {
    "Running": ("AllServe", "SomeDoNotServe"),
    "Suspended": ("AllSuspended", "SomeNotSuspended"),
    "Stopped": ("AllStopped", "SomeNotStopped"),
}
# How often a group's counts, and the conditions that report them, are written while it makes progress.
PROGRESS = ("Ready", "Progressing", "Reconciling")
PROGRESS_SECONDS = 20.0
# The conditions that quote what a server, or the API server, says about a problem.
TROUBLE = (*PROGRESS, "Stalled")


def server_status(o: Observation, plan: ServerPlan) -> AppServerStatus:
    plan = _patient(o, plan)
    before, metadata = o.server.status, o.server.metadata
    report = o.admin if isinstance(o.admin, Report) else None
    accepted, _ = accepted_suspend(metadata, before.accepted_suspend)
    ready, progressing = _is_as_declared(o, plan), not _is_settled(o, plan)
    facts = (
        ("Ready", ready, plan.state if ready else plan.reason, plan.message),
        ("Progressing", progressing, plan.reason, plan.message),
        _reconciling_fact(plan.stalled, plan.reason, plan.message, progressing=progressing),
        ("Suspended", plan.state == "Suspended", plan.reason, plan.message),
        ("Stalled", bool(plan.stalled), plan.stalled or "NotStalled", plan.message if plan.stalled else ""),
        ("Drifted", plan.drifted, plan.reason if plan.drifted else "NotDrifted", plan.message if plan.drifted else ""),
        _requests_fact(plan.notes),
        _probes_fact(unsafe_probe(o.server)),
        _proxies_fact(proxied(o)),
    )
    # A new template doesn't count as observed before the API server has accepted or rejected it.
    generation = before.observed_generation if isinstance(plan.act, CheckTemplate) else metadata.generation
    return AppServerStatus(
        state=plan.state,
        observed_generation=generation,
        accepted_suspend=accepted,
        restart_pod_uid=plan.restart_pod_uid or before.restart_pod_uid,
        server=ServerSays(report.suspend_state, report.server_state) if report else None,
        active_requests=report.active_requests if report else None,
        suspend=plan.drain,
        last_drain=plan.finished or before.last_drain,
        conditions=_conditions(facts, before.conditions, generation, o.now),
    )


def _patient(o: Observation, plan: ServerPlan) -> ServerPlan:
    """A problem that may resolve itself is what the server waits for, and not yet reported as stalled."""
    never = math.isinf(plan.stalls_at)
    if not plan.stalled or o.now >= plan.stalls_at or (plan.stalled == o.told_stalled and not never):
        return plan
    return replace(plan, stalled="", reason=plan.stalled)


def _is_as_declared(o: Observation, plan: ServerPlan) -> bool:
    """Whether the server is in the state that the specs declare, or serves because an annotation overrides them."""
    wanted = "Running" if aim_of(o.server, o.group).serve else declared_of(o.server, o.group)
    if o.server.metadata.deletion_timestamp or plan.state != wanted:
        return False
    return plan.state != "Running" or _is_let_in(o)


def _is_settled(o: Observation, plan: ServerPlan) -> bool:
    """Whether the server has reached its desired state."""
    aim = aim_of(o.server, o.group)
    wanted = "Running" if aim.serve else "Suspended" if aim.keep else "Stopped"
    if aim.scope == "Removal" or plan.state != wanted or plan.restart_pod_uid:
        return False
    # A new template that the API server has yet to check doesn't change what the status says.
    outdated = o.out_of_date and not (isinstance(plan.act, CheckTemplate) and o.told_settled)
    return not outdated and (plan.state != "Running" or _is_let_in(o))


def _is_let_in(o: Observation) -> bool:
    return o.pod is not None and o.pod.holds("Ready") and o.pod.holds(names.GATE)


def to_tell(o: Observation, plan: ServerPlan) -> tuple[AppServerStatus | None, Untold | None]:
    """The status to write now; or the one to hold back, in case the state is over before it is due; or neither."""
    after, before = server_status(o, plan), o.notes.untold
    written = before.written if before else o.server.status
    if not worth_writing(written, after):
        return None, None
    same = before is not None and before.status.state == after.state
    since = before.since if before and same else o.now
    # A status that the API server rejected is retried now and then, and immediately if the state has changed.
    due = max(since + plan.tell_within, o.notes.write_at if same else 0)
    if o.now >= due:
        return after, None
    return None, Untold(o.server.metadata.uid, written, after, since, due)


def unwritten(o: Observation, status: AppServerStatus, write_at: Seconds) -> Untold:
    """A status that the API server rejected: it stays in effect until the server's state changes."""
    before = o.notes.untold
    written = before.written if before else o.server.status
    return Untold(o.server.metadata.uid, written, status, since=o.now, due=write_at)


def status_refused(why: str) -> Note:
    return Note("StatusRefused", f"the status can't be written, and is out of date: {why}")


def worth_writing(before: AppServerStatus, after: AppServerStatus) -> bool:
    """Whether anything that matters has changed.

    What the server reports changes with every poll, and is written together with other changes; so is the observed
    generation until the server has settled, or is stalled and the spec may have been changed to fix it.
    """
    same = replace(before, server=after.server, active_requests=after.active_requests)
    if after.state not in SETTLED and not after.holding("Stalled"):
        same = replace(same, observed_generation=after.observed_generation, conditions=_generation_aside(before, after))
    return same != after


def _generation_aside(before: AppServerStatus, after: AppServerStatus) -> tuple[Condition, ...]:
    return tuple(replace(condition, observed_generation=after.observed_generation) for condition in before.conditions)


def server_events(o: Observation, plan: ServerPlan) -> tuple[Note, ...]:
    """Events for a change of state, a new complaint, and the end of a drain."""
    before = o.server.status
    told = {(c.type, c.status, c.reason) for c in before.conditions}
    notes = [note for note in plan.notes if note.reason == "NothingToDo"]
    warnings = (*(note for note in plan.notes if note.warning), unsafe_probe(o.server), proxied(o))
    notes += [note for note in warnings if note and _is_new(note, before.conditions)]
    # A problem that may resolve itself was reported when it began.
    is_known = ("Stalled", "True", plan.stalled) in told or (plan.stalls_at and o.told_reason == plan.stalled)
    if plan.stalled and not is_known:
        notes.append(Note(plan.stalled, plan.message))
    elif plan.state != before.state:
        notes.append(Note(plan.reason, plan.message, warning=False))
    if plan.finished:
        drain = plan.finished
        left = f", with {drain.active_requests} requests still active" if drain.active_requests else ""
        message = f"drained for {drain.duration_seconds:g} s{left}"
        reason = "Drained" if drain.outcome == "Drained" else f"Drain{drain.outcome}"
        notes.append(Note(reason, message, warning=drain.outcome in ("TimedOut", "Forced")))
    return tuple(notes)


def group_status(o: GroupObservation, plan: GroupPlan) -> ServerGroupStatus:
    group, before = o.group, o.group.status
    replicas = group.spec.replicas
    accepted, _ = accepted_suspend(group.metadata, before.accepted_suspend)
    requested = plan.restart_requested_at
    # For tools that wait for it, a generation isn't observed until all servers have been updated to it.
    generation = before.observed_generation if is_pending(o, plan) else group.metadata.generation
    waits = f"; waiting for {_some(_why(o, plan), ', ')}" if plan.waits_for else ""
    held = f"; maxUnavailable is used up by {_some(plan.held_by, ', ')} (suspended)" if plan.held_by else ""
    progress = f"{plan.updated} of {replicas} up to date, {plan.ready} serve{waits}{held}"
    ready, ready_reason = _is_group_as_declared(o, plan)
    stalled = "ServersNeedHelp" if plan.stalled else ""
    all_suspended = 0 < replicas == plan.suspended
    suspended = "AllSuspended" if all_suspended else "SomeSuspended"
    facts = (
        ("Ready", ready, ready_reason, progress),
        ("Progressing", bool(plan.waits_for), _phase(o, plan), progress),
        _reconciling_fact(stalled, _phase(o, plan), progress, progressing=bool(plan.waits_for)),
        ("Suspended", all_suspended, suspended if plan.suspended else "NotSuspended", ""),
        ("Stalled", bool(stalled), stalled or "NotStalled", _stalls(plan)),
        _requests_fact(plan.notes),
        _probes_fact(unsafe_probe(o.group)),
        _proxies_fact(proxied(o)),
    )
    return ServerGroupStatus(
        observed_generation=generation,
        replicas=sum(m.pod is not None or m.server.spec.desired_state != "Stopped" for m in o.members),
        ready_replicas=plan.ready,
        updated_replicas=plan.updated,
        suspended_replicas=plan.suspended,
        selector=f"{names.SERVER_GROUP}={group.metadata.name}",
        accepted_suspend=accepted,
        restart_requested_at=before.restart_requested_at if requested is None else moment(requested),
        conditions=_conditions(facts, before.conditions, generation, o.now),
    )


def _is_group_as_declared(o: GroupObservation, plan: GroupPlan) -> tuple[bool, str]:
    """Whether `replicas` servers are in the state that the group's spec declares, and the reason.

    Servers that serve because an annotation overrides the spec count as well.
    """
    spec = o.group.spec
    declared = strongest(spec.desired_state, spec.template.spec.desired_state)
    count = plan.ready
    if declared != "Running":
        stay = (m.server for m in o.members if m.name not in plan.leaving)
        count += sum(server.status.state == declared and not aim_of(server, o.group).serve for server in stay)
    ready = count >= spec.replicas if spec.replicas else not o.members
    if ready and plan.ready and declared != "Running":
        return ready, "SomeServe"
    return ready, READY_REASONS[declared][0 if ready else 1]


def group_due(
    before: ServerGroupStatus, after: ServerGroupStatus, written_at: Seconds, stalled: Iterable[str] = ()
) -> Seconds | None:
    """When a group's status is due to be written: a time in the past for now, None for never.

    `stalled`: the servers that need help. Each retry may return a different message for the same problem.
    """
    if before == after:
        return None
    told = before.holding("Stalled")
    reworded = replace(before, conditions=_without_messages(before, TROUBLE))
    if reworded == replace(after, conditions=_without_messages(after, TROUBLE)) and told:
        is_known = all(f"{name}: " in told.message for name in stalled)
        return written_at + (TROUBLE_SECONDS if is_known else 0)
    counts = {"ready_replicas": after.ready_replicas, "updated_replicas": after.updated_replicas}
    only_progress = replace(before, conditions=_without_messages(before, PROGRESS), **counts) == replace(
        after, conditions=_without_messages(after, PROGRESS)
    )
    return written_at + PROGRESS_SECONDS if only_progress else written_at


def _without_messages(status: ServerGroupStatus, kinds: tuple[str, ...]) -> tuple[Condition, ...]:
    return tuple(replace(c, message="") if c.type in kinds else c for c in status.conditions)


def group_events(o: GroupObservation, plan: GroupPlan) -> tuple[Note, ...]:
    before = o.group.status.conditions
    warnings = (*plan.notes, unsafe_probe(o.group), proxied(o))
    notes = [note for note in warnings if note and _is_new(note, before)]
    if plan.stalled and not any(c.type == "Stalled" and c.status == "True" for c in before):
        notes.append(Note("ServersNeedHelp", _stalls(plan)))
    phase = _phase(o, plan)
    if phase != _told_phase(o):
        notes.append(Note(phase, f"{plan.updated} of {o.group.spec.replicas} up to date", warning=False))
    return tuple(notes)


def _why(o: GroupObservation, plan: GroupPlan) -> tuple[str, ...]:
    """The servers that the group waits for, each with what it waits for itself."""
    said = {
        member.name: condition.message
        for member in o.members
        for condition in member.server.status.conditions
        if condition.type == "Progressing" and condition.status == "True" and condition.message
    }
    said |= {subject(refusal.act): refusal.message for refusal in o.refused if o.now >= refusal.tell_at}
    said |= dict.fromkeys(o.going, "its predecessor is being deleted")
    return tuple(f"{name} ({shown(said[name], QUOTE_BYTES)})" if name in said else name for name in plan.waits_for)


def _stalls(plan: GroupPlan) -> str:
    return _some(tuple(f"{name}: {shown(message, QUOTE_BYTES)}" for name, message in plan.stalled), "; ")


def _some(things: tuple[str, ...], separator: str) -> str:
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return separator.join(things[:NAMED]) + more


def _phase(o: GroupObservation, plan: GroupPlan) -> str:
    if not plan.waits_for:
        return "Settled"
    if plan.leaving:
        return "ScalingDown"
    # A rollout is over when its last server serves.
    rolls = plan.updated < min(len(o.members), o.group.spec.replicas) or _told_phase(o) == "RollingUpdate"
    return "RollingUpdate" if rolls else "Waiting"


def _told_phase(o: GroupObservation) -> str:
    return next((c.reason for c in o.group.status.conditions if c.type == "Progressing"), "")


Fact = tuple[str, bool, str, str]  # type, status, reason, message of a condition


def _reconciling_fact(stalled: str, reason: str, message: str, *, progressing: bool) -> Fact:
    """What kstatus calls in progress: it continues without you. Stalled needs intervention: failed, in kstatus."""
    if stalled:
        return ("Reconciling", False, stalled, "")
    return ("Reconciling", progressing, reason, message if progressing else "")


def _requests_fact(notes: tuple[Note, ...]) -> Fact:
    complaint = next((note for note in notes if note.warning), None)
    if complaint is None:
        return ("BadRequest", False, "NothingRefused", "")
    return ("BadRequest", True, complaint.reason, complaint.message)


def _probes_fact(warning: Note | None) -> Fact:
    if warning is None:
        return ("UnsafeProbe", False, "NoUnsafeProbe", "")
    return ("UnsafeProbe", True, warning.reason, warning.message)


def _proxies_fact(warning: Note | None) -> Fact:
    if warning is None:
        return ("Proxied", False, "NotProxied", "")
    return ("Proxied", True, warning.reason, warning.message)


def _is_new(note: Note, before: tuple[Condition, ...]) -> bool:
    return not any(c.reason == note.reason and c.message == note.message for c in before)


def _conditions(
    facts: tuple[Fact, ...], before: tuple[Condition, ...], generation: int, now: Seconds
) -> tuple[Condition, ...]:
    known = {condition.type: condition for condition in before}
    return tuple(
        Condition(
            type=kind,
            status="True" if holds else "False",
            reason=shown(reason, REASON_BYTES),
            message=shown(message),
            observed_generation=max(generation, 0),
            last_transition_time=_since(known.get(kind), holds=holds) or moment(float(int(now))),
        )
        for kind, holds, reason, message in facts
    )


def _since(before: Condition | None, *, holds: bool) -> Moment | None:
    return before.last_transition_time if before and (before.status == "True") == holds else None
