"""Stand-ins for load balancers whose targets are not the ready endpoints.

A stand-in selects the targets; kube-proxy carries the requests to them: the targets are the endpoints
of a Service without a selector, in a namespace where no drain waits for them.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self

import pykube
import requests

from tests.cluster.load import service_url
from tests.estate import Estate, Manifest, Watcher, wait

SERVICE = "balancer"
LABELS = {"kubernetes.io/service-name": SERVICE}
HEALTH_TIMEOUT_SECONDS = 0.3


class Balancer:
    """Sends requests to this port of the addresses that `targets` returns, which is called ten times a second."""

    def __init__(self, estate: Estate, targets: Callable[[], frozenset[str]], port: int) -> None:
        self._estate = estate
        self._targets = targets
        self._port = port
        self._watcher = Watcher(targets, self._send_to)

    def __enter__(self) -> Self:
        self._estate.apply("v1", "Service", SERVICE, spec={"ports": [{"port": 80}]})
        wait("there are targets", self._targets, 30)
        self._watcher.__enter__()
        wait("they are known", lambda: self.targets, 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.__exit__()

    @property
    def targets(self) -> frozenset[str]:
        """The newest ones."""
        return self._watcher.seen[-1] if self._watcher.seen else frozenset()

    @property
    def url(self) -> str:
        return service_url(self._estate.namespace, SERVICE)

    def _send_to(self, targets: frozenset[str]) -> None:
        self._estate.apply(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            SERVICE,
            metadata={"labels": LABELS},
            addressType="IPv4",
            endpoints=[{"addresses": [address], "conditions": {"ready": True}} for address in sorted(targets)],
            ports=[{"port": self._port}],
        )


def with_ready_containers(estate: Estate, service: str) -> Callable[[], frozenset[str]]:
    """Every pod of a Service's EndpointSlices whose containers are ready, regardless of its gates and the endpoints."""

    def targets() -> frozenset[str]:
        pods = {pod.obj["metadata"]["uid"]: pod.obj for pod in pykube.Pod.objects(estate.api, estate.namespace)}
        found = (pods.get(endpoint["targetRef"]["uid"]) for endpoint in estate.every_endpoint(service))
        return frozenset(pod["status"]["podIP"] for pod in found if pod and _containers_are_ready(pod))

    return targets


def with_healthy_nodes(nodes: Mapping[str, str], port: int, threshold: int = 3) -> Callable[[], frozenset[str]]:
    """The nodes (their addresses) whose health check on this port has not failed so often in a row."""
    failed: Counter[str] = Counter()
    rounds = itertools.count()

    def targets() -> frozenset[str]:
        for address in nodes.values() if next(rounds) % 3 == 0 else ():
            failed[address] = 0 if _is_healthy(address, port) else failed[address] + 1
        return frozenset(address for address in nodes.values() if failed[address] < threshold)

    return targets


def _containers_are_ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "ContainersReady" and one["status"] == "True" for one in conditions)


def _is_healthy(address: str, port: int) -> bool:
    try:
        return requests.get(f"http://{address}:{port}/healthz", timeout=HEALTH_TIMEOUT_SECONDS).ok
    except requests.RequestException:
        return False
