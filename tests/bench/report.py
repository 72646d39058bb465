"""From measurements to figures (the JSON), and from figures to the tables in README.md."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.audit import Requests
from tests.cluster.load import CLIENTS
from tests.rolls import Roll

Figures = Mapping[str, Any]
# README.md has two blocks of figures between such comments: RESULT at its beginning, and all measurements.
BEGIN, END = "<!-- `make bench` writes the {} -->", "<!-- end of the {} -->"
RESULT, FIGURES = "result", "figures"
TITLES = {
    "plain": "StatefulSet",
    "careful": "careful StatefulSet",
    "quiesce": "Quiesce",
    "surge": "Quiesce, `maxSurge: 1`",
}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def in_words(number: int) -> str:
    return WORDS[number] if number < len(WORDS) else str(number)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` of them don't exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rolls(measured: Mapping[str, Sequence[Roll]]) -> dict[str, Any]:
    """Counts over all rollouts of a kind; median times, also as ratios to the plain StatefulSet's."""
    medians = {kind: statistics.median(roll.seconds for roll in found) for kind, found in measured.items()}
    return {
        kind: {
            "rolls": len(found),
            "roll_seconds": [round(roll.seconds, 1) for roll in found],
            "median_roll_seconds": round(medians[kind], 1),
            "median_roll_ratio_to_plain": round(medians[kind] / medians["plain"], 2),
            "requests": sum(roll.load.total for roll in found),
            "failed_requests": sum(roll.load.failed for roll in found),
            "clients": {
                client: {
                    "requests": sum(roll.load.kinds[client].requests for roll in found),
                    "failed_requests": sum(roll.load.kinds[client].failures for roll in found),
                }
                for client in CLIENTS
            },
        }
        for kind, found in measured.items()
    }


def suspends(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "times": len(seconds),
        "min_seconds": round(min(seconds), 2),
        "median_seconds": round(statistics.median(seconds), 2),
        "p95_seconds": round(percentile(seconds, 0.95), 2),
        "max_seconds": round(max(seconds), 2),
    }


def writes(requests: Requests, rolled: int) -> dict[str, Any]:
    """What each replaced server costs the API server."""
    each = {name: round(number / rolled, 2) for name, number in sorted(requests.writes.items())}
    return {
        "rolled_servers": rolled,
        "writes_per_server": round(requests.writes.total() / rolled, 1),
        "dry_runs_per_server": round(requests.dry_runs.total() / rolled, 1),
        "writes_per_server_by_request": each,
    }


def tables(figures: Figures) -> str:
    """The tables in README.md, without a date: every run is as good as any other."""
    return "\n\n".join((_head(figures), _rolls(figures["rolls"]), _operator(figures)))


def result(figures: Figures) -> str:
    """The table at the beginning of README.md."""
    rows: list[Sequence[str]] = [("rolling restart of three WildFly servers under load", "requests", "failed")]
    for kind in ("plain", "careful", "quiesce"):
        one = figures["rolls"][kind]
        rows.append((_title(kind, one), f"{one['requests']:,}", f"**{one['failed_requests']:,}**"))
    return _markdown(rows)


def replaced(text: str, name: str, block: str) -> str:
    """The text, with the block between the two comments of that name replaced."""
    first, last = BEGIN.format(name), END.format(name)
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"README.md lacks the lines that enclose the {name}; restore them: {first} and {last}")
    return f"{before}{first}\n\n{block}\n\n{last}{after}"


def _head(figures: Figures) -> str:
    return f"From one run, with Kubernetes {figures['kubernetes']}, on {figures['machine']}:"


def _rolls(found: Figures) -> str:
    rows: list[Sequence[str]] = [
        (
            "rolling restart of three servers",
            "requests",
            "failed",
            "kept-alive",
            "new conn.",
            "5 s",
            "pausing",
            "rollout",
            "ratio",
        )
    ]
    for kind in TITLES:
        one = found[kind]
        failed = [
            f"{one['clients'][client]['failed_requests']:,} of {one['clients'][client]['requests']:,}"
            for client in CLIENTS
        ]
        seconds, ratio = f"{one['median_roll_seconds']:.1f} s", f"{one['median_roll_ratio_to_plain']:.2f}"
        total = f"**{one['failed_requests']:,}**"
        rows.append((_title(kind, one), f"{one['requests']:,}", total, *failed, seconds, ratio))
    return _markdown(rows)


def _title(kind: str, one: Figures) -> str:
    """More rollouts send more requests."""
    return TITLES[kind] + ("" if one["rolls"] == 1 else f", {in_words(one['rolls'])} times")


def _operator(figures: Figures) -> str:
    suspend, used = figures["suspend"], figures["operator"]
    quiet, server, whole = used["quiet_minute"], used["per_rolled_server"], used["whole_run"]
    took = (
        f"{suspend['median_seconds']:.2f} s at the median of {suspend['times']} ({suspend['min_seconds']:.2f} to "
        f"{suspend['max_seconds']:.2f} s), `kubectl`'s own time included"
    )
    memory = (
        f"{quiet['working_set_mib']:.0f} MiB after a quiet minute, {whole['highest_working_set_mib']:.0f} MiB at most"
    )
    cpu = (
        f"{quiet['cpu_milliseconds']} ms in a quiet minute; {server['idle_cpu_milliseconds']} ms for each server "
        f"replaced idle, {server['loaded_cpu_milliseconds']} ms under load; "
        f"{whole['cpu_seconds']:.1f} s in the whole run of {whole['seconds'] / 60:.0f} minutes"
    )
    return _markdown(
        [
            ("the operator", "measured"),
            ("`kubectl annotate` → Suspended, idle server, `preSuspendSeconds: 0`", took),
            *_asked(figures["requests"]),
            ("memory (working set)", memory),
            ("CPU time", cpu),
        ]
    )


def _asked(requests: Figures | None) -> Sequence[Sequence[str]]:
    if requests is None:
        return ()
    idle, loaded, quiet = requests["idle_roll"], requests["loaded_rolls"], requests["quiet_minute"]
    writes = (
        f"{idle['writes_per_server']:.1f} idle, {loaded['writes_per_server']:.1f} under load "
        f"(and dry runs: {idle['dry_runs_per_server']:.1f}, {loaded['dry_runs_per_server']:.1f})"
    )
    return (
        ("writes for each replaced server, without Events and Leases", writes),
        ("requests in a quiet minute", f"{quiet['writes']} writes, {quiet['lists']} lists"),
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join((lines[0], "|" + "---|" * len(rows[0]), *lines[1:]))
