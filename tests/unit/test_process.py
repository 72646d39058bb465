"""The operator's process, with an API server that knows nothing but a Lease: how it begins, waits and ends."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.cluster.paths import PROJECT

# Only against a hang: on a busy machine, Python alone takes many seconds to import the operator.
PATIENCE_SECONDS = 120.0
LEASES = "/apis/coordination.k8s.io/v1/namespaces/ops/leases"


class ApiServer:
    """One Lease, `servers` as JSON, and nothing in any other list."""

    def __init__(self) -> None:
        self.servers = ""
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.lists: list[str] = []

    @property
    def holder(self) -> str | None:
        return None if self.spec is None else self.spec.get("holderIdentity", "")

    def put(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.spec = spec
        self.version += 1
        return self._lease()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path.startswith(LEASES):
            return await self._answer_lease(request)
        if request.path in ("/api", "/apis"):
            return web.json_response({"versions": [], "groups": []})
        self.lists.append(request.path)
        items = self.servers if request.path.endswith("/appservers") else ""
        return web.Response(text=f'{{"items": [{items}], "metadata": {{}}}}', content_type="application/json")

    async def _answer_lease(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            found = self.spec is not None
            return web.json_response(self._lease() if found else {"message": "not found"}, status=200 if found else 404)
        body = await request.json()
        if request.method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            return web.json_response({"message": "the object has been modified"}, status=409)
        return web.json_response(self.put(body["spec"]))

    def _lease(self) -> dict[str, Any]:
        metadata = {"namespace": "ops", "name": "quiesce", "resourceVersion": str(self.version)}
        return {"metadata": metadata, "spec": self.spec}


class Process:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}/readyz"

    async def is_ready(self) -> str:
        """What it says once it is."""
        async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(self._url) as answer:
                        if answer.ok:
                            return await answer.text()
                await asyncio.sleep(0.05)

    async def ended(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, said = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def kubeconfig(api: ApiServer, tmp_path: Path) -> AsyncIterator[Path]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    own = free_port()
    await web.TCPSite(runner, "127.0.0.1", own).start()
    file = tmp_path / "kubeconfig"
    file.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{own}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    yield file
    await runner.cleanup()


@pytest.fixture
async def operator(kubeconfig: Path) -> AsyncIterator[Process]:
    health = free_port()
    env = {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(PROJECT / "operator"), "POD_NAME": "one"}
    command = (sys.executable, "-m", "quiesce", "--health-port", str(health))
    process = await asyncio.create_subprocess_exec(
        *command, env={**env, "POD_NAMESPACE": "ops"}, stderr=asyncio.subprocess.PIPE
    )
    yield Process(process, health)
    if process.returncode is None:
        process.kill()
        await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_holder_releases_the_lease_when_it_is_terminated(api: ApiServer, operator: Process) -> None:
    assert await operator.is_ready() == "ok\n"
    assert api.holder == "one"
    operator.process.send_signal(signal.SIGTERM)
    began = asyncio.get_running_loop().time()
    code, said = await operator.ended()
    assert (code, api.holder) == (0, ""), said
    assert asyncio.get_running_loop().time() - began < 3
    assert "released the lease ops/quiesce" in said


async def test_a_template_with_as_many_levels_as_the_api_server_accepts_does_not_end_the_process(
    api: ApiServer, operator: Process
) -> None:
    admin = '{"port": "management", "credentialsSecretRef": {"name": "admin"}}'
    template = '{"a": ' * 9_990 + "1" + "}" * 9_990
    metadata = '{"name": "deep", "namespace": "shop", "uid": "u", "resourceVersion": "1"}'
    api.servers = f'{{"metadata": {metadata}, "spec": {{"admin": {admin}, "template": {template}}}}}'
    assert await operator.is_ready() == "ok\n"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any("deep" in path for path in api.lists):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert operator.process.returncode is None


async def test_the_process_ends_with_an_error_when_another_has_the_lease(api: ApiServer, operator: Process) -> None:
    await operator.is_ready()
    api.put({"holderIdentity": "two", "leaseDurationSeconds": 12})
    code, said = await operator.ended()
    assert code == 1
    assert "lost the lease ops/quiesce: two holds it; exiting" in said
    assert api.holder == "two"


async def test_who_waits_is_ready_and_asks_for_nothing_but_the_lease(api: ApiServer, operator: Process) -> None:
    api.put({"holderIdentity": "two", "leaseDurationSeconds": 12})
    assert await operator.is_ready() == "waiting for two\n"
    operator.process.send_signal(signal.SIGTERM)
    code, said = await operator.ended()
    assert (code, api.holder, api.lists) == (0, "two", []), said
    assert "waiting: the lease ops/quiesce is held by two" in said


@pytest.mark.parametrize(
    ("arguments", "frees"),
    [
        ([], False),
        (["--lease=quiesce"], False),
        (["--operator-namespace=ops"], False),
        (["--lease=quiesce", "--operator-namespace=ops"], True),
    ],
)
async def test_a_cleanup_without_a_lease_needs_its_whole_name(
    api: ApiServer, kubeconfig: Path, arguments: list[str], frees: bool
) -> None:
    before = [argument for argument in arguments if argument.startswith("--lease")]
    after = [argument for argument in arguments if argument not in before]
    code, said = await quiesce(kubeconfig, *before, "cleanup", *after)
    assert code == (0 if frees else 1), said
    assert bool(api.lists) == frees
    assert ("there is no Lease ops/quiesce, but an operator may run" in said) != frees


@pytest.mark.parametrize("command", [[], ["cleanup"]])
async def test_an_invalid_kubeconfig_is_reported_in_one_line(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("kind: Config")
    code, said = await quiesce(file, *command)
    assert code == 1
    assert len(said.splitlines()) == 1, said
    assert "can't connect to the API server: " in said
    assert f"KUBECONFIG is {file}" in said


async def quiesce(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    env = {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(PROJECT / "operator"), "POD_NAMESPACE": "ops"}
    command = (sys.executable, "-m", "quiesce", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.PIPE)
    return await Process(process, 0).ended()
