"""Suspend and resume, by annotation and by spec: what the timeouts mean, and what is reported."""

import json
import time
from datetime import datetime

import pytest

from tests import install
from tests.cluster.load import Load, service_url
from tests.estate import API_VERSION, Estate, Watcher, kubectl, wait

SUSPENDED, SERVES = 503, 200


def test_a_server_is_suspended_and_resumed_under_load_without_a_failure(shop: Estate) -> None:
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        time.sleep(3)  # the load is at work on kept-alive connections to every server
        shop.annotate("aps/shop-1", suspend="true", suspend_reason="disk full")
        kubectl("-n", shop.namespace, "wait", "--for=condition=Suspended", "aps/shop-1", "--timeout=30s")
        assert shop.says("shop-1") == "SUSPENDED"
        assert shop.answer("shop-1") == SUSPENDED
        assert shop.endpoints() == {"shop-0", "shop-2"}
        suspend = shop.status("shop-1")["suspend"]
        assert suspend["scope"] == "Server"
        assert suspend["reason"] == "disk full"
        assert suspend["requestedBy"] == "kubectl-annotate"
        shop.annotate("aps/shop-1", suspend=None, suspend_reason=None)
        shop.wait_ready("shop")
        assert shop.says("shop-1") == "RUNNING"
        time.sleep(2)  # requests reach the server again
        load.stop()
    assert load.result().failed == 0, load.result()
    assert shop.answer("shop-1") == SERVES


def test_a_group_is_suspended_but_for_the_server_that_says_otherwise(shop: Estate) -> None:
    shop.annotate("aps/shop-0", suspend="false")
    shop.annotate("sg/shop", suspend="5m")
    for server in ("shop-1", "shop-2"):
        shop.wait_state(server, "Suspended")
    assert shop.endpoints() == {"shop-0"}
    assert shop.status("shop-1")["suspend"]["scope"] == "Group"
    shop.annotate("aps/shop-0", suspend=None)
    shop.wait_state("shop-0", "Suspended")
    wait("the group says so", lambda: shop.condition("sg", "shop", "Suspended")["status"] == "True", 10)
    shop.annotate("sg/shop", suspend=None)
    shop.wait_ready("shop")


def test_a_bad_value_is_refused_with_its_words_and_changes_nothing(shop: Estate) -> None:
    before = shop.get("aps", "shop-0")
    assert before
    with pytest.raises(AssertionError, match=r"quiesce\.dev/suspend.*soon"):
        shop.annotate("aps/shop-0", suspend="soon")
    after = shop.get("aps", "shop-0")
    assert after
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_bad_value_that_came_before_the_policy_is_reported_and_keeps_the_last_good_one(solo: Estate) -> None:
    policy = "validatingadmissionpolicybinding/quiesce-annotations"
    saved = json.loads(kubectl("get", policy, "-o", "json"))
    saved["metadata"] = {"name": saved["metadata"]["name"]}
    solo.server("one")
    solo.wait_state("one", "Running")
    solo.annotate("aps/one", suspend="true")
    solo.wait_state("one", "Suspended")
    kubectl("delete", policy)
    try:
        wait("the policy is out of force", lambda: _accepts(solo, "one", "half past nine"), 20)
    finally:
        kubectl("create", "-f", "-", stdin=json.dumps(saved))
    complaint = wait("it is told", lambda: _bad(solo, "one"), 10)
    assert "half past nine" in complaint["message"]
    solo.wait_event("one", "BadAnnotation", "half past nine")
    assert solo.state("one") == "Suspended"
    solo.annotate("aps/one", suspend=None)
    solo.wait_state("one", "Running")
    wait("nothing is complained of", lambda: not _bad(solo, "one"), 10)


def test_zero_suspends_immediately_and_lets_the_request_end(solo: Estate) -> None:
    solo.server("one")
    solo.wait_state("one", "Running")
    with solo.request("one", 12_000) as request:
        solo.annotate("aps/one", suspend="0")
        wait("new requests are refused", lambda: solo.answer("one") == SUSPENDED, 8)
        assert not request.done()
        solo.wait_state("one", "Suspending", 3)
        assert request.result(20) == SERVES
    solo.wait_state("one", "Suspended", 10)


def test_after_n_seconds_it_says_so_and_stays_until_the_request_has_ended(solo: Estate) -> None:
    solo.server("one", preSuspendSeconds=0)
    solo.wait_state("one", "Running")
    with solo.request("one", 14_000) as request:
        solo.annotate("aps/one", suspend="4s")
        stalled = wait("it says so", lambda: _stalled(solo, "one") == "DrainTimedOut", 12)
        assert stalled
        assert solo.state("one") == "Suspending"
        drain = solo.status("one")["suspend"]
        assert _seconds(drain["deadline"]) - _seconds(drain["suspendingSince"]) == pytest.approx(4)
        assert solo.answer("one") == SUSPENDED
        assert request.result(20) == SERVES
    solo.wait_state("one", "Suspended", 10)
    assert _stalled(solo, "one") == "NotStalled"


