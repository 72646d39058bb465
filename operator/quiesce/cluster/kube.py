"""The port's adapter: `kubernetes.aio` for connection, authentication and TLS, narrow types for the responses."""

import json
import logging
import os
import re
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio import client, config

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import ClusterError, Held, Listed, Own, Scale, Snapshot
from quiesce.model import names
from quiesce.model.lease import Lease
from quiesce.model.objects import Budget, EndpointSlice, Kept, Narrow, Node, Pod, ResourceQuota, Service
from quiesce.model.plan import SetGate
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds, moment

T = TypeVar("T")
logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 10
# An admission webhook may take 30 s (`timeoutSeconds`); the API server's answer then names it.
ADMISSION_SECONDS = 40
# The operator retries whatever fails at least this often, even if the API server asks for more time.
MOST_RETRY_AFTER_SECONDS = 30.0
JSON = "application/json"
# With its charset: the client sends a body of an unknown type unchanged.
APPLY = "application/apply-patch+yaml; charset=utf-8"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

OWN = f"/apis/{names.API_VERSION}/namespaces/{{namespace}}"
SERVERS = OWN + "/appservers"
GROUPS = OWN + "/servergroups"
PODS = "/api/v1/namespaces/{namespace}/pods"
QUOTAS = "/api/v1/namespaces/{namespace}/resourcequotas"
SERVICES = "/api/v1/namespaces/{namespace}/services"
BUDGETS = "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
KEPT: dict[str, tuple[str, type[Service] | type[Budget]]] = {
    "Service": (SERVICES, Service),
    "PodDisruptionBudget": (BUDGETS, Budget),
}
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
EVENTS = "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{namespace}/deployments"

# Characters that YAML rejects, drops or treats as line breaks, and surrogates, which can't be encoded (YAML 1.2,
# sections 5.1 and 5.4; go-yaml treats U+0085, U+2028 and U+2029 as line breaks).
NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# A longer key has to be marked as one (YAML 1.2, section 7.4.3).
KEY_CHARACTERS = 1000
# Possessive, so that a long string takes no memory for each of its characters.
STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"(?P<is_key>:)?')


class ListMeta(Narrow, frozen=True):
    resource_version: str = "0"
    continue_: str = msgspec.field(name="continue", default="")


class Items(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw] = []
    metadata: ListMeta = ListMeta()


class Secret(msgspec.Struct, frozen=True):
    data: dict[str, str] = {}


class ApiStatus(msgspec.Struct, frozen=True):
    """The API server's response to a request that it refuses (apimachinery `Status`)."""

    message: str = ""


