"""Servers whose admin endpoint fails, in every way that one can; and servers that are killed.

Afterwards all is as it was: every server runs, no request has failed, and the budget was never broken.
"""

import contextlib
import time
from collections.abc import Iterator

import pytest
import requests

from tests import audit
from tests.estate import PASSWORD, USERNAME, Estate, wait
from tests.faults import BEHIND_PROXY, asked, kill_server, misbehave, set_password, under_load

SERVERS = ("shop-0", "shop-1", "shop-2")
TIMEOUT_SECONDS = 10
NOT_HOT_SECONDS = 5
RESTART_SECONDS = 3  # of an admin endpoint

# Two at a time: the reason that is reported, and part of its message. A slow endpoint is not reported.
FAULTS = (
    {"hang": ("AdminUnreachable", "did not respond within 5 s"), "slow": ("NotStalled", "")},
    {"401": ("AdminUnauthorized", "Secret 'admin'"), "html": ("AdminUnexpected", "It works!")},
    {"json": ("AdminUnexpected", "UP"), "down": ("AdminUnreachable", "can't be reached")},
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Estate]:
    """Three servers, each behind a proxy that spoils its admin endpoint on demand."""
    with Estate("faults") as estate:
        estate.group("shop", port="proxy", container=BEHIND_PROXY, suspendTimeoutSeconds=TIMEOUT_SECONDS)
        estate.wait_ready("shop")
        yield estate


@pytest.fixture(autouse=True)
def _mended(shop: Estate) -> Iterator[None]:
    """What a failed test has left must not affect the next one."""
    yield
    for server in SERVERS:
        with contextlib.suppress(requests.RequestException):
            misbehave(shop, server, "none")
        shop.annotate(f"aps/{server}", suspend=None)


def test_a_suspend_waits_until_the_admin_endpoint_is_fixed(shop: Estate) -> None:
    with under_load(shop, least=1):
        for faults in FAULTS:
            _suspend_with(shop, faults)


def _suspend_with(shop: Estate, faults: dict[str, tuple[str, str]]) -> None:
    servers = dict(zip(("shop-1", "shop-2"), faults, strict=True))
    for server, fault in servers.items():
        misbehave(shop, server, fault)
        shop.annotate(f"aps/{server}", suspend="60")
    for server, fault in servers.items():
        reason, words = faults[fault]
        if fault == "slow":
            shop.wait_state(server, "Suspended")
            assert _stalled(shop, server)[0] == reason
            continue
        _wait_told(shop, server, reason, words)
        wait(f"{server} is withdrawn", lambda server=server: server not in shop.endpoints(), 20)  # type: ignore[misc]
        shop.wait_state(server, "Suspending", 20)
        assert shop.says(server) == "RUNNING"
    for server in servers:
        misbehave(shop, server, "none")
    for server in servers:
        shop.wait_state(server, "Suspended", 30)
        assert shop.says(server) == "SUSPENDED"
        assert _stalled(shop, server)[0] == "NotStalled"
        assert _outcome(shop, server) == "Drained"
        shop.annotate(f"aps/{server}", suspend=None)
    shop.wait_ready("shop")


def test_an_admin_endpoint_that_restarts_in_mid_drain_does_not_stop_a_roll(shop: Estate) -> None:
    pods = shop.uids()
    with under_load(shop):
        shop.annotate("aps/shop-2", restart="true")
        wait("it drains", lambda: shop.state("shop-2") in ("PreSuspend", "Suspending"), 30)
        misbehave(shop, "shop-2", "down")
        time.sleep(RESTART_SECONDS)
        misbehave(shop, "shop-2", "none")
        wait("another pod is there", lambda: shop.pod_uid("shop-2") not in (pods["shop-2"], None), 60)
    assert shop.uids() == {**pods, "shop-2": shop.pod_uid("shop-2")}
    assert _outcome(shop, "shop-2") == "Drained"


