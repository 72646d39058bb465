"""What holds whatever happens, in whatever order: explored by simulation (`simulation.py`)."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from quiesce.model import names
from tests.unit.build import template
from tests.unit.simulation import REFUSED, Simulation

BASE = template()["spec"]["containers"][0]["image"]
SERVERS = st.sampled_from(["shop-0", "shop-1", "shop-2"])
SUSPENDS = st.sampled_from(["true", "false", "0", "3", "-1", "nonsense", None])

Event = tuple[Any, ...]  # a method of the simulation and what it is called with

CLUSTER = st.one_of(
    st.tuples(st.just("operate_on_server"), SERVERS),
    st.tuples(st.just("operate_on_server"), SERVERS),
    st.tuples(st.just("operate_on_server"), SERVERS),
    st.tuples(st.just("operate_on_group")),
    st.tuples(st.just("kubelet"), SERVERS),
    st.tuples(st.just("endpoints_controller")),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 0.6, 1.0, 3.0, 9.0])),
    st.tuples(st.just("round"), st.integers(1, 12)),
    st.tuples(st.just("traffic"), SERVERS, st.integers(1, 3)),
    st.tuples(st.just("requests_end"), SERVERS, st.just(1)),
    st.tuples(st.just("hurry"), SERVERS, st.integers(2, 5)),
)
OPERATOR_DIES = st.one_of(
    st.tuples(st.just("lose_notes")),
    st.tuples(st.just("server_crash"), SERVERS),
    st.tuples(st.just("group_crash")),
)
REVERSIBLE = st.one_of(
    st.tuples(st.just("annotate_server"), SERVERS, st.just(names.SUSPEND), SUSPENDS),
    st.tuples(st.just("annotate_group"), st.just(names.SUSPEND), SUSPENDS),
    st.tuples(st.just("change_template"), st.sampled_from([BASE, "wildfly:2", "wildfly:3", REFUSED])),
    st.tuples(st.just("change_timeout"), st.sampled_from([0, 4, 8, -1])),
)
FINAL = st.one_of(
    st.tuples(st.just("annotate_server"), SERVERS, st.sampled_from([names.FORCE, names.RESTART]), st.just("now")),
    st.tuples(st.just("annotate_group"), st.just(names.RESTART), st.just("now")),
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("desire"), st.sampled_from(["Running", "Suspended", "Stopped"])),
    st.tuples(st.just("delete_pod"), SERVERS, st.sampled_from([None, 30, 1])),
    st.tuples(st.just("delete_server"), SERVERS),
    st.tuples(st.just("container_ends"), SERVERS),
)


def play(simulation: Simulation, events: list[Event]) -> None:
    for what, *arguments in events:
        match what:
            case "round":
                for _ in range(arguments[0]):
                    one_round(simulation)
            case "hurry":  # the operator is ahead of the kubelet and the endpoints
                for _ in range(arguments[1]):
                    simulation.operate_on_server(arguments[0])
                    simulation.tick(1.0)
            case "server_crash":
                simulation.operate_on_server(arguments[0], crash=True)
            case "group_crash":
                simulation.operate_on_group(crash=True)
            case _:
                getattr(simulation, what)(*arguments)


def one_round(simulation: Simulation) -> None:
    simulation.operate_on_group()
    for name in sorted({*simulation.servers, *simulation.pods}):
        simulation.kubelet(name)
        simulation.operate_on_server(name)
    simulation.endpoints_controller()
    simulation.tick(0.5)


@settings(max_examples=int(__import__('os').environ.get('N','150')))
@given(st.lists(st.one_of(CLUSTER, OPERATOR_DIES, REVERSIBLE, FINAL), max_size=80))
def test_any_history_comes_to_rest_and_back_to_service_when_all_is_withdrawn(events: list[Event]) -> None:
    simulation = Simulation.of()
    play(simulation, events)
    simulation.settle()
    simulation.withdraw_intents(BASE)
    simulation.settle()
    assert simulation.all_serve(), "\n".join(simulation.log[-40:])
