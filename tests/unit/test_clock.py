"""Clocks that are set while the operator works, or that differ from the API server's."""

from email.utils import format_datetime
from http import HTTPStatus

import msgspec
import pytest

from quiesce.cluster.clock import Clock
from quiesce.cluster.world import World
from quiesce.control.admins import Admins
from quiesce.control.servers import Servers
from quiesce.model import names
from quiesce.model.objects import Pod
from quiesce.model.resources import AppServer
from quiesce.model.times import Seconds, moment
from tests.unit.build import NOW, pod, server
from tests.unit.fake import FakeCluster, FakeRecorder, FakeWildFly, refusing

HOUR = 3600.0
STEP_SECONDS = 0.5
replace = msgspec.structs.replace


class Time:
    """The time that passes, and how far two clocks differ from `NOW` at its beginning."""

    def __init__(self, node: Seconds = 0, api: Seconds = 0) -> None:
        self.passed, self.node, self.api = 0.0, node, api
        self.clock = Clock(lambda: NOW + self.passed + self.node, lambda: 1000 + self.passed)

    def hear(self, took: Seconds = 0) -> None:
        sent_at = self.clock.tick()
        self.passed += took
        self.clock.hear(format_datetime(moment(NOW + self.passed + self.api), usegmt=True), sent_at)

    @property
    def error(self) -> Seconds:
        """How far what the operator takes for the time of day is from the API server's."""
        return self.clock.now() - (NOW + self.passed + self.api)


def test_before_any_answer_the_clock_of_the_node_counts() -> None:
    assert Time(node=7).clock.now() == NOW + 7


