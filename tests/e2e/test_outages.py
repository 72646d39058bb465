"""What a roll leans on goes away in its middle: the API server, etcd, and the operator itself, again and again.

Afterwards all is as it was: every server runs, no request has failed, and the budget was never broken.
"""

import contextlib
import functools
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import install
from tests.cluster import access, local, paths, processes
from tests.estate import Estate, wait
from tests.faults import under_load

pytestmark = pytest.mark.alone

SERVERS = ("shop-0", "shop-1", "shop-2")
KILLS = 20
ETCD_AWAY_SECONDS = 30
KUBELETS = tuple(node.kubelet for node in local.NODES)


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


@pytest.mark.skipif(not access.is_local(), reason="only the local cluster's etcd is ours to restore")
def test_a_group_survives_a_restore_of_etcd(shop: Estate, tmp_path: Path) -> None:
    """All that came after the backup is gone, and resource versions count from there again.

    A server was added since, one was replaced, and one was suspended.
    """
    shop.wait_ready("shop")
    backup = tmp_path / "etcd"
    with _etcd_at_rest() as data:
        shutil.copytree(data, backup)
    _api_answers()
    pods, operator = shop.uids(), _operator()
    shop.kubectl("scale", "sg/shop", "--replicas=4")
    shop.kubectl("delete", "pod", "shop-1", "--wait=false")
    wait("another pod is there", lambda: shop.pod_uid("shop-1") not in (pods["shop-1"], None), 60)
    shop.wait_ready("shop", replicas=4)
    shop.annotate("aps/shop-0", suspend="true")
    shop.wait_state("shop-0", "Suspended")
    with _etcd_at_rest() as data:
        shutil.rmtree(data)
        shutil.copytree(backup, data)
    _api_answers()
    assert shop.uids() == pods
    wait("the operator has started again", lambda: _is_another(operator), 60)
    wait("a pod leads", lambda: install.leader() in install.operator_pods(), 60)
    wait("its server runs", lambda: shop.says("shop-1") == "RUNNING", 120)
    # Nothing records any more that it was suspended on request.
    wait("its suspension is reported", lambda: shop.condition("aps", "shop-0", "Stalled")["reason"] == "Drifted", 60)
    shop.annotate("aps/shop-0", suspend="true")
    shop.wait_state("shop-0", "Suspended")
    shop.annotate("aps/shop-0", suspend=None)
    shop.wait_ready("shop")
    shop.annotate("sg/shop", restart="true")
    wait("every pod is replaced", lambda: not pods.items() & shop.uids().items(), 180)
    shop.wait_ready("shop")


@contextlib.contextmanager
def _etcd_at_rest() -> Iterator[Path]:
    """Its data, while nothing runs that keeps a copy of it, as etcd's manual has it for a restore.

    The controllers start after the nodes, which they would take for lost.
    """
    with processes.stopped("kube-controller-manager", "kube-scheduler"):
        with processes.stopped("etcd", "kube-apiserver", "kube-proxy", *KUBELETS):
            yield paths.CLUSTER / "etcd"
        _api_answers()


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
