"""What the loop asks of a server, whatever its kind."""

from typing import Protocol

from quiesce.model.server import AdminFailure, FailureKind, Report

# What a server says goes into conditions and Events.
MESSAGE_CHARACTERS = 1000


class AdminError(Exception):
    """A server that could not be asked, or did not do what it was asked; the message is for a person."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        if len(message) > MESSAGE_CHARACTERS:
            message = f"{message[:MESSAGE_CHARACTERS]}..."
        super().__init__(message)
        self.failure = AdminFailure(kind, message)


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
