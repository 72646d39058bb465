"""The operator's parts put together: watch events go in, reconciles come out."""

import asyncio
import logging
import math

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import Cluster, ClusterError
from quiesce.cluster.world import World, group_of
from quiesce.control.admins import Admins
from quiesce.control.events import Recorder
from quiesce.control.groups import Groups
from quiesce.control.queue import Key, Queue
from quiesce.control.servers import Servers
from quiesce.model.objects import EndpointSlice, Event, Kept, Pod
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds

# When a watch starts again with a list, objects deleted in the meantime are found by another list, once things settle.
RESYNC_AFTER_SECONDS = 2.0
# A list without any object isn't reported at all: what has gone unnoticed is found by this one.
RESYNC_SECONDS = 600.0

logger = logging.getLogger(__name__)


class Operator:
    def __init__(self, cluster: Cluster, instance: str, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._world = World()
        self._admins = Admins(cluster)
        self._events = Recorder(cluster, instance, clock.tick)
        self._servers = Servers(cluster, self._world, self._admins, clock, self._events)
        self._groups = Groups(cluster, self._world, clock, self._events)
        self._queue = Queue(self._reconcile, clock.tick)
        self._resync_at: Seconds = math.inf
        self.ready = False

    async def prime(self) -> None:
        """List everything for the first time; nothing is decided before."""
        await self._resync()
        self.ready = True

    async def run(self) -> None:
        writes_events = asyncio.create_task(self._events.run())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._queue.run())
                tasks.create_task(self._resync_when_due())
        finally:
            await self._admins.close()
            await self._events.flush()
            writes_events.cancel()

    def stale_for(self) -> Seconds:
        return self._queue.stale_for()

    def listed(self) -> None:
        """A watch has started with a list: it doesn't report earlier deletions."""
        self._resync_at = self._clock.tick() + RESYNC_AFTER_SECONDS

    def see_server(self, server: AppServer, *, gone: bool) -> None:
        own = server.metadata
        before = self._world.servers.get(own.key)
        if gone:
            self._world.forget_server(own.key, own.uid, int(own.resource_version))
        else:
            self._world.see_server(server)
        self._queue.add(("server", own.namespace, own.name))
        for thing in (before, server):  # it may have moved from one group to another
            if thing and (group := group_of(thing)):
                self._queue.add(("group", *group))

    def see_group(self, group: ServerGroup, *, gone: bool) -> None:
        own = group.metadata
        if gone:
            self._world.forget_group(own.key, own.uid, int(own.resource_version))
        else:
            self._world.see_group(group)
        self._queue.add(("group", own.namespace, own.name))
        for server in self._world.members((own.namespace, own.name)):
            self._queue.add(("server", own.namespace, server.metadata.name))

    def see_pod(self, pod: Pod, *, gone: bool) -> None:
        own = pod.metadata
        key = own.key  # the same as its server's, regardless of its labels
        if gone:
            self._world.forget_pod(key, own.uid, int(own.resource_version))
        else:
            self._world.see_pod(pod)
        self._queue.add(("server", *key))
        server = self._world.servers.get(key)
        if server and (group := group_of(server)):
            self._queue.add(("group", *group))

    def see_kept(self, thing: Kept, *, gone: bool) -> None:
        if gone:
            self._world.forget_kept(thing)
        else:
            self._world.see_kept(thing)
        if group := group_of(thing):
            self._queue.add(("group", *group))

    def see_slice(self, endpoints: EndpointSlice, *, gone: bool) -> None:
        changed = self._world.see_slice(endpoints, gone=gone)
        for key in self._world.pods_by_uid(endpoints.metadata.namespace, changed):
            self._queue.add(("server", *key))

    def see_event(self, event: Event, *, gone: bool) -> None:
        key = None if gone else self._world.see_event(event)
        if key:
            self._queue.add(("server", *key))

    async def _reconcile(self, key: Key) -> Seconds | None:
        kind, namespace, name = key
        reconcile = self._servers.reconcile if kind == "server" else self._groups.reconcile
        return await reconcile(namespace, name)

    async def _resync(self) -> None:
        self._resync_at = self._clock.tick() + RESYNC_SECONDS
        before = self._world.known()
        found = await self._cluster.everything()
        self._world.see_all(found, before)
        servers, groups = self._world.changed_since(before)
        for server in servers:
            self._queue.add(("server", *server))
        for group in groups:
            self._queue.add(("group", *group))

    async def _resync_when_due(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_AFTER_SECONDS / 2)
            if self._clock.tick() < self._resync_at:
                continue
            try:
                await self._resync()
            except ClusterError as error:
                logger.warning("listing again failed: %s; retrying", error)
                self.listed()
