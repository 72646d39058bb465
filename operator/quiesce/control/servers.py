"""Reconciling one server: observe, decide, write the status, act once."""

import logging
import math
from http import HTTPStatus

import msgspec

from quiesce.admin.port import AdminError
from quiesce.cluster.clock import Clock
from quiesce.cluster.port import Cluster, ClusterError
from quiesce.cluster.world import World, group_of
from quiesce.control.admins import Admins
from quiesce.control.dryruns import UnansweredError
from quiesce.control.events import Recorder
from quiesce.control.groups import UNANSWERED_STATUS_TRIES, is_member, look_at_pods, members_of
from quiesce.control.queue import back_off
from quiesce.control.refusals import FIRST_REFUSED_SECONDS, refused
from quiesce.control.templates import Templates
from quiesce.decide.members import Member
from quiesce.decide.observation import NodeSays, Notes, Observation, node_says
from quiesce.decide.server import decide
from quiesce.decide.status import server_events, server_status, status_refused, to_tell, unwritten
from quiesce.decide.target import gives_way, has_room, is_dispensable
from quiesce.model import names
from quiesce.model import plan as acts
from quiesce.model.objects import Pod
from quiesce.model.plan import Act, ServerPlan
from quiesce.model.resources import AppServer, AppServerStatus, ServerGroup
from quiesce.model.server import Report
from quiesce.model.times import Seconds

# A server that doesn't respond to a shed may do so soon; one that refuses may be in the middle of something else.
UNANSWERED_SHED_TRIES, REFUSED_SHED_TRIES = 3, 2
# How often a stalled server's count of active requests is written.
STALLED_REFRESH_SECONDS = 30.0
NODE_KNOWN_SECONDS = 10.0
# How often a pod is read live because the watch may have missed its end, or its creation.
POD_KNOWN_SECONDS = 10.0
# An EndpointSlice that is slower than this may belong to a Service that publishes addresses that are not ready.
SLOW_WITHDRAWAL_SECONDS = 1.0

logger = logging.getLogger(__name__)
replace = msgspec.structs.replace


