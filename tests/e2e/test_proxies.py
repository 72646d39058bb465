"""An HTTP proxy in front of the server, in the same pod: what a drain can't promise by itself, and what helps."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.load import Load, service_url
from tests.estate import Estate, wait

SCRIPT = Path(__file__).with_name("reverse_proxy.py")
PORT = 8888  # which it listens on
CLIENTS = ("kept-alive", "new")
UNAVAILABLE = 503


@pytest.fixture(scope="module")
def web() -> Iterator[Estate]:
    """Two servers with a proxy before each."""
    sidecar = {
        "name": "proxy",
        "image": images.OPERATOR,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["/opt/quiesce/bin/python", "-c", SCRIPT.read_text()],
        "ports": [{"name": "web", "containerPort": PORT}],
    }
    with Estate("proxies") as estate:
        estate.service("web", ports=[{"port": 80, "targetPort": PORT}])
        estate.group("web", replicas=2, suspendTimeoutSeconds=8, preSuspendSeconds=4, pod={"initContainers": [sidecar]})
        estate.wait_ready("web", 2, 300)
        yield estate


def test_it_is_reported_while_everything_is_ready(web: Estate) -> None:
    for kind, name in (("aps", "web-0"), ("sg", "web")):
        wait(f"{name} reports it", functools.partial(proxied, web, kind, name), 10)
        web.wait_event(name, "ServiceTargetsOtherContainer", "port 8888 of container 'proxy'")
        assert web.condition(kind, name, "Ready")["status"] == "True"


def test_clients_of_a_proxy_that_keeps_connections_see_the_suspension(web: Estate) -> None:
    with Load(web.namespace, service_url(web.namespace, "web"), clients=CLIENTS) as load:
        web.annotate("aps/web-0", suspend="true")
        web.wait_state("web-0", "Suspended", 60)
        assert proxied(web, "aps", "web-0"), "it is so, although no Service has the server now"
        load.stop()
    result = load.result()
    assert result.kinds["kept-alive"].codes.get(UNAVAILABLE), result
    assert result.kinds["new"].failures == 0, result
    web.annotate("aps/web-0", suspend=None)
    web.wait_serving({"web-0", "web-1"}, "web", 30)


def test_a_proxy_that_closes_connections_within_the_margin_loses_nothing(web: Estate) -> None:
    web.api.get(version="v1", namespace=web.namespace, url=f"pods/web-0:{PORT}/proxy/max-age?seconds=2", timeout=10)
    pod = web.pod_uid("web-0")
    with Load(web.namespace, service_url(web.namespace, "web"), clients=CLIENTS) as load:
        web.kubectl("delete", "pod", "web-0", "--wait=false")
        wait("the pod is gone", lambda: web.pod_uid("web-0") != pod, 60)
        load.stop()
    assert load.result().failed == 0, load.result()
    assert web.status("web-0")["lastDrain"]["outcome"] == "Drained"


def proxied(estate: Estate, kind: str, name: str) -> bool:
    found = estate.condition(kind, name, "Proxied")
    return (found.get("status"), found.get("reason")) == ("True", "ServiceTargetsOtherContainer")
