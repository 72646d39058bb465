"""Reconciling one group: observe, decide, write the status, act."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import Cluster, ClusterError
from quiesce.cluster.world import World
from quiesce.control.events import Recorder
from quiesce.control.queue import FIRST_RETRY_SECONDS, back_off
from quiesce.control.refusals import refused
from quiesce.decide.group import (
    TAKEN,
    GroupObservation,
    GroupPlan,
    decide_group,
    is_pending,
    names_to_fill,
    subject,
    without_restart,
)
from quiesce.decide.kept import is_so
from quiesce.decide.members import Member, ordinal_of
from quiesce.decide.podspec import headless_name
from quiesce.decide.refusal import Refusal
from quiesce.decide.status import NAMED, group_due, group_events, group_status, status_refused
from quiesce.model import names
from quiesce.model.objects import Kept, is_same
from quiesce.model.plan import (
    DISRUPTIVE,
    Act,
    ApplyObject,
    ApplyServer,
    ConsumeAnnotation,
    DeleteObject,
    DeleteServer,
)
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds

TAKEN_RETRY_SECONDS = 10.0
# Acts of a group that are left over when webhooks or the API server are slow to refuse wait for the next reconcile.
TURN_SECONDS = 5.0
# If writing the status fails without a refusal, it is tried so often before the reconcile continues without it.
UNANSWERED_STATUS_TRIES = 3
# An apply doesn't remove what others have added.
EDITED = (
    "differs from what was applied: undo what someone else has changed in it, "
    "or exempt it from the webhook that changes it"
)

logger = logging.getLogger(__name__)


class Groups:
    def __init__(self, cluster: Cluster, world: World, clock: Clock, events: Recorder) -> None:
        self._cluster = cluster
        self._world = world
        self._clock = clock
        self._events = events
        self._refused: dict[tuple[str, str], dict[str, Refusal]] = {}  # for each group, by what is refused
        self._written: dict[tuple[str, str], Seconds] = {}
        # Statuses that could not be written: how often in a row, and when they are retried.
        self._unwritten: dict[tuple[str, str], tuple[int, Seconds]] = {}
        self._labelled_at: dict[tuple[str, str], Seconds] = {}  # since when all pods are known to have their label

    async def reconcile(self, namespace: str, name: str) -> Seconds | None:
        group = self._world.groups.get((namespace, name))
        if group is None:
            self._refused.pop((namespace, name), None)
            self._written.pop((namespace, name), None)
            self._unwritten.pop((namespace, name), None)
            self._labelled_at.pop((namespace, name), None)
            return None
        observation = self._observe(group)
        plan = decide_group(observation)
        if any(isinstance(act, DISRUPTIVE) for act in plan.acts):
            live = await self._look_live(group)
            if live is None:
                return 0
            observation = self._observe(live)
            plan = decide_group(observation)
        if not is_pending(observation, plan):
            self._world.taken_up[namespace, name] = observation.group.metadata.generation
        if not plan.acts or plan.restart_requested_at is not None or observation.refused:
            # Otherwise, it is written afterwards: a server that is taken out now need not be counted as serving.
            observation, plan = await self._tell(observation, plan)
        before = self._refused.get((namespace, name), {})
        failed, is_done = await self._act(observation.group, plan.acts, before)
        self._refused[namespace, name] = failed
        if failed.keys() != before.keys() or not is_done:
            return 0  # to report it, or to continue
        if failed:
            retry_in = min(refusal.retry_at for refusal in failed.values()) - self._clock.tick()
            return max(0.0, min(retry_in, math.inf if plan.wake is None else plan.wake))
        if observation.taken | observation.going and not plan.acts:
            return TAKEN_RETRY_SECONDS  # no watch reports when such a name is free again
        return 0 if plan.acts else plan.wake

    async def _act(
        self, group: ServerGroup, acts: Sequence[Act], before: Mapping[str, Refusal]
    ) -> tuple[dict[str, Refusal], bool]:
        """What has failed, and whether everything that was due has been tried.

        An object for which the API server fails must not keep the others from being created.
        """
        ends_at, failed, is_done = self._clock.tick() + TURN_SECONDS, dict[str, Refusal](), True

        def due_at(act: Act) -> Seconds:
            known = before.get(subject(act))
            return known.retry_at if known and known.act == act else 0.0

        for act in sorted(acts, key=due_at):  # new acts don't wait for those that fail again
            name, now = subject(act), self._clock.tick()
            known, is_due = before.get(name), now >= due_at(act)
            if is_due and now < ends_at:
                known = await self._try(group, act, known)
            elif is_due:
                is_done = False
            if known:
                failed[name] = known
        in_order = {name: failed[name] for name in map(subject, acts) if name in failed}
        return in_order, is_done

    async def _try(self, group: ServerGroup, act: Act, before: Refusal | None) -> Refusal | None:
        try:
            await self._do(group, act)
        except ClusterError as error:
            if isinstance(act, ConsumeAnnotation) and error.status == HTTPStatus.CONFLICT:
                live = await self._look_at_group(group)
                if live is None or live.metadata.resource_version != group.metadata.resource_version:
                    return None  # decide again from what is there now
            logger.warning("%s/%s: %s: %s", *group.metadata.key, subject(act), error)
            same = before if before and before.act == act else None
            return refused(act, error, same, self._clock.tick())
        return None

    def _observe(self, group: ServerGroup) -> GroupObservation:
        own = group.metadata
        members = members_of(self._world, group)
        free = names_to_fill(group, members)
        others = [other for name in free if (other := self._world.servers.get((own.namespace, name)))]
        going = frozenset(other.metadata.name for other in others if other.metadata.deletion_timestamp)
        failed = self._refused.get((own.namespace, own.name), {})
        return GroupObservation(
            now=self._clock.now(),
            group=group,
            members=members,
            taken=frozenset(other.metadata.name for other in others) - going,
            going=going,
            kept=self._kept(group),
            refused=tuple(refusal.moved(self._clock.offset) for refusal in failed.values()),
            labelled_for=self._labelled_for(group, members),
        )

    def _labelled_for(self, group: ServerGroup, members: tuple[Member, ...]) -> Seconds | None:
        key, now = group.metadata.key, self._clock.tick()
        if not all(member.is_labelled for member in members):
            self._labelled_at.pop(key, None)
            return None
        return now - self._labelled_at.setdefault(key, now)

    def _kept(self, group: ServerGroup) -> tuple[Kept, ...]:
        namespace, name = group.metadata.key
        found = (
            self._world.budgets.get((namespace, name)),
            self._world.services.get((namespace, name)),
            self._world.services.get((namespace, headless_name(name))),
        )
        return tuple(thing for thing in found if thing and _belongs(thing, group))

    async def _look_live(self, group: ServerGroup) -> ServerGroup | None:
        """Reread what the budget is computed from; a watch may lag behind."""
        key, world = group.metadata.key, self._world
        if await self._look_at_group(group) is None:
            return None
        members = world.servers.look(server.metadata.key for server in world.members(key))
        found = {server.metadata.key: server for server in await self._cluster.servers(*key)}
        for lacking in members.things.keys() - found.keys():  # gone, or without the label
            server = await self._cluster.server(*lacking)
            if server:
                found[lacking] = server
        world.servers.replace(found.values(), members)
        await look_at_pods(self._cluster, world, key)
        return world.groups.get(key)

    async def _look_at_group(self, group: ServerGroup) -> ServerGroup | None:
        key = group.metadata.key
        look = self._world.groups.look([key])
        live = await self._cluster.group(*key)
        self._world.groups.replace([live] if live else [], look)
        return live

    async def _tell(self, o: GroupObservation, plan: GroupPlan) -> tuple[GroupObservation, GroupPlan]:
        """Write the status, or requeue for when it is due."""
        key, status, now = o.group.metadata.key, group_status(o, plan), self._clock.tick()
        stalled = (name for name, _ in plan.stalled[:NAMED])
        due = group_due(o.group.status, status, self._written.get(key, -math.inf), stalled)
        if due is None:
            self._unwritten.pop(key, None)
            return o, plan
        count, write_at = self._unwritten.get(key, (0, -math.inf))
        due = max(due, write_at)
        if due > now:
            return o, _told_later(o, plan, due - now)
        try:
            written = await self._cluster.apply_group_status(o.group, msgspec.to_builtins(status))
        except ClusterError as error:
            # Regardless of the reason, the servers are still reconciled.
            if not error.is_refusal and count + 1 < UNANSWERED_STATUS_TRIES:
                self._unwritten[key] = (count + 1, -math.inf)
                raise
            wait = back_off(count + 1, FIRST_RETRY_SECONDS)
            self._unwritten[key] = (count + 1, now + wait)
            self._events.record(o.group, status_refused(error.message), o.now)
            return o, _told_later(o, plan, wait)
        self._unwritten.pop(key, None)
        self._written[key] = now
        self._world.see_group(written)
        for note in group_events(o, plan):
            self._events.record(o.group, note, o.now)
        return msgspec.structs.replace(o, group=written), plan

    async def _do(self, group: ServerGroup, act: Act) -> None:
        namespace = group.metadata.namespace
        match act:
            case ConsumeAnnotation(annotation):
                self._world.see_group(await self._cluster.remove_annotation(group, annotation))
            case ApplyServer(manifest):
                await self._apply_server(manifest)
            case ApplyObject(manifest):
                await self._apply_object(group, manifest)
            case DeleteObject(kind, name, uid):
                await self._delete_object(kind, namespace, name, uid)
            case DeleteServer(name, uid):
                look = self._world.servers.look([(namespace, name)])
                await self._cluster.delete_server(namespace, name, uid)
                server = await self._cluster.server(namespace, name)
                self._world.servers.replace([server] if server else [], look)

    async def _apply_server(self, manifest: dict[str, Any]) -> None:
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        if (namespace, name) not in self._world.servers:
            other = await self._cluster.server(namespace, name)
            if other:  # an apply would take it over
                self._world.see_server(other)
                return
        applied = await self._cluster.apply_server(manifest)
        wanted = msgspec.convert(manifest, AppServer)
        if not is_same(applied.spec.template, wanted.spec.template):
            # It keeps what somebody else has added, and what was applied when its lists did not merge by their keys.
            applied = await self._cluster.replace_template(applied, wanted.spec.template)
        self._world.see_server(applied)
        if (
            not is_same(applied.spec, wanted.spec)
            or not wanted.metadata.labels.items() <= applied.metadata.labels.items()
            or not wanted.metadata.annotations.items() <= applied.metadata.annotations.items()
            or (names.SURGE in applied.metadata.annotations) != (names.SURGE in wanted.metadata.annotations)
        ):
            raise ClusterError(HTTPStatus.UNPROCESSABLE_ENTITY, EDITED)

    async def _delete_object(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """The deletion may take a while, for example because of a load balancer's finalizer."""
        key, world = (namespace, name), self._world
        if kind == "Service":
            services = world.services.look([key])
            await self._cluster.delete_object(kind, namespace, name, uid)
            service = await self._cluster.service(namespace, name)
            world.services.replace([service] if service else [], services)
        else:
            budgets = world.budgets.look([key])
            await self._cluster.delete_object(kind, namespace, name, uid)
            budget = await self._cluster.budget(namespace, name)
            world.budgets.replace([budget] if budget else [], budgets)

    async def _apply_object(self, group: ServerGroup, manifest: dict[str, Any]) -> None:
        """Check first: an apply would take over an object of this name that someone else has created."""
        find = self._cluster.service if manifest["kind"] == "Service" else self._cluster.budget
        there: Kept | None = await find(group.metadata.namespace, manifest["metadata"]["name"])
        if there and not (_belongs(there, group) and (there.metadata.owner or names.MANAGED in there.metadata.labels)):
            raise ClusterError(HTTPStatus.UNPROCESSABLE_ENTITY, TAKEN)
        applied = await self._cluster.apply_object(manifest)
        self._world.see_kept(applied)
        if not is_so(applied, manifest):
            raise ClusterError(HTTPStatus.UNPROCESSABLE_ENTITY, EDITED)


