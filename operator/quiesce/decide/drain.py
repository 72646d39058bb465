"""The order of a drain: withdraw, confirm, shed, margin, soft, hard.

A server that is suspended while clients can still reach it answers 503, and connections outlive the withdrawal from the
endpoints. So it keeps serving, and each response closes its connection, until nothing is active and clients whose last
response left the connection open had time to send another request; only then is it suspended, or when its time is up.
"""

import math

import msgspec

from quiesce.decide.observation import NO_EFFECT_SECONDS, Observation
from quiesce.decide.requests import Aim
from quiesce.model import names
from quiesce.model.plan import ServerPlan, SetGate, Shed, SuspendServer
from quiesce.model.resources import STAYS, Drain, LastDrain, Outcome, State
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Seconds, moment, seconds

UNCONFIRMED_SECONDS = 30  # a withdrawal that the EndpointSlices don't show by then is stalled
QUIET_SECONDS = 0.5
# Requests that arrive after the margin keep a server from being suspended for at most so long, or half of the timeout.
SOFT_LIMIT_SECONDS = 60
# A drain without a time limit that takes longer needs someone to look at it.
LASTING_SECONDS = 600
POLL_SECONDS = 0.1
MARGIN_POLL_SECONDS = 0.25
# The start of the timeout is written only after so long: the drain of an idle server is over by then. A new process
# that doesn't find it starts the timeout again, which only matters for a short timeout.
BRIEF_SECONDS = 1.5
SHORT_TIMEOUT_SECONDS = 5
SLOW_POLL_SECONDS = 1.0
# The status names at most so many Services; any others are looked up at each step of a drain.
NAMED_SERVICES = 50


def take_out(o: Observation, aim: Aim, *, stops: bool) -> ServerPlan | Outcome:
    """The next step of a drain of a running container, or how the drain ended.

    `stops`: the server is stopped afterwards, so the drain ends when the timeout expires. If the server is to stay
    suspended, the expiry is only reported: the drain ends when the work does, as in WildFly.
    """
    drain = record(o, aim)
    closing = _closing(o, drain)
    if drain.forced and stops and not closing:
        return "Forced"
    if o.stop_at is not None and o.now >= o.stop_at:
        return "TimedOut"
    if closing:
        return msgspec.structs.replace(withdrawing(aim), drain=drain, act=closing)
    if isinstance(o.admin, Report) and o.admin.suspend_state == "SUSPENDED":
        return "Drained"
    if drain.suspending_since is None:
        return _withdraw(o, drain, aim)
    return _suspend(o, drain, aim, stops=stops)


def ending(o: Observation, aim: Aim) -> Aim | None:
    """What ends the server's process, if anything does: a stop, the replacement of its pod, or the pod's deletion."""
    timeout = o.server.spec.suspend_timeout_seconds
    if not aim.keep:
        return aim
    if o.out_of_date:
        return Aim(
            serve=True,
            keep=True,
            scope="Rollout",
            timeout=timeout,
            requested_by=names.MANAGER,
            reason=o.out_of_date,
        )
    if o.leaving:
        return Aim(serve=True, keep=True, scope="Deletion", timeout=timeout, reason="the pod is being deleted")
    return None


def finished(o: Observation, outcome: Outcome) -> LastDrain | None:
    """The result of the drain that ends now; None if none was in progress for this container."""
    drain = o.server.status.suspend
    if drain is None or drain.drained or o.container is None or drain.container_id != o.container.container_id:
        return None
    since = seconds(drain.since) or o.now
    active = o.admin.active_requests if isinstance(o.admin, Report) else None
    return LastDrain(
        outcome=outcome, finished_at=moment(o.now), duration_seconds=round(o.now - since, 1), active_requests=active
    )


def withdrawing(aim: Aim) -> ServerPlan:
    return ServerPlan("PreSuspend", "Withdrawing", f"leaving its Services: {aim.reason}")


