"""A standalone WildFly or JBoss EAP server, through its HTTP management API.

Requests and responses: WildFly Admin Guide, "The HTTP management API" and "Suspend, Resume and Graceful shutdown".
"""

from typing import Any, get_args

import aiohttp
import msgspec

from quiesce.admin.masking import Mask
from quiesce.admin.port import AdminError
from quiesce.model.server import Report, SuspendState
from quiesce.model.text import shown

# With mod_cluster, a suspend may take stop-context-timeout (10 s) to return; a read takes milliseconds.
ACT_TIMEOUT_SECONDS = 15
LOOK_TIMEOUT_SECONDS = 5
# Whatever responds at a pod's address must not fill the operator's memory; WildFly returns about ten thousand bytes.
ANSWER_BYTES = 1 << 20
EXCERPT_LENGTH = 80

Address = list[dict[str, str]]
REQUEST_CONTROLLER: Address = [{"subsystem": "request-controller"}]
UNDERTOW: Address = [{"subsystem": "undertow"}]
FILTER_NAME = "quiesce-close"
FILTER: Address = [*UNDERTOW, {"configuration": "filter"}, {"response-header": FILTER_NAME}]
DUPLICATE = "WFLYCTL0212"
NOT_FOUND = "WFLYCTL0216"

# `server-state` of a server that serves; with the last two, its configuration needs a reload or restart.
RUNS = ("running", "reload-required", "restart-required")
# In any other mode, only the management endpoint runs: no listeners, no deployments.
SERVES = "NORMAL"
# An int64, as in the CRD; WildFly's own attribute is a 32-bit integer.
LARGEST_COUNT = (1 << 63) - 1
# For the status; the longest existing state has 16 characters.
STATE_BYTES = 100


class Answer(msgspec.Struct, frozen=True, rename="kebab"):
    """`failure_description` is a string or, for composites, a structure of strings."""

    outcome: str
    result: Any = None
    failure_description: Any = None