class KubeCluster:
    """The API server of the process's configuration: the pod's service account, or a kubeconfig."""

    def __init__(self, api: client.ApiClient, namespaces: Sequence[str]) -> None:
        self._api = api
        self._namespaces = list(namespaces)
        self.clock = Clock()

    @classmethod
    async def connect(cls, namespaces: Sequence[str] = ()) -> "KubeCluster":
        """`namespaces` to manage; empty for all."""
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config()
            else:
                await config.load_kube_config()
        except (config.ConfigException, OSError) as error:
            chosen = os.environ.get("KUBECONFIG", "not set")
            raise ClusterError(0, f"can't connect to the API server: {error} (KUBECONFIG is {chosen})") from error
        return cls(client.ApiClient(), namespaces)

    async def close(self) -> None:
        await self._api.close()

    async def leave_out_forbidden(self) -> Sequence[str]:
        """The namespaces to manage, without those that were deleted together with their RoleBinding."""
        wanted, refusal = self._namespaces, ""
        self._namespaces = []
        for namespace in wanted:
            try:
                await self._send("GET", SERVERS, namespace, Items, query=[("limit", "1")])
                self._namespaces.append(namespace)
            except ClusterError as error:
                if error.status != HTTPStatus.FORBIDDEN:
                    raise
                refusal = str(error)
                logger.error("skipping namespace %s until the next start: %s", namespace, error)
        if wanted and not self._namespaces:
            raise ClusterError(HTTPStatus.FORBIDDEN, f"no namespace is left to manage: {refusal}")
        return self._namespaces

    async def everything(self) -> Snapshot:
        return Snapshot(
            servers=await self._list_all(SERVERS, "", AppServer),
            groups=await self._list_all(GROUPS, "", ServerGroup),
            pods=await self._list_all(PODS, f"{names.MANAGED}=true", Pod),
            slices=await self._list_all(SLICES, "", EndpointSlice),
            services=await self._list_all(SERVICES, f"{names.MANAGED}=true", Service),
            budgets=await self._list_all(BUDGETS, f"{names.MANAGED}=true", Budget),
        )

    async def server(self, namespace: str, name: str) -> AppServer | None:
        return await self._find(_named(SERVERS, name), namespace, AppServer)

    async def servers(self, namespace: str, group: str) -> list[AppServer]:
        return (await self._list(SERVERS, namespace, f"{names.SERVER_GROUP}={group}", AppServer)).things

    async def group(self, namespace: str, name: str) -> ServerGroup | None:
        return await self._find(_named(GROUPS, name), namespace, ServerGroup)

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return await self._find(_named(PODS, name), namespace, Pod)

    async def pods(self, namespace: str, group: str) -> list[Pod]:
        return (await self._list(PODS, namespace, f"{names.SERVER_GROUP}={group}", Pod)).things

    async def service(self, namespace: str, name: str) -> Service | None:
        return await self._find(_named(SERVICES, name), namespace, Service)

    async def budget(self, namespace: str, name: str) -> Budget | None:
        return await self._find(_named(BUDGETS, name), namespace, Budget)

    async def node(self, name: str) -> Node | None:
        return await self._find(_named("/api/v1/nodes", name), "", Node)

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        secret = await self._find(_named("/api/v1/namespaces/{namespace}/secrets", name), namespace, Secret)
        return None if secret is None else {key: b64decode(value) for key, value in secret.data.items()}

    async def pod_manifest(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._find(_named(PODS, name), namespace, dict[str, Any])

    async def quotas(self, namespace: str) -> list[ResourceQuota]:
        return (await self._list(QUOTAS, namespace, "", ResourceQuota)).things

    async def create_pod(self, manifest: dict[str, Any]) -> Pod:
        namespace = manifest["metadata"]["namespace"]
        return await self._send("POST", PODS, namespace, Pod, manifest, within=ADMISSION_SECONDS)

    async def try_pod(self, manifest: dict[str, Any]) -> dict[str, Any]:
        # Only the dry run validates strictly: creating a pod that is needed must not fail because of a misspelt field.
        query = [("dryRun", "All"), ("fieldValidation", "Strict")]
        namespace = manifest["metadata"]["namespace"]
        kind = dict[str, Any]
        return await self._send("POST", PODS, namespace, kind, manifest, query=query, within=ADMISSION_SECONDS)

    async def adopt_pod(self, pod: Pod, owner: dict[str, Any], gone: str) -> Pod:
        own = pod.metadata
        # They are merged with others' by UID; the API server refuses a second controller.
        references = [owner, *([{"$patch": "delete", "uid": gone}] if gone else [])]
        patch = {"metadata": {"uid": own.uid, "ownerReferences": references}}
        return await self._send("PATCH", _named(PODS, own.name), own.namespace, Pod, patch, content=STRATEGIC)

    async def set_gate(self, pod: Pod, gate: SetGate, now: Seconds) -> Pod:
        own = pod.metadata
        condition = {
            "type": names.GATE,
            "status": "True" if gate.open else "False",
            "reason": gate.reason,
            "lastTransitionTime": moment(float(int(now))).isoformat(),
        }
        annotations = {}
        if gate.served_container:
            annotations[names.SERVED_CONTAINER] = gate.served_container
        if gate.open:
            # A changed annotation makes the kubelet sync the pod immediately and run its readiness probe, which would
            # otherwise wait for the probe's period.
            annotations[names.OPENED_AT] = moment(now).isoformat()
        labels = {names.GATE: "true" if gate.open else None}
        metadata = {"uid": own.uid, "labels": labels, "annotations": annotations}
        patch = {"metadata": metadata, "status": {"conditions": [condition]}}
        return await self._send("PATCH", _named(PODS, own.name, "status"), own.namespace, Pod, patch, content=STRATEGIC)

    async def label_pod(self, pod: Pod, labels: dict[str, str | None]) -> Pod:
        # Through the status subresource, which the gate needs permission for anyway.
        own = pod.metadata
        patch = {"metadata": {"uid": own.uid, "labels": labels}}
        return await self._send("PATCH", _named(PODS, own.name, "status"), own.namespace, Pod, patch, content=STRATEGIC)

    async def delete_pod(self, pod: Pod, grace_seconds: int | None) -> None:
        options: dict[str, Any] = {"preconditions": {"uid": pod.metadata.uid}}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._delete(_named(PODS, pod.metadata.name), pod.metadata.namespace, options)

    async def apply_server(self, manifest: dict[str, Any]) -> AppServer:
        return await self._apply(SERVERS, manifest, AppServer)

    async def replace_template(self, server: AppServer, template: dict[str, Any]) -> AppServer:
        own = server.metadata
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": own.uid},
            {"op": "replace", "path": "/spec/template", "value": template},
        ]
        path = _named(SERVERS, own.name)
        return await self._send(
            "PATCH", path, own.namespace, AppServer, patch, content=JSON_PATCH, within=ADMISSION_SECONDS
        )

    async def delete_server(self, namespace: str, name: str, uid: str) -> None:
        await self._delete(_named(SERVERS, name), namespace, {"preconditions": {"uid": uid}})

    async def apply_object(self, manifest: dict[str, Any]) -> Kept:
        collection, kind = KEPT[manifest["kind"]]
        return await self._apply(collection, manifest, kind)

    async def delete_object(self, kind: str, namespace: str, name: str, uid: str) -> None:
        await self._delete(_named(KEPT[kind][0], name), namespace, {"preconditions": {"uid": uid}})

    async def set_finalizers(self, server: AppServer, finalizers: list[str]) -> AppServer | None:
        own = server.metadata
        patch = {"metadata": {"resourceVersion": own.resource_version, "finalizers": finalizers}}
        path = _named(SERVERS, own.name)
        return await _if_there(self._send("PATCH", path, own.namespace, AppServer, patch, content=MERGE))

    async def remove_annotation(self, owner: Own, annotation: str) -> Own:
        path = SERVERS if isinstance(owner, AppServer) else GROUPS
        own = owner.metadata
        version = {"uid": own.uid, "resourceVersion": own.resource_version}
        patch = {"metadata": {**version, "annotations": {annotation: None}}}
        return await self._send("PATCH", _named(path, own.name), own.namespace, type(owner), patch, content=MERGE)

    async def apply_server_status(self, server: AppServer, status: dict[str, Any]) -> AppServer:
        return await self._apply_status(SERVERS, server, status)

    async def apply_group_status(self, group: ServerGroup, status: dict[str, Any]) -> ServerGroup:
        return await self._apply_status(GROUPS, group, status)

    async def create_event(self, event: dict[str, Any]) -> None:
        await self._send("POST", EVENTS, event["metadata"]["namespace"], ApiStatus, event)

    async def count_event(self, metadata: dict[str, str], series: dict[str, Any]) -> bool:
        path, patch = _named(EVENTS, metadata["name"]), {"series": series}
        counted = self._send("PATCH", path, metadata["namespace"], ApiStatus, patch, content=MERGE)
        return await _if_there(counted) is not None

    async def lease(self, namespace: str, name: str) -> Lease | None:
        return await self._find(_named(LEASES, name), namespace, Lease)

    async def write_lease(self, lease: Lease) -> Lease:
        namespace, name = lease.metadata["namespace"], lease.metadata["name"]
        body = msgspec.to_builtins(lease)
        if "resourceVersion" in lease.metadata:
            return await self._send("PUT", _named(LEASES, name), namespace, Lease, body)
        return await self._send("POST", LEASES, namespace, Lease, body)

    async def delete_lease(self, lease: Lease) -> None:
        own = lease.metadata
        options = {"preconditions": {"resourceVersion": own["resourceVersion"]}}
        await self._delete(_named(LEASES, own["name"]), own["namespace"], options)

    async def scale_to_zero(self, namespace: str, deployment: str) -> Scale | None:
        path, patch = _named(DEPLOYMENTS, deployment, "scale"), {"spec": {"replicas": 0}}
        return await _if_there(self._send("PATCH", path, namespace, Scale, patch, content=MERGE))

    async def selected_pods(self, namespace: str, selector: str) -> list[Pod]:
        return (await self._list(PODS, namespace, selector, Pod)).things

    async def held(self) -> list[Held]:
        return (await self._list_all(SERVERS, "", Held)).things

    async def keep_finalizers(self, held: Held, finalizers: list[str]) -> None:
        own = held.metadata
        patch = {"metadata": {"resourceVersion": own.resource_version, "finalizers": finalizers}}
        await self._send("PATCH", _named(SERVERS, own.name), own.namespace, ApiStatus, patch, content=MERGE)

    async def _apply_status(self, path: str, owner: Own, status: dict[str, Any]) -> Own:
        own = owner.metadata
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": type(owner).__name__,
            "metadata": {"name": own.name, "namespace": own.namespace, "uid": own.uid},
            "status": status,
        }
        return await self._send(
            "PATCH", _named(path, own.name, "status"), own.namespace, type(owner), manifest, content=APPLY
        )

    async def _apply(self, collection: str, manifest: dict[str, Any], kind: type[T]) -> T:
        own = manifest["metadata"]
        path = _named(collection, own["name"])
        return await self._send(
            "PATCH", path, own["namespace"], kind, manifest, content=APPLY, within=ADMISSION_SECONDS
        )

    async def _find(self, path: str, namespace: str, kind: type[T]) -> T | None:
        return await _if_there(self._send("GET", path, namespace, kind))

    async def _list_all(self, path: str, selector: str, kind: type[T]) -> Listed[T]:
        """From all managed namespaces; of their versions, the oldest is true of all."""
        if not self._namespaces:
            return await self._list(path.replace("/namespaces/{namespace}", ""), "", selector, kind)
        lists = [await self._list(path, there, selector, kind) for there in self._namespaces]
        return Listed([thing for one in lists for thing in one.things], min(one.version for one in lists))

    async def _list(self, path: str, namespace: str, selector: str, kind: type[T]) -> Listed[T]:
        """All pages; each object is decoded separately: one that can't be decoded doesn't hide the rest."""
        found, versions, following = list[T](), list[int](), ""
        while True:
            query = [("limit", "500"), ("labelSelector", selector), ("continue", following)]
            page = await self._send("GET", path, namespace, Items, query=[(k, v) for k, v in query if v])
            found += [item for raw in page.items if (item := _decode(raw, kind))]
            versions.append(int(page.metadata.resource_version))
            following = page.metadata.continue_
            if not following:
                return Listed(found, min(versions))

    async def _delete(self, path: str, namespace: str, options: dict[str, Any]) -> None:
        try:
            await self._send("DELETE", path, namespace, ApiStatus, options)
        except ClusterError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):  # gone, or replaced by another
                raise

    async def _send(
        self,
        method: str,
        path: str,
        namespace: str,
        kind: type[T],
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        *,
        content: str = JSON,
        query: list[tuple[str, str]] | None = None,
        within: Seconds = REQUEST_TIMEOUT_SECONDS,
    ) -> T:
        query = list(query or [])
        if content == APPLY:
            query += [("force", "true")]
        if method in ("POST", "PUT", "PATCH"):
            query += [("fieldManager", names.MANAGER)]
        sent_at = self.clock.tick()
        try:
            request = await self._api.param_serialize(
                method,
                path,
                path_params={"namespace": namespace},
                query_params=query,
                header_params={"Accept": JSON, "Content-Type": content},
                body=_yaml(body) if content == APPLY else body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=within)
            raw = await response.read()
        except TimeoutError as error:
            raise ClusterError(0, f"the API server did not answer within {within:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError) as error:
            raise ClusterError(0, f"the API server did not answer: {error!r}") from error
        self.clock.hear(response.headers.get("Date"), sent_at)
        if response.status >= HTTPStatus.BAD_REQUEST:
            retry_after = _retry_after(response.headers.get("Retry-After", ""))
            raise ClusterError(response.status, _message(raw), retry_after)
        return msgspec.json.decode(raw, type=kind)


def _retry_after(value: str) -> Seconds:
    """A date, which the header may also contain (RFC 9110), counts as nothing: the API server writes seconds."""
    return min(float(value), MOST_RETRY_AFTER_SECONDS) if value.isascii() and value.isdigit() else 0


def _yaml(body: object) -> bytes:
    """JSON that is also valid YAML: a surrogate pair as escapes, as in ASCII JSON, is an error in YAML."""
    return STRING.sub(_marked, NOT_IN_YAML.sub(_escape, json.dumps(body, ensure_ascii=False))).encode()


def _marked(match: re.Match[str]) -> str:
    return f"? {match[0]}" if match["is_key"] and len(match[0]) > KEY_CHARACTERS else match[0]


def _escape(match: re.Match[str]) -> str:
    is_half = "\ud800" <= match[0] <= "\udfff"  # Go replaces it with U+FFFD too
    return "\\ufffd" if is_half else f"\\u{ord(match[0]):04x}"


async def _if_there(request: Awaitable[T]) -> T | None:
    try:
        return await request
    except ClusterError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


def _named(collection: str, name: str, subresource: str = "") -> str:
    """The path of one object; a user's input as the name must not lead to another path."""
    path = f"{collection}/{quote(name, safe='')}"
    if name in ("", ".", ".."):
        raise ClusterError(HTTPStatus.NOT_FOUND, f"{name!r} is not a name")
    return f"{path}/{subresource}" if subresource else path


def _decode(raw: msgspec.Raw, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        logger.error("skipped a %s that can't be decoded: %s", kind.__name__, error)
        return None


def _message(raw: bytes) -> str:
    try:
        return msgspec.json.decode(raw, type=ApiStatus).message
    except msgspec.DecodeError:
        return raw[:200].decode(errors="replace")
