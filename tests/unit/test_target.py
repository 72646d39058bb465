"""When a roll may take a server out that has its new template already: how many others serve is looked at again."""

from typing import Any

import pytest

from quiesce.decide.members import UNREADY_SECONDS, Member
from quiesce.decide.target import gives_way, has_room, is_dispensable
from quiesce.model import names
from tests.unit.build import GRACE, NOW, drain, group, member, pod, status, stray, template

NEW = template("wildfly:2")
SHOP = group(3, template=NEW)


def serves(ordinal: int) -> Member:
    return member(ordinal, SHOP, pod(f"shop-{ordinal}", of=NEW), template=NEW)


def waits(ordinal: int) -> Member:
    """It serves, from a pod that is to be replaced."""
    return member(ordinal, SHOP, template=NEW)


def left(ordinal: int) -> Member:
    """A StatefulSet that was deleted without its pods has left its pod, which serves."""
    return member(ordinal, SHOP, stray(f"shop-{ordinal}"), template=NEW, status=status("Pending"))


def is_out(ordinal: int) -> Member:
    return member(ordinal, SHOP, pod(f"shop-{ordinal}", gate=False), status=status("Suspended", drain(drained=True)))


def restarts(ordinal: int) -> Member:
    """Its pod has the new template, and goes all the same."""
    return member(ordinal, SHOP, serves(ordinal).pod, template=NEW, annotations={names.RESTART: "true"})


@pytest.mark.parametrize(
    ("one", "others", "room"),
    [
        pytest.param(waits(2), [serves(0), serves(1)], True, id="the others serve"),
        pytest.param(waits(2), [serves(0), is_out(1)], False, id="one is out"),
        pytest.param(waits(2), [serves(0), restarts(1)], False, id="one goes out anyway"),
        pytest.param(waits(2), [waits(0), waits(1)], True, id="of those that all wait, the last goes first"),
        pytest.param(waits(1), [waits(0), waits(2)], False, id="and alone"),
        pytest.param(waits(1), [waits(0), serves(2)], True, id="and then the next"),
        pytest.param(waits(0), [serves(1), serves(2)], True, id="down to the first"),
        pytest.param(left(2), [left(0), left(1)], True, id="pods of others count while they serve"),
        pytest.param(left(1), [left(0), left(2)], False, id="and go one by one"),
        pytest.param(left(1), [left(0), serves(2)], True, id="each when the one before has been replaced"),
        pytest.param(waits(2), [waits(0), is_out(1)], False, id="as far as enough of them serve"),
    ],
)
def test_there_is_room_while_enough_others_serve(one: Member, others: list[Member], room: bool) -> None:
    assert has_room(SHOP, one, tuple(others), NOW) == room


@pytest.mark.parametrize(("unready_for", "room"), [(UNREADY_SECONDS, True), (UNREADY_SECONDS - 1, False)])
def test_a_server_that_has_not_served_for_a_while_takes_nothing_away(unready_for: float, room: bool) -> None:
    one = member(0, SHOP, pod("shop-0", unready_for=unready_for), template=NEW)
    assert has_room(SHOP, one, (is_out(1), is_out(2)), NOW) == room


def lacks(ordinal: int, **changes: Any) -> Member:
    return member(ordinal, SHOP, None, template=NEW, **changes)


def leaves(ordinal: int, since: float = 1) -> Member:
    return member(ordinal, SHOP, pod(f"shop-{ordinal}", leaving_for=since), template=NEW)


@pytest.mark.parametrize(
    ("others", "at_first", "once_refused"),
    [
        pytest.param([waits(0), waits(1)], False, False, id="nothing is replaced yet"),
        pytest.param([waits(0), lacks(1)], True, True, id="one is being replaced"),
        pytest.param([waits(0), leaves(1)], False, True, id="one is about to be: the surge may start if there is room"),
        pytest.param([waits(0), leaves(1, GRACE + 1)], False, False, id="one does not go away: it may never"),
        pytest.param([waits(0), lacks(1, desired_state="Stopped")], False, False, id="one is removed"),
        pytest.param([waits(0), lacks(1, deleted=True)], False, False, id="one is deleted"),
        pytest.param(
            [lacks(3, annotations={names.SURGE: "true"})], False, False, id="surge servers don't wait for one another"
        ),
    ],
)
def test_a_surge_server_leaves_the_room_of_a_replaced_pod_to_its_successor(
    others: list[Member], at_first: bool, once_refused: bool
) -> None:
    for refused, waits_for_it in ((False, at_first), (True, once_refused)):
        assert gives_way(SHOP, tuple(others), NOW, refused=refused) == waits_for_it


@pytest.mark.parametrize(
    ("max_unavailable", "suspended", "dispensable"),
    [
        pytest.param(1, 0, True, id="one at a time can be taken out"),
        pytest.param(1, 1, False, id="a suspended server has used up the budget"),
        pytest.param(2, 1, True, id="a larger budget"),
        pytest.param(0, 0, False, id="none"),
    ],
)
def test_a_rollout_continues_without_its_surge_if_the_budget_has_room(
    max_unavailable: int, suspended: int, dispensable: bool
) -> None:
    of = group(3, max_unavailable=max_unavailable, max_surge=1)
    asked = [{names.SUSPEND: "true"}] * suspended + [{}] * (3 - suspended)
    others = [member(n, of, annotations=annotations) for n, annotations in enumerate(asked)]
    others.append(member(4, of, annotations={names.SURGE: "true"}))
    assert is_dispensable(of, tuple(others)) == dispensable
