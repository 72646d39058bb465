"""What a pod counts for in a quota, and whether another fits in its place."""

from fractions import Fraction
from typing import Any

import pytest

from quiesce.decide.quota import Swap, filled, quantity, shortage, usage
from quiesce.model.objects import Metadata, QuotaSelector, QuotaSpec, QuotaStatus, ResourceQuota, ScopeSelector

Spec = dict[str, Any]


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("2", 2),
        (2, 2),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", 3 << 29),
        ("512Mi", 1 << 29),
        ("1k", 1000),
        ("1G", 10**9),
        ("1E", 10**18),
        ("1e3", 1000),
        ("12E-1", Fraction(6, 5)),
        ("-1", -1),
        (None, 0),
    ],
)
def test_quantities(written: object, amount: Fraction) -> None:
    assert quantity(written) == amount


@pytest.mark.parametrize("written", ["", "much", "1 Gi", "1KI", "Mi", "1e", "0x10"])
def test_what_is_no_quantity(written: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(written)


def asks(requests: Spec | None = None, limits: Spec | None = None, **others: Any) -> Spec:
    """A container."""
    return {"name": "wildfly", "resources": {"requests": requests or {}, "limits": limits or {}}, **others}


def pod(memory: str | None = None, **others: Any) -> Spec:
    return {"containers": [asks({"memory": memory} if memory else {})], **others}


@pytest.mark.parametrize(
    ("spec", "name", "amount"),
    [
        pytest.param(pod(), "pods", "1", id="every pod is one"),
        pytest.param(pod(), "count/pods", "1", id="by either name"),
        pytest.param(pod("512Mi"), "requests.memory", "512Mi", id="what it requests"),
        pytest.param(pod("512Mi"), "memory", "512Mi", id="by the short name"),
        pytest.param(
            {"containers": [asks({"cpu": "1"}), asks({"cpu": "500m"})]}, "requests.cpu", "1500m", id="all containers"
        ),
        pytest.param({"containers": [asks({}, {"cpu": "2"})]}, "limits.cpu", "2", id="its limits"),
        pytest.param({"containers": [asks({}, {"cpu": "2"})]}, "cpu", "2", id="a request that is left out"),
        pytest.param(
            {"containers": [asks({"cpu": "1"})], "initContainers": [asks({"cpu": "3"}), asks({"cpu": "2"})]},
            "cpu",
            "3",
            id="init containers one after the other",
        ),
        pytest.param(
            {
                "containers": [asks({"cpu": "1"})],
                "initContainers": [asks({"cpu": "1"}, restartPolicy="Always"), asks({"cpu": "3"})],
            },
            "cpu",
            "4",
            id="alongside the sidecars before them",
        ),
        pytest.param(
            {
                "containers": [asks({"cpu": "3"})],
                "initContainers": [asks({"cpu": "3"}), asks({"cpu": "1"}, restartPolicy="Always")],
            },
            "cpu",
            "4",
            id="sidecars stay",
        ),
        pytest.param(pod("1Gi", overhead={"memory": "64Mi"}), "memory", "1088Mi", id="overhead"),
        pytest.param(pod("1Gi", overhead={"memory": "64Mi"}), "limits.memory", None, id="no limit by overhead alone"),
        pytest.param(
            pod("1Gi", resources={"requests": {"memory": "2Gi"}}), "memory", "2Gi", id="of the pod as a whole"
        ),
        pytest.param(
            {"containers": [asks({"example.com/gpu": 2})]}, "requests.example.com/gpu", "2", id="anything else"
        ),
    ],
)
def test_what_a_pod_counts_for(spec: Spec, name: str, amount: str | None) -> None:
    assert usage(spec).get(name) == (None if amount is None else quantity(amount))


def quota(
    name: str = "small", *, used: Spec | None = None, spec: QuotaSpec | None = None, **hard: str
) -> ResourceQuota:
    limits = {key.replace("__", "/").replace("_", "."): value for key, value in hard.items()}
    return ResourceQuota(Metadata(name, "shop"), spec or QuotaSpec(), QuotaStatus(limits, used or dict(limits)))


def of_class(operator: str, *values: str) -> QuotaSpec:
    selector = QuotaSelector("PriorityClass", operator, values)
    return QuotaSpec(scope_selector=ScopeSelector((selector,)))


AT_HOME = {"topologyKey": "zone", "namespaces": None, "namespaceSelector": None}
ABROAD = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"topologyKey": "zone", "namespaces": ["other"]}}
        ]
    }
}
SAID = (
    'pods "shop-0" is forbidden: exceeded quota: small, requested: requests.memory=600Mi, '
    "used: requests.memory=512Mi, limited: requests.memory=512Mi"
)


