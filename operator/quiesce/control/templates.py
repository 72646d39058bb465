"""Checks whether the API server would accept a new pod, before the old one is deleted."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.cluster.world import World
from quiesce.decide.quota import EXCEEDED, Swap, filled, shortage
from quiesce.model.objects import ResourceQuota
from quiesce.model.plan import CheckTemplate
from quiesce.model.resources import AppServer
from quiesce.model.times import Seconds

# For how long a template counts as accepted by the API server, if there are no quotas.
TEMPLATE_TAKEN_SECONDS = 600.0
# By then, the drain of a server that may be replaced has begun.
BEGUN_SECONDS = 30.0
# The API server generates a name from a prefix, truncated to this, and five characters.
PREFIX_CHARACTERS = 58


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
        self._taken: dict[tuple[str, str], Seconds] = {}
        self._promised: defaultdict[str, dict[str, Promised]] = defaultdict(dict)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, server: AppServer, act: CheckTemplate) -> None:
        """Raises ClusterError, with the API server's message, if it would reject the new pod.

        With quotas, that depends on the old pod, and on other replacements in progress: each server is checked on its
        own, and one at a time in each namespace.
        """
        namespace = server.metadata.namespace
        async with self._locks[namespace]:
            quotas = await self._cluster.quotas(namespace)
            now = self._clock()
            self._taken = {key: at for key, at in self._taken.items() if now - at < TEMPLATE_TAKEN_SECONDS}
            if quotas:
                await self._check_quotas(server, act, quotas)
            elif (namespace, act.template_hash) not in self._taken:
                await self._try(server, act)
                self._taken[namespace, act.template_hash] = now

    async def _try(self, server: AppServer, act: CheckTemplate) -> dict[str, Any]:
        """The new pod, as the API server would create it."""
        # Under an unused name: the pod that is being replaced still has the real one.
        name = server.metadata.name
        rest = {key: value for key, value in act.pod["metadata"].items() if key != "name"}
        try:
            return await self._cluster.try_pod({**act.pod, "metadata": {**rest, "generateName": f"{name}-"}})
        except ClusterError as error:
            made_up = re.escape(f"{name}-"[:PREFIX_CHARACTERS]) + "[a-z0-9]{5}"
            raise ClusterError(error.status, re.sub(made_up, name, error.message)) from None

    async def _check_quotas(self, server: AppServer, act: CheckTemplate, quotas: list[ResourceQuota]) -> None:
        namespace, name = server.metadata.key
        self._promised[namespace].pop(name, None)
        new, refusal = None, ""
        try:
            new = (await self._try(server, act))["spec"]
        except ClusterError as error:
            exceeded = EXCEEDED.search(error.message)
            if exceeded is None or exceeded["quota"] not in {quota.metadata.name for quota in quotas}:
                raise
            refusal = error.message
        old = await self._cluster.pod_manifest(namespace, name)
        spec = old["spec"] if old else None
        swap = Swap(spec, new or filled(act.pod["spec"], spec))
        lacks = shortage(quotas, swap, self._under_way(namespace), refusal)
        if lacks:
            said = f"{refusal}; " if refusal else ""
            raise ClusterError(HTTPStatus.FORBIDDEN, f"{said}it doesn't fit in place of pod {name} either: {lacks}")
        uid = old["metadata"]["uid"] if old else ""
        self._promised[namespace][name] = Promised(uid, swap, self._clock())

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
