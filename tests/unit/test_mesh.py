"""A service mesh that admits only its own callers: the message says how to keep it away from the admin port."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest

from quiesce.control.admins import Admins
from quiesce.decide.mesh import MESHES, mesh_hint
from quiesce.model.objects import Container, ContainerPort, Pod
from quiesce.model.server import AdminFailure
from tests.unit.build import pod, server
from tests.unit.fake import FakeCluster

replace = msgspec.structs.replace
ISTIO = "traffic.sidecar.istio.io/excludeInboundPorts"
LINKERD = "config.linkerd.io/skip-inbound-ports"
RESET = struct.pack("ii", 1, 0)  # closing a socket that lingers for no time resets the connection


def meshed(sidecar: str = "", annotations: dict[str, str] | None = None, *, init: str = "", port: int = 9990) -> Pod:
    plain = pod(ip="127.0.0.1")
    metadata = replace(plain.metadata, annotations={**plain.metadata.annotations, **(annotations or {})})
    servers = Container("wildfly", (ContainerPort(port, "management"),))
    spec = replace(
        plain.spec,
        containers=(servers, *((Container(sidecar),) if sidecar else ())),
        init_containers=(Container(init),) if init else (),
    )
    return replace(plain, metadata=metadata, spec=spec)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh.sidecar)
def test_a_mesh_is_known_by_its_sidecar_or_its_mark(mesh: tuple[str, str, str]) -> None:
    sidecar, mark, excludes = mesh
    for of in (meshed(sidecar), meshed(init=sidecar), meshed(annotations={mark: "whatever"})):
        assert f"({sidecar}), which may reject requests from outside of it" in mesh_hint(of, 9990)
        assert f'with the annotation {excludes}: "9990" in the metadata of the pod template' in mesh_hint(of, 9990)


@pytest.mark.parametrize("excluded", ["9990", "8778, 9990", "9000-10000"])
def test_nothing_is_said_if_the_port_is_excluded_already(excluded: str) -> None:
    assert mesh_hint(meshed("linkerd-proxy", {LINKERD: excluded}), 9990) == ""


@pytest.mark.parametrize("others", ["8778", "99900", "9991-9999", "none", "9" * 5000])
def test_ports_that_are_excluded_already_stay(others: str) -> None:
    assert f'{ISTIO}: "{others},9990"' in mesh_hint(meshed("istio-proxy", {ISTIO: others}), 9990)


def test_nothing_is_said_of_a_pod_without_a_mesh() -> None:
    assert mesh_hint(meshed("nginx"), 9990) == ""


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.close()


async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 403 Forbidden\r\nl5d-proxy-error: unauthorized\r\ncontent-length: 0\r\n\r\n")
    writer.close()


async def is_starting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    writer.close()


@contextlib.asynccontextmanager
async def listening(answer: object) -> AsyncIterator[int]:
    listener = await asyncio.start_server(answer, "127.0.0.1", 0)  # type: ignore[arg-type]
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()


async def failure(of: Pod) -> AdminFailure:
    admins = Admins(FakeCluster(of))
    found = await admins.report(server(), of)
    await admins.close()
    assert isinstance(found, AdminFailure)
    return found


@pytest.mark.parametrize(("answer", "kind"), [(hang_up, "Unreachable"), (reset, "Unreachable"), (forbid, "Forbidden")])
async def test_a_mesh_that_rejects_the_operator_is_named(answer: object, kind: str) -> None:
    async with listening(answer) as port:
        found = await failure(meshed("istio-proxy", port=port))
        plain = await failure(meshed(port=port))
    assert found.kind == plain.kind == kind
    assert found.message.startswith(f"127.0.0.1:{port} ")
    assert f'{ISTIO}: "{port}"' in found.message
    assert "mesh" not in plain.message


async def test_a_mesh_has_nothing_to_do_with_a_server_that_is_starting_or_does_not_listen() -> None:
    async with listening(is_starting) as port:
        starting = await failure(meshed("istio-proxy", port=port))
    refused = await failure(meshed("istio-proxy", port=port))  # nothing listens there any more
    assert {starting.kind, refused.kind} == {"Unreachable"}
    assert "mesh" not in starting.message + refused.message