@pytest.mark.parametrize(
    ("quotas", "old", "new", "lacks"),
    [
        pytest.param([quota(requests_memory="512Mi")], pod("512Mi"), pod("512Mi"), "", id="as much as before"),
        pytest.param([quota(requests_memory="512Mi")], pod("512Mi"), pod("600Mi"), "requests.memory", id="too much"),
        pytest.param([quota(requests_memory="600Mi")], pod("512Mi"), pod("600Mi"), "requests.memory", id="others' too"),
        pytest.param([quota(pods="1", count__pods="1")], pod(), pod(), "", id="one pod for another"),
        pytest.param(
            [quota(requests_memory="256Mi", used={"requests.memory": "512Mi"})],
            pod("512Mi"),
            pod("512Mi"),
            "requests.memory",
            id="it was reduced since",
        ),
        pytest.param(
            [quota(requests_memory="256Mi", used={"requests.memory": "512Mi"})],
            pod("512Mi"),
            pod("256Mi"),
            "",
            id="shrunk",
        ),
        pytest.param(
            [quota("pods", pods="1"), quota("memory", requests_memory="512Mi")],
            pod("512Mi"),
            pod("600Mi"),
            "quota memory",
            id="one of several",
        ),
        pytest.param(
            [quota(requests_cpu="1", requests_memory="512Mi", used={"requests.cpu": "1", "requests.memory": "512Mi"})],
            {"containers": [asks({"cpu": "1", "memory": "512Mi"})]},
            {"containers": [asks({"cpu": "1100m", "memory": "256Mi"})]},
            "requests.cpu",
            id="one of several resources",
        ),
        pytest.param([quota(services="0")], pod(), pod(), "", id="of something else"),
        pytest.param(
            [quota(pods="1", spec=of_class("In", "high"))],
            pod(priorityClassName="low"),
            pod(priorityClassName="high"),
            "pods",
            id="the old pod does not count there",
        ),
        pytest.param(
            [quota(pods="1", spec=of_class("In", "high"))],
            pod(priorityClassName="high"),
            pod(priorityClassName="high"),
            "",
            id="both do",
        ),
        pytest.param(
            [quota(pods="0", spec=of_class("NotIn", "low", "high"))],
            pod(priorityClassName="low"),
            pod(priorityClassName="high"),
            "",
            id="none does",
        ),
        pytest.param(
            [quota(pods="0", spec=of_class("DoesNotExist"))],
            pod(),
            pod(),
            "pods",
            id="of pods without a class, not counted yet",
        ),
        pytest.param(
            [quota(pods="1", spec=QuotaSpec(("BestEffort",)))], pod("1Mi"), pod(), "pods", id="to best effort"
        ),
        pytest.param([quota(pods="0", spec=QuotaSpec(("BestEffort",)))], pod(), pod("1Mi"), "", id="from best effort"),
        pytest.param(
            [quota(pods="1", spec=QuotaSpec(("NotBestEffort", "NotTerminating")))],
            pod(),
            pod("1Mi"),
            "pods",
            id="two scopes",
        ),
        pytest.param([quota(pods="0", spec=QuotaSpec(("Terminating",)))], pod(), pod(), "", id="of pods that end"),
        pytest.param(
            [quota(pods="0", spec=QuotaSpec(("CrossNamespacePodAffinity",)))],
            pod(),
            pod(affinity=ABROAD),
            "pods",
            id="of pods that look at other namespaces",
        ),
        pytest.param(
            [quota(pods="0", spec=QuotaSpec(("CrossNamespacePodAffinity",)))],
            pod(),
            pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [AT_HOME]}}),
            "",
            id="of pods that name no other namespaces",
        ),
        pytest.param([quota(pods="0", spec=QuotaSpec(("VolumeAttributesClass",)))], pod(), pod(), "", id="of volumes"),
        pytest.param([quota(requests_memory="512Mi")], None, pod("512Mi"), "requests.memory", id="no old pod"),
    ],
)
def test_whether_a_pod_fits_in_the_place_of_another(
    quotas: list[ResourceQuota], old: Spec | None, new: Spec, lacks: str
) -> None:
    found = shortage(quotas, Swap(old, new), (), "")
    assert lacks in found
    assert bool(lacks) == bool(found)


def test_what_is_needed_is_said_in_the_quotas_own_unit() -> None:
    found = shortage(
        [quota(requests_memory="512Mi", used={"requests.memory": "600Mi"})], Swap(pod("500Mi"), pod("450Mi")), (), ""
    )
    assert found == "quota small: requests.memory=450Mi is needed, and others use 100Mi of 512Mi"


def test_the_api_server_knows_better_what_a_pod_asks_for() -> None:
    """A LimitRange that was changed since the old pod was made adds to the new one."""
    full = [quota("other", requests_memory="512Mi"), quota(requests_memory="512Mi")]
    assert shortage(full, Swap(pod("512Mi"), pod("512Mi")), (), "") == ""
    assert shortage(full, Swap(pod("512Mi"), pod("512Mi")), (), SAID).startswith("quota small: requests.memory=600Mi")


def test_what_else_is_being_replaced_counts() -> None:
    """Two of 512Mi become two of 600Mi: there is room for one of them."""
    room = [quota(requests_memory="1150Mi", used={"requests.memory": "1024Mi"})]
    swap = Swap(pod("512Mi"), pod("600Mi"))
    assert shortage(room, swap, (), "") == ""
    assert shortage(room, swap, (swap,), "") != ""
    gone = [quota(requests_memory="1150Mi", used={"requests.memory": "512Mi"})]
    assert shortage(gone, swap, (Swap(None, pod("600Mi")),), "") != ""


def test_what_a_template_leaves_open_is_as_before() -> None:
    """A LimitRange gives it, or a RuntimeClass, or the default PriorityClass."""
    old = {
        "containers": [asks({"cpu": "1", "memory": "1Gi"}, {"memory": "2Gi"})],
        "overhead": {"cpu": "100m"},
        "priorityClassName": "standard",
    }
    new = {"containers": [asks({"cpu": "2"}), {"name": "sidecar"}], "initContainers": [{"name": "init"}]}
    assert usage(filled(new, old)) == usage(
        {"containers": [asks({"cpu": "2", "memory": "1Gi"}, {"memory": "2Gi"})], "overhead": {"cpu": "100m"}}
    )
    assert filled(new, old)["priorityClassName"] == "standard"
    assert filled({**new, "priorityClassName": "high"}, old)["priorityClassName"] == "high"
    assert filled(new, None) == new
