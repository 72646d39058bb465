"""What the API server refuses, and what it fills in: the CRDs' schemas and the chart's admission policy."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pykube
import pytest
from pykube.exceptions import HTTPError

from quiesce.decide.requests import parse_suspend
from quiesce.model import names
from quiesce.model.resources import ServerGroup
from tests.api.conftest import POLICY

Manifest = dict[str, Any]
MakeManifest = Callable[[str], Manifest]
Send = Callable[[pykube.HTTPClient, Manifest], Any]

ABSENT = object()
NULL_OR_EMPTY: list[object] = [None, {}]
KINDS = ["AppServer", "ServerGroup"]
# Where the spec of a server stands.
SERVER_SPEC = {"AppServer": "spec", "ServerGroup": "spec.template.spec"}
ROLLING_UPDATE = "spec.strategy.rollingUpdate"
BUDGETS = [f"{ROLLING_UPDATE}.maxUnavailable", f"{ROLLING_UPDATE}.maxSurge"]

# Values of quiesce.dev/suspend, and whether they mean something.
SUSPEND_VALUES = {
    "true": True,
    "false": True,
    "-1": True,
    "0": True,
    "90": True,
    "007": True,
    "999999999": True,
    "1h": True,
    "5m": True,
    "90s": True,
    "0s": True,
    "5m30s": True,
    "1h30s": True,
    "1h30m15s": True,
    "999999h999999m999999999s": True,
    "": False,
    " ": False,
    " 5": False,
    "5 ": False,
    "5\n": False,
    "\n5": False,
    "true\n": False,
    "5\n6": False,
    "TRUE": False,
    "True": False,
    "yes": False,
    "null": False,
    "+5": False,
    "-0": False,
    "-01": False,
    "-2": False,
    "--1": False,
    "1.5": False,
    "1e3": False,
    "1_000": False,
    "0x10": False,
    "1000000000": False,
    "99999999999": False,
    "h": False,
    "s": False,
    "5S": False,
    "5 m": False,
    "30s5m": False,
    "5m5m": False,
    "1.5h": False,
    "-5m": False,
    "500ms": False,
    "1d": False,
    "1000000h": False,
    "1000000m": False,
    "1000000000s": False,
    "٣": False,  # digits and letters that are not ASCII
    "\uff15": False,
    "৩m": False,
    "5\uff4d": False,
    "truefalse": False,
    "true|false": False,
    'a "quoted" value': False,
    "9" * 10000: False,
}


def create(client: pykube.HTTPClient, manifest: Manifest) -> Any:
    made = pykube.object_factory(client, manifest["apiVersion"], manifest["kind"])(client, manifest)
    made.create()
    return made


def apply(client: pykube.HTTPClient, manifest: Manifest, manager: str = "test") -> Manifest:
    """What a server-side apply makes of it."""
    thing = pykube.object_factory(client, manifest["apiVersion"], manifest["kind"])(client, manifest)
    query = {"fieldManager": manager, "force": "true"}
    content = {"Content-Type": "application/apply-patch+yaml"}
    answer = client.patch(**thing.api_kwargs(params=query, headers=content, data=json.dumps(manifest)))
    client.raise_for_status(answer)
    applied: Manifest = answer.json()
    return applied


def refusal(client: pykube.HTTPClient, manifest: Manifest, send: Send = create) -> str:
    """Why the API server does not take it; empty if it does."""
    try:
        send(client, manifest)
    except HTTPError as error:
        if error.code not in (403, 422):
            raise
        return str(error)
    return ""


def with_suspend(manifest: Manifest, value: str) -> Manifest:
    return changed(manifest, "metadata.annotations", {names.SUSPEND: value})


def changed(thing: Manifest, path: str, value: object) -> Manifest:
    """A copy with another value at a dotted path, or with none."""
    head, _, rest = path.partition(".")
    if rest:
        return {**thing, head: changed(thing.get(head, {}), rest, value)}
    others = {key: kept for key, kept in thing.items() if key != head}
    return others if value is ABSENT else {**others, head: value}


def test_the_operator_understands_these_values_and_no_others() -> None:
    assert {value: parse_suspend(value) is not None for value in SUSPEND_VALUES} == SUSPEND_VALUES


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_takes_the_same_values(dry: pykube.HTTPClient, manifest: MakeManifest, kind: str) -> None:
    taken = {value: not refusal(dry, with_suspend(manifest(kind), value)) for value in SUSPEND_VALUES}
    assert taken == SUSPEND_VALUES


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("soon", '"soon"'),
        ("", '""'),
        ("5\n", r'"5\n"'),
        ("٣", '"٣"'),
        pytest.param(60_000 * "😀", f'"{100 * "😀"}..."', id="long"),
    ],
)
def test_the_policy_quotes_a_bad_value(dry: pykube.HTTPClient, manifest: MakeManifest, value: str, quoted: str) -> None:
    message = refusal(dry, with_suspend(manifest("AppServer"), value))
    assert f"{names.SUSPEND}={quoted} is not true, false, a whole number" in message
    assert "90s" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["annotations", "labels"])
@pytest.mark.parametrize("value", [ABSENT, None, {}, {"example.com/x": None}, {"example.com/x": ""}])
def test_the_policy_takes_metadata_that_is_absent_null_or_empty(
    api: pykube.HTTPClient, manifest: MakeManifest, kind: str, part: str, value: object
) -> None:
    """As a new object, and over one that has something there."""
    dry = pykube.HTTPClient(api.config, dry_run=True)
    empty = changed(manifest(kind), f"metadata.{part}", value)
    assert not refusal(dry, empty)
    assert not refusal(dry, empty, apply)
    before = {"annotations": {names.SUSPEND: "false"}, "labels": {names.SERVER_GROUP: "shop"}}[part]
    there = changed(changed(manifest(kind), "metadata.name", "shop-0"), f"metadata.{part}", before)
    made = create(api, there)
    apply(api, there)
    assert not refusal(dry, changed(there, f"metadata.{part}", value), apply)
    made.patch({"metadata": {part: None if value is ABSENT else value}})


@pytest.mark.parametrize("send", [create, apply])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        (("metadata.annotations", names.SUSPEND), 'quiesce.dev/suspend="" is not true'),
        (("metadata.annotations", "quiesce.dev/suspnd"), "quiesce.dev/suspnd is not supported"),
        (("metadata.labels", names.SERVER_GROUP), 'quiesce.dev/group="" is only for'),
    ],
)
def test_the_policy_takes_a_null_for_the_empty_text_that_is_stored(
    dry: pykube.HTTPClient, manifest: MakeManifest, send: Send, where: tuple[str, str], says: str
) -> None:
    path, key = where
    assert says in refusal(dry, changed(manifest("AppServer"), path, {key: None}), send)
    assert says in refusal(dry, changed(manifest("AppServer"), path, {key: ""}), send)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((f"spec.{field}", None) for field in ("replicas", "desiredState", "podDisruptionBudget", "service")),
        *((f"spec.{field}", value) for field in ("strategy", "strategy.rollingUpdate") for value in NULL_OR_EMPTY),
        *((budget, None) for budget in BUDGETS),
        ("spec.strategy.type", None),
        ("spec.template.metadata", None),
        ("spec.template.metadata", {}),
        *((f"spec.template.metadata.{part}", value) for part in ("labels", "annotations") for value in NULL_OR_EMPTY),
    ],
)
@pytest.mark.parametrize("send", [create, apply])
def test_a_group_takes_fields_that_are_null_or_empty(
    dry: pykube.HTTPClient,
    manifest: MakeManifest,
    send: Send,
    path: str,
    value: object,
) -> None:
    made = send(dry, changed(manifest("ServerGroup"), path, value))
    group = msgspec.convert(made if isinstance(made, dict) else made.obj, ServerGroup)  # the operator can read it
    assert group.spec.template.metadata.labels == {}


SERVERS_OWN = (names.FORCE, names.SPECIFIED_DELETE)


@pytest.mark.parametrize("name", ["shop-0", "shop-12"])
def test_the_policy_takes_a_groups_label_on_its_servers(
    dry: pykube.HTTPClient, manifest: MakeManifest, name: str
) -> None:
    assert not refusal(dry, in_group(manifest("AppServer"), name))


@pytest.mark.parametrize("name", ["other", "shop", "shop-x", "shop-01", "shop-0-1", "my-shop-0"])
def test_the_policy_refuses_a_groups_label_on_another_server(
    dry: pykube.HTTPClient, manifest: MakeManifest, name: str
) -> None:
    message = refusal(dry, in_group(manifest("AppServer"), name))
    assert 'metadata.labels: quiesce.dev/group="shop" is only for servers of that group' in message
    assert f"is named {name}" in message


def in_group(thing: Manifest, name: str) -> Manifest:
    return changed(changed(thing, "metadata.name", name), "metadata.labels", {names.SERVER_GROUP: "shop"})


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_takes_the_annotations_that_mean_something(
    dry: pykube.HTTPClient, manifest: MakeManifest, kind: str
) -> None:
    own = (*SERVERS_OWN, names.SURGE, names.METADATA_HASH) if kind == "AppServer" else ()
    known = (names.SUSPEND_REASON, names.RESTART, *own, "example.com/force", "quiesce.dev.example.com/x")
    assert not refusal(dry, changed(manifest(kind), "metadata.annotations", dict.fromkeys(known, "x")))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(("ServerGroup", key) for key in (*SERVERS_OWN, names.SURGE, "quiesce.dev/suspnd", "quiesce.dev/Suspend")),
        *(("AppServer", key) for key in ("quiesce.dev/suspnd", names.SERVED_CONTAINER)),
    ],
)
def test_the_policy_rejects_unsupported_annotations(
    dry: pykube.HTTPClient, manifest: MakeManifest, kind: str, key: str
) -> None:
    message = refusal(dry, changed(manifest(kind), "metadata.annotations", {key: "true"}))
    assert f"metadata.annotations: {key} is not supported on {kind}s" in message
    assert names.SUSPEND_REASON in message
    assert names.SURGE not in message.partition("supported: ")[2]


def test_an_old_unsupported_annotation_blocks_no_other_change(
    api: pykube.HTTPClient, dry: pykube.HTTPClient, manifest: MakeManifest, namespace: str
) -> None:
    bad = changed(manifest("ServerGroup"), "metadata.annotations", {names.FORCE: "true"})
    with policy_off(api, namespace):
        eventually(lambda: not refusal(dry, bad))
        group = create(api, bad)
    eventually(lambda: bool(refusal(dry, changed(bad, "metadata.name", "other"))))
    group.patch({"metadata": {"annotations": {names.RESTART: "true"}}})
    with pytest.raises(HTTPError, match="suspnd"):
        group.patch({"metadata": {"annotations": {"quiesce.dev/suspnd": "true"}}})


def test_an_old_bad_value_blocks_no_other_change(
    api: pykube.HTTPClient, dry: pykube.HTTPClient, manifest: MakeManifest, namespace: str
) -> None:
    bad = with_suspend(manifest("ServerGroup"), "soon")
    with policy_off(api, namespace):
        eventually(lambda: not refusal(dry, bad))
        group = create(api, bad)
    eventually(lambda: bool(refusal(dry, changed(bad, "metadata.name", "other"))))

    group.patch({"metadata": {"labels": {"tier": "shop"}}})
    group.patch({"spec": {"template": {"spec": {"preSuspendSeconds": 5}}}})
    group.patch({"status": {"observedGeneration": 1}}, subresource="status")
    with pytest.raises(HTTPError, match="later"):
        group.patch({"metadata": {"annotations": {names.SUSPEND: "later"}}})
    group.patch({"metadata": {"annotations": {names.SUSPEND: None}}})
    with pytest.raises(HTTPError, match="soon"):
        group.patch({"metadata": {"annotations": {names.SUSPEND: "soon"}}})
    group.patch({"metadata": {"annotations": {names.SUSPEND: "5m"}}})


@contextmanager
def policy_off(api: pykube.HTTPClient, namespace: str) -> Iterator[None]:
    """The policy without this one namespace, as it was before the chart was installed."""
    kind = pykube.object_factory(api, "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")
    binding = kind(api, {"metadata": {"name": POLICY}})
    others = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]}
    binding.patch({"spec": {"matchResources": {"namespaceSelector": {"matchExpressions": [others]}}}})
    try:
        yield
    finally:
        binding.patch({"spec": {"matchResources": None}})


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.2)


@pytest.mark.parametrize("field", BUDGETS)
@pytest.mark.parametrize("value", [-1, "0%", "150%", "1000%", "abc", "", "5", "05%", "10 %", 1.5, True, [1]])
def test_a_budget_refuses(dry: pykube.HTTPClient, manifest: MakeManifest, field: str, value: object) -> None:
    assert f"{field}: " in refusal(dry, changed(manifest("ServerGroup"), field, value))


@pytest.mark.parametrize("field", BUDGETS)
@pytest.mark.parametrize("value", [1, 500, "1%", "25%", "100%"])
def test_a_budget_takes(dry: pykube.HTTPClient, manifest: MakeManifest, field: str, value: object) -> None:
    assert not refusal(dry, changed(manifest("ServerGroup"), field, value))


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"maxUnavailable": 0}, "can't both be 0"),
        ({"maxUnavailable": 0, "maxSurge": 0}, "can't both be 0"),
        ({"maxUnavailable": 0, "maxSurge": 1}, ""),
        ({"maxUnavailable": 0, "maxSurge": "10%"}, ""),
        ({"maxUnavailable": "10%"}, ""),
    ],
)
def test_a_roll_needs_room(
    dry: pykube.HTTPClient, manifest: MakeManifest, budget: dict[str, object], says: str
) -> None:
    message = refusal(dry, changed(manifest("ServerGroup"), ROLLING_UPDATE, budget))
    assert says in message
    assert bool(says) == bool(message)


SERVICE = {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("ports", ABSENT, "spec.service.ports: "),
        ("ports", [], "spec.service.ports: "),
        ("ports", [{"port": 0}], "spec.service.ports[0].port: "),
        (
            "ports",
            [{"port": 80}, {"port": 80}],
            "spec.service.ports: Invalid value: two ports have the same port and protocol",
        ),
        ("ports", [{"name": "one", "port": 80}, {"name": "two", "port": 80, "protocol": "UDP"}], ""),
        ("ports", [{"port": 80}], ""),
        (
            "ports",
            [{"name": "one", "port": 80}, {"name": "two", "port": 80, "protocol": "TCP"}],
            "same port and protocol",
        ),
        ("ports", [{"name": "one", "port": 80}, {"port": 81}], "where there are several ports, each needs a name"),
        ("ports", [{"name": "one", "port": 80}, {"name": "one", "port": 81}], "two ports have the same name"),
        ("ports", [{"name": f"port-{number}", "port": number} for number in range(1, 51)], ""),
        ("ports", [{"name": "Http", "port": 80}], "spec.service.ports[0].name: "),
        ("ports", [{"name": "http-", "port": 80}], "spec.service.ports[0].name: "),
        ("ports", [{"port": 80, "targetPort": 8080}], ""),
        ("ports", [{"port": 80, "targetPort": "http-2"}], ""),
        ("ports", [{"port": 80, "targetPort": 65536}], "spec.service.ports[0].targetPort: "),
        ("ports", [{"port": 80, "targetPort": ""}], "spec.service.ports[0].targetPort: "),
        ("ports", [{"port": 80, "targetPort": "8080"}], "spec.service.ports[0].targetPort: "),
        ("ports", [{"port": 80, "targetPort": "Http"}], "spec.service.ports[0].targetPort: "),
        ("ports", [{"port": 80, "targetPort": "a--b"}], "spec.service.ports[0].targetPort: "),
        ("ports", [{"port": 80, "targetPort": "http-"}], "spec.service.ports[0].targetPort: "),
        ("type", "ExternalName", "spec.service.type: "),
        ("annotations", {"quiesce.dev/suspend": "true"}, "keys of quiesce.dev are the operator's"),
        ("annotations", {"example.com/class": "internal"}, ""),
        ("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 60}}, "is for sessionAffinity: ClientIP"),
        ("labels", {"quiesce.dev/group": "other"}, "keys of quiesce.dev are the operator's"),
        ("labels", {"release": "shop"}, ""),
        ("labels", None, ""),
        ("annotations", {}, ""),
        ("annotations", None, ""),
        ("type", None, ""),
    ],
)
def test_a_service_takes_and_refuses(
    dry: pykube.HTTPClient, manifest: MakeManifest, path: str, value: object, says: str
) -> None:
    message = refusal(dry, changed(manifest("ServerGroup"), "spec.service", changed(SERVICE, path, value)))
    assert says in message
    assert bool(says) == bool(message)


BALANCED = {"type": "LoadBalancer"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sessionAffinity": "ClientIP"}, ""),
        ({"sessionAffinity": "Cookie"}, "sessionAffinity"),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, ""),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
            "timeoutSeconds",
        ),
        ({"externalTrafficPolicy": "Local"}, "externalTrafficPolicy"),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, ""),
        ({**BALANCED, "externalTrafficPolicy": "Local"}, ""),
        ({**BALANCED, "externalTrafficPolicy": "Global"}, "externalTrafficPolicy"),
        ({"internalTrafficPolicy": "Local"}, ""),
        ({"internalTrafficPolicy": "Global"}, "internalTrafficPolicy"),
        ({"trafficDistribution": "PreferClose"}, ""),
        ({"trafficDistribution": "PreferFar"}, "trafficDistribution"),
        ({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}, ""),
        ({"ipFamilyPolicy": "PreferDualStack"}, ""),
        ({"ipFamilyPolicy": "Both"}, "ipFamilyPolicy"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "ipFamilies"),
        ({"ipFamilies": ["IPv5"]}, "ipFamilies"),
        ({**BALANCED, "loadBalancerClass": "example.com/internal"}, ""),
        ({"loadBalancerClass": "example.com/internal"}, "loadBalancerClass"),
        ({**BALANCED, "loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"]}, ""),
        ({**BALANCED, "loadBalancerSourceRanges": ["10.0.0.0"]}, "oadBalancerSourceRanges"),
        ({"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}, "oadBalancerSourceRanges"),
    ],
)
def test_a_group_refuses_what_the_api_server_refuses_of_a_service(
    dry: pykube.HTTPClient, manifest: MakeManifest, namespace: str, fields: Manifest, says: str
) -> None:
    spec = {**SERVICE, **fields}
    metadata = {"name": "shop", "namespace": namespace}
    for thing in (
        changed(manifest("ServerGroup"), "spec.service", spec),
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
    ):
        message = refusal(dry, thing)
        assert says in message
        assert bool(says) == bool(message)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (BALANCED, {**BALANCED, "loadBalancerClass": "example.com/other"}, "loadBalancerClass can't change"),
        ({**BALANCED, "loadBalancerClass": "example.com/one"}, BALANCED, "loadBalancerClass can't change"),
        ({**BALANCED, "loadBalancerClass": "example.com/one"}, {}, ""),
        ({}, {**BALANCED, "loadBalancerClass": "example.com/one"}, ""),
        ({"ipFamilies": ["IPv4"]}, {"ipFamilies": ["IPv6", "IPv4"]}, "the first of ipFamilies can't change"),
        ({"ipFamilies": ["IPv4"]}, {"ipFamilies": ["IPv4", "IPv6"]}, ""),
    ],
)
def test_a_group_refuses_changes_that_a_service_can_not_make(
    api: pykube.HTTPClient, manifest: MakeManifest, before: Manifest, after: Manifest, says: str
) -> None:
    dry = pykube.HTTPClient(api.config, dry_run=True)
    thing = manifest("ServerGroup")
    there = changed(thing, "spec.service", {**SERVICE, **before})
    apply(api, there)
    message = refusal(dry, changed(thing, "spec.service", {**SERVICE, **after}), apply)
    assert says in message
    assert bool(says) == bool(message)
    assert not refusal(dry, changed(thing, "spec.service", ABSENT), apply)
    assert not refusal(dry, changed(there, "spec.replicas", 2), apply)


@pytest.mark.parametrize(
    ("service", "says"),
    [("ClusterIP", "nodePort of ports is for the types"), ("NodePort", ""), ("LoadBalancer", "")],
)
def test_a_node_port_is_for_services_that_have_some(
    dry: pykube.HTTPClient, manifest: MakeManifest, service: str, says: str
) -> None:
    spec = {"type": service, "ports": [{"port": 80, "nodePort": 30080}]}
    message = refusal(dry, changed(manifest("ServerGroup"), "spec.service", spec))
    assert says in message
    assert bool(says) == bool(message)


@pytest.mark.parametrize(("name", "taken"), [("s", True), ("shop-2", True), ("2shop", False), ("shop.a", False)])
def test_a_group_has_a_name_that_its_services_can_have(
    dry: pykube.HTTPClient, manifest: MakeManifest, name: str, taken: bool
) -> None:
    message = refusal(dry, changed(manifest("ServerGroup"), "metadata.name", name))
    assert (f"metadata.name: {name} is not lower-case letters" in message) != taken
    assert bool(message) != taken


@pytest.mark.parametrize(("kind", "longest"), [("AppServer", 63), ("ServerGroup", 52)])
def test_a_name_has_a_greatest_length(dry: pykube.HTTPClient, manifest: MakeManifest, kind: str, longest: int) -> None:
    assert not refusal(dry, changed(manifest(kind), "metadata.name", "s" * longest))
    assert "metadata.name: " in refusal(dry, changed(manifest(kind), "metadata.name", "s" * (longest + 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("suspendTimeoutSeconds", -2),
        ("suspendTimeoutSeconds", 86401),
        ("suspendTimeoutSeconds", "60"),
        ("preSuspendSeconds", -1),
        ("desiredState", "Paused"),
        ("admin", ABSENT),
        ("admin.port", ABSENT),
        ("admin.port", ""),
        ("admin.credentialsSecretRef", ABSENT),
        ("admin.profile", "tomcat"),
        ("template", ABSENT),
        ("template.spec", ABSENT),
        ("template.spec.containers", ABSENT),
        ("template.spec.containers", []),
        ("template.spec.terminationGracePeriodSeconds", -1),
        ("template.spec.terminationGracePeriodSeconds", 86401),
    ],
)
def test_a_server_refuses(dry: pykube.HTTPClient, manifest: MakeManifest, kind: str, path: str, value: object) -> None:
    field = f"{SERVER_SPEC[kind]}.{path}"
    assert f"{field}: " in refusal(dry, changed(manifest(kind), field, value))


@pytest.mark.parametrize("value", [-1, "many", 10001])
def test_replicas_refuse(dry: pykube.HTTPClient, manifest: MakeManifest, value: object) -> None:
    assert "spec.replicas: " in refusal(dry, changed(manifest("ServerGroup"), "spec.replicas", value))


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_gets_defaults(dry: pykube.HTTPClient, manifest: MakeManifest, kind: str) -> None:
    spec = create(dry, manifest(kind)).obj
    for part in SERVER_SPEC[kind].split("."):
        spec = spec[part]
    assert spec["desiredState"] == "Running"
    assert spec["suspendTimeoutSeconds"] == 60
    assert spec["preSuspendSeconds"] == 2
    assert spec["admin"]["profile"] == "wildfly"


def test_a_group_gets_defaults(dry: pykube.HTTPClient, manifest: MakeManifest) -> None:
    spec = create(dry, changed(manifest("ServerGroup"), "spec.replicas", ABSENT)).obj["spec"]
    assert spec["replicas"] == 1
    assert spec["desiredState"] == "Running"
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    assert spec["podDisruptionBudget"] == "Managed"


def test_the_pod_template_is_kept_as_it_is(dry: pykube.HTTPClient, manifest: MakeManifest) -> None:
    template = {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "server", "image": "server", "newField": {"a": [1]}}], "hostUsers": False},
    }
    made = create(dry, changed(manifest("AppServer"), "spec.template", template))
    assert made.obj["spec"]["template"] == template


def test_a_group_scales(api: pykube.HTTPClient, dry: pykube.HTTPClient, manifest: MakeManifest) -> None:
    """The size is only rehearsed and the status is what an operator would write: one may be watching."""
    made = create(api, manifest("ServerGroup"))
    selector = f"{names.SERVER_GROUP}={made.name}"
    made.patch({"status": {"replicas": 0, "selector": selector}}, subresource="status")
    group = pykube.object_factory(dry, names.API_VERSION, "ServerGroup")(dry, made.obj)
    group.patch({"spec": {"replicas": 3}}, subresource="scale")
    assert group.obj["kind"] == "Scale"
    assert group.obj["spec"] == {"replicas": 3}
    assert group.obj["status"]["selector"] == selector
