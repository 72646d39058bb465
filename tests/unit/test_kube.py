"""Requests to the API server."""

import pytest

from quiesce.cluster.kube import _named
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
