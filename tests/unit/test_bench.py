"""What the benchmark makes of its measurements."""

from collections import Counter
from typing import Any

import pytest

from tests import audit
from tests.bench import report, usage
from tests.cluster.control_plane import OPERATOR
from tests.cluster.load import CLIENTS, Kind, Result
from tests.cluster.paths import PROJECT
from tests.rolls import Roll

BEGIN, END = report.BEGIN.format(report.FIGURES), report.END.format(report.FIGURES)


def entry(verb: str, resource: str, *, second: int = 10, **changes: Any) -> dict[str, Any]:
    name, _, subresource = resource.partition("/")
    return {
        "user": {"username": OPERATOR},
        "verb": verb,
        "requestURI": "/apis/quiesce.dev/v1alpha1/namespaces/n/appservers",
        "requestReceivedTimestamp": f"1970-01-01T00:00:{second:02}.500000Z",
        "objectRef": {"resource": name, **({"subresource": subresource} if subresource else {})},
        **changes,
    }


@pytest.mark.parametrize(
    ("entries", "writes", "dry_runs", "lists"),
    [
        ([entry("patch", "pods/status"), entry("patch", "pods/status")], {"patch pods/status": 2}, {}, {}),
        ([entry("create", "pods"), entry("delete", "pods")], {"create pods": 1, "delete pods": 1}, {}, {}),
        ([entry("create", "pods", requestURI="/api/v1/pods?dryRun=All&x=1")], {}, {"create pods": 1}, {}),
        ([entry("list", "pods")], {}, {}, {"list pods": 1}),
        ([entry("watch", "pods"), entry("get", "pods")], {}, {}, {}),
        ([entry("create", "events"), entry("update", "leases")], {}, {}, {}),
        ([entry("patch", "pods", user={"username": "system:admin"})], {}, {}, {}),
        ([entry("patch", "pods", second=4), entry("patch", "pods", second=20)], {}, {}, {}),
        ([entry("patch", "pods", second=5), entry("patch", "pods", second=19)], {"patch pods": 2}, {}, {}),
        ([{**entry("get", "pods"), "objectRef": None}], {}, {}, {}),
    ],
    ids=["twice", "two", "dry run", "list", "reads", "aside", "somebody else", "outside", "at the edges", "no object"],
)
def test_requests_are_counted_by_what_they_are(
    entries: list[dict[str, Any]], writes: dict[str, int], dry_runs: dict[str, int], lists: dict[str, int]
) -> None:
    assert audit.count(entries, 5.0, 20.0) == audit.Requests(Counter(writes), Counter(dry_runs), Counter(lists))


def test_requests_of_one_namespace_are_counted_where_it_is_named() -> None:
    entries = [entry("create", "pods", objectRef={"resource": "pods", "namespace": name}) for name in ("a", "b", "b")]
    assert audit.count(entries, 5.0, 20.0, "b").writes == {"create pods": 2}


def test_writes_are_reported_for_each_server() -> None:
    counted = audit.Requests(
        Counter({"patch pods/status": 12, "create pods": 3}), Counter({"create pods": 3}), Counter()
    )
    assert report.writes(counted, 3) == {
        "rolled_servers": 3,
        "writes_per_server": 5.0,
        "dry_runs_per_server": 1.0,
        "writes_per_server_by_request": {"create pods": 1.0, "patch pods/status": 4.0},
    }


@pytest.mark.parametrize(("share", "found"), [(0.0, 1), (0.5, 25), (0.95, 48), (1.0, 50)])
def test_a_percentile_is_one_of_the_values(share: float, found: float) -> None:
    assert report.percentile(list(range(50, 0, -1)), share) == found


def roll(seconds: float, failures: int) -> Roll:
    kinds = {client: Kind(100, {200: 100 - failures}, 0, 1) for client in CLIENTS}
    return Roll(seconds, Result(kinds, seconds))