def _told_later(o: GroupObservation, plan: GroupPlan, wait: Seconds) -> GroupPlan:
    """The plan while the status waits: without what the status has to record first."""
    plan = without_restart(o) if plan.restart_requested_at is not None else plan
    wake = wait if plan.wake is None else min(wait, plan.wake)
    return msgspec.structs.replace(plan, wake=wake)


async def look_at_pods(cluster: Cluster, world: World, group: tuple[str, str]) -> None:
    """Reread the pods of a group; one that is not listed is gone, or has lost its label."""
    look = world.pods.look(server.metadata.key for server in world.members(group))
    found = {pod.metadata.key: pod for pod in await cluster.pods(*group)}
    for lacking in look.things.keys() - found.keys():
        pod = await cluster.pod(*lacking)
        if pod:
            found[lacking] = pod
    world.pods.replace((pod for key, pod in found.items() if key in world.servers or key in look.things), look)


def members_of(world: World, group: ServerGroup) -> tuple[Member, ...]:
    """The servers of a group with their pods, as known from the watches, in the order of their ordinals."""
    own = group.metadata
    members = [
        Member(server, world.pods.get(server.metadata.key))
        for server in world.members(own.key)
        if is_member(server, group)
    ]
    return tuple(sorted(members, key=lambda member: member.ordinal))


def is_member(server: AppServer, group: ServerGroup) -> bool:
    """Whether a server belongs to a group, which its label alone doesn't prove."""
    return _belongs(server, group) and ordinal_of(server.metadata.name, group.metadata.name) is not None


def _belongs(thing: AppServer | Kept, group: ServerGroup) -> bool:
    """Whether the group owns it, or it has no owner and its label names the group."""
    owner = thing.metadata.owner
    if owner is None:
        return thing.metadata.labels.get(names.SERVER_GROUP) == group.metadata.name
    return owner.uid == group.metadata.uid
