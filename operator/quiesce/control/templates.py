"""Checks whether the API server would accept a new pod, before the old one is deleted."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.cluster.world import World
from quiesce.control.dryruns import DryRuns
from quiesce.decide.quota import EXCEEDED, PodSpec, Swap, filled, shortage
from quiesce.model.objects import ResourceQuota
from quiesce.model.plan import CheckTemplate
from quiesce.model.resources import AppServer
from quiesce.model.times import Seconds

# By then, the drain of a server that may be replaced has begun.
BEGUN_SECONDS = 30.0


class Promised(msgspec.Struct, frozen=True):
    """A replacement that passed the check, and the pod that it replaces."""

    pod_uid: str
    swap: Swap
    since: Seconds


class Templates:
    def __init__(self, cluster: Cluster, world: World, clock: Callable[[], Seconds]) -> None:
        self._cluster = cluster
        self._world = world
        self._clock = clock
        self._dry_runs = DryRuns(cluster)
        self._promised: defaultdict[str, dict[str, Promised]] = defaultdict(dict)

    async def check(self, server: AppServer, act: CheckTemplate) -> None:
        """Raises ClusterError, with the API server's message, if it would reject the new pod.

        Raises UnansweredError if it is yet to answer.
        """
        new, refusal = None, None
        try:
            new = (await self._dry_runs.answer(act))["spec"]
        except ClusterError as error:
            refusal = error
        quotas = await self._cluster.quotas(server.metadata.namespace)
        exceeded = EXCEEDED.search(refusal.message) if refusal else None
        if refusal and (exceeded is None or exceeded["quota"] not in {quota.metadata.name for quota in quotas}):
            raise refusal
        if quotas:
            await self._check_quotas(server, act, quotas, new, refusal.message if refusal else "")

    async def _check_quotas(
        self, server: AppServer, act: CheckTemplate, quotas: list[ResourceQuota], new: PodSpec | None, refusal: str
    ) -> None:
        """Whether quotas have room for the new pod in place of the old one, and for other replacements in progress."""
        namespace, name = server.metadata.key
        old = await self._cluster.pod_manifest(namespace, name)
        promised = self._promised[namespace]
        promised.pop(name, None)
        spec = old["spec"] if old else None
        swap = Swap(spec, new or filled(act.pod["spec"], spec))
        lacks = shortage(quotas, swap, self._under_way(namespace), refusal)
        if lacks:
            said = f"{refusal}; " if refusal else ""
            raise ClusterError(HTTPStatus.FORBIDDEN, f"{said}it doesn't fit in place of pod {name} either: {lacks}")
        # Nothing may be awaited since the promises were read: another server may be checked at the same time.
        promised[name] = Promised(old["metadata"]["uid"] if old else "", swap, self._clock())

    def _under_way(self, namespace: str) -> Iterator[Swap]:
        """Other replacements that passed the check but don't exist yet: quotas don't show them."""
        for name, promised in list(self._promised[namespace].items()):
            server, pod = self._world.servers.get((namespace, name)), self._world.pods.get((namespace, name))
            drain = server.status.suspend if server else None
            has_begun = pod is None or pod.metadata.deletion_timestamp or (drain and drain.scope == "Rollout")
            is_new = pod is not None and pod.metadata.uid != promised.pod_uid
            if server is None or is_new or not (has_begun or self._clock() - promised.since < BEGUN_SECONDS):
                del self._promised[namespace][name]
            else:
                yield promised.swap if pod else Swap(None, promised.swap.new)
