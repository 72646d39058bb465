"""Bad templates: what serves goes on serving, it is said which server is in need and why, and a mended one wins."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import audit
from tests.cluster import access
from tests.cluster.load import Load, service_url
from tests.estate import Estate, Watcher, kubectl, wait

MOST_WRITES_A_MINUTE = 12
CRASHES = {"command": ["sh", "-c", "exit 1"]}
NEVER_READY = {"readinessProbe": {"httpGet": {"path": "/nowhere", "port": "management"}, "periodSeconds": 1}}
NOT_THERE = {"image": "quiesce.local/nowhere:1", "imagePullPolicy": "Never"}


@pytest.fixture
def serving(shop: Estate) -> Iterator[Watcher]:
    """How many servers the Service has, from before the trouble until after it."""
    with Watcher(lambda: len(shop.endpoints())) as watcher:
        wait("it has looked", lambda: watcher.seen, 5)
        yield watcher


def test_servers_that_crash_stop_the_roll_and_are_mended_first(shop: Estate, serving: Watcher) -> None:
    before = shop.uids()
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        time.sleep(3)  # kept-alive connections to every server
        shop.group("shop", container=CRASHES)
        said = wait("the group names it and says why", functools.partial(needs_help, shop, "shop-2"), 60)
        assert "CrashLoopBackOff" in said or "back-off" in said, said
        assert shop.endpoints() == {"shop-0", "shop-1"}
        shop.group("shop", version=2)
        shop.wait_ready("shop", timeout=180)
        load.stop()
    assert load.result().failed == 0, load.result()
    assert min(serving.seen) == 2
    assert not shop.uids().items() & before.items()


def test_servers_that_never_get_ready_stop_the_roll_until_the_template_is_put_back(
    shop: Estate, serving: Watcher
) -> None:
    shop.group("shop", version=2)
    shop.wait_ready("shop")
    before = shop.uids()
    shop.group("shop", version=2, container=NEVER_READY)
    wait("a new server runs", lambda: shop.condition("aps", "shop-2", "Ready").get("reason") == "PodNotReady", 60)
    said = wait("the group says why it does not go on", lambda: unready(shop), 60)
    assert "shop-2" in said, said
    shop.group("shop", version=2)
    shop.wait_ready("shop", timeout=60)
    assert min(serving.seen) == 2
    after = shop.uids()
    assert (after["shop-0"], after["shop-1"]) == (before["shop-0"], before["shop-1"])


def test_a_newer_template_in_mid_roll_is_taken_up_at_once(shop: Estate, serving: Watcher) -> None:
    with Watcher(lambda: wave(shop, "shop-0")) as first:
        shop.group("shop", version=2, container={"env": [{"name": "WAVE", "value": "2"}]})
        wait("the roll has reached a server", lambda: wave(shop, "shop-2") == "2", 60)
        shop.group("shop", version=2, container={"env": [{"name": "WAVE", "value": "3"}]})
        shop.wait_ready("shop", timeout=180)
    assert {wave(shop, f"shop-{ordinal}") for ordinal in range(3)} == {"3"}
    assert [value for value in first.seen if value is not None] == ["", "3"]  # it never had the one in between
    assert min(serving.seen) == 2


def test_what_can_not_start_says_why_and_costs_little() -> None:
    """A minute of four kinds of trouble at once, each in a namespace of its own; then each is mended."""
    with contextlib.ExitStack() as stack:
        quota, security, image, crash = (
            stack.enter_context(Estate(name)) for name in ("quota", "security", "image", "crash")
        )
        quota.apply("v1", "ResourceQuota", "small", spec={"hard": {"pods": "0"}})
        restrict = "pod-security.kubernetes.io/enforce"
        kubectl("label", "namespace", security.namespace, f"{restrict}=restricted")
        quota.group("shop", replicas=2)
        security.group("shop", replicas=2)
        image.group("shop", replicas=1, container=NOT_THERE)
        crash.group("shop", replicas=1, container=CRASHES)
        words = {
            quota: "exceeded quota: small",
            security: 'violates PodSecurity "restricted:latest"',
            image: "ErrImageNeverPull",
            crash: "CrashLoopBackOff",
        }
        for estate, text in words.items():
            wait(f"{estate.namespace} says {text}", functools.partial(says, estate, text), 60)
        if access.is_local():
            began = time.time()
            time.sleep(60)
            for estate in words:
                written = audit.writes(began, began + 60, estate.namespace)
                assert len(written) <= MOST_WRITES_A_MINUTE, (estate.namespace, written)
        kubectl("-n", quota.namespace, "delete", "resourcequota", "small")
        kubectl("label", "namespace", security.namespace, f"{restrict}-")
        image.group("shop", replicas=1)
        crash.group("shop", replicas=1)
        for estate in words:
            estate.wait_ready("shop", 2 if estate in (quota, security) else 1, timeout=90)
            assert estate.condition("sg", "shop", "Stalled")["status"] == "False"


def needs_help(estate: Estate, server: str) -> str:
    """What the group says of a server that needs help."""
    condition = estate.condition("sg", "shop", "Stalled")
    message = str(condition.get("message"))
    return message if condition.get("reason") == "ServersNeedHelp" and f"{server}: " in message else ""


def unready(estate: Estate) -> str:
    """What the group says of a server that does not get ready."""
    conditions = (estate.condition("sg", "shop", kind) for kind in ("Progressing", "Stalled"))
    return next((c["message"] for c in conditions if c.get("status") == "True" and "readiness" in c["message"]), "")


def says(estate: Estate, text: str) -> bool:
    """Whether the first server says it, in its condition or its reason, and the group as well."""
    stalled = estate.condition("aps", "shop-0", "Stalled")
    return text in f"{stalled.get('reason')}: {stalled.get('message')}" and "shop-0" in needs_help(estate, "shop-0")


def wave(estate: Estate, pod: str) -> str | None:
    """The variable WAVE of a pod's server; None while there is no pod."""
    found = estate.get("pod", pod)
    if found is None:
        return None
    env: list[dict[str, Any]] = found["spec"]["containers"][0].get("env") or []
    return next((str(one["value"]) for one in env if one["name"] == "WAVE"), "")
