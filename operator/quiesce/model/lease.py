"""The Lease that says which of the operator's processes acts (coordination.k8s.io/v1)."""

from typing import Any

import msgspec

from quiesce.model.objects import Narrow


class LeaseSpec(Narrow, frozen=True):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    # Only informative: no process compares them with its own clock.
    acquire_time: str = ""
    renew_time: str = ""
    lease_transitions: int = 0


class Lease(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]  # as it was read: a write replaces the whole object
    spec: LeaseSpec = LeaseSpec()

    @property
    def holder(self) -> str:
        return self.spec.holder_identity
