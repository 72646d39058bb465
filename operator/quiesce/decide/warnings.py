"""Warnings: what works now but can cost requests or servers later. Nothing waits for them to be resolved.

Each is at most one note, which its condition and its Event repeat.
"""

from quiesce.decide.group import GroupObservation
from quiesce.decide.observation import Observation
from quiesce.decide.podspec import admin_port
from quiesce.decide.probes import failing_probes
from quiesce.decide.proxies import proxies
from quiesce.model import names
from quiesce.model.plan import Note
from quiesce.model.resources import AppServer, ServerGroup

PROXIED = "Proxied"


def unsafe_probe(thing: AppServer | ServerGroup) -> Note | None:
    """Probes that a suspended server fails, reported before it is ever suspended."""
    spec, where = (thing.spec, "") if isinstance(thing, AppServer) else (thing.spec.template.spec, "spec.template.")
    return _note("FailsWhileSuspended", [where + message for message in failing_probes(spec)])


def proxied(o: Observation | GroupObservation) -> Note | None:
    """Proxies in the pods that requests pass on their way to the servers."""
    if isinstance(o, GroupObservation):
        known = (member.server.status.holding(PROXIED) for member in o.members)
        return _note("ServiceTargetsOtherContainer", list(dict.fromkeys(c.message for c in known if c)))
    known_before = o.server.status.holding(PROXIED)
    if known_before and not o.targets and not (o.pod and o.pod.holds("Ready") and o.pod.holds(names.GATE)):
        return Note(known_before.reason, known_before.message)  # no Service sends it any requests now
    port = admin_port(o.server, o.pod) if o.pod else None
    return _note("ServiceTargetsOtherContainer", proxies(o.pod, port, o.targets) if o.pod and port else ())


def _note(reason: str, messages: list[str] | tuple[str, ...]) -> Note | None:
    return Note(reason, "; ".join(messages)) if messages else None