def _closing(o: Observation, drain: Drain) -> SetGate | None:
    """The step that closes the gate, if it is still open.

    The endpoints of a pod that is being deleted are not ready, regardless of its gate. The gate is closed then for the
    label and for readers of the condition: if that is refused, or keeps failing, the drain, whose time is limited,
    continues without it.
    """
    if o.pod is None or not o.pod.holds(names.GATE):
        return None
    served = o.container.container_id if o.container and o.was_reached else ""
    closing = SetGate(open=False, reason=drain.scope, served_container=served)
    refusal = o.notes.refused(closing)
    if o.leaving and (
        o.server.spec.withdrawal == "Termination"
        or (refusal and (not refusal.may_pass or o.leaving_for >= NO_EFFECT_SECONDS))
        or o.in_vain_for(closing) >= NO_EFFECT_SECONDS
    ):
        return None
    return closing


def _withdraw(o: Observation, drain: Drain, aim: Aim) -> ServerPlan:
    """PreSuspend: no new connections reach the server; connected clients are asked to leave, and get time to."""
    replace = msgspec.structs.replace
    pre_suspend = replace(withdrawing(aim), drain=drain)
    if not o.was_reached or drain.forced:
        return _start_clock(o, drain, aim)
    if o.notes.confirmed_at is None:
        stalled = o.now - (seconds(drain.since) or o.now) >= UNCONFIRMED_SECONDS
        seen = f"still a ready endpoint of {', '.join(o.routes)}" if o.routes else "the kubelet still says it is ready"
        return replace(
            pre_suspend,
            message=seen if stalled else pre_suspend.message,
            stalled="WithdrawalUnconfirmed" if stalled else "",
            wake=SLOW_POLL_SECONDS,
        )
    if _can_shed(o):
        return replace(pre_suspend, act=Shed())
    margin_ends = max(o.notes.confirmed_at, o.notes.shed_at or 0) + o.server.spec.pre_suspend_seconds
    if o.now < margin_ends:
        # When the requests in flight at the shed end, another margin starts: so poll for their end from now on.
        polls = o.notes.shed_at is not None and o.notes.answered_at is None
        return replace(pre_suspend, wake=min(margin_ends - o.now, MARGIN_POLL_SECONDS if polls else math.inf))
    return _start_clock(o, drain, aim)


def _start_clock(o: Observation, drain: Drain, aim: Aim) -> ServerPlan:
    """The timeout starts here, and its start is recorded soon: a new process must not start it again."""
    return _suspending(o, msgspec.structs.replace(drain, suspending_since=moment(o.now)), aim, wake=0)


def _suspending(o: Observation, drain: Drain, aim: Aim, *, wake: Seconds) -> ServerPlan:
    limit = "without a limit" if aim.timeout < 0 else f"for at most {aim.timeout} s"
    deadline = _deadline(o, drain, aim)
    drain = msgspec.structs.replace(drain, deadline=None if math.isinf(deadline) else moment(deadline))
    message = f"waiting for active requests to end, {limit}: {aim.reason}"
    if o.notes.shed_refused:
        message += f"; clients are not asked to close kept-alive connections: {o.notes.shed_refused}"
    # A server that was suspended stays Suspended in the status until a report says otherwise.
    state: State = "Suspended" if drain.drained and not isinstance(o.admin, Report) else "Suspending"
    brief = 0 if drain.forced or 0 <= aim.timeout <= SHORT_TIMEOUT_SECONDS else BRIEF_SECONDS
    return ServerPlan(state, "Draining", message, drain=drain, wake=wake, tell_within=brief)


