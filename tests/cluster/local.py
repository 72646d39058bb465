"""The local cluster: its start, its end, and cleaning up after a run that died."""

import os
import platform
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pykube

from tests.cluster import access, control_plane, images, network, paths, processes, programs
from tests.cluster.images import Archive
from tests.cluster.node import Node
from tests.cluster.pki import Authority
from tests.cluster.steps import ClusterError, step

NODES = (Node(1), Node(2))
DAEMONS = (*control_plane.DAEMONS, *(name for node in NODES for name in (node.kubelet, node.runtime)))
# The kernel allows 107 bytes for the path of a socket, and containerd adds to ours.
LONGEST_SOCKET = 95
PODS_GONE = 20.0


def up() -> None:
    """Makes the cluster run, from whatever state the machine is in; quick if it runs already."""
    check_machine()
    started = time.monotonic()
    programs.build()
    archives = images.archives()
    with step(5, "Images (about 4 min the first time)") as current:
        current.cached = not images.build(archives)
    running = healthy()
    with step(6, "Network namespace, free of what a former run left") as current:
        current.cached = running
        if not running:
            clean()
            network.create({node.bridge: (node.address, node.subnet) for node in NODES})
    with step(7, "Control plane and two nodes") as current:
        current.cached = running
        if not running:
            _start()
    with step(8, "Images into the nodes (about 1 min the first time)") as current:
        current.cached = not load(archives)
    print(f"The cluster is up after {time.monotonic() - started:.0f} s. Its kubeconfig: {paths.KUBECONFIG}")


def down() -> None:
    """Ends the cluster and leaves the cache: programs, images, logs."""
    check_machine()
    started = time.monotonic()
    # Nothing may recreate pods while they are deleted.
    processes.stop(["kube-scheduler", "kube-controller-manager"])
    if processes.running("kube-apiserver"):
        _delete_pods(access.client(paths.KUBECONFIG))
    paths.KUBECONFIG.unlink(missing_ok=True)
    processes.stop([node.kubelet for node in NODES])
    processes.stop(DAEMONS)
    _remove_leftovers()
    print(f"The cluster is down after {time.monotonic() - started:.0f} s.")


def clean() -> None:
    """Removes what a former run left, however it ended."""
    processes.stop(DAEMONS, patience=2)
    _remove_leftovers()
    if paths.CLUSTER.exists():
        shutil.rmtree(paths.CLUSTER)


def load(archives: list[Archive]) -> bool:
    """Imports images into both nodes; False if they are there already."""
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(node.load, archives) for node in NODES]
        return any([job.result() for job in jobs])  # noqa: C419 (the errors of all)


def healthy() -> bool:
    if not all(map(processes.running, DAEMONS)) or not paths.KUBECONFIG.exists():
        return False
    api = access.client(paths.KUBECONFIG)
    return access.answers(api) and _ready_nodes(api) == len(NODES)


def check_machine() -> None:
    advice = "Use CLUSTER=current with the kubeconfig of a disposable cluster, for example kind."
    if platform.system() != "Linux":
        raise ClusterError(f"The local cluster needs Linux. {advice}")
    if os.geteuid() != 0:
        raise ClusterError(f"The local cluster needs root: it makes network namespaces and containers. {advice}")
    longest = max(len(str(node.socket)) for node in NODES)
    if longest > LONGEST_SOCKET:
        raise ClusterError(f"{NODES[0].socket} is too long for a socket. Set XDG_CACHE_HOME to a shorter folder.")


def _start() -> None:
    paths.CLUSTER.mkdir(parents=True)
    authority = Authority(paths.CLUSTER / "pki")
    with ThreadPoolExecutor() as pool:
        runtimes = [pool.submit(node.start_runtime) for node in NODES]
        control_plane.start(authority, NODES[0].address)
        for runtime in runtimes:
            runtime.result()
    for node in NODES:
        node.start_kubelet(authority, control_plane.SERVER)
    api = access.client(paths.KUBECONFIG)
    kubelet = NODES[-1].kubelet
    processes.wait_for("both nodes are ready", lambda: _ready_nodes(api) == len(NODES), kubelet, timeout=60)


def _ready_nodes(api: pykube.HTTPClient) -> int:
    conditions = [node.obj["status"].get("conditions", []) for node in pykube.Node.objects(api)]
    return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in node) for node in conditions)


def _delete_pods(api: pykube.HTTPClient) -> None:
    """Deletes all pods, and waits for them, but not for long: what stays is killed."""
    pods = pykube.Pod.objects(api, namespace=pykube.all)
    for pod in pods:
        access.delete_pod(pod, grace=1)
    deadline = time.monotonic() + PODS_GONE
    while list(pods.all()) and time.monotonic() < deadline:
        time.sleep(0.3)


def _remove_leftovers() -> None:
    containers = [container for node in NODES for container in node.containers]
    processes.kill_leftovers()
    processes.remove_cgroups(containers)
    processes.unmount_below(paths.CLUSTER, paths.NODES)
    network.remove()
