"""What the statuses and Events say, and when nothing is said."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.group import decide_group
from quiesce.decide.observation import Observation
from quiesce.decide.server import decide
from quiesce.decide.status import group_events, group_status, server_events, server_status, worth_writing
from quiesce.model import names
from quiesce.model.objects import Condition
from quiesce.model.resources import AppServer, AppServerStatus, ServerGroupStatus
from quiesce.model.server import AdminFailure
from quiesce.model.times import moment
from tests.unit.build import NOW, drain, group, look, look_at_group, member, pod, report, server, status

replace = msgspec.structs.replace


def told(o: Observation) -> AppServerStatus:
    """The status as it comes back from the API server."""
    return msgspec.convert(msgspec.to_builtins(server_status(o, decide(o))), AppServerStatus)


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
            settled(), {"admin": AdminFailure("Unreachable", "?")}, True, id="the server can't be asked any more"
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


def test_the_status_of_a_server_that_serves() -> None:
    written = told(look())
    assert (written.state, written.active_requests, written.suspend) == ("Running", 0, None)
    assert {c.type: c.status for c in written.conditions} == {
        "Ready": "True",
        "Progressing": "False",
        "Suspended": "False",
        "Stalled": "False",
        "Drifted": "False",
        "BadRequest": "False",
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
def test_events_tell_changes(observation: Observation, expected: list[tuple[str, bool]]) -> None:
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
        "Suspended": "False",
        "Stalled": "False",
        "BadRequest": "False",
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


def test_a_group_tells_the_phases_it_goes_through() -> None:
    shop = group(1)
    o = look_at_group(shop)
    assert [note.reason for note in group_events(o, decide_group(o))] == ["Waiting"]
    written = replace(shop, status=group_told(shop))
    o = look_at_group(written)
    assert group_events(o, decide_group(o)) == ()
    o = look_at_group(written, member(0, shop))
    assert [note.reason for note in group_events(o, decide_group(o))] == ["Settled"]


def test_a_group_of_none_writes_its_zeros() -> None:
    written = msgspec.to_builtins(group_told(group(0)))
    assert written["replicas"] == 0
    assert written["readyReplicas"] == 0


def test_a_restart_is_written_down_and_kept() -> None:
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
    helpless = status("Pending", conditions=(Condition("Stalled", "True", message="no such image"),))
    written = group_told(shop, *(member(n, shop, None, status=helpless) for n in range(count)))
    assert condition(written, "Progressing").message.endswith(f"waits for {progress}")
    assert condition(written, "Stalled").message.count("no such image") == stalled
    assert condition(written, "Stalled").message.endswith(" and 3 more") == (count > 5)
