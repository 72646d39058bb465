"""How kstatus, Flux and Argo CD read the statuses of each situation: done, on its way, failed, or suspended."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from quiesce.decide.group import decide_group
from quiesce.decide.members import Member
from quiesce.decide.observation import Notes, Observation
from quiesce.decide.podspec import build_pod, template_hash
from quiesce.decide.refusal import Refusal
from quiesce.decide.server import decide
from quiesce.decide.status import group_status, server_status
from quiesce.model import names
from quiesce.model.objects import Condition, Pod, Waiting
from quiesce.model.plan import CreatePod
from quiesce.model.resources import AppServer, AppServerStatus, ServerGroup, ServerGroupStatus
from quiesce.model.server import AdminFailure
from quiesce.model.times import moment
from tests import health
from tests.unit.build import (
    NOW,
    drain,
    group,
    look,
    look_at_group,
    member,
    pod,
    report,
    server,
    status,
    template,
)

replace = msgspec.structs.replace
GITOPS = Path(__file__).parents[2] / "docs" / "gitops.md"

# What each tool says: kstatus (Helm, and Flux by default), Flux with the expressions of the docs, Argo CD.
DONE = ("Current", "Current", "Healthy")
UNDER_WAY = ("InProgress", "InProgress", "Progressing")
FAILED = ("Failed", "Failed", "Degraded")
SUSPENDED = ("InProgress", "Current", "Suspended")
GOING = ("Terminating", "InProgress", "Progressing")


def as_object(one: AppServer | ServerGroup) -> dict[str, Any]:
    """As an API server has it."""
    kind = {"apiVersion": names.API_VERSION, "kind": type(one).__name__}
    found: dict[str, Any] = {**kind, **msgspec.to_builtins(one)}
    found["status"].setdefault("observedGeneration", -1)
    return found


def expressions(kind: str) -> Mapping[str, str]:
    """Flux's healthCheckExprs for a kind, out of the docs."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", GITOPS.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = [found for block in blocks for found in yaml.safe_load_all(block) if "healthCheckExprs" in str(found)]
    (checks,) = [one["spec"]["healthCheckExprs"] for one in found]
    return next(
        {key: check[key] for key in check if key not in ("apiVersion", "kind")}
        for check in checks
        if check["kind"] == kind
    )


def verdicts(one: AppServer | ServerGroup) -> tuple[str, str, str]:
    found = as_object(one)
    (plain,) = health.kstatus([found])
    (flux,) = health.kstatus([found], expressions(type(one).__name__))
    return plain, flux, health.argo_cd(found)[0]


# Servers.


def of_server(o: Observation) -> AppServer:
    return replace(o.server, status=server_status(o, decide(o)))


def newer(one: AppServer) -> AppServer:
    return replace(one, metadata=replace(one.metadata, generation=2), spec=replace(one.spec, template=NEW))


NEW = template("wildfly:2")
SERVES = of_server(look())
SERVED, OUT = pod(), pod(gate=False)
STARTS = pod(gate=False, served="", container=None, created_at=NOW)
BOOTS = server(status=status("Starting"))
RESTARTS = replace(SERVES, status=replace(SERVES.status, restart_pod_uid="pod-shop-0"))
ANNOTATED, KEPT = {names.SUSPEND: "true"}, {names.SUSPEND: "false"}
ASKED = look(replace(SERVES, metadata=replace(SERVES.metadata, annotations={names.RESTART: "true"})))
ACCEPTED = of_server(ASKED)


def unscheduled(seconds: float, reason: str = "Unschedulable") -> Observation:
    since = Condition("PodScheduled", "False", reason, "0/3 nodes are available", moment(NOW - seconds))
    return look(BOOTS, pod(gate=False, served="", container=None, conditions=(since,)), None)


def waiting(reason: str, seconds: float) -> Observation:
    at = pod(gate=False, served="", container=None, created_at=NOW - seconds, waiting=Waiting(reason, "no"))
    return look(BOOTS, at, None)


def refused(seconds: float) -> Observation:
    act = CreatePod(build_pod(BOOTS, None))
    told = Refusal(act, "CreatePodRefused", "no", NOW + 1, since=NOW - seconds)
    return look(BOOTS, None, None, notes=Notes(refusal=told))


