"""Dry runs of new pods: servers with the same template share the answer, and none waits long for it."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import msgspec

from quiesce.cluster.port import Cluster, ClusterError
from quiesce.model import names
from quiesce.model.plan import CheckTemplate
from quiesce.model.times import Seconds

# How long an answer is kept for other servers: by then, a policy or a quota may have changed.
KEPT_SECONDS = 5.0
# A webhook may take longer to answer than anything else that the server needs can wait.
PATIENCE_SECONDS = 1.0
# The API server generates a name from a prefix, truncated to this, and five characters.
PREFIX_CHARACTERS = 58

Key = tuple[str, str, frozenset[tuple[str, str]]]


class UnansweredError(Exception):
    """The API server has not answered yet: ask again."""


class Answer(msgspec.Struct, frozen=True):
    at: Seconds
    pod: dict[str, Any] = {}
    error: ClusterError | None = None


class DryRun(msgspec.Struct, frozen=True):
    """A dry run of one server's pod, and the servers that got its answer: if they ask again, they want a new one."""

    name: str
    answer: asyncio.Task[Answer]
    told: set[str]

    def is_of_use(self, now: Seconds) -> bool:
        if not self.answer.done():
            return True
        return self.answer.exception() is None and now - self.answer.result().at < KEPT_SECONDS


class DryRuns:
    def __init__(self, cluster: Cluster, clock: Callable[[], Seconds]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._runs: dict[Key, DryRun] = {}

    async def answer(self, act: CheckTemplate) -> dict[str, Any]:
        """The new pod, as the API server would create it.

        Raises ClusterError, with the API server's message, if it would reject the pod, and UnansweredError.
        """
        name, now = act.pod["metadata"]["name"], self._clock()
        self._runs = {key: run for key, run in self._runs.items() if run.is_of_use(now)}
        run = self._runs.get(_key(act))
        if run is None or name in run.told:
            run = self._runs[_key(act)] = DryRun(name, asyncio.create_task(self._try(name, act.pod)), set())
        await asyncio.wait([run.answer], timeout=PATIENCE_SECONDS)
        if not run.answer.done():
            raise UnansweredError
        run.told.add(name)
        answer = run.answer.result()
        if answer.error:
            made_up = re.escape(f"{run.name}-"[:PREFIX_CHARACTERS]) + "[a-z0-9]{5}"
            raise ClusterError(answer.error.status, re.sub(made_up, name, answer.error.message))
        return answer.pod

    async def _try(self, name: str, pod: dict[str, Any]) -> Answer:
        # Under an unused name: the pod that is being replaced still has the real one.
        metadata = {key: value for key, value in pod["metadata"].items() if key != "name"}
        try:
            made = await self._cluster.try_pod({**pod, "metadata": {**metadata, "generateName": f"{name}-"}})
        except ClusterError as error:
            return Answer(self._clock(), error=error)
        return Answer(self._clock(), made)


def _key(act: CheckTemplate) -> Key:
    """What the API server's answer depends on: the pods of a group differ only in what names their server."""
    metadata = act.pod["metadata"]
    labels = frozenset((label, value) for label, value in metadata["labels"].items() if label != names.SERVER)
    return metadata["namespace"], act.template_hash, labels
