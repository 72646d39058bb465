"""A cache of what the watches have reported: the newest known state of each object, so that observing costs no request.

It can lag behind: before a disruptive act, objects are read live, and the results are put in here.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from quiesce.cluster.port import Snapshot
from quiesce.cluster.store import Key, Look, Store
from quiesce.model import names
from quiesce.model.objects import Budget, EndpointSlice, Event, Kept, Pod, Service, Target
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds, seconds


class Known(msgspec.Struct, frozen=True):
    """What was known when the lists began."""

    servers: Look[AppServer]
    groups: Look[ServerGroup]
    pods: Look[Pod]
    slices: Look[EndpointSlice]
    services: Look[Service]
    budgets: Look[Budget]


class Killing(msgspec.Struct, frozen=True):
    """When the kubelet began to end a container, and whether it said why."""

    at: Seconds
    has_cause: bool


class World:
    def __init__(self) -> None:
        self.servers = Store[AppServer](self._server_changed)
        self.groups = Store[ServerGroup](self._group_changed)
        self.pods = Store[Pod](self._pod_changed)
        # Only those that groups maintain, not users' Services.
        self.services = Store[Service]()
        self.budgets = Store[Budget]()
        # The generation of each group that its servers' specs have been updated to. The status says the same; but if it
        # can't be written, servers must still be able to start.
        self.taken_up: dict[Key, int] = {}
        # A pod's namespace and UID: anyone can write of a pod in another namespace.
        self._pod_keys: dict[tuple[str, str], Key] = {}
        self._killings: dict[tuple[str, str], dict[str, Killing]] = defaultdict(dict)  # by container
        self._members: dict[Key, set[Key]] = defaultdict(set)
        self._slices = Store[EndpointSlice](self._slice_changed)
        # The UID of a pod, or an address of endpoints without a pod → slices that list it as ready
        self._routes: dict[str, set[Key]] = defaultdict(set)

    def members(self, group: Key) -> list[AppServer]:
        return [self.servers[key] for key in self._members.get(group, ()) if key in self.servers]

    def routes(self, pod: Pod) -> tuple[str, ...]:
        """The Services in its namespace whose EndpointSlices list the pod, or its address without a pod, as ready."""
        return tuple(sorted({endpoints.service for endpoints in self._slices_of(pod)}))

    def targets(self, pod: Pod) -> tuple[Target, ...]:
        """The ports of the pod that these Services send requests to."""
        slices = self._slices_of(pod)
        found = ((one.service, port.name or "", port.port) for one in slices for port in one.ports or ())
        return tuple(sorted({Target(service, name, port) for service, name, port in found if port}))

    def _slices_of(self, pod: Pod) -> list[EndpointSlice]:
        targets = (pod.metadata.uid, *pod.addresses)
        slices = {key for target in targets for key in self._routes.get(target, ())}
        return [self._slices[key] for key in slices if key[0] == pod.metadata.namespace]

    def known(self) -> Known:
        return Known(
            self.servers.look(),
            self.groups.look(),
            self.pods.look(),
            self._slices.look(),
            self.services.look(),
            self.budgets.look(),
        )

    def see_all(self, found: Snapshot, before: Known) -> None:
        """Process lists that were started after `before`."""
        self.servers.replace(found.servers.things, before.servers, found.servers.version)
        self.groups.replace(found.groups.things, before.groups, found.groups.version)
        self.pods.replace(found.pods.things, before.pods, found.pods.version)
        self._slices.replace(found.slices.things, before.slices, found.slices.version)
        self.services.replace(found.services.things, before.services, found.services.version)
        self.budgets.replace(found.budgets.things, before.budgets, found.budgets.version)

    def changed_since(self, before: Known) -> tuple[set[Key], set[Key]]:
        """The servers and groups with a change in what they consist of.

        EndpointSlices don't count: a server that waits for them looks again by itself.
        """
        servers = _different(before.servers.things, self.servers) | _different(before.pods.things, self.pods)
        services = _different(before.services.things, self.services)
        budgets = _different(before.budgets.things, self.budgets)
        owned: list[AppServer | Kept | None] = []
        owned += [known.get(key) for key in servers for known in (before.servers.things, self.servers)]
        owned += [known.get(key) for key in services for known in (before.services.things, self.services)]
        owned += [known.get(key) for key in budgets for known in (before.budgets.things, self.budgets)]
        groups = {group for thing in owned if thing and (group := group_of(thing))}
        return servers, groups | _different(before.groups.things, self.groups)

    def see_server(self, server: AppServer) -> None:
        self.servers.see(server)

    def see_group(self, group: ServerGroup) -> None:
        self.groups.see(group)

    def see_pod(self, pod: Pod) -> None:
        self.pods.see(pod)

    def see_kept(self, thing: Kept) -> None:
        if isinstance(thing, Service):
            self.services.see(thing)
        else:
            self.budgets.see(thing)

    def forget_kept(self, thing: Kept) -> None:
        kept = self.services if isinstance(thing, Service) else self.budgets
        kept.forget(thing.metadata.key, thing.metadata.uid, int(thing.metadata.resource_version))

    def see_slice(self, endpoints: EndpointSlice, *, gone: bool = False) -> set[str]:
        """Process a slice; returns the UIDs of pods, and addresses, that became ready in it or stopped being so.

        If its ports have changed, returns all of them.
        """
        key = endpoints.metadata.key
        known = self._slices.get(key)
        before = _ready_targets(known)
        if gone:
            self._slices.forget(key, endpoints.metadata.uid, int(endpoints.metadata.resource_version))
        else:
            self._slices.see(endpoints)
        now = _ready_targets(self._slices.get(key))
        return before | now if known and known.ports != endpoints.ports else before ^ now

    def pods_by_uid(self, namespace: str, uids: set[str]) -> list[Key]:
        return [self._pod_keys[namespace, uid] for uid in uids if (namespace, uid) in self._pod_keys]

    def see_event(self, event: Event) -> Key | None:
        """Note that the kubelet ends a container; returns the key of its pod, if that is one of the operator's."""
        pod, container = (event.metadata.namespace, event.involved_object.uid), event.killed_container
        at, key = seconds(event.last_timestamp), self._pod_keys.get(pod)
        if key is None or at is None or not container:
            return None
        known = self._killings[pod].get(container)
        if known and at <= known.at:
            return None
        self._killings[pod][container] = Killing(at, event.gives_cause)
        return key

    def killed_at(self, pod: Pod, container: str) -> Seconds | None:
        """When the kubelet last began to restart this container, by the node's clock.

        Without a cause, either the pod itself ends, or its sandbox is replaced with everything in it.
        """
        killing = self._killings.get(_uid(pod), {}).get(container)
        return killing.at if killing and (killing.has_cause or pod.lacks_sandbox) else None

    def forget_server(self, key: Key, uid: str, version: float = math.inf) -> None:
        self.servers.forget(key, uid, version)

    def forget_group(self, key: Key, uid: str, version: float = math.inf) -> None:
        self.groups.forget(key, uid, version)

    def forget_pod(self, key: Key, uid: str, version: float = math.inf) -> None:
        self.pods.forget(key, uid, version)

    def _server_changed(self, before: AppServer | None, now: AppServer | None) -> None:
        if before and (group := group_of(before)):
            self._members[group].discard(before.metadata.key)
            if not self._members[group]:
                del self._members[group]
        if now and (group := group_of(now)):
            self._members[group].add(now.metadata.key)

    def _group_changed(self, before: ServerGroup | None, now: ServerGroup | None) -> None:
        if before and (now is None or now.metadata.uid != before.metadata.uid):
            self.taken_up.pop(before.metadata.key, None)

    def _pod_changed(self, before: Pod | None, now: Pod | None) -> None:
        if before and (now is None or now.metadata.uid != before.metadata.uid):
            self._pod_keys.pop(_uid(before), None)
            self._killings.pop(_uid(before), None)
        if now:
            self._pod_keys[_uid(now)] = now.metadata.key

    def _slice_changed(self, before: EndpointSlice | None, now: EndpointSlice | None) -> None:
        were, are = _ready_targets(before), _ready_targets(now)
        if before:
            for target in were - are:
                self._routes[target].discard(before.metadata.key)
                if not self._routes[target]:
                    del self._routes[target]
        if now:
            for target in are:
                self._routes[target].add(now.metadata.key)


def group_of(thing: AppServer | Kept) -> Key | None:
    """The group that a server or an object belongs to; without an owner, the group that its label names."""
    own = thing.metadata
    if own.owner:
        return (own.namespace, own.owner.name) if own.owner.kind == "ServerGroup" else None
    name = own.labels.get(names.SERVER_GROUP)
    return (own.namespace, name) if name else None


def _different(before: Mapping[Key, Any], now: Mapping[Key, Any]) -> set[Key]:
    """The objects that are there in only one, or in another version."""
    return {key for key in before.keys() | now.keys() if _version(before.get(key)) != _version(now.get(key))}


def _version(thing: AppServer | ServerGroup | Pod | Kept | None) -> tuple[str, str] | None:
    return (thing.metadata.uid, thing.metadata.resource_version) if thing else None


def _uid(pod: Pod) -> tuple[str, str]:
    return (pod.metadata.namespace, pod.metadata.uid)


def _ready_targets(endpoints: EndpointSlice | None) -> set[str]:
    """What is ready in a slice: the UIDs of pods, and the addresses of endpoints that were written without one.

    A slice without a Service routes nothing.
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
