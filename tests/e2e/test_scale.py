"""Groups that are scaled manually and by an autoscaler: servers are drained before they are removed."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.load import Load, service_url
from tests.cluster.pki import Authority
from tests.estate import Estate, kubectl, wait

SERVES = 200
# A server of these is made unready by a file.
PROBE = {"exec": {"command": ["sh", "-c", "test ! -e /tmp/unready"]}, "periodSeconds": 1}
SCRIPT = Path(__file__).with_name("metrics_server.py")
API_SERVICE = "v1beta1.external.metrics.k8s.io"


@pytest.fixture(scope="module")
def shop() -> Iterator[Estate]:
    with Estate("scale") as estate:
        estate.group("shop", container={"readinessProbe": PROBE})
        estate.wait_ready("shop")
        yield estate


def scale(estate: Estate, replicas: int) -> None:
    estate.kubectl("scale", "sg/shop", f"--replicas={replicas}")


def wait_gone(estate: Estate, server: str) -> None:
    wait(f"{server} is gone", lambda: estate.get("aps", server) is None, 60)


def test_a_group_grows_and_shrinks_without_a_failure(shop: Estate) -> None:
    before = shop.uids()
    with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
        scale(shop, 4)
        shop.wait_ready("shop", 4)
        time.sleep(3)  # kept-alive connections to the new one too
        scale(shop, 3)
        wait_gone(shop, "shop-3")
        shop.wait_ready("shop")
        load.stop()
    assert load.result().failed == 0, load.result()
    assert shop.uids() == before
    shop.wait_event("shop-3", "Drained")


def test_a_server_that_was_to_go_serves_again_when_the_scale_down_is_undone(shop: Estate) -> None:
    before = shop.uids()
    with shop.request("shop-2", 15_000) as request:
        scale(shop, 2)
        shop.wait_state("shop-2", "Suspending", 20)
        assert shop.endpoints() == {"shop-0", "shop-1"}
        scale(shop, 3)
        shop.wait_ready("shop", timeout=20)
        assert not request.done()
        assert request.result(20) == SERVES
    assert shop.uids() == before
    assert shop.status("shop-2")["lastDrain"]["outcome"] == "Aborted"


def test_an_autoscaler_drives_it_and_its_scale_down_drains(shop: Estate, tmp_path: Path) -> None:
    with queue_metric(shop, tmp_path):
        metric = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}}
        target = {"apiVersion": "quiesce.dev/v1alpha1", "kind": "ServerGroup", "name": "shop"}
        shop.apply(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "shop",
            spec={
                "scaleTargetRef": target,
                "minReplicas": 2,
                "maxReplicas": 4,
                "metrics": [{"type": "External", "external": metric}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        )
        wait("it counts the servers", lambda: shown(shop) == ["3", "3"], 60)
        with Load(shop.namespace, service_url(shop.namespace, "shop")) as load:
            set_queue(shop, 40)
            shop.wait_ready("shop", 4)
            wait("it counts the new one", lambda: shown(shop) == ["4", "4"], 40)
            set_queue(shop, 20)
            for server in ("shop-3", "shop-2"):
                wait_gone(shop, server)
            wait("it counts what is left", lambda: shown(shop) == ["2", "2"], 40)
            load.stop()
        assert load.result().failed == 0, load.result()
        for server in ("shop-3", "shop-2"):
            shop.wait_event(server, "Drained")
        shop.kubectl("delete", "hpa", "shop")


def test_what_does_not_serve_goes_first_and_its_place_is_filled_again(shop: Estate) -> None:
    scale(shop, 3)
    shop.wait_ready("shop")
    before = shop.uids()
    shop.kubectl("exec", "shop-0", "--", "touch", "/tmp/unready")
    shop.wait_serving({"shop-1", "shop-2"})
    scale(shop, 2)
    wait_gone(shop, "shop-0")
    shop.wait_ready("shop", 2)
    kept = {name: before[name] for name in ("shop-1", "shop-2")}
    assert shop.uids() == kept
    scale(shop, 3)
    shop.wait_ready("shop")
    after = shop.uids()
    assert after.keys() == before.keys()
    assert after.items() >= kept.items()


def shown(estate: Estate) -> list[str]:
    """The current and desired number of servers, as the autoscaler counts them."""
    jsonpath = "jsonpath={.status.currentReplicas} {.status.desiredReplicas}"
    return estate.kubectl("get", "hpa", "shop", "-o", jsonpath).split()


def set_queue(estate: Estate, value: int) -> None:
    url = "pods/https:metrics:8443/proxy/value"
    answer = estate.api.put(version="v1", namespace=estate.namespace, url=url, data=str(value))
    assert answer.ok, answer.text


@contextlib.contextmanager
def queue_metric(estate: Estate, folder: Path) -> Iterator[None]:
    """The external metric `queue`, from a pod behind the API server's aggregation layer."""
    tls = Authority(folder / "pki").issue("metrics", "metrics", addresses=["metrics"])
    data = {"main.py": SCRIPT.read_text(), "tls.crt": tls.certificate.read_text(), "tls.key": tls.key.read_text()}
    estate.apply("v1", "Secret", "metrics", stringData=data)
    container = {
        "name": "metrics",
        "image": images.OPERATOR,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/quiesce/bin/python", "/app/main.py"],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "app", "mountPath": "/app"}],
    }
    volumes = [{"name": "app", "secret": {"secretName": "metrics"}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
    estate.apply("v1", "Pod", "metrics", metadata={"labels": {"app": "metrics"}}, spec=spec)
    estate.service("metrics", ports=[{"port": 443, "targetPort": 8443}])
    estate.kubectl("wait", "--for=condition=Ready", "pod/metrics", "--timeout=60s")
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API_SERVICE},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "service": {"namespace": estate.namespace, "name": "metrics"},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }
    kubectl("create", "-f", "-", stdin=json.dumps(service))  # not where a cluster has one already
    try:
        kubectl("wait", "--for=condition=Available", f"apiservice/{API_SERVICE}", "--timeout=60s")
        yield
    finally:  # if it doesn't respond, no namespace can be deleted
        kubectl("delete", "apiservice", API_SERVICE)
