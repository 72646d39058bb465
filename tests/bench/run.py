"""The run: a StatefulSet, a careful one, and Quiesce, one after the other on the same machine."""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pykube

from tests import audit, install
from tests.bench import report
from tests.bench.usage import Usage, usage
from tests.cluster.access import client, is_local
from tests.cluster.paths import PROJECT
from tests.estate import AS_SHIPPED, Estate, kubectl, wait
from tests.rolls import (
    AFTER_SECONDS,
    SERVERS,
    Roll,
    careful_native,
    native,
    removed,
    restart_server_group,
    roll_server_group,
    roll_stateful_set,
    server_group,
    stateful_set,
    step,
)

PLAIN_ROLLS = 3
CAREFUL_ROLLS = 1  # it takes more than twice as long as the others
SURGE_ROLLS = 3
REQUESTS = 10_000  # at least, through Quiesce's rolls
SUSPENDS = 50
PAUSE_SECONDS = (0.0, 1.0)  # random, so as not to keep step with a probe
QUIET_SECONDS = 60
MIB = 2**20
FILE, README = PROJECT / "out" / "bench.json", PROJECT / "README.md"


@dataclass(frozen=True)
class Phase:
    """A part of the run in which the operator is watched, for a number of rolled servers."""

    began: float
    ended: float
    before: Usage
    after: Usage

    @property
    def cpu_milliseconds(self) -> float:
        return 1000 * (self.after.cpu_seconds - self.before.cpu_seconds)

    @property
    def requests(self) -> audit.Requests:
        return audit.between(self.began, self.ended)


@dataclass(frozen=True)
class OfQuiesce:
    rolls: list[Roll]
    loaded: Phase
    idle: Phase
    quiet: Phase


def main() -> int:
    began = time.monotonic()
    with step("install the operator with Helm"):
        install.install()
    try:
        usage()  # whether it can be had, before a quarter of an hour has passed
        with stateful_set("plain", native()) as estate:
            plain = [roll_stateful_set(estate) for _ in range(PLAIN_ROLLS)]
        with stateful_set("careful", careful_native()) as estate:
            careful = [roll_stateful_set(estate) for _ in range(CAREFUL_ROLLS)]
        with server_group() as estate:
            quiesce = measure(estate)
        with server_group(max_surge=1) as estate:
            surge = [roll_server_group(estate) for _ in range(SURGE_ROLLS)]
        seconds = suspends()
        last = usage()
        took = time.monotonic() - began
    finally:
        with step("uninstall the operator"):
            wait("every server is gone", install.no_servers, 180)
            install.uninstall()
    figures: report.Figures = {
        "kubernetes": kubernetes(),
        "machine": machine(),
        "rolls": report.rolls({"plain": plain, "careful": careful, "quiesce": quiesce.rolls, "surge": surge}),
        "suspend": report.suspends(seconds),
        "requests": requests(quiesce) if is_local() else None,
        "operator": uses(quiesce, last, took),
    }
    tell(figures)
    return 1 if any(figures["rolls"][kind]["failed_requests"] for kind in ("quiesce", "surge")) else 0


def measure(estate: Estate) -> OfQuiesce:
    rolls: list[Roll] = []

    def rolls_under_load() -> None:
        while (sent := sum(roll.load.total for roll in rolls)) < REQUESTS:
            print(f"  {sent:,} of {REQUESTS:,} requests", flush=True)
            rolls.append(roll_server_group(estate))

    loaded = watched(rolls_under_load)
    with step("  its rolling restart, idle"):
        idle = watched(lambda: restart_idle(estate))
    with step("  a quiet minute"):
        quiet = watched(lambda: time.sleep(QUIET_SECONDS))
    return OfQuiesce(rolls, loaded, idle, quiet)


def restart_idle(estate: Estate) -> None:
    restart_server_group(estate)
    time.sleep(AFTER_SECONDS)  # what is written behind belongs to the roll


