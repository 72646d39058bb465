"""Service meshes whose sidecar may be what answers, or hangs up, at a server's admin port."""

import re
from typing import NamedTuple

from quiesce.model.objects import Pod


class Mesh(NamedTuple):
    """How a pod shows that it belongs to a mesh, and the annotation that keeps the mesh away from a port."""

    sidecar: str
    mark: str
    excludes: str


MESHES = (
    Mesh("istio-proxy", "sidecar.istio.io/status", "traffic.sidecar.istio.io/excludeInboundPorts"),
    Mesh("linkerd-proxy", "linkerd.io/proxy-version", "config.linkerd.io/skip-inbound-ports"),
    Mesh("kuma-sidecar", "kuma.io/sidecar-injected", "traffic.kuma.io/exclude-inbound-ports"),
    Mesh(
        "consul-dataplane",
        "consul.hashicorp.com/connect-inject-status",
        "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
    ),
)
RANGE = re.compile(r" *([0-9]{1,5})(?:-([0-9]{1,5}))? *")


def mesh_hint(pod: Pod, port: int) -> str:
    """What to do if a mesh rejects the operator's requests to a port; empty if the pod has no sidecar of one there."""
    annotations = pod.metadata.annotations
    containers = {container.name for container in (*pod.spec.containers, *pod.spec.init_containers)}
    mesh = next((one for one in MESHES if one.sidecar in containers or one.mark in annotations), None)
    if mesh is None:
        return ""
    excluded = [part for part in annotations.get(mesh.excludes, "").split(",") if part.strip()]
    ranges = (match for part in excluded if (match := RANGE.fullmatch(part)))
    if any(int(found[1]) <= port <= int(found[2] or found[1]) for found in ranges):
        return ""
    return (
        f"the pod belongs to a service mesh ({mesh.sidecar}), which may reject requests from outside of it: "
        f'exclude the admin port with the annotation {mesh.excludes}: "{",".join([*excluded, str(port)])}" in the '
        "metadata of the pod template"
    )
