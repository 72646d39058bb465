"""What a group keeps beside its servers: a PodDisruptionBudget and, on request, a Service and a headless one."""

from collections.abc import Iterable
from typing import Any

from quiesce.decide.budget import max_unavailable
from quiesce.decide.podspec import headless_name, owner_reference, template_hash
from quiesce.model import names
from quiesce.model.objects import Budget, Kept, Service
from quiesce.model.plan import Act, ApplyObject, DeleteObject
from quiesce.model.resources import GroupService, ServerGroup
from quiesce.model.times import Seconds

Manifest = dict[str, Any]

# Pods that an earlier version let serve get their label from this one. A Service that has them already selects it no
# sooner than so long afterwards: the controller that writes the endpoints must have seen the pods' labels by then.
LABELLED_SECONDS = 5.0


def keep(group: ServerGroup, found: Iterable[Kept], labelled_for: Seconds | None) -> list[Act]:
    """The steps from what is found, of this group and of nobody, to what is wanted.

    `labelled_for`: for how long every pod with an open gate has been known to have its label; None if one has not.
    """
    known = {(kind_of(thing), thing.metadata.name): thing for thing in found}
    by_label = selects_label_in(group, known.values(), labelled_for) == 0
    wanted = {(m["kind"], m["metadata"]["name"]): m for m in _wanted(group, by_label=by_label)}
    acts: list[Act] = [
        ApplyObject(manifest) for key, manifest in wanted.items() if key not in known or not is_so(known[key], manifest)
    ]
    return acts + [DeleteObject(*key, thing.metadata.uid) for key, thing in known.items() if key not in wanted]


def selects_label_in(group: ServerGroup, found: Iterable[Kept], labelled_for: Seconds | None) -> Seconds | None:
    """When the Service for requests is to select the label of the gate; None where a pod still lacks it."""
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
            _manifest(group, "Service", name, _service(group, service, by_label=by_label), service.annotations),
            _manifest(group, "Service", headless_name(name), _headless(group, service)),
        ]
    return manifests


def _budget(group: ServerGroup) -> Manifest:
    """Kubernetes can't reckon with percentages or `maxUnavailable` for pods whose owner has no scale subresource.

    A pod that is not ready serves nobody: evicting it costs nothing, and the hold drains what it has left.
    """
    return {
        "minAvailable": max(0, group.spec.replicas - max_unavailable(group)),
        "selector": {"matchLabels": _selector(group)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def _service(group: ServerGroup, service: GroupService, *, by_label: bool) -> Manifest:
    """By the gate's label, it is right for balancers as well that have the pods as targets whatever their readiness."""
    selector = _selector(group) | ({names.GATE: "true"} if by_label else {})
    return {"type": service.type, "selector": selector, "ports": list(service.ports)}


def _headless(group: ServerGroup, service: GroupService) -> Manifest:
    """For servers to find each other, before they serve as well: requests have no business here."""
    ports = [{key: value for key, value in port.items() if key != "nodePort"} for port in service.ports]
    return {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": _selector(group), "ports": ports}


def _selector(group: ServerGroup) -> dict[str, str]:
    return {names.SERVER_GROUP: group.metadata.name}


def _manifest(
    group: ServerGroup, kind: str, name: str, spec: Manifest, annotations: dict[str, str] | None = None
) -> Manifest:
    annotations = annotations or {}
    return {
        "apiVersion": "v1" if kind == "Service" else "policy/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": group.metadata.namespace,
            "labels": {names.MANAGED: "true", **_selector(group)},
            "annotations": {**annotations, names.SPEC_HASH: template_hash({"spec": spec, "annotations": annotations})},
            "ownerReferences": [owner_reference(group)],
        },
        "spec": spec,
    }


def is_so(found: Kept, manifest: Manifest) -> bool:
    """The hash tells of a wish that changed, the comparison of an object that somebody else has changed."""
    metadata = manifest["metadata"]
    (group,) = metadata["ownerReferences"]
    return (
        found.metadata.is_owned_by(group["uid"])
        and metadata["labels"].items() <= found.metadata.labels.items()
        and metadata["annotations"].items() <= found.metadata.annotations.items()
        and found.spec.get("selector") == manifest["spec"]["selector"]  # one label more selects other pods
        and _covers(found.spec, manifest["spec"])
    )


def _covers(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; what the API server has filled in besides does not matter."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_covers(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        alike = isinstance(found, list) and len(found) == len(wanted)
        return alike and all(_covers(*pair) for pair in zip(found, wanted, strict=True))
    return bool(found == wanted)
