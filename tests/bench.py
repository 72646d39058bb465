"""`make bench`: how long an idle server takes from annotation to Suspended, and what a roll costs the API server."""

import json
import random
import statistics
import sys
import time
from datetime import datetime
from typing import Any

from tests import install
from tests.cluster.paths import AUDIT_LOG
from tests.estate import OPERATOR_NAMESPACE, Estate, kubectl, wait

TIMES = 50
IDLE_SECONDS = (2, 3)  # the kubelet is still busy with a server that was resumed just now
WRITES = ("create", "update", "patch", "delete")
ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:quiesce"
QUIET_SECONDS = 60


def main() -> int:
    install.install()
    with Estate("bench-suspend") as estate:
        seconds = suspends(estate)
    wait("every server is gone", install.no_servers, 180)
    with Estate("bench-roll") as estate:
        writes = roll_writes(estate)
        quiet = requests_since(time.time(), QUIET_SECONDS)
    wait("every server is gone", install.no_servers, 180)
    install.uninstall()
    print(
        json.dumps(
            {
                "annotationToSuspendedSeconds": {
                    "times": len(seconds),
                    "min": round(min(seconds), 2),
                    "median": round(statistics.median(seconds), 2),
                    "max": round(max(seconds), 2),
                },
                "writesPerRolledServer": writes,
                "quietMinute": quiet,
            }
        )
    )
    return 0


def suspends(estate: Estate) -> list[float]:
    """An idle server with `preSuspendSeconds: 0`, from annotation to condition, both as kubectl sees them."""
    estate.server("one", preSuspendSeconds=0)
    estate.wait_state("one", "Running")
    taken = []
    for number in range(TIMES):
        time.sleep(random.uniform(*IDLE_SECONDS))
        began = time.monotonic()
        estate.annotate("aps/one", suspend="true")
        kubectl("-n", estate.namespace, "wait", "--for=condition=Suspended", "aps/one", "--timeout=30s")
        taken.append(time.monotonic() - began)
        estate.annotate("aps/one", suspend=None)
        estate.wait_state("one", "Running")
        print(f"  {number + 1} of {TIMES}: {taken[-1]:.2f} s", file=sys.stderr, flush=True)
    return taken


def roll_writes(estate: Estate) -> dict[str, float]:
    """The operator's writes for one server of a roll of three, by resource; Events and Leases aside."""
    estate.group("shop")
    estate.wait_ready("shop")
    began = time.time()
    estate.annotate("sg/shop", restart="true")
    wait("the roll has begun", lambda: estate.condition("sg", "shop", "Progressing").get("status") == "True", 30)
    estate.wait_ready("shop", timeout=180)
    counts: dict[str, int] = {}
    for resource in written(began, time.time() + 1):
        counts[resource] = counts.get(resource, 0) + 1
    return {
        "total": round(sum(counts.values()) / 3, 1),
        **{name: round(count / 3, 1) for name, count in counts.items()},
    }


def requests_since(began: float, seconds: float) -> dict[str, int]:
    """What the operator asks of the API server while nothing happens."""
    time.sleep(max(0.0, began + seconds - time.time()))
    found = [entry for entry in audit(began, began + seconds) if entry["objectRef"].get("resource") != "events"]
    return {
        "writes": sum(entry["verb"] in WRITES for entry in found),
        "lists": sum(entry["verb"] == "list" for entry in found),
    }


def written(began: float, ended: float) -> list[str]:
    found = []
    for entry in audit(began, ended):
        target = entry["objectRef"]
        if "dryRun=" in entry["requestURI"]:  # which writes nothing
            continue
        if entry["verb"] in WRITES and target.get("resource") not in ("events", "leases"):
            parts = (entry["verb"], target["resource"], target.get("subresource", ""))
            found.append(" ".join(part for part in parts if part))
    return found


def audit(began: float, ended: float) -> list[dict[str, Any]]:
    entries = (json.loads(line) for line in AUDIT_LOG.read_text().splitlines())
    return [
        entry
        for entry in entries
        if entry["user"]["username"] == ACCOUNT
        and began <= datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp() <= ended
        and entry.get("objectRef")
    ]


if __name__ == "__main__":
    sys.exit(main())
