"""What people ask for, and which of it counts."""

import pytest

from quiesce.decide.requests import Aim, SuspendValue, accepted_suspend, aim_of, parse_suspend
from quiesce.model import names
from quiesce.model.objects import Metadata
from quiesce.model.resources import AppServerStatus, Scope, ServerGroupStatus
from quiesce.model.text import QUOTE_BYTES
from tests.unit.build import group, server


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("true", SuspendValue(on=True), id="true means the timeout in the spec"),
        pytest.param("false", SuspendValue(on=False), id="false means no suspend"),
        pytest.param("0", SuspendValue(on=True, timeout=0), id="0 is immediate"),
        pytest.param("-1", SuspendValue(on=True, timeout=-1), id="-1 is for ever"),
        pytest.param("90", SuspendValue(on=True, timeout=90), id="a whole number is seconds"),
        pytest.param("90s", SuspendValue(on=True, timeout=90), id="a duration in seconds"),
        pytest.param("5m", SuspendValue(on=True, timeout=300), id="a duration in minutes"),
        pytest.param("1h2m3s", SuspendValue(on=True, timeout=3723), id="a duration in all units"),
        pytest.param("0s", SuspendValue(on=True, timeout=0), id="a duration of zero is immediate"),
        *(
            pytest.param(bad, None, id=f"{bad!r} is invalid")
            for bad in ("", " ", "yes", "True", "-2", "1.5", "+1", "5 m", "3s2m", "1d", "-5m", "90\n", "1e3", "9" * 10)
        ),
    ],
)
def test_values_of_the_suspend_annotation(text: str, value: SuspendValue | None) -> None:
    assert parse_suspend(text) == value


@pytest.mark.parametrize(
    ("text", "last", "accepted", "complaint"),
    [
        pytest.param("true", None, "true", "", id="a good value is accepted"),
        pytest.param("30", "true", "30", "", id="a good value follows a good one"),
        pytest.param(None, "true", None, "", id="a removed annotation is forgotten"),
        pytest.param("soon", "true", "true", "'true' stays in force", id="a bad value keeps the last good one"),
        pytest.param("soon", None, None, "is ignored", id="an invalid value with none before is ignored"),
    ],
)
def test_a_bad_value_keeps_the_last_accepted(
    text: str | None, last: str | None, accepted: str | None, complaint: str
) -> None:
    metadata = Metadata("shop-0", annotations={} if text is None else {names.SUSPEND: text})
    value, note = accepted_suspend(metadata, last)
    assert value == accepted
    assert (note is not None) == bool(complaint)
    if note:
        assert complaint in note.message
        assert f"{text!r}" in note.message


Asked = tuple[str | None, str | None, str, str]  # annotations of server and group, desiredState of server and group
SERVES = "serves"


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        pytest.param((None, None, "Running", "Running"), SERVES, id="nothing is requested"),
        pytest.param(("true", None, "Running", "Running"), "Server", id="the server's annotation suspends"),
        pytest.param((None, "true", "Running", "Running"), "Group", id="the group's annotation suspends"),
        pytest.param(
            ("true", "false", "Running", "Running"), "Server", id="the server's counts over the group's false"
        ),
        pytest.param(("false", "true", "Running", "Running"), SERVES, id="the server's false counts over the group's"),
        pytest.param((None, None, "Suspended", "Running"), "Spec", id="desiredState suspends"),
        pytest.param((None, None, "Running", "Suspended"), "Spec", id="the group's desiredState suspends"),
        pytest.param(("false", None, "Suspended", "Running"), SERVES, id="false counts over desiredState Suspended"),
        pytest.param((None, "false", "Suspended", "Running"), SERVES, id="the group's false does as well"),
        pytest.param(("bad", "true", "Running", "Running"), "Group", id="a bad value leaves the word to the group"),
        pytest.param(("bad", None, "Suspended", "Running"), "Spec", id="a bad value leaves the word to desiredState"),
        pytest.param(("false", None, "Stopped", "Running"), "Stop", id="false never counts over Stopped"),
        pytest.param(("false", "false", "Running", "Stopped"), "Stop", id="nor over the group's Stopped"),
        pytest.param(("true", None, "Stopped", "Running"), "Stop", id="a suspend does not end a stop"),
        pytest.param((None, None, "Suspended", "Stopped"), "Stop", id="Stopped counts over Suspended"),
    ],
)
def test_the_most_specific_request_counts(asked: Asked, becomes: str) -> None:
    own, of_group, desired, group_desired = asked
    shop = group(annotations={names.SUSPEND: of_group} if of_group else {}, desired_state=group_desired)
    one = server(annotations={names.SUSPEND: own} if own else {}, desired_state=desired)
    aim = aim_of(one, shop)
    assert (SERVES if aim.serve else aim.scope) == becomes
    assert aim.keep == (becomes != "Stop")


