"""Everything that can be deleted, in every way: drained where Kubernetes leaves room, bounded, nothing stuck."""

import functools
import time
from collections.abc import Iterator
from typing import Any

import pykube
import pytest

from tests.cluster.load import Load, service_url
from tests.estate import Estate, wait

SERVES = 200
REQUEST_MILLISECONDS = 8_000
# A short grace after the hold: a namespace's deletion looks again only after half of what its pods may take.
SERVERS: dict[str, Any] = {"suspendTimeoutSeconds": 20, "pod": {"terminationGracePeriodSeconds": 5}}


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    with Estate("deletion") as estate:
        yield estate


@pytest.fixture
def shop(estate: Estate) -> Estate:
    estate.group("shop", replicas=2, **SERVERS)
    estate.wait_ready("shop", 2)
    return estate


def test_pods_deleted_in_a_hurry_are_made_anew(shop: Estate) -> None:
    before = shop.uids()
    shop.kubectl("delete", "pod", "shop-0", "--grace-period=5", "--wait=false")
    shop.kubectl("delete", "pod", "shop-1", "--grace-period=0", "--force", "--wait=false")
    wait("others are there", lambda: not shop.uids().items() & before.items() and len(shop.uids()) == 2, 20)
    shop.wait_ready("shop", 2, timeout=40)


def test_a_server_of_a_group_is_drained_and_made_anew(shop: Estate) -> None:
    before = shop.get("aps", "shop-1")
    assert before
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        time.sleep(3)  # kept-alive connections to both
        shop.kubectl("delete", "aps", "shop-1")
        shop.wait_ready("shop", 2)
        load.stop()
    assert load.result().failed == 0, load.result()
    after = shop.get("aps", "shop-1")
    assert after
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "Drained" in dict(shop.events("shop-1"))


def test_a_server_without_a_group_is_drained_and_gone(estate: Estate) -> None:
    estate.server("one", metadata={"labels": {"app": "one"}}, **SERVERS)
    estate.wait_state("one", "Running")
    with estate.request("one", REQUEST_MILLISECONDS) as request:
        estate.kubectl("delete", "aps", "one", "--timeout=40s")
        assert request.result(1) == SERVES
    assert estate.get("pod", "one") is None


def test_servers_that_a_group_leaves_behind_serve_on_and_are_taken_up_by_the_next(shop: Estate) -> None:
    before = shop.uids()
    shop.kubectl("delete", "sg", "shop", "--cascade=orphan")
    wait("they are nobody's", lambda: not owners(shop), 10)
    time.sleep(3)  # for whoever would take them down
    assert shop.endpoints() == {"shop-0", "shop-1"}
    shop.group("shop", replicas=2, **SERVERS)
    shop.wait_ready("shop", 2, timeout=30)
    group = shop.get("sg", "shop")
    assert group
    wait("they are its own", lambda: owners(shop) == [group["metadata"]["uid"]] * 2, 10)
    assert shop.uids() == before


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_the_servers_of_a_deleted_group_are_drained_and_gone(shop: Estate, cascade: str) -> None:
    with shop.request("shop-1", REQUEST_MILLISECONDS) as request:
        shop.kubectl("delete", "sg", "shop", f"--cascade={cascade}", "--wait=false")
        shop.wait_state("shop-1", "Suspending", 15)
        assert (shop.get("sg", "shop") is None) == (cascade == "background")
        wait("all are gone", functools.partial(is_empty, shop), 40)
        assert request.result(1) == SERVES


def test_a_namespace_goes_after_the_requests_in_it(shop: Estate) -> None:
    with shop.request("shop-0", 12_000) as request:
        shop.kubectl("delete", "namespace", shop.namespace, "--wait=false")
        assert request.result(20) == SERVES
    namespaces = pykube.Namespace.objects(shop.api)
    wait("it is gone", lambda: namespaces.get_or_none(name=shop.namespace) is None, 90)


def servers(estate: Estate) -> list[Any]:
    kind = pykube.object_factory(estate.api, "quiesce.dev/v1alpha1", "AppServer")
    return [server.obj for server in kind.objects(estate.api, namespace=estate.namespace)]


def owners(estate: Estate) -> list[str]:
    return [owner["uid"] for server in servers(estate) for owner in server["metadata"].get("ownerReferences") or ()]


def is_empty(estate: Estate) -> bool:
    left = (estate.get(kind, "shop") for kind in ("sg", "pdb"))
    return not servers(estate) and not estate.pods() and not any(left)
