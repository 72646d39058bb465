"""Dry runs of new pods: servers with the same template share the answer, and none waits long for it."""

import asyncio
import re
from typing import Any

import msgspec

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.model.plan import CheckTemplate

# How long an answer is kept for other servers: by then, a policy or a quota may have changed.
KEPT_SECONDS = 5.0
# A webhook may take longer to answer than anything else that the server needs can wait.
PATIENCE_SECONDS = 1.0
# The API server generates a name from a prefix, truncated to this, and five characters.
PREFIX_CHARACTERS = 58


class UnansweredError(Exception):
    """The API server has not answered yet: ask again."""


class DryRun(msgspec.Struct, frozen=True):
    """A dry run of one server's pod, and the servers that got its answer: if they ask again, they want a new one."""

    name: str
    answer: asyncio.Task[dict[str, Any]]
    answered: set[str]


class DryRuns:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._runs: dict[bytes, DryRun] = {}

    async def answer(self, act: CheckTemplate) -> dict[str, Any]:
        """The new pod, as the API server would create it.

        Raises ClusterError, with the API server's message, if it would reject the pod, and UnansweredError.
        """
        name, key = act.pod["metadata"]["name"], _key(act.pod)
        run = self._runs.get(key)
        if run is None or name in run.answered:
            run = self._begin(key, name, act.pod)
        await asyncio.wait([run.answer], timeout=PATIENCE_SECONDS)
        if not run.answer.done() or run.answer.cancelled():
            raise UnansweredError
        run.answered.add(name)
        try:
            return run.answer.result()
        except ClusterError as error:
            made_up = re.escape(f"{run.name}-"[:PREFIX_CHARACTERS]) + "[a-z0-9]{5}"
            raise ClusterError(error.status, re.sub(made_up, name, error.message), error.retry_after) from None

    def _begin(self, key: bytes, name: str, pod: dict[str, Any]) -> DryRun:
        run = self._runs[key] = DryRun(name, asyncio.create_task(self._try(name, pod)), set())

        def drop() -> None:
            if self._runs.get(key) is run:
                del self._runs[key]

        def keep(answer: asyncio.Task[dict[str, Any]]) -> None:
            is_answer = not answer.cancelled() and isinstance(answer.exception(), ClusterError | None)
            asyncio.get_running_loop().call_later(KEPT_SECONDS if is_answer else 0, drop)

        run.answer.add_done_callback(keep)
        return run

    async def _try(self, name: str, pod: dict[str, Any]) -> dict[str, Any]:
        # Under an unused name: the pod that is being replaced still has the real one.
        metadata = {key: value for key, value in pod["metadata"].items() if key != "name"}
        return await self._cluster.try_pod({**pod, "metadata": {**metadata, "generateName": f"{name}-"}})


def _key(pod: dict[str, Any]) -> bytes:
    """What the API server's answer depends on: the pod, apart from what names its server."""
    metadata, spec = pod["metadata"], pod["spec"]

    def unnamed(fields: dict[str, Any]) -> dict[str, Any]:
        return {field: None if value == metadata["name"] else value for field, value in fields.items()}

    shared = {**unnamed(metadata), "labels": unnamed(metadata["labels"]), "ownerReferences": None}
    return msgspec.json.encode((shared, unnamed(spec)), order="deterministic")
