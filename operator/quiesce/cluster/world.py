"""What the watches have told: the newest known state of each object, so that a look at the world costs no request.

It can lag behind; whoever is about to take something away looks live first, and hands what came back in here.
"""

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TypeVar

import msgspec

from quiesce.cluster.port import Snapshot
from quiesce.model import names
from quiesce.model.objects import Budget, EndpointSlice, Event, Kept, Pod, Service
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds, seconds

Key = tuple[str, str]  # namespace, name
Thing = TypeVar("Thing", AppServer, ServerGroup, Pod, EndpointSlice, Service, Budget)


class Known(msgspec.Struct, frozen=True):
    servers: dict[Key, AppServer]
    groups: dict[Key, ServerGroup]
    pods: dict[Key, Pod]
    slices: dict[Key, EndpointSlice]
    services: dict[Key, Service]
    budgets: dict[Key, Budget]


class World:
    def __init__(self) -> None:
        self.servers: dict[Key, AppServer] = {}
        self.groups: dict[Key, ServerGroup] = {}
        self.pods: dict[Key, Pod] = {}
        # Those that groups keep; of users' Services nothing is known here.
        self.services: dict[Key, Service] = {}
        self.budgets: dict[Key, Budget] = {}
        # The generation of each group that its servers' specs have been brought up to. A status says the same; but
        # where it can't be written, no server is to stay down for that.
        self.taken_up: dict[Key, int] = {}
        self._pod_keys: dict[str, Key] = {}
        self._killed: dict[str, dict[str, Seconds]] = defaultdict(dict)  # pod UID → container → when
        self._members: dict[Key, set[Key]] = defaultdict(set)
        self._slices: dict[Key, EndpointSlice] = {}
        # The UID of a pod, or an address of endpoints that name none → slices that have it ready
        self._routes: dict[str, set[Key]] = defaultdict(set)

    def members(self, group: Key) -> list[AppServer]:
        return [self.servers[key] for key in self._members.get(group, ()) if key in self.servers]

    def routes(self, pod: Pod) -> tuple[str, ...]:
        """The Services of its namespace whose EndpointSlices have this very pod as ready, or its address for no pod."""
        targets = (pod.metadata.uid, *pod.addresses)
        slices = {key for target in targets for key in self._routes.get(target, ())}
        return tuple(sorted({self._slices[key].service for key in slices if key[0] == pod.metadata.namespace}))

    def known(self) -> Known:
        return Known(
            dict(self.servers),
            dict(self.groups),
            dict(self.pods),
            dict(self._slices),
            dict(self.services),
            dict(self.budgets),
        )

    def see_all(self, found: Snapshot, before: Known) -> None:
        """Take in lists: what was known before they were begun, is not in them and has not changed since, is gone."""
        for server in found.servers:
            self.see_server(server)
        for group in found.groups:
            self.see_group(group)
        for pod in found.pods:
            self.see_pod(pod)
        for endpoints in found.slices:
            self.see_slice(endpoints)
        kept: list[Kept] = [*found.services, *found.budgets]
        for thing in kept:
            self.see_kept(thing)
        for key in _gone(before.servers, found.servers, self.servers):
            self.forget_server(key)
        for key in _gone(before.groups, found.groups, self.groups):
            self.forget_group(key)
        for key in _gone(before.pods, found.pods, self.pods):
            self.forget_pod(key, before.pods[key].metadata.uid)
        for key in _gone(before.slices, found.slices, self._slices):
            self.see_slice(before.slices[key], gone=True)
        lost: list[Kept] = [before.services[key] for key in _gone(before.services, found.services, self.services)]
        lost += [before.budgets[key] for key in _gone(before.budgets, found.budgets, self.budgets)]
        for thing in lost:
            self.forget_kept(thing)

    def see_server(self, server: AppServer) -> None:
        key = server.metadata.key
        if _is_newer(server, self.servers.get(key)):
            self.servers[key] = server
            if group := group_of(server):
                self._members[group].add(key)

    def see_group(self, group: ServerGroup) -> None:
        if _is_newer(group, self.groups.get(group.metadata.key)):
            self.groups[group.metadata.key] = group

    def see_pod(self, pod: Pod) -> None:
        known = self.pods.get(pod.metadata.key)
        if _is_newer(pod, known):
            if known and known.metadata.uid != pod.metadata.uid:
                self.forget_pod(known.metadata.key, known.metadata.uid)
            self.pods[pod.metadata.key] = pod
            self._pod_keys[pod.metadata.uid] = pod.metadata.key

    def see_kept(self, thing: Kept) -> None:
        key = thing.metadata.key
        if isinstance(thing, Service):
            if _is_newer(thing, self.services.get(key)):
                self.services[key] = thing
        elif _is_newer(thing, self.budgets.get(key)):
            self.budgets[key] = thing

    def forget_kept(self, thing: Kept) -> None:
        kept: dict[Key, Service] | dict[Key, Budget] = self.services if isinstance(thing, Service) else self.budgets
        known = kept.get(thing.metadata.key)
        if known and known.metadata.uid == thing.metadata.uid:
            del kept[thing.metadata.key]

    def see_slice(self, endpoints: EndpointSlice, *, gone: bool = False) -> set[str]:
        """Take in a slice; the UIDs of pods, and addresses, that came to be ready in it or ceased to."""
        key = endpoints.metadata.key
        known = self._slices.get(key)
        if not gone and not _is_newer(endpoints, known):
            return set()
        before, ready = _ready_targets(known), _ready_targets(None if gone else endpoints)
        self._slices.pop(key, None)
        if not gone:
            self._slices[key] = endpoints
        for target in before - ready:
            self._routes[target].discard(key)
            if not self._routes[target]:
                del self._routes[target]
        for target in ready:
            self._routes[target].add(key)
        return before ^ ready

    def pods_by_uid(self, uids: set[str]) -> list[Key]:
        return [self._pod_keys[uid] for uid in uids if uid in self._pod_keys]

    def see_live_pod(self, key: Key, pod: Pod | None) -> None:
        """Take in what a live look has found, which may be that there is none."""
        known = self.pods.get(key)
        if pod:
            self.see_pod(pod)
        elif known:
            self.forget_pod(key, known.metadata.uid)

    def see_event(self, event: Event) -> Key | None:
        """Take in that the kubelet restarts a container; the key of its pod, if it is one of the operator's."""
        uid, container = event.involved_object.uid, event.restarted_container
        at, key = seconds(event.last_timestamp), self._pod_keys.get(uid)
        if key is None or at is None or not container or at <= self._killed[uid].get(container, 0):
            return None
        self._killed[uid][container] = at
        return key

    def killed_at(self, pod: Pod, container: str) -> Seconds | None:
        """When the kubelet last began to end this container to start it again, by the node's clock."""
        return self._killed.get(pod.metadata.uid, {}).get(container)

    def forget_server(self, key: Key, uid: str = "") -> None:
        """Only that very server, if `uid` says which: its successor may be here already. So below."""
        if uid and key in self.servers and self.servers[key].metadata.uid != uid:
            return
        server = self.servers.pop(key, None)
        if server and (group := group_of(server)):
            self._members[group].discard(key)
            if not self._members[group]:
                del self._members[group]

    def forget_group(self, key: Key, uid: str = "") -> None:
        if not uid or (key in self.groups and self.groups[key].metadata.uid == uid):
            self.groups.pop(key, None)
            self.taken_up.pop(key, None)

    def forget_pod(self, key: Key, uid: str) -> None:
        pod = self.pods.get(key)
        if pod and pod.metadata.uid == uid:
            del self.pods[key]
            self._pod_keys.pop(uid, None)
            self._killed.pop(uid, None)


