"""A proxy in the same pod that clients connect to: a drain can't make these connections close.

WildFly closes its own connections, which are the proxy's; those between clients and an HTTP proxy stay open.
"""

import re
from collections.abc import Iterable, Iterator

from quiesce.model.objects import NamedPort, Pod, Target

# Services for monitoring have ports of sidecars, too, and carry no requests of clients.
MONITORING = re.compile(r"metrics|prom|stats|health|admin|jmx", re.IGNORECASE)


def proxies(pod: Pod, server: NamedPort, targets: Iterable[Target]) -> tuple[str, ...]:
    """Which Services send their requests to another container than the server's, in messages; `server` is its port."""
    return tuple(dict.fromkeys(_proxies(pod, server, targets)))


def _proxies(pod: Pod, server: NamedPort, targets: Iterable[Target]) -> Iterator[str]:
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    ports = [(container.name, port) for container in containers for port in container.ports]
    for target in sorted(targets):
        owners = [(name, port.name) for name, port in ports if port.container_port == target.port]
        if not owners or server.container in dict(owners):
            continue
        name, port_name = owners[0]
        if not any(MONITORING.search(word) for word in (target.service, target.name, port_name)):
            yield (
                f"Service {target.service!r} sends requests to port {target.port} of container {name!r}, not to the "
                "server: if that is an HTTP proxy, its connections with clients outlive the server's withdrawal, and "
                "requests on them get 503 once the server is suspended; have the proxy close each connection within "
                "preSuspendSeconds"
            )
