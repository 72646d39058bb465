"""A group's own Services, and users' Services for its servers: what a withdrawal waits for."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.estate import Estate, Watcher, wait

PORTS = [{"name": "http", "port": 80, "targetPort": "http"}]
KEPT = {"service": {"ports": PORTS}}
LABELS = {"example.com/tier": "front"}
BALANCED = {
    "type": "LoadBalancer",
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Local",
    "ipFamilyPolicy": "SingleStack",
    "loadBalancerClass": "example.com/internal",
    "loadBalancerSourceRanges": ["10.0.0.0/8"],
}
SERVERS = {"web-0", "web-1"}
UNCONFIRMED_SECONDS = 30


@pytest.fixture(scope="module")
def web() -> Iterator[Estate]:
    with Estate("services") as estate:
        estate.group("web", replicas=2, fields=KEPT)
        estate.wait_ready("web", 2)
        yield estate


def test_a_group_keeps_two_services_as_it_made_them(web: Estate) -> None:
    assert web.endpoints("web") == SERVERS
    headless = web.get("svc", "web-headless")
    assert headless
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert {(pod["spec"]["hostname"], pod["spec"]["subdomain"]) for pod in web.pods("web").values()} == {
        (server, "web-headless") for server in SERVERS
    }
    web.kubectl("patch", "svc", "web", "-p", '{"spec": {"ports": [{"port": 80, "targetPort": 1}]}}')
    wait("its port is put back", lambda: [port["targetPort"] for port in spec(web)["ports"]] == ["http"], 10)
    web.kubectl("delete", "svc", "web-headless")
    wait("it is made again", lambda: web.get("svc", "web-headless"), 10)
    web.wait_serving(SERVERS, "web")


def test_a_pod_that_loses_its_labels_gets_them_back(web: Estate) -> None:
    pod = web.pod_uid("web-1")
    labels = {"managed", "server", "group", "serving", "template-hash"}
    web.kubectl("label", "pod", "web-1", *(f"quiesce.dev/{label}-" for label in labels))
    wait("they are back", lambda: labels <= own_labels(web, "web-1"), 15)
    web.wait_serving(SERVERS, "web")
    assert web.pod_uid("web-1") == pod
    assert web.state("web-1") == "Running"


def test_a_server_leaves_every_service_before_it_refuses_anything(web: Estate) -> None:
    """All but those that publish servers which are not ready: they are named, and not waited for."""
    web.service("other", app="web")
    web.service("peers", app="web", publishNotReadyAddresses=True)
    for service in ("other", "peers"):
        web.wait_serving(SERVERS, service)

    def look() -> tuple[str, bool]:
        state = web.state("web-1")  # before the endpoints: those can only be later
        return state, "web-1" in web.endpoints("web") | web.endpoints("other")

    with Watcher(look) as watcher:
        web.annotate("aps/web-1", suspend="true")
        web.wait_state("web-1", "Suspended", 15)
    assert not {("Suspending", True), ("Suspended", True)} & set(watcher.seen)
    assert web.endpoints("web") == web.endpoints("other") == {"web-0"}
    assert web.endpoints("peers") == SERVERS
    assert "peers" in web.status("web-1")["suspend"]["unconfirmable"]
    resume(web)
    web.wait_serving(SERVERS, "other")
    web.kubectl("delete", "svc", "other", "peers")


def test_a_withdrawal_that_a_service_does_not_confirm_is_reported_and_waited_for(web: Estate) -> None:
    """An EndpointSlice that no one updates."""
    pod = web.get("pod", "web-1")
    assert pod
    target = {"kind": "Pod", "name": "web-1", "namespace": web.namespace, "uid": pod["metadata"]["uid"]}
    web.apply(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "by-hand",
        metadata={"labels": {"kubernetes.io/service-name": "by-hand"}},
        addressType="IPv4",
        endpoints=[{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}, "targetRef": target}],
        ports=[{"port": 8080}],
    )
    time.sleep(1)  # the operator has seen it
    began = time.monotonic()
    web.annotate("aps/web-1", suspend="true")
    stalled = wait("it is told", lambda: unconfirmed(web), UNCONFIRMED_SECONDS + 15)
    assert "by-hand" in stalled["message"]
    assert time.monotonic() - began > UNCONFIRMED_SECONDS - 1
    assert web.state("web-1") == "PreSuspend"
    assert web.says("web-1") == "RUNNING"
    web.kubectl("delete", "endpointslice", "by-hand")
    web.wait_state("web-1", "Suspended", 15)
    assert not unconfirmed(web)
    resume(web)


def test_endpoints_without_a_pod_are_waited_for_by_their_address(web: Estate) -> None:
    """As a controller of its own writes them: it takes its time."""
    pod = web.get("pod", "web-1")
    assert pod

    def write(*, ready: bool) -> None:
        web.apply(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "by-hand",
            metadata={"labels": {"kubernetes.io/service-name": "by-hand"}},
            addressType="IPv4",
            endpoints=[{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": ready}}],
            ports=[{"port": 8080}],
        )

    write(ready=True)
    time.sleep(1)  # the operator has seen it
    with Watcher(lambda: web.state("web-1")) as states:
        web.annotate("aps/web-1", suspend="0")
        wait("it has left its other Services", lambda: "web-1" not in web.endpoints("web"), 10)
        time.sleep(4)  # more than its margin
        assert states.seen[-1] == "PreSuspend"
        assert web.says("web-1") == "RUNNING"
        write(ready=False)
        web.wait_state("web-1", "Suspended", 10)
    web.kubectl("delete", "endpointslice", "by-hand")
    resume(web)


def test_services_that_are_requested_no_more_are_deleted_and_nothing_else_is(web: Estate) -> None:
    before = web.uids("web")
    web.group("web", replicas=2)
    wait("they are gone", lambda: web.get("svc", "web") is None and web.get("svc", "web-headless") is None, 10)
    time.sleep(2)  # for a roll that would begin
    assert web.uids("web") == before
    web.group("web", replicas=2, fields=KEPT)
    web.wait_ready("web", 2)
    assert web.uids("web") == before


def test_a_kept_service_selects_what_it_is_to_select_and_nothing_less(web: Estate) -> None:
    web.kubectl("patch", "svc", "web", "--type=json", "-p", '[{"op": "add", "path": "/spec/selector/x", "value": "y"}]')
    own = {"quiesce.dev/group": "web", "quiesce.dev/serving": "true"}
    wait("its selector is put back", lambda: spec(web)["selector"] == own, 10)
    web.wait_serving(SERVERS, "web")


def test_a_kept_service_is_as_its_group_has_it_and_no_edit_lasts(web: Estate) -> None:
    before = web.uids("web")

    def is_as_asked() -> bool:
        found = web.get("svc", "web")
        return bool(
            found
            and found["metadata"]["labels"].items() >= LABELS.items()
            and found["spec"].items() >= BALANCED.items()
        )

    web.group("web", replicas=2, fields={"service": {"ports": PORTS, "labels": LABELS, **BALANCED}})
    wait("it has all of it", is_as_asked, 10)
    cluster = {"externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None"}
    edit = {"metadata": {"labels": dict.fromkeys(LABELS, "edited")}, "spec": cluster}
    for patch in (edit, {"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8", "0.0.0.0/0"]}}):
        web.kubectl("patch", "svc", "web", "-p", json.dumps(patch))
        wait("it is put back", is_as_asked, 10)
    web.group("web", replicas=2, fields=KEPT)
    wait("it is plain again", lambda: spec(web)["type"] == "ClusterIP", 10)
    assert spec(web).keys().isdisjoint({"externalTrafficPolicy", "loadBalancerClass", "loadBalancerSourceRanges"})
    assert spec(web)["sessionAffinity"] == "None"
    web.wait_ready("web", 2)
    assert web.uids("web") == before


def test_a_service_that_the_api_server_refuses_is_said_and_stops_nothing_else(web: Estate) -> None:
    (family,) = spec(web)["ipFamilies"]
    other = {"ports": PORTS, "ipFamilies": ["IPv6" if family == "IPv4" else "IPv4"]}
    web.group("web", replicas=1, fields={"service": other, "podDisruptionBudget": "None"})
    stalled = wait("the group says it", lambda: refused(web), 20)
    assert "Service web: " in stalled["message"]
    assert "ipFamilies" in stalled["message"]
    wait("its budget is gone", lambda: web.get("pdb", "web") is None, 10)
    wait("it is scaled down", lambda: web.get("aps", "web-1") is None, 40)
    web.wait_serving({"web-0"}, "web")
    web.group("web", replicas=2, fields=KEPT)
    web.wait_ready("web", 2)
    wait("nothing is complained of", lambda: not refused(web), 10)


def refused(estate: Estate) -> dict[str, Any]:
    condition = estate.condition("sg", "web", "Stalled")
    return condition if condition["status"] == "True" else {}


def own_labels(estate: Estate, pod: str) -> set[str]:
    found = estate.get("pod", pod)
    assert found
    return {key.removeprefix("quiesce.dev/") for key in found["metadata"]["labels"]}


def spec(estate: Estate) -> dict[str, Any]:
    found = estate.get("svc", "web")
    assert found
    return dict(found["spec"])


def resume(estate: Estate) -> None:
    estate.annotate("aps/web-1", suspend=None)
    estate.wait_ready("web", 2)


def unconfirmed(estate: Estate) -> dict[str, Any]:
    condition = estate.condition("aps", "web-1", "Stalled")
    return condition if condition.get("reason") == "WithdrawalUnconfirmed" else {}
