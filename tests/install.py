"""Installing the operator with Helm, and looking after it as a platform team would."""

import json
import subprocess

from tests.cluster import images
from tests.cluster.access import kubeconfig
from tests.cluster.paths import PROJECT
from tests.estate import OPERATOR_NAMESPACE, kubectl, wait

RELEASE = "quiesce"
SELECTOR = ("-l", "app.kubernetes.io/name=quiesce")
IMAGE = {"image.repository": "quiesce.local/operator", "image.tag": "dev", "image.pullPolicy": "IfNotPresent"}


def install() -> None:
    # Helm installs a chart's CRDs once, and never upgrades them.
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(PROJECT / "crds"))
    (image,) = (archive for archive in images.archives() if images.OPERATOR in archive.references)
    # The tag stays the same: the stamp makes the Deployment start what was built last.
    values = [f"--set={key}={value}" for key, value in {**IMAGE, "podAnnotations.build": image.stamp}.items()]
    options = ["--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "90s"]
    _helm("upgrade", "--install", RELEASE, str(PROJECT / "charts" / "quiesce"), *options, *values)


def uninstall() -> None:
    _helm("uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "60s")


def operator_pods() -> list[str]:
    found = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", *SELECTOR, "-o", "json")
    return [pod["metadata"]["name"] for pod in json.loads(found)["items"]]


def no_servers() -> bool:
    return not json.loads(kubectl("get", "appservers", "--all-namespaces", "-o", "json"))["items"]


def kill() -> None:
    """End the operator's process without a warning; the Deployment starts another."""
    killed = operator_pods()
    kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", *killed, "--grace-period=0", "--force", "--wait=false")


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
