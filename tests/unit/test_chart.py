"""The chart says the same as the rest of the project, and refuses values that make no sense."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.paths import BIN

PROJECT = Path(__file__).parents[2]
CHART = PROJECT / "charts" / "quiesce"
CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
IMAGE = "image.repository=registry.example/quiesce"
LONGEST = 53  # of a release's name, says Helm
LABEL = 63  # of a label's value; of a Job's name, which is a label of its pods
Manifest = dict[str, Any]
Name = tuple[str, str, str]  # kind, namespace, name


def helm(*values: str, release: str = "quiesce", namespace: str = "quiesce-system") -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm", path=f"{BIN}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("there is no helm: `make setup` builds it")
    command = [program, "template", release, str(CHART), "--namespace", namespace, "--kube-version=1.36"]
    sets = [f"--set={value}" for value in (IMAGE, *values)]
    return subprocess.run([*command, *sets], capture_output=True, text=True, check=False)


def rendered(*values: str, release: str = "quiesce", namespace: str = "quiesce-system") -> dict[Name, Manifest]:
    done = helm(*values, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    found: dict[Name, Manifest] = {}
    for manifest in yaml.safe_load_all(done.stdout):
        own = manifest["metadata"]
        key = (manifest["kind"], own.get("namespace", ""), own["name"])
        assert key not in found
        assert (key[1] == "") == (key[0] in CLUSTER_SCOPED), key
        found[key] = manifest
    return found


def pod_specs(found: dict[Name, Manifest]) -> dict[str, Manifest]:
    return {kind: m["spec"]["template"]["spec"] for (kind, _, _), m in found.items() if kind in ("Deployment", "Job")}


def test_the_chart_has_the_crds_as_they_are() -> None:
    origin, copy = (
        {file.name: file.read_text() for file in folder.iterdir()} for folder in (PROJECT / "crds", CHART / "crds")
    )
    assert copy == origin, "run `cp crds/*.yaml charts/quiesce/crds/`"


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', (PROJECT / "Dockerfile").read_text()))
    for key in ("version", "description"):
        assert labels[key] == project[key]
    assert labels["licenses"] == project["license"]


def test_a_namespaced_install_has_the_same_rules_there_and_no_rights_elsewhere() -> None:
    everywhere = rendered()["ClusterRole", "", "quiesce"]["rules"]
    found = rendered("watchNamespaces={shop,billing}")
    roles = {key: m["rules"] for key, m in found.items() if key[0] == "Role" and key[1] != "quiesce-system"}
    assert set(roles) == {("Role", there, "quiesce-system.quiesce") for there in ("shop", "billing")}
    assert all(rules == everywhere for rules in roles.values())
    assert {name for kind, _, name in found if kind == "ClusterRole"} == {
        "quiesce-system.quiesce-view",
        "quiesce-system.quiesce-edit",
    }
    assert not [name for kind, _, name in found if kind == "ClusterRoleBinding"]
    own = ("watchNamespaces={shop}", "admissionPolicy.enabled=false", "rbac.aggregate=false")
    assert not [key for key in rendered(*own) if not key[1]]
    for pod in pod_specs(found).values():
        assert {"--namespace=shop", "--namespace=billing"} <= set(pod["containers"][0]["args"])
    binding = found["ValidatingAdmissionPolicyBinding", "", "quiesce-system.quiesce-annotations"]["spec"]
    where = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "billing"]}
    assert binding["matchResources"]["namespaceSelector"] == {"matchExpressions": [where]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("quiesce", "team-a"), ("quiesce", "team-b"), id="of one name in two namespaces"),
        pytest.param(("blue", "team-a"), ("green", "team-a"), id="of two names in one namespace"),
        pytest.param(("quiesce", "a-b"), ("quiesce-a", "b"), id="of names that look the same put together"),
    ],
)
def test_two_namespaced_releases_share_no_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    def keys(release: str, namespace: str, watched: str) -> set[Name]:
        return set(rendered(f"watchNamespaces={{{watched}}}", release=release, namespace=namespace))

    assert not keys(*one, "shop") & keys(*other, "billing")


def test_a_release_that_is_looked_after_by_another_shares_no_name_with_it() -> None:
    """The Role for the Lease stands in a namespace in which another release may have a Role too."""
    here = set(rendered("watchNamespaces={shop}", release="quiesce", namespace="ops"))
    assert not here & set(rendered("watchNamespaces={ops}", release="quiesce", namespace="lease"))
    assert not here & set(rendered("watchNamespaces={ops}", release="quiesce", namespace="cleanup"))


def test_two_releases_for_all_namespaces_exclude_each_other() -> None:
    one, other = (
        {key for key in rendered(namespace=namespace) if not key[1]} for namespace in ("quiesce-system", "elsewhere")
    )
    assert one == other


def test_names_follow_the_release() -> None:
    assert {key[2] for key in rendered() if key[0] in ("Deployment", "ServiceAccount")} == {"quiesce"}
    found = rendered(release="blue")
    assert {key[2] for key in found if key[0] in ("Deployment", "ServiceAccount")} == {"blue-quiesce"}
    lease = [m["rules"] for (kind, _, name), m in found.items() if (kind, name) == ("Role", "blue-quiesce-lease")]
    assert [rule["verbs"] for rule in lease[0]] == [["create"], ["get", "update"]]
    assert lease[0][1]["resourceNames"] == ["blue-quiesce"]
    for pod in pod_specs(found).values():
        assert "--lease=blue-quiesce" in pod["containers"][0]["args"]


def test_a_name_can_be_chosen() -> None:
    def workload(*values: str) -> Name:
        (found,) = (key for key in rendered(*values, release="blue") if key[0] == "Deployment")
        return found

    assert workload("nameOverride=drain")[2] == "blue-drain"
    assert workload("fullnameOverride=drain")[2] == "drain"


def test_a_release_with_dots_gives_pods_a_hostname() -> None:
    assert ("Deployment", "quiesce-system", "blue-1-quiesce") in rendered(release="blue.1")


@pytest.mark.parametrize("value", ["replicas=2", "watchNamespaces={shop}", "nameOverride=" + "n" * 55])
def test_the_longest_names_fit(value: str) -> None:
    found = rendered(value, release="r" * LONGEST, namespace="n" * LABEL)
    for (kind, namespace, name), manifest in found.items():
        assert len(name) <= (LABEL if namespace and kind not in ("Role", "RoleBinding") else 253), name
        for labels in every(manifest, "labels", "matchLabels"):
            assert all(len(value) <= LABEL for value in labels.values())


def test_what_looks_like_a_number_or_a_boolean_is_none() -> None:
    found = rendered("watchNamespaces={0123,on}", "replicas=2", release="123", namespace="456")
    for key, manifest in found.items():
        assert all(isinstance(part, str) for part in key), key
        for labels in every(manifest, "labels", "matchLabels"):
            assert all(isinstance(value, str) for value in labels.values()), labels
        for named in (
            *every(manifest, "roleRef"),
            *(subject for many in every(manifest, "subjects") for subject in many),
        ):
            assert all(isinstance(value, str) for value in named.values()), named
        for several in every(manifest, "values", "resourceNames", "args"):
            assert all(isinstance(value, str) for value in several), several
    assert {namespace for kind, namespace, _ in found if kind == "Role"} == {"0123", "on", "456"}


def every(thing: Any, *keys: str) -> Iterator[Any]:
    """The values of these keys, wherever they stand."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key in keys:
                yield value
            yield from every(value, *keys)
    elif isinstance(thing, list):
        for item in thing:
            yield from every(item, *keys)


