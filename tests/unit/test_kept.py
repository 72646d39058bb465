"""What a group keeps beside its servers."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.kept import keep
from quiesce.model import names
from quiesce.model.objects import Budget, Kept, Service
from quiesce.model.plan import Act, ApplyObject, DeleteObject
from quiesce.model.resources import GroupService, ServerGroup
from tests.unit.build import group

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
    for act in keep(of, ()):
        assert isinstance(act, ApplyObject)
        manifest: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(act.manifest))
        manifest["spec"]["sessionAffinity"] = "None"
        for port in manifest["spec"].get("ports", ()):
            port["protocol"] = "TCP"
        manifest["metadata"]["uid"] = f"uid-{manifest['kind']}-{manifest['metadata']['name']}"
        kind: type[Kept] = Service if manifest["kind"] == "Service" else Budget
        there[manifest["kind"] + " " + manifest["metadata"]["name"]] = msgspec.convert(manifest, kind)
    return there


@pytest.mark.parametrize(
    ("replicas", "max_unavailable", "at_least"),
    [(3, 1, 2), (3, 3, 0), (1, 1, 0), (1, 5, 0), (10, "25%", 8), (0, 1, 0)],
)
def test_the_budget_is_a_number_that_leaves_room_for_what_may_be_unavailable(
    replicas: int, max_unavailable: int | str, at_least: int
) -> None:
    (act,) = keep(group(replicas, max_unavailable=max_unavailable, budget="Managed"), ())
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
    assert keep(BOTH, made(BOTH).values()) == []


@pytest.mark.parametrize(
    ("of", "acts"),
    [
        (replace(BUDGET, spec=replace(BUDGET.spec, replicas=5)), ["apply PodDisruptionBudget shop"]),
        (group(), ["delete PodDisruptionBudget shop uid-PodDisruptionBudget-shop"]),
    ],
)
def test_the_budget_follows_the_group(of: ServerGroup, acts: list[str]) -> None:
    assert told(keep(of, made(BUDGET).values())) == acts


def test_services_go_when_they_are_not_asked_for_any_more() -> None:
    assert told(keep(BUDGET, made(BOTH).values())) == [
        "delete Service shop uid-Service-shop",
        "delete Service shop-headless uid-Service-shop-headless",
    ]


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
def test_what_somebody_edits_is_put_back(edit: dict[str, Any]) -> None:
    there = made(BOTH)
    service = there["Service shop"]
    there["Service shop"] = replace(service, spec={**service.spec, **edit})
    assert told(keep(BOTH, there.values())) == ["apply Service shop"]


def test_an_annotation_that_is_no_longer_wanted_is_taken_away() -> None:
    """The object has all that is wanted, and more: only the hash shows that the more was the group's."""
    before = group(service=replace(HTTP, annotations={"load-balancer": "internal"}))
    assert told(keep(group(service=HTTP), made(before).values())) == ["apply Service shop"]


def test_an_orphan_is_adopted() -> None:
    there = made(BUDGET)
    orphan = there["PodDisruptionBudget shop"]
    orphan = replace(orphan, metadata=replace(orphan.metadata, owner_references=()))
    assert told(keep(BUDGET, (orphan,))) == ["apply PodDisruptionBudget shop"]
