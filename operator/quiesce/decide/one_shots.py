"""One-shot annotations: requests that are recorded in the status, and then removed from the object."""

import msgspec

from quiesce.decide.drain import ending, record
from quiesce.decide.observation import Observation
from quiesce.decide.requests import aim_of
from quiesce.model import names
from quiesce.model.plan import CheckTemplate, ConsumeAnnotation, Note, ServerPlan
from quiesce.model.resources import STAYS

replace = msgspec.structs.replace


def one_shots(o: Observation) -> list[ConsumeAnnotation]:
    """Those that are set. A restart comes first: if both are set, its drain is the one to force."""
    annotations = o.server.metadata.annotations
    return [ConsumeAnnotation(key, annotations[key]) for key in (names.RESTART, names.FORCE) if key in annotations]


def new_request(o: Observation, step: ServerPlan) -> ServerPlan | None:
    """The plan that records a request; `step` is what the server would do without it."""
    new = (asked for asked in one_shots(o) if not o.notes.has_taken_up(asked))
    plans = (_restart(o, asked) if asked.annotation == names.RESTART else _force(o, asked, step) for asked in new)
    return next((plan for plan in plans if plan), None)


def _restart(o: Observation, asked: ConsumeAnnotation) -> ServerPlan:
    if o.pod is None:
        return _nothing(o, asked, "no pod to restart", "the server has no pod")
    plan = _recorded(o, asked, "RestartRequested", "the pod will be replaced")
    return replace(plan, restart_pod_uid=o.pod.metadata.uid)


def _force(o: Observation, asked: ConsumeAnnotation, step: ServerPlan) -> ServerPlan | None:
    """None while a drain is about to begin: it was requested together with the force, which waits for it.

    If the server is to be stopped, the force is of the stop, and not of a suspend before it.
    """
    status, aim = o.server.status, aim_of(o.server, o.group)
    ends = ending(o, aim)
    if not (o.leaving or status.suspend) and (step.drain or isinstance(step.act, CheckTemplate)):
        return None
    if ends and step.act and step.drain and step.drain.scope in STAYS:
        return None
    is_idle = status.suspend is None or (ends is None and (aim.serve or status.state == "Suspended"))
    if is_idle and not o.leaving:
        return _nothing(o, asked, "no drain to force", "no drain is in progress")
    plan = _recorded(o, asked, "ForceRequested", "the drain is cut short")
    return replace(plan, drain=replace(record(o, ends or aim), forced=True))


def _recorded(o: Observation, asked: ConsumeAnnotation, reason: str, message: str) -> ServerPlan:
    status = o.server.status
    return ServerPlan(status.state or "Pending", reason, message, drain=status.suspend, act=asked)


def _nothing(o: Observation, asked: ConsumeAnnotation, message: str, why: str) -> ServerPlan:
    reason = "RestartRequested" if asked.annotation == names.RESTART else "ForceRequested"
    note = Note("NothingToDo", f"{asked.annotation}: {why}", warning=False)
    return replace(_recorded(o, asked, reason, message), notes=(note,))
