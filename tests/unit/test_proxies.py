"""Services that send requests to a proxy in the pod: which ones, where it is reported, and for how long."""

from typing import Any

import msgspec
import pytest

from quiesce.cluster.world import World
from quiesce.decide.group import decide_group
from quiesce.decide.observation import Observation
from quiesce.decide.proxies import proxies
from quiesce.decide.server import decide
from quiesce.decide.status import group_events, group_status, server_events, server_status
from quiesce.model.objects import (
    Condition,
    Container,
    ContainerPort,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Metadata,
    NamedPort,
    Pod,
    Target,
    TargetRef,
)
from quiesce.model.resources import AppServer, AppServerStatus
from tests.unit.build import group, look, look_at_group, member, pod, server

replace = msgspec.structs.replace
SERVER = NamedPort("wildfly", 9990)
PROXY = Target("shop", "web", 8888)
DIRECT = Target("direct", "", 8080)


def behind(sidecar: Container | None = None, **changes: Any) -> Pod:
    """A pod with a proxy beside the server, and an exporter."""
    plain = pod(**changes)
    servers = Container("wildfly", (ContainerPort(8080, "http"), ContainerPort(9990, "management")))
    proxy = Container("nginx", (ContainerPort(8888, "web"),))
    exporter = Container("exporter", (ContainerPort(9113, "metrics"), ContainerPort(9114), ContainerPort(8080)))
    spec = replace(
        plain.spec,
        containers=(servers, proxy, exporter),
        init_containers=(sidecar,) if sidecar else (),
    )
    return replace(plain, spec=spec)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        pytest.param([PROXY], ["port 8888 of container 'nginx'"], id="a proxy"),
        pytest.param([PROXY, DIRECT], ["port 8888 of container 'nginx'"], id="a proxy, and the server"),
        pytest.param([PROXY, Target("shop", "also", 8888)], ["port 8888"], id="one port twice"),
        pytest.param([Target("shop", "", 15006)], ["port 15006 of container 'sidecar'"], id="a native sidecar"),
        pytest.param([DIRECT], [], id="the server, whatever else declares its port"),
        pytest.param([Target("peers", "", 9990)], [], id="the admin port"),
        pytest.param([Target("shop", "web", 8081)], [], id="a port that nobody declares"),
        pytest.param([Target("shop", "", 9113)], [], id="a port for monitoring"),
        pytest.param([Target("shop-metrics", "", 9114)], [], id="a Service for monitoring"),
        pytest.param([Target("shop", "http-metrics", 9114)], [], id="a Service's port for monitoring"),
        pytest.param([], [], id="none"),
    ],
)
def test_a_service_whose_requests_pass_another_container_is_named(targets: list[Target], named: list[str]) -> None:
    found = proxies(behind(Container("sidecar", (ContainerPort(15006),))), SERVER, targets)
    assert len(found) == len(named)
    for message, words in zip(found, named, strict=True):
        assert message.startswith("Service 'shop' sends requests to ")
        assert words in message


def seen(one: AppServer, at: Pod | None, *targets: Target) -> Observation:
    return replace(look(one, at), targets=targets)


def told(o: Observation) -> AppServer:
    status = msgspec.to_builtins(server_status(o, decide(o)))
    return replace(o.server, status=msgspec.convert(status, AppServerStatus))


def condition(of: Any, kind: str = "Proxied") -> Condition:
    found: Condition = next(c for c in of.status.conditions if c.type == kind)
    return found


def warnings(o: Observation) -> list[str]:
    return [note.reason for note in server_events(o, decide(o)) if note.warning]


def test_a_server_behind_a_proxy_reports_it_once_and_is_ready() -> None:
    o = seen(server(), behind(), PROXY)
    one = told(o)
    assert (condition(one).status, condition(one).reason) == ("True", "ServiceTargetsOtherContainer")
    assert condition(one, "Ready").status == "True"
    assert warnings(o) == ["ServiceTargetsOtherContainer"]
    assert warnings(seen(one, behind(), PROXY)) == []


@pytest.mark.parametrize(
    ("at", "targets", "status"),
    [
        pytest.param(behind(), (PROXY,), "True", id="it is so"),
        pytest.param(behind(gate=False), (), "True", id="it is withdrawn"),
        pytest.param(None, (), "True", id="its pod is replaced"),
        pytest.param(behind(), (DIRECT,), "False", id="requests go to the server"),
        pytest.param(behind(), (), "False", id="no Service sends it any"),
    ],
)
def test_it_is_reported_until_it_is_not_so_any_more(at: Pod | None, targets: tuple[Target, ...], status: str) -> None:
    one = told(seen(server(), behind(), PROXY))
    assert condition(told(seen(one, at, *targets))).status == status


def test_a_group_reports_what_its_servers_do_once() -> None:
    shop = group(2)
    behind_proxy = told(seen(server(), behind(), PROXY)).status
    o = look_at_group(shop, member(0, shop, status=behind_proxy), member(1, shop, status=behind_proxy))
    plan = decide_group(o)
    status = group_status(o, plan)
    found = next(c for c in status.conditions if c.type == "Proxied")
    assert found.status == "True"
    assert found.message.count("container 'nginx'") == 1
    assert [note.message for note in group_events(o, plan) if note.warning] == [found.message]
    o = replace(o, group=replace(shop, status=status))
    assert not [note for note in group_events(o, decide_group(o)) if note.warning]


def endpoints(port: int | None, *, ready: bool = True, of: str = "one", version: int = 1) -> EndpointSlice:
    return EndpointSlice(
        Metadata("shop-1", "shop", resource_version=str(version), labels={"kubernetes.io/service-name": "shop"}),
        (Endpoint(EndpointConditions(ready), TargetRef(of)),),
        (EndpointPort("web", port), EndpointPort(None, None)),
    )


def test_the_ports_of_a_service_come_from_its_slices() -> None:
    world = World()
    assert world.see_slice(endpoints(8888)) == {"one"}
    assert world.targets(pod(uid="one")) == (PROXY,)
    assert world.targets(pod(uid="two")) == ()
    assert world.see_slice(endpoints(8888, version=2)) == set()
    assert world.see_slice(endpoints(8080, version=3)) == {"one"}, "its server is to look again"
    assert world.targets(pod(uid="one")) == (Target("shop", "web", 8080),)
    world.see_slice(endpoints(8080, ready=False, version=4))
    assert world.targets(pod(uid="one")) == ()
