"""Applied by field, as `kubectl apply`, Flux and Argo CD do: lists merge by their keys, nothing changes twice."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pykube
import pytest
import yaml
from pykube.exceptions import HTTPError

from quiesce.decide.group import GroupObservation, decide_group
from quiesce.decide.podspec import BadTemplateError, build_pod
from quiesce.decide.status import group_status
from quiesce.decide.target import target_spec
from quiesce.model import names
from quiesce.model.objects import OwnMetadata
from quiesce.model.resources import AppServer, ServerGroup
from tests.api.test_admission import KINDS, SERVER_SPEC, MakeManifest, Manifest, Send, apply, changed, create, refusal

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
CORE = "io.k8s.api.core.v1"
# The keys of these have a default in the core types, and no template may have the others.
WHOLE = {"ports", "ephemeralContainers"}

CONTAINER = {
    "name": "server",
    "image": "server:1",
    "env": [{"name": "ONE", "value": "1"}, {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "ports": [{"name": "management", "containerPort": 9990}, {"containerPort": 53, "protocol": "UDP"}],
    "readinessProbe": {"httpGet": {"path": "/health/ready", "port": "management"}},
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}],
    "resources": {"requests": {"memory": "512Mi"}, "claims": [{"name": "gpu"}]},
}
POD = {
    "containers": [CONTAINER, {"name": "sidecar", "image": "sidecar:1"}],
    "initContainers": [{"name": "init", "image": "init:1", "env": [{"name": "ONE", "value": "1"}]}],
    "volumes": [{"name": "data", "emptyDir": {}}],
    "imagePullSecrets": [{"name": "registry"}],
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
    "topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
    "schedulingGates": [{"name": "example.com/wait"}],
}
NAMED = [{"name": "other"}]


def pod_path(kind: str) -> str:
    return f"{SERVER_SPEC[kind]}.template.spec"


def pod_of(thing: Any) -> Any:
    for part in pod_path(thing["kind"]).split("."):
        thing = thing[part]
    return thing


def alone(thing: Manifest, pod: Manifest) -> Manifest:
    """What a program applies that sets nothing but these fields of the pod template."""
    metadata = {part: thing["metadata"][part] for part in ("name", "namespace")}
    nothing = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "metadata": metadata}
    return changed(nothing, pod_path(thing["kind"]), pod)


@pytest.fixture
def written(api: pykube.HTTPClient, manifest: MakeManifest, kind: str) -> Manifest:
    """An object with a full template, as its owner has applied it; no operator makes a pod of it."""
    stopped = changed(manifest(kind), "spec.desiredState", "Stopped")
    return apply(api, changed(stopped, pod_path(kind), POD), "owner")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_applied_alone_changes_alone(dry: pykube.HTTPClient, written: Manifest) -> None:
    image = alone(written, {"containers": [{"name": "server", "image": "server:2"}]})
    applied = apply(dry, image, "ci")
    assert applied["spec"] == changed(written, pod_path(written["kind"]), with_image("server:2"))["spec"]


def with_image(image: str) -> Manifest:
    return {**POD, "containers": [{**CONTAINER, "image": image}, {"name": "sidecar", "image": "sidecar:1"}]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("containers", [{"name": "other", "image": "other"}]),
        *((field, NAMED) for field in ("initContainers", "volumes", "imagePullSecrets")),
        *((field, NAMED) for field in ("resourceClaims", "schedulingGates")),
        ("hostAliases", [{"ip": "10.0.0.2", "hostnames": ["mail"]}]),
        (
            "topologySpreadConstraints",
            [
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"topologyKey": "node", "whenUnsatisfiable": "DoNotSchedule"},
            ],
        ),
        ("containers.env", NAMED),
        ("containers.volumeMounts", [{"name": "data", "mountPath": "/other"}]),
        ("containers.volumeDevices", [{"name": "disk", "devicePath": "/dev/y"}]),
        ("containers.resources.claims", NAMED),
        ("initContainers.env", NAMED),
    ],
)
def test_what_another_program_applies_is_added_and_taken_away_again(
    api: pykube.HTTPClient, written: Manifest, field: str, value: list[Manifest]
) -> None:
    whole, _, inner = field.partition(".")
    name = {"containers": "server", "initContainers": "init"}.get(whole)
    more = {whole: [changed({"name": name}, inner, value)] if inner else value}
    merged = pod_of(apply(api, alone(written, more), "other"))
    assert found(merged, whole, inner) == [*found(POD, whole, inner), *value]
    assert pod_of(apply(api, alone(written, {}), "other")) == pod_of(written)


def found(pod: Manifest, whole: str, inner: str) -> list[Manifest]:
    """A list of the pod, or of the first of its containers; what isn't there has no items."""
    there: Any = pod[whole][0] if inner else pod
    for part in (inner or whole).split("."):
        there = there.get(part, {})
    return [*there]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("type_", "below"), [("PodSpec", ""), ("Container", "containers"), ("Container", "initContainers")]
)
def test_lists_merge_as_those_of_the_api_servers_own_types(kind: str, type_: str, below: str) -> None:
    schemas = json.loads(kubectl("get", "--raw", "/openapi/v3/api/v1"))["components"]["schemas"]
    core = {
        field: schema["x-kubernetes-list-map-keys"]
        for field, schema in schemas[f"{CORE}.{type_}"]["properties"].items()
        if schema.get("x-kubernetes-list-type") == "map" and field not in WHOLE
    }
    crd = yaml.safe_load((PROJECT / "crds" / f"{kind.lower()}s.yaml").read_text())
    own = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in pod_path(kind).split("."):
        own = own["properties"][part]
    own = own["properties"][below]["items"]["properties"] if below else own["properties"]
    assert {field: s["x-kubernetes-list-map-keys"] for field, s in own.items() if "x-kubernetes-list-type" in s} == core
    assert core


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_takes_one_port_of_two_protocols_and_lists_that_are_null(
    dry: pykube.HTTPClient, manifest: MakeManifest, kind: str
) -> None:
    dns = [{"name": "dns", "containerPort": 53}, {"name": "dns-udp", "containerPort": 53, "protocol": "UDP"}]
    nothing = dict.fromkeys(("initContainers", "volumes", "readinessGates", "terminationGracePeriodSeconds"))
    empty = {"name": "sidecar", **dict.fromkeys(("env", "ports", "volumeMounts", "lifecycle", "resources"))}
    pod = {"containers": [{"name": "server", "ports": dns}, empty], **nothing}
    thing = changed(manifest(kind), f"{SERVER_SPEC[kind]}.template", {"metadata": None, "spec": pod})
    assert not refusal(dry, thing)
    assert pod_of(apply(dry, thing)) == pod


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_null", [False, True], ids=["empty", "null"])
def test_a_template_takes_fields_that_are_emptied(
    api: pykube.HTTPClient, manifest: MakeManifest, kind: str, is_null: bool
) -> None:
    """The API server makes a null of a map that an apply empties."""

    def emptied(thing: Manifest, *but: str) -> Manifest:
        return {
            key: value if key in but else None if is_null else type(value)()
            for key, value in thing.items()
            if key in but or isinstance(value, dict | list)
        }

    def with_template(metadata: Manifest, pod: Manifest) -> Manifest:
        stopped = changed(manifest(kind), "spec.desiredState", "Stopped")
        return changed(stopped, f"{SERVER_SPEC[kind]}.template", {"metadata": metadata, "spec": pod})

    metadata = {"labels": {"app": "shop"}, "annotations": {"note": "kept"}}
    server = {**CONTAINER, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    pod = {**POD, "containers": [server], "nodeSelector": {"disk": "ssd"}, "readinessGates": [{"conditionType": "x"}]}
    apply(api, with_template(metadata, pod))
    bare = {**emptied(pod), "containers": [emptied(server, "name")]}
    merged = pod_of(apply(api, with_template(emptied(metadata), bare)))
    assert not any(value for field, value in merged.items() if field != "containers")
    assert [{field: value for field, value in one.items() if value} for one in merged["containers"]] == [
        {"name": "server"}
    ]


PROBE = {"httpGet": {"path": "/health/live", "port": "management"}, "terminationGracePeriodSeconds": 5}
COMMAND_PROBE = {"exec": {"command": ["curl", "-f", "http://localhost:8080/"]}, "periodSeconds": 5}
WEIGHED = {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "namespaces": ["other"], "namespaceSelector": {}}}
FULL_CONTAINER = {
    **CONTAINER,
    "restartPolicy": "Always",
    "livenessProbe": PROBE,
    "startupProbe": COMMAND_PROBE,
    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
}
FULL_TEMPLATE = {
    "metadata": {"labels": {"app": "shop"}, "annotations": {"note": "kept"}, "name": "shop"},
    "spec": {
        **POD,
        "containers": [FULL_CONTAINER],
        "initContainers": [{"name": "init", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1"}}}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [WEIGHED]}},
        "overhead": {"cpu": "1"},
        "readinessGates": [{"conditionType": "example.com/warm"}],
        "terminationGracePeriodSeconds": 30,
        **dict.fromkeys(
            ("hostname", "subdomain", "priorityClassName", "restartPolicy", "serviceAccountName"), "Always"
        ),
    },
}
FULL_SERVER = {
    "desiredState": "Running",
    "suspendTimeoutSeconds": 60,
    "preSuspendSeconds": 2,
    "withdrawal": "Gate",
    "admin": {"port": "management", "profile": "wildfly", "credentialsSecretRef": {"name": "admin"}},
    "template": FULL_TEMPLATE,
}
FULL_SERVICE = {
    "type": "LoadBalancer",
    "labels": {"app": "shop"},
    "annotations": {"note": "kept"},
    "ports": [
        {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http", "targetPort": 80, "nodePort": 30080}
    ],
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Local",
    "trafficDistribution": "PreferClose",
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "loadBalancerClass": "example.com/internal",
    "loadBalancerSourceRanges": ["10.0.0.0/8"],
}
FULL_GROUP = {
    "replicas": 0,
    "desiredState": "Running",
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
    "podDisruptionBudget": "None",
    "service": FULL_SERVICE,
    "template": {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}, "spec": FULL_SERVER},
}


def without_each(thing: Any, value: object) -> Iterator[tuple[str, Any]]:
    """Each field's name, and the whole with that field null, or empty as its type is."""
    if isinstance(thing, list):
        first, *rest = thing
        yield from ((name, [item, *rest]) for name, item in without_each(first, value))
    if isinstance(thing, dict):
        for field, child in thing.items():
            if value is None or isinstance(child, dict | list | str):
                yield field, {**thing, field: value if value is None else type(child)()}
            yield from ((name, {**thing, field: inner}) for name, inner in without_each(child, value))


def answered(dry: pykube.HTTPClient, thing: Manifest, send: Send) -> Manifest | str:
    """What the API server makes of it, or why it refuses it."""
    try:
        made = send(dry, thing)
    except HTTPError as error:
        return str(error)
    found: Manifest = made if isinstance(made, dict) else made.obj
    return found


def read(made: Manifest) -> None:
    """All that the operator makes of a group's spec."""
    group = msgspec.convert(made, ServerGroup)
    o = GroupObservation(now=0, group=group)
    group_status(o, decide_group(o))
    server = AppServer(OwnMetadata(name="shop-0"), target_spec(group))
    with suppress(BadTemplateError):
        build_pod(server, group)


@pytest.mark.parametrize("value", [None, "empty"])
@pytest.mark.parametrize("send", [create, apply])
def test_a_field_that_is_null_or_empty_is_taken_or_refused_by_its_name(
    api: pykube.HTTPClient, manifest: MakeManifest, value: object, send: Send
) -> None:
    dry, thing = pykube.HTTPClient(api.config, dry_run=True), {**manifest("ServerGroup"), "spec": FULL_GROUP}
    if send is apply:
        apply(api, thing)
    for field, spec in without_each(FULL_GROUP, value):
        answer = answered(dry, {**thing, "spec": spec}, send)
        if isinstance(answer, str):
            assert field in answer
            assert not re.search("index out of bounds|no such key|no such overload", answer)
        else:
            read(answer)


# Kinds of other programs, which the cluster of the tests lacks.
ELSEWHERE = {"kustomize.toolkit.fluxcd.io/v1", "kustomize.config.k8s.io/v1beta1", "autoscaling.k8s.io/v1"}


def manifests(page: Path) -> Iterator[Manifest]:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        for found in yaml.safe_load_all(block):
            if "apiVersion" in found and found["apiVersion"] not in ELSEWHERE:
                yield found


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(manifest, id=f"{page.name}-{manifest['kind']}-{manifest['metadata']['name']}")
        for page in PAGES
        for manifest in manifests(page)
    ],
)
def test_a_manifest_of_the_docs_that_is_applied_twice_is_unchanged(namespace: str, manifest: Manifest) -> None:
    if manifest["apiVersion"] == names.API_VERSION:
        manifest = changed(manifest, "spec.desiredState", "Stopped")  # no operator makes a pod of it
    assert kubectl_apply(namespace, manifest).endswith(" created")
    assert kubectl_apply(namespace, manifest).endswith(" unchanged")
    once = kubectl_apply(namespace, manifest, "--server-side", "--force-conflicts", "--output=json")
    again = kubectl_apply(namespace, manifest, "--server-side", "--output=json")
    assert json.loads(again)["metadata"]["resourceVersion"] == json.loads(once)["metadata"]["resourceVersion"]


def test_the_apply_of_an_image_in_the_docs_changes_nothing_else(namespace: str) -> None:
    group = next(changed(found, "spec.desiredState", "Stopped") for found in manifests(PROJECT / "README.md"))
    page = (PROJECT / "docs" / "pod-templates.md").read_text()
    ((flags, image),) = re.findall(r"^kubectl apply (.*) -f - <<EOF\n(.*?)^EOF", page, flags=re.MULTILINE | re.DOTALL)
    flags = [*flags.split(), "--output=json"]
    before = json.loads(kubectl_apply(namespace, group, "--server-side", "--output=json"))
    after = json.loads(kubectl_apply(namespace, yaml.safe_load(image), *flags))
    container = pod_of(before)["containers"][0]
    assert container["image"] != "registry.example/shop:2"
    container["image"] = "registry.example/shop:2"
    assert after["spec"] == before["spec"]


def kubectl_apply(namespace: str, manifest: Manifest, *flags: str) -> str:
    return kubectl("--namespace", namespace, "apply", "--filename=-", *flags, text=json.dumps(manifest))


def kubectl(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
