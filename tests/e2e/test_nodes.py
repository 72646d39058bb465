"""Nodes that are drained for maintenance, and nodes that are lost, with the servers of two groups on them."""

import functools
import time
from collections.abc import Iterator

import pykube
import pytest

from tests import install
from tests.cluster import access, local
from tests.cluster.load import Load, service_url
from tests.cluster.node import Node
from tests.estate import Estate, Watcher, kubectl, wait

pytestmark = pytest.mark.alone
GROUPS = {"shop": 3, "cart": 2}
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


def spread_pod(group: str) -> dict[str, object]:
    """Servers spread over all nodes, and removed from a lost one immediately."""
    selector = {"labelSelector": {"matchLabels": {"app": group}}}
    where = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    short = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
    return {
        "topologySpreadConstraints": [{**where, **selector}],
        "tolerations": [{"key": key, **short} for key in keys],
    }


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    with Estate("nodes") as estate:
        estate.service("cart")
        for group, replicas in GROUPS.items():
            estate.group(group, replicas=replicas, pod=spread_pod(group))
        wait_ready(estate)
        yield estate


def test_a_budget_goes_with_the_group_unless_it_says_none(estate: Estate) -> None:
    budget = wait("it is there", lambda: estate.get("pdb", "shop"), 10)
    assert budget["spec"]["minAvailable"] == 2
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert [owner["name"] for owner in budget["metadata"]["ownerReferences"]] == ["shop"]
    wait("it counts the servers", lambda: estate.get("pdb", "shop")["status"]["currentHealthy"] == 3, 10)  # type: ignore[index]
    pod = spread_pod("shop")
    estate.group("shop", pod=pod, fields={"podDisruptionBudget": "None"})
    wait("it is gone", lambda: estate.get("pdb", "shop") is None, 10)
    estate.group("shop", pod=pod)
    wait("it is back", lambda: estate.get("pdb", "shop"), 10)


def test_a_drained_node_loses_no_request_and_its_servers_come_back_elsewhere(estate: Estate) -> None:
    away = node_of(estate, "shop-0")
    (stays,) = nodes() - {away}
    loads = [Load(estate.namespace, service_url(estate.namespace, group), stays) for group in GROUPS]
    watchers = {group: Watcher(functools.partial(serving, estate, group)) for group in GROUPS}
    try:
        with loads[0], loads[1], watchers["shop"], watchers["cart"]:
            time.sleep(3)  # kept-alive connections to every server
            kubectl("drain", away, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", timeout=200)
            wait_ready(estate)
            for load in loads:
                load.stop()
    finally:
        kubectl("uncordon", away)
    for load in loads:
        assert load.result().failed == 0, load.result()
    for group, replicas in GROUPS.items():
        assert min(watchers[group].seen) >= replicas - 1, group
        assert {pod["spec"]["nodeName"] for pod in estate.pods(group).values()} == {stays}


@pytest.mark.skipif(not access.is_local(), reason="only the nodes of the local cluster may be killed")
def test_a_server_of_a_lost_node_comes_back_when_it_is_known_not_to_run_there() -> None:
    (lost,) = (node for node in local.NODES if node.name not in operator_nodes())
    pod = {**spread_pod("shop"), "terminationGracePeriodSeconds": 1}
    with Estate("loss") as estate:
        # Of a pod that ends soon it is soon known that it does not.
        estate.group("shop", replicas=2, pod=pod, suspendTimeoutSeconds=0, preSuspendSeconds=0)
        estate.wait_ready("shop", 2)
        (server,) = (name for name in estate.pods() if node_of(estate, name) == lost.name)
        before = estate.pod_uid(server)
        lost.kill()
        try:
            wait("its loss is told", lambda: "NodeLost" in stalled(estate, server), 150)
            wait(
                "the group tells it as well", lambda: server in estate.condition("sg", "shop", "Stalled")["message"], 10
            )
            assert estate.endpoints() == set(estate.pods()) - {server}
            assert estate.pod_uid(server) == before  # it may run there still
            kubectl("taint", "node", lost.name, OUT_OF_SERVICE)
            estate.wait_ready("shop", 2)
            assert node_of(estate, server) != lost.name
        finally:
            bring_back(lost)


def bring_back(node: Node) -> None:
    node.boot()
    wait(f"{node.name} is ready", lambda: node_is_ready(node.name), 60)
    found = pykube.Node.objects(access.client()).get_by_name(node.name)
    if any(taint["key"] in OUT_OF_SERVICE for taint in found.obj["spec"].get("taints") or ()):
        kubectl("taint", "node", node.name, f"{OUT_OF_SERVICE}-")


def node_is_ready(name: str) -> bool:
    found = pykube.Node.objects(access.client()).get_by_name(name).obj
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions") or ())
    unreachable = any("unreachable" in taint["key"] for taint in found["spec"].get("taints") or ())
    return ready and not unreachable


def wait_ready(estate: Estate) -> None:
    for group, replicas in GROUPS.items():
        estate.wait_ready(group, replicas)


def serving(estate: Estate, group: str) -> int:
    return len(estate.endpoints(group))


def nodes() -> set[str]:
    return {node.name for node in pykube.Node.objects(access.client())}


def node_of(estate: Estate, pod: str) -> str:
    found = estate.get("pod", pod)
    assert found
    return str(found["spec"]["nodeName"])


def operator_nodes() -> set[str]:
    return {pod["spec"]["nodeName"] for pod in install.pods()}


def stalled(estate: Estate, server: str) -> str:
    return str(estate.condition("aps", server, "Stalled").get("reason"))
