"""What a group wants: of each server, and how many of them."""

import msgspec

from quiesce.decide.budget import max_surge
from quiesce.decide.members import Member
from quiesce.decide.podspec import template_hash
from quiesce.decide.requests import aim_of
from quiesce.model import names
from quiesce.model.resources import AppServerSpec, ServerGroup

replace = msgspec.structs.replace


def target_spec(group: ServerGroup) -> AppServerSpec:
    """The spec that servers are to have: the group's, with the stamp of the last restart in the pod template."""
    spec, requested = group.spec.template.spec, group.status.restart_requested_at
    if requested is None:
        return spec
    metadata = spec.template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), names.RESTARTED_AT: requested.isoformat()}
    return replace(spec, template={**spec.template, "metadata": {**metadata, "annotations": annotations}})


def is_serving(member: Member, group: ServerGroup) -> bool:
    """Whether the server serves now and nothing that is already decided will take it out."""
    server = member.server
    return (
        member.serves
        and server.metadata.deletion_timestamp is None
        and server.status.state == "Running"
        and member.pod_is_current
        and not member.is_to_restart
        and aim_of(server, group).serve
    )


def is_updated(member: Member, group: ServerGroup) -> bool:
    return member.pod_has(template_hash(target_spec(group).template))


def servers_wanted(group: ServerGroup, members: tuple[Member, ...]) -> int:
    """`replicas`, and in a roll as many more as `maxSurge` allows: they come first, and go when all others serve.

    What is there beyond `replicas` stays until the rest of a roll is done, and is not made for anything but a roll.
    `members` are in the order of their ordinals.
    """
    replicas = group.spec.replicas
    limit = replicas + max_surge(group)
    kept = [member for member in members if not member.is_leaving(group)]
    first = kept[:replicas]
    if not all(is_updated(member, group) for member in first):
        return limit
    done = sum(is_serving(member, group) or not aim_of(member.server, group).serve for member in first)
    return replicas if done == replicas else max(replicas, min(len(kept), limit))
