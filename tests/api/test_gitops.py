"""What a tool that applies from Git removes, what survives it, and what waits for an operator."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pykube
import pytest

from quiesce.model import names
from tests import health
from tests.cluster.access import kubeconfig

Manifest = dict[str, Any]
Make = Callable[[str], Manifest]
FLUX = "kustomize-controller"
# Whose fields Flux takes over before it applies (its kustomize-controller, `Cleanup.FieldManagers`).
TAKEN_OVER = ("kubectl", "before-first-apply")


def kubectl(*arguments: str, stdin: str = "") -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig()), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(manifest: Manifest, manager: str = FLUX) -> None:
    kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        f"--field-manager={manager}",
        "-f",
        "-",
        stdin=json.dumps(manifest),
    )


class Git:
    """One group that is applied again and again, as Flux does it."""

    def __init__(self, api: pykube.HTTPClient, manifest: Manifest) -> None:
        self.manifest = manifest
        self._kind = pykube.object_factory(api, names.API_VERSION, manifest["kind"])
        self._api = api
        self.namespace = manifest["metadata"]["namespace"]
        apply(manifest)

    def reconcile(self) -> None:
        entries = self.live()["metadata"]["managedFields"]
        for entry in entries:
            if entry["manager"].startswith(TAKEN_OVER) and "subresource" not in entry:
                entry |= {"manager": FLUX, "operation": "Apply"}
        merged: dict[tuple[str, str, str], Manifest] = {}
        for entry in entries:
            key = (entry["manager"], entry["operation"], entry.get("subresource", ""))
            merged[key] = (
                entry if key not in merged else {**entry, "fieldsV1": union(merged[key]["fieldsV1"], entry["fieldsV1"])}
            )
        patch = [{"op": "replace", "path": "/metadata/managedFields", "value": list(merged.values())}]
        self.run("patch", "sg/shop", "--type=json", f"--patch={json.dumps(patch)}", f"--field-manager={FLUX}")
        apply(self.manifest)

    def run(self, *arguments: str) -> str:
        return kubectl("-n", self.namespace, *arguments)

    def live(self) -> Manifest:
        found: Manifest = self._kind.objects(self._api, namespace=self.namespace).get_by_name("shop").obj
        return found

    def suspended(self) -> str | None:
        annotations: dict[str, str] = self.live()["metadata"].get("annotations") or {}
        return annotations.get(names.SUSPEND)


def union(one: Manifest, other: Manifest) -> Manifest:
    """Of two sets of fields."""
    shared = {key: union(one[key], other[key]) for key in one.keys() & other.keys()}
    return {**one, **other, **shared}


@pytest.fixture
def git(api: pykube.HTTPClient, manifest: Make) -> Git:
    return Git(api, manifest("ServerGroup"))


@pytest.mark.parametrize("kind", ["AppServer", "ServerGroup"])
def test_an_object_that_no_operator_has_looked_at_is_not_done(
    api: pykube.HTTPClient, manifest: Make, kind: str
) -> None:
    made = pykube.object_factory(api, names.API_VERSION, kind)(api, manifest(kind))
    made.create()  # the answer is of the object as it was stored
    assert made.obj["status"] == {"observedGeneration": -1}
    assert health.kstatus([made.obj]) == ["InProgress"]
    assert health.argo_cd(made.obj)[0] == "Progressing"


@pytest.mark.parametrize(
    ("manager", "left"),
    [
        pytest.param((), None, id="kubectl's own name"),
        pytest.param(("--field-manager=maintenance",), "true", id="the docs' name"),
        pytest.param(("--field-manager=flux-client-side-apply",), "true", id="Flux's own"),
    ],
)
def test_flux_removes_what_kubectl_wrote(git: Git, manager: tuple[str, ...], left: str | None) -> None:
    git.run("annotate", *manager, "sg/shop", f"{names.SUSPEND}=true")
    assert git.suspended() == "true"
    git.reconcile()
    assert git.suspended() == left
    git.run("annotate", "sg/shop", f"{names.SUSPEND}-")
    git.reconcile()
    assert git.suspended() is None


def test_what_git_has_is_set_back(git: Git) -> None:
    git.manifest["metadata"]["annotations"] = {names.SUSPEND: "false"}
    git.reconcile()
    git.run("annotate", "--overwrite", "--field-manager=maintenance", "sg/shop", f"{names.SUSPEND}=true")
    git.reconcile()
    assert git.suspended() == "false"


@pytest.mark.parametrize(
    ("scaled_to", "left"),
    [pytest.param(3, 3, id="an autoscaler owns it too"), pytest.param(None, 1, id="no one else does: the default")],
)
def test_replicas_that_leave_git(git: Git, scaled_to: int | None, left: int) -> None:
    git.manifest["spec"] |= {"replicas": 2, "desiredState": "Stopped"}
    git.reconcile()
    if scaled_to:
        git.run("scale", "sg/shop", f"--replicas={scaled_to}")
    del git.manifest["spec"]["replicas"]
    git.reconcile()
    assert git.live()["spec"]["replicas"] == left
    git.run("scale", "sg/shop", "--replicas=4")
    git.reconcile()
    assert git.live()["spec"]["replicas"] == 4
