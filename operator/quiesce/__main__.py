"""`python -m quiesce` runs the operator; `python -m quiesce cleanup` removes the finalizers that it has left."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from typing import NoReturn

import kopf

from quiesce.cluster.kube import KubeCluster
from quiesce.cluster.port import ClusterError
from quiesce.control.cleanup import OperatorRunsError, cleanup
from quiesce.control.health import PORT, serve_health
from quiesce.control.lease import Leadership
from quiesce.control.operator import Operator
from quiesce.handlers import registry, settings
from quiesce.log import log_to_stderr

LEASE = "quiesce"
# The API server accepts JSON with 10,000 levels, and one object that can't be read must not hide all others.
RECURSION_LIMIT = 50_000

logger = logging.getLogger("quiesce")


async def run(options: argparse.Namespace) -> None:
    """Run until cancelled, which SIGTERM does."""
    _cancelled_by_signals()
    cluster = await KubeCluster.connect(options.namespace)
    instance = _instance()
    operator = Operator(cluster, instance, cluster.clock)
    leadership = _leadership(cluster, options, instance)
    health = await serve_health(operator, options.health_port, leadership)
    try:
        if leadership is None:
            logger.warning("POD_NAMESPACE is not set: running without a Lease; no other operator may run")
        await _lead(cluster, operator, instance, leadership)
    finally:
        await health.cleanup()
        await cluster.close()


async def _lead(cluster: KubeCluster, operator: Operator, instance: str, leadership: Leadership | None) -> None:
    keeping: asyncio.Task[None] | None = None
    loop: asyncio.Task[None] | None = None
    watches: asyncio.Task[None] | None = None
    try:
        if leadership:
            await leadership.acquire()
            keeping = asyncio.create_task(leadership.keep())
        namespaces = await cluster.leave_out_forbidden()
        await operator.prime()
        # Before kopf: when kopf ends, it cancels every task that was started after it.
        loop = asyncio.create_task(operator.run())
        ours = asyncio.all_tasks()
        started = await kopf.spawn_tasks(
            registry=registry(operator),
            settings=settings(),
            identity=instance,  # type: ignore[arg-type]  # else kopf looks up a user name, which an image need not have
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
        )
        _cancelled_by_signals()  # instead of kopf's own handlers: the loop has to stop before kopf
        watches = asyncio.create_task(kopf.run_tasks(started, ignored=ours))
        # None of them is supposed to end. If one does, the process exits with an error, and its successor starts from
        # the state of the cluster.
        tasks = {task for task in (loop, watches, keeping) if task}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("the loop has ended" if loop in done else "the watches have ended")
    finally:
        # In this order: nothing acts any more once another process may have the lease.
        await _ended(loop)
        await _ended(keeping)
        if leadership:
            await leadership.release()
        await _ended(watches)


async def run_cleanup(options: argparse.Namespace) -> int:
    _cancelled_by_signals()
    cluster = await KubeCluster.connect(options.namespace)
    own = options.operator_namespace or os.environ.get("POD_NAMESPACE") or "quiesce-system"
    lease = (own, options.lease or LEASE)
    leadership = Leadership(cluster, lease, f"cleanup-{_instance()}", time.time, _end)
    named = bool(options.lease and options.operator_namespace)
    try:
        return await cleanup(cluster, leadership, lease, options.deployment, named=named)
    finally:
        await cluster.close()


def _leadership(cluster: KubeCluster, options: argparse.Namespace, instance: str) -> Leadership | None:
    namespace = os.environ.get("POD_NAMESPACE")
    return Leadership(cluster, (namespace, options.lease or LEASE), instance, time.time, _end) if namespace else None


def _end(reason: str) -> NoReturn:
    """Exit immediately: no task takes another step, and requests in flight are abandoned with their connections."""
    logger.critical("%s; exiting", reason)
    os._exit(1)


def _instance() -> str:
    return os.environ.get("POD_NAME") or socket.gethostname()


def _cancelled_by_signals() -> None:
    task = asyncio.current_task()
    assert task  # noqa: S101 (for mypy: a coroutine runs in one)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        await asyncio.wait({task})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quiesce", description="Stops, drains and rolls application servers.")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--namespace", action="append", default=[], help="manage only this namespace; may be repeated")
    parser.add_argument("--lease", help=f"name of the Lease (default: {LEASE})")
    parser.add_argument("--health-port", type=int, default=PORT, help="for /livez and /readyz (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", title="commands", description="without one: run the operator")
    remove = commands.add_parser(
        "cleanup",
        help="remove the operator's finalizer from AppServers; they can then be deleted without it",
    )
    remove.add_argument("--operator-namespace", help="the Lease's namespace (default: POD_NAMESPACE or quiesce-system)")
    remove.add_argument("--deployment", default="", help="Deployment of the operator, which is scaled to 0 first")
    return parser.parse_args()


def main() -> None:
    sys.setrecursionlimit(RECURSION_LIMIT)
    options = _options()
    log_to_stderr(options.log_level)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if options.command == "cleanup":
            sys.exit(asyncio.run(run_cleanup(options)))
        asyncio.run(run(options))
    except asyncio.CancelledError:
        logger.info("stopped by a signal")
        sys.exit(1 if options.command == "cleanup" else 0)
    except (OperatorRunsError, ClusterError) as error:
        logger.critical("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
