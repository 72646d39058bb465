"""Whether a namespace's quotas leave room for a pod that replaces another.

The API server counts a pod until it is gone, so its verdict on a new one while the old one exists doesn't help. How
a pod is counted: Kubernetes documentation, "Resource Quotas", "Resource sharing within containers" (init containers)
and "Pod Overhead".
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from quiesce.model.objects import QuotaSelector, ResourceQuota

Amounts = Mapping[str, Fraction]
PodSpec = dict[str, Any]

NONE, ONE = Fraction(0), Fraction(1)
SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d{1,3}|[numkMGTPE]?)"
)
# The API server's message for a pod that a quota has no room for.
EXCEEDED = re.compile(r"exceeded quota: (?P<quota>[^,\s]+), requested: (?P<requested>\S+), used: ")
# A pod without any of these has the QoS class BestEffort.
COMPUTE = ("cpu", "memory")


class Swap(msgspec.Struct, frozen=True):
    """A pod that replaces another; `old` is None once that is gone."""

    old: PodSpec | None
    new: PodSpec


def quantity(value: object) -> Fraction:
    """A Kubernetes quantity: `100m`, `1.5Gi`, `2`, `1e3`; null is 0, as for the API server. Raises ValueError."""
    match = QUANTITY.fullmatch("0" if value is None else str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity")
    number, suffix = Fraction(match["number"]), match["suffix"]
    if suffix in BINARY:
        return number * (1 << 10 * BINARY[suffix])
    exponent = SUFFIXES[suffix] if suffix in SUFFIXES else int(suffix[1:])
    return number * (Fraction(10**exponent) if exponent >= 0 else Fraction(1, 10**-exponent))


def shortage(quotas: Iterable[ResourceQuota], swap: Swap, others: Iterable[Swap], refusal: str) -> str:
    """What quotas lack for a swap besides others in progress; empty if each has room for all of them.

    `refusal`: the API server's message if it rejected the new pod while the old one exists. The request in it is more
    accurate: a LimitRange may have added to the pod's own.
    """
    others = tuple(others)
    lacks = [said for quota in quotas for said in _lacks(quota, swap, others, refusal)]
    return "; ".join(lacks)


def _lacks(quota: ResourceQuota, swap: Swap, others: tuple[Swap, ...], refusal: str) -> list[str]:
    used: Amounts = {name: quantity(value) for name, value in quota.status.used.items()}
    for other in (swap, *others):
        used = _sum(used, _counted(quota, other.old), sign=-1)
    used = _most(used, {})  # never negative: an existing pod may not be counted yet
    for other in others:
        used = _sum(used, _counted(quota, other.new))
    wanted = {**_counted(quota, swap.new), **_requested(quota, refusal)}
    return [
        f"quota {quota.metadata.name}: {name}={_written(wanted[name], limit)} is needed, and others use "
        f"{_written(used.get(name, NONE), limit)} of {limit}"
        for name, limit in sorted(quota.status.hard.items())
        if wanted.get(name) and used.get(name, NONE) + wanted[name] > quantity(limit)
    ]


def _requested(quota: ResourceQuota, refusal: str) -> Amounts:
    match = EXCEEDED.search(refusal)
    if match is None or match["quota"] != quota.metadata.name:
        return {}
    pairs = (pair.partition("=") for pair in match["requested"].rstrip(",").split(","))
    return {name: quantity(value) for name, _, value in pairs}


def _written(amount: Fraction, like: str) -> str:
    """In the unit of another quantity."""
    suffix = like.lstrip("+-.0123456789")
    unit = quantity(f"1{suffix}")
    return f"{float(amount / unit):.6g}{suffix}" if amount else "0"


def _counted(quota: ResourceQuota, spec: PodSpec | None) -> Amounts:
    return usage(spec) if spec is not None and _is_in_scope(quota, spec) else {}


def usage(spec: PodSpec) -> Amounts:
    """What a pod uses, by the names of the resources in quotas."""
    requests, limits = _effective(spec, "requests"), _effective(spec, "limits")
    found = {"pods": ONE, "count/pods": ONE}
    for name, amount in requests.items():
        found[name] = found[f"requests.{name}"] = amount
    return found | {f"limits.{name}": amount for name, amount in limits.items()}


def _effective(spec: PodSpec, kind: str) -> Amounts:
    """Init containers run one after the other, alongside the sidecars that were started before them."""
    running: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        peak = _sum(running, _resources(container, kind))
        most = _most(most, peak)
        if container.get("restartPolicy") == "Always":
            running = peak
    for container in spec.get("containers") or ():
        running = _sum(running, _resources(container, kind))
    total = {**_most(running, most), **_resources(spec, kind)}  # pod-level resources override them
    overhead = {name: quantity(value) for name, value in (spec.get("overhead") or {}).items()}
    return _sum(total, {name: value for name, value in overhead.items() if kind == "requests" or name in total})


def _sum(one: Amounts, other: Amounts, sign: int = 1) -> Amounts:
    return {name: one.get(name, NONE) + sign * other.get(name, NONE) for name in {*one, *other}}


def _most(one: Amounts, other: Amounts) -> Amounts:
    """The larger of each two amounts, and never less than zero."""
    return {name: max(one.get(name, NONE), other.get(name, NONE)) for name in {*one, *other}}


def _resources(part: dict[str, Any], kind: str) -> Amounts:
    resources = part.get("resources") or {}
    limits = resources.get("limits") or {}
    own = limits if kind == "limits" else {**limits, **(resources.get("requests") or {})}  # the limit is the default
    return {name: quantity(value) for name, value in own.items()}


def _is_in_scope(quota: ResourceQuota, spec: PodSpec) -> bool:
    selectors = [QuotaSelector(scope) for scope in quota.spec.scopes]
    if quota.spec.scope_selector:
        selectors += quota.spec.scope_selector.match_expressions
    return all(_matches(selector, spec) for selector in selectors)


def _matches(selector: QuotaSelector, spec: PodSpec) -> bool:
    match selector.scope_name:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _is_best_effort(spec)
        case "NotBestEffort":
            return not _is_best_effort(spec)
        case "CrossNamespacePodAffinity":
            terms = _affinity_terms(spec)
            return any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms)
        case "PriorityClass":
            return _selects(selector, spec.get("priorityClassName") or "")
        case _:
            return False  # scopes of volumes


def _selects(selector: QuotaSelector, value: str) -> bool:
    match selector.operator:
        case "In":
            return value in selector.values
        case "NotIn":
            return value not in selector.values
        case "DoesNotExist":
            return not value
        case _:
            return bool(value)


def _is_best_effort(spec: PodSpec) -> bool:
    parts = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return not any(
        _resources(part, kind).get(name) for part in parts for kind in ("requests", "limits") for name in COMPUTE
    )


def _affinity_terms(spec: PodSpec) -> list[dict[str, Any]]:
    affinity = spec.get("affinity") or {}
    terms: list[dict[str, Any]] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [one.get("podAffinityTerm") or {} for one in preferred]
    return terms


def filled(spec: PodSpec, old: PodSpec | None) -> PodSpec:
    """A template's pod as the API server would default it, as far as the previous pod shows.

    A LimitRange, a RuntimeClass and the default PriorityClass fill in what the template omits.
    """
    if old is None:
        return spec
    before = {c.get("name"): c for part in ("initContainers", "containers") for c in old.get(part) or ()}
    given: PodSpec = {key: old[key] for key in ("overhead", "priorityClassName") if key in old}
    containers = {
        part: [_with_resources(c, before.get(c.get("name")) or {}) for c in spec[part]]
        for part in ("initContainers", "containers")
        if spec.get(part)
    }
    return {**given, **spec, **containers}


def _with_resources(container: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    own, others = container.get("resources") or {}, before.get("resources") or {}
    limits = {**(others.get("limits") or {}), **(own.get("limits") or {})}
    requests = {**(others.get("requests") or {}), **(own.get("limits") or {}), **(own.get("requests") or {})}
    return {**container, "resources": {**own, "limits": limits, "requests": requests}}
