"""The documentation says what the project does: fields, names, reasons, manifests and links are compared."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from quiesce.model import names
from quiesce.model.resources import Outcome, Scope, State, Withdrawal
from quiesce.model.server import FailureKind

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]
REFERENCE, TROUBLESHOOTING = DOCS / "reference.md", DOCS / "troubleshooting.md"
SOURCE = PROJECT / "operator" / "quiesce"
STATUS = SOURCE / "decide" / "status.py"
FACT = 4
Schema = dict[str, Any]

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def crd(plural: str) -> Schema:
    loaded: Schema = yaml.safe_load((PROJECT / "crds" / f"{plural}.yaml").read_text())
    return loaded


CRDS = {found["spec"]["names"]["kind"]: found for found in map(crd, ("appservers", "servergroups"))}


def version(kind: str) -> Schema:
    found: Schema = CRDS[kind]["spec"]["versions"][0]
    return found


def schema_of(kind: str) -> Schema:
    found: Schema = version(kind)["schema"]["openAPIV3Schema"]
    return found


SERVER_SPEC = schema_of("AppServer")["properties"]["spec"]["properties"]


# What a page is made of.


def section(path: Path, title: str) -> str:
    """What stands under a heading of the second level."""
    parts = re.split(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
    return parts[parts.index(title) + 1]


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of each row of the tables whose first column has this title."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif not inside:
            inside = cells[0] == first
        elif not set(cells[0]) <= {"-"}:
            found.append(cells)
    return found


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def blocks(path: Path, *languages: str) -> Iterator[str]:
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL):
        if language in languages:
            yield block


# The reference, and the resources.


def fields(path: str, schema: Schema, required: bool = False) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Each field's path, with its type, default and limits as the reference's tables have them."""
    yield path, (type_of(schema), "required" if required else default_of(schema), limits_of(schema))
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("properties") == SERVER_SPEC:
        return  # a pod template; a server's spec, which has a table of its own
    inner = schema.get("items", schema)
    below = f"{path}[]" if "items" in schema else path
    for name, child in inner.get("properties", {}).items():
        yield from fields(f"{below}.{name}", child, name in inner.get("required", ()))


def type_of(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("format") == "date-time":
        return "time"
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}s"
    if schema["type"] == "object" and "additionalProperties" in schema:
        return f"map of {schema['additionalProperties']['type']}s"
    return str(schema["type"])


def default_of(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None or default == {} else f"`{default}`"


def limits_of(schema: Schema) -> str:
    limits = [", ".join(f"`{value}`" for value in schema.get("enum", ()))]
    for low, high, what in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " keys"),
    ):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            limits.append(f"{least} to {most}{what}")
        elif least is not None or most is not None:
            limits.append(f"{least} or more{what}" if most is None else f"up to {most}{what}")
    return "; ".join(limit for limit in limits if limit)


