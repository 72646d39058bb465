"""The servers of a group, and which of them it wants to keep."""

import re
from collections.abc import Iterable
from functools import cached_property

import msgspec

from quiesce.decide.podspec import Revision, has_gate, is_of, revision
from quiesce.decide.requests import aim_of
from quiesce.model import names
from quiesce.model.objects import Pod
from quiesce.model.resources import STAYS, AppServer, ServerGroup
from quiesce.model.times import Seconds, seconds

# A server whose pod isn't ready for so long is out of service; for less, a probe may just have been slow.
UNREADY_SECONDS = 30


class Member(msgspec.Struct, frozen=True, dict=True):
    server: AppServer
    pod: Pod | None = None

    @property
    def name(self) -> str:
        return self.server.metadata.name

    @property
    def ordinal(self) -> int:
        return int(self.name.rsplit("-", 1)[1])

    @property
    def is_surge(self) -> bool:
        """Whether it was created for the duration of a rollout, beyond the group's `replicas`."""
        return names.SURGE in self.server.metadata.annotations

    @cached_property
    def pod_is_current(self) -> bool:
        """Whether the pod was created from the server's current template."""
        return self.pod_has(revision(self.server.spec))

    def pod_has(self, wanted: Revision) -> bool:
        return self.pod is not None and is_of(self.pod, wanted)

    @property
    def is_to_restart(self) -> bool:
        asked = names.RESTART in self.server.metadata.annotations
        return asked or (self.pod is not None and self.server.status.restart_pod_uid == self.pod.metadata.uid)

    def is_out(self, now: Seconds) -> bool:
        """Whether the server is out of service for more than a moment: replacing it loses nothing."""
        if self.pod is None or self.pod.metadata.deletion_timestamp:
            return True
        served = self.pod.metadata.annotations.get(names.SERVED_CONTAINER)
        if not any(status.container_id == served for status in self.pod.status.container_statuses if served):
            return True
        return self.unready_for(now) >= UNREADY_SECONDS

    def unready_for(self, now: Seconds) -> Seconds:
        """For how long the pod has not been ready, not counting the time before its gate was last opened.

        A suspended server is not ready on purpose: 0.
        """
        ready = self.pod.condition("Ready") if self.pod else None
        since = seconds(ready.last_transition_time) if ready and ready.status != "True" else None
        if self.pod is None or since is None:
            return 0
        if not self.pod.holds(names.GATE):
            drain = self.server.status.suspend
            return 0 if drain and drain.scope in STAYS else now - since
        gate = self.pod.condition(names.GATE)
        return now - max(since, seconds(gate.last_transition_time if gate else None) or since)

    def is_leaving(self, group: ServerGroup) -> bool:
        """Whether a scale-down or a deletion has begun to remove the server."""
        stops = self.server.spec.desired_state == "Stopped" != group.spec.template.spec.desired_state
        return stops or self.server.metadata.deletion_timestamp is not None

    @property
    def is_labelled(self) -> bool:
        """Whether the pod has the label that goes with an open gate, if its gate is open."""
        return self.pod is None or not self.pod.holds(names.GATE) or names.GATE in self.pod.metadata.labels

    @cached_property
    def serves(self) -> bool:
        pod = self.pod
        is_ready = pod is not None and not pod.metadata.deletion_timestamp and pod.holds("Ready")
        return is_ready and (self.has_strange_pod or (pod is not None and pod.holds(names.GATE)))

    @property
    def has_strange_pod(self) -> bool:
        """Whether its pod has no owner and no gate: a workload was deleted without its pods."""
        return self.pod is not None and self.pod.metadata.owner is None and not has_gate(self.pod)


def ordinal_of(name: str, group: str) -> int | None:
    """The number in `<group>-<ordinal>`; None for any other name."""
    match = re.fullmatch(re.escape(group) + r"-(0|[1-9][0-9]{0,8})", name)
    return int(match.group(1)) if match else None


def surplus(group: ServerGroup, members: Iterable[Member], wanted: int) -> set[str]:
    """The servers to remove so that only `wanted` remain: first, those whose removal has already begun.

    A surge server is next, unless it stands in for a server that is out of service.
    """
    members = list(members)
    stands_in = any(
        not (m.is_surge or m.is_leaving(group) or m.serves) and aim_of(m.server, group).serve for m in members
    )
    ranked = sorted(members, key=lambda m: (m.is_leaving(group), m.is_surge and not stands_in, _rank(m)))
    return {member.name for member in ranked[wanted:]}


def beyond(members: Iterable[Member], replicas: int) -> set[str]:
    """The servers that are a rollout's surge; existing surge servers stay surge servers."""
    return {member.name for member in sorted(members, key=lambda m: (m.is_surge, _rank(m)))[replicas:]}


def _rank(member: Member) -> tuple[bool, bool, int]:
    """Servers marked for deletion go first, then those that don't serve, then the highest ordinals."""
    asked = names.SPECIFIED_DELETE in member.server.metadata.annotations
    return asked, not member.serves, member.ordinal


def vacancies(group: ServerGroup, members: tuple[Member, ...], wanted: int) -> list[str]:
    """The names of the servers that a group lacks: the lowest ordinals that it does not have."""
    known = {member.ordinal for member in members}
    free: list[str] = []
    ordinal = 0
    while len(free) < wanted - len(members):
        if ordinal not in known:
            free.append(f"{group.metadata.name}-{ordinal}")
        ordinal += 1
    return free
