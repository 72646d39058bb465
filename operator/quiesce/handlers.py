"""kopf only delivers events: each is decoded and passed on. Nothing is decided, stored or awaited here."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import kopf
import msgspec

from quiesce.control.operator import Operator
from quiesce.model import names
from quiesce.model.objects import Budget, EndpointSlice, Event, Pod, Service
from quiesce.model.resources import AppServer, ServerGroup

logger = logging.getLogger(__name__)


def settings() -> kopf.OperatorSettings:
    """Kopf without anything that writes: no Events, annotations, finalizers or peering of its own."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    for plural in ("pods", "services", "poddisruptionbudgets"):
        chosen.watching.label_selectors[plural] = f"{names.MANAGED}=true"
    # Nothing in a pod's status shows that the kubelet is restarting one of its containers in place.
    chosen.watching.field_selectors["events"] = "involvedObject.kind=Pod,reason=Killing"
    chosen.networking.error_backoffs = (1, 2, 5)
    chosen.queueing.batch_window = 0.02  # our own queue coalesces, and each wait here would prolong a drain
    return chosen


def registry(operator: Operator) -> kopf.OperatorRegistry:
    triggers = kopf.OperatorRegistry()

    @kopf.on.login(registry=triggers)
    async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        account = kopf.login_with_service_account(**arguments)
        if account is None:
            return kopf.login_with_kubeconfig(**arguments)
        # By address, as every other client does: kopf's default is a name, which needs the cluster's DNS.
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        return replace(account, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")

    own = (names.GROUP, names.VERSION)
    _watch(triggers, operator, (*own, "appservers"), AppServer, operator.see_server)
    _watch(triggers, operator, (*own, "servergroups"), ServerGroup, operator.see_group)
    _watch(triggers, operator, ("", "v1", "pods"), Pod, operator.see_pod)
    _watch(triggers, operator, ("discovery.k8s.io", "v1", "endpointslices"), EndpointSlice, operator.see_slice)
    _watch(triggers, operator, ("", "v1", "events"), Event, operator.see_event)
    _watch(triggers, operator, ("", "v1", "services"), Service, operator.see_kept)
    _watch(triggers, operator, ("policy", "v1", "poddisruptionbudgets"), Budget, operator.see_kept)
    return triggers


def _watch(
    triggers: kopf.OperatorRegistry,
    operator: Operator,
    resource: tuple[str, str, str],
    kind: type[Any],
    see: Callable[..., None],
) -> None:
    @kopf.on.event(*resource, registry=triggers)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        body = event["object"]
        try:
            thing = msgspec.convert(body, kind)
        except msgspec.ValidationError as error:
            own = body.get("metadata", {})
            where = f"{resource[2]} {own.get('namespace')}/{own.get('name')}"
            logger.error("skipped %s, which can't be decoded: %s", where, error)
            return
        if event["type"] is None:
            operator.listed()
        see(thing, gone=event["type"] == "DELETED")
