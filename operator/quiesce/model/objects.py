"""The parts of Kubernetes objects that the operator reads: decoding skips the rest, to save memory and time."""

import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

# The kubelet's name for a container of a pod.
CONTAINER = re.compile(r"spec\.containers\{(.+)\}")


def is_same(one: object, other: object) -> bool:
    """Whether two values are the same as JSON. In Python, 1 equals True, but the API server takes only one of them."""
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")


class Narrow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    pass


class OwnerReference(Narrow, frozen=True):
    kind: str
    name: str
    uid: str
    controller: bool = False


class ManagedFields(Narrow, frozen=True):
    manager: str = ""
    fields_v1: dict[str, Any] = msgspec.field(name="fieldsV1", default_factory=dict)


class Metadata(Narrow, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = "0"
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name: unique among the objects of one kind that exist at the same time."""
        return (self.namespace, self.name)

    @property
    def owner(self) -> OwnerReference | None:
        return next((owner for owner in self.owner_references if owner.controller), None)

    def is_owned_by(self, uid: str) -> bool:
        """Whether the object with this UID is its controller: a deleted object may have had the same name."""
        return self.owner is not None and self.owner.uid == uid


class OwnMetadata(Metadata, frozen=True):
    """For the operator's own kinds: for other kinds, `managedFields` would make up most of the cache."""

    managed_fields: tuple[ManagedFields, ...] = ()

    def annotated_by(self, annotation: str) -> str:
        """The field manager that set an annotation; empty if it is not known."""
        for entry in self.managed_fields:
            if f"f:{annotation}" in entry.fields_v1.get("f:metadata", {}).get("f:annotations", {}):
                return entry.manager
        return ""


class Condition(Narrow, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int = 0


class Conditioned(Narrow, frozen=True, kw_only=True):
    """A status with conditions, one of each type."""

    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def holding(self, kind: str) -> Condition | None:
        """The condition, if it is True."""
        found = self.condition(kind)
        return found if found and found.status == "True" else None


class ContainerPort(Narrow, frozen=True):
    container_port: int
    name: str = ""


class Container(Narrow, frozen=True):
    name: str
    ports: tuple[ContainerPort, ...] = ()


class ReadinessGate(Narrow, frozen=True):
    condition_type: str


class PodSpec(Narrow, frozen=True):
    containers: tuple[Container, ...] = ()
    termination_grace_period_seconds: int = 0
    readiness_gates: tuple[ReadinessGate, ...] = ()
    node_name: str = ""
    init_containers: tuple[Container, ...] = ()


class Waiting(Narrow, frozen=True):
    reason: str = ""
    message: str = ""


class Running(Narrow, frozen=True):
    started_at: datetime | None = None


class Terminated(Narrow, frozen=True):
    exit_code: int = 0
    reason: str = ""
    finished_at: datetime | None = None


class ContainerState(Narrow, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Narrow, frozen=True):
    name: str
    container_id: str = msgspec.field(name="containerID", default="")
    ready: bool = False
    started: bool = False  # for an init container: it is a sidecar, and has started
    restart_count: int = 0
    image: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodIP(Narrow, frozen=True):
    ip: str = ""


class PodStatus(Conditioned, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class NamedPort(Narrow, frozen=True):
    container: str
    number: int


class Pod(Narrow, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def port(self, name: str) -> NamedPort | None:
        """The port with this name; of several, the first container's, as for a Service."""
        ports = ((port, NamedPort(c.name, port.container_port)) for c in self.spec.containers for port in c.ports)
        return next((found for port, found in ports if port.name == name), None)

    @property
    def addresses(self) -> set[str]:
        """One for each IP family of the cluster; none before the pod has started."""
        return {address for address in (self.status.pod_ip, *(one.ip for one in self.status.pod_ips)) if address}

    @property
    def lacks_sandbox(self) -> bool:
        """Whether the kubelet has to create the pod's sandbox (KEP-3085); it ends all containers in an old one."""
        ready = self.condition("PodReadyToStartContainers")
        return ready is not None and ready.status == "False"

    def condition(self, kind: str) -> Condition | None:
        return self.status.condition(kind)

    def holds(self, kind: str) -> bool:
        return self.status.holding(kind) is not None


class Taint(Narrow, frozen=True):
    key: str


class NodeSpec(Narrow, frozen=True):
    taints: tuple[Taint, ...] = ()


class NodeStatus(Conditioned, frozen=True):
    pass


class Node(Narrow, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class TargetRef(Narrow, frozen=True):
    uid: str = ""


class EndpointConditions(Narrow, frozen=True):
    ready: bool | None = None


class Endpoint(Narrow, frozen=True):
    conditions: EndpointConditions = EndpointConditions()
    target_ref: TargetRef | None = None
    addresses: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """An endpoint without this condition counts as ready (EndpointSlice API, `conditions.ready`)."""
        return self.conditions.ready is not False


class EndpointPort(Narrow, frozen=True):
    name: str | None = None
    port: int | None = None


class EndpointSlice(Narrow, frozen=True):
    metadata: Metadata
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class Target(NamedTuple):
    """A port of a pod that a Service sends requests to, and the name of the Service's port."""

    service: str
    name: str
    port: int


class Service(Narrow, frozen=True):
    metadata: Metadata
    spec: dict[str, Any] = {}

    @property
    def publishes_not_ready(self) -> bool:
        """Whether its EndpointSlices list every address as ready, regardless of the pods' conditions."""
        return bool(self.spec.get("publishNotReadyAddresses"))


class InvolvedObject(Narrow, frozen=True):
    uid: str = ""
    field_path: str = ""


class Event(Narrow, frozen=True):
    """A `Killing` Event of the kubelet (core/v1)."""

    metadata: Metadata
    involved_object: InvolvedObject = InvolvedObject()
    message: str = ""
    last_timestamp: datetime | None = None

    @property
    def killed_container(self) -> str:
        found = CONTAINER.fullmatch(self.involved_object.field_path)
        return found[1] if found else ""

    @property
    def gives_cause(self) -> bool:
        """Whether the kubelet restarts this one container in place; it ends all of a pod without giving a cause.

        (The kubelet's `killContainer`, and the messages of its `computePodActions`.)
        """
        return not self.message.startswith("Stopping container")


class QuotaSelector(Narrow, frozen=True):
    scope_name: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()


class ScopeSelector(Narrow, frozen=True):
    match_expressions: tuple[QuotaSelector, ...] = ()


class QuotaSpec(Narrow, frozen=True):
    scopes: tuple[str, ...] = ()
    scope_selector: ScopeSelector | None = None


class QuotaStatus(Narrow, frozen=True):
    hard: dict[str, str] = {}
    used: dict[str, str] = {}


class ResourceQuota(Narrow, frozen=True):
    metadata: Metadata
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class Budget(Narrow, frozen=True):
    """A PodDisruptionBudget."""

    metadata: Metadata
    spec: dict[str, Any] = {}


# What a group maintains besides its servers.
Kept = Service | Budget