def group_of(thing: AppServer | Kept) -> Key | None:
    """The group that a server or an object is of; one without an owner is free for the group that its label names."""
    own = thing.metadata
    if own.owner:
        return (own.namespace, own.owner.name) if own.owner.kind == "ServerGroup" else None
    name = own.labels.get(names.SERVER_GROUP)
    return (own.namespace, name) if name else None


def _ready_targets(endpoints: EndpointSlice | None) -> set[str]:
    """What is ready in a slice: the UIDs of pods, and the addresses of endpoints that somebody has written without one.

    A slice that belongs to no Service routes nothing.
    """
    if endpoints is None or not endpoints.service:
        return set()
    ready = [endpoint for endpoint in endpoints.endpoints or () if endpoint.is_ready]
    named = {endpoint.target_ref.uid for endpoint in ready if endpoint.target_ref and endpoint.target_ref.uid}
    unnamed = (endpoint.addresses for endpoint in ready if not (endpoint.target_ref and endpoint.target_ref.uid))
    return named | {_canonical(address) for addresses in unnamed for address in addresses}


def _canonical(address: str) -> str:
    """An address as the kubelet writes it: IPv6 has many spellings. A host name stays as it is."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _gone(before: Mapping[Key, Thing], found: list[Thing], now: Mapping[Key, Thing]) -> list[Key]:
    listed = {thing.metadata.key for thing in found}
    return [key for key, thing in before.items() if key not in listed and now.get(key) is thing]


def _is_newer(seen: Thing, known: Thing | None) -> bool:
    """Resource versions of one kind are ordered numbers (KEP-5504), an object's own and its successor's."""
    return known is None or int(seen.metadata.resource_version) >= int(known.metadata.resource_version)
