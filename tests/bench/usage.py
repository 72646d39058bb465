"""The resource usage of the operator's container, from its node's kubelet through the API server."""

from dataclasses import dataclass
from typing import Any

import pykube

from tests import install
from tests.cluster.access import client
from tests.estate import OPERATOR_NAMESPACE

CONTAINER = "operator"


@dataclass(frozen=True)
class Usage:
    cpu_seconds: float  # since the container's start
    working_set_bytes: int
    rss_bytes: int


def usage() -> Usage:
    api = client()
    name = install.leader()
    pod = pykube.Pod.objects(api, namespace=OPERATOR_NAMESPACE).get_by_name(name).obj
    # Without the option the kubelet also looks at file systems, which a cluster inside of another may not show it.
    url = f"nodes/{pod['spec']['nodeName']}/proxy/stats/summary?only_cpu_and_memory=true"
    answer = api.get(version="v1", url=url)
    answer.raise_for_status()
    return read(answer.json(), name)


def read(summary: dict[str, Any], pod: str) -> Usage:
    (found,) = (
        container
        for one in summary["pods"]
        if (one["podRef"]["namespace"], one["podRef"]["name"]) == (OPERATOR_NAMESPACE, pod)
        for container in one["containers"]
        if container["name"] == CONTAINER
    )
    memory = found["memory"]
    return Usage(found["cpu"]["usageCoreNanoSeconds"] / 1e9, memory["workingSetBytes"], memory["rssBytes"])
