"""Putting a service under load, and counting every request that failed.

A pod in the cluster runs fortio's server, and the API server's proxy carries our orders to it: a kubeconfig is enough.
Four kinds of client work at once: kept-alive connections, a new connection for each request, slow requests, and a few
kept-alive connections that pause between slow requests.
"""

import json
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pykube

from tests.cluster import images
from tests.cluster.access import client, delete_pod
from tests.cluster.steps import ClusterError

PORT = 8080
# A run without an end. Unless fortio gets a number of requests, it doesn't count the first one of each connection.
WITHOUT_END = 10**9
# What fortio logs when a kept-alive connection broke; it then sends the request again, which no counter shows.
RETRIED = "Closing dead socket"


@dataclass(frozen=True)
class Client:
    """A kind of client: how often it asks, on how many connections, for how long an answer."""

    rate: float
    connections: int
    milliseconds: int
    timeout: str
    reuse: bool


CLIENTS = {
    "kept-alive": Client(rate=60, connections=16, milliseconds=200, timeout="3s", reuse=True),
    "new": Client(rate=20, connections=8, milliseconds=200, timeout="3s", reuse=False),
    "slow": Client(rate=2, connections=12, milliseconds=5000, timeout="15s", reuse=False),
    # Each of three connections asks, gets its answer after 3 s, is idle for 1 s, and asks again.
    "pausing": Client(rate=0.75, connections=3, milliseconds=3000, timeout="15s", reuse=True),
}
# Few enough that a server has nothing active in the pauses: it is then suspended as soon as it may be.
FEW = ("pausing",)


@dataclass(frozen=True)
class Kind:
    """What became of one kind of client's requests."""

    requests: int
    codes: Mapping[int, int]  # HTTP status codes; -1 is a broken connection or a timeout
    retried: int  # broken connections that fortio covered up with a second try
    connections: int  # opened

    @property
    def failures(self) -> int:
        """Every answer but 200, and every broken connection."""
        return self.requests - self.codes.get(200, 0) + self.retried


@dataclass(frozen=True)
class Result:
    kinds: Mapping[str, Kind]
    seconds: float

    @property
    def total(self) -> int:
        return sum(kind.requests for kind in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(kind.failures for kind in self.kinds.values())

    def __str__(self) -> str:
        parts = [
            f"{name}: {kind.requests} requests, codes {dict(sorted(kind.codes.items()))}, {kind.retried} retried"
            for name, kind in self.kinds.items()
        ]
        return f"{self.failed} of {self.total} failed in {self.seconds:.0f} s ({'; '.join(parts)})"


class Load:
    """Load on `url` (without a query) from a pod in `namespace`, from start() to stop(), or for a `with` block.

    The pod runs on `node` if one is named: where a node is drained, name the other one. `clients` are the kinds that
    take part.
    """

    def __init__(self, namespace: str, url: str, node: str | None = None, clients: Sequence[str] = (*CLIENTS,)) -> None:
        self._namespace = namespace
        self._url = url
        self._node = node
        self._clients = clients
        self._api = client()
        self._pod: pykube.Pod | None = None
        self._runs: dict[str, tuple[int, str]] = {}
        self._started = 0.0
        self._result: Result | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when all clients are at work."""
        self._pod = pykube.Pod(self._api, _pod(self._namespace, self._node))
        self._pod.create()
        self._wait("the load pod answers", self._pod_answers, timeout=60)
        self._started = time.monotonic()
        for name in self._clients:
            reply = self._order("rest/run", _run(self._url, CLIENTS[name]))
            self._runs[name] = (reply["RunID"], reply["ResultID"])

    def stop(self) -> Result:
        """Ends the load; requests under way are waited for and count like all others."""
        if self._result is None:
            seconds = time.monotonic() - self._started
            self._order("rest/stop")
            self._wait("the last answers are in", lambda: not self._order("rest/status")["Statuses"], timeout=30)
            self._result = Result(self._count(), seconds)
            delete_pod(self._running_pod(), grace=0)
        return self._result

    def result(self) -> Result:
        if self._result is None:
            raise ClusterError("The load has no result before its end.")
        return self._result

    def _count(self) -> dict[str, Kind]:
        retried = self._retried()
        kinds = {}
        for name, (run, result) in self._runs.items():
            data = self._order(f"data/{result}.json")
            if data.get("error"):
                raise ClusterError(f"The load `{name}` didn't run: {data.get('message')} {data.get('exception')}")
            codes = {int(code): count for code, count in data["RetCodes"].items()}
            kinds[name] = Kind(sum(codes.values()), codes, retried[run], data["SocketCount"])
        return kinds

    def _retried(self) -> Counter[int]:
        """How often each run's requests were sent a second time."""
        counts: Counter[int] = Counter()
        for line in self._get("log").text.splitlines():
            if RETRIED in line:
                counts[json.loads(line)["run"]] += 1
        return counts

    def _pod_answers(self) -> bool:
        pod = self._running_pod()
        pod.reload()
        if pod.obj["status"]["phase"] in ("Failed", "Succeeded"):
            raise ClusterError(f"The load pod {pod.name} ended: {pod.obj['status']}")
        return bool(pod.ready)

    def _wait(self, what: str, true: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise ClusterError(f"After {timeout:.0f} s this isn't true yet: {what}.")
            time.sleep(0.1)

    def _order(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters or {})
        answer = self._get(f"proxy/fortio/{path}?{query}", name=f"{self._running_pod().name}:{PORT}")
        reply: dict[str, Any] = answer.json()
        return reply

    def _get(self, path: str, name: str | None = None) -> Any:
        url = f"pods/{name or self._running_pod().name}/{path}"
        answer = self._api.get(version="v1", namespace=self._namespace, url=url)
        answer.raise_for_status()
        return answer

    def _running_pod(self) -> pykube.Pod:
        if self._pod is None:
            raise ClusterError("The load hasn't been started.")
        return self._pod


def service_url(namespace: str, name: str, path: str = "/slow") -> str:
    """The URL of a Service by its address: the local cluster has no DNS."""
    service = pykube.Service.objects(client(), namespace=namespace).get_by_name(name)
    spec = service.obj["spec"]
    return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}{path}"


def _run(url: str, kind: Client) -> dict[str, str]:
    return {
        "url": f"{url}?ms={kind.milliseconds}",
        "qps": str(kind.rate),
        "c": str(kind.connections),
        "n": str(WITHOUT_END),
        "t": "on",
        "timeout": kind.timeout,
        # Spread evenly at first, then each at its own pace: otherwise all slow requests would start and end together.
        "uniform": "on",
        "jitter": "on",
        "connection-reuse": "" if kind.reuse else "1:1",
        "async": "on",
        "save": "on",
    }


def _pod(namespace: str, node: str | None) -> dict[str, Any]:
    container = {
        "name": "fortio",
        "image": images.FORTIO,
        "imagePullPolicy": "IfNotPresent",
        "args": ["server", "-data-dir", "/results", "-http-port", str(PORT)],
        "readinessProbe": {"httpGet": {"path": "/fortio/rest/status", "port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "results", "mountPath": "/results"}],
    }
    spec = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": "results", "emptyDir": {}}],
        **({"nodeName": node} if node else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "load-", "namespace": namespace, "labels": {"app": "load"}},
        "spec": spec,
    }
