"""Removes the finalizer that an operator has left on AppServers, so that they can be deleted without it."""

import asyncio
import logging
from http import HTTPStatus

from quiesce.cluster.port import ClusterError, Held, Remains
from quiesce.control.lease import DURATION_SECONDS, LOOK_SECONDS, Leadership
from quiesce.model import names

GONE_SECONDS = 60.0
# It takes its duration to find out that a Lease has expired.
LEASE_SECONDS = DURATION_SECONDS + 8.0
AT_ONCE = 8
# Each pass lists again, to find what was created since, or changed by others at the same time.
PASSES = 3
TELL_EVERY = 100

logger = logging.getLogger(__name__)


class OperatorRunsError(Exception):
    """An operator runs, or may run; the message says which one, and what to do."""


async def cleanup(
    cluster: Remains, leadership: Leadership, lease: tuple[str, str], deployment: str, *, named: bool
) -> int:
    """The exit code: 0 if every finalizer is gone.

    `named`: the caller has named the Lease: if it doesn't exist, no operator runs. Otherwise, it may have another name.
    """
    if not named and await cluster.lease(*lease) is None:
        raise OperatorRunsError(
            f"there is no Lease {'/'.join(lease)}, but an operator may run with another one: `kubectl get leases "
            "--all-namespaces` lists them. Name the operator's, even if it is gone: --lease NAME before `cleanup` and "
            "--operator-namespace NAMESPACE after it"
        )
    is_left = await _is_left(cluster)
    if deployment:
        await _scale_to_zero(cluster, lease[0], deployment)
    # Without a Lease, no operator runs, and its namespace may be gone too.
    keeping: asyncio.Task[None] | None = None
    if await cluster.lease(*lease):
        await _take(leadership, lease)
        keeping = asyncio.create_task(leadership.keep())
    try:
        failures = await _free_all(cluster) if is_left else {}
    finally:
        if keeping:
            keeping.cancel()
            await asyncio.wait({keeping})
            await leadership.release()
    for name, error in sorted(failures.items()):
        logger.error("AppServer %s still has the finalizer %s: %s", name, names.FINALIZER, error)
    if failures:
        logger.error("AppServers left: %d. Fix what the API server reports, and run this again", len(failures))
        return 1
    # Only as it was released: another process may have taken it since.
    if keeping and (released := await cluster.lease(*lease)) and not released.holder:
        await cluster.delete_lease(released)
    return 0


async def _is_left(cluster: Remains) -> bool:
    """Whether anything can be left: not without the CRDs, nor if all managed namespaces are gone."""
    try:
        await cluster.leave_out_forbidden()
    except ClusterError as error:
        if error.status not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            raise
        logger.warning("there are no AppServers to remove the finalizer from: %s", error)
        return False
    return True


async def _scale_to_zero(cluster: Remains, namespace: str, deployment: str) -> None:
    scale = await cluster.scale_to_zero(namespace, deployment)
    if scale is None:
        logger.info("there is no Deployment %s/%s", namespace, deployment)
        return
    logger.info("scaled the Deployment %s/%s to 0; waiting for its pods", namespace, deployment)
    try:
        async with asyncio.timeout(GONE_SECONDS):
            while True:
                if not await cluster.selected_pods(namespace, scale.status.selector):
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        # They stay if their node is lost; the Lease shows whether one of them still runs.
        logger.warning("pods of the Deployment %s/%s are still there after %g s", namespace, deployment, GONE_SECONDS)


async def _take(leadership: Leadership, lease: tuple[str, str]) -> None:
    """While we hold the Lease, no operator acts."""
    try:
        async with asyncio.timeout(LEASE_SECONDS):
            await leadership.acquire()
    except TimeoutError:
        namespace, name = lease
        holder = leadership.waits_for or "an unknown holder"
        raise OperatorRunsError(
            f"an operator still runs: the Lease {namespace}/{name} is held and renewed by {holder}. Stop it first, "
            f"for example with --deployment NAME, or with `kubectl -n {namespace} scale deployment NAME --replicas=0`"
        ) from None


async def _free_all(cluster: Remains) -> dict[str, ClusterError]:
    """The servers that still have the finalizer, with the error."""
    failures: dict[str, ClusterError] = {}
    for _ in range(PASSES):
        left = await _held(cluster)
        if not left:
            logger.info("no AppServer has the finalizer %s", names.FINALIZER)
            return {}
        failures = await _free(cluster, left)
    return failures


async def _held(cluster: Remains) -> list[Held]:
    try:
        found = await cluster.held()
    except ClusterError as error:
        if error.status == HTTPStatus.NOT_FOUND:  # the CRDs are gone, and with them every server
            return []
        raise
    return [held for held in found if names.FINALIZER in held.metadata.finalizers]


async def _free(cluster: Remains, left: list[Held]) -> dict[str, ClusterError]:
    failures: dict[str, ClusterError] = {}
    waiting, done = iter(left), 0

    async def work() -> None:
        nonlocal done
        for held in waiting:
            own = held.metadata
            others = [finalizer for finalizer in own.finalizers if finalizer != names.FINALIZER]
            try:
                await cluster.keep_finalizers(held, others)
            except ClusterError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    failures["/".join(own.key)] = error
            done += 1
            if done % TELL_EVERY == 0 or done == len(left):
                logger.info("%d of %d AppServers, %d failed", done, len(left), len(failures))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return failures
