"""The next steps for a group: which servers there are, and which of them may be replaced now."""

import re
from typing import Any

import msgspec

from quiesce.decide.podspec import template_hash
from quiesce.decide.requests import accepted_suspend, aim_of
from quiesce.model import names
from quiesce.model.objects import Pod
from quiesce.model.plan import Act, ApplyServer, ConsumeAnnotation, DeleteServer, Note
from quiesce.model.resources import AppServer, AppServerSpec, ServerGroup
from quiesce.model.times import Seconds, seconds

replace = msgspec.structs.replace

# A server whose pod is not ready for so long is out of service; for less it may be a probe that was slow.
UNREADY_SECONDS = 30


class Member(msgspec.Struct, frozen=True):
    server: AppServer
    pod: Pod | None = None

    @property
    def name(self) -> str:
        return self.server.metadata.name

    @property
    def ordinal(self) -> int:
        return int(self.name.rsplit("-", 1)[1])

    @property
    def pod_is_current(self) -> bool:
        """Whether the pod is the one that the server's own spec asks for."""
        return self.pod is not None and self.pod_has(template_hash(self.server.spec.template))

    def pod_has(self, wanted: str) -> bool:
        return self.pod is not None and self.pod.metadata.annotations.get(names.TEMPLATE_HASH) == wanted

    @property
    def is_to_restart(self) -> bool:
        asked = names.RESTART in self.server.metadata.annotations
        return asked or (self.pod is not None and self.server.status.restart_pod_uid == self.pod.metadata.uid)

    def is_out(self, now: Seconds) -> bool:
        """Whether the server is out of service for more than a moment: taking it down takes nothing away."""
        if self.pod is None or self.pod.metadata.deletion_timestamp or self.server.status.suspend:
            return True
        served = self.pod.metadata.annotations.get(names.SERVED_CONTAINER)
        if not any(status.container_id == served for status in self.pod.status.container_statuses if served):
            return True
        return self.unready_for(now) >= UNREADY_SECONDS

    def unready_for(self, now: Seconds) -> Seconds:
        ready = self.pod.condition("Ready") if self.pod else None
        since = seconds(ready.last_transition_time) if ready and ready.status != "True" else None
        return 0 if since is None else now - since


class GroupObservation(msgspec.Struct, frozen=True):
    now: Seconds
    group: ServerGroup
    members: tuple[Member, ...] = ()  # in the order of their ordinals
    taken: frozenset[str] = frozenset()  # names that the group wants, of servers that are not its own
    refused: tuple[tuple[str, str], ...] = ()  # servers that the API server did not take as they were to be, and why


class GroupPlan(msgspec.Struct, frozen=True):
    """What to do, and what the group's status says meanwhile."""

    acts: tuple[Act, ...] = ()
    ready: int = 0
    updated: int = 0
    suspended: int = 0
    waits_for: tuple[str, ...] = ()  # servers that a roll, a start or a scale-down waits for
    stalled: tuple[tuple[str, str], ...] = ()  # servers that need help, and what they say
    restart_requested_at: Seconds | None = None
    wake: Seconds | None = None
    notes: tuple[Note, ...] = ()


def decide_group(o: GroupObservation) -> GroupPlan:
    """What to do now. Servers that serve are taken out only as far as `maxUnavailable` leaves room."""
    group = o.group
    wanted = [m for m in o.members if m.ordinal < group.spec.replicas]
    serving = {m.name for m in wanted if is_serving(m, group)}
    plan = GroupPlan(
        ready=len(serving),
        updated=sum(is_updated(m, group) for m in wanted),
        suspended=sum(m.server.status.state == "Suspended" for m in wanted),
        waits_for=(*(m.name for m in o.members if not _settled(m, group, serving)), *_missing(o)),
        stalled=(
            *((name, "exists and is not this group's: delete it, or rename the group") for name in sorted(o.taken)),
            *o.refused,
            *((m.name, message) for m in o.members if (message := _stalled(m))),
        ),
        wake=min(
            (left for m in wanted if 0 < (left := UNREADY_SECONDS - m.unready_for(o.now)) < UNREADY_SECONDS),
            default=None,
        ),
        notes=_complaints(group),
    )
    if group.metadata.deletion_timestamp:
        return plan  # the garbage collector deletes the servers; each drains
    if names.RESTART in group.metadata.annotations:
        return replace(plan, acts=(ConsumeAnnotation(names.RESTART),), restart_requested_at=o.now)
    return replace(plan, acts=(*_create(o), *_updates(o, wanted, serving), *_surplus(o)))


def is_serving(member: Member, group: ServerGroup) -> bool:
    """Whether the server serves now and nothing that is already decided will take it out."""
    server, pod = member.server, member.pod
    return (
        pod is not None
        and pod.metadata.deletion_timestamp is None
        and server.metadata.deletion_timestamp is None
        and pod.holds("Ready")
        and pod.holds(names.GATE)
        and server.status.state == "Running"
        and member.pod_is_current
        and not member.is_to_restart
        and aim_of(server, group).serve
    )


