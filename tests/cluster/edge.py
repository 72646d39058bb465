"""Nodes as a load balancer outside the cluster sees them: each with a kube-proxy and addresses of its own.

The cluster's nodes share one network namespace and one kube-proxy, for which only the endpoints of one of them are
local. So for as long as a test needs it, each node gets a namespace beside that one, with a kube-proxy that takes the
node's endpoints for local: its node ports and its health check ports are the real ones.
"""

import contextlib
import subprocess
from collections.abc import Iterator

from tests.cluster import network, paths, processes
from tests.cluster.node import Node
from tests.cluster.steps import output

KUBECONFIG = paths.CLUSTER / "pki" / "kube-proxy.kubeconfig"
LINK_BITS = 30


@contextlib.contextmanager
def edges(*nodes: Node) -> Iterator[dict[str, str]]:
    """By the nodes' names, the addresses at which their ports answer."""
    with contextlib.ExitStack() as stack:
        yield {node.name: stack.enter_context(_edge(node)) for node in nodes}


@contextlib.contextmanager
def _edge(node: Node) -> Iterator[str]:
    name, link = f"{network.NAMESPACE}-{node.name}", f"edge-{node.number}"
    gateway, address = f"10.89.{node.number}.1", f"10.89.{node.number}.2"
    route = ("route", "replace", f"{address}/32", "via", network.ADDRESS)
    _remove(name)
    try:
        output("ip", "netns", "add", name)
        network.inside("link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", f"/run/netns/{name}")
        network.inside("address", "add", f"{gateway}/{LINK_BITS}", "dev", link)
        network.inside("link", "set", link, "up")
        for arguments in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{address}/{LINK_BITS}", "dev", "uplink"),
            ("link", "set", "uplink", "up"),
            ("route", "add", "default", "via", gateway),
        ):
            network.inside(*arguments, namespace=name)
        output("ip", *route)
        output(*network.enter("sysctl", "-qw", "net.ipv4.ip_forward=1", namespace=name))
        # A pod's answer has to come back this way. On a node of its own it does; here the pod is on the other side.
        masquerade = ("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "uplink", "-j", "MASQUERADE")
        output(*network.enter(*masquerade, namespace=name))
        processes.start(
            f"kube-proxy-{node.name}",
            "kube-proxy",
            f"--kubeconfig={KUBECONFIG}",
            f"--hostname-override={node.name}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--healthz-bind-address=127.0.0.1",
            "--metrics-bind-address=127.0.0.1",
            namespace=name,
        )
        yield address
    finally:
        processes.stop([f"kube-proxy-{node.name}"])
        subprocess.run(["ip", "route", "delete", *route[2:]], capture_output=True, check=False)
        _remove(name)


def _remove(name: str) -> None:
    """Its links go with it."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
