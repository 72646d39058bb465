"""How servers leave what sends requests to them: load balancers that look at other things than `ready`."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.balancer import Balancer, with_healthy_nodes, with_ready_containers
from tests.cluster import access, local
from tests.cluster.edge import edges
from tests.cluster.load import Load, Result
from tests.estate import Estate, wait

SERVERS = ("shop-0", "shop-1")
KEPT = {"service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}
# One server a node: a new pod goes where the one before it was.
APART = {
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": "shop"}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        }
    }
}
# More than the load balancer of the test takes to leave a node.
MARGIN_SECONDS = 5
BUSY = ("kept-alive", "new")


@pytest.fixture(scope="module")
def shop() -> Iterator[Estate]:
    with Estate("withdrawal") as estate:
        estate.service("plain", app="shop")
        estate.kubectl("delete", "service", "shop")  # the group's own has this name
        estate.service("nodes", app="shop", type="LoadBalancer", externalTrafficPolicy="Local")
        serve(estate)
        yield estate


@pytest.fixture
def outside() -> Iterator[Estate]:
    """Where the load comes from, and where no operator looks for endpoints of the servers."""
    with Estate("outside") as estate:
        yield estate


def serve(estate: Estate, **spec: Any) -> None:
    estate.group("shop", replicas=2, fields=KEPT, pod=APART, **spec)
    estate.wait_ready("shop", 2)


def wait_for_another(estate: Estate, server: str, uid: str | None) -> None:
    wait(f"{server} has another pod", lambda: estate.pod_uid(server) not in (uid, None), 60)
    estate.wait_ready("shop", 2)


@contextlib.contextmanager
def load(outside: Estate, balancer: Balancer) -> Iterator[list[Result]]:
    results: list[Result] = []
    with Load(outside.namespace, balancer.url, clients=BUSY) as load:
        time.sleep(3)  # kept-alive connections to every target
        yield results
        time.sleep(2)
        results.append(load.stop())


def test_a_balancer_that_ignores_readiness_loses_nothing_by_the_label(shop: Estate, outside: Estate) -> None:
    """It follows the Service of the group, which selects the label: on a suspend, and on a deletion by hand."""
    assert gate_label(shop) == dict.fromkeys(SERVERS, "true")
    with Balancer(outside, with_ready_containers(shop, "shop"), 8080) as balancer, load(outside, balancer) as results:
        shop.annotate("aps/shop-1", suspend="true")
        shop.wait_state("shop-1", "Suspended")
        assert gate_label(shop) == {"shop-0": "true", "shop-1": None}
        assert len(balancer.targets) == 1
        shop.annotate("aps/shop-1", suspend=None)
        shop.wait_ready("shop", 2)
        wait("it is a target again", lambda: len(balancer.targets) == 2, 10)
        pod = shop.pod_uid("shop-0")
        shop.kubectl("delete", "pod", "shop-0", "--wait=false")
        wait("the gate closes, and the label is gone", lambda: leaves(shop, "shop-0", pod, gate="False"), 10)
        wait_for_another(shop, "shop-0", pod)
    assert results[0].failed == 0, results[0]


def test_negative_control_without_the_label_it_sends_requests_to_a_suspended_server(
    shop: Estate, outside: Estate
) -> None:
    with Balancer(outside, with_ready_containers(shop, "plain"), 8080) as balancer, load(outside, balancer) as results:
        shop.annotate("aps/shop-1", suspend="5")
        shop.wait_state("shop-1", "Suspended")
        time.sleep(1)
        shop.annotate("aps/shop-1", suspend=None)
        shop.wait_ready("shop", 2)
    assert results[0].kinds["new"].codes.get(503, 0) > 0, results[0]


@pytest.mark.skipif(not access.is_local(), reason="only the local cluster's nodes get a kube-proxy of their own")
def test_local_traffic_loses_nothing_with_termination_and_a_change_to_it_rolls_nothing(
    shop: Estate, outside: Estate
) -> None:
    """With a real kube-proxy for each node, and a load balancer that goes by their health checks."""
    before = shop.uids()
    serve(shop, withdrawal="Termination", preSuspendSeconds=MARGIN_SECONDS)
    time.sleep(2)  # for a roll that would begin
    assert shop.uids() == before
    with local_traffic(shop, outside) as balancer, load(outside, balancer) as results:
        for server in SERVERS:
            pod = shop.pod_uid(server)
            shop.annotate(f"aps/{server}", restart="true")
            wait("it terminates with an open gate", functools.partial(leaves, shop, server, pod), 10)
            wait_for_another(shop, server, pod)
            wait("both nodes are targets", lambda: len(balancer.targets) == 2, 10)
    assert results[0].failed == 0, results[0]
    assert {shop.status(server)["lastDrain"]["outcome"] for server in SERVERS} == {"Drained"}


@pytest.mark.skipif(not access.is_local(), reason="only the local cluster's nodes get a kube-proxy of their own")
def test_negative_control_local_traffic_loses_requests_by_the_gate(shop: Estate, outside: Estate) -> None:
    serve(shop, withdrawal="Gate")
    with local_traffic(shop, outside) as balancer, load(outside, balancer) as results:
        shop.annotate("aps/shop-1", suspend="5")
        shop.wait_state("shop-1", "Suspended")
        shop.annotate("aps/shop-1", suspend=None)
        shop.wait_ready("shop", 2)
    assert results[0].kinds["new"].failures > 0, results[0]


@contextlib.contextmanager
def local_traffic(shop: Estate, outside: Estate) -> Iterator[Balancer]:
    service = shop.get("svc", "nodes")
    assert service
    (port,) = service["spec"]["ports"]
    with edges(*local.NODES) as nodes:
        healthy = with_healthy_nodes(nodes, service["spec"]["healthCheckNodePort"])
        wait("both nodes are healthy", lambda: len(healthy()) == len(nodes) and healthy(), 20)
        with Balancer(outside, healthy, port["nodePort"]) as balancer:
            yield balancer


def gate_label(estate: Estate) -> dict[str, str | None]:
    return {name: pod["metadata"]["labels"].get("quiesce.dev/serving") for name, pod in estate.pods().items()}


def leaves(estate: Estate, server: str, uid: str | None, gate: str = "True") -> bool:
    """Whether this pod is being deleted with its gate, its label and its endpoints like this."""
    pod: Any = estate.get("pod", server)
    if pod is None or pod["metadata"]["uid"] != uid or "deletionTimestamp" not in pod["metadata"]:
        return False
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    label = {"True": "true", "False": None}[gate]
    if (conditions["quiesce.dev/serving"], gate_label(estate)[server]) != (gate, label):
        return False
    endpoints = [one for one in estate.every_endpoint("plain") if one["targetRef"]["uid"] == uid]
    # The kubelet evaluates no gate of a pod that terminates.
    wanted = {"ready": False, "serving": True, "terminating": True}
    return [one["conditions"] for one in endpoints] == [wanted]