@pytest.mark.parametrize("kind", CRDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_reference_has_every_field_as_it_is(kind: str, part: str) -> None:
    properties = schema_of(kind)["properties"][part]["properties"]
    required = schema_of(kind)["properties"][part].get("required", ())
    expected = dict(
        field for name, child in properties.items() for field in fields(f"{part}.{name}", child, name in required)
    )
    written = {quoted(row[0])[0]: tuple(row[1:4]) for row in rows(section(REFERENCE, kind), f"field of `{part}`")}
    assert written == expected


@pytest.mark.parametrize("kind", CRDS)
def test_the_reference_has_every_column(kind: str) -> None:
    columns = version(kind)["additionalPrinterColumns"]
    expected = [(f"{c['name']} (wide)" if c.get("priority") else c["name"], f"`{c['jsonPath']}`") for c in columns]
    assert [(row[0], row[1]) for row in rows(section(REFERENCE, kind), "column")] == expected


def constants() -> set[str]:
    return {value for value in vars(names).values() if isinstance(value, str) and value.startswith(f"{names.GROUP}/")}


def test_the_reference_has_every_name() -> None:
    assert constants() - {names.API_VERSION} <= set(quoted(REFERENCE.read_text()))


@page
def test_no_page_has_a_name_that_does_not_exist(page: Path) -> None:
    found = set(re.findall(rf"(?<![\w.]){re.escape(names.GROUP)}/[a-z0-9-]*[a-z0-9]", page.read_text()))
    assert found <= constants() | {f"{names.GROUP}/operator"}


def conditions() -> set[str]:
    """The types in the facts that the statuses are made of: (type, status, reason, message)."""
    tuples = (node for node in ast.walk(ast.parse(STATUS.read_text())) if isinstance(node, ast.Tuple))
    firsts = (node.elts[0] for node in tuples if len(node.elts) == FACT)
    return {first.value for first in firsts if isinstance(first, ast.Constant) and isinstance(first.value, str)}


CONDITIONS = conditions()


@pytest.mark.parametrize(
    ("title", "values"),
    [
        ("state", get_args(State)),
        ("scope", get_args(Scope)),
        ("outcome", get_args(Outcome)),
        ("condition", CONDITIONS),
    ],
)
def test_the_reference_has_every_value(title: str, values: Iterable[str]) -> None:
    written = [name for row in rows(section(REFERENCE, "States, scopes, conditions"), title) for name in quoted(row[0])]
    assert sorted(written) == sorted(values)


# Troubleshooting, and the reasons that the code can write.

CAMEL = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
# Words in the decisions and the loop that are no reasons: of Kubernetes, types, quantities and scopes of quotas, and a
# reason that is always replaced.
OTHERS = {
    *("AppServer", "ServerGroup", "Pod", "Service", "Event", "PodDisruptionBudget", "Normal", "Warning"),
    *("True", "False", "None", "Succeeded", "Failed", "ContainerCreating", "PodInitializing", "PodScheduled"),
    *("ContainersReady", "PodReadyToStartContainers"),
    *("Managed", "AlwaysAllow", "RunContainerError", "ErrImagePull", "Always", "Report"),
    *("Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "In", "NotIn", "Exists", "DoesNotExist", "PriorityClass"),
    *("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity"),
}
# Reasons that are put together, by what is put together.
COMPOSED = {
    "Admin{}": [f"Admin{kind}" for kind in get_args(FailureKind)],
    "Drain{}": [outcome if outcome == "Drained" else f"Drain{outcome}" for outcome in get_args(Outcome)],
}


def trees(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in sorted((SOURCE / folder).glob("*.py")):
            yield ast.parse(path.read_text())


def literals() -> set[str]:
    """Every word in camel case that a decision or the loop has as a text: reasons, and names of other things."""
    return words(node for tree in trees("decide", "control") for node in ast.walk(tree)) - OTHERS


def words(nodes: Iterable[ast.AST]) -> set[str]:
    """The words among constants; the text around a gap is none."""
    found, pieces = [], set()
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node, node.value))
        if isinstance(node, ast.JoinedStr):
            pieces |= set(node.values)
    return {word for node, word in found if node not in pieces and CAMEL.fullmatch(word)}


def composed() -> set[str]:
    """Texts with a gap that look like a reason."""
    found = set()
    for tree in trees("decide", "control"):
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                shape = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                if re.fullmatch(r"(?:\{\}|[A-Za-z])+", shape) and CAMEL.search(shape):
                    found.add(shape)
    return found


def refusals() -> set[str]:
    """`<Act>Refused` for each act that is carried out for a server."""
    tree = ast.parse((SOURCE / "control" / "servers.py").read_text())
    return {
        f"{node.cls.attr}Refused"
        for node in ast.walk(tree)
        if isinstance(node, ast.MatchClass)
        and isinstance(node.cls, ast.Attribute)
        and isinstance(node.cls.value, ast.Name)
        and node.cls.value.id == "acts"
    }


def reasons() -> set[str]:
    assert composed() == {*COMPOSED, "{}Refused"}, "a reason is put together in a way that this test does not know"
    values = {
        value for kind in (State, Scope, Outcome, FailureKind, Withdrawal) for value in get_args(kind)
    } | CONDITIONS
    plain = literals() - (values - written_as_reasons())
    return plain | refusals() | {reason for some in COMPOSED.values() for reason in some}


def written_as_reasons() -> set[str]:
    """Of words that are states or conditions too, those that a plan, a note or a condition has as its reason."""
    given: list[ast.expr] = []
    for tree in trees("decide"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                position = {"ServerPlan": 1, "Note": 0}.get(node.func.id)
                given += [] if position is None else node.args[position : position + 1]
            if isinstance(node, ast.keyword) and node.arg in ("reason", "stalled"):
                given.append(node.value)
    return words(node for expression in given for node in ast.walk(expression))


def told() -> set[str]:
    return {name for row in rows(TROUBLESHOOTING.read_text(), "reason") for name in quoted(row[0])}


def test_troubleshooting_has_every_reason_that_the_code_can_write_and_no_other() -> None:
    assert told() == reasons()


# Manifests.


def problems(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """What the API server would have against a value, as far as these resources' schemas go."""
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kind = schema.get("type")
    expected = (int, str) if schema.get("x-kubernetes-int-or-string") else kinds.get(kind or "", object)
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean" and kind):
        yield f"{path}: {value!r} is no {kind or 'integer or string'}"
        return
    if value not in schema.get("enum", (value,)):
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"
    if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {value!r} is too short or too long"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, list):
        for item in value:
            yield from problems(item, schema["items"], f"{path}[]")
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, child in value.items():
            if name in properties or others:
                yield from problems(child, properties.get(name, others), f"{path}.{name}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{name} does not exist"


def judged(manifest: Any) -> list[str]:
    schema = schema_of(manifest["kind"])
    metadata = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return list(problems(manifest, {**schema, "properties": {**schema["properties"], "metadata": metadata}}))


@page
def test_manifests_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        for manifest in yaml.safe_load_all(block):
            if manifest.get("apiVersion") == names.API_VERSION:
                assert judged(manifest) == [], block
            elif "spec" in manifest:
                assert {"apiVersion", "kind", "metadata"} <= manifest.keys(), block


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicas": 3}, [".spec.template is missing"]),
        ({"replicas": -1, "template": {"spec": None}}, [".spec.replicas: -1", ".spec.template.spec: None"]),
        ({"replica": 1, "template": {}}, [".spec.template.spec is missing", ".spec.replica does not exist"]),
        ({"podDisruptionBudget": "Off", "template": {"spec": {"admin": {}}}}, [".spec.podDisruptionBudget: 'Off'"]),
    ],
)
def test_a_bad_manifest_is_found(spec: Schema, said: list[str]) -> None:
    found = judged({"apiVersion": names.API_VERSION, "kind": "ServerGroup", "metadata": {"name": "shop"}, "spec": spec})
    assert all(any(problem.startswith(words) for problem in found) for words in said), found


# Commands and links.


@page
def test_commands_name_conditions_and_fields_that_exist(page: Path) -> None:
    for command in (line for block in blocks(page, "bash", "console", "") for line in block.splitlines()):
        if not re.search(r"\b(?:aps|sg|appservers?|servergroups?)\b", command):
            continue
        assert set(re.findall(r"--for=condition=(\w+)", command)) <= CONDITIONS, command
        assert set(re.findall(r'@\.type=="(\w+)"', command)) <= CONDITIONS, command
        for path in re.findall(r"\{\.((?:spec|status)[\w.]*)", command):
            known = {name for kind in CRDS for name in paths(kind)}
            assert path in known, command


NOTES = PROJECT / "charts" / "quiesce" / "templates" / "NOTES.txt"


@pytest.mark.parametrize("path", [*PAGES, NOTES], ids=lambda path: path.name)
def test_commands_that_set_an_annotation_name_a_field_manager(path: Path) -> None:
    """Flux takes away what kubectl's own field managers have set; a removal leaves nothing to take away."""
    text = path.read_text().replace("\\\n", " ")
    for command in re.findall(rf"kubectl [^\n`|]*\bannotate [^\n`|]*{re.escape(names.GROUP)}/[\w-]+=[^\n`|]*", text):
        assert re.search(r"--field-manager=(?!kubectl)\w", command), command


def paths(kind: str) -> Iterator[str]:
    for part in ("spec", "status"):
        yield from (path for path, _ in fields(part, schema_of(kind)["properties"][part]))


def anchors(path: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_page_is_on_the_map() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / "README.md").read_text()))
    assert linked == {path.name for path in DOCS.glob("*.md")} - {"README.md"}