def watched(act: Callable[[], None]) -> Phase:
    before, began = usage(), time.time()
    act()
    return Phase(began, time.time(), before, usage())


def suspends() -> list[float]:
    """Idle servers with `preSuspendSeconds: 0` in turn, from annotation to condition, both as kubectl sees them."""
    taken: list[float] = []
    with Estate("suspend") as estate, removed(estate), step(f"{SUSPENDS} suspends of idle servers"):
        for name in SERVERS:
            estate.server(name, preSuspendSeconds=0, container=AS_SHIPPED)
        for name in SERVERS:
            estate.wait_state(name, "Running")
        while len(taken) < SUSPENDS:
            # In turn, because the kubelet is still busy for a while with a server that was resumed just now.
            name = SERVERS[len(taken) % len(SERVERS)]
            time.sleep(random.uniform(*PAUSE_SECONDS))
            began = time.monotonic()
            estate.annotate(f"aps/{name}", suspend="true")
            kubectl("-n", estate.namespace, "wait", "--for=condition=Suspended", f"aps/{name}", "--timeout=30s")
            taken.append(time.monotonic() - began)
            estate.annotate(f"aps/{name}", suspend=None)
            estate.wait_state(name, "Running")
            print(f"  {len(taken)} of {SUSPENDS}: {taken[-1]:.2f} s", flush=True)
    return taken


def requests(quiesce: OfQuiesce) -> dict[str, Any]:
    quiet = quiesce.quiet.requests
    return {
        "loaded_rolls": report.writes(quiesce.loaded.requests, len(quiesce.rolls) * len(SERVERS)),
        "idle_roll": report.writes(quiesce.idle.requests, len(SERVERS)),
        "quiet_minute": {"writes": quiet.writes.total(), "lists": quiet.lists.total()},
    }


def uses(quiesce: OfQuiesce, last: Usage, took: float) -> dict[str, Any]:
    rolled = len(quiesce.rolls) * len(SERVERS)
    quiet = quiesce.quiet.after
    readings = (quiesce.loaded.before, quiesce.loaded.after, quiesce.idle.after, quiet, last)
    return {
        "quiet_minute": {
            "working_set_mib": round(quiet.working_set_bytes / MIB, 1),
            "rss_mib": round(quiet.rss_bytes / MIB, 1),
            "cpu_milliseconds": round(quiesce.quiet.cpu_milliseconds),
        },
        "per_rolled_server": {
            "loaded_cpu_milliseconds": round(quiesce.loaded.cpu_milliseconds / rolled),
            "idle_cpu_milliseconds": round(quiesce.idle.cpu_milliseconds / len(SERVERS)),
        },
        "whole_run": {
            "seconds": round(took),
            "cpu_seconds": round(last.cpu_seconds, 1),
            "highest_working_set_mib": round(max(one.working_set_bytes for one in readings) / MIB, 1),
        },
    }


def kubernetes() -> str:
    version: str = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    return version.removeprefix("v")


def machine() -> str:
    nodes = [node.obj["status"]["capacity"]["cpu"] for node in pykube.Node.objects(client())]
    many = f"{report.in_words(len(nodes))} node{'s' if len(nodes) > 1 else ''}"
    if is_local():
        return f"{many} of one machine with {report.in_words(os.cpu_count() or 1)} cores"
    return f"{many} of {report.in_words(int(nodes[0]))} cores"


def tell(figures: report.Figures) -> None:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(figures, indent=2) + "\n")
    tables = report.tables(figures)
    print(f"\n{tables}\n\nThe figures are in {FILE.relative_to(PROJECT)}", end="")
    if figures["requests"] is None:
        print(". README keeps its own: without the local cluster's audit log the operator's requests aren't counted.")
        return
    text = report.replaced(README.read_text(), report.RESULT, report.result(figures))
    README.write_text(report.replaced(text, report.FIGURES, tables))
    print(" and in README.md.")