def test_minus_one_waits_without_a_limit_and_can_be_taken_back(solo: Estate) -> None:
    solo.server("one", preSuspendSeconds=0)
    solo.wait_state("one", "Running")
    with solo.request("one", 15_000) as request:
        solo.annotate("aps/one", suspend="-1")
        solo.wait_state("one", "Suspending", 5)
        assert "deadline" not in solo.status("one")["suspend"]
        assert solo.answer("one") == SERVES  # nothing is refused as long as something is active
        solo.annotate("aps/one", suspend=None)
        solo.wait_state("one", "Running", 8)
        assert not request.done()
        assert request.result(20) == SERVES
    assert solo.status("one")["lastDrain"]["outcome"] == "Aborted"
    solo.wait_serving({"one"})


def test_a_stop_cuts_what_is_left_after_the_timeout(solo: Estate) -> None:
    solo.server("one", preSuspendSeconds=0, suspendTimeoutSeconds=4)
    solo.wait_state("one", "Running")
    with solo.request("one", 60_000) as request:
        solo.server("one", preSuspendSeconds=0, suspendTimeoutSeconds=4, desiredState="Stopped")
        solo.wait_state("one", "Stopped", 30)
        assert request.result(5) != SERVES
    assert solo.get("pod", "one") is None
    drain = solo.status("one")["lastDrain"]
    assert (drain["outcome"], drain["activeRequests"]) == ("TimedOut", 1)
    solo.server("one", preSuspendSeconds=0, suspendTimeoutSeconds=4)
    solo.wait_state("one", "Running")


def test_force_ends_a_drain(solo: Estate) -> None:
    solo.server("one", suspendTimeoutSeconds=-1)
    solo.wait_state("one", "Running")
    with solo.request("one", 60_000):
        solo.server("one", suspendTimeoutSeconds=-1, desiredState="Stopped")
        solo.wait_state("one", "Suspending", 15)
        solo.annotate("aps/one", force="true")
        solo.wait_state("one", "Stopped", 30)
    assert solo.status("one")["lastDrain"]["outcome"] == "Forced"
    wait("it is used up", lambda: "force" not in solo.annotations("aps", "one"), 10)
    solo.annotate("aps/one", force="true")
    solo.wait_event("one", "NothingToDo")


def test_what_is_changed_together_counts_together(solo: Estate) -> None:
    """A stopped group is to run again, with another image and one server fewer: nothing starts with the old spec."""

    def images() -> list[tuple[str, str]]:
        return sorted((name, pod["spec"]["containers"][0]["image"]) for name, pod in solo.pods().items())

    solo.group("shop", replicas=2, fields={"desiredState": "Stopped"})
    for server in ("shop-0", "shop-1"):
        solo.wait_state(server, "Stopped", 10)
    with Watcher(images) as pods:
        solo.group("shop", replicas=1, version=2)
        solo.wait_ready("shop", 1)
    assert pods.seen == [[], [("shop-0", "quiesce.local/wildfly:2")]]
    wait("the one less is gone", lambda: solo.get("aps", "shop-1") is None, 10)


@pytest.mark.alone
def test_a_drain_continues_where_it_was_when_the_operator_is_killed(solo: Estate) -> None:
    solo.server("one", preSuspendSeconds=0)
    solo.wait_state("one", "Running")
    with solo.request("one", 15_000) as request:
        solo.annotate("aps/one", suspend="40")
        solo.wait_state("one", "Suspending", 5)
        before = solo.status("one")["suspend"]
        install.kill()
        install.scale(1)
        assert request.result(40) == SERVES
        solo.wait_state("one", "Suspended", 20)
        after = solo.status("one")["suspend"]
    assert (after["suspendingSince"], after["deadline"]) == (before["suspendingSince"], before["deadline"])


def _accepts(estate: Estate, server: str, value: str) -> bool:
    patch = {"metadata": {"annotations": {"quiesce.dev/suspend": value}}}
    answer = estate.api.patch(
        version=API_VERSION,
        namespace=estate.namespace,
        url=f"appservers/{server}",
        headers={"Content-Type": "application/merge-patch+json"},
        data=json.dumps(patch),
    )
    return bool(answer.ok)


def _bad(estate: Estate, server: str) -> dict[str, str] | None:
    condition = estate.condition("aps", server, "BadRequest")
    return condition if condition.get("status") == "True" else None


def _stalled(estate: Estate, server: str) -> str:
    return str(estate.condition("aps", server, "Stalled").get("reason"))


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
