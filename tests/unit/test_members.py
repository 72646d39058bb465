"""Which servers a scale-down takes, and which names a group fills."""

import msgspec
import pytest

from quiesce.decide.members import Member, ordinal_of, surplus, vacancies
from quiesce.model import names
from quiesce.model.objects import Condition
from quiesce.model.times import moment
from tests.unit.build import NOW, group, member, pod

replace = msgspec.structs.replace
SHOP = group(3)


def ready(*ordinals: int) -> list[Member]:
    return [member(ordinal, SHOP) for ordinal in ordinals]


def unready(ordinal: int) -> Member:
    return member(ordinal, SHOP, pod(f"shop-{ordinal}", ready=False))


def stopping(ordinal: int) -> Member:
    return member(ordinal, SHOP, desired_state="Stopped")


def deleted(ordinal: int) -> Member:
    return member(ordinal, SHOP, deleted=True)


def named(ordinal: int) -> Member:
    return member(ordinal, SHOP, annotations={names.SPECIFIED_DELETE: "true"})


def surge(ordinal: int) -> Member:
    return member(ordinal, SHOP, annotations={names.SURGE: "true"})


@pytest.mark.parametrize(
    ("replicas", "members", "taken"),
    [
        (3, ready(0, 1, 2), set()),
        (5, ready(0, 1, 2), set()),
        (1, ready(0, 1, 2), {"shop-1", "shop-2"}),
        (2, [unready(0), *ready(1, 2)], {"shop-0"}),
        (1, [unready(0), *ready(1, 2)], {"shop-0", "shop-2"}),
        (2, [*ready(0), named(1), unready(2)], {"shop-1"}),
        (2, [*ready(0), stopping(1), unready(2)], {"shop-1"}),  # it is under way: no other is begun
        (2, [*ready(0), deleted(1), named(2)], {"shop-1"}),
        (3, [*ready(0), stopping(1), *ready(2)], set()),  # undone
        (2, [*ready(0, 1), surge(2)], {"shop-2"}),
        (2, [surge(0), *ready(1), unready(2)], {"shop-2"}),  # it stands in for one that is out
        (1, [unready(0), unready(1), surge(2), surge(3)], {"shop-0", "shop-1", "shop-3"}),
        (0, ready(0, 4), {"shop-0", "shop-4"}),
        (1, ready(0, 4), {"shop-4"}),
    ],
)
def test_a_scale_down_takes_those_that_are_missed_least(replicas: int, members: list[Member], taken: set[str]) -> None:
    assert surplus(SHOP, tuple(members), replicas) == taken


def test_where_all_servers_are_to_be_stopped_being_stopped_means_nothing() -> None:
    """The template itself says Stopped: every server's spec does, and the highest ordinal goes."""
    members = [member(ordinal, SHOP, None, desired_state="Stopped") for ordinal in range(3)]
    stopped = group(2)
    template = stopped.spec.template
    template = replace(template, spec=replace(template.spec, desired_state="Stopped"))
    assert surplus(replace(stopped, spec=replace(stopped.spec, template=template)), tuple(members), 2) == {"shop-2"}


@pytest.mark.parametrize(
    ("replicas", "members", "names_"),
    [
        (3, [], ["shop-0", "shop-1", "shop-2"]),
        (3, ready(0, 2), ["shop-1"]),
        (4, ready(1, 2), ["shop-0", "shop-3"]),
        (2, ready(4, 7), []),
        (1, ready(0, 1), []),
        (3, [*ready(0), deleted(1), *ready(2)], []),  # its name is its own until it is gone
    ],
)
def test_the_lowest_free_ordinals_are_filled(replicas: int, members: list[Member], names_: list[str]) -> None:
    assert vacancies(SHOP, tuple(members), replicas) == names_


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("shop-0", 0), ("shop-12", 12), ("shop-01", None), ("shop-x", None), ("shop", None), ("web-shop-1", None)],
)
def test_names_that_a_group_gives(name: str, ordinal: int | None) -> None:
    assert ordinal_of(name, "shop") == ordinal


@pytest.mark.parametrize(("opened", "out"), [(NOW - 1, False), (NOW - 31, True)])
def test_a_server_is_given_time_to_get_ready_from_when_it_is_let_serve(opened: float, out: bool) -> None:
    """The kubelet's condition is as old as the suspension before."""
    at = pod(unready_for=3600)
    gate = Condition(names.GATE, "True", last_transition_time=moment(opened))
    others = tuple(condition for condition in at.status.conditions if condition.type != names.GATE)
    at = replace(at, status=replace(at.status, conditions=(*others, gate)))
    assert member(0, SHOP, at).is_out(NOW) == out
