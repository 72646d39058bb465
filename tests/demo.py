"""`make demo`: three WildFly servers are rolled under load, by a StatefulSet and by Quiesce; losses are counted."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pykube

from tests import install
from tests.cluster import local
from tests.cluster.access import is_local
from tests.cluster.load import Load, Result, service_url
from tests.cluster.paths import SOURCES
from tests.estate import Estate, Watcher, kubectl, wait

SERVERS = ("shop-0", "shop-1", "shop-2")
WARM_UP_SECONDS = 6
AFTER_SECONDS = 4


@dataclass(frozen=True)
class Roll:
    seconds: float
    load: Result


def main() -> int:
    with step("install the operator with Helm"):
        install.install()
    try:
        plain = roll_stateful_set()
        quiesce, cycle = roll_server_group()
    finally:
        with step("take everything down") if not os.environ.get("KEEP") else contextlib.nullcontext():
            if not os.environ.get("KEEP"):
                install.uninstall()
                if is_local():
                    local.down()
    tell(plain, quiesce, cycle)
    return 1 if quiesce.load.failed or cycle.failed else 0


def roll_stateful_set() -> Roll:
    """The baseline: the same image, rolled by Kubernetes alone."""
    with Estate("plain") as estate, removed(estate):
        with step("a plain StatefulSet of three WildFly servers"):
            manifest = (SOURCES / "manifests" / "native-statefulset.yaml").read_text()
            kubectl("-n", estate.namespace, "apply", "-f", "-", stdin=manifest)
            wait("the StatefulSet is ready", lambda: stateful_set_is_settled(estate), 120)
        with step("  its rolling restart, under load"):
            return roll(
                estate,
                "wildfly",
                lambda: kubectl("-n", estate.namespace, "rollout", "restart", "statefulset/wildfly"),
                lambda: wait("the roll is over", lambda: stateful_set_is_settled(estate), 180),
            )


def roll_server_group() -> tuple[Roll, Result]:
    with Estate("quiesce") as estate, removed(estate):
        with step("a ServerGroup of three WildFly servers"):
            estate.group("shop")
            estate.wait_ready("shop")
        with step("  its rolling restart, under load"):
            rolled = roll(
                estate,
                "shop",
                lambda: estate.annotate("sg/shop", restart="true"),
                lambda: wait_for_restart(estate),
            )
        print(kubectl("-n", estate.namespace, "get", "sg,aps"), flush=True)
        with step("  suspend and resume of shop-1 by kubectl annotate, under load"):
            return rolled, suspend_and_resume(estate)


def roll(estate: Estate, service: str, start: Callable[[], object], wait_for_end: Callable[[], object]) -> Roll:
    with Load(estate.namespace, service_url(estate.namespace, service)) as load:
        time.sleep(WARM_UP_SECONDS)
        began = time.monotonic()
        start()
        wait_for_end()
        seconds = time.monotonic() - began
        time.sleep(AFTER_SECONDS)
        return Roll(seconds, load.stop())


def wait_for_restart(estate: Estate) -> None:
    """Until every pod is another one and serves."""
    before = {name: estate.pod_uid(name) for name in SERVERS}

    def is_new(name: str) -> bool:
        return estate.pod_uid(name) not in (before[name], None)

    for name in reversed(SERVERS):
        wait(f"{name} is a new pod", lambda name=name: is_new(name), 120)  # type: ignore[misc]
        print(f"      {name} is replaced", flush=True)
    estate.wait_ready("shop")


def suspend_and_resume(estate: Estate) -> Result:
    with Load(estate.namespace, service_url(estate.namespace, "shop")) as load:
        time.sleep(AFTER_SECONDS)
        began = time.monotonic()

        def state() -> str:
            return estate.state("shop-1")

        with Watcher(state, lambda value: print(f"      {time.monotonic() - began:5.1f} s  {value}", flush=True)):
            print("      kubectl annotate aps/shop-1 quiesce.dev/suspend=true", flush=True)
            estate.annotate("aps/shop-1", suspend="true")
            estate.wait_state("shop-1", "Suspended")
            print("      kubectl annotate aps/shop-1 quiesce.dev/suspend-", flush=True)
            estate.annotate("aps/shop-1", suspend=None)
            estate.wait_ready("shop")
        time.sleep(AFTER_SECONDS)
        return load.stop()


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
    """The servers are gone before the next ones start: they would share two cores."""
    yield
    if not os.environ.get("KEEP"):
        kubectl("-n", estate.namespace, "delete", "statefulsets,servergroups,pods", "--all", "--now", "--timeout=60s")


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    print(f"{title} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - began:.0f} s", flush=True)


def tell(plain: Roll, quiesce: Roll, cycle: Result) -> None:
    rows: list[tuple[str, ...]] = [("", "requests", "failed", "kept-alive", "new conn.", "slow (5 s)", "roll")]
    for title, load, seconds in (
        ("StatefulSet, rolling restart", plain.load, plain.seconds),
        ("Quiesce, rolling restart", quiesce.load, quiesce.seconds),
        ("Quiesce, suspend and resume", cycle, None),
    ):
        failures = [
            f"{load.kinds[kind].failures} of {load.kinds[kind].requests}" for kind in ("kept-alive", "new", "slow")
        ]
        took = f"{seconds:.1f} s" if seconds else ""
        rows.append((title, str(load.total), str(load.failed), *failures, took))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    ratio = quiesce.seconds / plain.seconds
    lost = quiesce.load.failed + cycle.failed
    print(f"Quiesce lost {lost} requests; its roll took {ratio:.2f} times the StatefulSet's.")
    figures = {
        name: {
            "requests": load.total,
            "failed": load.failed,
            "kinds": {kind: {"requests": k.requests, "failed": k.failures} for kind, k in load.kinds.items()},
        }
        for name, load in (("statefulset", plain.load), ("quiesce", quiesce.load), ("suspendResume", cycle))
    }
    rolls = {"statefulset": round(plain.seconds, 1), "quiesce": round(quiesce.seconds, 1), "ratio": round(ratio, 2)}
    print(json.dumps({**figures, "rollSeconds": rolls}))


if __name__ == "__main__":
    sys.exit(main())
