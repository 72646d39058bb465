"""What a group keeps beside its servers."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.kept import keep
from quiesce.model import names
from quiesce.model.objects import Budget, Kept, Service
from quiesce.model.plan import Act, ApplyObject, DeleteObject
from quiesce.model.resources import GroupService, ServerGroup
from quiesce.model.times import moment
from tests.unit.build import NOW, group

replace = msgspec.structs.replace
HTTP = GroupService(ports=({"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},), type="NodePort")
BUDGET = group(budget="Managed")
BOTH = group(budget="Managed", service=HTTP)


def told(acts: list[Act]) -> list[str]:
    return [_told(act) for act in acts]


def _told(act: Act) -> str:
    match act:
        case ApplyObject(manifest):
            return f"apply {manifest['kind']} {manifest['metadata']['name']}"
        case DeleteObject(kind, name, uid):
            return f"delete {kind} {name} {uid}"
        case _:
            return type(act).__name__


def made(of: ServerGroup) -> dict[str, Kept]:
    """What the API server has once everything is applied, with what it fills in itself."""
    there: dict[str, Kept] = {}
    for act in keep(of, (), 0):
        assert isinstance(act, ApplyObject)
        there[f"{act.manifest['kind']} {act.manifest['metadata']['name']}"] = _as_made(act.manifest)
    return there


def _as_made(manifest: dict[str, Any]) -> Kept:
    filled: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(manifest))
    filled["spec"].setdefault("sessionAffinity", "None")
    for port in filled["spec"].get("ports", ()):
        port["protocol"] = "TCP"
    filled["metadata"]["uid"] = f"uid-{manifest['kind']}-{manifest['metadata']['name']}"
    kind: type[Kept] = Service if manifest["kind"] == "Service" else Budget
    return msgspec.convert(filled, kind)


@pytest.mark.parametrize(
    ("replicas", "max_unavailable", "at_least"),
    [(3, 1, 2), (3, 3, 0), (1, 1, 0), (1, 5, 0), (10, "25%", 8), (0, 1, 0)],
)
def test_the_budget_is_a_number_that_leaves_room_for_what_may_be_unavailable(
    replicas: int, max_unavailable: int | str, at_least: int
) -> None:
    (act,) = keep(group(replicas, max_unavailable=max_unavailable, budget="Managed"), (), 0)
    assert isinstance(act, ApplyObject)
    assert act.manifest["spec"] == {
        "minAvailable": at_least,
        "selector": {"matchLabels": {names.SERVER_GROUP: "shop"}},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_services_are_made_on_request_and_only_the_headless_one_publishes_servers_that_do_not_serve() -> None:
    there = made(BOTH)
    assert list(there) == ["PodDisruptionBudget shop", "Service shop", "Service shop-headless"]
    service, headless = there["Service shop"].spec, there["Service shop-headless"].spec
    assert service["type"] == "NodePort"
    assert "publishNotReadyAddresses" not in service
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True
    assert "nodePort" in service["ports"][0]
    assert "nodePort" not in headless["ports"][0]


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert keep(BOTH, made(BOTH).values(), 9) == []


@pytest.mark.parametrize(
    ("of", "acts"),
    [
        (replace(BUDGET, spec=replace(BUDGET.spec, replicas=5)), ["apply PodDisruptionBudget shop"]),
        (group(), ["delete PodDisruptionBudget shop uid-PodDisruptionBudget-shop"]),
    ],
)
def test_the_budget_follows_the_group(of: ServerGroup, acts: list[str]) -> None:
    assert told(keep(of, made(BUDGET).values(), 9)) == acts


def test_services_go_when_they_are_not_requested_any_more() -> None:
    assert told(keep(BUDGET, made(BOTH).values(), 9)) == [
        "delete Service shop uid-Service-shop",
        "delete Service shop-headless uid-Service-shop-headless",
    ]


def test_what_a_finalizer_holds_is_deleted_once() -> None:
    """A load balancer's Service stays until the balancer is gone."""
    held = [replace(one, metadata=replace(one.metadata, deletion_timestamp=moment(NOW))) for one in made(BOTH).values()]
    assert told(keep(BUDGET, held, 9)) == []


@pytest.mark.parametrize(
    "edit",
    [
        {"selector": {"app": "elsewhere"}},
        {"selector": {"quiesce.dev/group": "shop", "app": "elsewhere"}},
        {"ports": []},
        {"ports": [{"name": "http", "port": 81, "targetPort": "http", "nodePort": 30080}]},
        {"type": "ClusterIP"},
    ],
)
def test_edits_of_others_are_reverted(edit: dict[str, Any]) -> None:
    there = made(BOTH)
    service = there["Service shop"]
    there["Service shop"] = replace(service, spec={**service.spec, **edit})
    assert told(keep(BOTH, there.values(), 9)) == ["apply Service shop"]


