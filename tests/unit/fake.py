"""A cluster in memory, for `control`: what is there, what was asked for, and what it refuses."""

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from quiesce.cluster.port import ClusterError, Listed, Own, Snapshot
from quiesce.control.events import Recorder
from quiesce.model import names
from quiesce.model.objects import (
    Budget,
    Condition,
    Kept,
    Node,
    OwnerReference,
    Pod,
    ResourceQuota,
    Service,
)
from quiesce.model.plan import Note, SetGate
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.server import Report
from quiesce.model.times import Seconds, moment
from tests.unit.build import NOW, report

Key = tuple[str, str]
T = TypeVar("T", AppServer, ServerGroup, Pod, Service | Budget)
replace = msgspec.structs.replace


class FakeCluster:
    """`refuse`: called with each request and its name; it may raise. `alter`: what someone else changes in a server."""

    def __init__(self, *things: AppServer | ServerGroup | Pod | Service) -> None:
        self.asked: list[str] = []
        self.events: dict[str, dict[str, Any]] = {}  # by name
        self.secrets: dict[str, dict[str, bytes]] = {"shop-admin": {"username": b"u", "password": b"p"}}
        self.nodes: dict[str, Node] = {}
        self.resource_quotas: list[ResourceQuota] = []
        self.pod_specs: dict[str, dict[str, Any]] = {}  # of pods that are there already
        self.refuse: Callable[[str, str], None] = lambda _request, _name: None
        self.alter: Callable[[Any], Any] = lambda applied: applied
        self._servers: dict[Key, AppServer] = {}
        self._groups: dict[Key, ServerGroup] = {}
        self._pods: dict[Key, Pod] = {}
        self._services: dict[Key, Service] = {}
        self._budgets: dict[Key, Budget] = {}
        self._versions = itertools.count(100)
        for thing in things:
            self.put(thing)

    def put(self, thing: Any) -> None:
        self._of(type(thing))[_key(thing)] = self._newer(thing)

    def take(self, namespace: str, name: str) -> None:
        """A pod is gone."""
        del self._pods[namespace, name]

    def holds_pod(self, namespace: str, name: str) -> bool:
        return (namespace, name) in self._pods

    def latest(self, thing: T) -> T:
        known: T = self._of(type(thing))[_key(thing)]
        return known

    def count(self, request: str) -> int:
        return self.asked.count(request)

    async def everything(self) -> Snapshot:
        self._ask("everything")
        version = next(self._versions)
        return Snapshot(
            Listed([*self._servers.values()], version),
            Listed([*self._groups.values()], version),
            Listed([*self._pods.values()], version),
            Listed(),
            Listed([*self._services.values()], version),
            Listed([*self._budgets.values()], version),
        )

    async def server(self, namespace: str, name: str) -> AppServer | None:
        return self._servers.get((namespace, name))

    async def servers(self, namespace: str, group: str) -> list[AppServer]:
        return [s for (there, _), s in self._servers.items() if there == namespace and _is_of(s, group)]

    async def group(self, namespace: str, name: str) -> ServerGroup | None:
        return self._groups.get((namespace, name))

    async def pod(self, namespace: str, name: str) -> Pod | None:
        self._ask("pod", name)
        return self._pods.get((namespace, name))

    async def pods(self, namespace: str, group: str) -> list[Pod]:
        self._ask("pods", group)
        mine = {s.metadata.name for s in await self.servers(namespace, group)}
        return [p for (there, name), p in self._pods.items() if there == namespace and name in mine]

    async def service(self, namespace: str, name: str) -> Service | None:
        self._ask("service", name)
        return self._services.get((namespace, name))

    async def budget(self, namespace: str, name: str) -> Budget | None:
        return self._budgets.get((namespace, name))

    async def node(self, name: str) -> Node | None:
        self._ask("node", name)
        if not name:
            raise ClusterError(404, "'' is not a name")
        return self.nodes.get(name)

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        self._ask("secret", f"{namespace}/{name}")
        return self.secrets.get(name)

    async def pod_manifest(self, namespace: str, name: str) -> dict[str, Any] | None:
        pod = self._pods.get((namespace, name))
        if pod is None:
            return None
        return {"metadata": {"uid": pod.metadata.uid}, "spec": self.pod_specs.get(name, {})}

    async def quotas(self, namespace: str) -> list[ResourceQuota]:
        return [quota for quota in self.resource_quotas if quota.metadata.namespace == namespace]

    async def create_pod(self, manifest: dict[str, Any]) -> Pod:
        own = manifest["metadata"]
        self._ask("create_pod", own["name"])
        made = msgspec.convert({**manifest, "metadata": {**own, "uid": self._new_uid()}}, Pod)
        self.put(made)
        return made

    async def try_pod(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._ask("check_pod", f"{manifest['metadata']['generateName']}x7k2p")
        return manifest

    async def adopt_pod(self, pod: Pod, owner: dict[str, Any], gone: str) -> Pod:
        self._ask("adopt_pod", pod.metadata.name)
        rest = (other for other in pod.metadata.owner_references if other.uid != gone)
        references = (*rest, msgspec.convert(owner, OwnerReference))
        return self._put(replace(pod, metadata=replace(pod.metadata, owner_references=references)))

    async def set_gate(self, pod: Pod, gate: SetGate, now: Seconds) -> Pod:
        self._ask("set_gate", f"{gate.open} {gate.reason}")
        since = moment(now)
        conditions = tuple(c for c in pod.status.conditions if c.type != names.GATE)
        condition = Condition(names.GATE, str(gate.open), gate.reason, last_transition_time=since)
        served = {names.SERVED_CONTAINER: gate.served_container} if gate.served_container else {}
        labels = relabelled(pod.metadata.labels, {names.GATE: "true" if gate.open else None})
        metadata = replace(pod.metadata, labels=labels, annotations={**pod.metadata.annotations, **served})
        return self._put(
            replace(pod, metadata=metadata, status=replace(pod.status, conditions=(*conditions, condition)))
        )

    async def label_pod(self, pod: Pod, labels: dict[str, str | None]) -> Pod:
        self._ask("label_pod", pod.metadata.name)
        return self._put(replace(pod, metadata=replace(pod.metadata, labels=relabelled(pod.metadata.labels, labels))))

    async def delete_pod(self, pod: Pod, grace_seconds: int | None) -> None:
        self._ask("delete_pod", pod.metadata.name)
        grace = 107 if grace_seconds is None else grace_seconds
        leaving = replace(pod.metadata, deletion_timestamp=moment(NOW + grace), deletion_grace_period_seconds=grace)
        self.put(replace(pod, metadata=leaving))

    async def apply_server(self, manifest: dict[str, Any]) -> AppServer:
        own = manifest["metadata"]
        self._ask("apply_server", own["name"])
        known = self._servers.get((own["namespace"], own["name"]))
        uid = known.metadata.uid if known else self._new_uid()
        made = msgspec.convert({**manifest, "metadata": {**own, "uid": uid}}, AppServer)
        applied: AppServer = self.alter(replace(made, status=known.status) if known else made)
        return self._put(applied)

    async def replace_template(self, server: AppServer, template: dict[str, Any]) -> AppServer:
        self._ask("replace_template", server.metadata.name)
        return self._put(replace(server, spec=replace(server.spec, template=template)))

    async def delete_server(self, namespace: str, name: str, uid: str) -> None:
        self._ask("delete_server", f"{namespace}/{name} {uid}")
        del self._servers[namespace, name]

    async def apply_object(self, manifest: dict[str, Any]) -> Kept:
        self._ask("apply_object", f"{manifest['kind']} {manifest['metadata']['name']}")
        kind: type[Kept] = Service if manifest["kind"] == "Service" else Budget
        known = self._of(kind).get((manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
        uid = known.metadata.uid if known else self._new_uid()
        made = msgspec.convert({**manifest, "metadata": {**manifest["metadata"], "uid": uid}}, kind)
        applied: Kept = self.alter(made)
        return self._put(applied)

    async def delete_object(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._ask("delete_object", f"{kind} {name} {uid}")
        del (self._services if kind == "Service" else self._budgets)[namespace, name]

    async def set_finalizers(self, server: AppServer, finalizers: list[str]) -> AppServer | None:
        self._ask("set_finalizers", ",".join(finalizers))
        return self._put(replace(server, metadata=replace(server.metadata, finalizers=tuple(finalizers))))

    async def remove_annotation(self, owner: Own, annotation: str) -> Own:
        self._ask("remove_annotation", annotation)
        if self.latest(owner).metadata.resource_version != owner.metadata.resource_version:
            raise ClusterError(409, "the object has been modified")
        rest = {key: value for key, value in owner.metadata.annotations.items() if key != annotation}
        return self._put(replace(owner, metadata=replace(owner.metadata, annotations=rest)))

    async def apply_server_status(self, server: AppServer, status: dict[str, Any]) -> AppServer:
        self._ask("server_status")
        return self._put(replace(server, status=msgspec.convert(status, type(server.status))))

    async def apply_group_status(self, group: ServerGroup, status: dict[str, Any]) -> ServerGroup:
        self._ask("group_status")
        return self._put(replace(group, status=msgspec.convert(status, type(group.status))))

    async def create_event(self, event: dict[str, Any]) -> None:
        name = event["metadata"]["name"]
        self._ask("create_event", name)
        if name in self.events:
            raise ClusterError(409, f"{name} already exists")
        self.events[name] = event

    async def count_event(self, metadata: dict[str, str], series: dict[str, Any]) -> bool:
        self._ask("count_event", metadata["name"])
        known = self.events.get(metadata["name"])
        if known:
            known["series"] = series
        return known is not None

    def _ask(self, request: str, name: str = "") -> None:
        self.asked.append(request)
        self.refuse(request, name)

    def _new_uid(self) -> str:
        return f"made-{next(self._versions)}"

    def _newer(self, thing: Any) -> Any:
        version = str(next(self._versions))
        return replace(thing, metadata=replace(thing.metadata, resource_version=version))

    def _put(self, thing: T) -> T:
        self.put(thing)
        put: T = self._of(type(thing))[_key(thing)]
        return put

    def _of(self, kind: type) -> dict[Key, Any]:
        kinds: dict[type, dict[Key, Any]] = {
            AppServer: self._servers,
            ServerGroup: self._groups,
            Pod: self._pods,
            Service: self._services,
            Budget: self._budgets,
        }
        return kinds[kind]


class FakeRecorder(Recorder):
    """Keeps what it is given, and writes nothing."""

    def __init__(self) -> None:
        super().__init__(FakeCluster(), "test", lambda: 0.0)
        self.notes: list[Note] = []

    def record(self, owner: AppServer | ServerGroup, note: Note, now: Seconds) -> None:  # noqa: ARG002
        self.notes.append(note)

    def reasons(self) -> list[str]:
        return [note.reason for note in self.notes]


def relabelled(labels: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    """What a patch makes of labels."""
    return {key: value for key, value in {**labels, **changes}.items() if value is not None}


class FakeWildFly:
    """Takes the place of `WildFly` in `control.admins`."""

    opened: list["FakeWildFly"] = []

    def __init__(self, host: str, port: int, username: str, password: str) -> None:
        self.address = (host, port)
        self.credentials = (username, password)
        self.is_closed = False
        self.says = report()
        self.done: list[str] = []
        FakeWildFly.opened.append(self)

    async def report(self) -> Report:
        return self.says

    async def shed(self) -> None:
        self.done.append("shed")

    async def unshed(self) -> None:
        self.done.append("unshed")

    async def suspend(self) -> None:
        self.done.append("suspend")

    async def resume(self) -> None:
        self.done.append("resume")

    async def stop(self) -> None:
        self.done.append("stop")

    async def close(self) -> None:
        self.is_closed = True


def refusing(request: str, status: int, *those: str) -> Callable[[str, str], None]:
    """Refuse these requests, for `those` or for all."""

    def refuse(asked: str, name: str) -> None:
        if asked == request and (not those or name in those):
            raise ClusterError(status, f"{request} {name} is refused")

    return refuse


def _is_of(server: AppServer, group: str) -> bool:
    return server.metadata.labels.get(names.SERVER_GROUP) == group


def _key(thing: Any) -> Key:
    return (thing.metadata.namespace, thing.metadata.name)
