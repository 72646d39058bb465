"""Servers that can't be queried: this is reported where users look, and what serves keeps serving."""

import time
from typing import Any

from tests.cluster.load import Load, service_url
from tests.estate import PASSWORD, USERNAME, Estate, Management, Watcher, kubectl, wait


def test_wrong_credentials_are_named_and_fixed_in_the_secret(solo: Estate) -> None:
    solo.secret("wrong", USERNAME, "not it")
    solo.server("one", secret="wrong")
    stalled = wait("it is told", lambda: _told(solo, "AdminUnauthorized"), 60)
    assert "'wrong'" in stalled
    assert "401" in stalled
    wait("it needs a person by and by", lambda: _told(solo, "AdminUnauthorized", condition_type="Stalled"), 40)
    assert solo.state("one") == "Unknown"
    assert solo.endpoints() == set()  # it is unknown whether it runs
    solo.secret("wrong", USERNAME, PASSWORD)
    solo.wait_state("one", "Running", 30)
    solo.wait_serving({"one"})


def test_a_missing_or_half_filled_secret_is_named(solo: Estate) -> None:
    solo.server("one", secret="nowhere")
    assert "'nowhere'" in wait("it is told", lambda: _told(solo, "AdminMisconfigured"), 60)
    solo.apply("v1", "Secret", "nowhere", stringData={"username": USERNAME})
    wait("it is told", lambda: "lacks password" in _told(solo, "AdminMisconfigured"), 30)
    solo.secret("nowhere", USERNAME, PASSWORD)
    solo.wait_state("one", "Running", 30)


def test_an_admin_endpoint_that_is_down_takes_nothing_away_and_bounds_the_drain(solo: Estate) -> None:
    """Two servers serve; then nothing listens at the admin port any more.

    Only the pods of 0.1.0, which have no record of their Secret, are asked at another port of the spec.
    """
    solo.group("shop", replicas=2, suspendTimeoutSeconds=4, preSuspendSeconds=1)
    solo.wait_ready("shop", 2)
    solo.annotate("pod/shop-0", admin_secret=None)
    solo.annotate("pod/shop-1", admin_secret=None)
    with Load(solo.namespace, service_url(solo.namespace, "shop")) as load:
        solo.group("shop", replicas=2, suspendTimeoutSeconds=4, preSuspendSeconds=1, port="nobody")
        wait("it is told", lambda: _told(solo, "AdminUnreachable", "shop-0"), 60)
        assert solo.endpoints() == {"shop-0", "shop-1"}
        assert solo.state("shop-0") == "Running"
        time.sleep(3)
        load.stop()
    assert load.result().failed == 0, load.result()
    pod = solo.pod_uid("shop-1")
    kubectl("-n", solo.namespace, "delete", "pod", "shop-1", "--wait=false")
    wait("the pod's hold has ended", lambda: solo.pod_uid("shop-1") != pod, 90)
    solo.group("shop", replicas=2, suspendTimeoutSeconds=4, preSuspendSeconds=1)
    solo.wait_ready("shop", 2)


def test_a_template_that_can_not_become_a_pod_takes_no_server_down(solo: Estate) -> None:
    solo.group("shop", replicas=1)
    solo.wait_ready("shop", 1)
    pod = solo.pod_uid("shop-0")
    group = solo.get("sg", "shop")
    assert group
    spec = group["spec"]["template"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "much"}}
    group["spec"]["template"]["spec"] = spec
    solo.apply("quiesce.dev/v1alpha1", "ServerGroup", "shop", spec=group["spec"])
    said = wait("the API server's words are told", lambda: _told(solo, "CheckTemplateRefused", "shop-0"), 30)
    assert "much" in said or "quantit" in said.lower()
    container["resources"] = {}
    container["imagePulPolicy"] = "Always"
    solo.apply("quiesce.dev/v1alpha1", "ServerGroup", "shop", spec=group["spec"])
    wait("a misspelt field is told", lambda: "imagePulPolicy" in _told(solo, "CheckTemplateRefused", "shop-0"), 30)
    assert solo.pod_uid("shop-0") == pod
    assert solo.endpoints() == {"shop-0"}
    solo.group("shop", replicas=1, version=2)
    wait("the mended template is rolled out", lambda: solo.pod_uid("shop-0") not in (pod, None), 60)
    solo.wait_ready("shop", 1)
    pod = solo.pod_uid("shop-0")
    solo.group("shop", replicas=1, version=2, port="nowhere")
    wait("a port that there is not is told", lambda: "'nowhere'" in _told(solo, "BadTemplate", "shop-0", "Stalled"), 30)
    wait("and by the group", lambda: "'nowhere'" in solo.condition("sg", "shop", "Stalled")["message"], 10)
    assert solo.endpoints() == {"shop-0"}
    kubectl("-n", solo.namespace, "delete", "pod", "shop-0")
    wait("the pod comes back", lambda: solo.pod_uid("shop-0") not in (pod, None), 10)
    wait("it serves", lambda: solo.endpoints() == {"shop-0"}, 60)
    solo.group("shop", replicas=1, version=2)
    wait("nothing is stalled", lambda: solo.condition("sg", "shop", "Stalled")["status"] == "False", 20)
    wait("nor is the server", lambda: solo.condition("aps", "shop-0", "Stalled")["status"] == "False", 20)


