"""Builders with sensible defaults: a server that serves, its pod, what it says, and one look at all of it."""

from typing import Any, Literal

import msgspec

from quiesce.decide.group import GroupObservation
from quiesce.decide.members import Member
from quiesce.decide.observation import Notes, Observation
from quiesce.decide.podspec import template_hash
from quiesce.model import names
from quiesce.model.objects import (
    Condition,
    Container,
    ContainerPort,
    ContainerState,
    ContainerStatus,
    ManagedFields,
    Metadata,
    OwnerReference,
    OwnMetadata,
    Pod,
    PodSpec,
    PodStatus,
    ReadinessGate,
    Running,
    Waiting,
)
from quiesce.model.resources import (
    Admin,
    AppServer,
    AppServerSpec,
    AppServerStatus,
    Drain,
    GroupService,
    RollingUpdate,
    Scope,
    SecretRef,
    ServerGroup,
    ServerGroupSpec,
    ServerGroupStatus,
    ServerTemplate,
    ServerTemplateMetadata,
    Strategy,
)
from quiesce.model.server import AdminFailure, Report, SuspendState
from quiesce.model.times import Seconds, moment

NOW: Seconds = 1_800_000_000.0
CONTAINER = "containerd://1"
HOLD = 77  # of the default timeout and margin
GRACE = 107


def template(image: str = "wildfly:1", **pod_spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "management", "containerPort": 9990}]
    return {"spec": {"containers": [{"name": "wildfly", "image": image, "ports": ports}], **pod_spec}}


def spec(**changes: Any) -> AppServerSpec:
    admin = Admin(port="management", credentials_secret_ref=SecretRef("shop-admin"))
    return AppServerSpec(**{"admin": admin, "template": template(), **changes})


def server(
    name: str = "shop-0",
    *,
    annotations: dict[str, str] | None = None,
    by: str = "",
    deleted: bool = False,
    finalizers: tuple[str, ...] = (names.FINALIZER,),
    status: AppServerStatus | None = None,
    of: ServerGroup | None = None,
    labels: dict[str, str] | None = None,
    **changes: Any,
) -> AppServer:
    """One that serves, unless `status` says otherwise. `by`: the field manager that set the annotations."""
    fields: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{key}": {} for key in annotations or {}}}}
    owner = OwnerReference("ServerGroup", of.metadata.name, of.metadata.uid, controller=True) if of else None
    return AppServer(
        metadata=OwnMetadata(
            name=name,
            namespace="shop",
            uid=f"uid-{name}",
            generation=1,
            labels=labels or {},
            annotations=annotations or {},
            finalizers=finalizers,
            deletion_timestamp=moment(NOW) if deleted else None,
            owner_references=(owner,) if owner else (),
            managed_fields=(ManagedFields(by, fields),) if by else (),
        ),
        spec=spec(**changes),
        status=status or AppServerStatus(state="Running"),
    )


def pod(
    name: str = "shop-0",
    *,
    uid: str = "",
    gate: bool = True,
    ready: bool | None = None,
    unready_for: Seconds | None = None,
    container: str | None = CONTAINER,
    served: str = CONTAINER,
    up_for: Seconds = 3600,
    created_at: Seconds = NOW - 3600,
    of: dict[str, Any] | None = None,
    template_hash_is: str | None = None,
    leaving_for: Seconds | None = None,
    grace: int = GRACE,
    waiting: Waiting | None = None,
    conditions: tuple[Condition, ...] = (),
    init: tuple[ContainerStatus, ...] = (),
    ip: str = "10.0.0.7",
    phase: str = "Running",
    owner_uid: str = "",
    owned: bool = True,
) -> Pod:
    """The pod of template `of`.

    `container` None: it does not run; `served`: the one whose gate was opened, if any; `leaving_for`: since when the
    pod is being deleted.
    """
    running = ContainerState(running=Running(moment(NOW - up_for)))
    is_ready = unready_for is None and (gate if ready is None else ready)
    since = None if unready_for is None else moment(NOW - unready_for)
    held = (Condition("Ready", str(is_ready), last_transition_time=since), Condition(names.GATE, str(gate)))
    hash_ = template_hash(template() if of is None else of) if template_hash_is is None else template_hash_is
    kind = "StatefulSet" if owner_uid else "AppServer"
    owner = OwnerReference(kind, name, owner_uid or f"uid-{name}", controller=True)
    return Pod(
        metadata=Metadata(
            name=name,
            namespace="shop",
            uid=uid or f"pod-{name}",
            creation_timestamp=moment(created_at),
            deletion_timestamp=None if leaving_for is None else moment(NOW - leaving_for + grace),
            deletion_grace_period_seconds=None if leaving_for is None else grace,
            labels={
                names.MANAGED: "true",
                names.SERVER: name,
                names.SERVER_GROUP: "shop",
                names.TEMPLATE_HASH: hash_,
                **({names.GATE: "true"} if gate else {}),
            },
            annotations={
                names.TEMPLATE_HASH: hash_,
                names.HOLD_SECONDS: str(HOLD),
                names.ADMIN_PORT: "management",
                names.ADMIN_SECRET: "shop-admin",
                **({names.SERVED_CONTAINER: served} if served else {}),
            },
            owner_references=(owner,) if owned else (),
        ),
        spec=PodSpec(
            (Container("wildfly", (ContainerPort(9990, "management"),)),), GRACE, (ReadinessGate(names.GATE),)
        ),
        status=PodStatus(
            phase=phase,
            pod_ip=ip,
            conditions=(*held, *conditions),
            init_container_statuses=init,
            container_statuses=(
                ContainerStatus(
                    "wildfly", container or "", state=running if container else ContainerState(waiting or Waiting())
                ),
            ),
        ),
    )