class Servers:
    def __init__(self, cluster: Cluster, world: World, admins: Admins, clock: Clock, events: Recorder) -> None:
        self._cluster = cluster
        self._world = world
        self._admins = admins
        self._clock = clock
        self._events = events
        self._notes: dict[tuple[str, str], Notes] = {}
        self._offsets: dict[tuple[str, str], Seconds] = {}  # of the time of day in the notes
        self._templates = Templates(cluster, world, clock.tick)
        self._written: dict[tuple[str, str], Seconds] = {}
        self._looked: dict[tuple[str, str], tuple[Seconds, str]] = {}  # when the pod was read live, and its UID if any
        self._nodes: dict[str, tuple[Seconds, NodeSays | None]] = {}  # those that were read, and when

    async def reconcile(self, namespace: str, name: str) -> Seconds | None:
        server = self._world.servers.get((namespace, name))
        if server is None:
            await self._forget(namespace, name)
            return None
        observation = await self._observe(server)
        plan = decide(observation)
        if isinstance(plan.act, acts.DISRUPTIVE):
            live = await self._look_live(server)
            if live is None:
                return 0
            observation = await self._observe(live)
            plan = decide(observation)
        self._notes[namespace, name] = observation.notes
        observation = await self._tell(observation, plan)
        if plan.act is None:
            untold = self._notes[namespace, name].untold
            wakes = (plan.wake, untold.due - observation.now if untold else None)
            return min((wake for wake in wakes if wake is not None), default=None)
        notes = self._notes[namespace, name]
        if isinstance(plan.act, acts.ConsumeAnnotation) and notes.untold:
            # The request is in effect, but a new process would not know of it.
            unrecorded = (*(act for act in notes.unrecorded if act != plan.act), plan.act)
            self._notes[namespace, name] = replace(notes, unrecorded=unrecorded)
            return 0
        await self._try(observation, plan.act)
        return 0

    async def _observe(self, server: AppServer) -> Observation:
        key = server.metadata.key
        group = self._world.groups.get(group_of(server) or ("", ""))
        group = group if group and is_member(server, group) else None
        notes, offset = self._notes.get(key, Notes()), self._clock.offset
        notes = notes.moved(offset - self._offsets.get(key, offset))
        self._notes[key], self._offsets[key] = notes, offset
        observation = Observation(
            now=self._now(key),
            server=server,
            group=group,
            pod=self._world.pods.get(key),
            group_is_ahead=group is not None and self._is_ahead(group),
            notes=notes,
        )
        if self._may_be_otherwise(observation):
            await self._look_at_pod(server)
            observation = replace(observation, pod=self._world.pods.get(key))
        pod = observation.pod
        waits = pod is None and names.SURGE in server.metadata.annotations
        if group and (waits or observation.template_has_changed):
            others = tuple(member for member in members_of(self._world, group) if member.name != server.metadata.name)
            is_refused = notes.refusal is not None and isinstance(notes.refusal.act, acts.CreatePod)
            observation = replace(
                observation,
                has_room=has_room(group, Member(server, pod), others, observation.now),
                is_dispensable=waits and is_dispensable(group, others),
                gives_way=waits and gives_way(group, others, observation.now, refused=is_refused),
            )
        if pod is None:
            await self._admins.drop(server)
            return observation.measured()
        routes, unconfirmable = await self._routes(observation, pod)
        container = observation.container if pod.metadata.is_owned_by(server.metadata.uid) else None
        admin = await self._admins.report(server, pod) if container else None
        killed_at = self._world.killed_at(pod, container.name) if container else None
        asks_node = observation.may_be_lost and pod.spec.node_name  # one that was never scheduled has none
        node = await self._node(pod.spec.node_name) if asks_node else None
        return replace(
            observation,
            now=self._now(key),
            routes=routes,
            unconfirmable=unconfirmable,
            targets=self._world.targets(pod),
            admin=admin,
            killed_at=killed_at,
            node=node,
        ).measured()

    def _may_be_otherwise(self, o: Observation) -> bool:
        """Whether the watch may have missed something: it only reports pods with the operator's label."""
        if o.pod is None:
            is_suspect = o.server.status.state not in (None, "Pending", "Stopped")
        elif not o.pod.metadata.is_owned_by(o.server.metadata.uid) or names.MANAGED not in o.pod.metadata.labels:
            return True
        else:
            is_suspect = o.pod_may_be_gone
        looked_at, found = self._looked.get(o.server.metadata.key, (-math.inf, ""))
        is_known = found == _uid(o.pod) and self._clock.tick() - looked_at < POD_KNOWN_SECONDS
        return is_suspect and not is_known

    def _now(self, key: tuple[str, str]) -> Seconds:
        """The time of day for a server's notes: the same clock for an observation and the act that follows."""
        return self._clock.tick() + self._offsets[key]

    def _is_ahead(self, group: ServerGroup) -> bool:
        taken_up = self._world.taken_up.get(group.metadata.key)
        return taken_up != group.metadata.generation and not group.metadata.deletion_timestamp

    async def _node(self, name: str) -> NodeSays | None:
        """What is known about a node, at most a few seconds old; None without permission to read it."""
        now = self._clock.tick()
        self._nodes = {node: known for node, known in self._nodes.items() if now - known[0] < NODE_KNOWN_SECONDS}
        if name not in self._nodes:
            try:
                self._nodes[name] = (now, node_says(await self._cluster.node(name)))
            except ClusterError as error:
                if error.status != HTTPStatus.FORBIDDEN:
                    raise
                self._nodes[name] = (now, None)
        return self._nodes[name][1]

    async def _routes(self, o: Observation, pod: Pod) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Services that still list the pod as ready, and those that always will."""
        namespace, drain = pod.metadata.namespace, o.server.status.suspend
        # A group's headless Service is for servers to find each other, not for requests.
        kept = self._world.services
        known = (route for route in self._world.routes(pod) if (namespace, route) in kept)
        discovery = {route for route in known if kept[namespace, route].publishes_not_ready}
        routes = tuple(route for route in self._world.routes(pod) if route not in discovery)
        if not routes or not drain:
            return routes, ()
        since = o.notes.stamps.get(drain.since, drain.since).timestamp()
        if o.now - since < SLOW_WITHDRAWAL_SECONDS:
            return routes, ()
        unconfirmable = set(drain.unconfirmable)
        for route in set(routes) - unconfirmable:
            service = await self._cluster.service(namespace, route)
            if service and service.publishes_not_ready:
                unconfirmable.add(route)
        return tuple(route for route in routes if route not in unconfirmable), tuple(sorted(unconfirmable))

    async def _look_live(self, server: AppServer) -> AppServer | None:
        """Reread what a disruptive act depends on; a watch may lag behind."""
        key, world = server.metadata.key, self._world
        live = await self._look_at_server(server)
        if live is None:
            return None
        await self._look_at_pod(live)
        if owner := group_of(live):
            groups = world.groups.look([owner])
            group = await self._cluster.group(*owner)
            world.groups.replace([group] if group else [], groups)
            if group and _serves(world.pods.get(key)):  # the act may need room in the group's budget
                await look_at_pods(self._cluster, world, owner)
        return world.servers.get(key)

    async def _look_at_server(self, server: AppServer) -> AppServer | None:
        key = server.metadata.key
        look = self._world.servers.look([key])
        live = await self._cluster.server(*key)
        self._world.servers.replace([live] if live else [], look)
        return live

    async def _look_at_pod(self, server: AppServer) -> None:
        key = server.metadata.key
        look = self._world.pods.look([key])
        pod = await self._cluster.pod(*key)
        self._world.pods.replace([pod] if pod else [], look)
        self._looked[key] = (self._clock.tick(), _uid(pod))

    async def _tell(self, o: Observation, plan: ServerPlan) -> Observation:
        """Write the status before the act, so that the operator can continue after a crash."""
        key = o.server.metadata.key
        status, untold = to_tell(o, plan)
        if status is None and untold is None and self._is_outdated(o, plan):
            status = server_status(o, plan)
        server = await self._write(o, status) if status else None
        if status and server is None:
            untold = unwritten(o, status, self._notes[key].write_at)
        if server is None and untold:
            server = replace(o.server, status=untold.status)
        self._notes[key] = replace(self._notes[key], untold=untold)
        if server is None:
            self._notes[key] = replace(self._notes[key], unwritten=0, write_at=0)
            return o
        for note in server_events(o, plan):
            self._events.record(o.server, note, o.now)
        return replace(o, server=server)

    async def _write(self, o: Observation, status: AppServerStatus) -> AppServer | None:
        """None if the API server refuses it: regardless of the reason, the server is still reconciled."""
        key, count = o.server.metadata.key, o.notes.unwritten + 1
        try:
            server = await self._cluster.apply_server_status(o.server, msgspec.to_builtins(status))
        except ClusterError as error:
            if not error.is_refusal and count < UNANSWERED_STATUS_TRIES:
                self._notes[key] = replace(self._notes[key], unwritten=count)
                raise
            write_at = o.now + back_off(count, FIRST_REFUSED_SECONDS)
            self._notes[key] = replace(self._notes[key], unwritten=count, write_at=write_at)
            self._events.record(o.server, status_refused(error.message), o.now)
            return None
        self._notes[key] = replace(self._notes[key], unwritten=0, write_at=0)
        self._written[key] = self._clock.tick()
        self._world.see_server(server)
        return server

    def _is_outdated(self, o: Observation, plan: ServerPlan) -> bool:
        """The count of active requests is kept up to date while a server is stalled."""
        active = o.admin.active_requests if isinstance(o.admin, Report) else None
        changed = bool(plan.stalled) and active != o.server.status.active_requests
        written_at = self._written.get(o.server.metadata.key, -math.inf)
        is_due = self._clock.tick() - written_at >= STALLED_REFRESH_SECONDS and o.now >= o.notes.write_at
        return changed and is_due

    async def _try(self, o: Observation, act: Act) -> None:
        """Perform the act, or note why it failed: the next decision reports that and waits."""
        key, before, refusal = o.server.metadata.key, o.notes.refused(act), None
        try:
            await self._do(o, act)
        except UnansweredError:
            return  # decide again: in the meantime, something else may have to be done
        except AdminError as error:
            refusal = refused(act, error, before, self._now(key))
            tries = UNANSWERED_SHED_TRIES if error.failure.kind == "Unreachable" else REFUSED_SHED_TRIES
            if isinstance(act, acts.Shed) and refusal.count >= tries:
                # A drain works without it, but clients are not asked to close kept-alive connections.
                self._notes[key] = replace(self._notes[key], shed_refused=error.failure.message)
        except ClusterError as error:
            if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT) and await self._has_changed(o):
                return  # decide again from what is there now
            refusal = refused(act, error, before, self._now(key))
        self._notes[key] = self._notes[key].after(act, refusal, self._now(key))
        level, said = (logging.WARNING, refusal.message) if refusal else (logging.DEBUG, "done")
        logger.log(level, "%s/%s: %s: %s", *key, type(act).__name__, said)

    async def _has_changed(self, o: Observation) -> bool:
        """Whether the server or its pod is not as the act assumed; the watch may not show a pod that exists."""
        server = await self._look_at_server(o.server)
        await self._look_at_pod(o.server)
        pod = self._world.pods.get(o.server.metadata.key)
        return _version(server) != _version(o.server) or _version(pod) != _version(o.pod)

    async def _do(self, o: Observation, act: Act) -> None:
        server, pod, cluster, world = o.server, o.pod, self._cluster, self._world
        match act, pod:
            case acts.AddFinalizer(), _:
                changed = await cluster.set_finalizers(server, [*server.metadata.finalizers, names.FINALIZER])
                self._see_server(server, changed)
            case acts.RemoveFinalizer(), _:
                rest = [finalizer for finalizer in server.metadata.finalizers if finalizer != names.FINALIZER]
                self._see_server(server, await cluster.set_finalizers(server, rest))
            case acts.ConsumeAnnotation(annotation), _:
                self._see_server(server, await cluster.remove_annotation(server, annotation))
            case acts.CheckTemplate(), _:
                await self._templates.check(server, act)
            case acts.CreatePod(manifest), _:
                world.see_pod(await cluster.create_pod(manifest))
            case acts.AdoptPod(owner, gone), Pod():
                world.see_pod(await cluster.adopt_pod(pod, owner, gone))
            case acts.SetGate(), Pod():
                world.see_pod(await cluster.set_gate(pod, act, o.now))
            case acts.LabelPod(labels), Pod():
                world.see_pod(await cluster.label_pod(pod, labels))
            case acts.DeletePod(grace_seconds), Pod():
                await cluster.delete_pod(pod, grace_seconds)
                await self._look_at_pod(server)
            case _, Pod():
                await self._ask_server(o, act, pod)

    async def _ask_server(self, o: Observation, act: Act, pod: Pod) -> None:
        endpoint = await self._admins.endpoint(o.server, pod)
        match act:
            case acts.Shed():
                await endpoint.shed()
            case acts.Unshed():
                await endpoint.unshed()
            case acts.SuspendServer():
                await endpoint.suspend()
            case acts.ResumeServer():
                await endpoint.resume()
            case acts.StopServer():
                await endpoint.stop()

    def _see_server(self, before: AppServer, after: AppServer | None) -> None:
        if after is None or (after.metadata.deletion_timestamp and not after.metadata.finalizers):
            self._world.forget_server(before.metadata.key, before.metadata.uid)
        else:
            self._world.see_server(after)

    async def _forget(self, namespace: str, name: str) -> None:
        self._notes.pop((namespace, name), None)
        self._offsets.pop((namespace, name), None)
        self._written.pop((namespace, name), None)
        self._looked.pop((namespace, name), None)
        await self._admins.forget(namespace, name)


def _uid(pod: Pod | None) -> str:
    return pod.metadata.uid if pod else ""


def _version(thing: AppServer | Pod | None) -> str:
    return thing.metadata.resource_version if thing else ""


def _serves(pod: Pod | None) -> bool:
    return pod is not None and pod.holds(names.GATE) and not pod.metadata.deletion_timestamp
