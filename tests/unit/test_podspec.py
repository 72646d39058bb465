"""The pod that is made of a template."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.podspec import (
    BadTemplateError,
    admin_port,
    admin_secrets,
    build_pod,
    hold_seconds,
    is_of,
    revision,
    template_hash,
)
from quiesce.model import names
from quiesce.model.objects import Container, ContainerPort, NamedPort
from quiesce.model.resources import GroupService, SecretRef
from tests.unit.build import earlier, group, pod, server, template, with_containers

replace = msgspec.structs.replace


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


@pytest.mark.parametrize(
    ("grace", "own", "liveness", "startup"),
    [
        pytest.param(None, None, 30, 1, id="Kubernetes' default"),
        pytest.param(5, None, 5, 1, id="the template's own"),
        pytest.param(0, None, 1, 1, id="a probe takes no 0"),
        pytest.param(5, 9, 9, 9, id="the probe's own is kept"),
    ],
)
def test_a_failed_probe_does_not_wait_for_what_a_deletion_waits_for(
    grace: int | None, own: int | None, liveness: int, startup: int
) -> None:
    """A server that fails its startup probe has nothing to drain. Other containers have no hold that delays them."""
    probe = {"httpGet": {"path": "/", "port": 80}, **({} if own is None else {"terminationGracePeriodSeconds": own})}
    probes = {"livenessProbe": probe, "startupProbe": probe, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}
    users = template() if grace is None else template(terminationGracePeriodSeconds=grace)
    users["spec"]["containers"][0] |= probes
    users["spec"]["containers"].append({"name": "log", **probes})
    users["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always", **probes}, {"name": "copy"}]
    spec = build_pod(server(template=users))["spec"]
    wildfly, log = spec["containers"]
    for one, startups in ((wildfly, startup), (log, liveness), (spec["initContainers"][0], liveness)):
        assert one["livenessProbe"]["terminationGracePeriodSeconds"] == liveness
        assert one["startupProbe"]["terminationGracePeriodSeconds"] == startups
        assert one["readinessProbe"] == probes["readinessProbe"]


CONTAINERS = (
    Container("proxy", (ContainerPort(9000, "proxy"),)),
    Container("wildfly", (ContainerPort(8080, "http"), ContainerPort(9990, "management"))),
)


@pytest.mark.parametrize(
    ("named", "number", "of_earlier"),
    [
        pytest.param("management", 9990, 9990, id="as it was created"),
        pytest.param("http", 9990, 8080, id="another port of its container"),
        pytest.param("proxy", 9990, 9990, id="a port of another container"),
        pytest.param("nowhere", 9990, 9990, id="a port that it doesn't have"),
    ],
)
def test_a_pod_is_managed_at_the_port_that_it_was_created_for(named: str, number: int, of_earlier: int) -> None:
    """A pod of 0.1.0 may be in use with another port of its container, which needs no rollout."""
    one = server(admin=replace(server().spec.admin, port=named))
    at = with_containers(pod(), *CONTAINERS)
    assert admin_port(one, at) == NamedPort("wildfly", number)
    assert is_of(at, revision(one.spec)) == (named == "management")
    assert admin_port(one, earlier(at)) == NamedPort("wildfly", of_earlier)
    assert is_of(earlier(at), revision(one.spec)) == (named in ("management", "http"))


@pytest.mark.parametrize("record", ["x", "", None])
@pytest.mark.parametrize("unnamed", ["proxy", "wildfly"])
def test_a_record_that_someone_has_edited_counts_for_nothing(record: str | None, unnamed: str) -> None:
    ports = [
        replace(one, ports=(ContainerPort(15000), *one.ports)) if one.name == unnamed else one for one in CONTAINERS
    ]
    at = with_containers(pod(), *ports)
    others = {key: value for key, value in at.metadata.annotations.items() if key != names.ADMIN_PORT}
    annotations = others if record is None else {**others, names.ADMIN_PORT: record}
    edited = replace(at, metadata=replace(at.metadata, annotations=annotations))
    assert admin_port(server(), edited) == NamedPort("wildfly", 9990)
    assert is_of(edited, revision(server().spec))


def test_the_credentials_are_those_that_a_pod_was_created_for_or_else_those_of_the_spec() -> None:
    one = server(admin=replace(server().spec.admin, credentials_secret_ref=SecretRef("other")))
    assert admin_secrets(server(), pod()) == ("shop-admin",)
    assert admin_secrets(one, pod()) == ("shop-admin", "other")
    assert admin_secrets(one, earlier(pod())) == ("other",)
    assert is_of(pod(), revision(one.spec))


def test_what_a_pod_records_of_its_server() -> None:
    annotations = build_pod(server())["metadata"]["annotations"]
    assert (annotations[names.ADMIN_PORT], annotations[names.ADMIN_SECRET]) == ("management", "shop-admin")


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
        case "restartPolicy":
            users["spec"]["restartPolicy"] = "OnFailure"
        case "container's restartPolicy":
            own["restartPolicy"] = "Never"
        case "no such port":
            own["ports"][1]["name"] = "admin"
        case "no ports":
            del own["ports"]
        case "no containers":
            del users["spec"]["containers"]
        case "nothing":
            return {}
        case "an end":
            users["spec"]["activeDeadlineSeconds"] = 600
        case "beside the spec":
            users["volumeClaimTemplates"] = []
        case "in the metadata":
            users["metadata"] = {"labels": {}, "lables": {}}
        case "creationTimestamp":
            users["metadata"] = {"creationTimestamp": None, "name": "shop"}
            del own["ports"]
    return users


@pytest.mark.parametrize(
    ("users", "says"),
    [
        pytest.param(
            refused("own preStop"),
            r"containers\[name=wildfly\].lifecycle.preStop: .*\(exec\) would run .* use a sidecar's preStop",
            id="a preStop hook of its own",
        ),
        pytest.param(refused("restartPolicy"), "restartPolicy: 'OnFailure'", id="a pod that is not restarted"),
        pytest.param(
            refused("container's restartPolicy"),
            r"containers\[name=wildfly\].restartPolicy: 'Never'",
            id="a server that is not restarted",
        ),
        pytest.param(refused("no such port"), r"'management'; existing: \['admin', 'http'\]", id="another admin port"),
        pytest.param(refused("no ports"), "'management'", id="no ports"),
        pytest.param(refused("no containers"), "'management'", id="no containers"),
        pytest.param(refused("nothing"), "'management'", id="an empty template"),
        pytest.param(refused("an end"), "spec.activeDeadlineSeconds: 600 would end the server", id="a pod that ends"),
        pytest.param(
            refused("beside the spec"),
            r"spec\.template\.volumeClaimTemplates: only metadata and spec are used",
            id="what a pod does not have",
        ),
        pytest.param(
            refused("in the metadata"),
            r"spec\.template\.metadata\.lables: only labels and annotations are used",
            id="a misspelt part of the metadata",
        ),
        pytest.param(refused("creationTimestamp"), "'management'", id="and not what tools write there"),
    ],
)
def test_a_template_that_cant_become_a_server_is_refused_by_name(users: dict[str, Any], says: str) -> None:
    with pytest.raises(BadTemplateError, match=says):
        build_pod(server(template=users))


def test_the_pod_is_the_servers_own() -> None:
    users = template()
    users["metadata"] = {"labels": {"app": "shop"}, "annotations": {"note": "kept"}}
    own = build_pod(server("shop-7", template=users))["metadata"]
    assert own["name"] == "shop-7"
    made_of = {names.TEMPLATE_HASH: template_hash(users)}
    assert own["labels"] == {"app": "shop", names.MANAGED: "true", names.SERVER: "shop-7", **made_of}
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
    assert hashes == {"4eeafb7edd9954b1"}, (
        "as in 0.1.0: another hash would replace every pod when the operator is upgraded"
    )
    assert template_hash(template("wildfly:2")) != template_hash(template())


def test_the_order_of_keys_does_not_change_the_hash() -> None:
    users = template()
    assert template_hash({"spec": dict(reversed(users["spec"]["containers"][0].items()))}) == template_hash(
        {"spec": users["spec"]["containers"][0]}
    )


def written(part: str, value: Any) -> dict[str, Any]:
    """The template with one of its parts as a user wrote it."""
    users = template()
    match part:
        case "metadata" | "spec":
            users[part] = value
        case "lifecycle" | "ports" | "name":
            users["spec"]["containers"][0][part] = value
        case "labels" | "annotations":
            users["metadata"] = {part: value}
        case "port":
            users["spec"]["containers"][0]["ports"].insert(0, value)
        case _:
            users["spec"][part] = value
    return users


@pytest.mark.parametrize(
    ("part", "value"),
    [
        pytest.param("spec", "wildfly:1", id="a spec that is a text"),
        pytest.param("containers", {"wildfly": {}}, id="containers by name"),
        pytest.param("containers", ["wildfly"], id="a container that is a text"),
        pytest.param("containers", 3, id="containers that are a number"),
        pytest.param("ports", 9990, id="ports that are a number"),
        pytest.param("port", "http", id="a port that is a text"),
        pytest.param("lifecycle", "none", id="a lifecycle that is a text"),
        pytest.param("lifecycle", ["preStop"], id="a lifecycle that is a list"),
        pytest.param("terminationGracePeriodSeconds", "soon", id="a grace period that is a text"),
        pytest.param("terminationGracePeriodSeconds", [5], id="a grace period that is a list"),
        pytest.param("readinessGates", ["example.com/warm"], id="a gate that is a text"),
        pytest.param("readinessGates", 1, id="gates that are a number"),
        pytest.param("metadata", "shop", id="metadata that are a text"),
        pytest.param("labels", "app=shop", id="labels that are a text"),
        pytest.param("annotations", 7, id="annotations that are a number"),
    ],
)
def test_a_template_of_the_wrong_types_is_refused_and_breaks_nothing(part: str, value: Any) -> None:
    with pytest.raises(BadTemplateError, match=r"spec\.template"):
        build_pod(server(template=written(part, value)))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("lifecycle", None),
        ("lifecycle", {"preStop": None}),
        ("terminationGracePeriodSeconds", None),
        ("readinessGates", None),
        ("metadata", None),
        ("labels", None),
        ("annotations", None),
    ],
)
def test_null_is_as_good_as_absent(part: str, value: Any) -> None:
    made = build_pod(server(template=written(part, value)))
    assert "preStop" in container(made)["lifecycle"]
    assert container(made)["lifecycle"]["preStop"] is not None
    assert made["spec"]["terminationGracePeriodSeconds"] == 77 + 30
    assert made["spec"]["readinessGates"] == [{"conditionType": names.GATE}]


def test_a_grace_period_of_none_at_all_is_kept() -> None:
    made = build_pod(server(template=template(terminationGracePeriodSeconds=0)))
    assert made["spec"]["terminationGracePeriodSeconds"] == 77


def run(*command: str) -> dict[str, Any]:
    return {"exec": {"command": list(command)}}


@pytest.mark.parametrize(
    ("hook", "hold"),
    [
        pytest.param({"sleep": {"seconds": 10}}, 77, id="a short sleep is within the hold"),
        pytest.param({"sleep": {"seconds": 120}}, 120, id="a long one makes it longer"),
        pytest.param(run("sleep", "120"), 120, id="the command"),
        pytest.param(run("/bin/sleep", "2m"), 120, id="with a path and a unit"),
        pytest.param(run("/usr/bin/sleep", "99.5s"), 100, id="with a fraction"),
        pytest.param(run("sh", "-c", "sleep 120"), 120, id="in a shell"),
        pytest.param(run("/bin/sh", "-c", "exec  /bin/sleep 120;"), 120, id="in place of a shell"),
        pytest.param(run("/usr/bin/bash", "-c", " sleep 120 "), 120, id="in another shell"),
        pytest.param(run("bash", "-ec", "sleep 120"), 120, id="in a shell with options"),
    ],
)
def test_a_hook_that_only_waits_becomes_the_hold(hook: dict[str, Any], hold: int) -> None:
    made = build_pod(server(template=written("lifecycle", {"preStop": hook})))
    assert container(made)["lifecycle"]["preStop"] == run("sh", "-c", f"exec sleep {hold}")
    assert made["metadata"]["annotations"][names.HOLD_SECONDS] == str(hold)
    assert made["spec"]["terminationGracePeriodSeconds"] == hold + 30


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param({"httpGet": {"path": "/stop", "port": 8080}}, id="a request"),
        pytest.param(run("sh", "-c", f"exec{' ' * 100_000}x"), id="spaces without end, which take no time"),
        pytest.param(run("sh", "-c", "sleep 5 && /stop.sh"), id="a sleep and more"),
        pytest.param(run("sh", "-c", "/stop.sh; sleep 5"), id="more and a sleep"),
        pytest.param(run("sh", "-c", "sleep $WAIT"), id="a sleep of a length that is not known"),
        pytest.param(run("sh", "-c", "sleep", "5"), id="a shell that sleeps for no time at all"),
        pytest.param(run("sleep", "5", "6"), id="two sleeps"),
        pytest.param(run("./sleep", "5"), id="another sleep"),
        pytest.param({"tcpSocket": {"port": 1}}, id="a hook that Kubernetes takes no more"),
    ],
)
def test_a_hook_that_does_more_is_refused(hook: dict[str, Any]) -> None:
    with pytest.raises(BadTemplateError, match="sidecar"):
        build_pod(server(template=written("lifecycle", {"preStop": hook})))


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        *((run("sleep", "9" * digits), "is not a valid hook") for digits in (310, 5000)),
        ({"sleep": {"seconds": "abc"}}, "is not a valid hook"),
        ("sleep 5", "is not a valid hook"),
        ({"sleep": {"seconds": -5}}, "0 to 86400 s, not -5"),
        (run("sleep", "300d"), "0 to 86400 s, not 25920000"),
    ],
)
def test_a_wait_that_can_not_be_is_refused_by_its_field(hook: Any, says: str) -> None:
    with pytest.raises(BadTemplateError, match=says) as told:
        build_pod(server(template=written("lifecycle", {"preStop": hook})))
    assert "spec.template.spec.containers[name=wildfly].lifecycle.preStop" in str(told.value)


def test_hooks_of_other_containers_are_kept() -> None:
    users = template()
    sidecar = {"name": "sidecar", "image": "log:1", "lifecycle": {"preStop": run("flush")}}
    users["spec"]["containers"].append(sidecar)
    assert build_pod(server(template=users))["spec"]["containers"][1] == sidecar


@pytest.mark.parametrize(
    ("users", "hostname", "subdomain"),
    [
        pytest.param({}, "shop-0", "shop-headless", id="named in the headless Service"),
        pytest.param({"hostname": "one"}, "one", "shop-headless", id="with a name of its own"),
        pytest.param({"subdomain": "peers"}, None, "peers", id="in a Service of its own"),
    ],
)
def test_a_server_of_a_group_with_services_has_a_name_in_them(
    users: dict[str, str], hostname: str | None, subdomain: str
) -> None:
    of = group(service=GroupService(ports=({"port": 80},)))
    spec = build_pod(server(template=template(**users)), of)["spec"]
    assert (spec.get("hostname"), spec.get("subdomain")) == (hostname, subdomain)
    assert "hostname" not in build_pod(server(), group())["spec"]


@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize("key", [names.MANAGED, names.SERVER_GROUP, names.SUSPEND, f"{names.GROUP}/new"])
def test_keys_of_the_operator_are_refused_in_a_pod_template(part: str, key: str) -> None:
    says = rf"spec\.template\.metadata\.{part}: '{key}' is reserved for the operator"
    with pytest.raises(BadTemplateError, match=says):
        build_pod(server(template=written(part, {"app": "shop", key: "true"})))


def test_the_stamp_of_a_restart_and_keys_of_others_are_taken() -> None:
    annotations = {
        names.RESTARTED_AT: "2026-11-22T06:00:44Z",
        "example.quiesce.dev/note": "kept",
        "quiesce.dev": "kept",
    }
    made = build_pod(server(template=written("annotations", annotations)))["metadata"]["annotations"]
    assert annotations.items() <= made.items()
    with pytest.raises(BadTemplateError, match=r"metadata\.labels"):
        build_pod(server(template=written("labels", {names.RESTARTED_AT: "never"})))


def test_a_label_of_the_template_is_stronger_than_the_servers() -> None:
    one = server(template=written("labels", {"app": "other"}), labels={names.SERVER_GROUP: "shop", "app": "shop"})
    labels = build_pod(one)["metadata"]["labels"]
    assert (labels[names.SERVER_GROUP], labels["app"]) == ("shop", "other")


def test_a_pod_comes_without_the_label_of_the_gate_whatever_its_server_has() -> None:
    one = server(labels={names.GATE: "true", "app": "shop"})
    assert names.GATE not in build_pod(one)["metadata"]["labels"]
