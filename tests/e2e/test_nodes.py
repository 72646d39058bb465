"""Nodes that are drained for maintenance, and nodes that are lost, with the servers of two groups on them."""

import functools
import json
import time
from collections.abc import Iterator

import pykube
import pytest

from tests import install
from tests.cluster import access, local
from tests.cluster.load import Load, service_url
from tests.cluster.node import Node
from tests.estate import OPERATOR_NAMESPACE, Estate, Watcher, kubectl, wait

GROUPS = {"shop": 3, "cart": 2}
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


def spread_pod(group: str) -> dict[str, object]:
    """Servers on as many nodes as there are, and off a lost one at once."""
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
def test_servers_of_a_lost_node_come_back_when_it_is_known_not_to_run_them(estate: Estate) -> None:
    spread(estate)
    (lost,) = (node for node in local.NODES if node.name not in operator_nodes())
    there = {name: uid for group in GROUPS for name, uid in uids_on(estate, group, lost.name).items()}
    assert there
    lost.kill()
    try:
        wait("its loss is told", lambda: {stalled(estate, name) for name in there} == {"NodeLost"}, 60)
        for group, replicas in GROUPS.items():
            assert serving(estate, group) == replicas - len(uids_on(estate, group, lost.name))
        assert all(estate.pod_uid(name) == uid for name, uid in there.items())  # it may run there still
        kubectl("taint", "node", lost.name, OUT_OF_SERVICE)
        wait_ready(estate)
        assert all(node_of(estate, name) != lost.name for name in there)
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


def spread(estate: Estate) -> None:
    """Servers of each group on both nodes; the scheduler sees to it when one is made anew."""
    crowded = [group for group in GROUPS if len({p["spec"]["nodeName"] for p in estate.pods(group).values()}) == 1]
    before = {group: estate.pod_uid(f"{group}-0") for group in crowded}
    for group in crowded:
        estate.kubectl("delete", "pod", f"{group}-0", "--wait=false")
    wait(
        "others are there", lambda: all(estate.pod_uid(f"{group}-0") not in (before[group], None) for group in crowded)
    )
    wait_ready(estate)


def serving(estate: Estate, group: str) -> int:
    return len(estate.endpoints(group))


def nodes() -> set[str]:
    return {node.name for node in pykube.Node.objects(access.client())}


def node_of(estate: Estate, pod: str) -> str:
    found = estate.get("pod", pod)
    assert found
    return str(found["spec"]["nodeName"])


def uids_on(estate: Estate, group: str, node: str) -> dict[str, str]:
    pods = estate.pods(group).items()
    return {name: pod["metadata"]["uid"] for name, pod in pods if pod["spec"].get("nodeName") == node}


def operator_nodes() -> set[str]:
    found = json.loads(kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", *install.SELECTOR, "-o", "json"))
    return {pod["spec"]["nodeName"] for pod in found["items"]}


def stalled(estate: Estate, server: str) -> str:
    return str(estate.condition("aps", server, "Stalled").get("reason"))