FULL = replace(
    HTTP,
    type="LoadBalancer",
    labels={"tier": "shop"},
    session_affinity="ClientIP",
    session_affinity_config={"clientIP": {"timeoutSeconds": 60}},
    external_traffic_policy="Local",
    internal_traffic_policy="Cluster",
    traffic_distribution="PreferSameZone",
    ip_families=["IPv4"],
    ip_family_policy="SingleStack",
    load_balancer_class="example.com/internal",
    load_balancer_source_ranges=["10.0.0.0/8"],
)
ELSEWHERE = {"ports", "labels", "annotations"}
OF_BOTH = {"ip_families", "ip_family_policy"}


def test_the_service_has_every_field_that_the_group_sets_and_the_headless_one_its_families() -> None:
    there = made(group(service=FULL))
    fields = {key: value for key, value in msgspec.to_builtins(FULL).items() if key not in ELSEWHERE}
    assert fields.items() <= there["Service shop"].spec.items()
    assert there["Service shop"].metadata.labels == {"tier": "shop", names.MANAGED: "true", names.SERVER_GROUP: "shop"}
    headless = there["Service shop-headless"]
    assert (headless.spec["ipFamilies"], headless.spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert headless.spec.keys() & fields.keys() == {"ipFamilies", "ipFamilyPolicy", "sessionAffinity"}
    assert "tier" not in headless.metadata.labels
    assert keep(group(service=FULL), there.values(), 0) == []


@pytest.mark.parametrize("field", sorted({*GroupService.__struct_fields__} - {"ports", "type", "annotations"}))
def test_a_field_that_is_no_longer_wanted_is_removed(field: str) -> None:
    less = group(service=replace(FULL, **{field: getattr(HTTP, field)}))
    headless = ["apply Service shop-headless"] if field in OF_BOTH else []
    assert told(keep(less, made(group(service=FULL)).values(), 0)) == ["apply Service shop", *headless]


def test_what_an_earlier_version_made_is_not_written_for_fields_that_are_not_used() -> None:
    assert made(BOTH)["Service shop-headless"].metadata.annotations == {names.SPEC_HASH: "02f8958e1f7fb0be"}


def test_an_annotation_that_is_no_longer_wanted_is_removed() -> None:
    """The object has all that is wanted, and more: only the hash shows that the more was the group's."""
    before = group(service=replace(HTTP, annotations={"load-balancer": "internal"}))
    assert told(keep(group(service=HTTP), made(before).values(), 9)) == ["apply Service shop"]


def test_an_orphan_is_adopted() -> None:
    there = made(BUDGET)
    orphan = there["PodDisruptionBudget shop"]
    orphan = replace(orphan, metadata=replace(orphan.metadata, owner_references=()))
    assert told(keep(BUDGET, (orphan,), 9)) == ["apply PodDisruptionBudget shop"]


def is_by_label(acts: list[Act]) -> bool | None:
    """Whether the Service for requests comes to select the label; None if it stays as it is."""
    applied = [act.manifest for act in acts if isinstance(act, ApplyObject) and act.manifest["kind"] == "Service"]
    found = [manifest["spec"]["selector"] for manifest in applied if manifest["metadata"]["name"] == "shop"]
    return names.GATE in found[0] if found else None


@pytest.mark.parametrize(
    ("known", "labelled_for", "becomes"),
    [
        pytest.param(None, 0, True, id="a new one selects it"),
        pytest.param(None, None, False, id="not while a pod that serves lacks it"),
        pytest.param("before", None, None, id="nor one from before there was the label"),
        pytest.param("before", 1, None, id="nor immediately when the last pod got it"),
        pytest.param("before", 5, True, id="but then"),
        pytest.param("after", None, None, id="a label that is removed has no effect on it"),
    ],
)
def test_the_service_selects_the_label_of_the_gate_and_loses_no_pod_by_it(
    known: str | None, labelled_for: float | None, becomes: bool | None
) -> None:
    before = [act.manifest for act in keep(BOTH, (), None) if isinstance(act, ApplyObject)]
    there = {
        None: [],
        "before": [_as_made(manifest) for manifest in before],
        "after": [*made(BOTH).values()],
    }[known]
    assert is_by_label(keep(BOTH, there, labelled_for)) is becomes


def test_only_the_service_for_requests_selects_it() -> None:
    selectors = {name: thing.spec["selector"] for name, thing in made(BOTH).items()}
    assert selectors["Service shop"] == {names.SERVER_GROUP: "shop", names.GATE: "true"}
    assert selectors["Service shop-headless"] == {names.SERVER_GROUP: "shop"}
    assert selectors["PodDisruptionBudget shop"] == {"matchLabels": {names.SERVER_GROUP: "shop"}}
