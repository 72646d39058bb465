"""Installs and operates the operator with Helm, as a platform team would."""

import json
import os
import signal
import subprocess
from typing import Any

from tests.cluster import images, processes
from tests.cluster.access import is_local, kubeconfig
from tests.cluster.paths import PROJECT
from tests.estate import OPERATOR_NAMESPACE, kubectl, wait

RELEASE = "quiesce"
SELECTOR = ("-l", "app.kubernetes.io/name=quiesce")
IMAGE = {"image.repository": "quiesce.local/operator", "image.tag": "dev", "image.pullPolicy": "IfNotPresent"}


def install(**values: str) -> None:
    """As users do it, into a namespace with the strictest level of Pod Security; `a__b` is the chart's value a.b."""
    # Helm installs a chart's CRDs once, and never upgrades them.
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(PROJECT / "crds"))
    (image,) = (archive for archive in images.archives() if images.OPERATOR in archive.references)
    # The tag stays the same: the stamp makes the Deployment start what was built last.
    chosen = {key.replace("__", "."): value for key, value in values.items()}
    given = {**IMAGE, "podAnnotations.build": image.stamp, **chosen}
    options = ["--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "90s"]
    metadata = {"name": OPERATOR_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    sets = [f"--set={key}={value}" for key, value in given.items()]
    _helm("upgrade", "--install", RELEASE, str(PROJECT / "charts" / "quiesce"), *options, *sets)
    # Helm waits for the new pods, and not for the old ones to end.
    replicas = int(given.get("replicas", "1"))
    wait("one of the new pods leads", lambda: len(pods()) == replicas and leader() in operator_pods(), 60)


def uninstall(*options: str) -> None:
    _helm("uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "60s", *options)


def pods() -> list[dict[str, Any]]:
    found = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", *SELECTOR, "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def operator_pods() -> list[str]:
    return [pod["metadata"]["name"] for pod in pods()]


def leader() -> str:
    """The pod that has the lease; empty while none has it."""
    holder = "jsonpath={.spec.holderIdentity}"
    return kubectl("-n", OPERATOR_NAMESPACE, "get", "lease", RELEASE, "--ignore-not-found", "-o", holder)


def no_servers() -> bool:
    return not json.loads(kubectl("get", "appservers", "--all-namespaces", "-o", "json"))["items"]


def kill() -> None:
    """End the operator's process without a warning; the kubelet starts another, which has its lease already."""
    if is_local():
        _kill(pods())
    else:
        _force_delete(pods())


def lose(name: str) -> None:
    """As if a pod's node were lost: no time to release the lease, and another pod in its place."""
    lost = [pod for pod in pods() if pod["metadata"]["name"] == name]
    if is_local():
        _kill(lost)  # first: the kubelet asks a deleted pod to end, and it would give the lease back
    _force_delete(lost)


def scale(replicas: int) -> None:
    kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/quiesce", f"--replicas={replicas}")
    if replicas:
        kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment/quiesce", "--timeout=60s")
        wait("a pod leads", lambda: leader() in operator_pods(), 60)
    else:
        wait("the operator is gone", lambda: not operator_pods(), 60)


def _kill(killed: list[dict[str, Any]]) -> None:
    for pod in killed:
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        for pid in processes.of_container(container):
            os.kill(pid, signal.SIGKILL)


def _force_delete(deleted: list[dict[str, Any]]) -> None:
    names = [pod["metadata"]["name"] for pod in deleted]
    kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


def _helm(*arguments: str) -> None:
    command = ["helm", "--kubeconfig", str(kubeconfig()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        raise RuntimeError(f"helm {arguments[0]}: {done.stderr.strip()}")
