"""Events for people: what changed, and what they have to do (events.k8s.io/v1)."""

import logging
import secrets

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.model import names
from quiesce.model.plan import Note
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds, moment

NOTE_LIMIT = 1024  # of the API, in bytes

logger = logging.getLogger(__name__)


async def publish(cluster: Cluster, owner: AppServer | ServerGroup, note: Note, now: Seconds, instance: str) -> None:
    """Best effort: an Event that can't be written must not hold a drain up."""
    own = owner.metadata
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{own.name[:200]}.{secrets.token_hex(8)}", "namespace": own.namespace},
        "eventTime": moment(now).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "action": note.reason,
        "note": note.message.encode()[:NOTE_LIMIT].decode(errors="ignore"),
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": type(owner).__name__,
            "namespace": own.namespace,
            "name": own.name,
            "uid": own.uid,
        },
    }
    try:
        await cluster.create_event(event)
    except ClusterError as error:
        logger.warning("%s/%s: Event %s could not be written: %s", own.namespace, own.name, note.reason, error)
