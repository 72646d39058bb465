"""The operator's requests to the API server, from the local cluster's audit log."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.cluster.control_plane import OPERATOR
from tests.cluster.paths import AUDIT_LOG

WRITES = ("create", "update", "patch", "delete", "deletecollection")
# Events report, and Leases show that the operator is alive: neither grows with what it does to servers.
ASIDE = ("events", "leases")


@dataclass(frozen=True)
class Requests:
    """Counted by verb and resource, like `patch appservers/status`; refused ones too."""

    writes: Counter[str]
    dry_runs: Counter[str]
    lists: Counter[str]


def between(began: float, ended: float, namespace: str = "") -> Requests:
    """From one time (`time.time()`) to another, which has passed; in one namespace if it is named."""
    time.sleep(max(0.0, ended + 1 - time.time()))  # requests are logged once they have been answered
    with AUDIT_LOG.open() as lines:
        return count((json.loads(line) for line in lines if OPERATOR in line), began, ended, namespace)


def count(entries: Iterable[Mapping[str, Any]], began: float, ended: float, namespace: str = "") -> Requests:
    writes: Counter[str] = Counter()
    dry_runs: Counter[str] = Counter()
    lists: Counter[str] = Counter()
    for entry in entries:
        target, verb = entry.get("objectRef") or {}, entry["verb"]
        at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
        if entry["user"]["username"] != OPERATOR or not began <= at < ended or target.get("resource") in ASIDE:
            continue
        if namespace and target.get("namespace") != namespace:
            continue
        name = f"{verb} {'/'.join(target[key] for key in ('resource', 'subresource') if target.get(key))}"
        if verb == "list":
            lists[name] += 1
        elif verb in WRITES and "dryRun=" in entry["requestURI"]:
            dry_runs[name] += 1
        elif verb in WRITES:
            writes[name] += 1
    return Requests(writes, dry_runs, lists)
