"""The custom resources, `AppServer` and `ServerGroup`, as `crds/` defines them."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from quiesce.model.objects import Conditioned, Narrow, OwnMetadata

DesiredState = Literal["Running", "Suspended", "Stopped"]
# How a server that is being stopped leaves its Services: by its gate, or by the deletion of its pod.
Withdrawal = Literal["Gate", "Termination"]
State = Literal[
    "Pending", "Starting", "Running", "PreSuspend", "Suspending", "Suspended", "Stopping", "Stopped", "Unknown"
]
Outcome = Literal["Drained", "TimedOut", "Forced", "Aborted"]
# Why a server is taken out of service: who asked at which scope.
Scope = Literal["Server", "Group", "Spec", "Rollout", "Stop", "Removal", "Deletion"]

# With these, the server stays, suspended; all others end with the deletion of its pod.
STAYS: tuple[Scope, ...] = ("Server", "Group", "Spec")

# The `observedGeneration` of an object that no operator has observed yet; the default in the CRDs.
NOT_OBSERVED = -1


class SecretRef(Narrow, frozen=True):
    name: str


class Admin(Narrow, frozen=True):
    port: str
    credentials_secret_ref: SecretRef
    profile: Literal["wildfly"] = "wildfly"


class AppServerSpec(Narrow, frozen=True, dict=True):
    admin: Admin
    template: dict[str, Any]
    desired_state: DesiredState = "Running"
    suspend_timeout_seconds: int = 60
    pre_suspend_seconds: int = 2
    withdrawal: Withdrawal = "Gate"


class Drain(Narrow, frozen=True):
    """A server being taken out of service, or kept out: written before each step, so that a new process continues."""

    scope: Scope
    since: datetime
    container_id: str = msgspec.field(name="containerID", default="")
    requested_by: str = ""
    reason: str = ""
    suspending_since: datetime | None = None
    deadline: datetime | None = None
    forced: bool = False
    drained: bool = False  # the server was suspended: what follows is not another drain
    # Services that publish addresses that are not ready: the withdrawal can't be seen in them.
    unconfirmable: tuple[str, ...] = ()


class LastDrain(Narrow, frozen=True):
    outcome: Outcome
    finished_at: datetime
    duration_seconds: float
    active_requests: int | None = None


class ServerSays(Narrow, frozen=True):
    """What the server itself reported when it was last queried, unchanged."""

    suspend_state: str = ""
    server_state: str = ""


class AppServerStatus(Conditioned, frozen=True):
    state: State | None = None
    observed_generation: int = NOT_OBSERVED
    accepted_suspend: str | None = None
    restart_pod_uid: str | None = msgspec.field(name="restartPodUID", default=None)
    server: ServerSays | None = None
    active_requests: int | None = None
    suspend: Drain | None = None
    last_drain: LastDrain | None = None


class AppServer(Narrow, frozen=True):
    metadata: OwnMetadata
    spec: AppServerSpec
    status: AppServerStatus = AppServerStatus()


class ServerTemplateMetadata(Narrow, frozen=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ServerTemplate(Narrow, frozen=True):
    spec: AppServerSpec
    metadata: ServerTemplateMetadata = ServerTemplateMetadata()


class RollingUpdate(Narrow, frozen=True):
    # Counts, or percentages of replicas.
    max_unavailable: int | str = 1
    max_surge: int | str = 0


class Strategy(Narrow, frozen=True):
    type: Literal["RollingUpdate"] = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class GroupService(Narrow, frozen=True):
    # As in a Service.
    ports: tuple[dict[str, Any], ...]
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    session_affinity: str | None = None
    session_affinity_config: dict[str, Any] | None = None
    external_traffic_policy: str | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    ip_families: list[str] | None = None
    ip_family_policy: str | None = None
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[str] | None = None


class ServerGroupSpec(Narrow, frozen=True):
    template: ServerTemplate
    replicas: int = 1
    desired_state: DesiredState = "Running"
    strategy: Strategy = Strategy()
    pod_disruption_budget: Literal["Managed", "None"] = "Managed"
    service: GroupService | None = None


class ServerGroupStatus(Conditioned, frozen=True):
    observed_generation: int = NOT_OBSERVED
    # None: not counted yet. A zero is written.
    replicas: int | None = None
    ready_replicas: int | None = None
    updated_replicas: int | None = None
    suspended_replicas: int | None = None
    selector: str = ""
    accepted_suspend: str | None = None
    restart_requested_at: datetime | None = None


class ServerGroup(Narrow, frozen=True, dict=True):
    metadata: OwnMetadata
    spec: ServerGroupSpec
    status: ServerGroupStatus = ServerGroupStatus()
