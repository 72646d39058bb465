"""Sessions with servers: to whom credentials go, and when another session is opened."""

import asyncio

import msgspec
import pytest

from quiesce.admin.port import AdminError
from quiesce.control.admins import Admins
from quiesce.model.objects import Pod
from quiesce.model.resources import SecretRef
from quiesce.model.server import AdminFailure, Report
from tests.unit.build import earlier, pod, report, server
from tests.unit.fake import FakeCluster, FakeWildFly, refusing

replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeWildFly]:
    monkeypatch.setattr("quiesce.control.admins.WildFly", FakeWildFly)
    monkeypatch.setattr(FakeWildFly, "opened", [])
    return FakeWildFly.opened


async def test_one_pod_has_one_session(opened: list[FakeWildFly]) -> None:
    cluster = FakeCluster(pod())
    admins = Admins(cluster)
    assert await admins.report(server(), pod()) == report()
    assert await admins.report(server(), pod()) == report()
    assert [one.address for one in opened] == [("10.0.0.7", 9990)]
    assert opened[0].credentials == ("u", "p")
    assert cluster.count("secret") == 1


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(pod(uid="another"), id="another pod, and with the same address"),
        pytest.param(pod(ip="10.0.0.8"), id="another address of the same pod"),
    ],
)
async def test_another_session_is_opened_for(at: Pod, opened: list[FakeWildFly]) -> None:
    cluster = FakeCluster(pod())
    admins = Admins(cluster)
    await admins.report(server(), pod())
    cluster.put(at)
    assert await admins.report(server(), at) == report()
    assert [one.is_closed for one in opened] == [True, False]


OTHER = server(admin=replace(server().spec.admin, credentials_secret_ref=SecretRef("other")))


def with_secrets(**passwords: str) -> FakeCluster:
    cluster = FakeCluster(pod())
    cluster.secrets = {
        name.replace("_", "-"): {"username": b"u", "password": password.encode()}
        for name, password in passwords.items()
    }
    return cluster


def accepts(monkeypatch: pytest.MonkeyPatch, *passwords: str) -> list[str]:
    """A server that knows these passwords; the ones that it was asked with."""
    asked: list[str] = []

    async def answer(one: FakeWildFly) -> Report:
        asked.append(one.credentials[1])
        if one.credentials[1] not in passwords:
            raise AdminError("Unauthorized", "HTTP 401")
        return report()

    monkeypatch.setattr(FakeWildFly, "report", answer)
    return asked


@pytest.mark.parametrize(
    ("at", "known", "asked"),
    [
        pytest.param(pod(), "old", ["old"], id="that of the pod"),
        pytest.param(earlier(pod()), "new", ["new"], id="that of the spec, for a pod of an earlier version"),
        pytest.param(pod(), "new", ["old", "new"], id="if the server rejects that, the one of the spec"),
    ],
)
async def test_the_secret_that_is_used_while_the_spec_names_another(
    at: Pod, known: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, tried = with_secrets(shop_admin="old", other="new"), accepts(monkeypatch, known)
    cluster.put(at)
    admins = Admins(cluster)
    assert [await admins.report(OTHER, at) for _ in range(2)] == [report()] * 2
    assert tried == [*asked, asked[-1]]


async def test_a_session_continues_when_another_secret_is_named(opened: list[FakeWildFly]) -> None:
    """Also with a pod of an earlier version, which does not say what it was created for."""
    cluster, at = with_secrets(shop_admin="old", other="new"), earlier(pod())
    cluster.put(at)
    admins = Admins(cluster)
    await admins.report(server(), at)
    assert await admins.report(OTHER, at) == report()
    assert [one.credentials for one in opened] == [("u", "old")]


async def test_if_the_secret_of_a_pod_is_gone_that_of_the_spec_is_used_and_a_refusal_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepts(monkeypatch, "new")
    assert await Admins(with_secrets(other="new")).report(OTHER, pod()) == report()
    failure = await Admins(with_secrets(other="wrong")).report(OTHER, pod())
    assert failure == AdminFailure(
        "Unauthorized",
        "HTTP 401: check username and password in Secret 'other'; Secret 'shop-admin', which the pod was created for, "
        "does not exist: create it with username and password",
    )
    failure = await Admins(with_secrets()).report(OTHER, pod())
    assert isinstance(failure, AdminFailure)
    assert failure.kind == "Misconfigured"
    assert "Secret 'shop-admin', which the pod was created for, does not exist" in failure.message
    assert "spec.admin.credentialsSecretRef: Secret 'other' does not exist" in failure.message


async def test_two_secrets_that_a_server_rejects_are_tried_in_turn_and_no_more_often_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, tried = with_secrets(shop_admin="old", other="new"), accepts(monkeypatch, "newer")
    admins = Admins(cluster)
    for _ in range(20):
        failure = await admins.report(OTHER, pod())
        assert isinstance(failure, AdminFailure)
        assert failure.message == "HTTP 401: check username and password in Secret 'other', and in Secret 'shop-admin'"
    assert tried == ["old", "new"]
    loop = asyncio.get_running_loop()
    for due in (6, 16, 40):
        with monkeypatch.context() as later:
            now = loop.time()
            later.setattr(loop, "time", lambda now=now, due=due: now + due)
            assert await admins.report(OTHER, pod()) == failure
    assert tried == ["old", "new", "old", "new", "old"]
    cluster.secrets["other"] = {"username": b"u", "password": b"newer"}
    assert await admins.report(OTHER, pod()) == report()


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(None, id="there is none"),
        pytest.param(pod(uid="another"), id="it is another"),
        pytest.param(pod(owner_uid="someone"), id="it is someone else's"),
        pytest.param(pod(ip=""), id="it has no address"),
        pytest.param(pod(ip="10.0.0.8"), id="it has another address by now"),
    ],
)
async def test_credentials_go_nowhere_when_the_live_pod_is_not_the_one_that_was_seen(
    live: Pod | None, opened: list[FakeWildFly]
) -> None:
    cluster = FakeCluster(*([live] if live else []))
    failure = await Admins(cluster).report(server(), pod())
    assert isinstance(failure, AdminFailure)
    assert failure.kind == "Unreachable"
    assert (opened, cluster.count("secret")) == ([], 0)


