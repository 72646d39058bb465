"""`python -m quiesce` runs the operator; `python -m quiesce cleanup` frees what an operator that is gone has left."""

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

logger = logging.getLogger("quiesce")


async def run(options: argparse.Namespace) -> None:
    """Until it is cancelled, which SIGTERM does."""
    _cancelled_by_signals()
    cluster = await KubeCluster.connect(options.namespace)
    instance = _instance()
    operator = Operator(cluster, instance, cluster.clock)
    leadership = _leadership(cluster, options, instance)
    health = await serve_health(operator, options.health_port, leadership)
    try:
        if leadership is None:
            logger.warning("POD_NAMESPACE is not set: there is no lease, and no other operator may run")
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
        # Before kopf: when it ends, it ends every task that began after it.
        loop = asyncio.create_task(operator.run())
        ours = asyncio.all_tasks()
        started = await kopf.spawn_tasks(
            registry=registry(operator),
            settings=settings(),
            identity=instance,  # type: ignore[arg-type]  # else kopf looks for a user name, which an image need not have
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
        )
        _cancelled_by_signals()  # as before, and not kopf first: the loop stops first
        watches = asyncio.create_task(kopf.run_tasks(started, ignored=ours))
        # None of them ends by itself. Whatever does ends the process with an error, and its successor starts from what
        # is in the cluster.
        tasks = {task for task in (loop, watches, keeping) if task}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("the loop has ended" if loop in done else "the watches have ended")
    finally:
        # In this order: nothing acts any more when another may have the lease.
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
    """End at once: no task gets to do another step, and what was asked for on a connection is given up with it."""
    logger.critical("%s; this process ends", reason)
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
    parser.add_argument("--namespace", action="append", default=[], help="look after this one only; may be repeated")
    parser.add_argument("--lease", help=f"the Lease's name (default: {LEASE})")
    parser.add_argument("--health-port", type=int, default=PORT, help="for /livez and /readyz (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", title="commands", description="none: run the operator")
    remove = commands.add_parser(
        "cleanup",
        help="free the AppServers that an operator has left: without it, they could not be deleted",
    )
    remove.add_argument("--operator-namespace", help="of the Lease (default: POD_NAMESPACE, or quiesce-system)")
    remove.add_argument("--deployment", default="", help="the operator's, to scale to 0 first")
    return parser.parse_args()


def main() -> None:
    options = _options()
    log_to_stderr(options.log_level)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if options.command == "cleanup":
            sys.exit(asyncio.run(run_cleanup(options)))
        asyncio.run(run(options))
    except asyncio.CancelledError:
        logger.info("ends, as it was told to")
        sys.exit(1 if options.command == "cleanup" else 0)
    except (OperatorRunsError, ClusterError) as error:
        logger.critical("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
