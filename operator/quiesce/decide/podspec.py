"""The pod of a server: the user's template with what a drain needs added to it."""

import hashlib
import json
import math
import re
from typing import Any

import msgspec

from quiesce.model import names
from quiesce.model.objects import NamedPort, Pod
from quiesce.model.resources import AppServer, ServerGroup

# How long a drain may take beyond its margin and timeout: to be seen, confirmed in the endpoints, and for the stop.
RESERVE_SECONDS = 15
# The hold of a pod whose timeout is -1: large, and still an end for a pod that nobody watches any more.
ENDLESS_HOLD_SECONDS = 3600
DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own terminationGracePeriodSeconds


# A hook that only waits, by itself or in a shell.
SLEEP = re.compile(r"(/usr)?(/bin/)?sleep +(?P<count>[0-9]+(\.[0-9]+)?)(?P<unit>[smhd]?)")
SHELL = re.compile(rf"(/usr)?(/bin/)?(ba|da|a)?sh -[a-z]*c (exec +)? *{SLEEP.pattern} *;?")
SHELL_WORDS = 3
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


# What is read of a template and of its metadata; and what tools write there that make templates from pods.
PARTS = ("metadata", "spec")
METADATA = ("labels", "annotations")
OF_PODS = ("name", "generateName", "namespace", "creationTimestamp")
MOST_SECONDS = 86400  # of a hook or a grace period, as the CRD has it


class BadTemplateError(ValueError):
    """A template that can't become a pod; the message names the field and the value."""


def template_hash(template: dict[str, Any]) -> str:
    """Tells templates apart. Only what the user wrote counts, so an upgrade of the operator rolls nothing."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def headless_name(group: str) -> str:
    """The Service by which the servers of a group find each other."""
    return f"{group}-headless"


def hold_seconds(server: AppServer) -> int:
    timeout = server.spec.suspend_timeout_seconds
    return ENDLESS_HOLD_SECONDS if timeout < 0 else server.spec.pre_suspend_seconds + timeout + RESERVE_SECONDS


def admin_container(pod_spec: dict[str, Any], port: str) -> dict[str, Any]:
    """The container that runs the server: the one with the admin port."""
    containers: list[dict[str, Any]] = pod_spec.get("containers") or []
    for container in containers:
        if any(candidate.get("name") == port for candidate in container.get("ports") or ()):
            return container
    known = sorted(p["name"] for c in containers for p in c.get("ports") or () if "name" in p)
    raise BadTemplateError(
        f"spec.admin.port: no container in spec.template has a port named {port!r}; there are {known}"
    )


def admin_port(server: AppServer, pod: Pod) -> NamedPort | None:
    """A pod may be older than the port's name in the spec: it has the name that it was made with."""
    return pod.port(server.spec.admin.port, pod.metadata.annotations.get(names.ADMIN_PORT, ""))


def _check_fields(template: dict[str, Any]) -> None:
    """The API server never sees what is not read here: it would go nowhere, and roll servers all the same."""
    metadata = template.get("metadata") or {}
    for where, part, read, ignored in (
        ("spec.template", template, PARTS, ()),
        ("spec.template.metadata", metadata, METADATA, OF_PODS),
    ):
        unknown = next((key for key in part if key not in (*read, *ignored)), None)
        if unknown:
            raise BadTemplateError(f"{where}.{unknown}: only {' and '.join(read)} are looked at; leave it out")


def _check_end(pod_spec: dict[str, Any]) -> None:
    if pod_spec.get("activeDeadlineSeconds") is not None:
        raise BadTemplateError(
            f"spec.template.spec.activeDeadlineSeconds: {pod_spec['activeDeadlineSeconds']!r} would end the server by "
            "then, without a drain; leave it out"
        )


def _check_restarts(pod_spec: dict[str, Any], container: dict[str, Any]) -> None:
    where = {"restartPolicy": pod_spec, f"containers[name={container.get('name')}].restartPolicy": container}
    for field, part in where.items():
        policy = part.get("restartPolicy") or "Always"
        if policy != "Always" or part.get("restartPolicyRules"):
            raise BadTemplateError(
                f"spec.template.spec.{field}: {policy!r} would leave a server that ended where it is; "
                "leave the field out, or write 'Always'"
            )


def _check_keys(metadata: dict[str, Any]) -> None:
    """Of quiesce.dev only the stamp of a restart may be there, which a group adds to the template of its servers."""
    for part in ("labels", "annotations"):
        for key in metadata.get(part) or ():
            if key.startswith(f"{names.GROUP}/") and (part, key) != ("annotations", names.RESTARTED_AT):
                raise BadTemplateError(
                    f"spec.template.metadata.{part}: {key!r} would be the operator's own on a pod; leave it out, or "
                    "set it on the AppServer or the ServerGroup if it is meant for them"
                )


