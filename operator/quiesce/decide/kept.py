"""What a group maintains besides its servers: a PodDisruptionBudget and, on request, a Service and a headless one."""

from collections.abc import Iterable
from typing import Any

import msgspec

from quiesce.decide.budget import max_unavailable
from quiesce.decide.podspec import headless_name, owner_reference, template_hash
from quiesce.model import names
from quiesce.model.objects import Budget, Kept, Service, is_same
from quiesce.model.plan import Act, ApplyObject, DeleteObject
from quiesce.model.resources import GroupService, ServerGroup
from quiesce.model.times import Seconds

Manifest = dict[str, Any]

# Pods of an earlier version get their label from this one. A Service that already has such pods doesn't select it until
# so long afterwards: by then, the EndpointSlice controller must have seen the pods' labels.
LABELLED_SECONDS = 5.0


def keep(group: ServerGroup, found: Iterable[Kept], labelled_for: Seconds | None) -> list[Act]:
    """The steps from the existing objects, of this group or without an owner, to the desired ones.

    `labelled_for`: for how long every pod with an open gate is known to have its label; None if one doesn't.
    """
    known = {(kind_of(thing), thing.metadata.name): thing for thing in found}
    by_label = selects_label_in(group, known.values(), labelled_for) == 0
    wanted = {(m["kind"], m["metadata"]["name"]): m for m in _wanted(group, by_label=by_label)}
    acts: list[Act] = [
        ApplyObject(manifest) for key, manifest in wanted.items() if key not in known or not is_so(known[key], manifest)
    ]
    # A finalizer may hold what is deleted already: a load balancer's holds its Service.
    unwanted = {k: thing for k, thing in known.items() if k not in wanted and not thing.metadata.deletion_timestamp}
    return acts + [DeleteObject(*key, thing.metadata.uid) for key, thing in unwanted.items()]


def selects_label_in(group: ServerGroup, found: Iterable[Kept], labelled_for: Seconds | None) -> Seconds | None:
    """How long until the Service may select the gate's label; None if a pod still lacks it."""
    service = next((s for s in found if isinstance(s, Service) and s.metadata.name == group.metadata.name), None)
    if service and names.GATE in (service.spec.get("selector") or {}):
        return 0
    if labelled_for is None:
        return None
    return max(0, LABELLED_SECONDS - labelled_for) if service else 0


def kind_of(thing: Kept) -> str:
    return "PodDisruptionBudget" if isinstance(thing, Budget) else "Service"


def _wanted(group: ServerGroup, *, by_label: bool) -> list[Manifest]:
    spec, name = group.spec, group.metadata.name
    manifests = []
    if spec.pod_disruption_budget == "Managed":
        manifests.append(_manifest(group, "PodDisruptionBudget", name, _budget(group)))
    if spec.service:
        service = spec.service
        manifests += [
            _manifest(group, "Service", name, _service(group, service, by_label=by_label), service),
            _manifest(group, "Service", headless_name(name), _headless(group, service)),
        ]
    return manifests


def _budget(group: ServerGroup) -> Manifest:
    """Kubernetes supports percentages and `maxUnavailable` only for pods whose owner has a scale subresource.

    A pod that isn't ready serves no one: evicting it costs nothing, and the hold drains what is left.
    """
    return {
        "minAvailable": max(0, group.spec.replicas - max_unavailable(group)),
        "selector": {"matchLabels": _selector(group)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def _service(group: ServerGroup, service: GroupService, *, by_label: bool) -> Manifest:
    """With the gate's label, it also suits load balancers whose targets are pods regardless of readiness."""
    selector = _selector(group) | ({names.GATE: "true"} if by_label else {})
    fields = msgspec.to_builtins(msgspec.structs.replace(service, labels={}, annotations={}))
    return {**fields, "type": service.type, "selector": selector, "ports": list(service.ports)}


def _headless(group: ServerGroup, service: GroupService) -> Manifest:
    """For servers to find each other, also before they serve; not for requests."""
    ports = [{key: value for key, value in port.items() if key != "nodePort"} for port in service.ports]
    fields = msgspec.to_builtins(service)
    families = {key: fields[key] for key in ("ipFamilies", "ipFamilyPolicy") if key in fields}
    own = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": _selector(group), "ports": ports}
    return {**families, **own}


def _selector(group: ServerGroup) -> dict[str, str]:
    return {names.SERVER_GROUP: group.metadata.name}


def _manifest(
    group: ServerGroup, kind: str, name: str, spec: Manifest, service: GroupService | None = None
) -> Manifest:
    """With the labels and annotations of `spec.service`, for the Service that has them."""
    labels, annotations = (service.labels, service.annotations) if service else ({}, {})
    # Without labels it is the hash of the versions before there were any: their Services are not written for it.
    wish = {"spec": spec, "annotations": annotations} | ({"labels": labels} if labels else {})
    return {
        "apiVersion": "v1" if kind == "Service" else "policy/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": group.metadata.namespace,
            "labels": {**labels, names.MANAGED: "true", **_selector(group)},
            "annotations": {**annotations, names.SPEC_HASH: template_hash(wish)},
            "ownerReferences": [owner_reference(group)],
        },
        "spec": spec,
    }


def is_so(found: Kept, manifest: Manifest) -> bool:
    """The hash shows that the desired object has changed, the comparison that someone else has changed it."""
    metadata = manifest["metadata"]
    (group,) = metadata["ownerReferences"]
    return (
        found.metadata.is_owned_by(group["uid"])
        and metadata["labels"].items() <= found.metadata.labels.items()
        and metadata["annotations"].items() <= found.metadata.annotations.items()
        and found.spec.get("selector") == manifest["spec"]["selector"]  # an additional label selects other pods
        and _covers(found.spec, manifest["spec"])
    )


def _covers(found: Any, wanted: Any) -> bool:
    """Whether all desired fields are there; defaults that the API server has added don't matter."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_covers(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        alike = isinstance(found, list) and len(found) == len(wanted)
        return alike and all(_covers(*pair) for pair in zip(found, wanted, strict=True))
    return is_same(found, wanted)
