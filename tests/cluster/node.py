"""One of the cluster's two nodes: its own container runtime, kubelet, folders, bridge and address range."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import images, paths, processes
from tests.cluster.images import Archive
from tests.cluster.pki import Authority, Pair
from tests.cluster.steps import ClusterError, output, run

# Debian's package containernetworking-plugins puts them there.
CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Node:
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def bridge(self) -> str:
        return f"pods-{self.number}"

    @property
    def subnet(self) -> str:
        return f"10.88.{self.number - 1}.0/24"

    @property
    def address(self) -> str:
        return f"10.88.{self.number - 1}.1"

    @property
    def runtime(self) -> str:
        """The container runtime's name as a daemon."""
        return f"containerd-{self.number}"

    @property
    def kubelet(self) -> str:
        return f"kubelet-{self.number}"

    @property
    def folder(self) -> Path:
        return paths.CLUSTER / self.name

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def containers(self) -> list[str]:
        """The containers that have a folder, alive or not."""
        return [folder.name for folder in self.folder.glob("containerd/io.containerd.runtime.v2.task/k8s.io/*")]

    def start_runtime(self) -> None:
        """Starts containerd, without the containers that a run which died has left in its books."""
        self._launch_runtime()
        left = self._ctr("containers", "list", "--quiet").split()
        if left:
            self._ctr("containers", "delete", *left)
            # It has read its checkpoints at the start, and would keep reporting them.
            processes.stop([self.runtime])
            self._launch_runtime()

    def start_kubelet(self, authority: Authority, server: str) -> None:
        addresses = (self.name, self.address, "127.0.0.1")
        pair = authority.issue(self.name, f"system:node:{self.name}", "system:nodes", addresses)
        authority.kubeconfig(self.folder / "kubelet.kubeconfig", server, pair)
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet_config(authority, pair)))
        self._launch_kubelet()

    def kill(self) -> None:
        """The loss of the node: nothing on it terminates gracefully, and nothing reports it."""
        processes.kill_below(self.folder, paths.NODES / self.name)

    def boot(self) -> None:
        """Starts a node that was killed, as a machine starts: without anything that ran on it."""
        self.kill()
        containers = self.containers
        processes.unmount_below(self.folder, paths.NODES / self.name)
        processes.remove_cgroups(containers)
        for state in ("containerd", "addresses"):
            shutil.rmtree(self.folder / state, ignore_errors=True)
        self.start_runtime()
        self._launch_kubelet()

    def load(self, archives: Iterable[Archive]) -> bool:
        """Imports image archives; False if all are there already."""
        books = paths.NODES / self.name / "images.json"
        known: dict[str, str] = json.loads(books.read_text()) if books.exists() else {}
        present = set(self._ctr("images", "list", "--quiet").split())
        missing = [
            one for one in archives if known.get(one.name) != one.stamp or not present.issuperset(one.references)
        ]
        ctr = (paths.BIN / "ctr", "--address", self.socket, "--namespace=k8s.io")
        for archive in missing:
            run(*ctr, "images", "import", archive.file, log=f"import-{self.name}-{archive.name}")
            known[archive.name] = archive.stamp
            books.write_text(json.dumps(known))
        return bool(missing)

    def _launch_kubelet(self) -> None:
        processes.start(
            self.kubelet,
            "kubelet",
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={self.folder / 'kubelet'}",
        )

    def _launch_runtime(self) -> None:
        network = self.folder / "cni"
        network.mkdir(parents=True, exist_ok=True)
        (network / "10-bridge.conflist").write_text(json.dumps(self._network_config()))
        config = self.folder / "containerd.toml"
        config.write_text(self._runtime_config(network))
        (paths.NODES / self.name).mkdir(parents=True, exist_ok=True)
        processes.start(self.runtime, "containerd", f"--config={config}")
        processes.wait_for(f"{self.name}'s containerd answers", self._runtime_answers, self.runtime, timeout=30)

    def _runtime_answers(self) -> bool:
        try:
            # The CRI plugin is the last to come up, and images can be imported only then.
            plugins = self._ctr("plugins", "list").splitlines()
        except ClusterError:
            return False
        return any(
            line.split()[:2] == ["io.containerd.grpc.v1", "cri"] and line.split()[-1] == "ok" for line in plugins
        )

    def _ctr(self, *arguments: str) -> str:
        return output(paths.BIN / "ctr", "--address", self.socket, "--namespace=k8s.io", *arguments)

    def _runtime_config(self, network: Path) -> str:
        runc = shutil.which("runc", path=processes.environment()["PATH"])
        if not runc or not CNI_PLUGINS.exists():
            raise ClusterError("runc or the CNI plugins are missing. Run `make setup` as root.")
        # restrict_oom_score_adj: where the machine forbids to lower the score, runc would die of it.
        return f"""version = 3
root = "{paths.NODES / self.name / "containerd"}"
state = "{self.folder / "containerd"}"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
  address = "{self.socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{images.PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{network}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"""

    def _network_config(self) -> object:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": self.subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self.folder / "addresses"),
        }
        bridge = {
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": addresses,
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": self.bridge, "plugins": [bridge, ports]}

    def _kubelet_config(self, authority: Authority, pair: Pair) -> object:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.pair.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pair.certificate),
            "tlsPrivateKeyFile": str(pair.key),
            "address": self.address,
            "healthzPort": 10248 + 100 * (self.number - 1),
            "nodeLeaseDurationSeconds": 10,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            # Each its own: with the default folder two kubelets delete each other's logs.
            "podLogsDir": str(self.folder / "pod-logs"),
            "resolvConf": "",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            # A container that is killed over and over is back at once: the tests kill the operator often.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
            # This machine's disk isn't the tests' business.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
        }
