"""The next steps for a group: which servers exist, and which of them may be replaced now."""

from collections.abc import Iterator
from typing import Any

import msgspec

from quiesce.decide.budget import max_unavailable
from quiesce.decide.derived import derived
from quiesce.decide.kept import keep, selects_label_in
from quiesce.decide.members import UNREADY_SECONDS, Member, beyond, surplus, vacancies
from quiesce.decide.podspec import Revision, hash_of, owner_reference, template_hash
from quiesce.decide.refusal import Refusal
from quiesce.decide.requests import accepted_suspend, aim_of
from quiesce.decide.target import (
    flaw,
    flaw_of_group,
    has_same_pod,
    is_serving,
    servers_wanted,
    target_revision,
    target_spec,
)
from quiesce.model import names
from quiesce.model.objects import Kept
from quiesce.model.plan import Act, ApplyObject, ApplyServer, ConsumeAnnotation, DeleteObject, DeleteServer, Note
from quiesce.model.resources import AppServerSpec, ServerGroup
from quiesce.model.text import quoted
from quiesce.model.times import Seconds, moment

replace = msgspec.structs.replace

TAKEN = "exists and is not this group's: delete it, or rename the group"


class GroupObservation(msgspec.Struct, frozen=True):
    now: Seconds
    group: ServerGroup
    members: tuple[Member, ...] = ()  # in the order of their ordinals
    taken: frozenset[str] = frozenset()  # names that the group needs, of servers that are not its own
    going: frozenset[str] = frozenset()  # and of such ones that are being deleted, which it waits for
    kept: tuple[Kept, ...] = ()  # what it maintains besides its servers, as far as it exists
    refused: tuple[Refusal, ...] = ()  # acts that failed, or whose result someone else has changed
    labelled_for: Seconds | None = None  # for how long every pod with an open gate is known to have its label

    @property
    def stuck(self) -> dict[str, str]:
        """What has been failing for long enough to need attention, and why."""
        return {subject(refusal.act): refusal.message for refusal in self.refused if self.now >= refusal.stalls_at}


class GroupPlan(msgspec.Struct, frozen=True):
    """What to do, and what the group's status says in the meantime."""

    acts: tuple[Act, ...] = ()
    ready: int = 0
    updated: int = 0
    suspended: int = 0
    leaving: frozenset[str] = frozenset()  # servers that a scale-down removes
    waits_for: tuple[str, ...] = ()  # servers that a rollout, a start or a scale-down waits for
    held_by: tuple[str, ...] = ()  # servers whose suspension leaves a rollout no room
    stalled: tuple[tuple[str, str], ...] = ()  # servers that need help, and what they say
    restart_requested_at: Seconds | None = None
    wake: Seconds | None = None
    notes: tuple[Note, ...] = ()


def decide_group(o: GroupObservation) -> GroupPlan:
    """What to do now. Servers that serve are taken out only as far as `maxUnavailable` allows."""
    group, count = o.group, servers_wanted(o.group, o.members)
    leaving, free = surplus(group, o.members, count), vacancies(group, o.members, count)
    wanted = [m for m in o.members if m.name not in leaving]
    surge, updated = beyond(wanted, group.spec.replicas), target_revision(group)
    serving = {m.name for m in wanted if is_serving(m, group)}
    bad = flaw_of_group(group)
    plan = GroupPlan(
        ready=len(serving),
        updated=sum(m.pod_has(updated) for m in wanted if m.name not in surge),  # a surge is no server's update
        suspended=sum(m.server.status.state == "Suspended" for m in wanted),
        leaving=frozenset(leaving),
        waits_for=(
            *(m.name for m in o.members if m.name in leaving or not _settled(m, group, serving, updated)),
            *free,
        ),
        held_by=_held_by(o, wanted, serving, updated),
        stalled=(
            *((name, TAKEN) for name in sorted(o.taken)),
            *o.stuck.items(),
            *(((group.metadata.name, bad),) if bad else ()),
            *((m.name, message) for m in o.members if (message := _stalled(m)) and (message != bad)),
        ),
        wake=min(_wakes(o, wanted), default=None),
        notes=_complaints(group),
    )
    if group.metadata.deletion_timestamp:
        return plan  # the garbage collector deletes the servers; each drains
    acts = (
        *keep(group, o.kept, o.labelled_for),
        *_create(o, free, len(wanted)),
        *_updates(o, wanted, serving, surge),
        *_scale_down(o, leaving),
    )
    if names.RESTART not in group.metadata.annotations:
        return replace(plan, acts=acts)
    consume = ConsumeAnnotation(names.RESTART, group.metadata.annotations[names.RESTART])
    if any(refusal.act == consume for refusal in o.refused):
        # It is already recorded; only the annotation can't be removed.
        return replace(plan, acts=(*acts, consume))
    # The status that records it also reports the rollout that it starts.
    after = decide_group(replace(o, group=_restarted(group, o.now)))
    return replace(after, acts=(consume,), restart_requested_at=o.now)


