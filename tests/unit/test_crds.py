"""The CRDs have the fields of the types that read and write them; a group's template is a server's spec."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from quiesce.model.objects import Condition
from quiesce.model.resources import (
    Admin,
    AppServerSpec,
    AppServerStatus,
    Drain,
    GroupService,
    LastDrain,
    RollingUpdate,
    ServerGroupSpec,
    ServerGroupStatus,
    ServerSays,
    Strategy,
)

ANNOTATIONS_BYTES = 256 * 1024  # of an object, all together
CRDS = Path(__file__).resolve().parents[2] / "crds"


def schema(name: str, path: str) -> dict[str, Any]:
    crd = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in path.split("."):
        found = found["properties"][step] if step != "[]" else found["items"]
    return found


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("appservers", "spec", AppServerSpec),
        ("appservers", "spec.admin", Admin),
        ("appservers", "status", AppServerStatus),
        ("appservers", "status.suspend", Drain),
        ("appservers", "status.lastDrain", LastDrain),
        ("appservers", "status.server", ServerSays),
        ("appservers", "status.conditions.[]", Condition),
        ("servergroups", "spec", ServerGroupSpec),
        ("servergroups", "spec.strategy", Strategy),
        ("servergroups", "spec.strategy.rollingUpdate", RollingUpdate),
        ("servergroups", "spec.service", GroupService),
        ("servergroups", "status", ServerGroupStatus),
        ("servergroups", "status.conditions.[]", Condition),
    ],
)
def test_the_fields_are_the_same(name: str, path: str, kind: type[msgspec.Struct]) -> None:
    assert set(schema(name, path)["properties"]) == set(kind.__struct_encode_fields__)


@pytest.mark.parametrize("name", ["appservers", "servergroups"])
def test_no_field_inside_a_list_has_a_default(name: str) -> None:
    """It would be in the object and not in the manifest, and `kubectl apply` compares lists as wholes."""
    found = {path for path, child in below(schema(name, "spec")) if "[]" in path and "default" in child}
    assert found == set()


def below(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from below(child, f"{path}.{name}")
    if "items" in schema:
        yield from below(schema["items"], f"{path}[]")


@pytest.mark.parametrize("name", ["appservers", "servergroups"])
def test_a_crd_fits_into_the_annotation_of_a_client_side_apply(name: str) -> None:
    crd = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
    assert len(json.dumps(crd)) < ANNOTATIONS_BYTES


def test_the_defaults_are_the_same() -> None:
    properties = schema("appservers", "spec")["properties"]
    spec = msgspec.convert(
        {"admin": {"port": "p", "credentialsSecretRef": {"name": "n"}}, "template": {}}, AppServerSpec
    )
    for field, wire in zip(AppServerSpec.__struct_fields__, AppServerSpec.__struct_encode_fields__, strict=True):
        if "default" in properties[wire]:
            assert getattr(spec, field) == properties[wire]["default"], wire


def test_a_group_makes_servers_of_the_same_schema() -> None:
    assert schema("servergroups", "spec.template.spec")["properties"] == schema("appservers", "spec")["properties"]
