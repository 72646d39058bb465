"""The desired state of a group: the spec of its servers, and their number."""

import msgspec

from quiesce.decide.budget import max_surge, max_unavailable
from quiesce.decide.derived import derived
from quiesce.decide.members import UNREADY_SECONDS, Member, beyond, ordinal_of
from quiesce.decide.podspec import BadTemplateError, Revision, build_pod, revision
from quiesce.decide.requests import aim_of
from quiesce.model import names
from quiesce.model.objects import OwnMetadata
from quiesce.model.resources import AppServer, AppServerSpec, ServerGroup
from quiesce.model.times import Seconds, seconds

replace = msgspec.structs.replace


@derived
def target_spec(group: ServerGroup) -> AppServerSpec:
    """The desired spec of the servers: the group's, with the time of the last restart in the pod template."""
    spec, requested = group.spec.template.spec, group.status.restart_requested_at
    if requested is None:
        return spec
    metadata = spec.template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), names.RESTARTED_AT: requested.isoformat()}
    return replace(spec, template={**spec.template, "metadata": {**metadata, "annotations": annotations}})


def target_revision(group: ServerGroup) -> Revision:
    """What the servers' pods are to be created from."""
    return revision(target_spec(group))


def has_same_pod(one: AppServerSpec, other: AppServerSpec) -> bool:
    """Whether a server keeps its pod when one spec replaces the other."""
    return revision(one) == revision(other)


@derived
def flaw(spec: AppServerSpec) -> str:
    """Why no pod can be created from a server's spec; empty if one can."""
    try:
        build_pod(AppServer(OwnMetadata(name=""), spec))
    except BadTemplateError as error:
        return str(error)
    return ""


def flaw_of_group(group: ServerGroup) -> str:
    """Why no pod can be created from the servers' desired spec."""
    found = flaw(target_spec(group))
    return f"spec.template.{found}" if found else ""


def is_serving(member: Member, group: ServerGroup) -> bool:
    """Whether the server serves now, and no decision already made takes it out of service."""
    return _serves(member, group) and member.pod_is_current and not member.is_to_restart


def _serves(member: Member, group: ServerGroup) -> bool:
    server = member.server
    return (
        member.serves
        and server.metadata.deletion_timestamp is None
        # If the status could never be written, or no server owns the pod yet, the pod alone decides.
        and (server.status.state in ("Running", None) or member.has_strange_pod)
        and aim_of(server, group).serve
    )


def servers_wanted(group: ServerGroup, members: tuple[Member, ...]) -> int:
    """`replicas`, and during a rollout up to `maxSurge` more: they start first, and go when all others serve.

    Existing servers beyond `replicas` stay until the rollout is complete; only a rollout creates them.
    """
    replicas, wanted = group.spec.replicas, target_revision(group)
    limit = replicas + max_surge(group)
    kept = [member for member in members if not member.is_leaving(group)]
    surge = beyond(kept, replicas)
    first = [member for member in kept if member.name not in surge]
    if any(member.pod and not member.pod_has(wanted) for member in first):
        return limit
    done = sum(is_serving(member, group) or not aim_of(member.server, group).serve for member in first)
    return replicas if done == replicas else max(replicas, min(len(kept), limit))


def is_dispensable(group: ServerGroup, others: tuple[Member, ...]) -> bool:
    """Whether a rollout continues without a surge server: the budget has room if all others serve that are to serve."""
    serve = sum(not other.is_surge and aim_of(other.server, group).serve for other in others)
    return serve > group.spec.replicas - max_unavailable(group)


def gives_way(group: ServerGroup, others: tuple[Member, ...], now: Seconds, *, refused: bool) -> bool:
    """Whether a surge server leaves the room for a pod to a server that lacks one: a quota may have room for only one.

    `refused`: whether the API server has rejected its pod. If so, it also waits for pods that are being deleted: their
    successors get their room.
    """

    def comes_first(other: Member) -> bool:
        if other.is_surge or not aim_of(other.server, group).keep:
            return False
        gone_at = seconds(other.pod.metadata.deletion_timestamp) if other.pod else now
        return other.pod is None or (refused and gone_at is not None and now < gone_at)

    return any(map(comes_first, others))


def has_room(group: ServerGroup, one: Member, others: tuple[Member, ...], now: Seconds) -> bool:
    """Whether a rollout may take a server out: enough of the others serve, or it has not served for a while itself.

    Others that serve and still have to be replaced count if their ordinal is lower: if all counted, several could be
    taken out at the same time; if none did, they would wait for each other.
    """
    if one.unready_for(now) >= UNREADY_SECONDS:
        return True
    ordinal = ordinal_of(one.name, group.metadata.name) or 0

    def counts(other: Member) -> bool:
        waits = other.ordinal < ordinal and not other.pod_is_current and _serves(other, group)
        return waits or is_serving(other, group)

    return sum(map(counts, others)) >= group.spec.replicas - max_unavailable(group)
