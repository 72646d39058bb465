"""The pod of a server: the user's template, and what a drain needs."""

import hashlib
import json
import math
import re
from typing import Any, NamedTuple

import msgspec

from quiesce.decide.derived import derived
from quiesce.model import names
from quiesce.model.objects import NamedPort, Pod
from quiesce.model.resources import AppServer, AppServerSpec, ServerGroup

# How long a drain may take beyond its margin and timeout: to be noticed, confirmed in the endpoints, and for the stop.
RESERVE_SECONDS = 15
# The hold of a pod whose timeout is -1: long, but finite, in case no operator runs any more.
ENDLESS_HOLD_SECONDS = 3600
DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own terminationGracePeriodSeconds


# A hook that only sleeps, with or without a shell.
SLEEP = re.compile(r"(/usr)?(/bin/)?sleep +(?P<count>[0-9]+(\.[0-9]+)?)(?P<unit>[smhd]?)")
SHELL = r"(/usr)?(/bin/)?(ba|da|a)?sh"
SHELL_SLEEP = re.compile(rf"{SHELL} -[a-z]*c +(exec +)?{SLEEP.pattern} *;?")
SHELL_WORDS = 3
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


# The fields of a template and its metadata that are used; and those left by tools that make templates from pods.
PARTS = ("metadata", "spec")
METADATA = ("labels", "annotations")
OF_PODS = ("name", "generateName", "namespace", "creationTimestamp")
MOST_SECONDS = 86400  # of a hook or a grace period, as in the CRD


class BadTemplateError(ValueError):
    """A template that can't be used for a pod; the message names the field and the value."""


def template_hash(template: dict[str, Any]) -> str:
    """Identifies a template. Only what the user wrote counts, so an upgrade of the operator replaces no pods."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@derived
def hash_of(spec: AppServerSpec) -> str:
    return template_hash(spec.template)


def headless_name(group: str) -> str:
    """The Service through which the servers of a group find each other."""
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
        f"spec.admin.port: no container in spec.template has a port named {port!r}; existing: {known}"
    )


class Revision(NamedTuple):
    """What a pod is created from, as far as a change of it replaces the pod."""

    template_hash: str
    port: str


def revision(spec: AppServerSpec) -> Revision:
    return Revision(hash_of(spec), spec.admin.port)


def is_of(pod: Pod, wanted: Revision) -> bool:
    made_of = pod.metadata.annotations.get(names.TEMPLATE_HASH)
    return made_of == wanted.template_hash and _port_name(pod, wanted.port) == wanted.port


def _port_name(pod: Pod, named: str) -> str:
    """The name of a pod's admin port: that in its own record, whatever the spec names now.

    A pod of an earlier version, which has no record of a Secret, may be in use with another port of the same container.
    """
    record = pod.metadata.annotations.get(names.ADMIN_PORT, "")
    recorded, other = pod.port(record) if record else None, pod.port(named)  # a port without a name is not meant
    if recorded is None:  # someone has edited it
        return named
    is_earlier = names.ADMIN_SECRET not in pod.metadata.annotations
    return named if is_earlier and other and other.container == recorded.container else record


def admin_port(server: AppServer, pod: Pod) -> NamedPort | None:
    """The port at which a pod's server is managed; its container is the server's."""
    return pod.port(_port_name(pod, server.spec.admin.port))


def admin_secrets(server: AppServer, pod: Pod) -> tuple[str, ...]:
    """The Secrets that may have the credentials of a pod's server: the pod's own, or else that of the spec."""
    named = server.spec.admin.credentials_secret_ref.name
    return tuple(dict.fromkeys((pod.metadata.annotations.get(names.ADMIN_SECRET, named), named)))


def _check_fields(template: dict[str, Any]) -> None:
    """The API server never sees fields that are not used: they would have no effect, and still replace pods."""
    metadata = template.get("metadata") or {}
    for where, part, read, ignored in (
        ("spec.template", template, PARTS, ()),
        ("spec.template.metadata", metadata, METADATA, OF_PODS),
    ):
        unknown = next((key for key in part if key not in (*read, *ignored)), None)
        if unknown:
            raise BadTemplateError(f"{where}.{unknown}: only {' and '.join(read)} are used; remove it")


def _check_end(pod_spec: dict[str, Any]) -> None:
    if pod_spec.get("activeDeadlineSeconds") is not None:
        raise BadTemplateError(
            f"spec.template.spec.activeDeadlineSeconds: {pod_spec['activeDeadlineSeconds']!r} would end the server "
            "without a drain; remove it"
        )


def _check_restarts(pod_spec: dict[str, Any], container: dict[str, Any]) -> None:
    where = {"restartPolicy": pod_spec, f"containers[name={container.get('name')}].restartPolicy": container}
    for field, part in where.items():
        policy = part.get("restartPolicy") or "Always"
        if policy != "Always" or part.get("restartPolicyRules"):
            raise BadTemplateError(
                f"spec.template.spec.{field}: {policy!r} would not restart a server that exits; remove the "
                "field, or set it to 'Always'"
            )


def _check_keys(metadata: dict[str, Any]) -> None:
    """Only one key of quiesce.dev is allowed: the time of a restart, which a group adds to its servers' template."""
    for part in ("labels", "annotations"):
        for key in metadata.get(part) or ():
            if key.startswith(f"{names.GROUP}/") and (part, key) != ("annotations", names.RESTARTED_AT):
                raise BadTemplateError(
                    f"spec.template.metadata.{part}: {key!r} is reserved for the operator; remove it, or "
                    "set it on the AppServer or the ServerGroup if it is meant for them"
                )