def test_a_server_that_lies_is_not_believed_and_not_pestered(shop: Estate) -> None:
    with under_load(shop):
        misbehave(shop, "shop-2", "lies")
        shop.annotate("aps/shop-2", suspend="true")
        _wait_told(shop, "shop-2", "NoEffect", "the request to close connections")
        before, began = asked(shop, "shop-2"), time.time()
        time.sleep(NOT_HOT_SECONDS)
        calls = asked(shop, "shop-2") - before
        assert 0 < calls["add"] <= 2 * (NOT_HOT_SECONDS + 1), calls  # a shed adds two things
        assert audit.between(began, began + NOT_HOT_SECONDS, shop.namespace).writes.total() <= 2
        assert shop.state("shop-2") == "PreSuspend"
        assert shop.says("shop-2") == "RUNNING"
        misbehave(shop, "shop-2", "none")
        shop.wait_state("shop-2", "Suspended", 30)
        assert shop.says("shop-2") == "SUSPENDED"
        shop.annotate("aps/shop-2", suspend=None)
        shop.wait_ready("shop")


def test_a_stop_of_a_server_that_lies_is_reported_and_ends_with_its_timeout(shop: Estate) -> None:
    with under_load(shop, warned=False):
        pod = shop.pod_uid("shop-2")
        misbehave(shop, "shop-2", "lies")
        shop.annotate("aps/shop-2", restart="true")
        _wait_told(shop, "shop-2", "NoEffect", "the request to close connections")
        wait("it is stopped all the same", lambda: _outcome(shop, "shop-2") == "TimedOut", TIMEOUT_SECONDS + 15)
        misbehave(shop, "shop-2", "none")
        wait("another pod is there", lambda: shop.pod_uid("shop-2") not in (pod, None), 60)


def test_a_server_killed_in_mid_drain_returns_to_its_desired_state(shop: Estate) -> None:
    shop.wait_ready("shop")
    pod = shop.pod_uid("shop-2")
    with shop.request("shop-1", 30_000), shop.request("shop-2", 30_000):
        shop.annotate("aps/shop-1", suspend="60")
        shop.annotate("aps/shop-2", restart="true")
        for server in ("shop-1", "shop-2"):
            shop.wait_state(server, "Suspending", 20)
            kill_server(shop, server)
    shop.wait_state("shop-1", "Suspended")
    assert shop.says("shop-1") == "SUSPENDED"
    wait("the other is replaced", lambda: shop.pod_uid("shop-2") not in (pod, None))
    shop.wait_state("shop-2", "Running")
    shop.wait_serving({"shop-0", "shop-2"})
    shop.annotate("aps/shop-1", suspend=None)
    shop.wait_ready("shop")
    assert [shop.says(server) for server in SERVERS] == ["RUNNING"] * 3


def test_a_password_is_rotated_on_the_servers_and_in_the_secret_in_either_order(shop: Estate) -> None:
    shop.wait_ready("shop")
    _rotate(shop, "r0tated!")
    shop.annotate("aps/shop-1", suspend="true")
    _wait_told(shop, "shop-1", "AdminUnauthorized", "Secret 'admin'")
    shop.secret("admin", USERNAME, "r0tated!")
    shop.wait_state("shop-1", "Suspended", 30)
    shop.secret("admin", USERNAME, PASSWORD)  # open sessions continue with the credentials that the servers know
    shop.annotate("aps/shop-1", suspend=None)
    shop.wait_state("shop-1", "Running", 30)
    _rotate(shop, PASSWORD)
    for server in ("shop-1", "shop-2"):
        shop.annotate(f"aps/{server}", suspend="true")
        shop.wait_state(server, "Suspended", 30)
        shop.annotate(f"aps/{server}", suspend=None)
    shop.wait_ready("shop")
    assert [shop.says(server) for server in SERVERS] == ["RUNNING"] * 3


def _stalled(shop: Estate, server: str) -> tuple[str, str]:
    condition = shop.condition("aps", server, "Stalled")
    return condition["reason"], condition.get("message", "")


def _outcome(shop: Estate, server: str) -> str:
    return str(shop.status(server)["lastDrain"]["outcome"])


def _wait_told(shop: Estate, server: str, reason: str, words: str) -> None:
    def told() -> bool:
        condition = shop.condition("aps", server, "Progressing")
        return condition["reason"] == reason and words in condition["message"]

    wait(f"{server} tells {reason}: {words}", told, 60)


def _rotate(shop: Estate, password: str) -> None:
    for server in SERVERS:
        set_password(shop, server, USERNAME, password)