def without_restart(o: GroupObservation) -> GroupPlan:
    """What to do while a restart can't be recorded: everything else; the request stays."""
    return decide_group(replace(o, group=_unasked(o.group)))


def _wakes(o: GroupObservation, wanted: list[Member]) -> Iterator[Seconds]:
    """How long until each change that is due and that no watch reports."""
    yield from (refusal.stalls_at - o.now for refusal in o.refused if o.now < refusal.stalls_at)
    for member in wanted:
        left = UNREADY_SECONDS - member.unready_for(o.now)
        if 0 < left < UNREADY_SECONDS:
            yield left
    if o.group.spec.service and (due := selects_label_in(o.group, o.kept, o.labelled_for)):
        yield due


def _restarted(group: ServerGroup, now: Seconds) -> ServerGroup:
    return replace(_unasked(group), status=replace(group.status, restart_requested_at=moment(now)))


def _unasked(group: ServerGroup) -> ServerGroup:
    annotations = {key: value for key, value in group.metadata.annotations.items() if key != names.RESTART}
    return replace(group, metadata=replace(group.metadata, annotations=annotations))


def names_to_fill(group: ServerGroup, members: tuple[Member, ...]) -> list[str]:
    return vacancies(group, members, servers_wanted(group, members))


def _create(o: GroupObservation, free: list[str], there: int) -> list[Act]:
    spec, replicas = target_spec(o.group), o.group.spec.replicas
    missing = [name for name in free if name not in o.taken | o.going]
    return [
        ApplyServer(_manifest(o.group, name, spec, surge=number >= replicas))
        for number, name in enumerate(missing, start=there)
    ]


def _updates(o: GroupObservation, wanted: list[Member], serving: set[str], surge: set[str]) -> list[Act]:
    """Updates of servers that differ from their desired spec, from the highest ordinal down.

    A template that can't be used for a pod isn't applied to a server that has a valid one: its pod could not be
    recreated. Changes that take no server out of service are made immediately: changes of servers that are out of
    service, and of everything but the pod template and the admin port. Other servers get a new template only if the
    budget has room, and `admin` with it.
    """
    target, updated = target_spec(o.group), target_revision(o.group)
    room, is_bad = _room(o.group, serving), bool(flaw_of_group(o.group))
    # Until a server has run with the template, the suspended servers are what one can return to.
    unproven = any(has_same_pod(m.server.spec, target) and not _has_run(m, updated) for m in wanted)
    proven = any(_has_run(m, updated) for m in wanted)
    acts: list[Act] = []
    for member in reversed(wanted):
        own, spec, is_surge = member.server.spec, target, member.name in surge
        # A server whose pod doesn't match its own spec has already been counted against the budget.
        is_out = member.is_out(o.now) or (_is_suspended(member, o.group) and not unproven)
        costs = member.pod_is_current and not member.is_to_restart and not is_out and not member.pod_has(updated)
        keeps = (costs and room <= 0) or (is_bad and not flaw(own))
        if keeps:
            # A port's name belongs to the template that defines it, and a Secret to the user that its pods have.
            spec = replace(spec, template=own.template, admin=own.admin)
        elif costs:
            room -= 1
        unproven |= not proven and (not keeps or has_same_pod(own, target))
        if member.server.metadata.deletion_timestamp is None and _differs(member, spec, o.group, surge=is_surge):
            acts.append(ApplyServer(_manifest(o.group, member.name, spec, surge=is_surge)))
    return acts


def _room(group: ServerGroup, serving: set[str]) -> int:
    """How many more may be taken out of service."""
    return len(serving) - (group.spec.replicas - max_unavailable(group))


def _is_suspended(member: Member, group: ServerGroup) -> bool:
    """Whether a server is suspended, or being suspended, and not about to return to service."""
    return member.server.status.suspend is not None and not aim_of(member.server, group).serve


def _held_by(o: GroupObservation, wanted: list[Member], serving: set[str], updated: Revision) -> tuple[str, ...]:
    is_held_up = any(m.name in serving and not m.pod_has(updated) for m in wanted) and _room(o.group, serving) <= 0
    return tuple(m.name for m in wanted if is_held_up and _is_suspended(m, o.group))


def _has_run(member: Member, wanted: Revision) -> bool:
    served = member.pod is not None and names.SERVED_CONTAINER in member.pod.metadata.annotations
    return member.pod_has(wanted) and (served or member.server.status.state == "Suspended")


