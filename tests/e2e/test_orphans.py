"""Pods with the servers' names but no owner: from a backup, or orphaned by another workload."""

import json
import time

from tests.estate import Estate, Watcher, server_spec, wait


def test_a_pod_that_has_lost_its_owner_is_adopted_and_serves_on(shop: Estate) -> None:
    before = shop.uids()
    with Watcher(lambda: len(shop.endpoints())) as serving:
        patch = [{"op": "remove", "path": "/metadata/ownerReferences"}]
        for server in ("shop-0", "shop-1", "shop-2"):
            shop.kubectl("patch", "pod", server, "--type=json", "--patch", json.dumps(patch))
        wait("they are owned", lambda: all(owner(shop, server) for server in before), 10)
        shop.wait_ready("shop")
    assert shop.uids() == before
    assert min(serving.seen) == 3
    shop.annotate("aps/shop-1", suspend="true")  # which needs the server's own credentials
    shop.wait_state("shop-1", "Suspended")
    shop.annotate("aps/shop-1", suspend=None)
    shop.wait_ready("shop")


def test_the_pods_of_a_deleted_statefulset_are_replaced_within_the_budget(solo: Estate) -> None:
    container = {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "4"]}}}}
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": server_spec(container=container)["template"]["spec"]}
    solo.apply(
        "apps/v1",
        "StatefulSet",
        "shop",
        spec={
            "replicas": 2,
            "serviceName": "shop",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template,
        },
    )
    solo.wait_serving({"shop-0", "shop-1"}, timeout=60)
    solo.kubectl("delete", "statefulset", "shop", "--cascade=orphan")
    began = time.monotonic()
    with Watcher(lambda: len(solo.endpoints())) as serving:
        solo.group("shop", replicas=2)
        solo.wait_ready("shop", 2)
    assert min(serving.seen) == 1
    assert time.monotonic() - began >= 2 * 4  # their own hooks were left alone
    assert all(owner(solo, server) for server in ("shop-0", "shop-1"))


def owner(estate: Estate, pod: str) -> bool:
    found = estate.get("pod", pod) or {"metadata": {}}
    return any(one["kind"] == "AppServer" for one in found["metadata"].get("ownerReferences") or ())
