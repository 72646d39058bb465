"""The order of a drain, step by step."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.observation import Notes, Observation
from quiesce.decide.podspec import template_hash
from quiesce.decide.refusal import Refusal
from quiesce.decide.server import decide
from quiesce.model import names
from quiesce.model.objects import Pod
from quiesce.model.plan import Act, DeletePod, SetGate, Shed, StopServer, SuspendServer
from quiesce.model.resources import Drain
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Seconds, moment, seconds
from tests.unit.build import CONTAINER, NOW, drain, look, pod, report, server, status, template

replace = msgspec.structs.replace

WITHDRAWN = pod(gate=False)
UNAUTHORIZED = AdminFailure("Unauthorized", "wrong password")
Step = tuple[str, Act | None]


def suspend(value: str = "true", state: str = "Running", under_way: Drain | None = None, **changes: Any) -> Any:
    return server(annotations={names.SUSPEND: value}, status=status(state, under_way), **changes)


def pre_suspend(**changes: Any) -> Any:
    return suspend(state="PreSuspend", under_way=drain(since=NOW - 5), **changes)


def suspending(since: Seconds, value: str = "true", *, forced: bool = False) -> Any:
    return suspend(value, "Suspending", drain(since=since - 5, suspending_since=since, forced=forced))


def busy(
    seconds_in: Seconds,
    value: str,
    admin: Report | AdminFailure,
    *,
    quiet_for: Seconds | None = None,
    answered_for: Seconds | None = 5,
    shed_for: Seconds | None = 9,
) -> Observation:
    """So long into Suspending, with so long a quiet behind it, and since the last answer that closed nothing."""
    notes = Notes(
        confirmed_at=NOW - 9,
        shed_at=_ago(shed_for),
        shed_refused="" if shed_for else "403",
        answered_at=_ago(answered_for),
        quiet_since=_ago(quiet_for),
    )
    return look(suspending(NOW - seconds_in, value), WITHDRAWN, admin, notes=notes)


def _ago(duration: Seconds | None) -> Seconds | None:
    return None if duration is None else NOW - duration


def shed(active: int | None = 3) -> Report:
    return report(active=active, shed=True)


@pytest.mark.parametrize(
    ("observation", "step"),
    [
        pytest.param(
            look(suspend()),
            ("PreSuspend", SetGate(open=False, reason="Server", served_container=CONTAINER)),
            id="first the gate closes",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, routes=("shop",)),
            ("PreSuspend", None),
            id="while a Service has it as ready it is not shed",
        ),
        pytest.param(
            look(pre_suspend(), pod(gate=False, ready=True), routes=()),
            ("PreSuspend", None),
            id="while the kubelet calls it ready it may come into a Service yet",
        ),
        pytest.param(look(pre_suspend(), WITHDRAWN), ("PreSuspend", Shed()), id="once no Service has it, it is shed"),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, report(), notes=Notes(shed_refused="403")),
            ("PreSuspend", None),
            id="a refused shed is not asked for again",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, report("SUSPENDING", active=1)),
            ("PreSuspend", None),
            id="a server that someone suspended is not shed",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, shed(), notes=Notes(confirmed_at=NOW - 9, shed_at=NOW - 1.9)),
            ("PreSuspend", None),
            id="the margin counts from the shed when that was later",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, shed(), notes=Notes(confirmed_at=NOW - 1.9, shed_at=NOW - 9)),
            ("PreSuspend", None),
            id="the margin counts from the confirmation when that was later",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, shed(), notes=Notes(confirmed_at=NOW - 2, shed_at=NOW - 2)),
            ("Suspending", None),
            id="after the margin the clock starts, and is written down first",
        ),
        pytest.param(
            look(pre_suspend(pre_suspend_seconds=0), WITHDRAWN, shed()),
            ("Suspending", None),
            id="without a margin the clock starts with the shed",
        ),
        pytest.param(
            look(pre_suspend(), WITHDRAWN, UNAUTHORIZED, notes=Notes(confirmed_at=NOW - 2)),
            ("Suspending", None),
            id="a server that can't be asked is not shed, and its margin counts from the confirmation",
        ),
    ],
)
def test_withdraw_confirm_shed_margin(observation: Observation, step: Step) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == step
    assert plan.drain is not None


@pytest.mark.parametrize(
    ("observation", "step"),
    [
        pytest.param(busy(0, "60", shed()), None, id="a busy server keeps serving"),
        pytest.param(busy(29.9, "60", shed()), None, id="for half of the timeout"),
        pytest.param(busy(30, "60", shed()), SuspendServer(), id="and is suspended then"),
        pytest.param(busy(59.9, "200", shed()), None, id="of a long timeout: for 60 s"),
        pytest.param(busy(60, "200", shed()), SuspendServer(), id="and is suspended then, in any case"),
        pytest.param(busy(59.9, "-1", shed()), None, id="without a limit: for 60 s as well"),
        pytest.param(busy(60, "-1", shed()), SuspendServer(), id="and is suspended then, however busy"),
        pytest.param(busy(0, "0", shed()), SuspendServer(), id="with 0 it is suspended immediately"),
        pytest.param(busy(9, "60", shed(0), quiet_for=0.4), None, id="0.4 s of quiet are not enough"),
        pytest.param(busy(9, "60", shed(0), quiet_for=0.5), SuspendServer(), id="0.5 s of quiet are"),
        pytest.param(busy(0.4, "60", shed(0), quiet_for=9), None, id="quiet counts within Suspending only"),
        pytest.param(busy(9, "60", shed(1), quiet_for=9), None, id="a new request ends the quiet"),
        pytest.param(
            busy(9, "60", shed(0), quiet_for=1.9, answered_for=1.9),
            None,
            id="what was under way at the shed has left its connections open: its clients get the margin",
        ),
        pytest.param(
            busy(9, "60", shed(0), quiet_for=2, answered_for=2), SuspendServer(), id="and after it, it is suspended"
        ),
        pytest.param(
            busy(9, "60", shed(0), quiet_for=0.6, answered_for=2.1), SuspendServer(), id="later answers need no margin"
        ),
        pytest.param(
            busy(30, "60", shed(0), quiet_for=1.9, answered_for=1.9),
            None,
            id="half of the timeout cuts no margin short",
        ),
        pytest.param(
            busy(60, "60", shed(0), quiet_for=1.9, answered_for=1.9), SuspendServer(), id="but the whole timeout does"
        ),
        pytest.param(busy(59.9, "60", shed(1), answered_for=None), None, id="nor what was under way at the shed"),
        pytest.param(
            busy(60, "60", shed(1), answered_for=None), SuspendServer(), id="which the whole timeout does as well"
        ),
        pytest.param(busy(599, "600", shed(1), answered_for=None), None, id="however long the timeout is"),
        pytest.param(busy(599, "-1", shed(1), answered_for=None), None, id="or without a limit"),
        pytest.param(
            busy(599, "600", shed(0), quiet_for=1.9, answered_for=1.9), None, id="and then its clients get the margin"
        ),
        pytest.param(
            busy(599, "-1", shed(0), quiet_for=2, answered_for=2), SuspendServer(), id="after which it is suspended"
        ),
        pytest.param(
            busy(30, "60", shed(None), answered_for=None),
            SuspendServer(),
            id="a server that does not count: half of it",
        ),
        pytest.param(
            busy(60, "-1", shed(None), answered_for=None), SuspendServer(), id="or 60 s, where there is no limit"
        ),
        pytest.param(
            busy(30, "60", replace(report(active=1), sheds_all=True), answered_for=None),
            SuspendServer(),
            id="a server without HTTP hosts has nothing to shed: half of it",
        ),
        pytest.param(
            busy(9, "60", replace(report(), shed=True), quiet_for=2, shed_for=None, answered_for=None),
            SuspendServer(),
            id="a server of which one host could not be shed: quiet as long as the margin",
        ),
        pytest.param(
            busy(60, "600", report(active=1), shed_for=None, answered_for=None),
            SuspendServer(),
            id="where no answer closes a connection, requests could follow each other for ever",
        ),
        pytest.param(
            busy(9, "60", report(), quiet_for=1.9, shed_for=None),
            None,
            id="where no answer closes a connection, quiet is as long as the margin",
        ),
        pytest.param(
            busy(9, "60", report(), quiet_for=2, shed_for=None), SuspendServer(), id="and then it is suspended"
        ),
        pytest.param(busy(9, "60", shed(None)), None, id="a server that does not count is never quiet"),
        pytest.param(busy(9, "60", report("SUSPENDING", active=1)), None, id="a suspended server is not asked again"),
    ],
)
def test_soft_until_quiet_then_hard(observation: Observation, step: Act | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == ("Suspending", step)
    assert not plan.stalled


@pytest.mark.parametrize(
    ("observation", "stalled", "advice"),
    [
        pytest.param(busy(599, "-1", shed(1), answered_for=None), "", "", id="not yet"),
        pytest.param(busy(600, "-1", shed(1), answered_for=None), "DrainLasts", "force", id="requests go on and on"),
        pytest.param(busy(600, "-1", report("SUSPENDING", active=1)), "DrainLasts", "", id="it is suspended already"),
        pytest.param(busy(600, "900", shed(1), answered_for=None), "", "", id="its timeout ends it"),
    ],
)
def test_a_drain_without_a_limit_that_lasts_is_reported(observation: Observation, stalled: str, advice: str) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act, plan.stalled) == ("Suspending", None, stalled)
    assert (names.FORCE in plan.message) == bool(advice)


def leave(state: Any = "Suspending", under_way: Drain | None = None, **changes: Any) -> Any:
    return server(status=status(state, under_way), **changes)


def stopped(seconds_in: Seconds, *, forced: bool = False) -> Any:
    since = NOW - seconds_in
    under_way = drain("Stop", since=since - 5, suspending_since=since, forced=forced)
    return server(desired_state="Stopped", status=status("Suspending", under_way))


def test_the_end_of_what_was_under_way_at_the_shed_is_looked_for_and_kept() -> None:
    first = look(pre_suspend(), WITHDRAWN, shed(3), notes=Notes(confirmed_at=NOW - 1))
    assert decide(first).wake == pytest.approx(0.25)
    assert first.notes.answered_at is None
    later = look(pre_suspend(), WITHDRAWN, shed(0), notes=replace(first.notes, shed_at=NOW - 1))
    assert decide(later).wake == pytest.approx(1)
    assert later.notes.answered_at == NOW
    last = look(pre_suspend(), WITHDRAWN, shed(1), notes=later.notes, now=NOW + 0.5)
    assert last.notes.answered_at == NOW
    unshed = look(pre_suspend(), WITHDRAWN, report(active=0), notes=later.notes)
    assert unshed.notes.answered_at is None


@pytest.mark.parametrize(
    ("observation", "state", "act", "outcome"),
    [
        pytest.param(
            look(suspending(NOW - 61, "60"), WITHDRAWN, report("SUSPENDING", active=1)),
            "Suspending",
            None,
            None,
            id="to stay suspended: it waits on",
        ),
        pytest.param(
            look(suspending(NOW - 61, "60"), WITHDRAWN, report("SUSPENDED")),
            "Suspended",
            None,
            "Drained",
            id="and is suspended when the work ends, however late",
        ),
        pytest.param(
            look(stopped(61), WITHDRAWN, report("SUSPENDING", active=1)),
            "Stopping",
            DeletePod(),
            "TimedOut",
            id="to stop: it is stopped",
        ),
        pytest.param(
            look(stopped(59), WITHDRAWN, report("SUSPENDING", active=1)), "Suspending", None, None, id="not before"
        ),
        pytest.param(
            look(stopped(3), WITHDRAWN, report("SUSPENDED")), "Stopping", DeletePod(), "Drained", id="drained in time"
        ),
        pytest.param(
            look(stopped(61), WITHDRAWN, UNAUTHORIZED),
            "Stopping",
            DeletePod(),
            "TimedOut",
            id="a server that can't be asked is stopped then too",
        ),
        pytest.param(
            look(
                stopped(61),
                WITHDRAWN,
                shed(),
                notes=Notes(refusal=Refusal(SuspendServer(), "AdminForbidden", "no", NOW + 9)),
            ),
            "Stopping",
            DeletePod(),
            "TimedOut",
            id="a server that refuses its suspend as well",
        ),
        pytest.param(
            look(stopped(3, forced=True), WITHDRAWN, report("SUSPENDING", active=1)),
            "Stopping",
            DeletePod(),
            "Forced",
            id="force ends the wait",
        ),
        pytest.param(
            look(
                server(desired_state="Stopped", status=status("PreSuspend", drain("Stop", forced=True))),
                pod(),
                report(active=1),
            ),
            "PreSuspend",
            SetGate(open=False, reason="Stop", served_container=CONTAINER),
            None,
            id="force still closes the gate first",
        ),
        pytest.param(
            look(suspending(NOW - 3, forced=True), WITHDRAWN, shed()),
            "Suspending",
            SuspendServer(),
            None,
            id="force on the way to Suspended skips the soft part",
        ),
    ],
)
def test_the_end_of_a_drain(observation: Observation, state: str, act: Act | None, outcome: str | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == (state, act)
    assert (plan.finished.outcome if plan.finished else None) == outcome


def test_an_expired_suspend_says_that_it_waits_on() -> None:
    plan = decide(look(suspending(NOW - 61, "60"), WITHDRAWN, report("SUSPENDING", active=1)))
    assert (plan.reason, plan.stalled) == ("DrainTimedOut", "DrainTimedOut")


def test_wrong_credentials_in_mid_drain_are_reported_and_the_drain_waits() -> None:
    plan = decide(look(suspending(NOW - 3, "60"), WITHDRAWN, UNAUTHORIZED))
    assert (plan.state, plan.act, plan.stalled, plan.message) == (
        "Suspending",
        None,
        "AdminUnauthorized",
        "wrong password",
    )


@pytest.mark.parametrize(
    ("waited", "routes", "stalled"),
    [
        pytest.param(29, ("shop",), "", id="the endpoints have 30 s"),
        pytest.param(30, ("shop",), "WithdrawalUnconfirmed", id="then it is stalled"),
    ],
)
def test_an_unconfirmed_withdrawal_is_reported(waited: Seconds, routes: tuple[str, ...], stalled: str) -> None:
    one = suspend(state="PreSuspend", under_way=drain(since=NOW - waited))
    plan = decide(look(one, WITHDRAWN, routes=routes))
    assert (plan.act, plan.stalled) == (None, stalled)
    assert ("shop" in plan.message) == bool(stalled)


def test_a_kubelet_that_does_not_see_the_gate_is_reported() -> None:
    one = suspend(state="PreSuspend", under_way=drain(since=NOW - 30))
    plan = decide(look(one, pod(gate=False, ready=True), routes=()))
    assert (plan.act, plan.stalled) == (None, "WithdrawalUnconfirmed")
    assert plan.message == "the kubelet still says it is ready"


def test_services_that_cant_confirm_are_named_and_not_waited_for() -> None:
    plan = decide(look(pre_suspend(), WITHDRAWN, routes=(), unconfirmable=("headless",)))
    assert plan.act == Shed()
    assert plan.drain is not None
    assert plan.drain.unconfirmable == ("headless",)


@pytest.mark.parametrize(
    ("one", "at", "act"),
    [
        pytest.param(
            server(annotations={names.SUSPEND: "true"}, status=status("Starting")),
            pod(gate=False, served=""),
            None,
            id="to stay suspended: its clock starts immediately",
        ),
        pytest.param(
            server(
                annotations={names.SUSPEND: "true"},
                status=status("Suspending", drain(suspending_since=NOW)),
            ),
            pod(gate=False, served=""),
            SuspendServer(),
            id="and it is suspended immediately",
        ),
        pytest.param(
            server(desired_state="Stopped", status=status("Starting")),
            pod(gate=False, served=""),
            DeletePod(),
            id="to stop: its pod is deleted immediately",
        ),
    ],
)
def test_a_container_that_never_served_waits_for_nothing(one: Any, at: Any, act: Act | None) -> None:
    plan = decide(look(one, at, report(active=3)))
    assert plan.act == act
    assert plan.state in ("Suspending", "Stopping")


def test_a_container_restarted_in_mid_drain_starts_a_drain_of_its_own() -> None:
    begun = drain(since=NOW - 50, suspending_since=NOW - 40)
    one = suspend(state="Suspending", under_way=begun)
    plan = decide(look(one, pod(gate=False, container="containerd://2"), report(active=3)))
    assert plan.drain is not None
    assert (plan.drain.container_id, plan.drain.since, plan.drain.suspending_since) == (
        "containerd://2",
        moment(NOW),
        moment(NOW),
    )
    assert plan.act is None


@pytest.mark.parametrize(
    ("value", "deadline"),
    [
        pytest.param("60", NOW + 50, id="the same"),
        pytest.param("20", NOW + 10, id="shorter"),
        pytest.param("600", NOW + 590, id="longer"),
        pytest.param("-1", None, id="without a limit"),
    ],
)
def test_a_changed_timeout_keeps_the_start_time(value: str, deadline: Seconds | None) -> None:
    plan = decide(look(suspending(NOW - 10, value), WITHDRAWN, report("SUSPENDING", active=1)))
    assert plan.drain is not None
    assert plan.drain.suspending_since == moment(NOW - 10)
    assert seconds(plan.drain.deadline) == deadline


def test_a_new_owner_of_a_drain_keeps_its_clock() -> None:
    """A suspended server that is now to stop is stopped without another wait."""
    one = server(
        desired_state="Stopped",
        status=status("Suspending", drain("Server", since=NOW - 70, suspending_since=NOW - 65)),
    )
    plan = decide(look(one, WITHDRAWN, report("SUSPENDING", active=1)))
    assert (plan.act, plan.finished.outcome if plan.finished else "") == (DeletePod(), "TimedOut")


LEAVING = 10  # seconds since the deletion; the hold is 77 s


@pytest.mark.parametrize(
    ("observation", "state", "act"),
    [
        pytest.param(
            look(leave("Running"), pod(gate=False, leaving_for=0), routes=("shop",)),
            "PreSuspend",
            None,
            id="first it is withdrawn",
        ),
        pytest.param(look(leave("Running"), pod(gate=False, leaving_for=0)), "PreSuspend", Shed(), id="then shed"),
        pytest.param(
            look(
                leave("Suspending", drain("Deletion", suspending_since=NOW - 5)),
                pod(gate=False, leaving_for=LEAVING),
                shed(0),
                notes=Notes(quiet_since=NOW - 9, shed_at=NOW - 9, answered_at=NOW - 9),
            ),
            "Suspending",
            SuspendServer(),
            id="then suspended",
        ),
        pytest.param(
            look(
                leave("Suspending", drain("Deletion", suspending_since=NOW - 5)),
                pod(gate=False, leaving_for=LEAVING),
                report("SUSPENDED"),
            ),
            "Stopping",
            StopServer(),
            id="then stopped",
        ),
        pytest.param(
            look(
                leave("Stopping", drain("Deletion", suspending_since=NOW - 5)),
                pod(gate=False, leaving_for=LEAVING),
                report("SUSPENDED"),
                notes=Notes(acted=StopServer(), acted_at=NOW - 60),
            ),
            "Stopping",
            None,
            id="once",
        ),
        pytest.param(
            look(leave("Stopping"), pod(gate=False, leaving_for=LEAVING, container=None)),
            "Stopping",
            None,
            id="until it has ended",
        ),
        pytest.param(
            look(leave("PreSuspend"), pod(gate=False, leaving_for=71.9), routes=("shop",)),
            "PreSuspend",
            None,
            id="in 72 of 77 s",
        ),
        pytest.param(
            look(leave("PreSuspend"), pod(gate=False, leaving_for=72), routes=("shop",)),
            "Stopping",
            StopServer(),
            id="and is stopped before the hold ends, whatever is still to do",
        ),
        pytest.param(
            look(leave("Running"), pod(gate=False, leaving_for=6, grace=10)),
            "Stopping",
            StopServer(),
            id="a shorter grace period is a shorter hold",
        ),
        pytest.param(
            look(
                leave("Suspending", drain("Deletion", suspending_since=NOW - 71), suspend_timeout_seconds=-1),
                pod(gate=False, leaving_for=72),
                report("SUSPENDING", active=1),
            ),
            "Stopping",
            StopServer(),
            id="for ever ends with the hold",
        ),
        pytest.param(
            look(leave("Running"), pod(gate=False, leaving_for=72), UNAUTHORIZED),
            "Stopping",
            None,
            id="one that can't be asked is left to the kubelet",
        ),
        pytest.param(
            look(leave("Starting", None), pod(gate=False, leaving_for=0, container="containerd://2")),
            "Stopping",
            StopServer(),
            id="one that never served is stopped immediately",
        ),
        pytest.param(
            look(
                leave("PreSuspend", drain("Deletion", since=NOW - 1, forced=True)),
                pod(gate=False, leaving_for=1),
                report(active=1),
                routes=("shop",),
            ),
            "Stopping",
            StopServer(),
            id="force stops it immediately",
        ),
    ],
)
def test_a_pod_that_is_being_deleted_drains_within_its_hold(
    observation: Observation, state: str, act: Act | None
) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == (state, act)


def test_the_account_of_a_drain() -> None:
    one = suspend("60", "Suspending", drain(since=NOW - 12.34, suspending_since=NOW - 9))
    finished = decide(look(one, WITHDRAWN, report("SUSPENDED"))).finished
    assert finished is not None
    assert (finished.outcome, finished.duration_seconds, finished.active_requests) == ("Drained", 12.3, 0)


def in_suspending(
    admin: Report | AdminFailure, *, seconds_in: Seconds = 3, value: str = "60", notes: Notes | None = None, **of: Any
) -> Observation:
    began = NOW - seconds_in
    one = suspend(value, "Suspending", drain(since=began - 5, suspending_since=began, **of))
    return look(one, WITHDRAWN, admin, notes=notes or Notes(confirmed_at=NOW - 9))


@pytest.mark.parametrize(
    ("observation", "act"),
    [
        pytest.param(in_suspending(report(active=3)), Shed(), id="the admin endpoint answers again: it is shed then"),
        pytest.param(
            in_suspending(report(), notes=Notes(confirmed_at=NOW - 9, quiet_since=NOW - 9)),
            Shed(),
            id="first, even when it is quiet",
        ),
        pytest.param(in_suspending(shed()), None, id="once"),
        pytest.param(in_suspending(report("SUSPENDING", active=1)), None, id="only while it serves"),
        pytest.param(in_suspending(report(active=3), seconds_in=59.9), Shed(), id="as long as there is time"),
        pytest.param(in_suspending(report(active=3), seconds_in=60), SuspendServer(), id="and not after it"),
        pytest.param(in_suspending(report(active=3), value="0"), SuspendServer(), id="nor when there was none"),
        pytest.param(in_suspending(report(active=3), forced=True), SuspendServer(), id="nor when it is forced"),
        pytest.param(
            in_suspending(report(active=3), notes=Notes(confirmed_at=NOW - 9, shed_refused="403")),
            None,
            id="nor when it was refused",
        ),
    ],
)
def test_a_shed_that_was_missed_is_made_up_for(observation: Observation, act: Act | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == ("Suspending", act)


@pytest.mark.parametrize(
    ("shed_for", "seconds_in", "act"),
    [
        pytest.param(1, 40, None, id="the soft phase is over, and the margin is not"),
        pytest.param(2, 40, SuspendServer(), id="so is the margin"),
        pytest.param(1, 60, SuspendServer(), id="so is the timeout"),
    ],
)
def test_a_server_that_was_shed_late_gives_its_clients_the_margin(
    shed_for: float, seconds_in: float, act: Act | None
) -> None:
    late = Notes(confirmed_at=NOW - 50, shed_at=NOW - shed_for, answered_at=NOW - shed_for)
    assert decide(look(suspending(NOW - seconds_in), WITHDRAWN, shed(), notes=late)).act == act


def test_a_server_that_never_served_is_suspended_without_a_shed() -> None:
    one = server(annotations={names.SUSPEND: "true"}, status=status("Suspending", drain(suspending_since=NOW)))
    assert decide(look(one, pod(gate=False, served=""), report(active=3))).act == SuspendServer()


def test_the_message_says_that_clients_are_not_asked_to_close_connections() -> None:
    refused = decide(in_suspending(report(active=3), notes=Notes(confirmed_at=NOW - 9, shed_refused="HTTP 403")))
    assert "not asked to close kept-alive connections: HTTP 403" in refused.message
    assert "HTTP 403" not in decide(in_suspending(shed())).message


UNREACHABLE = AdminFailure("Unreachable", "no answer within 5 s")


@pytest.mark.parametrize(
    ("drained", "admin", "silent_for", "state", "stalled"),
    [
        pytest.param(True, UNREACHABLE, 4, "Suspended", "", id="an answer that is missed changes nothing"),
        pytest.param(True, UNREACHABLE, 5, "Suspended", "AdminUnreachable", id="5 s of silence are reported"),
        pytest.param(True, UNAUTHORIZED, 0, "Suspended", "AdminUnauthorized", id="a refusal is reported immediately"),
        pytest.param(True, report("SUSPENDED"), 0, "Suspended", "", id="until the next answer"),
        pytest.param(True, report("SUSPENDING", active=1), 0, "Suspending", "DrainTimedOut", id="what it says counts"),
        pytest.param(False, UNREACHABLE, 4, "Suspending", "", id="before the drain was over it is not Suspended"),
        pytest.param(False, UNREACHABLE, 5, "Suspending", "AdminUnreachable", id="nor when it is silent"),
    ],
)
def test_a_suspended_server_that_gives_no_answer(
    drained: bool, admin: Report | AdminFailure, silent_for: Seconds, state: str, stalled: str
) -> None:
    one = suspend("60", "Suspended", drain(since=NOW - 90, suspending_since=NOW - 80, drained=drained))
    plan = decide(look(one, WITHDRAWN, admin, notes=Notes(silent_since=NOW - silent_for)))
    assert (plan.state, plan.act, plan.stalled) == (state, None, stalled)
    assert plan.drain is not None
    assert plan.drain.drained == drained or isinstance(admin, Report)


def test_the_end_of_a_drain_is_accounted_once() -> None:
    one = suspend("60", "Suspended", drain(since=NOW - 90, suspending_since=NOW - 80, drained=True))
    plan = decide(look(one, WITHDRAWN, report("SUSPENDED")))
    assert (plan.state, plan.finished) == ("Suspended", None)


@pytest.mark.parametrize(
    ("at", "served"),
    [
        pytest.param(pod(), CONTAINER, id="one whose gate the operator opened"),
        pytest.param(pod(served=""), CONTAINER, id="one whose gate someone else opened"),
        pytest.param(
            pod(container="containerd://2"), "containerd://2", id="one that came into an open gate, and is ready"
        ),
        pytest.param(
            pod(container="containerd://2", ready=False),
            "",
            id="not one that came into an open gate and was never ready",
        ),
    ],
)
def test_the_gate_that_closes_says_whose_it_was(at: Pod, served: str) -> None:
    closing = decide(look(suspend(), at)).act
    assert closing == SetGate(open=False, reason="Server", served_container=served)


@pytest.mark.parametrize(
    ("at", "step"),
    [
        pytest.param(pod(served="", leaving_for=1), ("PreSuspend", Shed()), id="open: clients may be there"),
        pytest.param(
            pod(container="containerd://2", ready=False, leaving_for=1),
            ("Suspending", None),
            id="open from before a restart in place: no clients",
        ),
    ],
)
def test_a_pod_that_leaves_with_a_gate_that_was_not_recorded(at: Pod, step: Step) -> None:
    plan = decide(look(leave("Running", withdrawal="Termination"), at))
    assert (plan.state, plan.act) == step


@pytest.mark.parametrize(
    ("hold", "stop_at"),
    [
        pytest.param("77", NOW - 1 + 77 - 5, id="as it was made"),
        pytest.param("x", NOW - 1 + 107 - 5, id="no number: the grace period counts"),
        pytest.param("", NOW - 1 + 107 - 5, id="empty"),
        pytest.param("9" * 5000, NOW - 1 + 107 - 5, id="too long for a number"),
        pytest.param("-" + "9" * 400, NOW - 1, id="below 0"),
    ],
)
def test_an_edited_hold_of_a_pod_that_leaves_stops_nothing(hold: str, stop_at: Seconds) -> None:
    at = pod(leaving_for=1)
    at = replace(at, metadata=replace(at.metadata, annotations={**at.metadata.annotations, names.HOLD_SECONDS: hold}))
    assert look(at=at).stop_at == stop_at
    assert decide(look(at=at)).state in ("PreSuspend", "Stopping")


def test_that_a_server_could_not_be_shed_counts_for_one_drain_only() -> None:
    notes = Notes(shed_refused="no answer")
    assert look(pre_suspend(), WITHDRAWN, notes=notes).notes.shed_refused == "no answer"
    assert not look(server(), notes=notes).notes.shed_refused


@pytest.mark.parametrize(
    ("aim_is", "forced"), [({"annotations": {names.SUSPEND: "true"}}, True), ({"desired_state": "Stopped"}, False)]
)
def test_a_suspend_that_was_cut_short_cuts_no_stop_short(aim_is: dict[str, Any], forced: bool) -> None:
    cut = drain(suspending_since=NOW - 5, forced=True)
    one = server(status=status("Suspending", cut), **aim_is)
    plan = decide(look(one, pod(gate=False), report("SUSPENDING", active=3)))
    assert (plan.act, plan.drain and plan.drain.forced) == (None, forced)


CLOSING = SetGate(open=False, reason="Deletion", served_container=CONTAINER)
TO_STOP = server(desired_state="Stopped", status=status("Suspended", drain()), withdrawal="Termination")


@pytest.mark.parametrize(
    ("observation", "state", "act"),
    [
        pytest.param(
            look(leave("Running"), pod(leaving_for=0), routes=("shop",)), "PreSuspend", CLOSING, id="Gate: it closes"
        ),
        pytest.param(
            look(leave("Running"), pod(leaving_for=0), notes=Notes(refusal=Refusal(CLOSING, "", "", NOW + 9))),
            "PreSuspend",
            Shed(),
            id="Gate: refused, the drain continues",
        ),
        pytest.param(
            look(
                leave("Running"),
                pod(leaving_for=5),
                notes=Notes(acted=CLOSING, acted_since=NOW - 4, acted_at=NOW - 1),
            ),
            "PreSuspend",
            Shed(),
            id="Gate: without effect, the drain continues",
        ),
        pytest.param(
            look(leave("Suspending", drain("Deletion", forced=True)), pod(leaving_for=5), report(active=1)),
            "PreSuspend",
            CLOSING,
            id="Gate: force closes it first, as without a deletion",
        ),
        pytest.param(
            look(leave("Running"), pod(leaving_for=5), report("SUSPENDED")),
            "PreSuspend",
            CLOSING,
            id="Gate: one that someone else suspended too",
        ),
        pytest.param(
            look(server(desired_state="Stopped", deleted=True), pod(leaving_for=1)),
            "PreSuspend",
            SetGate(open=False, reason="Removal", served_container=CONTAINER),
            id="Gate: on a removal",
        ),
        pytest.param(
            look(leave("Running", withdrawal="Termination"), pod(leaving_for=0), routes=("shop",)),
            "PreSuspend",
            None,
            id="Termination: the endpoints are waited for",
        ),
        pytest.param(
            look(leave("Running", withdrawal="Termination"), pod(leaving_for=0)),
            "PreSuspend",
            Shed(),
            id="Termination: then shed, with the gate open",
        ),
        pytest.param(
            look(
                leave("Suspending", drain("Deletion", suspending_since=NOW - 5), withdrawal="Termination"),
                pod(leaving_for=LEAVING),
                shed(0),
                notes=Notes(quiet_since=NOW - 9, shed_at=NOW - 9, answered_at=NOW - 9),
            ),
            "Suspending",
            SuspendServer(),
            id="Termination: then suspended",
        ),
        pytest.param(
            look(server(desired_state="Stopped", withdrawal="Termination"), pod()),
            "PreSuspend",
            DeletePod(),
            id="Termination: a stop begins with the deletion",
        ),
        pytest.param(
            look(TO_STOP, WITHDRAWN, shed(1)),
            "PreSuspend",
            None,
            id="Termination: a server that is out of its Services already is drained as by its gate",
        ),
        pytest.param(
            look(suspend(withdrawal="Termination"), pod()),
            "PreSuspend",
            SetGate(open=False, reason="Server", served_container=CONTAINER),
            id="Termination: a suspend that stays has nothing but the gate",
        ),
    ],
)
def test_how_a_server_leaves_its_services(observation: Observation, state: str, act: Act | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == (state, act)


@pytest.mark.parametrize("withdrawal", ["Gate", "Termination"])
def test_a_roll_by_termination_deletes_only_what_has_room_and_keeps_the_record(withdrawal: str) -> None:
    one = server(template=template("wildfly:2"), withdrawal=withdrawal)
    notes = Notes(checked_template=template_hash(one.spec.template), checked_at=NOW)
    assert decide(replace(look(one, pod(), notes=notes), has_room=False)).act is None
    plan = decide(look(one, pod(), notes=notes))
    gate = SetGate(open=False, reason="Rollout", served_container=CONTAINER)
    assert plan.act == (DeletePod() if withdrawal == "Termination" else gate)
    assert plan.drain is not None
    assert (plan.drain.scope, plan.drain.since) == ("Rollout", moment(NOW))
