"""Requests to the API server."""

import json
import subprocess
import sys

import msgspec
import pytest
import yaml

from quiesce.cluster.kube import KubeCluster, _named
from quiesce.cluster.port import ClusterError
from quiesce.model import names
from quiesce.model.lease import Lease
from quiesce.model.plan import SetGate
from tests.unit.build import NOW, pod, server

SECRETS = "/api/v1/namespaces/{namespace}/secrets"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("shop-admin", "shop-admin", id="a name"),
        pytest.param("../pods/shop-0", "..%2Fpods%2Fshop-0", id="a way to somewhere else"),
        pytest.param("a?watch=true", "a%3Fwatch%3Dtrue", id="a query"),
        pytest.param("a#b", "a%23b", id="a fragment"),
        pytest.param("{namespace}", "%7Bnamespace%7D", id="a place for something"),
        pytest.param("a%2Fb", "a%252Fb", id="one that is quoted already"),
    ],
)
def test_a_name_leads_to_no_other_object(name: str, path: str) -> None:
    assert _named(SECRETS, name) == f"{SECRETS}/{path}"
    assert _named(SECRETS, name, "status") == f"{SECRETS}/{path}/status"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_is_no_name_is_not_found(name: str) -> None:
    with pytest.raises(ClusterError) as refused:
        _named(SECRETS, name)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        *((refused, True) for refused in (400, 403, 413, 422, 500)),
        *((other, False) for other in (0, 401, 404, 409, 429, 503)),
    ],
)
def test_which_answers_refuse_the_object_itself(status: int, refusal: bool) -> None:
    assert ClusterError(status, "").is_refusal == refusal


class FakeApi:
    """Answers with the status of the namespace that is asked for, and counts."""

    def __init__(self, **namespaces: int) -> None:
        self.namespaces = namespaces
        self.asked: list[str] = []
        self.bodies: list[object] = []
        self.timeouts: list[float] = []
        self.retry_after = ""

    async def param_serialize(
        self, _method: str, path: str, path_params: dict[str, str], body: object = None, **_: object
    ) -> tuple[str]:
        self.bodies.append(body)
        self.asked.append(path.replace("{namespace}", path_params["namespace"]))
        return (path_params["namespace"],)

    async def call_api(self, namespace: str, _request_timeout: float) -> "FakeAnswer":
        self.timeouts.append(_request_timeout)
        return FakeAnswer(self.namespaces.get(namespace, 200), self.retry_after)


class FakeAnswer:
    """Like an object of any kind."""

    def __init__(self, status: int, retry_after: str) -> None:
        self.status = status
        self.headers = {"Date": "Tue, 25 Nov 2036 08:00:00 GMT", "Retry-After": retry_after}

    async def read(self) -> bytes:
        if self.status >= 400:
            return b'{"message": "forbidden"}'
        return json.dumps({"items": [], **msgspec.to_builtins(server())}).encode()


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        pytest.param("maintenance 😀", '"maintenance 😀"', id="beyond the basic plane"),
        pytest.param("a\x00\x1b\n", '"a\\u0000\\u001b\\n"', id="control characters"),
        pytest.param(
            "\x7f\x85\u2028\ufeff\uffff", '"\\u007f\\u0085\\u2028\\ufeff\\uffff"', id="what YAML reads otherwise"
        ),
        pytest.param("a\ud83d", '"a\\ufffd"', id="half a pair"),
        pytest.param("\\ud83d\\ude00", '"\\\\ud83d\\\\ude00"', id="the text of an escape"),
    ],
)
async def test_an_apply_goes_out_as_utf_8_that_yaml_reads_like_json(text: str, sent: str) -> None:
    api = FakeApi()
    metadata = {"name": "shop", "namespace": "shop", "annotations": {"note": text}}
    await KubeCluster(api, []).apply_object({"kind": "Service", "metadata": metadata})
    (body,) = api.bodies
    assert isinstance(body, bytes)
    assert f'"note": {sent}' in body.decode()
    assert json.loads(body)["metadata"]["annotations"]["note"] == text.replace("\ud83d", "\ufffd")


@pytest.mark.parametrize("key", ["k" * 1100, 'k"\\' * 400, "\x85" * 300, "short"])
async def test_a_key_of_any_length_goes_out_as_yaml_reads_it(key: str) -> None:
    api = FakeApi()
    values = {key: "v", "text": f'"{"t" * 1100}": , {{', "list": [1, {key: [key]}]}
    metadata = {"name": "shop", "namespace": "shop"}
    await KubeCluster(api, []).apply_object({"kind": "Service", "metadata": metadata, "spec": values})
    (body,) = api.bodies
    assert isinstance(body, bytes)
    assert yaml.safe_load(body)["spec"] == values