def test_removal_counts_over_everything() -> None:
    one = server(annotations={names.SUSPEND: "false"}, deleted=True, desired_state="Stopped")
    assert aim_of(one, group()).scope == "Removal"


@pytest.mark.parametrize(
    ("value", "timeout"),
    [
        pytest.param("true", 60, id="true takes the spec's timeout"),
        pytest.param("0", 0, id="0 is immediate"),
        pytest.param("-1", -1, id="-1 is for ever"),
        pytest.param("5m", 300, id="a duration is its own timeout"),
    ],
)
def test_the_timeout_comes_with_the_request(value: str, timeout: int) -> None:
    assert aim_of(server(annotations={names.SUSPEND: value}), None).timeout == timeout


def test_a_bad_value_continues_with_the_accepted_one_of_its_own_scope() -> None:
    accepted = AppServerStatus(accepted_suspend="30")
    aim = aim_of(
        server(annotations={names.SUSPEND: "bad"}, status=accepted), group(annotations={names.SUSPEND: "false"})
    )
    assert (aim.serve, aim.scope, aim.timeout) == (False, "Server", 30)


def test_a_bad_value_on_the_group_continues_with_the_accepted_one() -> None:
    shop = group(annotations={names.SUSPEND: "bad"}, status=ServerGroupStatus(accepted_suspend="30"))
    aim = aim_of(server(), shop)
    assert (aim.serve, aim.scope, aim.timeout) == (False, "Group", 30)


def test_an_accepted_value_ends_with_its_annotation() -> None:
    assert aim_of(server(status=AppServerStatus(accepted_suspend="true")), None).serve


def test_the_aim_names_who_asked_and_why() -> None:
    asked = {names.SUSPEND: "true", names.SUSPEND_REASON: "disk is swapped"}
    scope: Scope = "Server"
    assert aim_of(server(annotations=asked, by="kubectl-annotate"), None) == Aim(
        serve=False, keep=True, scope=scope, timeout=60, requested_by="kubectl-annotate", reason="disk is swapped"
    )


def test_a_scale_down_is_called_so() -> None:
    stopped = server(desired_state="Stopped")
    assert aim_of(stopped, None).reason == "desiredState is Stopped"
    assert aim_of(stopped, group()).reason == "the group is being scaled down"
    assert aim_of(stopped, group(desired_state="Stopped")).reason == "desiredState is Stopped"


def test_a_reason_is_cut_and_cleaned() -> None:
    """An annotation may have 256 KiB, and statuses repeat it."""
    asked = {names.SUSPEND: "true", names.SUSPEND_REASON: "disk\n\x1b[2J" + "😀" * 60_000}
    reason = aim_of(server(annotations=asked), None).reason
    assert reason.startswith("disk\\n\\x1b[2J😀")
    assert len(reason.encode()) <= QUOTE_BYTES


def test_a_bad_value_is_quoted_in_part_and_what_was_no_good_before_is_not_kept() -> None:
    bad = Metadata(name="shop-0", annotations={names.SUSPEND: "\u2028" * 100_000})
    accepted, complaint = accepted_suspend(bad, "x" * 100_000)
    assert accepted is None
    assert complaint is not None
    assert complaint.message.startswith(f"{names.SUSPEND}='\\u2028\\u2028")
    assert complaint.message.endswith("like 90s or 5m; it is ignored")
