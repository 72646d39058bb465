"""What the statuses and Events say, and when nothing is said."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.group import decide_group
from quiesce.decide.members import Member
from quiesce.decide.observation import Notes, Observation, Untold
from quiesce.decide.podspec import template_hash
from quiesce.decide.refusal import Refusal
from quiesce.decide.server import decide
from quiesce.decide.status import (
    group_due,
    group_events,
    group_status,
    server_events,
    server_status,
    to_tell,
    worth_writing,
)
from quiesce.model import names
from quiesce.model.objects import Condition, ContainerState, ContainerStatus, Pod, Running, Terminated, Waiting
from quiesce.model.plan import ApplyServer, CheckTemplate
from quiesce.model.resources import AppServer, AppServerStatus, ServerGroup, ServerGroupStatus, ServerTemplate
from quiesce.model.server import AdminFailure, Report
from quiesce.model.text import MESSAGE_BYTES
from quiesce.model.times import moment
from tests.unit.build import (
    NOW,
    drain,
    group,
    look,
    look_at_group,
    member,
    pod,
    report,
    server,
    spec,
    status,
    template,
)

replace = msgspec.structs.replace


def told(o: Observation) -> AppServerStatus:
    """The status as it comes back from the API server."""
    return msgspec.convert(msgspec.to_builtins(server_status(o, decide(o))), AppServerStatus)


ROT = "\x1b\u2028\ud83d😀'\"\\\n" * 50_000


@pytest.mark.parametrize(
    "o",
    [
        pytest.param(look(server(annotations={names.SUSPEND: ROT})), id="a bad annotation"),
        pytest.param(
            look(server(annotations={names.SUSPEND: "true", names.SUSPEND_REASON: ROT}, by=ROT)), id="a reason"
        ),
        pytest.param(look(at=pod(container=None, waiting=Waiting(ROT, ROT))), id="the kubelet"),
        pytest.param(
            look(at=pod(container=None, conditions=(Condition("PodScheduled", "False", ROT, ROT),))), id="the scheduler"
        ),
        pytest.param(look(admin=AdminFailure("Unexpected", ROT)), id="the server"),
        pytest.param(look(server(template={**template(), ROT: 1}), at=None), id="the template"),
        pytest.param(
            look(
                server(annotations={names.SUSPEND: "true", names.SUSPEND_REASON: ROT}),
                unconfirmable=tuple(f"{number:063}" for number in range(1000)),
            ),
            id="many Services",
        ),
    ],
)
def test_a_status_stays_small_and_clean_whatever_others_write(o: Observation) -> None:
    plan = decide(o)
    written = server_status(o, plan)
    assert len(msgspec.json.encode(written)) < 32 * 1024
    texts = [text for c in written.conditions for text in (c.reason, c.message)]
    texts += [written.suspend.reason, written.suspend.requested_by] if written.suspend else []
    assert all(text.isprintable() for text in texts)
    assert all(len(note.message.encode()) <= MESSAGE_BYTES for note in server_events(o, plan))
    assert server_events(look(replace(o.server, status=told(o)), at=o.pod), plan) == ()


def never(name: str, message: str) -> Refusal:
    """An AppServer that the API server does not accept."""
    return Refusal(ApplyServer({"metadata": {"name": name}}), "", message, NOW)


@pytest.mark.parametrize(
    "o",
    [
        pytest.param(look(server(deleted=True, desired_state="Stopped"), None, None), id="it is deleted"),
        pytest.param(look(at=pod(ready=False)), id="its pod isn't ready"),
        pytest.param(look(server(finalizers=()), pod(gate=False, ready=True)), id="its gate is closed"),
    ],
)
def test_a_server_is_neither_ready_nor_done(o: Observation) -> None:
    written = told(o)
    assert {c.type: c.status for c in written.conditions if c.type in ("Ready", "Progressing", "Reconciling")} == {
        "Ready": "False",
        "Progressing": "True",
        "Reconciling": "True",
    }


def test_a_groups_status_stays_small_whatever_others_write() -> None:
    of = group(20, annotations={names.SUSPEND: ROT})
    bad = status(
        "Unknown", conditions=(Condition("Stalled", "True", ROT, ROT), Condition("Progressing", "True", "", ROT))
    )
    o = replace(
        look_at_group(of, *(member(number, of, status=bad) for number in range(20))),
        refused=tuple(never(f"{number:0253}", ROT) for number in range(20)),
    )
    plan = decide_group(o)
    written = msgspec.json.encode(group_status(o, plan))
    assert len(written) < 32 * 1024
    assert all(len(note.message.encode()) <= MESSAGE_BYTES for note in group_events(o, plan))


def events(o: Observation) -> list[tuple[str, bool]]:
    return [(note.reason, note.warning) for note in server_events(o, decide(o))]


def condition(of: AppServerStatus | ServerGroupStatus, kind: str) -> Any:
    return next(c for c in of.conditions if c.type == kind)


def settled(one: AppServer | None = None, *arguments: Any, **changes: Any) -> AppServer:
    """A server whose status is written already."""
    one = one or server()
    return replace(one, status=told(look(one, *arguments, **changes)))


OURS = drain(suspending_since=NOW - 5)
SUSPENDED = server(annotations={names.SUSPEND: "true"}, status=status("Suspended", OURS))


@pytest.mark.parametrize(
    ("one", "later", "written"),
    [
        pytest.param(settled(), {}, False, id="nothing has changed"),
        pytest.param(settled(), {"admin": report(active=7)}, False, id="only the work has changed"),
        pytest.param(
            settled(), {"admin": AdminFailure("Unreachable", "?")}, False, id="the server doesn't respond once"
        ),
        pytest.param(
            settled(),
            {"admin": AdminFailure("Unreachable", "?"), "notes": Notes(silent_since=NOW + 50)},
            True,
            id="the server can't be asked any more",
        ),
        pytest.param(
            settled(SUSPENDED, pod(gate=False), report("SUSPENDED")),
            {"at": pod(gate=False), "admin": AdminFailure("Unreachable", "?")},
            False,
            id="a suspended one doesn't respond once",
        ),
        pytest.param(
            settled(server(status=status("Starting", OURS)), pod(gate=False), report("SUSPENDED")),
            {"at": pod(gate=False), "admin": AdminFailure("Unreachable", "?")},
            False,
            id="one that returns to service doesn't respond once",
        ),
        pytest.param(settled(), {"at": pod(ready=False)}, True, id="the pod is not ready any more"),
        pytest.param(
            settled(SUSPENDED, pod(gate=False), report("SUSPENDED")),
            {"at": pod(gate=False), "admin": report("SUSPENDED")},
            False,
            id="a suspended server rests",
        ),
    ],
)
def test_a_status_is_written_when_something_that_matters_changed(
    one: AppServer, later: dict[str, Any], written: bool
) -> None:
    o = look(one, now=NOW + 60, **later)
    assert worth_writing(one.status, server_status(o, decide(o))) == written


@pytest.mark.parametrize("stalled", ["True", "False"])
def test_a_spec_that_may_end_a_stall_is_reported_as_observed_before_the_server_settles(stalled: str) -> None:
    before = AppServerStatus("Pending", 1, conditions=(Condition("Stalled", stalled, observed_generation=1),))
    after = replace(before, observed_generation=2, conditions=(Condition("Stalled", stalled, observed_generation=2),))
    assert worth_writing(before, after) == (stalled == "True")


def test_the_status_of_a_server_that_serves() -> None:
    written = told(look())
    assert (written.state, written.active_requests, written.suspend) == ("Running", 0, None)
    assert {c.type: c.status for c in written.conditions} == {
        "Ready": "True",
        "Progressing": "False",
        "Reconciling": "False",
        "Suspended": "False",
        "Stalled": "False",
        "Drifted": "False",
        "BadRequest": "False",
        "UnsafeProbe": "False",
        "Proxied": "False",
    }


def test_conditions_keep_the_time_of_their_last_transition() -> None:
    one = settled()
    later = told(look(one, pod(ready=False), now=NOW + 60.4))
    assert condition(later, "Ready").status == "False"
    assert condition(later, "Ready").last_transition_time == moment(NOW + 60)
    assert condition(later, "Suspended").last_transition_time == moment(NOW)


def test_conditions_say_which_generation_they_are_of() -> None:
    one = server()
    newer = replace(one, metadata=replace(one.metadata, generation=4))
    written = told(look(newer))
    assert written.observed_generation == 4
    assert {c.observed_generation for c in written.conditions} == {4}


def test_the_times_of_a_drain_survive_being_written() -> None:
    one = server(annotations={names.SUSPEND: "60"}, status=status("Suspending", drain(suspending_since=NOW - 0.123)))
    written = told(look(one, pod(gate=False), report(active=1))).suspend
    assert written is not None
    assert (written.suspending_since, written.deadline) == (moment(NOW - 0.123), moment(NOW + 59.877))


def test_a_drain_names_who_asked_and_why() -> None:
    asked = {names.SUSPEND: "true", names.SUSPEND_REASON: "disk"}
    written = told(look(server(annotations=asked, by="kubectl"))).suspend
    assert written is not None
    assert (written.scope, written.requested_by, written.reason) == ("Server", "kubectl", "disk")


def test_an_accepted_value_is_kept_for_a_bad_one_that_follows() -> None:
    one = settled(server(annotations={names.SUSPEND: "30"}))
    bad = replace(one, metadata=replace(one.metadata, annotations={names.SUSPEND: "bad"}))
    written = told(look(bad))
    assert written.accepted_suspend == "30"
    assert condition(written, "BadRequest").status == "True"
    assert "'bad'" in condition(written, "BadRequest").message


BAD = server(annotations={names.SUSPEND: "bad"})


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        pytest.param(look(settled()), [], id="nothing has changed"),
        pytest.param(
            look(server(status=AppServerStatus())),
            [("Running", False)],
            id="it came to serve",
        ),
        pytest.param(
            look(settled(), pod(), AdminFailure("Unauthorized", "?")),
            [("AdminUnauthorized", True)],
            id="a new complaint",
        ),
        pytest.param(
            look(settled(server(), pod(), AdminFailure("Unauthorized", "?")), pod(), AdminFailure("Unauthorized", "?")),
            [],
            id="the same complaint",
        ),
        pytest.param(look(BAD), [("BadAnnotation", True)], id="a bad value"),
        pytest.param(look(settled(BAD)), [], id="the same bad value"),
        pytest.param(look(server(annotations={names.FORCE: "x"})), [("NothingToDo", False)], id="nothing to force"),
        pytest.param(
            look(
                server(annotations={names.SUSPEND: "9"}, status=status("Suspending", OURS)),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            [("Suspended", False), ("Drained", False)],
            id="a drain has ended",
        ),
        pytest.param(
            look(
                server(desired_state="Stopped", suspend_timeout_seconds=5, status=status("Suspending", OURS)),
                pod(gate=False),
                report("SUSPENDING", active=2),
            ),
            [("Stopping", False), ("DrainTimedOut", True)],
            id="a drain has run out of time",
        ),
    ],
)
def test_events_report_changes(observation: Observation, expected: list[tuple[str, bool]]) -> None:
    assert events(observation) == expected


def group_told(*arguments: Any) -> ServerGroupStatus:
    o = look_at_group(*arguments)
    return group_status(o, decide_group(o))


def test_a_group_that_serves_rests() -> None:
    shop = group(2)
    written = group_told(shop, member(0, shop), member(1, shop))
    again = group_told(replace(shop, status=written), member(0, shop), member(1, shop))
    assert again == written
    assert (written.replicas, written.ready_replicas, written.updated_replicas, written.suspended_replicas) == (
        2,
        2,
        2,
        0,
    )
    assert {c.type: c.status for c in written.conditions} == {
        "Ready": "True",
        "Progressing": "False",
        "Reconciling": "False",
        "Suspended": "False",
        "Stalled": "False",
        "BadRequest": "False",
        "UnsafeProbe": "False",
        "Proxied": "False",
    }


@pytest.mark.parametrize(
    ("suspended", "status_is", "reason"),
    [
        pytest.param(0, "False", "NotSuspended", id="none"),
        pytest.param(1, "False", "SomeSuspended", id="one of two"),
        pytest.param(2, "True", "AllSuspended", id="all"),
    ],
)
def test_a_group_is_suspended_when_all_its_servers_are(suspended: int, status_is: str, reason: str) -> None:
    shop = group(2)
    members = [
        member(n, shop, pod(f"shop-{n}", gate=False), annotations={names.SUSPEND: "true"}, status=status("Suspended"))
        if n < suspended
        else member(n, shop)
        for n in range(2)
    ]
    told_of = condition(group_told(shop, *members), "Suspended")
    assert (told_of.status, told_of.reason) == (status_is, reason)


ASLEEP = group(2, desired_state="Suspended")
STOPPED = group(1, desired_state="Stopped")
OF_SLEEPERS = replace(group(1), spec=replace(group(1).spec, template=ServerTemplate(spec(desired_state="Suspended"))))


def out(n: int, of: ServerGroup, state: str, **changes: Any) -> Member:
    at = None if state == "Stopped" else pod(f"shop-{n}", gate=False)
    return member(n, of, at, status=status(state), **changes)


@pytest.mark.parametrize(
    ("of", "members", "reason"),
    [
        (group(0), (), "AllServe"),
        (group(0), (member(0, group(0)),), "SomeDoNotServe"),
        (group(1, annotations={names.SUSPEND: "true"}), (member(0, group(1)),), "SomeDoNotServe"),
        (OF_SLEEPERS, (out(0, OF_SLEEPERS, "Suspended", desired_state="Suspended"),), "AllSuspended"),
        (ASLEEP, (out(0, ASLEEP, "Suspended"), out(1, ASLEEP, "Suspending")), "SomeNotSuspended"),
        (ASLEEP, (out(0, ASLEEP, "Suspended"), member(1, ASLEEP, annotations={names.SUSPEND: "false"})), "SomeServe"),
        (
            ASLEEP,
            (out(0, ASLEEP, "Suspended"), out(1, ASLEEP, "Suspended", annotations={names.SUSPEND: "false"})),
            "SomeNotSuspended",
        ),
        (STOPPED, (out(0, STOPPED, "Stopped"),), "AllStopped"),
        # The one that has been stopped is surplus.
        (STOPPED, (out(0, STOPPED, "Suspended"), out(1, STOPPED, "Stopped")), "SomeNotStopped"),
    ],
)
def test_a_group_is_ready_when_its_servers_are_as_declared(
    of: ServerGroup, members: tuple[Member, ...], reason: str
) -> None:
    ready = condition(group_told(of, *members), "Ready")
    assert (ready.reason, ready.status) == (reason, str(reason.startswith(("All", "SomeServe"))))


def test_a_group_reports_the_phases_it_goes_through() -> None:
    shop = group(1)
    o = look_at_group(shop)
    assert [note.reason for note in group_events(o, decide_group(o))] == ["Waiting"]
    written = replace(shop, status=group_told(shop))
    o = look_at_group(written)
    assert group_events(o, decide_group(o)) == ()
    o = look_at_group(written, member(0, shop))
    assert [note.reason for note in group_events(o, decide_group(o))] == ["Settled"]


def test_a_group_that_needs_help_says_so_in_an_event_once() -> None:
    """Where it is refused what it makes, there is no server that could."""
    shop, refused = group(1), (never("shop-0", "a label that is none"),)
    o = replace(look_at_group(shop), refused=refused)
    assert [(note.reason, note.message) for note in group_events(o, decide_group(o)) if note.warning] == [
        ("ServersNeedHelp", "shop-0: a label that is none")
    ]
    o = replace(look_at_group(replace(shop, status=group_status(o, decide_group(o)))), refused=refused)
    assert group_events(o, decide_group(o)) == ()


def test_a_group_of_none_writes_its_zeros() -> None:
    written = group_told(group(0))
    zeros = msgspec.to_builtins(written)
    assert zeros["replicas"] == 0
    assert zeros["readyReplicas"] == 0
    assert condition(written, "Suspended").status == "False"


def test_a_group_that_scales_down_counts_a_server_until_its_pod_is_gone() -> None:
    shop = group(1)
    first, second = member(0, shop), member(1, shop, desired_state="Stopped")
    gone = member(1, shop, None, desired_state="Stopped", status=status("Stopped"))
    for other, replicas in ((second, 2), (gone, 1)):
        written = group_told(shop, first, other)
        assert (written.replicas, condition(written, "Progressing").reason) == (replicas, "ScalingDown")


def test_a_group_that_has_yet_to_act_has_not_observed_its_spec() -> None:
    written = group_told(group(1))
    assert written.observed_generation == -1
    assert {c.observed_generation for c in written.conditions} == {0}  # the least that other tools accept


def test_a_server_stays_ready_until_its_restart_begins() -> None:
    written = told(look(server(annotations={names.RESTART: "now"})))
    facts = {c.type: (c.status, c.reason) for c in written.conditions}
    assert (facts["Ready"], facts["Reconciling"]) == (("True", "Running"), ("True", "RestartRequested"))


def test_a_restart_is_recorded_and_kept() -> None:
    asked = server(annotations={names.RESTART: "now"})
    written = told(look(asked, pod(uid="pod-1")))
    assert written.restart_pod_uid == "pod-1"
    assert msgspec.to_builtins(written)["restartPodUID"] == "pod-1"
    assert told(look(server(status=written), pod(uid="pod-2"))).restart_pod_uid == "pod-1"


@pytest.mark.parametrize(
    ("count", "progress", "stalled"),
    [
        pytest.param(5, "shop-0, shop-1, shop-2, shop-3, shop-4", 5, id="five are named"),
        pytest.param(8, "shop-0, shop-1, shop-2, shop-3, shop-4 and 3 more", 5, id="of eight, five"),
    ],
)
def test_a_message_names_five_servers_at_most(count: int, progress: str, stalled: int) -> None:
    shop = group(count)
    helpless = status(
        "Pending", conditions=(Condition("Stalled", "True", message="no such image", observed_generation=1),)
    )
    written = group_told(shop, *(member(n, shop, None, status=helpless) for n in range(count)))
    assert condition(written, "Progressing").message.endswith(f"waiting for {progress}")
    assert condition(written, "Stalled").message.count("no such image") == stalled
    assert condition(written, "Stalled").message.endswith(" and 3 more") == (count > 5)


def untold(o: Observation) -> Untold:
    """What waits to be written of it."""
    write, waits = to_tell(o, decide(o))
    assert write is None
    assert waits is not None
    return waits


WITHDRAWN = pod(gate=False)
NEW = template("wildfly:2")
PRE_SUSPEND = settled(
    server(template=NEW, status=status("PreSuspend", drain("Rollout", since=NOW - 5))),
    WITHDRAWN,
    report(),
    routes=("shop",),
)
MARGIN_OVER = Notes(confirmed_at=NOW - 3, shed_at=NOW - 3, checked_template=template_hash(NEW), checked_at=NOW)
AT_CLOCK = look(PRE_SUSPEND, WITHDRAWN, report(active=2, shed=True), notes=MARGIN_OVER)


def after(seconds: float, of: Observation, waits: Untold, *arguments: Any, **changes: Any) -> Observation:
    """A look at the same server as it is written, so much later."""
    written = replace(of.server, status=waits.written)
    notes = replace(of.notes, untold=waits)
    return look(written, *arguments, now=of.now + seconds, notes=notes, **changes)


def test_the_start_of_the_clock_counts_immediately_and_is_written_when_it_has_run_for_a_while() -> None:
    waits = untold(AT_CLOCK)
    assert (waits.status.state, waits.due) == ("Suspending", NOW + 1.5)
    later = after(1.4, AT_CLOCK, waits, WITHDRAWN, report(active=2, shed=True))
    assert later.server.status == waits.status
    assert to_tell(later, decide(later))[0] is None
    due = after(1.5, AT_CLOCK, waits, WITHDRAWN, report(active=2, shed=True))
    written, waits_on = to_tell(due, decide(due))
    assert waits_on is None
    assert written is not None
    assert written.suspend is not None
    assert written.suspend.suspending_since == moment(NOW)


@pytest.mark.parametrize(
    ("timeout", "forced", "at_once"),
    [
        pytest.param(6, False, False, id="of 6 s it can wait"),
        pytest.param(-1, False, False, id="without a limit it can wait"),
        pytest.param(5, False, True, id="a short one would be a good deal longer"),
        pytest.param(60, True, True, id="of a forced drain nothing waits"),
    ],
)
def test_the_clock_of_a_timeout(timeout: int, forced: bool, at_once: bool) -> None:
    one = replace(
        PRE_SUSPEND,
        spec=replace(PRE_SUSPEND.spec, suspend_timeout_seconds=timeout),
        status=replace(PRE_SUSPEND.status, suspend=drain("Rollout", since=NOW - 5, forced=forced)),
        metadata=replace(PRE_SUSPEND.metadata, annotations={names.SUSPEND: "true"}),
    )
    one = replace(one, spec=replace(one.spec, template=template()))
    o = look(one, WITHDRAWN, report(active=2, shed=True), notes=MARGIN_OVER)
    assert (to_tell(o, decide(o))[0] is not None) == at_once


def test_trouble_is_written_immediately() -> None:
    waits = untold(AT_CLOCK)
    o = after(0.5, AT_CLOCK, waits, WITHDRAWN, AdminFailure("Unauthorized", "?"))
    written, _ = to_tell(o, decide(o))
    assert written is not None
    assert condition(written, "Progressing").reason == "AdminUnauthorized"
    assert written.suspend is not None
    assert written.suspend.suspending_since == moment(NOW)


def test_the_end_of_a_rolled_server_is_reported_with_the_start_of_the_next() -> None:
    waits = untold(AT_CLOCK)
    suspended = after(0.6, AT_CLOCK, waits, WITHDRAWN, report("SUSPENDED"))
    assert [note.reason for note in server_events(suspended, decide(suspended))] == ["Stopping", "Drained"]
    ends = untold(suspended)
    assert (ends.status.state, ends.due) == ("Stopping", NOW + 0.6 + 3)
    leaving = after(0.1, suspended, ends, pod(gate=False, leaving_for=0), report("SUSPENDED"))
    assert server_events(leaving, decide(leaving)) == ()
    gone = after(2.5, suspended, ends, None)
    written, _ = to_tell(gone, decide(gone))
    assert written is not None
    assert (written.state, written.suspend) == ("Starting", None)
    assert written.last_drain is not None
    assert (written.last_drain.outcome, written.last_drain.duration_seconds) == ("Drained", 5.6)
    slow = after(3, suspended, ends, pod(gate=False, leaving_for=3), report("SUSPENDED"))
    assert condition(to_tell(slow, decide(slow))[0] or written, "Progressing").reason == "Stopping"


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        pytest.param(
            rolled := replace(PRE_SUSPEND, status=status("Suspending", drain("Rollout", suspending_since=NOW - 61))),
            "TimedOut",
            id="work that is cut",
        ),
        pytest.param(
            replace(rolled, status=status("Suspending", drain("Rollout", suspending_since=NOW - 1, forced=True))),
            "Forced",
            id="a drain that is cut",
        ),
        pytest.param(
            replace(rolled, spec=replace(rolled.spec, desired_state="Stopped")), "TimedOut", id="a permanent stop"
        ),
    ],
)
def test_what_can_not_be_found_out_afterwards_is_written_before_the_end(one: AppServer, outcome: str) -> None:
    o = look(one, WITHDRAWN, report("SUSPENDING", active=2), notes=MARGIN_OVER)
    written, _ = to_tell(o, decide(o))
    assert written is not None
    assert written.last_drain is not None
    assert (written.state, written.last_drain.outcome) == ("Stopping", outcome)


def test_a_process_that_finds_the_server_gone_makes_nothing_up() -> None:
    o = look(rolled, None)
    written, _ = to_tell(o, decide(o))
    assert written is not None
    assert (written.state, written.suspend, written.last_drain) == ("Starting", None, None)


def test_a_recreated_server_has_nothing_unwritten() -> None:
    waits = replace(untold(AT_CLOCK), server_uid="another")
    o = look(PRE_SUSPEND, WITHDRAWN, report(active=2, shed=True), notes=replace(MARGIN_OVER, untold=waits))
    assert o.server.status == PRE_SUSPEND.status
    assert o.notes.untold is None


def test_a_readiness_probe_that_is_quick_is_not_reported() -> None:
    booting = settled(server(), pod(gate=False, served="", up_for=5), report(runs=False))
    o = look(booting, pod(gate=False, served="", up_for=5))
    waits = untold(o)
    assert waits.due == NOW + 3
    ready = after(1, o, waits, pod())
    written, _ = to_tell(ready, decide(ready))
    assert written is not None
    assert written.state == "Running"


def test_the_end_of_a_suspend_is_written_before_the_gate_opens() -> None:
    one = settled(server(status=status("Starting", OURS)), WITHDRAWN)
    one = replace(one, status=replace(one.status, suspend=OURS))
    o = look(one, WITHDRAWN)
    written, _ = to_tell(o, decide(o))
    assert written is not None
    assert written.suspend is None


def test_a_generation_is_observed_when_it_is_known_what_to_make_of_it() -> None:
    one = settled()
    newer = replace(one, metadata=replace(one.metadata, generation=2), spec=replace(one.spec, template=NEW))
    o = look(newer)
    assert isinstance(decide(o).act, CheckTemplate)
    assert to_tell(o, decide(o)) == (None, None)
    o = look(newer, notes=Notes(checked_template=template_hash(NEW), checked_at=NOW))
    written, _ = to_tell(o, decide(o))
    assert written is not None
    assert (written.state, written.observed_generation) == ("PreSuspend", 2)


GROUP = group(3)
TOLD = group_told(GROUP, *(member(n, GROUP) for n in range(2)))


@pytest.mark.parametrize(
    ("later", "waits"),
    [
        pytest.param({}, None, id="nothing has changed"),
        pytest.param({"ready_replicas": 1, "updated_replicas": 1}, 20, id="progress waits"),
        pytest.param({"replicas": 3}, 0, id="another number of servers does not"),
        pytest.param({"suspended_replicas": 1}, 0, id="nor one that is suspended"),
        pytest.param({"observed_generation": 2}, 0, id="nor a new spec"),
    ],
)
def test_progress_of_a_group_is_written_now_and_then(later: dict[str, Any], waits: float | None) -> None:
    due = group_due(TOLD, replace(TOLD, **later), NOW)
    assert due == (None if waits is None else NOW + waits)


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        pytest.param({"message": "2 of 3"}, 20, id="another message waits"),
        pytest.param({"reason": "RollingUpdate"}, 0, id="another phase does not"),
        pytest.param({"status": "False", "reason": "Settled"}, 0, id="nor the end"),
    ],
)
def test_a_condition_of_a_group_is_written_when_it_changes(change: dict[str, str], waits: float) -> None:
    conditions = tuple(replace(c, **change) if c.type == "Progressing" else c for c in TOLD.conditions)
    assert group_due(TOLD, replace(TOLD, conditions=conditions), NOW) == NOW + waits


def test_a_roll_continues_until_its_last_server_serves() -> None:
    rolling = replace(TOLD, conditions=(Condition("Progressing", "True", "RollingUpdate"),))
    shop = group(1, status=rolling)
    o = look_at_group(shop, member(0, shop, pod("shop-0", ready=False)))
    assert condition(group_status(o, decide_group(o)), "Progressing").reason == "RollingUpdate"
    o = look_at_group(shop, member(0, shop))
    assert condition(group_status(o, decide_group(o)), "Progressing").reason == "Settled"


def test_the_status_that_accepts_a_restart_reports_its_roll() -> None:
    """A client that sees the restart accepted must not consider the servers restarted."""
    shop = group(2, annotations={names.RESTART: "now"}, status=TOLD)
    said = group_told(shop, member(0, shop), member(1, shop))
    assert said.restart_requested_at == moment(NOW)
    assert (said.updated_replicas, said.ready_replicas) == (0, 2)
    assert condition(said, "Progressing").reason == "RollingUpdate"


BOOTS = settled(server(), pod(gate=False, served="", container=None, created_at=NOW), None)
IMAGE = "registry.example.com/shop:2"
CAUSE = f'failed to pull image "{IMAGE}": not found'


def container(**state: Any) -> Pod:
    """A pod whose server has not served, in this state of its container."""
    at = pod(gate=False, served="", container=None)
    one = ContainerStatus("wildfly", restart_count=3, image=IMAGE, **state)
    return replace(at, status=replace(at.status, container_statuses=(one,)))


def waits(reason: str, message: str = "") -> Pod:
    ended = ContainerState(terminated=Terminated(1, "Error"))
    return container(state=ContainerState(Waiting(reason, message)), last_state=ended)


RUNS = container(container_id="containerd://3", state=ContainerState(running=Running(moment(NOW + 3600))))
ENDED = container(state=ContainerState(terminated=Terminated(1, "Error", moment(NOW + 3600))))
UNREACHABLE = AdminFailure("Unreachable", "?")


@pytest.mark.parametrize(
    ("turns", "reason", "says"),
    [
        pytest.param(
            [
                (waits("ErrImagePull", CAUSE), None),
                (waits("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {CAUSE}'), None),
            ],
            "ImagePullBackOff",
            f"container wildfly: image {IMAGE} can't be pulled: {CAUSE}",
            id="an image that can't be pulled",
        ),
        pytest.param(
            [
                (ENDED, None),
                (waits("CrashLoopBackOff", "back-off 10s restarting failed container"), None),
                (RUNS, UNREACHABLE),
                (RUNS, report(runs=False)),
                (ENDED, None),
                (waits("CrashLoopBackOff", "back-off 20s restarting failed container"), None),
            ],
            "CrashLoopBackOff",
            "container wildfly exits repeatedly (Error, exit code 1): "
            "see `kubectl -n shop logs shop-0 -c wildfly --previous`",
            id="a crash loop",
        ),
        pytest.param(
            [(waits("RunContainerError", "no such file"), None), (waits("CrashLoopBackOff"), None)],
            "CrashLoopBackOff",
            "container wildfly exits repeatedly (Error, exit code 1): "
            "see `kubectl -n shop logs shop-0 -c wildfly --previous`",
            id="a command that there is not",
        ),
    ],
)
def test_a_container_that_does_not_come_up_is_reported_once(
    turns: list[tuple[Pod, Report | AdminFailure | None]], reason: str, says: str
) -> None:
    one, writes, now = BOOTS, 0, NOW
    for at, admin in turns * 5:
        now += 20
        o = look(one, at, admin, now=now)
        written, _ = to_tell(o, decide(o))
        if written:
            one, writes = replace(one, status=written), writes + 1
    stalled = condition(one.status, "Stalled")
    assert (writes, stalled.reason, stalled.message) == (1, reason, says)


def test_a_crash_loop_is_over_when_the_server_runs() -> None:
    looping = settled(server(), waits("CrashLoopBackOff"), None)
    assert decide(look(looping, RUNS, UNREACHABLE)).stalled == "CrashLoopBackOff"
    assert decide(look(looping, RUNS, report())).stalled == ""
    assert decide(look(looping, pod(gate=False, served="", up_for=5), UNREACHABLE)).stalled == ""  # another pod


def test_other_words_for_the_same_trouble_wait() -> None:
    one = settled(server(), waits("CreateContainerConfigError", "secret a not found"), None)
    o = look(one, waits("CreateContainerConfigError", "secret b not found"), None)
    written, waiting = to_tell(o, decide(o))
    assert written is None
    assert waiting is not None
    assert waiting.due == NOW + 60


def test_a_group_says_what_the_server_that_it_waits_for_waits_for() -> None:
    shop = group(2)
    waits = status("Starting", conditions=(Condition("Progressing", "True", message="waits for the probe"),))
    written = group_told(shop, member(0, shop), member(1, shop, pod("shop-1", ready=False), status=waits))
    assert condition(written, "Progressing").message.endswith("; waiting for shop-1 (waits for the probe)")


def test_a_group_names_the_suspended_servers_that_hold_its_roll_up() -> None:
    shop = group(2, template=template("wildfly:2"))
    out = member(
        1,
        shop,
        pod("shop-1", of=template("wildfly:2"), gate=False),
        status=status("Suspended", drain(drained=True)),
        annotations={names.SUSPEND: "true"},
    )
    written = group_told(shop, member(0, group(2)), out)
    assert condition(written, "Progressing").message.endswith("; maxUnavailable is used up by shop-1 (suspended)")
    assert "maxUnavailable" not in condition(group_told(group(2), member(0, group(2)), out), "Progressing").message


@pytest.mark.parametrize("kind", ["Stalled", "BadRequest"])
def test_what_someone_has_to_fix_is_reported_immediately(kind: str) -> None:
    conditions = tuple(replace(c, message="shop-1: no such image") if c.type == kind else c for c in TOLD.conditions)
    assert group_due(TOLD, replace(TOLD, conditions=conditions), NOW) == NOW


@pytest.mark.parametrize(
    ("stalled", "waits"),
    [
        pytest.param(("shop-1",), 60, id="the same problem in other words"),
        pytest.param(("shop-1", "shop-0"), 0, id="another server needs help"),
    ],
)
def test_a_problem_of_a_group_is_reworded_once_a_minute(stalled: tuple[str, ...], waits: float) -> None:
    before, after = (
        replace(TOLD, conditions=(Condition("Stalled", "True", "ServersNeedHelp", f"shop-1: request {n}"),))
        for n in range(2)
    )
    assert group_due(before, after, NOW, stalled) == NOW + waits