def test_a_long_string_takes_no_memory_for_each_of_its_characters() -> None:
    """It would be the memory of everyone else's operator."""
    program = (
        "import resource; from quiesce.cluster.kube import _yaml; body = {'note': 'x' * 8_000_000}; _yaml({});"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = used(); _yaml(body);"
        "print((used() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # MiB


async def test_only_what_admission_webhooks_may_slow_has_longer_than_they_may_take() -> None:
    api = FakeApi()
    cluster = KubeCluster(api, [])
    metadata = {"name": "shop-0", "namespace": "shop"}
    await cluster.create_pod({"metadata": metadata})
    await cluster.try_pod({"metadata": metadata})
    await cluster.apply_server({"metadata": metadata})
    await cluster.replace_template(server(), {})
    await cluster.apply_object({"kind": "Service", "metadata": metadata})
    assert len(api.timeouts) == 5
    assert min(api.timeouts) > 30
    api.timeouts.clear()
    await cluster.pod("shop", "shop-0")
    await cluster.pods("shop", "shop")
    await cluster.set_gate(pod(), SetGate(open=False, reason="Server"), NOW)
    await cluster.delete_pod(pod(), None)
    await cluster.apply_server_status(server(), {})
    assert set(api.timeouts) == {10}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("", 0, id="none"),
        pytest.param("7", 7, id="seconds"),
        pytest.param("9" * 5000, 30, id="too long"),
        pytest.param("-1", 0, id="below 0"),
        pytest.param("Tue, 25 Nov 2036 08:00:00 GMT", 0, id="a date"),
    ],
)
async def test_how_long_an_api_server_asks_to_wait(value: str, seconds: float) -> None:
    api = FakeApi(shop=429)
    api.retry_after = value
    with pytest.raises(ClusterError) as refused:
        await KubeCluster(api, []).pod("shop", "shop-0")
    assert refused.value.retry_after == seconds


async def test_of_chosen_namespaces_each_is_listed_and_nothing_else() -> None:
    api = FakeApi()
    await KubeCluster(api, ["shop", "billing"]).everything()
    assert len(api.asked) == 12
    assert all("/namespaces/shop/" in path or "/namespaces/billing/" in path for path in api.asked)
    api.asked.clear()
    await KubeCluster(api, []).everything()
    assert len(api.asked) == 6
    assert not any("namespaces" in path for path in api.asked)


async def test_a_namespace_that_is_forbidden_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    cluster = KubeCluster(FakeApi(billing=403), ["shop", "billing"])
    assert await cluster.leave_out_forbidden() == ["shop"]
    assert "skipping namespace billing" in caplog.text


async def test_a_namespaced_install_that_may_nothing_does_not_take_all() -> None:
    with pytest.raises(ClusterError, match="no namespace is left to manage: forbidden"):
        await KubeCluster(FakeApi(shop=403), ["shop"]).leave_out_forbidden()


@pytest.mark.parametrize(("is_open", "label"), [(True, "true"), (False, None)])
async def test_a_gate_and_its_label_change_in_one_write(is_open: bool, label: str | None) -> None:
    api = FakeApi()
    await KubeCluster(api, []).set_gate(pod(), SetGate(open=is_open, reason="Server"), NOW)
    (body,) = api.bodies
    assert isinstance(body, dict)
    (condition,) = body["status"]["conditions"]
    assert (condition["type"], condition["status"]) == (names.GATE, str(is_open))
    assert body["metadata"]["labels"] == {names.GATE: label}
    assert body["metadata"]["uid"] == "pod-shop-0"


async def test_a_lease_is_deleted_as_it_was_read() -> None:
    api = FakeApi(system=409)  # someone has written it since
    lease = Lease({"namespace": "system", "name": "quiesce", "resourceVersion": "7"})
    await KubeCluster(api, []).delete_lease(lease)
    assert api.asked == ["/apis/coordination.k8s.io/v1/namespaces/system/leases/quiesce"]
    assert api.bodies == [{"preconditions": {"resourceVersion": "7"}}]


@pytest.mark.parametrize("status", [403, 404])
async def test_an_operator_with_nothing_to_look_after_does_not_start(status: int) -> None:
    with pytest.raises(ClusterError) as refused:
        await KubeCluster(FakeApi(shop=status), ["shop"]).leave_out_forbidden()
    assert refused.value.status == status


async def test_an_api_server_in_trouble_leaves_no_namespace_out() -> None:
    with pytest.raises(ClusterError) as refused:
        await KubeCluster(FakeApi(shop=500), ["shop", "billing"]).leave_out_forbidden()
    assert refused.value.status == 500
