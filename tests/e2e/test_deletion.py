"""Everything that can be deleted, in every way: drained as far as Kubernetes leaves time, bounded, nothing stuck."""

import time
from collections.abc import Iterator
from typing import Any

import pykube
import pytest

from tests.estate import Estate, wait

SERVES = 200
REQUEST_MILLISECONDS = 8_000
# A short grace after the hold: a namespace's deletion looks again only after half of what its pods may take.
SERVERS: dict[str, Any] = {"suspendTimeoutSeconds": 20, "pod": {"terminationGracePeriodSeconds": 5}}


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    """Two groups and a server without one; each test leaves what the next ones need."""
    with Estate("deletion") as estate:
        estate.service("cart")
        estate.group("shop", replicas=2, **SERVERS)
        estate.group("cart", replicas=1, **SERVERS)
        estate.server("one", metadata={"labels": {"app": "one"}}, **SERVERS)
        yield estate


@pytest.fixture
def shop(estate: Estate) -> Estate:
    estate.wait_ready("shop", 2)
    return estate


def test_pods_deleted_in_a_hurry_are_recreated(shop: Estate) -> None:
    before = shop.uids()
    shop.kubectl("delete", "pod", "shop-0", "--grace-period=5", "--wait=false")
    shop.kubectl("delete", "pod", "shop-1", "--grace-period=0", "--force", "--wait=false")
    wait("others are there", lambda: not shop.uids().items() & before.items() and len(shop.uids()) == 2, 20)
    shop.wait_ready("shop", 2)


def test_deleted_servers_are_drained_and_a_group_makes_another(shop: Estate) -> None:
    shop.wait_state("one", "Running")
    before = server_uids(shop)
    with shop.request("one", REQUEST_MILLISECONDS) as lone, shop.request("shop-1", REQUEST_MILLISECONDS) as grouped:
        shop.kubectl("delete", "aps", "one", "shop-1", "--timeout=40s")
        assert (lone.result(1), grouped.result(1)) == (SERVES, SERVES)
    assert shop.get("aps", "one") is shop.get("pod", "one") is None
    wait("the group has another", lambda: server_uids(shop).get("shop-1") not in (before["shop-1"], None), 10)
    shop.wait_ready("shop", 2)


def test_servers_that_a_group_leaves_behind_serve_on_and_are_taken_up_by_the_next(shop: Estate) -> None:
    before = shop.uids()
    shop.kubectl("delete", "sg", "shop", "--cascade=orphan")
    wait("they are nobody's", lambda: not owners(shop), 10)
    time.sleep(3)  # in case they are taken down by mistake
    assert shop.endpoints() == {"shop-0", "shop-1"}
    shop.group("shop", replicas=2, **SERVERS)
    shop.wait_ready("shop", 2, timeout=30)
    group = shop.get("sg", "shop")
    assert group
    wait("they are its own", lambda: owners(shop) == [group["metadata"]["uid"]] * 2, 10)
    assert shop.uids() == before


def test_a_recreated_group_waits_for_the_servers_of_its_predecessor(shop: Estate) -> None:
    """What `kubectl replace --force` does."""
    before = shop.uids()
    with shop.request("shop-1", REQUEST_MILLISECONDS) as request:
        shop.kubectl("delete", "sg", "shop", "--cascade=background")
        shop.group("shop", replicas=2, **SERVERS)
        wait("it says so", lambda: "predecessor is being deleted" in progress(shop), 10)
        assert shop.condition("sg", "shop", "Stalled")["status"] == "False"
        assert request.result(20) == SERVES
    shop.wait_ready("shop", 2)
    assert not shop.uids().items() & before.items()


def test_the_servers_of_deleted_groups_are_drained_and_gone(shop: Estate) -> None:
    shop.wait_ready("cart", 1)
    with shop.request("shop-1", REQUEST_MILLISECONDS) as first, shop.request("cart-0", REQUEST_MILLISECONDS) as second:
        shop.kubectl("delete", "sg", "shop", "--cascade=background", "--wait=false")
        shop.kubectl("delete", "sg", "cart", "--cascade=foreground", "--wait=false")
        for server in ("shop-1", "cart-0"):
            shop.wait_state(server, "Suspending", 15)
        assert shop.get("sg", "shop") is None
        assert shop.get("sg", "cart") is not None  # it waits for its servers
        wait(
            "all are gone",
            lambda: not server_uids(shop) and not left_of(shop, "shop") and not left_of(shop, "cart"),
            40,
        )
        assert (first.result(1), second.result(1)) == (SERVES, SERVES)


def test_a_namespace_goes_after_the_requests_in_it(estate: Estate) -> None:
    estate.group("shop", replicas=1, **SERVERS)
    estate.wait_ready("shop", 1)
    with estate.request("shop-0", 12_000) as request:
        estate.kubectl("delete", "namespace", estate.namespace, "--wait=false")
        assert request.result(20) == SERVES
    namespaces = pykube.Namespace.objects(estate.api)
    wait("it is gone", lambda: namespaces.get_or_none(name=estate.namespace) is None, 90)


def servers(estate: Estate, group: str = "") -> list[Any]:
    kind = pykube.object_factory(estate.api, "quiesce.dev/v1alpha1", "AppServer")
    found = kind.objects(estate.api, namespace=estate.namespace)
    return [server.obj for server in (found.filter(selector={"quiesce.dev/group": group}) if group else found)]


def server_uids(estate: Estate) -> dict[str, str]:
    return {server["metadata"]["name"]: server["metadata"]["uid"] for server in servers(estate)}


def progress(estate: Estate) -> str:
    condition = estate.condition("sg", "shop", "Progressing")
    return str(condition.get("message")) if condition.get("status") == "True" else ""


def owners(estate: Estate) -> list[str]:
    """The owners of the group's servers."""
    metadata = (server["metadata"] for server in servers(estate, "shop"))
    return [owner["uid"] for own in metadata for owner in own.get("ownerReferences") or ()]


def left_of(estate: Estate, group: str) -> bool:
    """Whether anything of a group is there, aside from its AppServers."""
    return bool(estate.pods(group)) or any(estate.get(kind, group) for kind in ("sg", "pdb"))