@pytest.mark.parametrize("skew", [-HOUR, -7, -0.4, 0, 0.4, 7, HOUR])
def test_the_time_of_day_is_the_api_servers(skew: Seconds) -> None:
    time = Time(node=skew)
    for _ in range(40):
        time.hear()
        time.passed += 0.27
        assert abs(time.error) <= 1
    assert abs(time.error) <= max(0.1, min(abs(skew), 1))


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_node_whose_clock_is_set_changes_nothing(by: Seconds, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    time.hear()
    time.node += by
    assert time.error == 0
    time.hear()
    assert time.error == 0
    assert f"this node's clock differs by {by:+.0f} s from the API server's" in caplog.text


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_an_api_server_whose_clock_is_set_is_followed(by: Seconds, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    time.hear()
    tick = time.clock.tick()
    time.api += by
    time.node += by
    time.hear()
    assert abs(time.error) <= 1
    assert time.clock.tick() == tick
    assert "the API server's clock has been set by" in caplog.text
    assert "differs" not in caplog.text


def test_an_answer_that_took_long_says_little() -> None:
    time = Time(node=4)
    time.hear(took=8)
    assert time.error == 4
    time.hear()
    assert abs(time.error) <= 1


def test_a_skew_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    time = Time(node=60)
    for _ in range(10):
        time.hear()
    assert caplog.text.count("differs") == 1
    time.node = 0
    time.hear()
    assert caplog.text.count("differs") == 2


@pytest.mark.parametrize("apart", [[4], [HOUR], [-4], [3, 30], [2.5]])
@pytest.mark.parametrize("pause", [0.27, 100])
def test_api_servers_whose_clocks_differ_are_reported_once(
    apart: list[Seconds], pause: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    for _ in range(50):
        for api in (0, *apart):
            time.api = api
            time.hear()
            time.passed += pause
    assert caplog.text.count("has been set") <= len(apart) + 1
    assert caplog.text.count("differs") <= len(apart) + 1


def test_a_clock_that_is_set_once_more_is_reported_once_more(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    for api in (0, HOUR, 0, HOUR, 0):
        time.api = api
        for _ in range(20):
            time.hear()
            time.passed += 60
    assert caplog.text.count("the API server's clock has been set by +") == 2
    assert caplog.text.count("the API server's clock has been set by -") == 2


@pytest.mark.parametrize("date", [None, "", "yesterday", "Tue, 99 Nov 2036 08:00:00 GMT"])
def test_an_answer_without_a_date_says_nothing(date: str | None) -> None:
    time = Time(node=4)
    time.clock.hear(date, time.clock.tick())
    assert time.clock.now() == NOW + 4


class Busy(FakeWildFly):
    """One request never ends."""

    async def shed(self) -> None:
        await super().shed()
        self.says = replace(self.says, shed=True, sheds_all=True)

    async def suspend(self) -> None:
        await super().suspend()
        self.says = replace(self.says, suspend_state="SUSPENDING")


class Loop:
    """A server that is reconciled while time passes; `log` has what was done or first reported, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: Time, one: AppServer, its_pod: Pod) -> None:
        Busy.opened.clear()
        monkeypatch.setattr("quiesce.control.admins.WildFly", Busy)
        self.time, self.cluster, self.world = time, FakeCluster(one, its_pod), World()
        self.world.see_server(one)
        self.world.see_pod(its_pod)
        self.servers = Servers(self.cluster, self.world, Admins(self.cluster), time.clock, FakeRecorder())
        self.log: dict[str, Seconds] = {}

    async def run(self, until: Seconds) -> dict[str, Seconds]:
        while self.time.passed < until:
            self.time.hear()
            await self.servers.reconcile("shop", "shop-0")
            for opened in FakeWildFly.opened:
                opened.says = replace(opened.says, active_requests=1)
                for verb in opened.done:
                    self.log.setdefault(verb, self.time.passed)
            known = self.world.servers["shop", "shop-0"].status
            for condition in known.conditions:
                if condition.status == "True" and condition.type == "Stalled":
                    self.log.setdefault(condition.reason, self.time.passed)
            self.time.passed += STEP_SECONDS
        return self.log


SETS = [
    pytest.param(0, 0, id="no clock"),
    pytest.param(HOUR, 0, id="the node's forwards"),
    pytest.param(-HOUR, 0, id="the node's backwards"),
    pytest.param(HOUR, HOUR, id="every clock forwards"),
    pytest.param(-HOUR, -HOUR, id="every clock backwards"),
]


@pytest.mark.parametrize(("node", "api"), SETS)
@pytest.mark.parametrize("at", [1.0, 20.0, 45.0])
async def test_the_drain_of_a_deletion_continues_as_if_no_clock_had_been_set(
    monkeypatch: pytest.MonkeyPatch, node: Seconds, api: Seconds, at: Seconds
) -> None:
    plain = await Loop(monkeypatch, Time(), server(), pod(leaving_for=0)).run(until=100)
    assert plain.keys() >= {"shed", "suspend", "stop"}
    time = Time()
    loop = Loop(monkeypatch, time, server(), pod(leaving_for=0))
    await loop.run(until=at)
    time.node, time.api = node, api
    log = await loop.run(until=100)
    assert log.keys() == plain.keys()
    assert all(log[step] == pytest.approx(plain[step], abs=1.5) for step in plain), (plain, log)


@pytest.mark.parametrize(("node", "api"), SETS)
@pytest.mark.parametrize("at", [1.0, 20.0, 45.0])
async def test_a_suspend_times_out_as_if_no_clock_had_been_set(
    monkeypatch: pytest.MonkeyPatch, node: Seconds, api: Seconds, at: Seconds
) -> None:
    one, its_pod = server(annotations={names.SUSPEND: "true"}), pod(ready=False)
    plain = await Loop(monkeypatch, Time(), one, its_pod).run(until=100)
    assert plain.keys() >= {"shed", "suspend", "DrainTimedOut"}
    time = Time()
    loop = Loop(monkeypatch, time, one, its_pod)
    await loop.run(until=at)
    time.node, time.api = node, api
    log = await loop.run(until=100)
    assert log.keys() == plain.keys()
    assert all(log[step] == pytest.approx(plain[step], abs=1.5) for step in plain), (plain, log)


@pytest.mark.parametrize("skew", [-60, -6, 6, 60])
async def test_a_node_with_another_time_than_the_api_server_has_the_reserve_before_a_stop(
    monkeypatch: pytest.MonkeyPatch, skew: Seconds
) -> None:
    forever = server(suspend_timeout_seconds=-1)
    plain = await Loop(monkeypatch, Time(), forever, pod(leaving_for=0)).run(until=120)
    log = await Loop(monkeypatch, Time(node=skew), forever, pod(leaving_for=0)).run(until=120)
    assert log["stop"] == pytest.approx(plain["stop"], abs=1.5)


@pytest.mark.parametrize(("node", "api"), SETS)
async def test_retries_go_on_when_a_clock_is_set(monkeypatch: pytest.MonkeyPatch, node: Seconds, api: Seconds) -> None:
    time = Time()
    loop = Loop(monkeypatch, time, server(annotations={names.SUSPEND: "true"}), pod())
    loop.cluster.refuse = refusing("set_gate", HTTPStatus.FORBIDDEN)
    await loop.run(until=10)
    before = loop.cluster.count("set_gate")
    time.node, time.api = node, api
    await loop.run(until=50)
    assert 1 <= loop.cluster.count("set_gate") - before <= 3
