"""A pod template as users write it: everything in it is kept, and drains work with it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import images
from tests.estate import Estate, kubectl, wait

SERVES = 200
GATE = "example.com/registered"
# What Pod Security `restricted` asks for.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SHARED = {"name": "shared", "mountPath": "/shared"}
NAP = {"preStop": {"sleep": {"seconds": 2}}}


def everything(lifecycle: dict[str, Any] = NAP) -> dict[str, Any]:
    """The arguments for a server with all of it: the server's container, and the pod around it."""
    check = "test -e /shared/prepared && test -e /settings/motd && exec /opt/wildfly/entrypoint.sh"
    container = {
        "command": ["sh", "-c", check],
        "lifecycle": lifecycle,
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "admin", "mountPath": "/etc/quiesce-admin", "readOnly": True},
            {"name": "settings", "mountPath": "/settings", "readOnly": True},
            SHARED,
        ],
    }
    sidecar = {
        "name": "sidecar",
        "image": images.PAUSE,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "securityContext": RESTRICTED,
    }
    prepare = {
        "name": "prepare",
        "image": images.WILDFLY,
        "imagePullPolicy": "IfNotPresent",
        "command": ["touch", "/shared/prepared"],
        "volumeMounts": [SHARED],
        "securityContext": RESTRICTED,
    }
    pod = {
        "readinessGates": [{"conditionType": GATE}],
        "initContainers": [sidecar, prepare],
        "securityContext": {"fsGroup": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {"name": "admin", "secret": {"secretName": "admin"}},
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "shared", "emptyDir": {}},
        ],
    }
    return {"container": container, "pod": pod}


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    with Estate("templates") as estate:
        kubectl("label", "namespace", estate.namespace, "pod-security.kubernetes.io/enforce=restricted")
        estate.apply("v1", "ConfigMap", "settings", data={"motd": "welcome"})
        estate.server("one", **everything())
        yield estate


def test_a_gate_of_ones_own_is_kept_and_waited_for(estate: Estate) -> None:
    wait("the server runs", lambda: holds(estate, "quiesce.dev/serving"), 60)
    time.sleep(2)  # in case the gate is opened by mistake
    assert estate.endpoints() == set()
    assert estate.condition("aps", "one", "Ready")["status"] == "False"
    register(estate)
    estate.wait_state("one", "Running", 10)
    estate.wait_serving({"one"})


def test_it_is_suspended_and_resumed_and_its_sidecar_is_left_alone(estate: Estate) -> None:
    sidecar = sidecar_id(estate)
    with estate.request("one", 5_000) as request:
        estate.annotate("aps/one", suspend="true")
        estate.wait_state("one", "Suspended", 20)
        assert request.result(1) == SERVES
    assert estate.endpoints() == set()
    estate.annotate("aps/one", suspend=None)
    estate.wait_state("one", "Running", 10)
    estate.wait_serving({"one"})
    assert sidecar_id(estate) == sidecar


def test_a_restart_drains_it_and_takes_no_longer_for_what_else_is_in_the_pod(estate: Estate) -> None:
    before = estate.pod_uid("one")
    with estate.request("one", 5_000) as request:
        estate.annotate("aps/one", restart="true")
        assert request.result(20) == SERVES
    wait("another pod is there", lambda: estate.pod_uid("one") not in (before, None), 15)
    wait("the server runs", lambda: holds(estate, "quiesce.dev/serving"), 90)
    register(estate)
    estate.wait_state("one", "Running", 10)
    assert estate.status("one")["lastDrain"]["outcome"] == "Drained"


def test_a_hook_of_ones_own_is_refused_with_its_name_and_the_server_serves_on(estate: Estate) -> None:
    before = estate.pod_uid("one")
    estate.server("one", **everything({"preStop": {"exec": {"command": ["sh", "-c", "deregister"]}}}))
    stalled = wait("it is told", lambda: refused(estate), 15)
    assert "containers[name=wildfly].lifecycle.preStop" in stalled["message"]
    assert estate.endpoints() == {"one"}
    assert estate.pod_uid("one") == before
    estate.server("one", **everything())
    wait("nothing is complained of", lambda: not refused(estate), 15)
    assert estate.pod_uid("one") == before


def register(estate: Estate) -> None:
    patch = {"status": {"conditions": [{"type": GATE, "status": "True"}]}}
    estate.kubectl("patch", "pod", "one", "--subresource=status", "--patch", json.dumps(patch))


def holds(estate: Estate, condition: str) -> bool:
    found = (estate.get("pod", "one") or {}).get("status", {}).get("conditions") or ()
    return any(one["type"] == condition and one["status"] == "True" for one in found)


def sidecar_id(estate: Estate) -> str:
    pod = estate.get("pod", "one")
    assert pod
    (found,) = (one for one in pod["status"]["initContainerStatuses"] if one["name"] == "sidecar")
    assert "running" in found["state"]
    return str(found["containerID"])


def refused(estate: Estate) -> dict[str, Any]:
    condition = estate.condition("aps", "one", "Stalled")
    return condition if condition.get("reason") == "BadTemplate" else {}