class WildFly:
    """One server's management endpoint; holds one session, bound to one pod."""

    def __init__(self, host: str, port: int, username: str, password: str) -> None:
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}/management"
        self._address = f"{host}:{port}"
        digest = aiohttp.DigestAuthMiddleware(username, password)
        self._without_secrets = Mask(username, password)
        # Uncompressed: a few compressed bytes can expand to any number.
        self._session = aiohttp.ClientSession(
            middlewares=(digest,), auto_decompress=False, headers={"Accept-Encoding": "identity"}
        )

    async def close(self) -> None:
        await self._session.close()

    async def report(self) -> Report:
        """One round trip. The results depend on what the server has: without Undertow, there is nothing to shed."""
        steps = [
            {"operation": "read-attribute", "address": [], "name": "suspend-state"},
            {"operation": "read-attribute", "address": [], "name": "server-state"},
            {"operation": "read-attribute", "address": REQUEST_CONTROLLER, "name": "active-requests"},
            _read_servers(),
            {"operation": "read-attribute", "address": [], "name": "running-mode"},
        ]
        answer = await self._ask("composite", steps=steps, headers={"rollback-on-runtime-failure": False})
        suspend_state, server_state, active, servers, mode = (_step(answer, number) for number in range(1, 6))
        known = suspend_state in get_args(SuspendState) and isinstance(server_state, str) and isinstance(mode, str)
        if not known:
            missing = "suspend-state, server-state and running-mode"
            raise AdminError("Unexpected", f"{self._address} returned no valid {missing}: {self._told(answer)}")
        sheds = _is_shed(servers)
        return Report(
            suspend_state=suspend_state,
            server_state=self._shown(server_state),
            runs=server_state in RUNS and mode == SERVES,
            active_requests=self._count(active),
            shed=any(sheds),
            sheds_all=all(sheds),
            waits_for="" if mode == SERVES else f"running-mode {SERVES}; it is {self._shown(mode)}",
        )

    async def shed(self) -> None:
        """A response header filter takes effect immediately, without a reload."""
        await self._do(FILTER, "add", {"header-name": "Connection", "header-value": "close"}, tolerate=DUPLICATE)
        for host in _hosts(await self._servers()):
            await self._do([*host, {"filter-ref": FILTER_NAME}], "add", tolerate=DUPLICATE)

    async def unshed(self) -> None:
        """Without `allow-resource-service-restart` the removal would wait for a reload, which cuts requests."""
        for host in _hosts(await self._servers()):
            await self._do(
                [*host, {"filter-ref": FILTER_NAME}],
                "remove",
                headers={"allow-resource-service-restart": True},
                tolerate=NOT_FOUND,
            )

    async def suspend(self) -> None:
        """With a timeout of 0: any other blocks, and holds the lock that `resume` needs."""
        await self._do([], "suspend", {"suspend-timeout": 0})

    async def resume(self) -> None:
        await self._do([], "resume")

    async def stop(self) -> None:
        """With a timeout of 0: a `resume` during a longer one would end the server immediately."""
        await self._do([], "shutdown", {"suspend-timeout": 0})

    def _count(self, active: Any) -> int | None:
        """`active-requests` is -1 where nothing counts them, and absent without the request controller."""
        if active is None:
            return None
        if type(active) is not int or not -1 <= active <= LARGEST_COUNT:
            said = self._shown(msgspec.json.encode(active).decode())
            raise AdminError("Unexpected", f"{self._address} returned active-requests={said}, which is not a count")
        return None if active == -1 else active

    def _shown(self, said: str) -> str:
        return shown(self._without_secrets(said), STATE_BYTES)

    async def _servers(self) -> Any:
        answer = await self._ask(**_read_servers())
        if answer.outcome != "success":
            raise AdminError("Unexpected", f"{self._address} did not list its Undertow servers: {self._told(answer)}")
        return answer.result

    async def _do(
        self,
        address: Address,
        operation: str,
        parameters: dict[str, Any] | None = None,
        *,
        headers: dict[str, Any] | None = None,
        tolerate: str = "",
    ) -> None:
        answer = await self._ask(operation, address, headers, limit_seconds=ACT_TIMEOUT_SECONDS, **(parameters or {}))
        if answer.outcome == "success" or (tolerate and tolerate in _text(answer)):
            return
        # A response with status 200 can still say "cancelled".
        where = "".join(f"/{kind}={name}" for part in address for kind, name in part.items())
        outcome = self._without_secrets(answer.outcome)
        raise AdminError(
            "Unexpected", f"{self._address} answered {outcome} to {where}:{operation}: {self._told(answer)}"
        )

    async def _ask(
        self,
        operation: str,
        address: Address | None = None,
        headers: dict[str, Any] | None = None,
        limit_seconds: float = LOOK_TIMEOUT_SECONDS,
        **parameters: Any,
    ) -> Answer:
        body = {"operation": operation, "address": address or [], **parameters}
        if headers:
            body["operation-headers"] = headers
        limit = aiohttp.ClientTimeout(total=limit_seconds)
        try:
            async with self._session.post(self._url, json=body, timeout=limit, allow_redirects=False) as response:
                status, raw = response.status, await self._body(response)
        except TimeoutError:
            raise AdminError("Unreachable", f"{self._address} did not respond within {limit_seconds:g} s") from None
        except aiohttp.ClientError as error:
            message = f"{self._address} can't be reached: {self._without_secrets(str(error))}"
            raise AdminError("Unreachable", message, hung_up=_hung_up(error)) from None
        return self._read(status, raw)

    def _told(self, answer: Answer) -> str:
        """What an unexpected answer says, without secrets."""
        return self._without_secrets(_text(answer))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > ANSWER_BYTES:
                message = (
                    f"{self._address} is not a WildFly management endpoint: its response exceeds {ANSWER_BYTES} bytes"
                )
                raise AdminError("Unexpected", message)
        return bytes(body)

    def _read(self, status: int, raw: bytes) -> Answer:
        match status:
            case 200 | 500:  # 500 means that the operation failed; the body says why
                try:
                    return msgspec.json.decode(raw, type=Answer)
                except (msgspec.DecodeError, RecursionError):
                    excerpt = self._without_secrets(raw.decode(errors="replace"))[:EXCERPT_LENGTH]
                    message = f"{self._address} is not a WildFly management endpoint: HTTP {status}, {excerpt!r}"
                    raise AdminError("Unexpected", message) from None
            case 401:
                raise AdminError("Unauthorized", f"{self._address} rejects the username and password (HTTP 401)")
            case 403:
                raise AdminError(
                    "Forbidden", f"{self._address} does not allow this user to perform the operation (HTTP 403)"
                )
            case 503:  # near the end of boot, and during a stop
                raise AdminError("Unreachable", f"{self._address} is starting or stopping (HTTP 503)")
            case _:
                raise AdminError("Unexpected", f"{self._address} answered HTTP {status}")


def _hung_up(error: aiohttp.ClientError) -> bool:
    """Whether the connection was made, and then closed or reset."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def _read_servers() -> dict[str, Any]:
    return {
        "operation": "read-children-resources",
        "address": UNDERTOW,
        "child-type": "server",
        "recursive": True,
    }


def _step(answer: Answer, number: int) -> Any:
    result = answer.result
    step = result.get(f"step-{number}") if isinstance(result, dict) else None
    return step.get("result") if isinstance(step, dict) and step.get("outcome") == "success" else None


def _each_host(servers: Any) -> list[tuple[Address, dict[str, Any]]]:
    return [
        ([*UNDERTOW, {"server": server}, {"host": host}], _mapping(resource))
        for server, described in _mapping(servers).items()
        for host, resource in _mapping(_mapping(described).get("host")).items()
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hosts(servers: Any) -> list[Address]:
    return [address for address, _ in _each_host(servers)]


def _is_shed(servers: Any) -> list[bool]:
    return [FILTER_NAME in _mapping(host.get("filter-ref")) for _, host in _each_host(servers)]


def _text(answer: Answer) -> str:
    description = answer.failure_description
    return description if isinstance(description, str) else msgspec.json.encode(description or answer.result).decode()
