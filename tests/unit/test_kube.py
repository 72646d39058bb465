"""Requests to the API server."""

import pytest

from quiesce.cluster.kube import KubeCluster, _named
from quiesce.cluster.port import ClusterError

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
        *((refused, True) for refused in (400, 403, 422, 500)),
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

    async def param_serialize(self, _method: str, path: str, path_params: dict[str, str], **_: object) -> tuple[str]:
        self.asked.append(path.replace("{namespace}", path_params["namespace"]))
        return (path_params["namespace"],)

    async def call_api(self, namespace: str, **_: object) -> "FakeAnswer":
        return FakeAnswer(self.namespaces.get(namespace, 200))


class FakeAnswer:
    def __init__(self, status: int) -> None:
        self.status = status

    async def read(self) -> bytes:
        return b'{"message": "forbidden"}' if self.status >= 400 else b'{"items": []}'


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
    assert "leaves the namespace billing out" in caplog.text


async def test_a_namespaced_install_that_may_nothing_does_not_take_all() -> None:
    with pytest.raises(ClusterError, match="no namespace is left to look after: forbidden"):
        await KubeCluster(FakeApi(shop=403), ["shop"]).leave_out_forbidden()


async def test_an_api_server_in_trouble_leaves_no_namespace_out() -> None:
    with pytest.raises(ClusterError) as refused:
        await KubeCluster(FakeApi(shop=500), ["shop", "billing"]).leave_out_forbidden()
    assert refused.value.status == 500
