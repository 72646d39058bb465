"""The cluster's own network namespace, and the one cable between it and the host.

In a namespace of its own the cluster can't collide with the machine's ports and firewall rules, and it goes without a
trace. The host reaches the API server, pods and Services through a veth pair.
"""

import shutil
import subprocess
from pathlib import Path

from tests.cluster.steps import ClusterError, output

NAMESPACE = "quiesce"
HOST_LINK = "quiesce-host"
HOST_ADDRESS = "10.88.255.1"
ADDRESS = "10.88.255.2"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"


def create(bridges: dict[str, tuple[str, str]]) -> None:
    """Makes the namespace, a bridge for each node (name → gateway address, subnet) and the cable to the host."""
    _ip("netns", "add", NAMESPACE)
    _ip("link", "add", HOST_LINK, "type", "veth", "peer", "name", "uplink", "netns", NAMESPACE)
    _ip("address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_LINK)
    _ip("link", "set", HOST_LINK, "up")
    inside("link", "set", "lo", "up")
    inside("address", "add", f"{ADDRESS}/30", "dev", "uplink")
    inside("link", "set", "uplink", "up")
    for bridge, (gateway, subnet) in bridges.items():
        inside("link", "add", bridge, "type", "bridge")
        inside("address", "add", f"{gateway}/{subnet.split('/')[1]}", "dev", bridge)
        inside("link", "set", bridge, "up")
        _ip("route", "add", subnet, "via", ADDRESS)
    # What calls a Service from inside the namespace needs a route before kube-proxy's rules rewrite the address.
    inside("route", "add", SERVICES, "dev", next(iter(bridges)))
    _ip("route", "add", SERVICES, "via", ADDRESS)
    if not Path("/proc/sys/net/bridge").exists() and shutil.which("modprobe"):
        output("modprobe", "br_netfilter")
    # Without the second, answers between two pods of one node would bypass the rules that rewrite a Service's address.
    output(*enter("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1"))


def remove() -> None:
    """Removes the namespace and the cable, once none of our processes is left in it."""
    others = output("ip", "netns", "pids", NAMESPACE).split() if exists() else []
    if others:
        raise ClusterError(
            f"Other processes use the network namespace {NAMESPACE}: {others}. End them, then run again."
        )
    for kind, name in (("link", HOST_LINK), ("netns", NAMESPACE)):
        subprocess.run(["ip", kind, "delete", name], capture_output=True, check=False)
    if exists():
        raise ClusterError(f"The network namespace {NAMESPACE} is still there. `ip netns delete {NAMESPACE}` says why.")


def exists() -> bool:
    return _file().exists()


def enter(*command: str | Path, namespace: str = NAMESPACE) -> list[str]:
    """The command, run inside a namespace; unlike `ip netns exec` it leaves the mounts as they are."""
    return ["nsenter", f"--net={_file(namespace)}", *map(str, command)]


def inside(*arguments: str, namespace: str = NAMESPACE) -> None:
    """`ip`, for what is in a namespace."""
    output("ip", "-n", namespace, *arguments)


def _file(namespace: str = NAMESPACE) -> Path:
    return Path("/run/netns") / namespace


def _ip(*arguments: str) -> None:
    output("ip", *arguments)
