"""Resources that admission sets on a pod, as autoscalers and webhooks do: the operator leaves them alone."""

import time
from typing import Any

from tests.estate import Estate, wait


def test_a_pod_whose_resources_admission_set_is_not_replaced_and_an_eviction_is_drained(solo: Estate) -> None:
    set_default(solo, "50m")
    solo.group("shop", replicas=1)
    solo.wait_ready("shop", 1)
    assert cpu(solo) == "50m", "admission has set it"
    pod = solo.pod_uid("shop-0")
    time.sleep(3)  # for whoever would replace it
    assert solo.pod_uid("shop-0") == pod
    assert solo.condition("sg", "shop", "Reconciling")["status"] == "False"
    set_default(solo, "70m")
    evict(solo, "shop-0")
    wait("another pod is there", lambda: solo.pod_uid("shop-0") not in (pod, None), 60)
    solo.wait_ready("shop", 1)
    assert cpu(solo) == "70m"
    assert solo.status("shop-0")["lastDrain"]["outcome"] == "Drained"


def set_default(estate: Estate, request: str) -> None:
    """What a container requests that requests nothing."""
    estate.apply(
        "v1", "LimitRange", "defaults", spec={"limits": [{"type": "Container", "defaultRequest": {"cpu": request}}]}
    )


def evict(estate: Estate, pod: str) -> None:
    own = {"name": pod, "namespace": estate.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": own}
    url = f"pods/{pod}/eviction"
    answer = estate.api.post(version="v1", namespace=estate.namespace, url=url, json=eviction, timeout=30)
    answer.raise_for_status()


def cpu(estate: Estate) -> Any:
    return (estate.get("pod", "shop-0") or {})["spec"]["containers"][0]["resources"]["requests"]["cpu"]