def figures() -> dict[str, Any]:
    measured = {"plain": [roll(40, 2), roll(20, 1), roll(30, 0)], "careful": [roll(75, 1)], "quiesce": [roll(36, 0)]}
    measured["surge"] = [roll(33, 0)]
    return {
        "kubernetes": "1.99.0",
        "machine": "two nodes of one machine with two cores",
        "rolls": report.rolls(measured),
        "suspend": report.suspends([0.5, 1.0, 0.75]),
        "requests": {
            "idle_roll": {"writes_per_server": 8.0, "dry_runs_per_server": 0.0},
            "loaded_rolls": {"writes_per_server": 9.3, "dry_runs_per_server": 1.0},
            "quiet_minute": {"writes": 0, "lists": 7},
        },
        "operator": {
            "quiet_minute": {"working_set_mib": 77.7, "rss_mib": 70.0, "cpu_milliseconds": 60},
            "per_rolled_server": {"idle_cpu_milliseconds": 120, "loaded_cpu_milliseconds": 250},
            "whole_run": {"seconds": 720, "cpu_seconds": 9.1, "highest_working_set_mib": 90.2},
        },
    }


def test_rolls_are_added_up_and_their_median_is_compared_with_the_plain_one() -> None:
    found = figures()["rolls"]
    plain, quiesce = found["plain"], found["quiesce"]
    assert (plain["requests"], plain["failed_requests"]) == (1200, 12)
    assert plain["clients"]["slow"] == {"requests": 300, "failed_requests": 3}
    assert (plain["median_roll_seconds"], plain["median_roll_ratio_to_plain"]) == (30, 1)
    assert (found["careful"]["median_roll_ratio_to_plain"], quiesce["median_roll_ratio_to_plain"]) == (2.5, 1.2)


def test_the_tables_have_every_figure() -> None:
    lines = report.tables(figures()).splitlines()
    assert (
        "| StatefulSet, three times | 1,200 | **12** | 3 of 300 | 3 of 300 | 3 of 300 | 3 of 300 | 30.0 s | 1.00 |"
        in lines
    )
    assert "| Quiesce | 400 | **0** | 0 of 100 | 0 of 100 | 0 of 100 | 0 of 100 | 36.0 s | 1.20 |" in lines
    assert (
        "| Quiesce, `maxSurge: 1` | 400 | **0** | 0 of 100 | 0 of 100 | 0 of 100 | 0 of 100 | 33.0 s | 1.10 |" in lines
    )
    assert "| requests in a quiet minute | 0 writes, 7 lists |" in lines
    assert any("0.75 s at the median of 3 (0.50 to 1.00 s)" in line for line in lines)
    assert any("8.0 idle, 9.3 under load (and dry runs: 0.0, 1.0)" in line for line in lines)
    rows = [line for line in lines if line.startswith("|")]
    assert {row.count("|") for row in rows} == {10, 3}, "every row has as many cells as its table's head"


def test_what_was_not_counted_is_not_reported() -> None:
    assert "writes" not in report.tables({**figures(), "requests": None})


def test_the_block_between_the_comments_is_replaced_and_nothing_else() -> None:
    begin, end = report.BEGIN.format(report.RESULT), report.END.format(report.RESULT)
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    once = report.replaced(text, report.RESULT, "new")
    assert once == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert report.replaced(once, report.RESULT, "new") == once


def test_readme_has_both_blocks() -> None:
    text = (PROJECT / "README.md").read_text()
    for name in (report.RESULT, report.FIGURES):
        assert report.replaced(text, name, "new") != text


def test_the_result_is_what_failed() -> None:
    lines = report.result(figures()).splitlines()
    assert lines[2:] == [
        "| StatefulSet, three times | 1,200 | **12** |",
        "| careful StatefulSet | 400 | **4** |",
        "| Quiesce | 400 | **0** |",
    ]


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_readme_without_the_comments_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"README\.md lacks"):
        report.replaced(text, report.FIGURES, "new")


def test_the_container_is_found_among_all_that_the_node_runs() -> None:
    def pod(namespace: str, name: str, *containers: str) -> dict[str, Any]:
        memory = {"workingSetBytes": 50, "rssBytes": 40}
        found = [{"name": one, "cpu": {"usageCoreNanoSeconds": 2_500_000_000}, "memory": memory} for one in containers]
        return {"podRef": {"namespace": namespace, "name": name}, "containers": found}

    summary = {"pods": [pod("shop", "q-1", "operator"), pod("quiesce-system", "q-1", "proxy", "operator")]}
    assert usage.read(summary, "q-1") == usage.Usage(2.5, 50, 40)