@pytest.mark.parametrize(("password", "told"), [(b"p\n", True), (b"p", False)])
async def test_a_wrong_password_that_ends_with_a_newline_is_said_to(
    password: bytes, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `echo … | base64` makes; some server may have it so."""

    async def refused(_: FakeWildFly) -> None:
        raise AdminError("Unauthorized", "HTTP 401")

    cluster = FakeCluster(pod())
    cluster.secrets["shop-admin"] = {"username": b"u", "password": password}
    monkeypatch.setattr(FakeWildFly, "report", refused)
    failure = await Admins(cluster).report(server(), pod())
    assert isinstance(failure, AdminFailure)
    assert failure.message.endswith("whose password ends with a newline") == told


async def test_wrong_credentials_are_read_again(opened: list[FakeWildFly], monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: FakeWildFly) -> None:
        raise AdminError("Unauthorized", "HTTP 401")

    cluster = FakeCluster(pod())
    admins = Admins(cluster)
    with monkeypatch.context() as context:
        context.setattr(FakeWildFly, "report", refused)
        failure = await admins.report(server(), pod())
    assert isinstance(failure, AdminFailure)
    assert "Secret 'shop-admin'" in failure.message
    cluster.secrets["shop-admin"] = {"username": b"u", "password": b"new"}
    assert await admins.report(server(), pod()) == report()
    assert [(one.credentials[1], one.is_closed) for one in opened] == [("p", True), ("new", False)]


async def test_all_sessions_are_closed_in_the_end(opened: list[FakeWildFly]) -> None:
    admins = Admins(FakeCluster(pod("shop-0"), pod("shop-1")))
    for name in ("shop-0", "shop-1"):
        await admins.report(server(name), pod(name))
    await admins.close()
    assert [one.is_closed for one in opened] == [True, True]


async def test_a_secret_that_may_not_be_read_is_reported(opened: list[FakeWildFly]) -> None:
    cluster = FakeCluster(pod())
    cluster.refuse = refusing("secret", 403)
    failure = await Admins(cluster).report(server(), pod())
    assert isinstance(failure, AdminFailure)
    assert (failure.kind, opened) == ("Misconfigured", [])
    assert failure.message.startswith("Secret 'shop-admin' can't be read: ")


async def test_the_same_wrong_credentials_are_not_tried_again_immediately(
    opened: list[FakeWildFly], monkeypatch: pytest.MonkeyPatch
) -> None:
    """WildFly locks the user out after some ten wrong passwords."""

    async def refused(_: FakeWildFly) -> None:
        raise AdminError("Unauthorized", "HTTP 401")

    monkeypatch.setattr(FakeWildFly, "report", refused)
    admins = Admins(FakeCluster(pod()))
    for _ in range(20):
        failure = await admins.report(server(), pod())
        assert isinstance(failure, AdminFailure)
        assert failure.message.startswith("HTTP 401: check username")
    assert len(opened) == 1
    monkeypatch.setattr("quiesce.control.admins.FIRST_RETRY_SECONDS", 0)
    again = Admins(FakeCluster(pod()))
    for _ in range(3):
        await again.report(server(), pod())
    assert len(opened) == 4


@pytest.mark.parametrize(
    ("username", "words"),
    [
        pytest.param(b"hunter2\n", "ends with a newline", id="made with echo"),
        pytest.param(b"admin:hunter2", "has a colon", id="a colon"),
        pytest.param(b"hunter2\x00", "control character", id="a control character"),
        pytest.param(b"hunter2\xff", "not UTF-8", id="bytes that are no text"),
    ],
)
async def test_a_username_that_can_not_be_sent_is_reported_without_its_value(
    username: bytes, words: str, opened: list[FakeWildFly]
) -> None:
    cluster = FakeCluster(pod())
    cluster.secrets["shop-admin"] = {"username": username, "password": b"p"}
    failure = await Admins(cluster).report(server(), pod())
    assert isinstance(failure, AdminFailure)
    assert (failure.kind, opened) == ("Misconfigured", [])
    assert words in failure.message
    assert "hunter2" not in failure.message


async def test_a_session_does_not_show_its_credentials(opened: list[FakeWildFly]) -> None:
    cluster = FakeCluster(pod())
    cluster.secrets["shop-admin"] = {"username": b"hunter1", "password": b"hunter2"}
    admins = Admins(cluster)
    await admins.endpoint(server(), pod())
    assert opened[0].credentials == ("hunter1", "hunter2")
    assert "hunter" not in repr(admins._sessions)


async def test_secrets_that_a_server_rejected_cost_one_look_at_each_until_they_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = with_secrets(shop_admin="old", other="new")
    accepts(monkeypatch, "newer")
    admins = Admins(cluster)
    await admins.report(OTHER, pod())
    cluster.asked.clear()
    await admins.report(OTHER, pod())
    assert (cluster.count("pod"), cluster.count("secret")) == (1, 2)
