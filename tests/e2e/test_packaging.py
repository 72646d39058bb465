"""The chart's life: upgrade, two replicas, chosen namespaces, uninstall and reinstall; the servers don't notice."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests import install
from tests.audit import ASIDE, WRITES
from tests.cluster.access import is_local, kubeconfig
from tests.cluster.control_plane import OPERATOR
from tests.cluster.load import Load, service_url
from tests.cluster.paths import AUDIT_LOG, PROJECT
from tests.estate import OPERATOR_NAMESPACE, Estate, Watcher, kubectl, wait

SERVERS = ("shop-0", "shop-1", "shop-2")
OWN = "deployments,jobs,pods,leases,roles,rolebindings,networkpolicies,poddisruptionbudgets"

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module", autouse=True)
def _standard_install() -> Iterator[None]:
    yield
    install.install()


def test_a_group_survives_an_upgrade_to_two_replicas_and_the_loss_of_the_leader_in_a_drain(shop: Estate) -> None:
    before = runs(shop)
    first = install.leader()
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        began = time.time()
        with Watcher(lambda: (install.leader(), time.monotonic())) as seen:
            install.install(replicas="2", podAnnotations__upgraded="yes")
            wait("an upgraded pod leads", lambda: install.leader() not in (first, ""), 20)
        assert longest_gap(seen.seen) < 5
        assert runs(shop) == before

        shop.annotate("aps/shop-1", restart="true")
        shop.wait_state("shop-1", "PreSuspend", 30)
        second = install.leader()
        install.lose(second)
        lost = time.time()
        third = wait("another leads", lambda: (now := install.leader()) != second and now, 20)
        took = time.time() - lost
        wait("the drain went on to its end", lambda: shop.pod_uid("shop-1") not in (before["shop-1"][0], None), 60)
        shop.wait_ready("shop")
        time.sleep(3)
        result = load.stop()
    assert result.failed == 0, result
    assert {name for name, run in runs(shop).items() if run != before[name]} == {"shop-1"}
    if is_local():
        writes = writes_since(began)
        # Of all that wrote, each came after the other, and the last took over in time.
        assert [pod for pod, _ in itertools.groupby(pod for _, pod in writes)][-2:] == [second, third]
        assert len({pod for _, pod in writes}) == len(list(itertools.groupby(pod for _, pod in writes)))
        took = next(at for at, pod in writes if pod == third) - lost
    print(f"take-over after {took:.1f} s")
    assert 5 < took < 20  # less than that: it was no sudden death


def test_a_group_survives_an_install_for_chosen_namespaces_its_uninstall_and_a_new_install(shop: Estate) -> None:
    before = runs(shop)
    with Estate("leaving") as leaving, Estate("elsewhere") as elsewhere:
        install.install(watchNamespaces=f"{{{shop.namespace},{leaving.namespace}}}")
        refused = start_cleanup()  # while an operator runs
        elsewhere.server("one")
        elsewhere.annotate("aps/one", suspend="soon")
        leaving.group("shop", replicas=1, suspendTimeoutSeconds=0, preSuspendSeconds=0)
        shop.annotate("aps/shop-1", suspend="true")
        shop.wait_state("shop-1", "Suspended")
        shop.annotate("aps/shop-1", suspend=None)
        shop.wait_state("shop-1", "Running")
        with pytest.raises(AssertionError, match="is not true, false"):
            shop.annotate("aps/shop-1", suspend="soon")
        leaving.wait_ready("shop", 1)
        unseen = {"observedGeneration": -1}  # the default of the CRD
        assert (elsewhere.status("one"), elsewhere.get("pod", "one")) == (unseen, None)
        assert said_no(refused)

        install.uninstall()
        wait("nothing is left", lambda: not kubectl("-n", OPERATOR_NAMESPACE, "get", OWN, "-o", "name"), 20)
        assert [finalizers(shop, name) for name in SERVERS] == [[], [], []]
        assert shop.endpoints() == set(SERVERS)
        kubectl("-n", leaving.namespace, "delete", "sg/shop", "aps/shop-0", "--ignore-not-found", "--timeout=10s")
        kubectl("delete", "namespace", leaving.namespace, "--timeout=60s")

        install.install()
        wait("the servers are adopted", lambda: all(finalizers(shop, name) for name in SERVERS), 30)
        shop.wait_ready("shop")
        assert runs(shop) == before
        wait("all namespaces are managed", lambda: elsewhere.get("pod", "one"), 30)


def test_a_forced_removal_is_cleaned_up_by_hand_and_leaves_the_servers_as_they_are(shop: Estate) -> None:
    before = runs(shop)
    install.uninstall("--no-hooks")
    wait("the operator is gone", lambda: not install.pods(), 20)
    assert all(finalizers(shop, name) for name in SERVERS)
    cleanup = start_cleanup("--lease", install.RELEASE, "cleanup", "--operator-namespace", OPERATOR_NAMESPACE)
    _, said = cleanup.communicate(timeout=60)
    assert cleanup.returncode == 0, said
    assert [finalizers(shop, name) for name in SERVERS] == [[], [], []]
    assert kubectl("-n", OPERATOR_NAMESPACE, "get", "leases", "-o", "name") == ""
    assert (runs(shop), shop.endpoints()) == (before, set(SERVERS))


def runs(estate: Estate) -> dict[str, tuple[str, int]]:
    """What identifies each run of a server."""
    found = {}
    for name in SERVERS:
        pod = estate.get("pod", name)
        assert pod
        found[name] = (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
    return found


def finalizers(estate: Estate, server: str) -> list[str]:
    found = estate.get("aps", server)
    assert found
    return list(found["metadata"].get("finalizers", []))


def longest_gap(seen: list[tuple[str, float]]) -> float:
    """The longest time between the last look at one leader and the first at the next."""
    led = [(name, at) for name, at in seen if name]
    return max((at - before for (one, before), (other, at) in itertools.pairwise(led) if one != other), default=0.0)


def writes_since(began: float) -> list[tuple[float, str]]:
    """When the operator wrote, and from which pod; Events and Leases aside."""
    found = []
    for line in AUDIT_LOG.read_text().splitlines():
        entry = json.loads(line)
        at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
        own = entry["user"]["username"] == OPERATOR and entry["verb"] in WRITES
        if at >= began and own and entry["objectRef"]["resource"] not in ASIDE:
            found.append((at, entry["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]))
    return sorted(found)


def start_cleanup(*arguments: str) -> subprocess.Popen[str]:
    """By hand."""
    env = {**os.environ, "KUBECONFIG": str(kubeconfig()), "PYTHONPATH": str(PROJECT / "operator")}
    command = [sys.executable, "-m", "quiesce", *(arguments or ["cleanup"])]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def said_no(cleanup: subprocess.Popen[str]) -> bool:
    _, said = cleanup.communicate(timeout=60)
    assert f"held and renewed by {install.leader()}" in said, said
    return cleanup.returncode == 1
