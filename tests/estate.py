"""A namespace with WildFly servers in a real cluster, seen through pykube: a client that the operator does not use."""

import contextlib
import json
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import pykube
import requests
from requests.auth import HTTPDigestAuth

from tests.cluster.access import client, kubeconfig

Manifest = dict[str, Any]
API_VERSION = "quiesce.dev/v1alpha1"
USERNAME, PASSWORD = "operator", "op3rator!"
KINDS = {
    "aps": (API_VERSION, "AppServer"),
    "sg": (API_VERSION, "ServerGroup"),
    "pod": ("v1", "Pod"),
    "svc": ("v1", "Service"),
    "pdb": ("policy/v1", "PodDisruptionBudget"),
    "hpa": ("autoscaling/v2", "HorizontalPodAutoscaler"),
}
OPERATOR_NAMESPACE = "quiesce-system"
POLL_SECONDS = 0.2
# Tests start some hundred servers on two cores. What is measured runs with the JVM's own defaults.
UNVERIFIED = "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
QUICK_START = {"name": "JAVA_OPTS_APPEND", "value": f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {UNVERIFIED}"}
AS_SHIPPED: Mapping[str, Any] = {"env": []}


def wait(what: str, condition: Callable[[], Any], timeout: float = 60) -> Any:
    """The condition's first true value; errors of requests are retried."""
    deadline, last = time.monotonic() + timeout, None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (requests.RequestException, pykube.exceptions.KubernetesError, KeyError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"after {timeout:g} s this is still not true: {what}; last seen: {last!r}")


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig()), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def server_spec(
    *,
    version: int = 1,
    port: str = "management",
    secret: str = "admin",
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Manifest:
    """The spec of an AppServer as a user would write it; with other fields of the container, of the pod, of its own."""
    server = {
        "name": "wildfly",
        "image": f"quiesce.local/wildfly:{version}",
        "imagePullPolicy": "IfNotPresent",
        "env": [QUICK_START],
        "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "management", "containerPort": 9990},
            {"name": "nobody", "containerPort": 9998},
        ],
        "readinessProbe": {"httpGet": {"path": "/health/ready", "port": "management"}, "periodSeconds": 2},
        "volumeMounts": [{"name": "admin", "mountPath": "/etc/quiesce-admin", "readOnly": True}],
        **(container or {}),
    }
    pod_spec = {
        "enableServiceLinks": False,
        "containers": [server],
        "volumes": [{"name": "admin", "secret": {"secretName": "admin"}}],
        **(pod or {}),
    }
    admin = {"profile": "wildfly", "port": port, "credentialsSecretRef": {"name": secret}}
    return {"admin": admin, "template": {"spec": pod_spec}, **spec}


