"""WildFly's odd answers, from a server that gives them."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from quiesce.admin import wildfly
from quiesce.admin.port import AdminError
from quiesce.admin.wildfly import FILTER_NAME, WildFly
from quiesce.model.server import FailureKind, Report
from quiesce.model.text import MESSAGE_BYTES

Body = dict[str, Any]
Answers = Callable[[Body], web.Response | Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def asked(answers: Answers) -> AsyncIterator[WildFly]:
    async def management(request: web.Request) -> web.Response:
        answer = answers(await request.json())
        return answer if isinstance(answer, web.Response) else await answer

    async with served(management) as server:
        yield server


@contextlib.asynccontextmanager
async def served(management: Handler, password: str = "secret") -> AsyncIterator[WildFly]:
    application = web.Application()
    application.router.add_post("/management", management)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = WildFly("127.0.0.1", runner.addresses[0][1], "quiesce", password)
    try:
        yield server
    finally:
        await server.close()
        await runner.cleanup()


def says(status: int = 200, **body: Any) -> Answers:
    return lambda _: web.json_response(body, status=status)


def step(result: Any) -> Body:
    return {"outcome": "success", "result": result}


FAILED = {"outcome": "failed", "failure-description": "WFLYCTL0216: not found"}


def host(*filters: str) -> Body:
    return {"filter-ref": dict.fromkeys(filters) or None}


def undertow(**hosts: Body) -> Body:
    return {"default-server": {"host": hosts}}


def composite(
    state: Any = "RUNNING",
    server: Any = "running",
    active: Any = None,
    servers: Any = None,
    *,
    mode: Any = "NORMAL",
    status: int = 200,
) -> Answers:
    steps = (
        step(state) if state else FAILED,
        step(server) if server else FAILED,
        step(active) if active is not None else FAILED,
        step(servers) if servers is not None else FAILED,
        step(mode) if mode else FAILED,
    )
    result = {f"step-{number}": said for number, said in enumerate(steps, 1)}
    return says(status, outcome="success" if status == 200 else "failed", result=result)


@pytest.mark.parametrize(
    ("answers", "report"),
    [
        pytest.param(
            composite(active=3, servers=undertow(a=host())),
            Report("RUNNING", "running", True, 3, shed=False, sheds_all=False),
            id="it serves",
        ),
        pytest.param(
            composite(active=0, servers=undertow(a=host(FILTER_NAME))),
            Report("RUNNING", "running", True, 0, shed=True, sheds_all=True),
            id="it is shed",
        ),
        pytest.param(
            composite(active=0, servers=undertow(a=host("gzip", FILTER_NAME), b=host("gzip"))),
            Report("RUNNING", "running", True, 0, shed=True, sheds_all=False),
            id="one of its hosts is shed",
        ),
        pytest.param(
            composite(active=0),
            Report("RUNNING", "running", True, 0, shed=False, sheds_all=True),
            id="it has no Undertow",
        ),
        pytest.param(
            composite(servers=undertow(a=host())),
            Report("RUNNING", "running", True, None, shed=False, sheds_all=False),
            id="it does not count requests",
        ),
        pytest.param(
            composite("SUSPENDED", "running", 0),
            Report("SUSPENDED", "running", True, 0, shed=False, sheds_all=True),
            id="it is suspended",
        ),
        pytest.param(
            composite("RUNNING", "starting", 0),
            Report("RUNNING", "starting", False, 0, shed=False, sheds_all=True),
            id="it starts",
        ),
        pytest.param(
            composite("RUNNING", "reload-required", 0),
            Report("RUNNING", "reload-required", True, 0, shed=False, sheds_all=True),
            id="it waits for a reload, and serves",
        ),
        pytest.param(
            composite(active=2**63 - 1),
            Report("RUNNING", "running", True, 2**63 - 1, shed=False, sheds_all=True),
            id="the largest count that the status can hold",
        ),
        pytest.param(
            composite(active=1, status=500),
            Report("RUNNING", "running", True, 1, shed=False, sheds_all=True),
            id="a part of the answer failed",
        ),
        pytest.param(
            composite(active=-1, mode="ADMIN_ONLY"),
            Report(
                "RUNNING",
                "running",
                False,
                None,
                shed=False,
                sheds_all=True,
                waits_for="running-mode NORMAL; it is ADMIN_ONLY",
            ),
            id="it runs for administration only, and counts no requests",
        ),
    ],
)
async def test_what_a_server_says(answers: Answers, report: Report) -> None:
    async with asked(answers) as server:
        assert await server.report() == report


def text(status: int, body: str = "") -> Answers:
    return lambda _: web.Response(status=status, text=body)


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        pytest.param(text(401), "Unauthorized", "HTTP 401", id="wrong credentials"),
        pytest.param(text(403), "Forbidden", "HTTP 403", id="a role that may not"),
        pytest.param(text(503), "Unreachable", "starting or stopping", id="late in boot"),
        pytest.param(text(404), "Unexpected", "HTTP 404", id="no such path"),
        pytest.param(text(200, "<html>nginx"), "Unexpected", "<html>nginx", id="another kind of server"),
        pytest.param(text(500, "oops"), "Unexpected", "oops", id="rubbish with 500"),
        pytest.param(text(200), "Unexpected", "not a WildFly", id="an empty answer"),
        pytest.param(says(hello="world"), "Unexpected", "not a WildFly", id="JSON of something else"),
        pytest.param(text(200, "[" * 100_000), "Unexpected", "not a WildFly", id="JSON without a bottom"),
        pytest.param(text(200, "[1, 2]"), "Unexpected", "not a WildFly", id="JSON of another shape"),
        pytest.param(composite(state="ASLEEP"), "Unexpected", "no valid suspend-state", id="an unknown state"),
        pytest.param(composite(state=None), "Unexpected", "no valid suspend-state", id="no state"),
        pytest.param(composite(server=None), "Unexpected", "no valid suspend-state", id="no server state"),
        pytest.param(composite(mode=None), "Unexpected", "running-mode", id="no running mode"),
        pytest.param(composite(active=True), "Unexpected", "active-requests=true, which is", id="a count that is true"),
        pytest.param(composite(active=-2), "Unexpected", "active-requests=-2, which is", id="a negative count"),
        pytest.param(
            composite(active=2.5), "Unexpected", r"active-requests=2\.5, which is", id="a fraction as a count"
        ),
        pytest.param(composite(active=1.0), "Unexpected", r"active-requests=1\.0, which is", id="a float as a count"),
        pytest.param(composite(active=-1.0), "Unexpected", r"active-requests=-1\.0, which is", id="a negative float"),
        pytest.param(composite(active="3"), "Unexpected", 'active-requests="3", which is', id="a string as a count"),
        pytest.param(composite(active=[3]), "Unexpected", r"active-requests=\[3\], which is", id="a list as a count"),
        pytest.param(
            composite(active=2**63), "Unexpected", f"active-requests={2**63}, which is", id="a count beyond int64"
        ),
        pytest.param(
            composite(active=10**25), "Unexpected", r"active-requests=1(0{25}|e25)", id="a count beyond any integer"
        ),
        pytest.param(says(outcome="failed"), "Unexpected", "no valid suspend-state", id="a composite that failed"),
        pytest.param(
            says(outcome="success", result=["step-1"]),
            "Unexpected",
            "no valid suspend-state",
            id="a composite without steps",
        ),
        pytest.param(
            lambda _: web.Response(status=302, headers={"Location": "http://elsewhere/"}),
            "Unexpected",
            "HTTP 302",
            id="a redirect is not followed",
        ),
    ],
)
async def test_a_server_that_gives_no_report(answers: Answers, kind: FailureKind, message: str) -> None:
    async with asked(answers) as server:
        with pytest.raises(AdminError, match=message) as caught:
            await server.report()
    assert caught.value.failure.kind == kind


async def test_of_an_answer_without_an_end_a_mebibyte_is_read() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20:
                await response.write(b" " * (1 << 16))
                sent += 1 << 16
        return response

    async with served(endless) as server:
        with pytest.raises(AdminError, match="its response exceeds 1048576 bytes") as caught:
            await server.report()
    assert caught.value.failure.kind == "Unexpected"
    assert sent < 32 << 20  # what the sockets hold included


async def test_an_answer_is_not_unpacked() -> None:
    accepted = []

    async def packed(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept-Encoding"])
        body = gzip.compress(json.dumps(step(None)).encode())
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with served(packed) as server:
        with pytest.raises(AdminError, match="not a WildFly"):
            await server.resume()
    assert accepted == ["identity"]


async def test_of_a_long_answer_a_message_has_the_beginning_and_the_end() -> None:
    failed = {"outcome": "failed", "failure-description": "WFLYCTL0158: no" + "!" * 100_000 + "\nend"}
    async with asked(says(500, **failed)) as server:
        with pytest.raises(AdminError, match="WFLYCTL0158: no") as caught:
            await server.resume()
    assert len(str(caught.value)) == len(caught.value.failure.message) == MESSAGE_BYTES
    assert caught.value.failure.message.endswith("!!!\\nend")


async def test_of_a_long_server_state_the_status_has_the_beginning() -> None:
    async with asked(composite(server="\x1b[2J" + "x" * 100_000)) as server:
        report = await server.report()
    assert report.server_state.startswith("\\x1b[2Jxxx")
    assert (len(report.server_state), report.runs) == (100, False)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"outcome": "failed", "failure-description": "ECHO"}, id="in what it says of a failure"),
        pytest.param({"outcome": "failed", "failure-description": {"headers": ["ECHO"]}}, id="in a structure"),
        pytest.param({"outcome": "ECHO"}, id="as the outcome"),
        pytest.param({"outcome": "success", "result": "ECHO"}, id="as the result"),
        pytest.param("ECHO", id="in what is no answer"),
    ],
)
async def test_an_echo_of_the_credentials_is_not_quoted(status: int, answer: Any) -> None:
    digest = "0123456789abcdef" * 2

    def echo(_: Body) -> web.Response:
        said = json.dumps(answer).replace("ECHO", f"user quiesce:secret {digest}")
        return web.Response(text=said, status=status)

    async with asked(echo) as server:
        done = await asyncio.gather(server.report(), server.resume(), server.shed(), return_exceptions=True)
    said = " ".join(str(error) for error in done if isinstance(error, AdminError))
    assert "***" in said
    assert not any(word in said for word in ("quiesce:", "secret", digest))


@pytest.mark.parametrize("before", range(50, 80, 3))
async def test_no_part_of_the_password_is_quoted_where_an_excerpt_ends(before: int) -> None:
    async def management(_: web.Request) -> web.Response:
        return web.Response(text=" " * before + "correct-horse-battery-staple and more")

    async with served(management, "correct-horse-battery-staple") as server:
        with pytest.raises(AdminError, match=r"HTTP 200, ' +\*") as caught:
            await server.resume()
    assert "co" not in str(caught.value).partition("HTTP 200")[2]


async def test_a_state_that_echoes_the_credentials_is_not_quoted() -> None:
    async with asked(composite(server="for secret", mode="MODE secret")) as server:
        report = await server.report()
    assert (report.server_state, report.waits_for) == ("for ***", "running-mode NORMAL; it is MODE ***")


async def test_a_server_that_hangs_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wildfly, "ACT_TIMEOUT_SECONDS", 0.1)

    async def hang(_: Body) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    async with asked(hang) as server:
        with pytest.raises(AdminError, match=r"did not respond within 0\.1 s") as caught:
            await server.suspend()
    assert caught.value.failure.kind == "Unreachable"


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    server = WildFly("127.0.0.1", 1, "quiesce", "secret")
    with pytest.raises(AdminError) as caught:
        await server.report()
    await server.close()
    assert caught.value.failure.kind == "Unreachable"


async def test_a_connection_that_breaks_is_unreachable() -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    listener = await asyncio.start_server(slam, "127.0.0.1", 0)
    server = WildFly("127.0.0.1", listener.sockets[0].getsockname()[1], "quiesce", "secret")
    with pytest.raises(AdminError) as caught:
        await server.resume()
    await server.close()
    listener.close()
    await listener.wait_closed()
    assert caught.value.failure.kind == "Unreachable"


class Undertow:
    """Keeps filters as a WildFly does, and says what a WildFly says."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts
        self.filters: set[str] = set()

    def __call__(self, body: Body) -> web.Response:
        address = {kind: name for part in body["address"] for kind, name in part.items()}
        match body["operation"]:
            case "read-children-resources":
                return web.json_response(step(undertow(**{name: host(*refs) for name, refs in self.hosts.items()})))
            case "add" if "response-header" in address:
                return self._add(self.filters, address["response-header"])
            case "add":
                refs = self.hosts[address["host"]]
                added = self._add(set(refs), address["filter-ref"])
                self.hosts[address["host"]] = sorted({*refs, address["filter-ref"]})
                return added
            case "remove":
                refs = self.hosts[address["host"]]
                if not body["operation-headers"]["allow-resource-service-restart"]:
                    return web.json_response({"outcome": "failed"}, status=500)
                if address["filter-ref"] not in refs:
                    return web.json_response(FAILED, status=500)
                refs.remove(address["filter-ref"])
        return web.json_response(step(None))

    @staticmethod
    def _add(known: set[str], name: str) -> web.Response:
        if name in known:
            duplicate = {"outcome": "failed", "failure-description": "WFLYCTL0212: Duplicate resource"}
            return web.json_response(duplicate, status=500)
        known.add(name)
        return web.json_response(step(None))


