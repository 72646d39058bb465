"""What the API server says to all that the chart renders, in a namespace with the strictest level of Pod Security."""

import subprocess
from pathlib import Path

import pykube
import pytest

from tests.api.conftest import IMAGE

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("values", [[], ["watchNamespaces={%s}", "replicas=2"]], ids=["all namespaces", "chosen ones"])
def test_the_api_server_takes_the_chart_without_a_warning(
    api: pykube.HTTPClient, namespace: str, values: list[str]
) -> None:
    kubectl = ("kubectl", "--namespace", namespace)
    level = "pod-security.kubernetes.io/enforce=restricted"
    subprocess.run([*kubectl, "label", "namespace", namespace, level], check=True)
    major, minor = api.version
    chart = ["template", "apitest", str(PROJECT / "charts" / "quiesce"), f"--kube-version={major}.{minor}"]
    sets = [f"--set={value.replace('%s', namespace)}" for value in (IMAGE, *values)]
    rendered = subprocess.run(["helm", *chart, "--namespace", namespace, *sets], capture_output=True, check=True)
    done = subprocess.run(
        [*kubectl, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"],
        input=rendered.stdout,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "job.batch/apitest-quiesce-cleanup" in done.stdout.decode()
