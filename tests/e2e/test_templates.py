"""A pod template as users write it: everything in it is kept, and drains work with it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import images
from tests.estate import API_VERSION, Estate, kubectl, wait

SERVES = 200
GATE = "example.com/registered"
REVISION = "quiesce.dev/template-hash"
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


def test_a_spread_counts_the_pods_of_one_revision_alone(estate: Estate) -> None:
    """The node of the first server may have one pod of each revision; without the label it would be full."""
    first = estate.get("pod", "one")
    assert first
    one_pod_a_node = {
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "maxSkew": 1,
        "minDomains": 2,
        "labelSelector": {"matchLabels": {"app": "shop"}},
        "matchLabelKeys": [REVISION],
    }
    fields = everything()
    fields["pod"] |= {
        "nodeSelector": {"kubernetes.io/hostname": first["spec"]["nodeName"]},
        "readinessGates": [],
        "topologySpreadConstraints": [one_pod_a_node],
    }
    estate.server("two", **fields)
    estate.wait_state("two", "Running")
    before, uid = revision(estate, "two"), estate.pod_uid("two")
    assert before != revision(estate, "one")
    estate.server("two", version=2, **fields)
    wait("another pod is there", lambda: estate.pod_uid("two") not in (uid, None), 30)
    assert revision(estate, "two") not in (before, revision(estate, "one"))
    estate.wait_state("two", "Running")


def test_a_server_has_the_template_of_its_group_whoever_changes_a_part_of_it(estate: Estate) -> None:
    estate.group("many", replicas=1, fields={"desiredState": "Stopped"}, **everything())

    def of_group() -> dict[str, Any]:
        return dict(fields_of(estate, "sg", "many")["template"]["spec"]["template"])

    def follows() -> bool:
        is_so = of_group() == fields_of(estate, "aps", "many-0")["template"]
        return bool(is_so and estate.condition("sg", "many", "Stalled")["status"] == "False")

    wait("it has the template", follows, 15)
    before = of_group()
    image = {"name": "wildfly", "image": "quiesce.local/wildfly:2"}
    part = {
        "apiVersion": API_VERSION,
        "kind": "ServerGroup",
        "metadata": {"name": "many", "namespace": estate.namespace},
        "spec": {"template": {"spec": {"template": {"spec": {"containers": [image]}}}}},
    }
    flags = ["--server-side", "--force-conflicts", "--field-manager=ci"]
    kubectl("apply", *flags, "-f", "-", stdin=json.dumps(part))
    before["spec"]["containers"][0] |= image
    assert of_group() == before
    wait("it has the image", follows, 15)
    for labels in ({"app": "shop"}, {"app": None}):  # a merge patch leaves an empty map
        patch = {"spec": {"template": {"spec": {"template": {"metadata": {"labels": labels}}}}}}
        estate.kubectl("patch", "sg/many", "--type=merge", "-p", json.dumps(patch))
        wait(f"it has the labels {labels}", follows, 15)
    added = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "BY_HAND"}}]
    estate.kubectl("patch", "aps/many-0", "--type=json", "-p", json.dumps(added))
    wait("what was added by hand is gone", follows, 15)


def revision(estate: Estate, pod: str) -> str:
    found = estate.get("pod", pod)
    assert found
    return str(found["metadata"]["labels"][REVISION])


def fields_of(estate: Estate, kind: str, name: str) -> dict[str, Any]:
    found = estate.get(kind, name)
    return dict(found["spec"]) if found else {}


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