def _own_wait(container: dict[str, Any]) -> int:
    """How long the template's own preStop hook sleeps: the hold replaces it. A hook that does more is rejected."""
    hook = (container.get("lifecycle") or {}).get("preStop")
    if not hook:
        return 0
    where = f"spec.template.spec.containers[name={container.get('name')}].lifecycle.preStop"
    try:
        waits = _sleeps(hook)
    except (TypeError, AttributeError, ValueError, ArithmeticError):
        raise BadTemplateError(f"{where}: {hook!r} is not a valid hook") from None
    if waits is None:
        raise BadTemplateError(
            f"{where}: the operator sets this hook of container {container.get('name')!r} itself, to hold the pod "
            f"during a drain; yours ({', '.join(hook)}) would run while the server is being suspended, and be cut off "
            "when it stops: use a sidecar's preStop, or the server's own shutdown. A hook that only sleeps is allowed"
        )
    if not 0 <= waits <= MOST_SECONDS:
        raise BadTemplateError(f"{where}: a hook can sleep for 0 to {MOST_SECONDS} s, not {waits}")
    return waits


def _sleeps(hook: dict[str, Any]) -> int | None:
    """For how many seconds a hook sleeps, if it does nothing else."""
    native, command = hook.get("sleep") or {}, (hook.get("exec") or {}).get("command") or []
    if "seconds" in native:
        return int(native["seconds"])
    words = " ".join(command)
    match = SHELL_SLEEP.fullmatch(words) if len(command) == SHELL_WORDS else SLEEP.fullmatch(words)
    return math.ceil(float(match["count"]) * UNITS[match["unit"]]) if match else None


def _bound_probes(pod_spec: dict[str, Any], server: dict[str, Any], grace: int) -> None:
    """The pod's longer grace period is for its deletion, not for a container that a failed probe restarts.

    The hold uses up all of a probe's own period, which delays the restart. A server that is still starting has nothing
    to drain in that time.
    """
    sidecars = [c for c in pod_spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*pod_spec["containers"], *sidecars):
        starting = 0 if container is server else grace
        for probe, period in ((container.get("livenessProbe"), grace), (container.get("startupProbe"), starting)):
            if probe and probe.get("terminationGracePeriodSeconds") is None:
                probe["terminationGracePeriodSeconds"] = max(1, period)  # the minimum that the API server accepts


def owner_reference(owner: AppServer | ServerGroup) -> dict[str, Any]:
    """The reference to an object's owner: the garbage collector deletes the object after the owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": type(owner).__name__,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def has_hold_and_gate(pod: Pod) -> bool:
    """Whether an operator created the pod: if it lost its owner, it can be adopted, and drained like any other."""
    made_of = (names.TEMPLATE_HASH, names.HOLD_SECONDS, names.ADMIN_PORT)
    return has_gate(pod) and all(key in pod.metadata.annotations for key in made_of)


def has_gate(pod: Pod) -> bool:
    return any(gate.condition_type == names.GATE for gate in pod.spec.readiness_gates)


def pod_labels(server: AppServer, made_of: str) -> dict[str, str]:
    """The labels by which the operator, and the group's Services and budget, select a server's pod.

    `made_of`, the hash of the pod's own template, lets a topology spread constraint distinguish the pods of two
    revisions, with `matchLabelKeys`.
    """
    group = server.metadata.labels.get(names.SERVER_GROUP)
    in_group = {} if group is None else {names.SERVER_GROUP: group}
    return {names.MANAGED: "true", names.SERVER: server.metadata.name, names.TEMPLATE_HASH: made_of, **in_group}


def build_pod(server: AppServer, group: ServerGroup | None = None) -> dict[str, Any]:
    """The manifest of a server's pod.

    Added to the template:
    - the readiness gate, initially closed
    - the hold, a preStop hook that only sleeps, so that every deletion leaves time for a drain (it ends early, with the
      server's process); it replaces a hook of the template that only sleeps
    - a grace period of the hold and the template's own; probes that restart a container keep to the
      template's own, and the server's startup probe to the shortest
    - labels, the owner and the template's hash
    - a DNS name in the headless Service, if the group has one

    Raises BadTemplateError.
    """
    try:
        return _build(server, group)
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError) as error:
        if isinstance(error, BadTemplateError):
            raise
        raise BadTemplateError(f"spec.template is not a valid pod template: {error}") from error


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
    _bound_probes(spec, container, int(grace))
    gates = [gate for gate in spec.get("readinessGates") or () if gate.get("conditionType") != names.GATE]
    spec["readinessGates"] = [*gates, {"conditionType": names.GATE}]
    own = server.metadata
    if group and group.spec.service and not spec.get("subdomain"):
        spec["subdomain"], spec["hostname"] = headless_name(group.metadata.name), spec.get("hostname") or own.name
    made_of = hash_of(server.spec)
    labels = {**own.labels, **(metadata.get("labels") or {}), **pod_labels(server, made_of)}
    labels.pop(names.GATE, None)  # added when the gate opens
    annotations = {
        **(metadata.get("annotations") or {}),
        names.TEMPLATE_HASH: made_of,
        names.HOLD_SECONDS: str(hold),
        names.ADMIN_PORT: server.spec.admin.port,
        names.ADMIN_SECRET: server.spec.admin.credentials_secret_ref.name,
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