def fails(kind: Any, seconds: float, of: AppServer = SERVES, at: Pod = SERVED) -> Observation:
    notes = Notes(silent_since=NOW - seconds, failing_since=NOW - seconds)
    return look(of, at, AdminFailure(kind, "?"), notes=notes)


def drifts(seconds: float) -> Observation:
    since = Condition("Drifted", "True", "Drifted", last_transition_time=moment(NOW - seconds))
    return look(server(status=status("Unknown", conditions=(since,))), pod(), report("SUSPENDED"))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(server(status=AppServerStatus()), UNDER_WAY, id="no operator has looked at it"),
        pytest.param(of_server(look(BOOTS, STARTS, None)), UNDER_WAY, id="it starts"),
        pytest.param(SERVES, DONE, id="it serves"),
        pytest.param(newer(SERVES), UNDER_WAY, id="its template was just changed"),
        pytest.param(of_server(look(newer(SERVES))), UNDER_WAY, id="the API server is asked about the template"),
        pytest.param(
            of_server(look(newer(SERVES), notes=Notes(checked_template=template_hash(NEW), checked_at=NOW))),
            UNDER_WAY,
            id="it is replaced",
        ),
        pytest.param(
            of_server(
                replace(
                    look(newer(SERVES), notes=Notes(checked_template=template_hash(NEW), checked_at=NOW)),
                    has_room=False,
                )
            ),
            UNDER_WAY,
            id="it waits for the budget, and serves",
        ),
        pytest.param(
            of_server(look(RESTARTS, notes=Notes(checked_template=template_hash(template()), checked_at=NOW))),
            UNDER_WAY,
            id="it is restarted",
        ),
        pytest.param(ACCEPTED, UNDER_WAY, id="its restart is recorded"),
        pytest.param(
            of_server(look(ACCEPTED)), UNDER_WAY, id="its restart is recorded, and its annotation still there"
        ),
        pytest.param(
            of_server(look(replace(SERVES, status=ACCEPTED.status))),
            UNDER_WAY,
            id="the API server is asked about the pod of its restart",
        ),
        pytest.param(of_server(look(SERVES, pod(ready=False))), UNDER_WAY, id="its readiness probe fails"),
        pytest.param(of_server(look(server(annotations=ANNOTATED))), UNDER_WAY, id="an annotation drains it"),
        pytest.param(
            of_server(
                look(
                    server(annotations=ANNOTATED, status=status("Suspended", drain(drained=True))),
                    OUT,
                    report("SUSPENDED"),
                )
            ),
            SUSPENDED,
            id="an annotation has suspended it",
        ),
        pytest.param(of_server(look(server(desired_state="Suspended"))), UNDER_WAY, id="its spec drains it"),
        pytest.param(
            of_server(
                look(
                    server(desired_state="Suspended", status=status("Suspended", drain("Spec", drained=True))),
                    OUT,
                    report("SUSPENDED"),
                )
            ),
            DONE,
            id="its spec has suspended it",
        ),
        pytest.param(
            of_server(
                look(
                    server(status=status("Suspended", drain("Spec", drained=True))),
                    OUT,
                    report("SUSPENDED"),
                    group=group(1, desired_state="Suspended"),
                )
            ),
            DONE,
            id="its group's spec has suspended it",
        ),
        pytest.param(
            of_server(
                look(
                    server(
                        desired_state="Suspended",
                        annotations=KEPT,
                        status=status("Suspended", drain("Spec", drained=True)),
                    ),
                    OUT,
                    report("SUSPENDED"),
                )
            ),
            UNDER_WAY,
            id="an annotation brings it back",
        ),
        pytest.param(
            of_server(look(server(desired_state="Suspended", annotations=KEPT))), DONE, id="an annotation has it serve"
        ),
        pytest.param(
            of_server(look(group=group(1, desired_state="Suspended", annotations=KEPT))),
            DONE,
            id="its group's annotation has it serve",
        ),
        pytest.param(of_server(look(server(desired_state="Stopped"))), UNDER_WAY, id="it is stopped"),
        pytest.param(of_server(look(server(desired_state="Stopped"), None, None)), DONE, id="it has been stopped"),
        pytest.param(of_server(look(server(deleted=True))), GOING, id="it is deleted"),
        pytest.param(of_server(unscheduled(119)), UNDER_WAY, id="an autoscaler may add a node"),
        pytest.param(of_server(unscheduled(120)), FAILED, id="none has"),
        pytest.param(of_server(unscheduled(9999, "SchedulingGated")), UNDER_WAY, id="it waits in a queue"),
        pytest.param(of_server(waiting("CrashLoopBackOff", 30)), FAILED, id="its container crashes"),
        pytest.param(of_server(waiting("ErrImagePull", 30)), FAILED, id="its image can't be pulled"),
        pytest.param(of_server(waiting("CreateContainerConfigError", 119)), UNDER_WAY, id="its Secret may be late"),
        pytest.param(of_server(waiting("CreateContainerConfigError", 120)), FAILED, id="its Secret is missing"),
        pytest.param(of_server(refused(9)), UNDER_WAY, id="its pod was refused a moment ago"),
        pytest.param(of_server(refused(10)), FAILED, id="its pod is refused"),
        pytest.param(of_server(fails("Unreachable", 3)), DONE, id="its admin endpoint pauses"),
        pytest.param(of_server(fails("Unreachable", 29)), DONE, id="and serves on"),
        pytest.param(of_server(fails("Unreachable", 30)), FAILED, id="its admin endpoint is gone"),
        pytest.param(of_server(fails("Unauthorized", 29)), DONE, id="its password is rotated"),
        pytest.param(of_server(fails("Unauthorized", 30)), FAILED, id="its password is wrong"),
        pytest.param(of_server(fails("Unexpected", 29, BOOTS, OUT)), UNDER_WAY, id="it answers oddly as it boots"),
        pytest.param(of_server(fails("Unexpected", 30, BOOTS, OUT)), FAILED, id="it keeps answering oddly"),
        *(
            pytest.param(
                of_server(fails(kind, 0, of_server(fails(kind, 30)))),
                FAILED,
                id=f"a new operator asks, and the answer is {kind} as before",
            )
            for kind in ("Unreachable", "Unauthorized")
        ),
        pytest.param(of_server(drifts(29)), UNDER_WAY, id="someone else suspends it for a moment"),
        pytest.param(of_server(drifts(30)), FAILED, id="someone else has suspended it"),
    ],
)
def test_a_server(one: AppServer, expected: tuple[str, str, str]) -> None:
    assert verdicts(one) == expected