def _scale_down(o: GroupObservation, leaving: set[str]) -> list[Act]:
    """Servers are first stopped, which can be undone, and then deleted."""
    acts: list[Act] = []
    for member in o.members:
        server = member.server
        if member.name not in leaving or server.metadata.deletion_timestamp:
            continue
        if server.spec.desired_state != "Stopped":
            spec = replace(server.spec, desired_state="Stopped")
            acts.append(ApplyServer(_manifest(o.group, member.name, spec, surge=member.is_surge)))
        elif member.pod is None:  # not by its status, which may be out of date
            acts.append(DeleteServer(member.name, server.metadata.uid))
    return acts


def _differs(member: Member, spec: AppServerSpec, group: ServerGroup, *, surge: bool) -> bool:
    applied, metadata = _metadata(group), member.server.metadata
    return (
        not _is_same(member.server.spec, spec)
        or member.is_surge != surge
        or metadata.owner is None  # orphaned by an earlier group of this name
        or not applied["labels"].items() <= metadata.labels.items()
        or not applied["annotations"].items() <= metadata.annotations.items()
    )


def _is_same(one: AppServerSpec, other: AppServerSpec) -> bool:
    """A large template is compared by its hash, which is known already."""
    if one.template is not other.template and hash_of(one) != hash_of(other):
        return False
    return replace(one, template=other.template) == other


@derived
def _metadata(group: ServerGroup) -> dict[str, dict[str, str]]:
    """Labels and annotations of the group's servers; the hash shows when one has been removed."""
    template = group.spec.template.metadata
    return {
        "labels": {**template.labels, names.SERVER_GROUP: group.metadata.name},
        "annotations": {**template.annotations, names.METADATA_HASH: template_hash(msgspec.to_builtins(template))},
    }


def _manifest(group: ServerGroup, name: str, spec: AppServerSpec, *, surge: bool) -> dict[str, Any]:
    own, metadata = group.metadata, _metadata(group)
    surges = {names.SURGE: "true"} if surge else {}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "AppServer",
        "metadata": {
            "name": name,
            "namespace": own.namespace,
            "labels": metadata["labels"],
            "annotations": {**metadata["annotations"], **surges},
            "finalizers": [names.FINALIZER],
            "ownerReferences": [owner_reference(group)],
        },
        "spec": _complete(spec),
    }


@derived
def _complete(spec: AppServerSpec) -> dict[str, Any]:
    """With all defaults: an apply doesn't overwrite what others set in fields that it omits."""
    written = msgspec.to_builtins(spec)
    return {
        "desiredState": spec.desired_state,
        "suspendTimeoutSeconds": spec.suspend_timeout_seconds,
        "preSuspendSeconds": spec.pre_suspend_seconds,
        "withdrawal": spec.withdrawal,
        **written,
        "admin": {"profile": spec.admin.profile, **written["admin"]},
    }


def _settled(member: Member, group: ServerGroup, serving: set[str], updated: Revision) -> bool:
    """Whether a server of the group is as the group wants it now."""
    if member.server.metadata.deletion_timestamp:
        return False  # it will be recreated
    if member.name in serving:
        return member.pod_has(updated)
    aim = aim_of(member.server, group)
    if aim.serve or (aim.keep and not member.pod_has(updated)):
        return False
    return member.server.status.state == ("Suspended" if aim.keep else "Stopped")


def _stalled(member: Member) -> str:
    """Why a server is stalled; empty if that was about a spec that has been changed since."""
    stalled, generation = member.server.status.holding("Stalled"), member.server.metadata.generation
    return stalled.message if stalled and stalled.observed_generation >= generation else ""


def _complaints(group: ServerGroup) -> tuple[Note, ...]:
    _, complaint = accepted_suspend(group.metadata, group.status.accepted_suspend)
    return (complaint,) if complaint else ()


def is_pending(o: GroupObservation, plan: GroupPlan) -> bool:
    """Whether anything is left to do besides what keeps failing."""
    stuck = o.stuck
    return any(subject(act) not in stuck for act in plan.acts)


def subject(act: Act) -> str:
    """What an act is about, for the message if it is refused."""
    match act:
        case ApplyServer(manifest):
            return str(manifest["metadata"]["name"])
        case ApplyObject(manifest):
            return f"{manifest['kind']} {manifest['metadata']['name']}"
        case DeleteObject(kind, name):
            return f"{kind} {name}"
        case DeleteServer(name):
            return name
        case ConsumeAnnotation(annotation, value):
            return f"{annotation}={quoted(value)}"
        case _:
            return type(act).__name__
