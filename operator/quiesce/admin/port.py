"""What the loop asks of a server, whatever its kind."""

from typing import Protocol

from quiesce.model.server import AdminFailure, FailureKind, Report
from quiesce.model.text import shown


class AdminError(Exception):
    """A server that could not be asked, or did not do what it was asked; the message is for a person."""

    def __init__(self, kind: FailureKind, message: str, *, hung_up: bool = False) -> None:
        self.failure = AdminFailure(kind, shown(message), hung_up)
        super().__init__(self.failure.message)


class AdminEndpoint(Protocol):
    """One server's admin endpoint. Every call is safe to repeat, and raises AdminError."""

    async def report(self) -> Report: ...

    async def shed(self) -> None:
        """Let every answer close its connection, so that clients go elsewhere with their next request."""

    async def unshed(self) -> None: ...

    async def suspend(self) -> None:
        """Refuse new requests from now on. Returns at once: what is active goes on, and `report` tells."""

    async def resume(self) -> None: ...

    async def stop(self) -> None:
        """End the server's process now, and what is still active with it."""

    async def close(self) -> None: ...
