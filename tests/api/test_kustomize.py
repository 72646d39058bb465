"""The kustomize recipe, as the documentation has it: what kubectl makes of it, and whether the API server takes it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.access import kubeconfig

DOCS = Path(__file__).parents[2] / "docs"
Manifest = dict[str, Any]
# One more reference of each kind than the recipe has.
ELSEWHERE = {
    "serviceAccountName": "shop",
    "imagePullSecrets": [{"name": "shop-admin"}],
    "initContainers": [
        {
            "name": "init",
            "image": "registry.example/shop:1",
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "shop-settings", "key": "LOG_LEVEL"}}}],
            "envFrom": [{"secretRef": {"name": "shop-admin"}}],
        }
    ],
    "volumes": [
        {"name": "settings", "configMap": {"name": "shop-settings"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "shop"}},
        {"name": "both", "projected": {"sources": [{"secret": {"name": "shop-admin"}}]}},
    ],
}
TARGET = {"apiVersion": "quiesce.dev/v1alpha1", "kind": "ServerGroup", "name": "shop"}
OTHERS: list[Manifest] = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}},
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shop"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "shop"},
        "spec": {"scaleTargetRef": TARGET, "maxReplicas": 9},
    },
]
RECOMMENDER = {
    "apiVersion": "autoscaling.k8s.io/v1",
    "kind": "VerticalPodAutoscaler",
    "metadata": {"name": "shop"},
    "spec": {"targetRef": TARGET},
}


def blocks() -> tuple[Manifest, Manifest]:
    """The recipe's kustomization, and its group."""
    page = (DOCS / "recipes.md").read_text()
    section = page[page.index("## kustomize") :]
    kustomization, group = re.findall(r"^```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)[:2]
    return yaml.safe_load(kustomization), yaml.safe_load(group)


def kubectl(*arguments: str, stdin: str = "") -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig()), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Folder:
    """A folder with what a user has who follows the recipe, and more that refers to something."""

    def __init__(self, path: Path, *more: Manifest) -> None:
        self.path = path
        self.kustomization, group = blocks()
        spec = group["spec"]["template"]["spec"]
        spec["template"]["spec"]["volumes"] += ELSEWHERE["volumes"]
        spec["template"]["spec"] |= {key: value for key, value in ELSEWHERE.items() if key != "volumes"}
        solo = {"apiVersion": group["apiVersion"], "kind": "AppServer", "metadata": {"name": "solo"}, "spec": spec}
        self._write("shop.yaml", yaml.safe_dump_all([group, solo, *OTHERS, *more]))
        self._write("quiesce.yaml", (DOCS / "kustomize" / "quiesce.yaml").read_text())
        self._write("admin.env", "username=quiesce\npassword=secret\n")

    def built(self) -> str:
        self._write("kustomization.yaml", yaml.safe_dump(self.kustomization))
        return kubectl("kustomize", str(self.path))

    def manifests(self) -> dict[str, Manifest]:
        return {found["kind"]: found for found in yaml.safe_load_all(self.built())}

    def _write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_names_images_replicas_and_labels_are_changed_where_they_are(tmp_path: Path) -> None:
    found = Folder(tmp_path, RECOMMENDER).manifests()
    settings, secret = found["ConfigMap"]["metadata"]["name"], found["Secret"]["metadata"]["name"]
    assert re.fullmatch(r"test-shop-settings-[a-z0-9]{10}", settings)
    assert secret == "test-shop-admin"
    group = found["ServerGroup"]["spec"]
    assert group["replicas"] == 5
    assert group["template"]["metadata"]["labels"] == {"app": "shop", "team": "web"}
    assert group["template"]["spec"]["suspendTimeoutSeconds"] == 120
    for spec in (group["template"]["spec"], found["AppServer"]["spec"]):
        assert spec["admin"]["credentialsSecretRef"]["name"] == secret
        pod = spec["template"]["spec"]
        (container,), (init,) = pod["containers"], pod["initContainers"]
        admin, own, claim, both = pod["volumes"]
        assert pod["serviceAccountName"] == claim["persistentVolumeClaim"]["claimName"] == "test-shop"
        assert (container["image"], init["image"]) == ("registry.example/shop:2",) * 2
        assert container["envFrom"] == [{"configMapRef": {"name": settings}}]
        assert init["env"][0]["valueFrom"]["configMapKeyRef"]["name"] == settings
        assert init["envFrom"] == [{"secretRef": {"name": secret}}]
        assert pod["imagePullSecrets"] == [{"name": secret}]
        assert (admin["secret"]["secretName"], own["configMap"]["name"]) == (secret, settings)
        assert both["projected"]["sources"] == [{"secret": {"name": secret}}]
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "test-shop"
    assert found["VerticalPodAutoscaler"]["spec"]["targetRef"]["name"] == "test-shop"


def test_other_content_makes_another_template_and_the_same_content_the_same(folder: Folder) -> None:
    before = folder.built()
    assert folder.built() == before
    template = folder.manifests()["ServerGroup"]["spec"]["template"]
    folder.kustomization["configMapGenerator"][0]["literals"] = ["LOG_LEVEL=DEBUG"]
    assert folder.manifests()["ServerGroup"]["spec"]["template"]["spec"]["template"] != template["spec"]["template"]


def test_without_the_configuration_only_images_are_changed(folder: Folder) -> None:
    """What the recipe says; a kustomize that knows more makes the configuration smaller."""
    del folder.kustomization["configurations"], folder.kustomization["replicas"]
    group = folder.manifests()["ServerGroup"]["spec"]
    container = group["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/shop:2"
    assert container["envFrom"] == [{"configMapRef": {"name": "shop-settings"}}]
    assert group["template"]["spec"]["admin"]["credentialsSecretRef"]["name"] == "shop-admin"
    assert group["template"]["metadata"]["labels"] == {"app": "shop"}


def test_the_api_server_takes_what_comes_out(folder: Folder, namespace: str) -> None:
    said = kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", stdin=folder.built())
    assert {line.split()[0] for line in said.splitlines()} >= {
        "servergroup.quiesce.dev/test-shop",
        "appserver.quiesce.dev/test-solo",
    }
