"""Which cluster the tests may use, and a client for it.

Only the cluster of `local.py`, or, when CLUSTER=current says so, the one that the kubeconfig in use points to.
"""

import os
from pathlib import Path

import pykube
import requests

from tests.cluster import paths
from tests.cluster.steps import ClusterError


def is_local() -> bool:
    chosen = os.environ.get("CLUSTER") or "local"
    if chosen not in ("local", "current"):
        raise ClusterError(
            f"CLUSTER is `{chosen}`; it may be `local` (made here) or `current` (the kubeconfig in use)."
        )
    return chosen == "local"


def kubeconfig() -> Path:
    if is_local():
        file = paths.KUBECONFIG
        advice = "Run `make cluster` first."
    else:
        file = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config").expanduser()
        advice = "CLUSTER=current takes the file that KUBECONFIG names."
    if not file.is_file():
        raise ClusterError(f"There is no kubeconfig {file}. {advice}")
    return file


def client(file: Path | None = None) -> pykube.HTTPClient:
    return pykube.HTTPClient(pykube.KubeConfig.from_file(str(file or kubeconfig())), timeout=30)


def answers(api: pykube.HTTPClient) -> bool:
    """Whether the API server is ready."""
    try:
        return bool(api.session.get(f"{api.url}/readyz", timeout=5).ok)
    except requests.RequestException:
        return False


def delete_pod(pod: pykube.Pod, grace: int) -> None:
    """Deletes a pod with a grace period of its own, which pykube's `delete` can't give."""
    answer = pod.api.delete(**pod.api_kwargs(json={"gracePeriodSeconds": grace}))
    if answer.status_code != requests.codes.not_found:
        answer.raise_for_status()
