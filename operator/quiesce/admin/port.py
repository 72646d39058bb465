"""The operations that the loop performs on a server of any kind."""

from typing import Protocol

from quiesce.model.server import AdminFailure, FailureKind, Report
from quiesce.model.text import shown


class AdminError(Exception):
    """A server that could not be queried, or did not perform an operation; the message is for users."""

    def __init__(self, kind: FailureKind, message: str, *, hung_up: bool = False) -> None:
        self.failure = AdminFailure(kind, shown(message), hung_up)
        super().__init__(self.failure.message)


class AdminEndpoint(Protocol):
    """One server's admin endpoint. Every call is safe to repeat, and raises AdminError."""

    async def report(self) -> Report: ...

    async def shed(self) -> None:
        """Make every response close its connection, so that clients send their next request to another server."""

    async def unshed(self) -> None: ...

    async def suspend(self) -> None:
        """Refuse new requests from now on. Returns immediately: active requests continue, and `report` counts them."""

    async def resume(self) -> None: ...

    async def stop(self) -> None:
        """End the server's process now, including requests that are still active."""

    async def close(self) -> None: ...
