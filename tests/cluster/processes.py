"""Starting and stopping the cluster's programs, by process id and never by name.

A pid file holds the id and the start time, so that a process which got an old id later isn't taken for ours.
"""

import atexit
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster import network, paths
from tests.cluster.steps import ClusterError, tail

PIDS = paths.CLUSTER / "pids"
DAEMON_LOGS = paths.CLUSTER / "logs"
# Python complains of a child that is forgotten while it runs, which fails the test that started it.
_CHILDREN: list[subprocess.Popen[bytes]] = []


@atexit.register
def _let_go() -> None:
    for child in _CHILDREN:
        child.returncode = 0


def environment() -> dict[str, str]:
    """Our programs first on PATH; no proxies, which nothing inside the cluster is behind."""
    path = f"{paths.BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PATH": path}


def start(name: str, program: str, *arguments: str, namespace: str = network.NAMESPACE) -> None:
    """Starts a daemon inside the cluster's network namespace, or another one."""
    PIDS.mkdir(parents=True, exist_ok=True)
    DAEMON_LOGS.mkdir(parents=True, exist_ok=True)
    with log_file(name).open("a") as log:
        process = subprocess.Popen(
            network.enter(paths.BIN / program, *arguments, namespace=namespace),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(),
            cwd=paths.CLUSTER,
        )
    _CHILDREN.append(process)
    (PIDS / name).write_text(f"{process.pid} {_start_time(process.pid)}")


def log_file(name: str) -> Path:
    return DAEMON_LOGS / f"{name}.log"


def running(name: str) -> bool:
    return _pid(name) is not None


def stop(names: Iterable[str], patience: float = 5) -> None:
    """Asks the daemons to go, and kills those that haven't gone after `patience` seconds."""
    wanted = list(names)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for name in wanted:
            pid = _pid(name)
            if pid is not None:
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(map(running, wanted)) and time.monotonic() < deadline:
            time.sleep(0.05)
    for name in wanted:
        (PIDS / name).unlink(missing_ok=True)


@contextmanager
def stopped(*names: str) -> Iterator[None]:
    """Daemons are away for the block, and are then started again as they were, in this order.

    A run that dies inside leaves a cluster that lacks them: the next start of the cluster begins afresh.
    """
    commands = {name: _command(name) for name in names}
    stop(names, patience=1)
    try:
        yield
    finally:
        for name, command in commands.items():
            start(name, *command)


def wait_for(what: str, ready: Callable[[], bool], daemon: str, timeout: float) -> None:
    """Waits until `ready` says so; fails at once when the daemon that has to make it so is gone."""
    deadline = time.monotonic() + timeout
    while not ready():
        if not running(daemon):
            raise ClusterError(f"{daemon} ended before this came true: {what}.\n{tail(log_file(daemon))}")
        if time.monotonic() > deadline:
            raise ClusterError(f"After {timeout:.0f} s this isn't true yet: {what}.\n{tail(log_file(daemon))}")
        time.sleep(0.1)


def of_container(container: str) -> list[int]:
    """The first process of a container, with which all others of it end."""
    return [pid for pid in _all_processes() if _is_first_of(pid, container)]


def kill_leftovers() -> None:
    """Kills what a run that died left behind."""
    kill_below(paths.CLUSTER, paths.NODES)
    shutil.rmtree(PIDS, ignore_errors=True)


def kill_below(*folders: Path) -> None:
    """Kills the daemons and shims that work in these folders, and the processes of all pods whose files are there."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in _all_processes() if _is_daemon(pid, folders) or _is_in_pod(pid, folders)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"These processes of the cluster don't die: {left}")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def remove_cgroups(containers: Iterable[str]) -> None:
    """Removes the empty cgroups that killed containers leave, in the hierarchies of version 1 or of version 2."""
    mount = Path("/sys/fs/cgroup")
    for container in containers:
        for root in (mount / "k8s.io" / container, *mount.glob(f"*/k8s.io/{container}")):
            for folder, _, _ in os.walk(root, topdown=False):
                # The kernel may not have done with it yet. Empty ones do no harm.
                with suppress(OSError):
                    Path(folder).rmdir()


def unmount_below(*folders: Path) -> None:
    """Unmounts all that is mounted in these folders, the innermost first."""
    for place in reversed(_mounts_below(folders)):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
    if left := _mounts_below(folders):
        # Deleting the directories now would delete what is mounted there.
        raise ClusterError(f"Still mounted: {left}. `umount` says why.")


def _mounts_below(folders: Iterable[Path]) -> list[Path]:
    places = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if any(place.is_relative_to(folder) for folder in folders)]


def _pid(name: str) -> int | None:
    file = PIDS / name
    if not file.exists():
        return None
    pid, started = file.read_text().split()
    return int(pid) if _start_time(int(pid)) == started else None


def _command(name: str) -> list[str]:
    """The program of a daemon that runs, and its arguments."""
    pid = _pid(name)
    if pid is None:
        raise ClusterError(f"{name} does not run. `make cluster` starts the cluster.")
    program, *arguments = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return [Path(program).name, *arguments]


def _start_time(pid: int) -> str | None:
    """The kernel's start time of a process; None if there is none, or only its zombie."""
    try:
        # The program's name, in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _all_processes() -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _start_time(pid) is not None]


def _is_daemon(pid: int, folders: Iterable[Path]) -> bool:
    """Whether it runs one of our programs on our folders. A person's kubectl or helm doesn't count."""
    entry = Path(f"/proc/{pid}")
    try:
        program = (entry / "exe").readlink().parent
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    if program != paths.BIN or Path(words[0]).name in ("kubectl", "helm", "ctr", "fortio"):
        return False
    return any(f"{folder}/" in f"{word}/" for word in words for folder in folders)


def _is_first_of(pid: int, container: str) -> bool:
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = next(line.split() for line in status.splitlines() if line.startswith("NSpid:"))
    return container in cgroup and numbers[-1] == "1"


def _is_in_pod(pid: int, folders: Iterable[Path]) -> bool:
    """Whether its root is that of one of our containers: once its shim is killed, nothing else identifies it."""
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return False
    roots = [line for line in mounts if line.split()[4] == "/"]
    return any(f"upperdir={folder}/" in root for root in roots for folder in folders)
