"""An HTTP proxy in front of the server, in the same pod: what a drain can't promise by itself, and what mends it."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.load import Load, service_url
from tests.estate import Estate, wait

SCRIPT = Path(__file__).with_name("reverse_proxy.py")
PORT = 8888  # which it listens on
CLIENTS = ("kept-alive", "new")
PORTS = [{"port": 80, "targetPort": PORT}]
UNAVAILABLE = 503


@pytest.fixture
def web() -> Iterator[Estate]:
    with Estate("proxies") as estate:
        estate.service("web", ports=PORTS)
        yield estate


def behind(max_age: str) -> dict[str, Any]:
    """The arguments for servers with a proxy before each, which closes connections that are as old."""
    sidecar = {
        "name": "proxy",
        "image": images.OPERATOR,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["/opt/quiesce/bin/python", "-c", SCRIPT.read_text()],
        "env": [{"name": "MAX_AGE", "value": max_age}],
        "ports": [{"name": "web", "containerPort": PORT}],
    }
    return {"pod": {"initContainers": [sidecar]}}


def test_a_proxy_that_keeps_connections_is_reported_and_its_clients_see_the_suspension(web: Estate) -> None:
    web.group("web", replicas=2, suspendTimeoutSeconds=8, **behind("inf"))
    web.wait_ready("web", 2)
    for kind, name in (("aps", "web-0"), ("sg", "web")):
        wait(f"{name} reports it", functools.partial(proxied, web, kind, name), 10)
        web.wait_event(name, "ServiceTargetsOtherContainer", "port 8888 of container 'proxy'")
        assert web.condition(kind, name, "Ready")["status"] == "True"
    with Load(web.namespace, service_url(web.namespace, "web"), clients=CLIENTS) as load:
        web.annotate("aps/web-0", suspend="true")
        web.wait_state("web-0", "Suspended", 60)
        load.stop()
    result = load.result()
    assert result.kinds["kept-alive"].codes.get(UNAVAILABLE), result
    assert result.kinds["new"].failures == 0, result
    assert proxied(web, "aps", "web-0"), "it is so, although the server is in no Service now"


def test_a_proxy_that_ends_its_connections_within_the_margin_loses_nothing(web: Estate) -> None:
    web.group("web", replicas=2, preSuspendSeconds=4, **behind("2"))
    web.wait_ready("web", 2)
    before = web.uids("web")
    with Load(web.namespace, service_url(web.namespace, "web"), clients=CLIENTS) as load:
        web.annotate("sg/web", restart="true")
        wait("both are replaced", lambda: not {*before.values()} & {*web.uids("web").values()}, 120)
        web.wait_ready("web", 2)
        load.stop()
    assert load.result().failed == 0, load.result()


def proxied(estate: Estate, kind: str, name: str) -> bool:
    found = estate.condition(kind, name, "Proxied")
    return (found.get("status"), found.get("reason")) == ("True", "ServiceTargetsOtherContainer")