def _suspend(o: Observation, drain: Drain, aim: Aim, *, stops: bool) -> ServerPlan | Outcome:
    """Suspending: soft until quiet, then hard, until the server reports SUSPENDED or the timeout expires."""
    began = seconds(drain.suspending_since) or o.now
    deadline = _deadline(o, drain, aim)
    waiting = _suspending(o, drain, aim, wake=POLL_SECONDS)
    replace = msgspec.structs.replace
    if not isinstance(o.admin, Report):
        if stops and o.now >= deadline:
            return "TimedOut"
        if o.missed:
            return replace(o.as_told() if drain.drained else waiting, wake=SLOW_POLL_SECONDS)
        failure = o.admin or AdminFailure("Unreachable", "the admin endpoint has not been queried yet")
        fails = replace(waiting, stalled=f"Admin{failure.kind}", stalls_at=o.admin_stalls_at, message=failure.message)
        return replace(fails, wake=SLOW_POLL_SECONDS)
    if math.isinf(deadline) and o.now - began >= LASTING_SECONDS:
        lasts = f"requests are still active after {LASTING_SECONDS} s, and the drain has no time limit"
        advice = f": to end it, set {names.FORCE}=true" if stops or o.admin.suspend_state == "RUNNING" else ""
        waiting = replace(waiting, reason="DrainLasts", stalled="DrainLasts", message=lasts + advice)
    if o.admin.suspend_state == "RUNNING":
        if stops and o.now >= deadline and (o.notes.refusal or o.in_vain_for(SuspendServer()) >= NO_EFFECT_SECONDS):
            return "TimedOut"
        in_time = o.now < deadline and not drain.forced and o.was_reached
        if in_time and _can_shed(o):  # the admin endpoint did not respond when it was time to
            return replace(waiting, act=Shed())
        limit = SOFT_LIMIT_SECONDS if aim.timeout < 0 else min(aim.timeout / 2, SOFT_LIMIT_SECONDS)
        if (_is_warned(o, o.admin) and (_is_quiet(o, began) or o.now >= began + limit)) or not in_time:
            return replace(waiting, act=SuspendServer())
        return waiting
    if o.now < deadline:
        return waiting
    if stops:
        return "TimedOut"
    return replace(
        waiting,
        reason="DrainTimedOut",
        stalled="DrainTimedOut",
        message=f"active requests did not end within {aim.timeout} s; the server refuses new ones and keeps waiting",
        wake=SLOW_POLL_SECONDS,
    )


def _is_warned(o: Observation, report: Report) -> bool:
    """Whether the margin has passed for clients to send a request on connections that their last response left open.

    Those are the connections of requests that were in flight at the shed: the margin starts when the last of them ends.
    If the shed was late, because the admin endpoint did not respond, the margin starts after it.
    """
    sheds = report.shed and o.notes.shed_at is not None
    if sheds and report.active_requests is not None and o.notes.answered_at is None:
        return False
    last = max(o.notes.shed_at or 0, o.notes.answered_at or 0)
    return o.now >= last + o.server.spec.pre_suspend_seconds


def _is_quiet(o: Observation, began: Seconds) -> bool:
    """Whether nothing has been active since polling became frequent enough to tell.

    If responses don't close connections, a client may just pause between requests: quiet has to last for the margin.
    """
    needed = QUIET_SECONDS if o.notes.shed_at is not None else max(QUIET_SECONDS, o.server.spec.pre_suspend_seconds)
    return o.notes.quiet_since is not None and o.now - max(o.notes.quiet_since, began) >= needed


def _can_shed(o: Observation) -> bool:
    can = isinstance(o.admin, Report) and o.admin.suspend_state == "RUNNING" and not o.admin.sheds_all
    return can and not o.notes.shed_refused


def record(o: Observation, aim: Aim) -> Drain:
    """The drain in progress, updated to the current request; a new one for a new container."""
    container_id = o.container.container_id if o.container else ""
    drain = o.server.status.suspend
    if drain is None or drain.container_id != container_id:
        drain = Drain(scope=aim.scope, since=moment(o.now), container_id=container_id)
    return msgspec.structs.replace(
        drain,
        # Forcing a suspend doesn't force a later stop: requests that are active then have until its own timeout.
        forced=drain.forced and (drain.scope not in STAYS or aim.scope in STAYS),
        scope=aim.scope,
        requested_by=aim.requested_by,
        reason=aim.reason,
        unconfirmable=(o.unconfirmable or drain.unconfirmable)[:NAMED_SERVICES],
    )


def _deadline(o: Observation, drain: Drain, aim: Aim) -> Seconds:
    began = seconds(drain.suspending_since) or o.now
    own = math.inf if aim.timeout < 0 else began + aim.timeout
    return own if o.stop_at is None else min(own, o.stop_at)
