"""Containers that the kubelet restarts in place: as soon as without a hold, and out of service in the meantime."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.estate import Estate, Watcher, wait

# Of the pod, because of the timeout: an hour.
ENDLESS = -1
LIVENESS = {"exec": {"command": ["sh", "-c", "test ! -e /tmp/dead"]}, "periodSeconds": 2, "failureThreshold": 1}
# A probe's period, the end of the server and a poll or two: not the hold, and not the grace period of 30 s either.
SOON_SECONDS = 20


@pytest.fixture(scope="module")
def one() -> Iterator[Estate]:
    with Estate("restarts") as estate:
        estate.server("one", suspendTimeoutSeconds=ENDLESS, container={"livenessProbe": LIVENESS})
        estate.wait_state("one", "Running")
        yield estate


def test_a_failed_liveness_probe_restarts_a_server_without_the_hold(one: Estate) -> None:
    before, pod = container(one), one.pod_uid("one")
    with Watcher(lambda: (container(one), gate(one))) as seen:
        one.kubectl("exec", "one", "--", "touch", "/tmp/dead")
        wait("its next container is there", lambda: container(one) not in ("", before), SOON_SECONDS)
        one.wait_state("one", "Running")
        one.wait_serving({"one"})
    assert one.pod_uid("one") == pod
    assert (before, "False") in seen.seen, "out of service before it ends"


def test_an_image_that_is_changed_in_place_is_started_without_the_hold(one: Estate) -> None:
    before, pod = container(one), one.pod_uid("one")
    one.kubectl("set", "image", "pod/one", "wildfly=quiesce.local/wildfly:2")
    wait("its next container is there", lambda: container(one) not in ("", before), SOON_SECONDS)
    one.wait_state("one", "Running")
    one.wait_serving({"one"})
    assert one.pod_uid("one") == pod


def container(estate: Estate) -> str:
    found = status(estate).get("containerStatuses") or [{}]
    return str(found[0].get("containerID", ""))


def gate(estate: Estate) -> str:
    conditions = status(estate).get("conditions") or ()
    return next((str(c["status"]) for c in conditions if c["type"] == "quiesce.dev/serving"), "")


def status(estate: Estate) -> dict[str, Any]:
    return dict((estate.get("pod", "one") or {}).get("status") or {})