class Estate:
    """One namespace, its Secret and its Service; gone with everything in it after the `with` block."""

    def __init__(self, name: str) -> None:
        self.namespace = f"{name}-{uuid.uuid4().hex[:6]}"
        self.api = client()

    def __enter__(self) -> Self:
        self.apply("v1", "Namespace", self.namespace, namespaced=False)
        self.secret("admin", USERNAME, PASSWORD)
        self.service("shop")
        return self

    def __exit__(self, *_: object) -> None:
        # The deletion of a namespace checks its pods again only after half of their grace periods.
        self.kubectl("delete", "servergroups,appservers", "--all", "--wait=false")
        kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    # What a user does.

    def apply(self, api_version: str, kind: str, name: str, *, namespaced: bool = True, **fields: Any) -> None:
        metadata = {"name": name, **fields.pop("metadata", {})}
        if namespaced:
            metadata["namespace"] = self.namespace
        manifest = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}
        kubectl("apply", "--server-side", "--field-manager=e2e", "-f", "-", stdin=json.dumps(manifest))

    def secret(self, name: str, username: str, password: str) -> None:
        self.apply("v1", "Secret", name, stringData={"username": username, "password": password})

    def service(self, name: str, *, app: str = "", **spec: Any) -> None:
        """A Service over the servers that have this `app` label; its own name's without one."""
        ports = [{"port": 80, "targetPort": "http"}]
        self.apply("v1", "Service", name, spec={"selector": {"app": app or name}, "ports": ports, **spec})

    def server(self, name: str, *, metadata: Mapping[str, Any] | None = None, **spec: Any) -> None:
        metadata = {"labels": {"app": "shop"}, **(metadata or {})}
        self.apply(API_VERSION, "AppServer", name, metadata=metadata, spec=server_spec(**spec))

    def group(
        self,
        name: str,
        *,
        replicas: int = 3,
        max_unavailable: int | str = 1,
        max_surge: int | str = 0,
        fields: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """`fields` are other ones of the group's spec; `spec` is the servers'."""
        template = {"metadata": {"labels": {"app": name}}, "spec": server_spec(**spec)}
        strategy = {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": max_unavailable, "maxSurge": max_surge},
        }
        own = {"replicas": replicas, "strategy": strategy, "template": template, **(fields or {})}
        self.apply(API_VERSION, "ServerGroup", name, spec=own)

    def kubectl(self, *arguments: str) -> str:
        return kubectl("-n", self.namespace, *arguments)

    def annotate(self, what: str, **annotations: str | None) -> None:
        """`what` is like `aps/shop-0`; None removes an annotation."""
        changes = [
            f"quiesce.dev/{key.replace('_', '-')}" + ("-" if value is None else f"={value}")
            for key, value in annotations.items()
        ]
        kubectl("-n", self.namespace, "annotate", "--overwrite", what, *changes)

    # The state of the cluster.

    def get(self, kind: str, name: str) -> Manifest | None:
        resource = pykube.object_factory(self.api, *KINDS[kind])
        found = resource.objects(self.api, namespace=self.namespace).get_or_none(name=name)
        return found.obj if found else None

    def status(self, server: str) -> Manifest:
        found = self.get("aps", server)
        return (found or {}).get("status") or {}

    def state(self, server: str) -> str:
        return str(self.status(server).get("state", ""))

    def condition(self, kind: str, name: str, condition: str) -> Manifest:
        found = ((self.get(kind, name) or {}).get("status") or {}).get("conditions") or ()
        return next((c for c in found if c["type"] == condition), {})

    def annotations(self, kind: str, name: str) -> Manifest:
        """The ones of `annotate`, by the keys that it takes."""
        found = (self.get(kind, name) or {})["metadata"].get("annotations", {})
        return {key.removeprefix("quiesce.dev/").replace("-", "_"): value for key, value in found.items()}

    def pod_uid(self, name: str) -> str | None:
        pod = self.get("pod", name)
        return None if pod is None else str(pod["metadata"]["uid"])

    def pods(self, group: str = "shop") -> dict[str, Manifest]:
        """The pods of a group's servers, by name."""
        found = pykube.Pod.objects(self.api, namespace=self.namespace).filter(selector={"quiesce.dev/group": group})
        return {pod.name: pod.obj for pod in found}

    def uids(self, group: str = "shop") -> dict[str, str]:
        return {name: str(pod["metadata"]["uid"]) for name, pod in self.pods(group).items()}

    def endpoints(self, service: str = "shop") -> set[str]:
        """The names of the pods that a Service sends requests to."""
        return {
            endpoint["targetRef"]["name"]
            for endpoint in self.every_endpoint(service)
            if endpoint["conditions"].get("ready") is not False
        }

    def every_endpoint(self, service: str = "shop") -> list[Manifest]:
        """What a Service's EndpointSlices have, ready or not."""
        selector = {"kubernetes.io/service-name": service}
        kind = pykube.object_factory(self.api, "discovery.k8s.io/v1", "EndpointSlice")
        slices = kind.objects(self.api, namespace=self.namespace).filter(selector=selector)
        return [endpoint for found in slices for endpoint in found.obj.get("endpoints") or ()]

    def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the Events about an object."""
        found = pykube.Event.objects(self.api, namespace=self.namespace).filter(
            field_selector={"involvedObject.name": name}
        )
        return [(event.obj["reason"], event.obj.get("message", "")) for event in found]

    def answer(self, pod: str, milliseconds: int = 0) -> int:
        """The status of a request to the server in a pod, without a Service."""
        url = f"pods/{pod}:8080/proxy/slow?ms={milliseconds}"
        got = self.api.get(version="v1", namespace=self.namespace, url=url, timeout=90)
        return int(got.status_code)

    @contextlib.contextmanager
    def request(self, pod: str, milliseconds: int) -> Iterator[Future[int]]:
        """A request in flight."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.answer, pod, milliseconds)
            wait("the request has reached the server", lambda: self.active(pod) > 0 or future.done(), 10)
            yield future

    def active(self, pod: str) -> int:
        """How many requests are active on the server in a pod."""
        with Management(self.namespace, pod) as management:
            address = [{"subsystem": "request-controller"}]
            return int(management("read-attribute", address=address, name="active-requests"))

    def says(self, pod: str) -> str:
        """The state that the server itself reports."""
        with Management(self.namespace, pod) as management:
            return str(management("read-attribute", name="suspend-state"))

    # What a test waits for. An Event follows the status with the same reason, endpoints follow the pod's condition.

    def wait_event(self, name: str, reason: str, words: str = "") -> None:
        """Until an object has an Event of this reason, with these words in it."""
        wait(
            f"{name} has an Event {reason} {words}",
            lambda: any(of == reason and words in message for of, message in self.events(name)),
            10,
        )

    def wait_serving(self, servers: set[str], service: str = "shop", timeout: float = 10) -> None:
        wait(f"{service} sends requests to {servers}", lambda: self.endpoints(service) == servers, timeout)

    def wait_state(self, server: str, state: str, timeout: float = 120) -> None:
        wait(f"{server} is {state}", lambda: self.state(server) == state, timeout)

    def wait_ready(self, group: str, replicas: int = 3, timeout: float = 180) -> None:
        def settled() -> bool:
            found = self.get("sg", group) or {}
            status = found.get("status") or {}
            return (
                status.get("observedGeneration") == found["metadata"]["generation"]
                and status.get("readyReplicas") == status.get("updatedReplicas") == replicas
                and len(self.endpoints(group)) == replicas
            )

        wait(f"{group} has {replicas} servers that serve and are up to date", settled, timeout)


class Management:
    """A server's management endpoint, through a port that kubectl forwards."""

    def __init__(self, namespace: str, pod: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        target = ["port-forward", f"pod/{pod}", f"{self._port}:9990"]
        command = ["kubectl", "--kubeconfig", str(kubeconfig()), "-n", namespace, *target]
        self._forward = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self) -> Self:
        assert self._forward.stdout
        self._forward.stdout.readline()  # "Forwarding from": the port is open
        return self

    def __exit__(self, *_: object) -> None:
        self._forward.terminate()
        self._forward.communicate()

    def __call__(self, operation: str, **parameters: Any) -> Any:
        answer = requests.post(
            f"http://127.0.0.1:{self._port}/management",
            json={"operation": operation, "address": [], **parameters},
            auth=HTTPDigestAuth(USERNAME, PASSWORD),
            timeout=15,
        )
        return answer.json().get("result")


class Watcher:
    """Polls something in the background, and keeps every value that differs from the previous one."""

    def __init__(self, look: Callable[[], Any], tell: Callable[[Any], None] | None = None) -> None:
        self.seen: list[Any] = []
        self._tell = tell
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(requests.RequestException, pykube.exceptions.KubernetesError):
                value = self._look()
                if not self.seen or self.seen[-1] != value:
                    self.seen.append(value)
                    if self._tell:
                        self._tell(value)