def test_a_quota_takes_no_server_down_for_a_pod_that_it_would_reject(solo: Estate) -> None:
    """It has room for the existing pod, or one of the same size in its place, and for no larger one."""
    solo.apply("v1", "ResourceQuota", "memory", spec={"hard": {"requests.memory": "256Mi"}})
    solo.apply("v1", "ResourceQuota", "pods", spec={"hard": {"pods": "1"}})
    solo.group("shop", replicas=1, container=_requests("256Mi"))
    solo.wait_ready("shop", 1)
    pod = solo.pod_uid("shop-0")
    for attempt in ("256Mi of two quotas that are full", "each of which may be the one that is named"):
        solo.group("shop", replicas=1, container=_requests("300Mi") | {"env": [{"name": "ATTEMPT", "value": attempt}]})
        said = wait("it is told", lambda: _told(solo, "CheckTemplateRefused", "shop-0"), 30)
        assert "quota memory: requests.memory=300Mi is needed, and others use 0 of 256Mi" in said
    time.sleep(3)
    assert solo.pod_uid("shop-0") == pod
    assert solo.endpoints() == {"shop-0"}
    solo.group("shop", replicas=1, version=2, container=_requests("256Mi"))
    wait("a pod of the same size is rolled out", lambda: solo.pod_uid("shop-0") not in (pod, None), 60)
    solo.wait_ready("shop", 1)


def _requests(memory: str) -> dict[str, Any]:
    return {"resources": {"requests": {"memory": memory}}}


def test_a_server_in_admin_only_mode_gets_no_requests_and_leaves_without_a_drain(solo: Estate) -> None:
    """It boots like images that configure themselves with a script, which then reloads the server."""
    with Watcher(lambda: _gate(solo)) as gate:
        solo.server("one", container={"args": ["--admin-only"]}, suspendTimeoutSeconds=-1)
        wait("it says what it waits for", lambda: "ADMIN_ONLY" in _waits_for(solo), 60)
        assert solo.state("one") == "Starting"
        time.sleep(2)
        assert set(gate.seen) <= {"", "False"}
    with Management(solo.namespace, "one") as management:
        management("reload")
    solo.wait_state("one", "Running", 30)
    solo.wait_serving({"one"})
    with Management(solo.namespace, "one") as management:
        management("reload", **{"admin-only": True})
    wait("the gate is closed", lambda: _gate(solo) == "False", 30)
    assert solo.state("one") == "Starting"
    pod = solo.pod_uid("one")
    kubectl("-n", solo.namespace, "delete", "pod", "one", "--wait=false")
    wait("the pod is gone long before the end of its hold", lambda: solo.pod_uid("one") != pod, 30)


def _gate(estate: Estate) -> str:
    pod = estate.get("pod", "one") or {}
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((str(c["status"]) for c in conditions if c["type"] == "quiesce.dev/serving"), "")


def _waits_for(estate: Estate) -> str:
    return str(estate.condition("aps", "one", "Progressing").get("message"))


def _told(estate: Estate, reason: str, server: str = "one", condition_type: str = "Progressing") -> str:
    condition = estate.condition("aps", server, condition_type)
    return str(condition["message"]) if condition.get("reason") == reason else ""
