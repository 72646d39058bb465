"""What the operator asked of the API server, from the audit log of the local cluster."""

import json
from datetime import datetime
from typing import Any

from tests.cluster.paths import AUDIT_LOG
from tests.estate import OPERATOR_NAMESPACE

WRITES = ("create", "update", "patch", "delete")
ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:quiesce"


def entries(began: float, ended: float) -> list[dict[str, Any]]:
    """The operator's requests that came in between two moments."""
    found = (json.loads(line) for line in AUDIT_LOG.read_text().splitlines())
    return [
        entry
        for entry in found
        if entry["user"]["username"] == ACCOUNT
        and began <= datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp() <= ended
        and entry.get("objectRef")
    ]


def writes(began: float, ended: float, namespace: str = "") -> list[str]:
    """Its writes, refused ones too, Events and Leases aside: `patch pods status`; in one namespace if it is named."""
    written = []
    for entry in entries(began, ended):
        target = entry["objectRef"]
        elsewhere = namespace and target.get("namespace") != namespace
        if entry["verb"] in WRITES and not elsewhere and target.get("resource") not in ("events", "leases"):
            parts = (entry["verb"], target["resource"], target.get("subresource", ""))
            written.append(" ".join(part for part in parts if part))
    return written
