"""The chart says the same as the rest of the project."""

import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
CHART = PROJECT / "charts" / "quiesce"


def test_the_chart_has_the_crds_as_they_are() -> None:
    origin, copy = (
        {file.name: file.read_text() for file in folder.iterdir()} for folder in (PROJECT / "crds", CHART / "crds")
    )
    assert copy == origin, "run `cp crds/*.yaml charts/quiesce/crds/`"


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
