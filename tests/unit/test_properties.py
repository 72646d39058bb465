"""What holds whatever happens, in whatever order: explored by simulation (`simulation.py`)."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quiesce.model import names
from tests.unit.build import NOW, template
from tests.unit.simulation import NEVER_READY, REFUSED, Simulation

LAST = "wildfly:4"
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
    st.tuples(st.just("change_template"), st.sampled_from([BASE, "wildfly:2", "wildfly:3", REFUSED, NEVER_READY])),
    st.tuples(st.just("change_timeout"), st.sampled_from([0, 4, 8, -1])),
    st.tuples(st.just("change_withdrawal"), st.sampled_from(["Gate", "Termination"])),
    st.tuples(st.just("strip_finalizers"), SERVERS),
    st.tuples(st.just("strip_label"), SERVERS),
)
LOSES_OWNER = st.tuples(st.just("orphan"), SERVERS)
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


def suspend(name: str, value: str | None) -> Event:
    return ("annotate_server", name, names.SUSPEND, value)


def flicker(*, then: Event) -> list[Event]:
    """A server is resumed; just when its gate has been opened, something else is requested."""
    return [suspend("shop-0", "3"), ("round", 30), suspend("shop-0", None), ("hurry", "shop-0", 3), then]


# The endpoints controller acts on what the kubelet said before the gate closed.
LATE_ENDPOINTS: list[Event] = [("hurry", "shop-0", 4), ("endpoints_controller",), ("hurry", "shop-0", 5)]
# A pod that is deleted with work that outlasts its time.
CUT: list[Event] = [("traffic", "shop-0", 2), ("delete_pod", "shop-0", 30), *[("hurry", "shop-0", 5)] * 6]
# All servers have a new template then, none can have it, and all serve.
REFUSED_WHILE_SUSPENDED: list[Event] = [
    ("annotate_group", names.SUSPEND, "0"),
    ("round", 30),
    ("change_template", REFUSED),
    ("round", 4),
    ("annotate_group", names.SUSPEND, None),
    ("round", 20),
]
EVENTS = settings(max_examples=250)


@EVENTS
@given(st.lists(st.one_of(CLUSTER, OPERATOR_DIES, REVERSIBLE, FINAL), max_size=60))
@example(flicker(then=suspend("shop-0", "true")))
@example(flicker(then=("delete_pod", "shop-0", None)))
@example([*flicker(then=("change_template", "wildfly:2")), ("operate_on_group",), ("operate_on_group",)])
@example([*flicker(then=("kubelet", "shop-0")), suspend("shop-0", "true"), *LATE_ENDPOINTS])
@example([("change_template", REFUSED), suspend("shop-0", "true")])
@example(CUT)
@example([("scale", 0), ("round", 40), ("change_template", NEVER_READY), ("scale", 3), ("round", 90)])
@example(REFUSED_WHILE_SUSPENDED)
@example([suspend("shop-0", "0"), ("round", 20), ("strip_finalizers", "shop-0"), suspend("shop-0", None)])
def test_any_history_comes_to_rest_and_back_to_service_when_all_is_withdrawn(events: list[Event]) -> None:
    """Every promise of the simulation holds with every act; what is asked for is reached, and nothing stirs then."""
    simulation = Simulation.of()
    play(simulation, events)
    simulation.settle()
    simulation.withdraw_intents(LAST)
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    assert all(pod.image == LAST for pod in simulation.pods.values()), simulation.story()


@EVENTS
@given(st.lists(st.one_of(CLUSTER, OPERATOR_DIES, REVERSIBLE, LOSES_OWNER), max_size=60))
@example([("change_template", "wildfly:2"), ("round", 8), ("orphan", "shop-2"), ("round", 8), ("orphan", "shop-0")])
def test_whatever_was_not_deleted_goes_back_to_service_as_it_is(events: list[Event]) -> None:
    simulation = Simulation.of()
    play(simulation, events)
    simulation.withdraw_intents(BASE)
    alive = {
        pod.uid: pod.process.container_id
        for pod in simulation.pods.values()
        if pod.process and pod.deleted_at is None and pod.image == BASE
    }
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    now = {pod.uid: pod.process.container_id for pod in simulation.pods.values() if pod.process}
    assert alive.items() <= now.items(), simulation.story()


@settings(max_examples=60)
@given(
    st.lists(st.one_of(CLUSTER, OPERATOR_DIES), max_size=60),
    st.sampled_from(["restart", "template", "port"]),
    st.sampled_from([(1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]),
)
def test_a_roll_never_takes_more_than_its_budget_out_of_the_endpoints(
    events: list[Event], why: str, budget: tuple[int, int]
) -> None:
    unavailable, surge = budget
    simulation = Simulation.of(max_unavailable=unavailable, max_surge=surge)
    match why:
        case "restart":
            simulation.annotate_group(names.RESTART, "now")
        case "template":
            simulation.change_template("wildfly:2")
        case _:
            simulation.rename_port("mgmt")
    before = {pod.uid for pod in simulation.pods.values()}
    lowest, most = len(simulation.endpoints), 0
    for event in events:
        play(simulation, [event])
        lowest = min(lowest, len(simulation.endpoints))
    for _ in range(600):
        one_round(simulation)
        most = max(most, len(simulation.servers))
        for name in simulation.pods:
            simulation.requests_end(name)
        lowest = min(lowest, len(simulation.endpoints))
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    assert lowest >= 3 - unavailable, simulation.story()
    assert most <= 3 + surge, simulation.story()
    assert before.isdisjoint(pod.uid for pod in simulation.pods.values()), simulation.story()


@pytest.mark.parametrize("port", ["http", "proxy"])
def test_an_admin_port_that_is_not_the_servers_takes_out_no_more_than_the_budget_and_can_be_put_back(port: str) -> None:
    users = template()
    users["spec"]["containers"].append({"name": "proxy", "ports": [{"name": "proxy", "containerPort": 9000}]})
    simulation = Simulation.of(template=users)
    simulation.change_port(port)
    for _ in range(200):
        one_round(simulation)
        assert len(simulation.endpoints) >= 2, simulation.story()
    assert len(simulation.endpoints) == 2, simulation.story()
    simulation.change_port("management")
    simulation.settle()
    assert simulation.all_serve(), simulation.story()


@pytest.mark.parametrize("timeout", [0, 3, 8])
@pytest.mark.parametrize("dies", [False, True])
def test_a_deadline_survives_any_number_of_restarts_of_the_operator(timeout: int, *, dies: bool) -> None:
    """With work that never ends, a stop comes when the timeout has run out: not before, and hardly later."""
    simulation = Simulation.of(1, suspend_timeout_seconds=timeout)
    simulation.traffic("shop-0", 1)
    simulation.desire("Stopped")
    asked_at, began = simulation.now, None
    for _ in range(400):
        simulation.operate_on_server("shop-0")
        # A restart within the margin starts the margin again, so it dies only once the clock runs.
        status = simulation.servers["shop-0"].status
        if status.suspend and status.suspend.suspending_since:
            began = began or status.suspend.suspending_since.timestamp()
            if dies:
                simulation.lose_notes()
        simulation.kubelet("shop-0")
        simulation.endpoints_controller()
        simulation.tick(0.1)
        if "shop-0" not in simulation.pods or simulation.pods["shop-0"].deleted_at is not None:
            break
    assert began is not None
    assert 0 <= simulation.now - began - timeout <= 0.5, simulation.story()
    assert simulation.now - asked_at <= timeout + 4


def test_work_that_never_ends_keeps_a_suspend_waiting_and_writes_nothing_more() -> None:
    simulation = Simulation.of(1)
    simulation.traffic("shop-0", 1)
    simulation.annotate_server("shop-0", names.SUSPEND, "3")
    simulation.settle(requests_end=False)
    status = simulation.servers["shop-0"].status
    assert (status.state, {c.type: c.reason for c in status.conditions}["Stalled"]) == ("Suspending", "DrainTimedOut")
    writes = simulation.writes
    simulation.settle(requests_end=False)
    assert simulation.writes == writes


@pytest.mark.parametrize("value", ["true", "0", "-1"])
def test_a_suspend_and_its_end_take_one_step_of_each_kind(value: str) -> None:
    simulation = Simulation.of(1)
    simulation.log.clear()
    simulation.annotate_server("shop-0", names.SUSPEND, value)
    simulation.settle()
    assert simulation.acts() == ["SetGate", "Shed", "SuspendServer"]
    simulation.log.clear()
    simulation.annotate_server("shop-0", names.SUSPEND, None)
    simulation.settle()
    assert simulation.acts() == ["Unshed", "ResumeServer", "SetGate"]


def test_one_rolled_server_costs_few_writes() -> None:
    """At most 10 writes in total, for the statuses, the gate, the pod and the server."""
    simulation = Simulation.of(1)
    simulation.log.clear()
    before = simulation.writes
    simulation.change_template("wildfly:2")
    simulation.settle()
    to_kubernetes = [act for act in simulation.acts() if act in ("SetGate", "DeletePod", "CreatePod", "ApplyServer")]
    status_writes = simulation.writes - before
    assert to_kubernetes == ["ApplyServer", "SetGate", "DeletePod", "CreatePod", "SetGate"]
    assert status_writes <= 5, simulation.story()


def test_a_simulation_can_fail() -> None:
    """A server that is stopped by an operator without a hold comes back, and the simulation says so."""
    simulation = Simulation.of(1)
    assert simulation.now > NOW
    assert simulation.all_serve()
    simulation.container_ends("shop-0")
    assert not simulation.all_serve()


def test_a_refused_template_is_fixed_by_another() -> None:
    simulation = Simulation.of()
    simulation.change_template(REFUSED)
    simulation.settle()
    simulation.change_template("wildfly:2")
    simulation.settle()
    assert all(pod.image == "wildfly:2" for pod in simulation.pods.values()), simulation.story()


def test_a_group_that_serves_nothing_is_fixed_immediately() -> None:
    """All of its servers are in a crash loop: a budget would keep them there."""
    simulation = Simulation.of()
    simulation.change_template("wildfly:2")
    for name in list(simulation.pods):
        simulation.container_ends(name)
        simulation.operate_on_server(name)
    simulation.tick(31)
    simulation.operate_on_group()
    given = [one.spec.template for one in simulation.servers.values()]
    assert given == [template("wildfly:2")] * 3


def test_a_surge_takes_back_what_it_made_and_no_server_that_is_suspended() -> None:
    simulation = Simulation.of(3, max_surge=1)
    simulation.annotate_server("shop-1", names.SUSPEND, "true")
    simulation.settle()
    simulation.change_template("wildfly:2")
    simulation.settle()
    assert sorted(simulation.servers) == ["shop-0", "shop-1", "shop-2"], simulation.story()


def test_a_server_that_was_given_its_template_long_ago_still_waits_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its template was refused at first; by the time it is accepted, another server has gone."""
    monkeypatch.setattr("tests.unit.simulation.REFUSED", "wildfly:2")
    simulation = Simulation.of()
    simulation.change_template("wildfly:2")
    simulation.settle()
    simulation.delete_pod("shop-1")
    monkeypatch.setattr("tests.unit.simulation.REFUSED", "nothing")
    for _ in range(200):
        one_round(simulation)  # the simulation itself looks at the budget
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    assert all(pod.image == "wildfly:2" for pod in simulation.pods.values()), simulation.story()


