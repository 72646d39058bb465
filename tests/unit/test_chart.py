"""The chart says the same as the rest of the project, and refuses values that make no sense."""

import os
import re
import shutil
import subprocess
import tomllib
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
Manifest = dict[str, Any]
Name = tuple[str, str, str]  # kind, namespace, name


def helm(*values: str, release: str = "quiesce", namespace: str = "quiesce-system") -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm", path=f"{BIN}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("there is no helm: `make setup` builds it")
    command = [program, "template", release, str(CHART), "--namespace", namespace, "--kube-version=1.36"]
    sets = [f"--set={value}" for value in values]
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


def test_a_namespaced_install_has_the_same_rules_there_and_no_rights_elsewhere() -> None:
    everywhere = rendered()["ClusterRole", "", "quiesce"]["rules"]
    found = rendered("watchNamespaces={shop,billing}")
    roles = {key: m["rules"] for key, m in found.items() if key[0] == "Role" and key[1] != "quiesce-system"}
    assert set(roles) == {("Role", there, "quiesce-quiesce-system") for there in ("shop", "billing")}
    assert all(rules == everywhere for rules in roles.values())
    assert {kind for kind, namespace, _ in found if not namespace} == CLUSTER_SCOPED - {
        "ClusterRole",
        "ClusterRoleBinding",
    }
    assert not [key for key in rendered("watchNamespaces={shop}", "admissionPolicy.enabled=false") if not key[1]]
    for pod in pod_specs(found).values():
        assert {"--namespace=shop", "--namespace=billing"} <= set(pod["containers"][0]["args"])
    binding = found["ValidatingAdmissionPolicyBinding", "", "quiesce-quiesce-system-annotations"]["spec"]
    where = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "billing"]}
    assert binding["matchResources"]["namespaceSelector"] == {"matchExpressions": [where]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("quiesce", "team-a"), ("quiesce", "team-b"), id="of one name in two namespaces"),
        pytest.param(("blue", "team-a"), ("green", "team-a"), id="of two names in one namespace"),
    ],
)
def test_two_namespaced_releases_share_no_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    def keys(release: str, namespace: str, watched: str) -> set[Name]:
        return set(rendered(f"watchNamespaces={{{watched}}}", release=release, namespace=namespace))

    assert not keys(*one, "shop") & keys(*other, "billing")


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
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, field: str) -> None:
    done = helm(value)
    assert done.returncode != 0
    assert field in done.stderr


def test_every_value_is_in_the_schema_and_in_the_docs() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    listed = set(re.findall(r"^\| `([A-Za-z.]+)", (PROJECT / "docs" / "install.md").read_text(), re.MULTILINE))
    leaves = {
        f"{name}.{part}" if isinstance(value, dict) and value and name != "resources" else name
        for name, value in values.items()
        for part in (value if isinstance(value, dict) and value and name != "resources" else [""])
    }
    assert listed == leaves
