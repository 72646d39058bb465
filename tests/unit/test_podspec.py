"""The pod that is made of a template."""

from typing import Any

import pytest

from quiesce.decide.podspec import BadTemplateError, build_pod, hold_seconds, template_hash
from quiesce.model import names
from tests.unit.build import server, template


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def test_the_gate_is_added_to_the_users_own() -> None:
    users = template(readinessGates=[{"conditionType": "example.com/warm"}, {"conditionType": names.GATE}])
    gates = build_pod(server(template=users))["spec"]["readinessGates"]
    assert gates == [{"conditionType": "example.com/warm"}, {"conditionType": names.GATE}]


@pytest.mark.parametrize(
    ("timeout", "margin", "hold"),
    [
        pytest.param(60, 2, 77, id="margin, timeout and reserve"),
        pytest.param(0, 0, 15, id="the reserve at least"),
        pytest.param(-1, 2, 3600, id="for ever is large and finite"),
    ],
)
def test_the_hold_covers_the_drain_and_the_grace_period_is_longer(timeout: int, margin: int, hold: int) -> None:
    one = server(suspend_timeout_seconds=timeout, pre_suspend_seconds=margin)
    pod = build_pod(one)
    assert hold_seconds(one) == hold
    assert container(pod)["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", f"exec sleep {hold}"]
    assert pod["metadata"]["annotations"][names.HOLD_SECONDS] == str(hold)
    assert pod["spec"]["terminationGracePeriodSeconds"] == hold + 30


def test_the_templates_own_grace_period_follows_the_hold() -> None:
    assert build_pod(server(template=template(terminationGracePeriodSeconds=5)))["spec"][
        "terminationGracePeriodSeconds"
    ] == (77 + 5)


def test_only_the_container_with_the_admin_port_holds_the_pod() -> None:
    users = template()
    users["spec"]["containers"].insert(0, {"name": "sidecar", "image": "log:1"})
    sidecar, wildfly = build_pod(server(template=users))["spec"]["containers"]
    assert "lifecycle" not in sidecar
    assert "preStop" in wildfly["lifecycle"]


def test_a_post_start_hook_is_kept() -> None:
    users = template()
    users["spec"]["containers"][0]["lifecycle"] = {"postStart": {"exec": {"command": ["warm"]}}}
    assert container(build_pod(server(template=users)))["lifecycle"]["postStart"] == {"exec": {"command": ["warm"]}}


def refused(change: str) -> dict[str, Any]:
    users = template()
    own = users["spec"]["containers"][0]
    match change:
        case "own preStop":
            own["lifecycle"] = {"preStop": {"exec": {"command": ["true"]}}}
        case "no such port":
            own["ports"][1]["name"] = "admin"
        case "no ports":
            del own["ports"]
        case "no containers":
            del users["spec"]["containers"]
        case "nothing":
            return {}
    return users


@pytest.mark.parametrize(
    ("users", "says"),
    [
        pytest.param(refused("own preStop"), "container 'wildfly' has a preStop hook", id="a preStop hook of its own"),
        pytest.param(refused("no such port"), r"'management'; there are \['admin', 'http'\]", id="another admin port"),
        pytest.param(refused("no ports"), "'management'", id="no ports"),
        pytest.param(refused("no containers"), "'management'", id="no containers"),
        pytest.param(refused("nothing"), "'management'", id="an empty template"),
    ],
)
def test_a_template_that_cant_become_a_server_is_refused_by_name(users: dict[str, Any], says: str) -> None:
    with pytest.raises(BadTemplateError, match=says):
        build_pod(server(template=users))


def test_the_pod_is_the_servers_own() -> None:
    users = template()
    users["metadata"] = {"labels": {"app": "shop", names.SERVER: "forged"}, "annotations": {"note": "kept"}}
    own = build_pod(server("shop-7", template=users))["metadata"]
    assert own["name"] == "shop-7"
    assert own["labels"] == {"app": "shop", names.MANAGED: "true", names.SERVER: "shop-7"}
    assert own["annotations"]["note"] == "kept"
    assert own["annotations"][names.TEMPLATE_HASH] == template_hash(users)
    assert [(owner["name"], owner["uid"], owner["controller"]) for owner in own["ownerReferences"]] == [
        ("shop-7", "uid-shop-7", True)
    ]


def test_the_users_template_is_left_as_it_is() -> None:
    users = template()
    build_pod(server(template=users))
    assert users == template()


def test_the_hash_covers_the_users_template_and_nothing_that_is_added() -> None:
    hashes = {
        build_pod(one)["metadata"]["annotations"][names.TEMPLATE_HASH]
        for one in (
            server(),
            server(suspend_timeout_seconds=5),
            server(pre_suspend_seconds=9),
            server("shop-1"),
            server(annotations={"a": "b"}),
        )
    }
    assert hashes == {template_hash(template())}
    assert template_hash(template("wildfly:2")) != template_hash(template())


def test_the_order_of_keys_does_not_change_the_hash() -> None:
    users = template()
    assert template_hash({"spec": dict(reversed(users["spec"]["containers"][0].items()))}) == template_hash(
        {"spec": users["spec"]["containers"][0]}
    )