# Groups.


def of_group(of: ServerGroup, *members: Member) -> ServerGroup:
    o = look_at_group(of, *members)
    return replace(of, status=group_status(o, decide_group(o)))


def changed(of: ServerGroup, **spec: Any) -> ServerGroup:
    """The same group with a newer spec."""
    return replace(of, metadata=replace(of.metadata, generation=2), spec=replace(of.spec, **spec))


def rolling(*new: int, surge: bool) -> ServerGroup:
    """A group of three that rolls to a new template with a surge; `new` are the ordinals that have it."""
    shop = changed(group(3, max_surge=1, max_unavailable=0, template=NEW), replicas=3)
    old = group(3)
    members = [
        member(n, shop, pod(f"shop-{n}", of=NEW), template=NEW) if n in new else member(n, old) for n in range(3)
    ]
    if surge:
        one = member(3, shop, pod("shop-3", of=NEW), annotations={names.SURGE: "true"}, template=NEW)
        members.append(one)
    return of_group(shop, *members)


def suspended(n: int, of: ServerGroup, **annotations: str) -> Member:
    told = status("Suspended", drain(drained=True))
    return member(n, of, pod(f"shop-{n}", gate=False), status=told, annotations=annotations)


def stopped(n: int, of: ServerGroup, **changes: Any) -> Member:
    return member(n, of, None, status=status("Stopped"), **changes)


def stalled(n: int, of: ServerGroup, generation: int = 1) -> Member:
    condition = Condition("Stalled", "True", "CrashLoopBackOff", "ends again", observed_generation=1)
    one = member(n, of, None, status=status("Pending", conditions=(condition,)))
    return replace(one, server=replace(one.server, metadata=replace(one.server.metadata, generation=generation)))


