"""Probes of a server that is suspended: which succeed, which restart it, and where that is said before."""

import functools
from datetime import datetime
from typing import Any

import requests

from tests.estate import Estate, wait

# What the server answers at each path, while it runs and while it is suspended.
MANAGEMENT, APPLICATION = 9990, 8080
ANSWERS = {
    (MANAGEMENT, "/health"): (200, 503),
    (MANAGEMENT, "/health/"): (200, 503),
    (MANAGEMENT, "/health/ready"): (200, 503),
    (MANAGEMENT, "/health/live"): (200, 200),
    (MANAGEMENT, "/health/started"): (200, 200),
    (APPLICATION, "/slow?ms=0"): (200, 503),
    (APPLICATION, "/health/live"): (404, 503),
}
QUICK = {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 5}
STARTED = {"httpGet": {"path": "/health/started", "port": "management"}, **QUICK, "failureThreshold": 120}
SAFE = {
    "startupProbe": STARTED,
    "livenessProbe": {"httpGet": {"path": "/health/live", "port": "management"}, **QUICK},
}
UNSAFE = {"startupProbe": STARTED, "livenessProbe": {"httpGet": {"path": "/health", "port": "management"}, **QUICK}}
NEVER_STARTS = {
    "startupProbe": {
        "httpGet": {"path": "/slow", "port": "http"},
        "initialDelaySeconds": 45,  # the server is suspended by then
        **QUICK,
    }
}

NEVER_ANSWERS = {
    "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1; done"],
    "startupProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
}


def test_what_a_suspended_server_answers_and_a_safe_probe_leaves_it_alone(solo: Estate) -> None:
    solo.server("one", container=SAFE)
    solo.wait_state("one", "Running", 90)
    assert answers(solo) == {path: running for path, (running, _) in ANSWERS.items()}
    solo.annotate("aps/one", suspend="true")
    solo.wait_state("one", "Suspended", 30)
    assert answers(solo) == {path: suspended for path, (_, suspended) in ANSWERS.items()}
    probed = solo.condition("aps", "one", "UnsafeProbe")
    assert (probed["status"], probed["reason"]) == ("False", "NoUnsafeProbe")
    assert restarts(solo, "one") == 0


def test_a_probe_that_would_restart_a_suspended_server_is_reported_before_it_does(solo: Estate) -> None:
    solo.group("shop", replicas=1, container=UNSAFE)
    for kind, name in (("sg", "shop"), ("aps", "shop-0")):
        probed = wait("it is reported", functools.partial(unsafe, solo, kind, name), 10)
        assert "livenessProbe (httpGet /health on port management)" in probed
        solo.wait_event(name, "FailsWhileSuspended", "/health ")
    solo.wait_ready("shop", 1)
    solo.annotate("sg/shop", suspend="true")
    solo.wait_state("shop-0", "Suspended", 30)
    wait("the kubelet restarts it", lambda: restarts(solo, "shop-0"), 60)
    solo.annotate("sg/shop", suspend=None)
    solo.group("shop", replicas=1, container=SAFE)
    wait("nothing is reported any more", lambda: not unsafe(solo, "sg", "shop"), 10)
    solo.wait_ready("shop", 1)


def test_so_is_a_startup_probe_that_a_server_which_is_suspended_at_once_never_passes(solo: Estate) -> None:
    solo.server("one", container=NEVER_STARTS, desiredState="Suspended")
    assert "startupProbe (httpGet /slow on port http) asks the application's port" in wait(
        "it is reported", lambda: unsafe(solo, "aps", "one"), 10
    )
    solo.wait_state("one", "Suspended", 45)
    wait("the kubelet restarts it", lambda: restarts(solo, "one"), 60)


def test_a_server_that_does_not_start_is_restarted_soon_after_its_startup_probe_fails(solo: Estate) -> None:
    """Nothing answers at the admin endpoint that could end the hold."""
    solo.server("one", container=NEVER_ANSWERS)
    wait("the kubelet restarts it", lambda: restarts(solo, "one"), 60)
    (container,) = (solo.get("pod", "one") or {})["status"]["containerStatuses"]
    first = container["lastState"]["terminated"]
    ran = datetime.fromisoformat(first["finishedAt"]) - datetime.fromisoformat(first["startedAt"])
    assert ran.total_seconds() < 15


def answers(estate: Estate) -> dict[tuple[int, str], int]:
    return {(port, path): answer(estate, port, path) for port, path in ANSWERS}


def answer(estate: Estate, port: int, path: str) -> int:
    try:
        reply: Any = estate.api.get(
            version="v1", namespace=estate.namespace, url=f"pods/one:{port}/proxy{path}", timeout=10
        )
    except requests.HTTPError as error:
        reply = error.response
    return int(reply.status_code)


def unsafe(estate: Estate, kind: str, name: str) -> str:
    probed = estate.condition(kind, name, "UnsafeProbe")
    return str(probed["message"]) if probed.get("status") == "True" else ""


def restarts(estate: Estate, pod: str) -> int:
    found = estate.get("pod", pod) or {}
    return sum(status["restartCount"] for status in found["status"].get("containerStatuses") or ())