def test_servers_come_up_with_what_their_group_wants_of_them_now() -> None:
    """One change of a stopped group: it is to run again, with another image, and with fewer servers."""
    simulation = Simulation.of()
    simulation.desire("Stopped")
    simulation.settle()
    simulation.desire("Running")
    simulation.scale(1)
    simulation.change_template("wildfly:2")
    images = set()
    for _ in range(20):
        for name in sorted(simulation.servers):
            simulation.operate_on_server(name)
        images |= {(name, pod.image) for name, pod in simulation.pods.items()}
        one_round(simulation)
    simulation.settle()
    assert images == {("shop-0", "wildfly:2")}, simulation.story()
    assert simulation.all_serve(), simulation.story()


def test_a_suspension_in_another_place_resumes_no_server() -> None:
    simulation = Simulation.of()
    simulation.desire("Suspended")
    simulation.settle()
    before = simulation.acts()
    simulation.desire("Running")
    simulation.desire_of_servers("Suspended")
    for name in sorted(simulation.servers) * 3:
        simulation.operate_on_server(name)
    simulation.settle()
    assert "ResumeServer" not in simulation.acts()[len(before) :], simulation.story()


@pytest.mark.parametrize("rounds", [8, 130])  # of half a second
@pytest.mark.parametrize("others", [(), ("shop-0",)])
def test_a_suspension_taken_back_after_a_new_template_leaves_the_roll_to_the_budget(
    others: tuple[str, ...], rounds: int
) -> None:
    """Servers that were to be suspended got the template at once; they serve as long as it is not their turn."""
    simulation = Simulation.of()
    suspended = [name for name in simulation.servers if name not in others]
    for name in suspended:
        simulation.traffic(name, 1)
        simulation.annotate_server(name, names.SUSPEND, "60")
    for _ in range(rounds):
        one_round(simulation)
    simulation.change_template("wildfly:2")
    one_round(simulation)
    for name in suspended:
        simulation.annotate_server(name, names.SUSPEND, None)
    for _ in range(8):
        one_round(simulation)
    assert sum(pod.gate and pod.ready for pod in simulation.pods.values()) >= 2, simulation.story()
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    assert {pod.image for pod in simulation.pods.values()} == {"wildfly:2"}, simulation.story()


def test_servers_that_were_suspended_for_long_do_not_get_a_template_that_no_server_has_run() -> None:
    simulation = Simulation.of()
    simulation.annotate_group(names.SUSPEND, "0")
    for _ in range(130):
        one_round(simulation)
    simulation.change_template(REFUSED)
    for _ in range(200):
        one_round(simulation)
    given = [server.spec.template for server in simulation.servers.values()]
    assert (given.count(template(BASE)), given.count(template(REFUSED))) == (2, 1), simulation.story()
    simulation.change_template("wildfly:2")
    simulation.annotate_group(names.SUSPEND, None)
    simulation.settle()
    assert simulation.all_serve(), simulation.story()
    assert {pod.image for pod in simulation.pods.values()} == {"wildfly:2"}, simulation.story()