TWO, NONE = group(2), group(0)
SETTLED = of_group(TWO, member(0, TWO), member(1, TWO))
ASLEEP, STOPPED = group(2, desired_state="Suspended"), group(2, desired_state="Stopped")
PAUSED, AWAKE = group(2, annotations=ANNOTATED), group(2, desired_state="Suspended", annotations=KEPT)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(group(2, status=ServerGroupStatus()), UNDER_WAY, id="no operator has looked at it"),
        pytest.param(of_group(TWO), UNDER_WAY, id="it has no servers yet"),
        pytest.param(of_group(TWO, member(0, TWO)), UNDER_WAY, id="it lacks one"),
        pytest.param(of_group(TWO, member(0, TWO), member(1, TWO, OUT)), UNDER_WAY, id="one starts"),
        pytest.param(SETTLED, DONE, id="all serve"),
        pytest.param(changed(SETTLED, replicas=3), UNDER_WAY, id="its spec was just changed"),
        pytest.param(rolling(surge=False), UNDER_WAY, id="a roll with a surge begins, and all serve"),
        pytest.param(rolling(surge=True), UNDER_WAY, id="the surge serves, and none is replaced"),
        pytest.param(rolling(0, 1, 2, surge=True), UNDER_WAY, id="all are replaced, and the surge is there"),
        pytest.param(rolling(0, 1, 2, surge=False), DONE, id="the surge is gone"),
        pytest.param(
            of_group(TWO, member(0, TWO), member(1, TWO), stopped(2, TWO, desired_state="Stopped")),
            UNDER_WAY,
            id="a server that is too many is stopped, and there",
        ),
        pytest.param(of_group(NONE, member(0, NONE)), UNDER_WAY, id="of no servers, one is there"),
        pytest.param(of_group(NONE), DONE, id="of no servers, none is there"),
        pytest.param(of_group(ASLEEP, member(0, ASLEEP), suspended(1, ASLEEP)), UNDER_WAY, id="its spec drains one"),
        pytest.param(
            of_group(ASLEEP, suspended(0, ASLEEP), suspended(1, ASLEEP)), DONE, id="its spec has suspended all"
        ),
        pytest.param(
            of_group(ASLEEP, suspended(0, ASLEEP), member(1, ASLEEP, annotations=KEPT)),
            DONE,
            id="an annotation has one serve",
        ),
        pytest.param(
            of_group(ASLEEP, suspended(0, ASLEEP), suspended(1, ASLEEP, **KEPT)),
            UNDER_WAY,
            id="an annotation brings one back",
        ),
        pytest.param(of_group(AWAKE, member(0, AWAKE), member(1, AWAKE)), DONE, id="an annotation has all serve"),
        pytest.param(of_group(STOPPED, stopped(0, STOPPED), suspended(1, STOPPED)), UNDER_WAY, id="its spec stops one"),
        pytest.param(of_group(STOPPED, stopped(0, STOPPED), stopped(1, STOPPED)), DONE, id="its spec has stopped all"),
        pytest.param(
            of_group(PAUSED, suspended(0, PAUSED), suspended(1, PAUSED)),
            SUSPENDED,
            id="an annotation has suspended all",
        ),
        pytest.param(
            of_group(TWO, member(0, TWO), suspended(1, TWO, **ANNOTATED)),
            SUSPENDED,
            id="an annotation has suspended one",
        ),
        pytest.param(of_group(TWO, member(0, TWO), stalled(1, TWO)), FAILED, id="one needs help"),
        pytest.param(
            of_group(TWO, member(0, TWO), stalled(1, TWO, generation=2)), UNDER_WAY, id="it has another spec now"
        ),
    ],
)
def test_a_group(one: ServerGroup, expected: tuple[str, str, str]) -> None:
    assert verdicts(one) == expected


@pytest.mark.parametrize("one", [SERVES, SETTLED], ids=["server", "group"])
def test_argo_cd_waits_for_a_status(one: AppServer | ServerGroup) -> None:
    found = as_object(one)
    del found["status"]
    assert health.argo_cd(found)[0] == "Progressing"


def test_argo_cd_says_what_is_wrong() -> None:
    assert health.argo_cd(as_object(of_group(TWO, member(0, TWO), stalled(1, TWO))))[1] == "shop-1: ends again"