def earlier(of: Pod) -> Pod:
    """As 0.1.0 created it."""
    annotations = {key: value for key, value in of.metadata.annotations.items() if key != names.ADMIN_SECRET}
    return msgspec.structs.replace(of, metadata=msgspec.structs.replace(of.metadata, annotations=annotations))


def with_containers(of: Pod, *containers: Container) -> Pod:
    return msgspec.structs.replace(of, spec=msgspec.structs.replace(of.spec, containers=containers))


def stray(name: str = "shop-0", *, ready: bool = True, **changes: Any) -> Pod:
    """A pod of a StatefulSet that was deleted without its pods."""
    left = pod(name, owned=False, gate=False, ready=ready, **changes)
    metadata = msgspec.structs.replace(left.metadata, labels={"app": "shop"}, annotations={})
    return msgspec.structs.replace(left, metadata=metadata, spec=msgspec.structs.replace(left.spec, readiness_gates=()))


def report(
    suspend_state: SuspendState = "RUNNING",
    *,
    active: int | None = 0,
    shed: bool = False,
    runs: bool = True,
    waits_for: str = "",
) -> Report:
    state = "running" if runs or waits_for else "starting"
    return Report(suspend_state, state, runs and not waits_for, active, shed, shed, waits_for)


def drain(
    scope: Scope = "Server",
    *,
    since: Seconds = NOW - 10,
    suspending_since: Seconds | None = None,
    container: str = CONTAINER,
    forced: bool = False,
    drained: bool = False,
) -> Drain:
    """A drain that is written down."""
    began = None if suspending_since is None else moment(suspending_since)
    return Drain(scope, moment(since), container, suspending_since=began, forced=forced, drained=drained)


def status(state: Any, suspend: Drain | None = None, **changes: Any) -> AppServerStatus:
    return AppServerStatus(state=state, suspend=suspend, **changes)


def look(
    of: AppServer | None = None,
    at: Pod | str | None = "its pod",
    admin: Report | AdminFailure | str | None = "it serves",
    *,
    routes: tuple[str, ...] | None = None,
    notes: Notes | None = None,
    now: Seconds = NOW,
    group: ServerGroup | None = None,
    unconfirmable: tuple[str, ...] = (),
    killed_at: Seconds | None = None,
) -> Observation:
    """One look, measured; by default at a server that serves. Notes are those of the pod's container."""
    seen = pod() if isinstance(at, str) else at
    ready = seen is not None and seen.holds("Ready") and seen.metadata.deletion_timestamp is None
    observation = Observation(
        now=now,
        server=of or server(),
        group=group,
        pod=seen,
        routes=routes if routes is not None else ("shop",) if ready else (),
        unconfirmable=unconfirmable,
        admin=report() if isinstance(admin, str) else admin,
        killed_at=killed_at,
        notes=notes or Notes(),
    )
    container = observation.container
    known = msgspec.structs.replace(observation.notes, container_id=container.container_id if container else "")
    return msgspec.structs.replace(observation, notes=known).measured()


def group(
    replicas: int = 3,
    *,
    annotations: dict[str, str] | None = None,
    status: ServerGroupStatus | None = None,
    max_unavailable: int | str = 1,
    max_surge: int | str = 0,
    desired_state: Any = "Running",
    deleted: bool = False,
    metadata: ServerTemplateMetadata | None = None,
    budget: Literal["Managed", "None"] = "None",
    service: GroupService | None = None,
    **changes: Any,
) -> ServerGroup:
    """`changes` go to the spec of its servers."""
    return ServerGroup(
        metadata=OwnMetadata(
            name="shop",
            namespace="shop",
            uid="uid-shop",
            generation=1,
            annotations=annotations or {},
            deletion_timestamp=moment(NOW) if deleted else None,
        ),
        spec=ServerGroupSpec(
            template=ServerTemplate(spec(**changes), metadata or ServerTemplateMetadata()),
            replicas=replicas,
            desired_state=desired_state,
            strategy=Strategy(rolling_update=RollingUpdate(max_unavailable, max_surge)),
            pod_disruption_budget=budget,
            service=service,
        ),
        status=status or ServerGroupStatus(),
    )


def applied(of: ServerGroup) -> tuple[dict[str, str], dict[str, str]]:
    """The labels and annotations that a group gives its servers."""
    users = of.spec.template.metadata
    hash_ = template_hash(msgspec.to_builtins(users))
    labels = {**users.labels, names.SERVER_GROUP: of.metadata.name}
    return labels, {**users.annotations, names.METADATA_HASH: hash_}


def member(
    ordinal: int,
    of: ServerGroup,
    at: Pod | str | None = "its pod",
    *,
    annotations: dict[str, str] | None = None,
    **changes: Any,
) -> Member:
    """A server of a group that serves; `changes` are those of `server`."""
    name = f"{of.metadata.name}-{ordinal}"
    labels, own = applied(of)
    one = server(name, of=of, labels=labels, annotations={**own, **(annotations or {})}, **changes)
    return Member(one, pod(name) if isinstance(at, str) else at)


def look_at_group(
    of: ServerGroup,
    *members: Member,
    taken: frozenset[str] = frozenset(),
    going: frozenset[str] = frozenset(),
    now: Seconds = NOW,
) -> GroupObservation:
    return GroupObservation(now=now, group=of, members=members, taken=taken, going=going)
