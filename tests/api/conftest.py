"""The API server that KUBECONFIG names, this project's CRDs and admission policy in it, and a namespace per test.

Nearly all requests are dry runs: admission, validation and defaults are real, and no operator gets to see anything.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pykube
import pytest

from quiesce.model import names
from tests.cluster import access

PROJECT = Path(__file__).parents[2]
POLICY = "quiesce-annotations"
IMAGE = "image.repository=registry.example/quiesce"  # the chart has no default
# The API server compiles changed policies once a second.
POLICY_DELAY_SECONDS = 2.0


@pytest.fixture(scope="session")
def api() -> pykube.HTTPClient:
    chosen = os.environ.get("KUBECONFIG")
    if not chosen:
        pytest.skip("KUBECONFIG is not set")
    if Path(chosen) != access.kubeconfig():
        pytest.fail(f"KUBECONFIG is {chosen}, which is not the cluster of the tests. CLUSTER=current allows it.")
    return access.client(Path(chosen))


@pytest.fixture(scope="session")
def dry(api: pykube.HTTPClient) -> pykube.HTTPClient:
    """A client whose requests are all dry runs."""
    return pykube.HTTPClient(api.config, timeout=30, dry_run=True)


@pytest.fixture(scope="session")
def installed(api: pykube.HTTPClient) -> Iterator[None]:
    """The CRDs and the policy of this working tree, also where an earlier run or a release left others.

    Not server-side: that would add to the lists that a release owns, and never take anything out of them.
    """
    crds = str(PROJECT / "crds")
    _kubectl("apply", "--filename", crds)
    _kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", crds)
    policies = pykube.object_factory(api, "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")
    was_there = policies(api, {"metadata": {"name": POLICY}}).exists()
    policy = _rendered_policy(api)
    _kubectl("apply", "--filename", "-", text=policy)
    time.sleep(POLICY_DELAY_SECONDS)
    yield
    if not was_there:  # otherwise, `helm install` fails because of it
        _kubectl("delete", "--filename", "-", text=policy)


@pytest.fixture
def namespace(api: pykube.HTTPClient, installed: None) -> Iterator[str]:  # noqa: ARG001
    made = pykube.Namespace(api, {"metadata": {"name": f"api-{secrets.token_hex(4)}"}})
    made.create()
    yield made.name
    made.delete()


@pytest.fixture
def manifest(namespace: str) -> Callable[[str], dict[str, object]]:
    """The smallest valid manifest of a kind."""
    server = {
        "admin": {"port": "management", "credentialsSecretRef": {"name": "admin"}},
        "template": {"spec": {"containers": [{"name": "server", "image": "server"}]}},
    }
    specs: dict[str, object] = {"AppServer": server, "ServerGroup": {"replicas": 0, "template": {"spec": server}}}

    def make(kind: str) -> dict[str, object]:
        metadata = {"name": "shop", "namespace": namespace}
        return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": specs[kind]}

    return make


def _rendered_policy(api: pykube.HTTPClient) -> str:
    major, minor = api.version
    template = ["template", "quiesce", str(PROJECT / "charts" / "quiesce"), "--kube-version", f"{major}.{minor}"]
    return _run("helm", *template, f"--set={IMAGE}", "--show-only", "templates/admission-policy.yaml")


def _kubectl(*arguments: str, text: str = "") -> str:
    return _run("kubectl", *arguments, text=text)


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