def test_an_image_has_to_be_named() -> None:
    done = helm("image.repository=")
    assert done.returncode != 0
    assert "image.repository: set the location of the operator's image" in done.stderr


def test_a_digest_takes_the_place_of_the_tag() -> None:
    def images(*values: str) -> set[str]:
        return {pod["containers"][0]["image"] for pod in pod_specs(rendered(*values)).values()}

    digest = "sha256:" + "0123456789abcdef" * 4
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert images() == {f"registry.example/quiesce:{version}"}
    assert images("image.tag=dev") == {"registry.example/quiesce:dev"}
    assert images(f"image.digest={digest}", "image.tag=dev") == {f"registry.example/quiesce@{digest}"}


def test_the_pods_are_restricted_and_their_user_is_left_to_the_image_or_the_platform() -> None:
    user = re.search(r"^USER (\d+):\d+$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert user, "runAsNonRoot needs a number"
    assert int(user[1]) > 0
    for pod in pod_specs(rendered()).values():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_users_get_rights_by_kubernetes_own_roles_but_none_on_the_status() -> None:
    found = rendered()
    view, edit = (found["ClusterRole", "", f"quiesce-{role}"] for role in ("view", "edit"))

    def aggregated_to(role: Manifest) -> set[str]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {key.removeprefix(prefix) for key in role["metadata"]["labels"] if key.startswith(prefix)}

    assert aggregated_to(view) == {"view", "edit", "admin"}
    assert aggregated_to(edit) == {"edit", "admin"}
    both = ["appservers", "servergroups"]
    assert [(rule["resources"], rule["verbs"]) for rule in (*view["rules"], *edit["rules"])] == [
        (both, ["get", "list", "watch"]),
        (both, ["create", "update", "patch", "delete", "deletecollection"]),
        (["servergroups/scale"], ["get", "update", "patch"]),
    ]


def test_several_replicas_are_spread_and_leave_one_after_the_other() -> None:
    def parts(*values: str) -> tuple[Manifest, Manifest | None]:
        found = rendered(*values)
        budget = found.get(("PodDisruptionBudget", "quiesce-system", "quiesce"))
        return found["Deployment", "quiesce-system", "quiesce"]["spec"], budget

    alone, no_budget = parts()
    assert "topologySpreadConstraints" not in alone["template"]["spec"]
    assert no_budget is None
    deployment, budget = parts("replicas=2")
    assert budget
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["selector"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"] == deployment["selector"]
    chosen, _ = parts("replicas=2", "topologySpreadConstraints[0].topologyKey=zone")
    assert chosen["template"]["spec"]["topologySpreadConstraints"] == [{"topologyKey": "zone"}]


def test_the_operator_leaves_a_node_that_is_lost_soon() -> None:
    pod = pod_specs(rendered())["Deployment"]
    waits = {toleration["key"]: toleration["tolerationSeconds"] for toleration in pod["tolerations"]}
    assert waits == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


def test_what_is_chosen_for_the_pods_is_in_them() -> None:
    found = rendered(
        "priorityClassName=high",
        "nodeSelector.disk=fast",
        "tolerations[0].key=spot",
        "affinity.nodeAffinity.a=b",
        "extraEnv[0].name=TZ,extraEnv[0].value=UTC",
        "podLabels.team=shop",
        "podAnnotations.note=kept",
        "serviceAccount.annotations.role=none",
    )
    for kind, name in (("Deployment", "quiesce"), ("Job", "quiesce-cleanup")):
        template = found[kind, "quiesce-system", name]["spec"]["template"]
        assert template["metadata"]["labels"]["team"] == "shop"
        assert template["metadata"]["annotations"] == {"note": "kept"}
        pod = template["spec"]
        assert pod["priorityClassName"] == "high"
        assert pod["nodeSelector"] == {"disk": "fast"}
        assert pod["tolerations"] == [{"key": "spot"}]
        assert pod["affinity"] == {"nodeAffinity": {"a": "b"}}
        assert pod["containers"][0]["env"][-1] == {"name": "TZ", "value": "UTC"}
    assert found["ServiceAccount", "quiesce-system", "quiesce"]["metadata"]["annotations"] == {"role": "none"}
    assert "team" not in found["Deployment", "quiesce-system", "quiesce"]["spec"]["selector"]["matchLabels"]


def test_a_chart_that_depends_on_this_one_can_switch_it_off() -> None:
    assert helm("enabled=true", "global.domain=example.com").returncode == 0


def test_every_account_that_is_named_is_there() -> None:
    found = rendered("watchNamespaces={shop}", release="blue")
    accounts = {(namespace, name) for kind, namespace, name in found if kind == "ServiceAccount"}
    for manifest in found.values():
        for subject in manifest.get("subjects", ()):
            assert (subject["namespace"], subject["name"]) in accounts
        if role := manifest.get("roleRef"):
            assert (role["kind"], manifest["metadata"].get("namespace", ""), role["name"]) in found
    assert all(("quiesce-system", pod["serviceAccountName"]) in accounts for pod in pod_specs(found).values())


def test_an_upgrade_starts_the_new_pod_before_it_ends_the_old_one() -> None:
    spec = rendered("replicas=2")["Deployment", "quiesce-system", "quiesce"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    env = {entry["name"] for entry in spec["template"]["spec"]["containers"][0]["env"]}
    assert env == {"POD_NAME", "POD_NAMESPACE"}


def test_the_pod_of_the_hook_is_none_of_the_deployments() -> None:
    found = rendered()
    selector = found["Deployment", "quiesce-system", "quiesce"]["spec"]["selector"]["matchLabels"]
    labels = found["Job", "quiesce-system", "quiesce-cleanup"]["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()
    allowed = found["NetworkPolicy", "quiesce-system", "quiesce"]["spec"]["podSelector"]["matchExpressions"]
    assert all(labels[one["key"]] in one["values"] for one in allowed)


def test_the_hook_names_the_lease_whose_absence_says_that_no_operator_runs() -> None:
    args = pod_specs(rendered(release="blue"))["Job"]["containers"][0]["args"]
    assert {"--lease=blue-quiesce", "--operator-namespace=quiesce-system", "--deployment=blue-quiesce"} <= set(args)
    assert (
        args.index("--lease=blue-quiesce") < args.index("cleanup") < args.index("--operator-namespace=quiesce-system")
    )


def test_the_hook_can_be_left_out() -> None:
    found = rendered("cleanupOnUninstall=false")
    assert not [m for m in found.values() if "helm.sh/hook" in m["metadata"].get("annotations", {})]


def test_hooks_leave_nothing() -> None:
    hooks = [m for m in rendered().values() if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    assert {m["kind"] for m in hooks} == {"Role", "RoleBinding", "Job"}
    for hook in hooks:
        assert hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_the_network_policy_lets_nothing_in_and_out_only_what_has_to() -> None:
    found = rendered("networkPolicy.adminPorts={9990,9993}", "watchNamespaces={shop}")
    spec = found["NetworkPolicy", "quiesce-system", "quiesce"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == []
    to_api, to_pods = spec["egress"]
    assert [port["port"] for port in to_api["ports"]] == [443, 6443]
    assert [port["port"] for port in to_pods["ports"]] == [9990, 9993]
    assert to_pods["to"][0]["podSelector"] == {"matchLabels": {"quiesce.dev/managed": "true"}}
    assert to_pods["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["shop"]
    assert "to" not in to_api
    narrow = rendered("networkPolicy.apiServerCIDRs={10.96.0.1/32,fd00::1/128}")
    to_api = narrow["NetworkPolicy", "quiesce-system", "quiesce"]["spec"]["egress"][0]
    assert [peer["ipBlock"]["cidr"] for peer in to_api["to"]] == ["10.96.0.1/32", "fd00::1/128"]
    everywhere = rendered()["NetworkPolicy", "quiesce-system", "quiesce"]["spec"]["egress"][1]["to"]
    assert everywhere[0]["namespaceSelector"] == {}
    assert not [kind for kind, _, _ in rendered("networkPolicy.enabled=false") if kind == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("replicas=-1", "replicas"),
        ("replicas=two", "replicas"),
        ("watchNamespaces={Shop}", "watchNamespaces/0"),
        ("watchNamespaces={shop,shop}", "watchNamespaces"),
        ("watchNamespaces=shop", "watchNamespaces"),
        ("networkPolicy.adminPorts={management}", "networkPolicy/adminPorts/0"),
        ("networkPolicy.adminPorts={0}", "networkPolicy/adminPorts/0"),
        ("networkPolicy.apiServerPorts={}", "networkPolicy/apiServerPorts"),
        ("networkPolicy.port=1", "networkPolicy"),
        ("admissionPolicy.enabled=maybe", "admissionPolicy/enabled"),
        ("logLevel=loud", "logLevel"),
        ("replica=2", "replica"),
        ("image=null", "image"),
        ("image.pullPolicy=null", "pullPolicy"),
        ("image.digest=sha256:12", "image/digest"),
        ("networkPolicy=null", "networkPolicy"),
        ("networkPolicy.adminPorts=null", "adminPorts"),
        ("networkPolicy.apiServerCIDRs={10.96.0.1}", "networkPolicy/apiServerCIDRs/0"),
        ("admissionPolicy=null", "admissionPolicy"),
        ("admissionPolicy.enabled=null", "enabled"),
        ("rbac=null", "rbac"),
        ("serviceAccount=null", "serviceAccount"),
        ("logLevel=null", "logLevel"),
        ("replicas=null", "replicas"),
        ("resources=null", "resources"),
        ("cleanupOnUninstall=null", "cleanupOnUninstall"),
        ("enabled=maybe", "enabled"),
        ("fullnameOverride=Quiesce", "fullnameOverride"),
        ("nameOverride=" + "n" * 56, "nameOverride"),
        (r"podLabels.app\.kubernetes\.io/name=other", "podLabels/app.kubernetes.io"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, field: str) -> None:
    done = helm(value)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert field in done.stderr


def test_every_value_is_in_the_schema_and_in_the_docs() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global", "enabled"}
    listed = set(re.findall(r"^\| `([A-Za-z.]+)", (PROJECT / "docs" / "install.md").read_text(), re.MULTILINE))
    leaves = {
        f"{name}.{part}" if isinstance(value, dict) and value and name != "resources" else name
        for name, value in values.items()
        for part in (value if isinstance(value, dict) and value and name != "resources" else [""])
    }
    assert listed == leaves
