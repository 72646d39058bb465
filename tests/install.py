"""Installing the operator with Helm, and looking after it as a platform team would."""

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


def uninstall() -> None:
    _helm("uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "60s")


def pods() -> list[dict[str, Any]]:
    found = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=quiesce", "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def operator_pods() -> list[str]:
    return [pod["metadata"]["name"] for pod in pods()]


def lease() -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(kubectl("-n", OPERATOR_NAMESPACE, "get", "lease", RELEASE, "-o", "json"))["spec"]
    return spec


def no_servers() -> bool:
    return not json.loads(kubectl("get", "appservers", "--all-namespaces", "-o", "json"))["items"]


def kill() -> None:
    """End the operator's process without a warning; the kubelet starts another, which has its lease already."""
    if not is_local():
        force_delete(*operator_pods())
        return
    for pod in pods():
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        for pid in processes.of_container(container):
            os.kill(pid, signal.SIGKILL)


def force_delete(*names: str) -> None:
    """As if its node were lost: it leaves no time to release the lease."""
    kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


def scale(replicas: int) -> None:
    kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/quiesce", f"--replicas={replicas}")
    if replicas:
        kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment/quiesce", "--timeout=60s")
    else:
        wait("the operator is gone", lambda: not operator_pods(), 60)


def _helm(*arguments: str) -> None:
    command = ["helm", "--kubeconfig", str(kubeconfig()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        raise RuntimeError(f"helm {arguments[0]}: {done.stderr.strip()}")
