"""The requests that the loop makes to Kubernetes. Every call is one request."""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from quiesce.model.lease import Lease
from quiesce.model.objects import Budget, EndpointSlice, Kept, Metadata, Narrow, Node, Pod, ResourceQuota, Service
from quiesce.model.plan import SetGate
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.text import shown
from quiesce.model.times import Seconds

Own = TypeVar("Own", AppServer, ServerGroup)
Thing = TypeVar("Thing")


class ClusterError(Exception):
    """A request that the API server refused or did not answer; the message is the API server's own, safe to show."""

    def __init__(self, status: int, message: str, retry_after: Seconds = 0) -> None:
        """`retry_after`: how long the API server asks to wait before the next request."""
        self.status = status
        self.retry_after = retry_after
        self.message = shown(message)
        super().__init__(self.message)

    @property
    def is_refusal(self) -> bool:
        """Whether the object itself is refused: invalid, too large, over a quota, by a failing webhook."""
        return self.status in (400, 403, 413, 422, 500)


class Listed(msgspec.Struct, Generic[Thing], frozen=True):
    """All objects of one kind, as of this resource version."""

    things: list[Thing] = []
    version: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """All objects that the operator needs, from one list of each kind."""

    servers: Listed[AppServer]
    groups: Listed[ServerGroup]
    pods: Listed[Pod]
    slices: Listed[EndpointSlice]
    services: Listed[Service]
    budgets: Listed[Budget]


class Cluster(Protocol):
    """Reads are live, and return None for what doesn't exist. Raises ClusterError."""

    async def everything(self) -> Snapshot: ...

    async def server(self, namespace: str, name: str) -> AppServer | None: ...

    async def servers(self, namespace: str, group: str) -> list[AppServer]: ...

    async def group(self, namespace: str, name: str) -> ServerGroup | None: ...

    async def pod(self, namespace: str, name: str) -> Pod | None: ...

    async def pods(self, namespace: str, group: str) -> list[Pod]: ...

    async def service(self, namespace: str, name: str) -> Service | None: ...

    async def budget(self, namespace: str, name: str) -> Budget | None: ...

    async def node(self, name: str) -> Node | None: ...

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None: ...

    async def pod_manifest(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The whole object, including what `Pod` omits."""

    async def quotas(self, namespace: str) -> list[ResourceQuota]: ...

    async def create_pod(self, manifest: dict[str, Any]) -> Pod: ...

    async def try_pod(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """A dry run: the pod as it would be created."""

    async def adopt_pod(self, pod: Pod, owner: dict[str, Any], gone: str) -> Pod:
        """Own this exact pod, in place of an owner with the UID `gone`; a pod with any other owner is left alone."""

    async def set_gate(self, pod: Pod, gate: SetGate, now: Seconds) -> Pod: ...

    async def label_pod(self, pod: Pod, labels: dict[str, str | None]) -> Pod: ...

    async def delete_pod(self, pod: Pod, grace_seconds: int | None) -> None:
        """Delete this exact pod; one with the same name but another UID is left alone."""

    async def apply_server(self, manifest: dict[str, Any]) -> AppServer: ...

    async def replace_template(self, server: AppServer, template: dict[str, Any]) -> AppServer:
        """Leave nothing else in its pod template: an apply removes only what it has applied before."""

    async def delete_server(self, namespace: str, name: str, uid: str) -> None: ...

    async def apply_object(self, manifest: dict[str, Any]) -> Kept: ...

    async def delete_object(self, kind: str, namespace: str, name: str, uid: str) -> None: ...

    async def set_finalizers(self, server: AppServer, finalizers: list[str]) -> AppServer | None: ...

    async def remove_annotation(self, owner: Own, annotation: str) -> Own:
        """If the object is still as it was read, else 409: an annotation that was set again is another request."""

    async def apply_server_status(self, server: AppServer, status: dict[str, Any]) -> AppServer: ...

    async def apply_group_status(self, group: ServerGroup, status: dict[str, Any]) -> ServerGroup: ...

    async def create_event(self, event: dict[str, Any]) -> None: ...

    async def count_event(self, metadata: dict[str, str], series: dict[str, Any]) -> bool:
        """Write how often an Event has occurred; False if it is gone."""


class Leases(Protocol):
    async def lease(self, namespace: str, name: str) -> Lease | None: ...

    async def write_lease(self, lease: Lease) -> Lease:
        """Create it if it was never read; otherwise update it if it is still as it was read, else 409."""


class Held(Narrow, frozen=True):
    """An AppServer, of which only the metadata is decoded."""

    metadata: Metadata


class ScaleStatus(Narrow, frozen=True):
    selector: str = ""


class Scale(Narrow, frozen=True):
    """A Deployment's scale subresource."""

    status: ScaleStatus = ScaleStatus()


class Remains(Leases, Protocol):
    """What is left of an operator, for `quiesce cleanup`."""

    async def leave_out_forbidden(self) -> Sequence[str]:
        """Raises 403 if no namespace is left, 404 without the CRDs."""

    async def scale_to_zero(self, namespace: str, deployment: str) -> Scale | None: ...

    async def selected_pods(self, namespace: str, selector: str) -> list[Pod]: ...

    async def held(self) -> list[Held]: ...

    async def keep_finalizers(self, held: Held, finalizers: list[str]) -> None: ...

    async def delete_lease(self, lease: Lease) -> None:
        """If it is still as it was read; otherwise, it is left alone."""