def is_updated(member: Member, group: ServerGroup) -> bool:
    return member.pod_has(template_hash(target_spec(group).template))


def target_spec(group: ServerGroup) -> AppServerSpec:
    """The spec that servers are to have: the group's, with the stamp of the last restart in the pod template."""
    spec, requested = group.spec.template.spec, group.status.restart_requested_at
    if requested is None:
        return spec
    metadata = spec.template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), names.RESTARTED_AT: requested.isoformat()}
    return replace(spec, template={**spec.template, "metadata": {**metadata, "annotations": annotations}})


def max_unavailable(group: ServerGroup) -> int:
    """As a count; a percentage is rounded down, and is one at least, as in a Deployment."""
    value = group.spec.strategy.rolling_update.max_unavailable
    if isinstance(value, int):
        return value
    return max(1, group.spec.replicas * int(re.sub("%$", "", value)) // 100)


def _missing(o: GroupObservation) -> list[str]:
    present = {m.name for m in o.members} | o.taken
    wanted = (f"{o.group.metadata.name}-{ordinal}" for ordinal in range(o.group.spec.replicas))
    return [name for name in wanted if name not in present]


def _create(o: GroupObservation) -> list[Act]:
    return [ApplyServer(_manifest(o.group, name, target_spec(o.group))) for name in _missing(o)]


def _updates(o: GroupObservation, wanted: list[Member], serving: set[str]) -> list[Act]:
    """Servers that are to be otherwise, the last first.

    What takes no server out of service is done at once: changes of servers that are out of it, and of all but the pod
    template. Other servers get a new template only as far as the budget has room.
    """
    room = len(serving) - (o.group.spec.replicas - max_unavailable(o.group))
    acts: list[Act] = []
    for member in reversed(wanted):
        own, spec = member.server.spec, target_spec(o.group)
        # One whose pod is not what its own spec asks for has had its share of the budget.
        costs = member.pod_is_current and not member.is_to_restart and not member.is_out(o.now)
        if costs and not member.pod_has(template_hash(spec.template)):
            if room > 0:
                room -= 1
            else:  # the port's name goes with the template that names it
                spec = replace(spec, template=own.template, admin=replace(spec.admin, port=own.admin.port))
        if member.server.metadata.deletion_timestamp is None and _differs(member, spec, o.group):
            acts.append(ApplyServer(_manifest(o.group, member.name, spec)))
    return acts


def _surplus(o: GroupObservation) -> list[Act]:
    """A scale-down: the servers are stopped first, which can be undone, and deleted once they are."""
    acts: list[Act] = []
    for member in o.members:
        server = member.server
        if member.ordinal < o.group.spec.replicas or server.metadata.deletion_timestamp:
            continue
        if server.spec.desired_state != "Stopped":
            spec = replace(server.spec, desired_state="Stopped")
            acts.append(ApplyServer(_manifest(o.group, member.name, spec)))
        elif server.status.state == "Stopped" and member.pod is None:
            acts.append(DeleteServer(member.name, server.metadata.uid))
    return acts


def _differs(member: Member, spec: AppServerSpec, group: ServerGroup) -> bool:
    applied, metadata = _metadata(group), member.server.metadata
    return (
        member.server.spec != spec
        or not applied["labels"].items() <= metadata.labels.items()
        or not applied["annotations"].items() <= metadata.annotations.items()
    )


def _metadata(group: ServerGroup) -> dict[str, dict[str, str]]:
    """Labels and annotations of the group's servers; the hash tells when one is no longer among them."""
    template = group.spec.template.metadata
    return {
        "labels": {**template.labels, names.SERVER_GROUP: group.metadata.name},
        "annotations": {**template.annotations, names.METADATA_HASH: template_hash(msgspec.to_builtins(template))},
    }


def _manifest(group: ServerGroup, name: str, spec: AppServerSpec) -> dict[str, Any]:
    own = group.metadata
    return {
        "apiVersion": names.API_VERSION,
        "kind": "AppServer",
        "metadata": {
            "name": name,
            "namespace": own.namespace,
            **_metadata(group),
            "finalizers": [names.FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": "ServerGroup",
                    "name": own.name,
                    "uid": own.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": msgspec.to_builtins(spec),
    }


def _settled(member: Member, group: ServerGroup, serving: set[str]) -> bool:
    """Whether a server is what the group wants of it now."""
    if member.ordinal >= group.spec.replicas:
        return False
    if member.name in serving:
        return is_updated(member, group)
    aim = aim_of(member.server, group)
    return not aim.serve and member.server.status.state == ("Suspended" if aim.keep else "Stopped")


def _stalled(member: Member) -> str:
    return next((c.message for c in member.server.status.conditions if c.type == "Stalled" and c.status == "True"), "")


def _complaints(group: ServerGroup) -> tuple[Note, ...]:
    _, complaint = accepted_suspend(group.metadata, group.status.accepted_suspend)
    return (complaint,) if complaint else ()
