"""What a roll leans on goes away in its middle: the API server, etcd, and the operator itself, again and again.

Afterwards all is as it was: every server runs, no request has failed, and the budget was never broken.
"""

import functools
import random
import time

import pytest

from tests import install
from tests.cluster import access, processes
from tests.estate import Estate, wait
from tests.faults import under_load

pytestmark = pytest.mark.alone

SERVERS = ("shop-0", "shop-1", "shop-2")
KILLS = 20
ETCD_AWAY_SECONDS = 30


@pytest.mark.skipif(not access.is_local(), reason="only the local cluster's control plane is ours to stop")
def test_a_roll_outlives_the_api_server_and_etcd(shop: Estate) -> None:
    pods = shop.uids()
    with under_load(shop):
        shop.annotate("sg/shop", restart="true")
        _wait_for_drain(shop, "shop-2")
        with processes.stopped("kube-apiserver"):
            pass
        _api_answers()
        _wait_for_drain(shop, "shop-1")
        # With leader election, as other clusters have it, the controllers would end and come back by themselves.
        # Ours would take the nodes for lost, whose leases are as old as the outage.
        with processes.stopped("kube-controller-manager"):
            with processes.stopped("etcd"):
                time.sleep(ETCD_AWAY_SECONDS)
            _api_answers()
        wait("the last pod is replaced", lambda: shop.pod_uid("shop-0") not in (pods["shop-0"], None), 120)
    assert not pods.items() & shop.uids().items()
    assert _outcomes(shop) == {"Drained"}


def test_the_operator_is_killed_again_and_again_in_mid_roll(shop: Estate) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments, kills, rolls = random.Random(seed), 0, 0
    with under_load(shop):
        while kills < KILLS or rolls < 2:
            if shop.condition("sg", "shop", "Progressing")["status"] == "False":
                shop.annotate("sg/shop", restart="true")
                rolls += 1
            time.sleep(moments.uniform(0, 5))
            killed = _operator()
            kills += 1
            print(f"kill {kills}: {', '.join(map(shop.state, SERVERS))}")
            install.kill()
            wait("another one runs", functools.partial(_is_another, killed), 30)
        wait("the last restart is taken up", lambda: "restart" not in shop.annotations("sg", "shop"), 30)
    assert _outcomes(shop) == {"Drained"}


def _wait_for_drain(shop: Estate, server: str) -> None:
    wait(f"{server} drains", lambda: shop.state(server) in ("PreSuspend", "Suspending"), 120)


def _api_answers() -> None:
    api = access.client()
    wait("the API server answers", lambda: access.answers(api), 60)


def _outcomes(shop: Estate) -> set[str]:
    return {shop.status(server)["lastDrain"]["outcome"] for server in SERVERS}


def _operator() -> str:
    """The container that runs it; empty while none does."""
    statuses = [status for pod in install.pods() for status in pod["status"].get("containerStatuses", ())]
    return next((status["containerID"] for status in statuses if "running" in status["state"]), "")


def _is_another(killed: str) -> bool:
    return _operator() not in (killed, "")