def _own_wait(container: dict[str, Any]) -> int:
    """How long the template's own preStop hook waits: the hold does that already. A hook that does more is refused."""
    hook = (container.get("lifecycle") or {}).get("preStop")
    if not hook:
        return 0
    where = f"spec.template.spec.containers[name={container.get('name')}].lifecycle.preStop"
    try:
        waits = _sleeps(hook)
    except (TypeError, AttributeError, ValueError, ArithmeticError):
        raise BadTemplateError(f"{where}: {hook!r} can't be read as a hook") from None
    if waits is None:
        raise BadTemplateError(
            f"{where}: the operator holds container {container.get('name')!r} there while it drains; this hook "
            f"({', '.join(hook)}) would run against a server that is being suspended, and be cut when the drain ends: "
            "do it in a sidecar's preStop, or in the server's own shutdown. A hook that only sleeps is fine"
        )
    if not 0 <= waits <= MOST_SECONDS:
        raise BadTemplateError(f"{where}: a hook may sleep for 0 to {MOST_SECONDS} s, not for {waits}")
    return waits


def _sleeps(hook: dict[str, Any]) -> int | None:
    """For how many seconds a hook sleeps, if it does nothing else."""
    native, command = hook.get("sleep") or {}, (hook.get("exec") or {}).get("command") or []
    if "seconds" in native:
        return int(native["seconds"])
    words = " ".join(command)
    match = SHELL.fullmatch(words) if len(command) == SHELL_WORDS else SLEEP.fullmatch(words)
    return math.ceil(float(match["count"]) * UNITS[match["unit"]]) if match else None


def _bound_probes(pod_spec: dict[str, Any], grace: int) -> None:
    """The longer grace period of the pod is for its deletion, and not for a container that a failed probe restarts."""
    sidecars = [c for c in pod_spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*pod_spec["containers"], *sidecars):
        for probe in (container.get("livenessProbe"), container.get("startupProbe")):
            if probe and probe.get("terminationGracePeriodSeconds") is None:
                probe["terminationGracePeriodSeconds"] = max(1, grace)  # the least that the API server takes


def owner_reference(owner: AppServer | ServerGroup) -> dict[str, Any]:
    """What makes an object its owner's: the garbage collector deletes it after the owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": type(owner).__name__,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def has_hold_and_gate(pod: Pod) -> bool:
    """Whether an operator made the pod: one that lost its owner is drained like any other once it has one again."""
    made_of = (names.TEMPLATE_HASH, names.HOLD_SECONDS, names.ADMIN_PORT)
    return has_gate(pod) and all(key in pod.metadata.annotations for key in made_of)


def has_gate(pod: Pod) -> bool:
    return any(gate.condition_type == names.GATE for gate in pod.spec.readiness_gates)


def pod_labels(server: AppServer) -> dict[str, str]:
    """What the operator finds a server's pod by, and its group's Services and budget."""
    group = server.metadata.labels.get(names.SERVER_GROUP)
    in_group = {} if group is None else {names.SERVER_GROUP: group}
    return {names.MANAGED: "true", names.SERVER: server.metadata.name, **in_group}


def build_pod(server: AppServer, group: ServerGroup | None = None) -> dict[str, Any]:
    """The manifest of a server's pod.

    Added to the template: the readiness gate, closed at first; the hold, a preStop hook that only waits, so that
    every deletion leaves time for a drain (its end comes early, when the server's process ends), and takes the place of
    a hook of the template's own that only waits; a grace period that is longer than the hold by the template's own, and
    which liveness and startup probes keep out of;
    labels, owner and the template's hash; and where the group keeps Services, a DNS name in the headless one.

    Raises BadTemplateError.
    """
    try:
        return _build(server, group)
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError) as error:
        if isinstance(error, BadTemplateError):
            raise
        raise BadTemplateError(f"spec.template can't be read as a pod template: {error}") from error


def _build(server: AppServer, group: ServerGroup | None) -> dict[str, Any]:
    template = msgspec.json.decode(msgspec.json.encode(server.spec.template), type=dict[str, Any])
    spec, metadata = template.get("spec") or {}, template.get("metadata") or {}
    container = admin_container(spec, server.spec.admin.port)
    _check_fields(template)
    _check_end(spec)
    _check_restarts(spec, container)
    _check_keys(metadata)
    lifecycle = container["lifecycle"] = container.get("lifecycle") or {}
    hold = max(hold_seconds(server), _own_wait(container))
    lifecycle["preStop"] = {"exec": {"command": ["sh", "-c", f"exec sleep {hold}"]}}
    grace = spec.get("terminationGracePeriodSeconds")
    grace = DEFAULT_GRACE_SECONDS if grace is None else grace
    spec["terminationGracePeriodSeconds"] = hold + int(grace)
    _bound_probes(spec, int(grace))
    gates = [gate for gate in spec.get("readinessGates") or () if gate.get("conditionType") != names.GATE]
    spec["readinessGates"] = [*gates, {"conditionType": names.GATE}]
    own = server.metadata
    if group and group.spec.service and not spec.get("subdomain"):
        spec["subdomain"], spec["hostname"] = headless_name(group.metadata.name), spec.get("hostname") or own.name
    labels = {**own.labels, **(metadata.get("labels") or {}), **pod_labels(server)}
    labels.pop(names.GATE, None)  # it comes with the gate's opening
    annotations = {
        **(metadata.get("annotations") or {}),
        names.TEMPLATE_HASH: template_hash(server.spec.template),
        names.HOLD_SECONDS: str(hold),
        names.ADMIN_PORT: server.spec.admin.port,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": own.name,
            "namespace": own.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(server)],
        },
        "spec": spec,
    }