@pytest.mark.parametrize(
    "known",
    [
        pytest.param({"a": []}, id="one host"),
        pytest.param({"a": [], "b": ["gzip"]}, id="several hosts"),
        pytest.param({"a": [FILTER_NAME], "b": []}, id="one is shed already"),
        pytest.param({}, id="none"),
    ],
)
async def test_shed_and_unshed_reach_every_host_and_can_be_repeated(known: dict[str, list[str]]) -> None:
    own = {name: [ref for ref in refs if ref != FILTER_NAME] for name, refs in known.items()}
    there = Undertow(**{name: list(refs) for name, refs in known.items()})
    async with asked(there) as server:
        for _ in range(2):
            await server.shed()
            assert all(FILTER_NAME in refs for refs in there.hosts.values())
        for _ in range(2):
            await server.unshed()
            assert there.hosts == own


@pytest.mark.parametrize("what", ["suspend", "resume", "stop", "shed"])
async def test_cancelled_is_no_success_although_it_comes_with_200(what: str) -> None:
    async with asked(says(outcome="cancelled")) as server:
        with pytest.raises(AdminError, match="answered cancelled") as caught:
            await getattr(server, what)()
    assert caught.value.failure.kind == "Unexpected"


@pytest.mark.parametrize("description", ["WFLYCTL0158: no", {"a": ["WFLYCTL0158: no"]}])
async def test_a_failure_is_reported_in_the_servers_words(description: Any) -> None:
    failed = {"outcome": "failed", "failure-description": description}
    async with asked(lambda _: web.json_response(failed, status=500)) as server:
        with pytest.raises(AdminError, match="WFLYCTL0158: no"):
            await server.resume()


@pytest.mark.parametrize(
    ("what", "body"),
    [
        pytest.param(
            "suspend", {"operation": "suspend", "address": [], "suspend-timeout": 0}, id="suspend never blocks"
        ),
        pytest.param("resume", {"operation": "resume", "address": []}, id="resume"),
        pytest.param("stop", {"operation": "shutdown", "address": [], "suspend-timeout": 0}, id="stop never waits"),
    ],
)
async def test_verbs_as_they_go_over_the_wire(what: str, body: Body) -> None:
    heard: list[Body] = []

    def answers(asked_for: Body) -> web.Response:
        heard.append(asked_for)
        return web.json_response(step(None))

    async with asked(answers) as server:
        await getattr(server, what)()
    assert heard == [body]


async def test_an_ipv6_address_is_written_as_a_url() -> None:
    server = WildFly("fd00::7", 9990, "quiesce", "secret")
    await server.close()
    assert server._url == "http://[fd00::7]:9990/management"
