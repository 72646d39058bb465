"""Rolling restarts of three WildFly servers, by a StatefulSet and by Quiesce, with and without load."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pykube

from tests.cluster.load import Load, Result, service_url
from tests.cluster.paths import SOURCES
from tests.estate import AS_SHIPPED, Estate, kubectl, wait

SERVERS = ("shop-0", "shop-1", "shop-2")
WARM_UP_SECONDS = 6
AFTER_SECONDS = 4
MANIFESTS = SOURCES / "manifests"


@dataclass(frozen=True)
class Roll:
    seconds: float
    load: Result


def native() -> str:
    """The manifest of the baseline: a StatefulSet as it is mostly written."""
    return (MANIFESTS / "native-statefulset.yaml").read_text()


def careful_native() -> str:
    """The manifest of what can be had without an operator."""
    return kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(MANIFESTS / "careful-native"))


@contextlib.contextmanager
def stateful_set(name: str, manifest: str) -> Iterator[Estate]:
    """Three servers, rolled by Kubernetes alone."""
    with Estate(name) as estate, removed(estate):
        with step(f"a {name} StatefulSet of three WildFly servers"):
            kubectl("-n", estate.namespace, "apply", "-f", "-", stdin=manifest)
            wait("the StatefulSet is ready", lambda: stateful_set_is_settled(estate), 120)
        yield estate


@contextlib.contextmanager
def server_group(max_surge: int = 0) -> Iterator[Estate]:
    with Estate("quiesce") as estate, removed(estate):
        surge = f", with maxSurge {max_surge}" if max_surge else ""
        with step(f"a ServerGroup of three WildFly servers{surge}"):
            estate.group("shop", max_surge=max_surge, container=AS_SHIPPED)
            estate.wait_ready("shop")
        yield estate


def roll_stateful_set(estate: Estate) -> Roll:
    return roll(estate, "wildfly", lambda: restart_stateful_set(estate))


def roll_server_group(estate: Estate) -> Roll:
    return roll(estate, "shop", lambda: restart_server_group(estate))


def roll(estate: Estate, service: str, restart: Callable[[], None]) -> Roll:
    with (
        step("  its rolling restart, under load"),
        Load(estate.namespace, service_url(estate.namespace, service)) as load,
    ):
        time.sleep(WARM_UP_SECONDS)
        began = time.monotonic()
        restart()
        seconds = time.monotonic() - began
        time.sleep(AFTER_SECONDS)
        return Roll(seconds, load.stop())


def restart_stateful_set(estate: Estate) -> None:
    kubectl("-n", estate.namespace, "rollout", "restart", "statefulset/wildfly")
    wait("the roll is over", lambda: stateful_set_is_settled(estate), 240)


def restart_server_group(estate: Estate) -> None:
    """Until every pod is another one and serves, and what a surge has made is gone."""
    before = {name: estate.pod_uid(name) for name in SERVERS}
    estate.annotate("sg/shop", restart="true")

    def is_new(name: str) -> bool:
        return estate.pod_uid(name) not in (before[name], None)

    for name in reversed(SERVERS):
        wait(f"{name} is a new pod", lambda name=name: is_new(name), 120)  # type: ignore[misc]
        print(f"      {name} is replaced", flush=True)
    wait("the roll is over", lambda: estate.condition("sg", "shop", "Progressing")["status"] == "False", 120)
    estate.wait_ready("shop")


def stateful_set_is_settled(estate: Estate) -> bool:
    found = pykube.StatefulSet.objects(estate.api, namespace=estate.namespace).get_by_name("wildfly").obj
    status = found.get("status") or {}
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("readyReplicas") == status.get("updatedReplicas") == len(SERVERS)
        and status.get("currentRevision") == status.get("updateRevision")
        and len(estate.endpoints("wildfly")) == len(SERVERS)
    )


@contextlib.contextmanager
def removed(estate: Estate) -> Iterator[None]:
    """The servers are gone before the next ones start: they would share the machine's cores."""
    yield
    kubectl(
        "-n", estate.namespace, "delete", "statefulsets,servergroups,appservers,pods", "--all", "--now", "--timeout=60s"
    )


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    print(f"{title} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - began:.0f} s", flush=True)
