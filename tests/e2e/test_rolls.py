"""Rolls and deletions of pods under load: no request fails, and the budget holds."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import health, install
from tests.cluster.load import FEW, Load, service_url
from tests.estate import Estate, Management, Watcher, kubectl, wait

CLOSE = {"header-name": "Connection", "header-value": "close"}
UNDERTOW = {"subsystem": "undertow"}
# What a shed adds to the server, as the operator does it: the filter, and a reference to it at the host.
SHED: list[dict[str, Any]] = [
    {"address": [UNDERTOW, {"configuration": "filter"}, {"response-header": "quiesce-close"}], **CLOSE},
    {"address": [UNDERTOW, {"server": "default-server"}, {"host": "default-host"}, {"filter-ref": "quiesce-close"}]},
]


@pytest.fixture
def load(shop: Estate) -> Iterator[Load]:
    shop.wait_ready("shop")
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        time.sleep(3)  # kept-alive connections to every server
        yield load


def finish(load: Load) -> None:
    time.sleep(3)  # what a new server does wrong shows in its first seconds
    result = load.stop()
    assert result.failed == 0, result
    assert all(kind.requests > 5 for kind in result.kinds.values()), result


def test_a_new_template_rolls_within_the_budget(shop: Estate, load: Load) -> None:
    pods = {name: shop.pod_uid(name) for name in ("shop-0", "shop-1", "shop-2")}
    with Watcher(lambda: len(shop.endpoints())) as serving:
        shop.group("shop", version=2)
        shop.wait_ready("shop", timeout=180)
    finish(load)
    assert all(shop.pod_uid(name) != uid for name, uid in pods.items())
    assert min(serving.seen) == 2
    assert all(shop.status(name)["lastDrain"]["outcome"] == "Drained" for name in pods)


def test_a_roll_with_a_surge_never_leaves_fewer_to_serve(shop: Estate, load: Load) -> None:
    pods = {name: shop.pod_uid(name) for name in ("shop-0", "shop-1", "shop-2")}
    shop.group("shop", version=1, max_unavailable=0, max_surge=1)
    with Watcher(lambda: len(shop.endpoints())) as serving, Watcher(lambda: shop.get("sg", "shop")) as groups:
        wait("there is one more", lambda: shop.state("shop-3") == "Running", 120)
        wait("the one more is gone", lambda: shop.get("aps", "shop-3") is None, 240)
        shop.wait_ready("shop")
        wait("nothing is left to do", lambda: shop.condition("sg", "shop", "Reconciling")["status"] == "False", 10)
        time.sleep(1)
    seen = [group for group in groups.seen if group]  # a look may come back without an answer
    assert health.kstatus(seen) == ["InProgress"] * (len(seen) - 1) + ["Current"]
    assert {health.argo_cd(group)[0] for group in seen[:-1]} == {"Progressing"}
    finish(load)
    assert all(shop.pod_uid(name) != uid for name, uid in pods.items())
    assert min(serving.seen) == 3
    shop.group("shop", version=1)


def test_a_template_put_back_in_mid_roll_leaves_the_rest_alone(shop: Estate, load: Load) -> None:
    untouched = shop.pod_uid("shop-0")
    shop.group("shop", version=2)
    wait("the first server drains", lambda: _in_state(shop, "PreSuspend"), 30)
    drained = shop.pod_uid("shop-2")
    shop.group("shop", version=1)
    shop.wait_ready("shop")
    finish(load)
    assert (shop.pod_uid("shop-0"), shop.pod_uid("shop-2")) == (untouched, drained)
    assert shop.status("shop-2")["lastDrain"]["outcome"] == "Aborted"


def test_a_pod_deleted_by_hand_is_drained_first(shop: Estate, load: Load) -> None:
    pod = shop.pod_uid("shop-1")
    kubectl("-n", shop.namespace, "delete", "pod", "shop-1", "--wait=false")
    wait("another pod is there", lambda: shop.pod_uid("shop-1") not in (pod, None), 60)
    shop.wait_ready("shop")
    finish(load)
    assert shop.status("shop-1")["lastDrain"]["outcome"] == "Drained"


def test_an_evicted_pod_is_drained_first(shop: Estate, load: Load) -> None:
    pod = shop.pod_uid("shop-0")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "shop-0"}}
    answer = shop.api.post(
        version="v1", namespace=shop.namespace, url="pods/shop-0/eviction", data=json.dumps(eviction)
    )
    assert answer.ok, answer.text
    wait("another pod is there", lambda: shop.pod_uid("shop-0") not in (pod, None), 60)
    shop.wait_ready("shop")
    finish(load)


def test_a_secret_that_is_renamed_with_the_template_drains_every_server_with_its_own_user(
    shop: Estate, load: Load
) -> None:
    servers = ("shop-0", "shop-1", "shop-2")
    shop.secret("next", "next", "an0ther!")
    with Watcher(lambda: [shop.condition("aps", name, "Progressing").get("reason") for name in servers]) as told:
        for secret in ("next", "admin"):
            shop.group("shop", secret=secret, pod={"volumes": [{"name": "admin", "secret": {"secretName": secret}}]})
            shop.wait_ready("shop", timeout=180)
            assert [shop.annotations("pod", name)["admin_secret"] for name in servers] == [secret] * 3
            assert [shop.status(name)["lastDrain"]["outcome"] for name in servers] == ["Drained"] * 3
    finish(load)
    assert not any("AdminUnauthorized" in reasons for reasons in told.seen)


def test_an_admin_port_of_nobody_takes_one_server_out_after_a_drain_and_can_be_put_back(
    shop: Estate, load: Load
) -> None:
    others = {name: shop.pod_uid(name) for name in ("shop-0", "shop-1")}
    shop.group("shop", port="nobody")
    with Watcher(lambda: len(shop.endpoints())) as serving:
        wait("the first gets it", lambda: shop.status("shop-2").get("lastDrain"), 60)
        wait("its pod has it", lambda: shop.pod_uid("shop-2") and shop.state("shop-2") == "Starting", 60)
        time.sleep(10)  # nothing else happens
        shop.group("shop")
        shop.wait_ready("shop", timeout=120)
    finish(load)
    assert min(serving.seen) == 2
    assert shop.status("shop-2")["lastDrain"]["outcome"] == "Drained"
    assert {name: shop.pod_uid(name) for name in others} == others


def test_few_clients_that_pause_between_slow_requests_lose_nothing(shop: Estate) -> None:
    """Each response in flight at the shed leaves its connection open, and the server is quiet in the pauses."""
    with Load(shop.namespace, service_url(shop.namespace, "shop"), clients=FEW) as load:
        for _ in range(2):
            server = asked(shop)
            shop.annotate(f"aps/{server}", suspend="true")
            shop.wait_state(server, "Suspended")
            shop.annotate(f"aps/{server}", suspend=None)
            shop.wait_ready("shop")
        server = asked(shop)
        pod = shop.pod_uid(server)
        shop.annotate(f"aps/{server}", restart="true")
        wait("another pod is there", lambda: shop.pod_uid(server) not in (pod, None), 60)
        shop.wait_ready("shop")
        result = load.stop()
    assert result.failed == 0, result
    assert result.total > 10, result


@pytest.mark.alone
def test_negative_control_a_suspend_without_a_margin_after_the_last_answer_loses_requests(shop: Estate) -> None:
    """The purpose of the margin after the last response, by hand: withdraw, shed, wait until quiet, suspend."""
    install.scale(0)
    try:
        with Load(shop.namespace, service_url(shop.namespace, "shop"), clients=FEW) as load:
            server = asked(shop)
            with Management(shop.namespace, server) as management:
                _close_gate(shop, server)
                wait("it is withdrawn", lambda: server not in shop.endpoints(), 10)
                for operation in SHED:
                    management("add", **operation)
                wait("it is quiet", lambda: shop.active(server) == 0, 20)
                management("suspend", **{"suspend-timeout": 0})
                time.sleep(4)  # every client's pause ends
                management("resume")
            result = load.stop()
    finally:
        install.scale(1)
    assert result.kinds["pausing"].codes.get(503, 0) > 0, result
    shop.wait_ready("shop")


@pytest.mark.alone
def test_negative_control_a_hard_suspend_right_after_the_withdrawal_loses_requests(shop: Estate, load: Load) -> None:
    """The purpose of the order of a drain. If this loses nothing, the other tests prove nothing."""
    install.scale(0)
    try:
        with Management(shop.namespace, "shop-2") as management:
            _close_gate(shop, "shop-2")
            wait("it is withdrawn", lambda: "shop-2" not in shop.endpoints(), 10)
            management("suspend", **{"suspend-timeout": 0})
            time.sleep(4)  # clients come back on connections that outlived the withdrawal
            management("resume")
    finally:
        install.scale(1)
    result = load.stop()
    assert result.kinds["kept-alive"].codes.get(503, 0) > 0, result
    shop.wait_ready("shop")


def asked(estate: Estate) -> str:
    """A server with a request of the load in flight; kube-proxy chooses the servers of the few connections."""

    def found() -> str | None:
        return next((pod for pod in estate.endpoints() if estate.active(pod) > 0), None)

    server: str = wait("a request of the load is under way", found, 30)
    return server


def _in_state(estate: Estate, state: str) -> bool:
    return any(estate.state(f"shop-{ordinal}") == state for ordinal in range(3))


def _close_gate(estate: Estate, pod: str) -> None:
    condition = {"type": "quiesce.dev/serving", "status": "False"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    kubectl("-n", estate.namespace, "patch", "pod", pod, "--subresource=status", "--patch", patch)
