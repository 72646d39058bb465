"""Bad templates: what serves keeps serving, the failing server and the cause are reported, a fixed template wins."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests import audit
from tests.cluster import access
from tests.cluster.load import Load, service_url
from tests.estate import Estate, Watcher, kubectl, wait

MOST_WRITES_A_MINUTE = 12
RESTRICT = "pod-security.kubernetes.io/enforce"
CRASHES = {"command": ["sh", "-c", "exit 1"]}
NEVER_READY = {"readinessProbe": {"httpGet": {"path": "/nowhere", "port": "management"}, "periodSeconds": 1}}
NOT_THERE = {"image": "quiesce.local/nowhere:1", "imagePullPolicy": "Never"}


@dataclass(frozen=True)
class Trouble:
    """A group that can't start, in a namespace of its own; what is reported; how it is fixed."""

    estate: Estate
    words: str
    mend: Callable[[], object]


@pytest.fixture(scope="module")
def troubles() -> Iterator[tuple[float, list[Trouble]]]:
    """Four problems at the same time, with when they began and were reported; they last while other tests run."""
    with contextlib.ExitStack() as stack:
        quota, security, image, crash = (
            stack.enter_context(Estate(name)) for name in ("quota", "security", "image", "crash")
        )
        quota.apply("v1", "ResourceQuota", "small", spec={"hard": {"pods": "0"}})
        kubectl("label", "namespace", security.namespace, f"{RESTRICT}=restricted")
        for estate, container in ((quota, {}), (security, {}), (image, NOT_THERE), (crash, CRASHES)):
            estate.group("shop", replicas=1, container=container)
        found = [
            Trouble(quota, "exceeded quota: small", lambda: quota.kubectl("delete", "resourcequota", "small")),
            Trouble(
                security,
                'violates PodSecurity "restricted:latest"',
                lambda: kubectl("label", "namespace", security.namespace, f"{RESTRICT}-"),
            ),
            Trouble(image, "ErrImageNeverPull", lambda: image.group("shop", replicas=1)),
            Trouble(crash, "CrashLoopBackOff", lambda: crash.group("shop", replicas=1)),
        ]
        for trouble in found:
            told = functools.partial(says, trouble.estate, trouble.words)
            wait(f"{trouble.estate.namespace} says {trouble.words}", told, 60)
        yield time.time(), found


@pytest.fixture(scope="module")
def unready() -> Iterator[Estate]:
    """Servers that run, but never become ready; they last as long."""
    with Estate("unready") as estate:
        estate.group("shop", replicas=2, container=NEVER_READY)
        yield estate


@pytest.mark.usefixtures("troubles", "unready")
def test_a_roll_stops_at_bad_templates_and_continues_with_a_fixed_one() -> None:
    """Crashing servers, then ones that don't become ready, then good ones, without a lost request."""
    with Estate("bad") as shop:
        shop.group("shop", replicas=2)
        shop.wait_ready("shop", 2)
        with (
            Load(shop.namespace, service_url(shop.namespace, "shop")) as load,
            Watcher(lambda: len(shop.endpoints())) as serving,
            Watcher(lambda: image_of(shop, "shop-0")) as images,
        ):
            time.sleep(3)  # kept-alive connections to both
            shop.group("shop", replicas=2, container=CRASHES)
            said = wait("the group says which and why", functools.partial(needs_help, shop, "shop-1"), 60)
            assert "container wildfly" in said, said
            shop.group("shop", replicas=2, container=NEVER_READY)
            wait("the server says what it waits for", lambda: waits_for_probe(shop, "shop-1"), 60)
            wait("the group says what it waits for", lambda: rolls(shop, "shop-1"), 10)
            assert shop.endpoints() == {"shop-0"}
            shop.group("shop", replicas=2, version=2)
            shop.wait_ready("shop", 2)
            load.stop()
        assert load.result().failed == 0, load.result()
        assert min(serving.seen) == 1
        # The other never had a bad template.
        assert [image for image in images.seen if image] == ["quiesce.local/wildfly:1 ", "quiesce.local/wildfly:2 "]


def test_what_can_not_start_says_why_costs_little_and_is_fixed(troubles: tuple[float, list[Trouble]]) -> None:
    began, found = troubles
    if access.is_local():
        asked = {trouble.words: audit.between(began, began + 60, trouble.estate.namespace) for trouble in found}
        assert all(one.writes.total() + one.dry_runs.total() <= MOST_WRITES_A_MINUTE for one in asked.values()), asked
    for trouble in found:
        wait("it is still told", functools.partial(says, trouble.estate, trouble.words), 10)
        trouble.mend()
    for trouble in found:
        trouble.estate.wait_ready("shop", 1)
        wait("nothing is stalled", functools.partial(is_fine, trouble.estate), 10)


def test_servers_that_never_got_ready_are_fixed_though_none_is_left_to_serve(unready: Estate) -> None:
    for server in ("shop-0", "shop-1"):
        wait(f"{server} is let in", functools.partial(waits_for_probe, unready, server), 30)
    unready.group("shop", replicas=2)
    unready.wait_ready("shop", 2)


def needs_help(estate: Estate, server: str) -> str:
    """What the group says of a server that needs help."""
    condition = estate.condition("sg", "shop", "Stalled")
    message = str(condition.get("message"))
    return message if condition.get("reason") == "ServersNeedHelp" and f"{server}: " in message else ""


def is_fine(estate: Estate) -> bool:
    return bool(estate.condition("sg", "shop", "Stalled")["status"] == "False")


def rolls(estate: Estate, server: str) -> bool:
    progress = estate.condition("sg", "shop", "Progressing")
    return (progress["status"], progress["reason"]) == ("True", "RollingUpdate") and server in progress["message"]


def waits_for_probe(estate: Estate, server: str) -> bool:
    ready = estate.condition("aps", server, "Ready")
    return (ready.get("status"), ready.get("reason")) == ("False", "PodNotReady") and "probe" in ready["message"]


def says(estate: Estate, text: str) -> bool:
    """Whether the first server says it, in its condition or its reason, and the group as well."""
    stalled = estate.condition("aps", "shop-0", "Stalled")
    return text in f"{stalled.get('reason')}: {stalled.get('message')}" and "shop-0" in needs_help(estate, "shop-0")


def image_of(estate: Estate, pod: str) -> str:
    """What a pod's server is made from: its image, and whether it crashes or can't get ready."""
    found = estate.get("pod", pod)
    if found is None:
        return ""
    container = found["spec"]["containers"][0]
    path = container["readinessProbe"]["httpGet"]["path"]
    bad = ("crashes" if container.get("command") else "") + ("never ready" if path == "/nowhere" else "")
    return f"{container['image']} {bad}"
