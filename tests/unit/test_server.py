"""One server: from each state to the desired one."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.observation import REPEATED_SECONDS, NodeSays, Notes, Observation, node_says
from quiesce.decide.podspec import build_pod, owner_reference, template_hash
from quiesce.decide.refusal import Refusal
from quiesce.decide.server import decide
from quiesce.decide.status import server_status
from quiesce.model import names
from quiesce.model.objects import (
    Condition,
    Container,
    ContainerPort,
    ContainerState,
    ContainerStatus,
    Metadata,
    Node,
    NodeSpec,
    NodeStatus,
    OwnerReference,
    Pod,
    ReadinessGate,
    Running,
    Taint,
    Waiting,
)
from quiesce.model.plan import (
    Act,
    AddFinalizer,
    AdoptPod,
    CheckTemplate,
    ConsumeAnnotation,
    CreatePod,
    DeletePod,
    LabelPod,
    RemoveFinalizer,
    ResumeServer,
    SetGate,
    Shed,
    StopServer,
    SuspendServer,
    Unshed,
    in_words,
)
from quiesce.model.resources import AppServer, AppServerStatus
from quiesce.model.server import AdminFailure
from quiesce.model.times import moment
from tests.unit.build import (
    CONTAINER,
    NOW,
    drain,
    earlier,
    group,
    look,
    pod,
    report,
    server,
    status,
    stray,
    template,
    with_containers,
)

replace = msgspec.structs.replace

UNREACHABLE = AdminFailure("Unreachable", "connection refused")
UNAUTHORIZED = AdminFailure("Unauthorized", "wrong password")
ADMIN_ONLY = report(active=None, waits_for="running-mode NORMAL; it is ADMIN_ONLY")
OPEN = SetGate(open=True, reason="ServerRuns", served_container=CONTAINER)
CLOSE = SetGate(open=False, reason="ServerNotRunning")
NEW = template("wildfly:2")
CHECKED = Notes(checked_template=template_hash(NEW), checked_at=NOW)


def new(**changes: Any) -> AppServer:
    """One whose container has not served yet."""
    return server(status=status("Starting"), **changes)


def waiting(reason: str, message: str = "") -> Any:
    return pod(gate=False, container=None, served="", waiting=Waiting(reason, message), created_at=NOW - 119)


def init(reason: str) -> ContainerStatus:
    return ContainerStatus("migrate", state=ContainerState(Waiting(reason)))


def behind(seconds: float, *, started: bool = False) -> Any:
    """A pod whose init container has run for so long; one that has started is a sidecar."""
    running = ContainerState(running=Running(moment(NOW - seconds)))
    hangs = ContainerStatus("migrate", "containerd://2", state=running, started=started)
    return pod(served="", gate=False, container=None, init=(hangs,))


def reloading(seconds: float | None) -> AppServer:
    """A server that has served for an hour, and whose status has said for so long that it boots."""
    since = moment(NOW - (3600 if seconds is None else seconds))
    told = Condition("Progressing", "False" if seconds is None else "True", "Booting", "", since)
    return server(status=status("Running" if seconds is None else "Starting", conditions=(told,)))


def restarted(seconds: float, kind: str = "ContainersReady", **changes: Any) -> Any:
    """A pod that has served, and whose containers went so long ago."""
    ended = Condition(kind, "False", last_transition_time=moment(NOW - seconds))
    return pod(container=None, ready=False, waiting=Waiting("ContainerCreating"), conditions=(ended,), **changes)


BOOTS = pod(gate=False, served="", up_for=5)
UNSCHEDULABLE = Condition("PodScheduled", "False", "Unschedulable", "0/2 nodes are available")


@pytest.mark.parametrize(
    ("observation", "state", "act", "stalled"),
    [
        pytest.param(
            look(server(finalizers=(), status=AppServerStatus()), None),
            "Pending",
            AddFinalizer(),
            "",
            id="before anything else, the finalizer",
        ),
        pytest.param(look(new(), None), "Starting", CreatePod(build_pod(new())), "", id="no pod: it is created"),
        pytest.param(look(new(), waiting("ContainerCreating")), "Starting", None, "", id="its container is created"),
        pytest.param(
            look(new(), pod(served="", gate=False, container=None, created_at=NOW - 120)),
            "Pending",
            None,
            "ContainerNotRunning",
            id="for 2 minutes; then it is stalled",
        ),
        pytest.param(
            look(
                new(), pod(served="", gate=False, container=None, created_at=NOW - 1, init=(init("ImagePullBackOff"),))
            ),
            "Pending",
            None,
            "ImagePullBackOff",
            id="an init container's image can't be pulled",
        ),
        pytest.param(
            look(
                new(), pod(served="", gate=False, container=None, created_at=NOW - 1, init=(init("PodInitializing"),))
            ),
            "Starting",
            None,
            "",
            id="an init container that waits for its turn",
        ),
        pytest.param(look(new(), behind(119)), "Starting", None, "", id="an init container may take 2 minutes"),
        pytest.param(
            look(new(), behind(120)), "Pending", None, "InitContainerRunning", id="one that hangs is reported then"
        ),
        pytest.param(
            look(server(), replace(behind(120), metadata=pod(gate=False).metadata)),
            "Pending",
            None,
            "InitContainerRunning",
            id="in a pod that has served, too: its node was started again",
        ),
        pytest.param(
            look(new(), behind(120, started=True)), "Pending", None, "ContainerNotRunning", id="a sidecar runs for ever"
        ),
        pytest.param(
            look(new(), behind(119, started=True)), "Starting", None, "", id="what follows it may take as long"
        ),
        pytest.param(look(new(), BOOTS, UNREACHABLE), "Starting", None, "", id="it does not answer yet"),
        pytest.param(look(new(), BOOTS, report(runs=False)), "Starting", None, "", id="it says that it starts"),
        pytest.param(
            look(new(), pod(gate=False, served="", up_for=599), report(runs=False)),
            "Starting",
            None,
            "",
            id="for 10 minutes: it may deploy large applications",
        ),
        pytest.param(
            look(new(), pod(gate=False, served="", up_for=600), report(runs=False)),
            "Starting",
            None,
            "BootOverdue",
            id="for longer",
        ),
        pytest.param(
            look(reloading(599), pod(ready=False), report(runs=False)),
            "Starting",
            None,
            "",
            id="a reload may take as long",
        ),
        pytest.param(
            look(reloading(600), pod(ready=False), report(runs=False)),
            "Starting",
            None,
            "BootOverdue",
            id="and no longer",
        ),
        pytest.param(
            look(reloading(None), pod(ready=False), report(runs=False)), "Starting", None, "", id="it has just begun"
        ),
        pytest.param(look(new(), BOOTS, ADMIN_ONLY), "Starting", None, "", id="it has booted for administration only"),
        pytest.param(
            look(new(), pod(served="", gate=False, up_for=120), ADMIN_ONLY),
            "Starting",
            None,
            "NotInNormalMode",
            id="and stays that way",
        ),
        pytest.param(
            look(server(), pod(), ADMIN_ONLY),
            "Starting",
            CLOSE,
            "NotInNormalMode",
            id="it was reloaded into a mode in which it accepts no requests",
        ),
        pytest.param(look(new(), BOOTS), "Starting", OPEN, "", id="it runs: the gate opens"),
        pytest.param(
            look(server(), pod(ready=False)),
            "Running",
            None,
            "",
            id="it ran, and its probe says otherwise",
        ),
        pytest.param(
            look(server(status=status("Starting")), pod(ready=False)), "Starting", None, "", id="its probe is awaited"
        ),
        pytest.param(look(), "Running", None, "", id="it serves"),
        pytest.param(
            look(new(), pod(served="", gate=False, up_for=119), UNREACHABLE),
            "Starting",
            None,
            "",
            id="a boot may take 2 minutes",
        ),
        pytest.param(
            look(new(), pod(served="", gate=False, up_for=120), UNREACHABLE),
            "Unknown",
            None,
            "AdminUnreachable",
            id="and is reported then",
        ),
        pytest.param(
            look(new(), BOOTS, UNAUTHORIZED),
            "Unknown",
            None,
            "AdminUnauthorized",
            id="wrong credentials are reported immediately",
        ),
        pytest.param(
            look(server(), pod(), UNAUTHORIZED),
            "Running",
            None,
            "AdminUnauthorized",
            id="a server that serves stays, when only the credentials are wrong",
        ),
        pytest.param(
            look(new(), waiting("CrashLoopBackOff", "back-off 10s")),
            "Pending",
            None,
            "CrashLoopBackOff",
            id="a crash loop",
        ),
        pytest.param(
            look(new(), waiting("ImagePullBackOff")),
            "Pending",
            None,
            "ImagePullBackOff",
            id="an image that can't be pulled",
        ),
        pytest.param(
            look(new(), pod(served="", gate=False, container=None, conditions=(UNSCHEDULABLE,))),
            "Pending",
            None,
            "Unschedulable",
            id="no node for it",
        ),
        pytest.param(
            look(new(), pod(served="", phase="Failed", gate=False, container=None)),
            "Pending",
            DeletePod(),
            "",
            id="an evicted pod is deleted",
        ),
        pytest.param(
            look(new(), pod(served="", owner_uid="someone")),
            "Pending",
            None,
            "NameTaken",
            id="a pod of its name that is not its own",
        ),
        pytest.param(
            look(new(), pod(served="", owner_uid="someone", leaving_for=5)),
            "Pending",
            None,
            "",
            id="one that is about to go is waited for",
        ),
        pytest.param(
            look(new(template={}), None), "Pending", None, "BadTemplate", id="a template that can't be a server"
        ),
    ],
)
def test_the_way_to_service(observation: Observation, state: str, act: Act | None, stalled: str) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act, plan.stalled) == (state, act, stalled)


@pytest.mark.parametrize("served", ["", CONTAINER])
@pytest.mark.parametrize(
    ("asked", "leaving_for", "state", "act"),
    [
        pytest.param({"annotations": {names.SUSPEND: "-1"}}, None, "Starting", None, id="it is being suspended"),
        pytest.param({"desired_state": "Stopped"}, None, "Stopping", DeletePod(), id="it is being stopped"),
        pytest.param({"suspend_timeout_seconds": -1}, 1, "Stopping", StopServer(), id="its pod is deleted"),
    ],
)
def test_a_server_in_admin_only_mode_is_never_resumed_and_holds_up_no_drain(
    asked: dict[str, Any], leaving_for: float | None, state: str, act: Act | None, served: str
) -> None:
    seen = pod(gate=False, served=served, up_for=5, leaving_for=leaving_for)
    for said in (ADMIN_ONLY, replace(ADMIN_ONLY, suspend_state="SUSPENDED")):
        plan = decide(look(server(**asked), seen, said))
        assert (plan.state, plan.act) == (state, act)


RESTARTED = pod(container="containerd://2", ready=False, up_for=1)
OURS = drain(suspending_since=NOW - 5)


@pytest.mark.parametrize(
    ("observation", "state", "act"),
    [
        pytest.param(
            look(server(status=status("Suspended", OURS)), pod(gate=False), report("SUSPENDED", shed=True)),
            "Starting",
            Unshed(),
            id="from Suspended: unshed",
        ),
        pytest.param(
            look(server(status=status("Starting", OURS)), pod(gate=False), report("SUSPENDED")),
            "Starting",
            ResumeServer(),
            id="then resumed",
        ),
        pytest.param(
            look(server(status=status("Starting", OURS)), pod(gate=False)), "Starting", OPEN, id="then the gate opens"
        ),
        pytest.param(
            look(server(status=status("Suspending", OURS)), pod(gate=False), report("SUSPENDING", active=2)),
            "Starting",
            ResumeServer(),
            id="from Suspending as well",
        ),
        pytest.param(
            look(server(status=status("PreSuspend", drain())), pod(gate=False), report(shed=True)),
            "Starting",
            Unshed(),
            id="from PreSuspend: unshed",
        ),
        pytest.param(
            look(server(status=status("PreSuspend", drain())), pod(gate=False)),
            "Starting",
            OPEN,
            id="and the gate opens",
        ),
        pytest.param(
            look(new(), BOOTS, report("SUSPENDED")),
            "Starting",
            ResumeServer(),
            id="a new container that came up suspended",
        ),
        pytest.param(
            look(new(), BOOTS, report(shed=True)), "Starting", Unshed(), id="a new container that came up shed"
        ),
        pytest.param(
            look(server(), RESTARTED, UNREACHABLE), "Starting", CLOSE, id="a restart in place closes the gate first"
        ),
        pytest.param(
            look(server(), pod(container=None, ready=False, created_at=NOW - 119), None),
            "Starting",
            CLOSE,
            id="and so does a container that ended",
        ),
        pytest.param(look(server(), RESTARTED, report(runs=False)), "Starting", CLOSE, id="and one that boots"),
        pytest.param(
            look(server(), pod(container="containerd://2", gate=False)),
            "Starting",
            replace(OPEN, served_container="containerd://2"),
            id="which opens when it runs",
        ),
        pytest.param(
            look(server(status=status("Suspended", OURS)), pod(gate=False), UNAUTHORIZED),
            "Unknown",
            None,
            id="a suspended server that can't be asked stays closed",
        ),
    ],
)
def test_the_way_back(observation: Observation, state: str, act: Act | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == (state, act)


def test_a_server_that_someone_else_suspended_is_left_alone() -> None:
    plan = decide(look(server(), pod(ready=False), report("SUSPENDED")))
    assert (plan.state, plan.act, plan.drifted, plan.stalled) == ("Unknown", None, True, "Drifted")


def test_opening_the_gate_ends_the_drain_that_was_recorded() -> None:
    """A suspend right after it would continue with the old clock, and not close the gate."""
    plan = decide(look(server(status=status("Starting", OURS)), pod(gate=False)))
    assert (plan.act, plan.drain) == (OPEN, None)


def test_a_drain_that_is_called_off_is_accounted_as_aborted() -> None:
    plan = decide(look(server(status=status("Suspending", OURS)), pod(gate=False), report("SUSPENDING", active=2)))
    assert plan.finished is not None
    assert (plan.finished.outcome, plan.finished.active_requests) == ("Aborted", 2)


@pytest.mark.parametrize("stalled", [False, True])
def test_a_surge_pod_that_is_refused_needs_intervention_only_if_the_rollout_needs_it(*, stalled: bool) -> None:
    of = group(2, max_surge=1)
    surge = server("shop-2", of=of, annotations={names.SURGE: "true"})
    create = CreatePod(build_pod(surge, of))
    refusal = Refusal(create, "CreatePodRefused", "exceeded quota", NOW + 5, count=4, since=NOW - 60)
    seen = look(surge, None, None, notes=Notes(refusal=refusal), group=of)
    o = replace(seen, is_dispensable=not stalled)
    plan = decide(o)
    assert plan.wake == 5
    told = server_status(o, plan)
    assert [c.message for c in told.conditions if c.type == "Progressing"] == ["exceeded quota"]
    assert (told.holding("Stalled") is not None, told.holding("Reconciling") is not None) == (stalled, not stalled)
    # It can change with the group.
    later = replace(seen, server=replace(surge, status=told), is_dispensable=stalled)
    assert (server_status(later, decide(later)).holding("Stalled") is None) == stalled


def test_a_request_that_is_set_again_once_it_was_removed_is_another_one() -> None:
    asked = ConsumeAnnotation(names.RESTART, "now")
    notes = Notes(unrecorded=(asked,))
    assert notes.has_taken_up(asked)
    assert not notes.after(asked, None, NOW).has_taken_up(asked)


def named(port: str) -> AppServer:
    users = template()
    users["spec"]["containers"].append({"name": "proxy", "ports": [{"name": "proxy", "containerPort": 9000}]})
    return server(template=users, admin=replace(server().spec.admin, port=port))


@pytest.mark.parametrize("port", ["http", "proxy"])
def test_a_pod_of_another_admin_port_serves_until_it_is_replaced_within_the_budget(port: str) -> None:
    one = named(port)
    proxy, wildfly = Container("proxy", (ContainerPort(9000, "proxy"),)), pod().spec.containers[0]
    at = with_containers(pod(of=one.spec.template), wildfly, proxy)
    checked = Notes(checked_template=template_hash(one.spec.template), checked_at=NOW)
    assert decide(look(one, at)).act == CheckTemplate(build_pod(one), template_hash(one.spec.template))
    waiting = decide(replace(look(one, at, notes=checked), has_room=False))
    assert (waiting.state, waiting.reason, waiting.act) == ("Running", "WaitsForBudget", None)
    plan = decide(look(one, at, notes=checked))
    assert (plan.state, plan.act) == ("PreSuspend", SetGate(open=False, reason="Rollout", served_container=CONTAINER))
    assert "the admin port has changed" in plan.message
    booting = with_containers(pod(of=one.spec.template, gate=False, served=""), wildfly, proxy)
    assert decide(look(one, booting, UNREACHABLE, notes=checked)).act == DeletePod(2)


@pytest.mark.parametrize("at", [pod(), pod(gate=False, ready=False, served="")])
def test_a_pod_of_an_earlier_version_is_not_replaced(at: Pod) -> None:
    plans = [
        decide(look(server(), one, report() if at.holds(names.GATE) else UNREACHABLE)) for one in (at, earlier(at))
    ]
    assert plans[0] == plans[1]
    assert plans[0].act is None


CHECK = CheckTemplate(build_pod(server(template=NEW)), template_hash(NEW))
REFUSED = Notes(refusal=Refusal(CHECK, "CheckTemplateRefused", "no such field", NOW + 5))


def rolling(state: str, suspending_for: float | None = None, **changes: Any) -> AppServer:
    began = None if suspending_for is None else NOW - suspending_for
    return server(template=NEW, status=status(state, drain("Rollout", suspending_since=began), **changes))


@pytest.mark.parametrize(
    ("observation", "state", "act", "stalled"),
    [
        pytest.param(look(server(template=NEW)), "Running", CHECK, "", id="first the new template is tried"),
        pytest.param(
            look(server(template=NEW), notes=REFUSED),
            "Running",
            None,
            "CheckTemplateRefused",
            id="a refused one changes nothing",
        ),
        pytest.param(
            look(server(template=NEW), notes=REFUSED, now=NOW + 5),
            "Running",
            CHECK,
            "CheckTemplateRefused",
            id="and is tried again later",
        ),
        pytest.param(
            look(server(template={})), "Running", None, "BadTemplate", id="one that can't be a server changes nothing"
        ),
        pytest.param(
            look(server(template=NEW), notes=CHECKED),
            "PreSuspend",
            SetGate(open=False, reason="Rollout", served_container=CONTAINER),
            "",
            id="an accepted one drains",
        ),
        pytest.param(
            look(rolling("Suspending", 3), pod(gate=False), report("SUSPENDED"), notes=CHECKED),
            "Stopping",
            DeletePod(),
            "",
            id="then deletes",
        ),
        pytest.param(
            look(rolling("Suspending", 3), pod(gate=False), report(active=1)),
            "Suspending",
            CHECK,
            "",
            id="one that is changed in mid-drain is tried as well, while the drain waits",
        ),
        pytest.param(
            look(rolling("Suspending", 3), pod(gate=False), report("SUSPENDING", active=1), notes=REFUSED),
            "Starting",
            ResumeServer(),
            "CheckTemplateRefused",
            id="and the server returns to service when it is refused",
        ),
        pytest.param(
            look(server(template=NEW, annotations={names.SUSPEND: "true"}, status=status("Running")), notes=REFUSED),
            "PreSuspend",
            SetGate(open=False, reason="Server", served_container=CONTAINER),
            "CheckTemplateRefused",
            id="a suspend is not held up by a refused template",
        ),
        pytest.param(
            look(server(template=NEW, annotations={names.SUSPEND: "true"}, status=status("Running"))),
            "PreSuspend",
            SetGate(open=False, reason="Server", served_container=CONTAINER),
            "",
            id="nor by one that is about to be tried",
        ),
        pytest.param(
            look(
                server(template=NEW, annotations={names.SUSPEND: "true"}, status=status("Suspended", drain())),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            "Suspended",
            CHECK,
            "",
            id="which is tried when there is nothing else to do",
        ),
        pytest.param(
            look(
                server(template=NEW, annotations={names.SUSPEND: "true"}, status=status("Running")),
                notes=Notes(
                    refusal=Refusal(
                        SetGate(open=False, reason="Server", served_container=CONTAINER),
                        "SetGateRefused",
                        "no",
                        NOW + 5,
                    )
                ),
            ),
            "PreSuspend",
            CHECK,
            "SetGateRefused",
            id="or while that is refused",
        ),
        pytest.param(
            look(
                server(template={}, annotations={names.SUSPEND: "true"}, status=status("Suspended", OURS)),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            "Suspended",
            None,
            "BadTemplate",
            id="nor is a suspended server resumed by one",
        ),
        pytest.param(
            look(
                server(template=NEW, annotations={names.SUSPEND: "true"}, status=status("Suspended", OURS)),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            "Suspended",
            CHECK,
            "",
            id="a suspended server's new template is tried too",
        ),
        pytest.param(
            look(new(template=NEW), BOOTS, UNREACHABLE, notes=CHECKED),
            "Stopping",
            DeletePod(2),
            "",
            id="a pod that never served is deleted without a hold",
        ),
        pytest.param(
            look(new(template=NEW), waiting("CrashLoopBackOff"), None, notes=CHECKED),
            "Stopping",
            DeletePod(2),
            "",
            id="a crash loop is fixed by a new template",
        ),
        pytest.param(
            look(server(template=NEW), notes=replace(CHECKED, checked_at=NOW - 10)),
            "Running",
            CHECK,
            "",
            id="one that was accepted a while ago is checked again before anything is deleted",
        ),
        pytest.param(
            look(
                server(template=NEW, status=status("Suspending", drain("Rollout", suspending_since=NOW - 3))),
                pod(gate=False),
                report("SUSPENDING", active=1),
                notes=replace(CHECKED, checked_at=NOW - 10),
            ),
            "Suspending",
            None,
            "",
            id="not while the drain lasts",
        ),
        pytest.param(
            look(
                server(template=NEW, status=status("Suspending", drain("Rollout", suspending_since=NOW - 3))),
                pod(gate=False),
                report("SUSPENDED"),
                notes=replace(CHECKED, checked_at=NOW - 10),
            ),
            "Suspending",
            CHECK,
            "",
            id="but before the pod is deleted",
        ),
        pytest.param(
            look(
                server(template=NEW, status=status("Suspending", drain("Rollout", suspending_since=NOW - 3))),
                pod(gate=False),
                report("SUSPENDED"),
                notes=CHECKED.after(CHECK, Refusal(CHECK, "CheckTemplateRefused", "full", NOW + 5), NOW),
            ),
            "Starting",
            ResumeServer(),
            "CheckTemplateRefused",
            id="a server whose next pod would no longer be accepted returns to service",
        ),
        pytest.param(
            look(
                server(status=status("Suspending", drain("Rollout", suspending_since=NOW - 3))),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            "Starting",
            ResumeServer(),
            "",
            id="a template that is put back ends the roll",
        ),
    ],
)
def test_a_pod_that_is_out_of_date(observation: Observation, state: str, act: Act | None, stalled: str) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act, plan.stalled) == (state, act, stalled)


@pytest.mark.parametrize(
    ("observation", "state", "act"),
    [
        pytest.param(look(server(deleted=True)), "PreSuspend", DeletePod(), id="removal deletes the pod, which drains"),
        pytest.param(look(server(deleted=True), None), "Stopped", RemoveFinalizer(), id="and lets go when it is gone"),
        pytest.param(
            look(server(deleted=True, finalizers=("example.com/backup",)), None),
            "Stopped",
            None,
            id="once: what others hold it for is theirs",
        ),
        pytest.param(
            look(server(deleted=True, status=status("Starting")), waiting("CrashLoopBackOff"), None),
            "PreSuspend",
            DeletePod(2),
            id="removal of what never served is not held",
        ),
        pytest.param(
            look(server(deleted=True, status=status("Starting")), BOOTS, report(runs=False)),
            "PreSuspend",
            DeletePod(),
            id="removal of what can be asked to stop keeps its grace period",
        ),
        pytest.param(
            look(server(deleted=True), pod(), UNREACHABLE),
            "PreSuspend",
            DeletePod(),
            id="nor of what has served and can't be asked",
        ),
        pytest.param(
            look(server(deleted=True), pod(owner_uid="someone")),
            "Stopped",
            RemoveFinalizer(),
            id="a pod that is not its own is left",
        ),
        pytest.param(
            look(server(desired_state="Stopped")),
            "PreSuspend",
            SetGate(open=False, reason="Stop", served_container=CONTAINER),
            id="a stop drains first",
        ),
        pytest.param(look(server(desired_state="Stopped"), None), "Stopped", None, id="and stays without a pod"),
        pytest.param(
            look(server(desired_state="Running", status=status("Stopped")), None),
            "Starting",
            CreatePod(build_pod(server())),
            id="a stopped server is started again",
        ),
        pytest.param(
            look(server(annotations={names.SUSPEND: "true"}, status=status("Starting")), BOOTS, UNREACHABLE),
            "Starting",
            None,
            id="a server to be suspended boots first",
        ),
    ],
)
def test_removal_and_stop(observation: Observation, state: str, act: Act | None) -> None:
    plan = decide(observation)
    assert (plan.state, plan.act) == (state, act)


def test_restart_makes_the_pod_out_of_date_and_takes_the_key_away() -> None:
    plan = decide(look(server(annotations={names.RESTART: "true"}), pod(uid="pod-1")))
    assert (plan.act, plan.restart_pod_uid) == (ConsumeAnnotation(names.RESTART, "true"), "pod-1")
    asked = server(status=status("Running", restart_pod_uid="pod-1"))
    checked = Notes(checked_template=template_hash(template()), checked_at=NOW)
    assert decide(look(asked, pod(uid="pod-1"), notes=checked)).state == "PreSuspend"
    # Made in the very same second, or by a clock that is behind: it is another pod.
    assert decide(look(asked, pod(uid="pod-2"), notes=checked)).state == "Running"


def owned_by(kind: str, of: Any) -> Any:
    owner = OwnerReference(kind, "shop-0", "yesterday", controller=True)
    return replace(of, metadata=replace(of.metadata, owner_references=(owner,)))


STRAY = stray()
CHECK_OF_OWN = CheckTemplate(build_pod(server()), template_hash(template()))
CHECKED_OWN = Notes(checked_template=template_hash(template()), checked_at=NOW)
ADOPT = AdoptPod(owner_reference(server()))


@pytest.mark.parametrize(
    ("observation", "reason", "act"),
    [
        pytest.param(look(at=pod(owned=False)), "Adopting", ADOPT, id="one that an operator created is adopted"),
        pytest.param(
            look(server(status=AppServerStatus()), pod(owned=False, gate=False, container=None)),
            "Adopting",
            ADOPT,
            id="one of a backup, that has yet to start",
        ),
        pytest.param(
            look(at=pod(owned=False, of=NEW)), "Adopting", ADOPT, id="one that is out of date: it is drained then"
        ),
        pytest.param(
            look(at=pod(owned=False, leaving_for=5)), "Adopting", ADOPT, id="one that leaves: it is drained then"
        ),
        pytest.param(
            look(server(desired_state="Stopped"), pod(owned=False)), "Adopting", ADOPT, id="to be stopped, as well"
        ),
        pytest.param(
            look(server(deleted=True), pod(owned=False)), "Removed", RemoveFinalizer(), id="a removal leaves it alone"
        ),
        pytest.param(
            look(at=owned_by("AppServer", pod(leaving_for=5))),
            "Adopting",
            replace(ADOPT, gone="yesterday"),
            id="one of the server of this name that was here before",
        ),
        pytest.param(look(at=owned_by("AppServer", STRAY)), "NameTaken", None, id="not created by an operator"),
        pytest.param(look(at=owned_by("StatefulSet", pod())), "NameTaken", None, id="one that another owns"),
        pytest.param(look(new(), STRAY), "ReplacesPod", CHECK_OF_OWN, id="any other one: can there be another?"),
        pytest.param(look(new(), STRAY, notes=CHECKED_OWN), "ReplacesPod", DeletePod(), id="then it is replaced"),
        pytest.param(
            replace(look(new(), STRAY, notes=CHECKED_OWN), has_room=False),
            "WaitsForBudget",
            None,
            id="within the budget",
        ),
        pytest.param(
            replace(look(new(), stray(ready=False), notes=CHECKED_OWN), has_room=False),
            "ReplacesPod",
            DeletePod(),
            id="immediately if it does not serve",
        ),
        pytest.param(
            look(new(), STRAY, notes=replace(CHECKED_OWN, checked_at=NOW - 10)),
            "ReplacesPod",
            CHECK_OF_OWN,
            id="not by an answer that is old",
        ),
        pytest.param(
            look(new(), stray(leaving_for=5), notes=CHECKED_OWN), "NameTaken", None, id="its own hook drains it"
        ),
        pytest.param(
            look(server(desired_state="Stopped"), STRAY), "ReplacesPod", DeletePod(), id="of a server to stop"
        ),
        pytest.param(look(server(deleted=True), STRAY), "Removed", RemoveFinalizer(), id="a removal leaves that, too"),
        pytest.param(
            look(server(template={}), STRAY), "ReplacesPod", None, id="it stays where no other can come after it"
        ),
    ],
)
def test_a_pod_without_an_owner(observation: Observation, reason: str, act: Act | None) -> None:
    plan = decide(observation)
    assert (plan.reason, plan.act) == (reason, act)


@pytest.mark.parametrize(
    ("observation", "note"),
    [
        pytest.param(look(server(annotations={names.RESTART: "true"}), None), "no pod", id="restart without a pod"),
        pytest.param(look(server(annotations={names.FORCE: "true"})), "no drain", id="force without a drain"),
        pytest.param(
            look(
                server(annotations={names.FORCE: "true", names.SUSPEND: "true"}, status=status("Suspended", OURS)),
                pod(gate=False),
                report("SUSPENDED"),
            ),
            "no drain",
            id="force when all is drained",
        ),
    ],
)
def test_a_request_with_nothing_to_act_on_says_so(observation: Observation, note: str) -> None:
    plan = decide(observation)
    assert isinstance(plan.act, ConsumeAnnotation)
    assert [n.reason for n in plan.notes] == ["NothingToDo"]
    assert note in plan.notes[0].message
    assert plan.restart_pod_uid is None
    assert plan.drain == observation.server.status.suspend


def test_force_is_recorded_and_removed() -> None:
    one = server(annotations={names.FORCE: "true", names.SUSPEND: "true"}, status=status("Suspending", OURS))
    plan = decide(look(one, pod(gate=False), report("SUSPENDING", active=1)))
    assert plan.act == ConsumeAnnotation(names.FORCE, "true")
    assert plan.drain is not None
    assert plan.drain.forced
    assert (plan.state, plan.notes) == ("Suspending", ())


@pytest.mark.parametrize(
    ("notes", "act", "stalled", "wake"),
    [
        pytest.param(Notes(), OPEN, "", None, id="an act is done"),
        pytest.param(
            Notes(acted=OPEN, acted_at=NOW - 0.4, acted_since=NOW - 0.4), None, "", 0.6, id="not again within a second"
        ),
        pytest.param(
            Notes(acted=OPEN, acted_at=NOW - 1, acted_since=NOW - 1), OPEN, "", None, id="again when it changed nothing"
        ),
        pytest.param(Notes(acted=OPEN, acted_at=NOW - 1, acted_since=NOW - 3), OPEN, "NoEffect", 27, id="and reported"),
        pytest.param(Notes(acted=CLOSE, acted_at=NOW), OPEN, "", None, id="its opposite immediately"),
        pytest.param(
            Notes(refusal=Refusal(OPEN, "SetGateRefused", "denied", NOW + 4)),
            None,
            "SetGateRefused",
            4,
            id="a refused act is reported and waits",
        ),
        pytest.param(
            Notes(refusal=Refusal(OPEN, "SetGateRefused", "denied", NOW)),
            OPEN,
            "SetGateRefused",
            None,
            id="a refused act is tried again",
        ),
        pytest.param(
            Notes(refusal=Refusal(Unshed(), "AdminForbidden", "denied", NOW + 4)),
            OPEN,
            "",
            None,
            id="another act is not held up by it",
        ),
    ],
)
def test_acts_are_paced(notes: Notes, act: Act | None, stalled: str, wake: float | None) -> None:
    plan = decide(look(new(), BOOTS, notes=notes))
    assert (plan.act, plan.stalled) == (act, stalled)
    assert plan.wake == (None if wake is None else pytest.approx(wake))


def test_a_bad_value_is_complained_about_and_changes_nothing() -> None:
    plan = decide(look(server(annotations={names.SUSPEND: "soon"})))
    assert (plan.state, plan.act) == ("Running", None)
    assert [note.reason for note in plan.notes] == ["BadAnnotation"]


def test_notes_of_one_container_do_not_count_for_the_next() -> None:
    notes = Notes(
        container_id="containerd://0", confirmed_at=1, shed_at=1, quiet_since=1, shed_refused="no", acted=OPEN
    )
    o = Observation(NOW, server(), pod=pod(), admin=report(active=2), routes=("shop",), notes=notes).measured()
    assert o.notes == Notes(container_id=CONTAINER)


def test_a_container_that_is_awaited_is_looked_at_when_it_is_overdue() -> None:
    assert decide(look(new(), waiting("ContainerCreating"))).wake == pytest.approx(1)


@pytest.mark.parametrize("kind", ["ContainersReady", "PodReadyToStartContainers"])
@pytest.mark.parametrize("gate", [True, False])
def test_a_container_that_does_not_come_back_in_a_pod_that_has_served_is_reported(kind: str, gate: bool) -> None:
    """For example after its node was started again: the pod's network or a volume is missing."""
    plan = decide(look(server(), restarted(119, kind, gate=gate), None))
    assert (plan.state, plan.stalled) == ("Starting", "")
    assert gate or plan.wake == pytest.approx(1)
    plan = decide(look(server(), restarted(120, kind, gate=gate), None))
    assert (plan.state, plan.stalled) == ("Pending", "ContainerNotRunning")


PORTLESS: dict[str, Any] = {"admin": replace(server().spec.admin, port="nowhere")}
NOWHERE = "spec.admin.port: no container in spec.template has a port named 'nowhere'; existing: ['http', 'management']"


@pytest.mark.parametrize(
    ("observation", "state", "says"),
    [
        pytest.param(look(server(**PORTLESS)), "Running", NOWHERE, id="its own"),
        pytest.param(look(group=group(**PORTLESS)), "Running", f"spec.template.{NOWHERE}", id="its group's"),
        pytest.param(look(group=group(**PORTLESS, deleted=True)), "Running", "", id="a group's without one"),
        pytest.param(
            look(server(**PORTLESS, annotations={names.SUSPEND: "true"}), pod(gate=False), report("SUSPENDED")),
            "Suspended",
            NOWHERE,
            id="of a suspended server",
        ),
        pytest.param(
            look(server(**PORTLESS, desired_state="Stopped")), "PreSuspend", "", id="of one that is being stopped"
        ),
    ],
)
def test_that_no_pod_can_follow_is_reported_while_the_old_one_continues(
    observation: Observation, state: str, says: str
) -> None:
    plan = decide(observation)
    assert (plan.state, plan.stalled) == (state, "BadTemplate" if says else "")
    assert not says or plan.message == says


@pytest.mark.parametrize(
    ("of", "at", "says", "act", "undone"),
    [
        pytest.param(
            server(), pod(), report(), AddFinalizer(), look(server(finalizers=())), id="a `kubectl replace` without it"
        ),
        pytest.param(server(), pod(), report(), OPEN, look(server(), pod(gate=False)), id="someone closes the gate"),
        pytest.param(
            server(),
            pod(gate=False),
            report("RUNNING"),
            ResumeServer(),
            look(server(status=status("Suspended", OURS)), pod(gate=False), report("SUSPENDED")),
            id="someone suspends the server again",
        ),
    ],
)
def test_an_act_that_someone_undoes_was_not_without_effect(
    of: AppServer, at: Any, says: Any, act: Act, undone: Observation
) -> None:
    done = Notes(CONTAINER).after(act, None, NOW - 5)
    seen = look(of, at, says, notes=done, now=NOW - 4).measured().notes
    o = replace(undone, notes=seen).measured()
    plan = decide(o)
    assert (plan.act, plan.stalled) == (act, "")
    again = replace(o, notes=o.notes.after(act, None, NOW), now=NOW + 3).measured()
    assert decide(again).stalled == "NoEffect"


RESTART = ConsumeAnnotation(names.RESTART, "now")
DENIED = Notes(aside=(Refusal(RESTART, "ConsumeAnnotationRefused", "denied", NOW + 9),))


@pytest.mark.parametrize(
    "notes",
    [
        pytest.param(Notes(acted=RESTART, acted_at=NOW - 0.1), id="it was just done, and the watch is behind"),
        pytest.param(DENIED, id="it is refused"),
    ],
)
def test_a_request_that_can_not_be_removed_yet_holds_nothing_up(notes: Notes) -> None:
    both = {names.RESTART: "now", names.SUSPEND: "true"}
    plan = decide(look(server(annotations=both), notes=notes))
    assert (plan.state, plan.act) == ("PreSuspend", SetGate(open=False, reason="Server", served_container=CONTAINER))


def test_and_is_removed_when_it_can_be() -> None:
    plan = decide(look(server(annotations={names.RESTART: "now"}), notes=DENIED, now=NOW + 9))
    assert (plan.act, plan.stalled) == (RESTART, "ConsumeAnnotationRefused")


def test_until_then_it_is_reported_and_waits() -> None:
    plan = decide(look(server(annotations={names.RESTART: "now"}), notes=DENIED))
    assert (plan.state, plan.act, plan.stalled, plan.wake) == ("Running", None, "ConsumeAnnotationRefused", 9)


@pytest.mark.parametrize("now", [NOW, NOW + 9])
def test_a_restart_that_can_not_be_removed_is_no_restart_of_the_next_pod(now: float) -> None:
    one = server(annotations={names.RESTART: "now"}, status=status("Running", restart_pod_uid="pod-shop-0"))
    plan = decide(look(one, pod(uid="second"), notes=DENIED, now=now))
    assert (plan.state, plan.restart_pod_uid) == ("Running", None)


@pytest.mark.parametrize("now", [NOW, NOW + 9])
def test_a_force_that_can_not_be_removed_is_none_of_the_next_drain(now: float) -> None:
    both = {names.FORCE: "now", names.SUSPEND: "true"}
    asked = ConsumeAnnotation(names.FORCE, "now")
    denied = Notes(aside=(Refusal(asked, "ConsumeAnnotationRefused", "denied", NOW + 9),))
    one = server(annotations=both, status=status("Suspending", OURS))
    plan = decide(look(one, pod(gate=False), report(active=1), notes=denied, now=now))
    assert plan.drain is not None
    assert not plan.drain.forced


def test_one_that_someone_else_has_removed_is_forgotten() -> None:
    assert look(server(), notes=DENIED).notes.aside == ()


def test_force_acts_on_a_pod_that_leaves_before_its_drain_is_recorded() -> None:
    one = server(annotations={names.FORCE: "now"})
    plan = decide(look(one, pod(leaving_for=1), report(active=1), routes=("shop",)))
    assert (plan.act, plan.notes) == (ConsumeAnnotation(names.FORCE, "now"), ())
    assert plan.drain is not None
    assert (plan.drain.forced, plan.drain.scope, plan.drain.container_id) == (True, "Deletion", CONTAINER)
    written = server(status=status("Running", plan.drain))
    after = decide(look(written, pod(gate=False, leaving_for=1), report(active=1), routes=("shop",)))
    assert (after.state, after.act) == ("Stopping", StopServer())


def test_force_acts_on_a_suspended_server_that_leaves() -> None:
    one = server(annotations={names.FORCE: "now", names.SUSPEND: "true"}, status=status("Suspended", OURS))
    plan = decide(look(one, pod(gate=False, leaving_for=1), UNAUTHORIZED))
    assert plan.notes == ()
    assert plan.drain is not None
    assert plan.drain.forced


FORCED = server(status=status("Suspending", drain("Deletion", suspending_since=NOW - 1, forced=True)))


@pytest.mark.parametrize(
    ("observation", "act"),
    [
        pytest.param(
            look(new(), pod(served="", leaving_for=1, gate=False), UNREACHABLE),
            DeletePod(2),
            id="nothing to drain, no server to ask",
        ),
        pytest.param(look(new(), pod(served="", leaving_for=1, gate=False, grace=2), UNREACHABLE), None, id="once"),
        pytest.param(
            look(new(), pod(served="", leaving_for=1, gate=False), report()), StopServer(), id="one that can be asked"
        ),
        pytest.param(
            look(FORCED, pod(gate=False, leaving_for=1), UNREACHABLE), DeletePod(2), id="forced, and no server to ask"
        ),
        pytest.param(look(FORCED, pod(gate=False, leaving_for=1, grace=2), UNREACHABLE), None, id="once as well"),
        pytest.param(
            look(server(status=status("Suspending", OURS)), pod(gate=False, leaving_for=1), UNREACHABLE),
            None,
            id="what has served may still have work, even if it can't be queried",
        ),
        pytest.param(
            look(server(status=status("Suspending", OURS)), pod(gate=False, leaving_for=73), UNREACHABLE),
            None,
            id="until the hold is over",
        ),
    ],
)
def test_a_leaving_pod_is_not_held_for_nothing(observation: Observation, act: Act | None) -> None:
    assert decide(observation).act == act


def unready(
    opened_for: float, unready_for: float, *, gates: tuple[str, ...] = (), container_ready: bool = False
) -> Any:
    """A pod whose gate is open, that is not Ready."""
    at = pod(ready=False)
    conditions = (
        Condition("Ready", "False", last_transition_time=moment(NOW - unready_for)),
        Condition(names.GATE, "True", last_transition_time=moment(NOW - opened_for)),
    )
    one = replace(at.status.container_statuses[0], ready=container_ready)
    spec = replace(at.spec, readiness_gates=tuple(ReadinessGate(gate) for gate in (names.GATE, *gates)))
    return replace(at, spec=spec, status=replace(at.status, conditions=conditions, container_statuses=(one,)))


@pytest.mark.parametrize(
    ("state", "at", "says"),
    [
        pytest.param("Starting", unready(119, 300), "", id="a pod has 2 minutes since its gate was opened"),
        pytest.param("Running", unready(300, 119), "", id="and since it was ready"),
        pytest.param("Starting", unready(120, 300), "container wildfly is not ready", id="then its container is named"),
        pytest.param("Running", unready(300, 120), "container wildfly is not ready", id="also when it has served"),
        pytest.param(
            "Starting",
            unready(120, 300, gates=("example.com/warm",), container_ready=True),
            "readiness gate example.com/warm is not True",
            id="or the readiness gate",
        ),
    ],
)
def test_a_server_that_runs_in_a_pod_that_is_not_ready(state: str, at: Any, says: str) -> None:
    plan = decide(look(server(status=status(state)), at))
    assert (plan.state, plan.act, plan.reason) == (state, None, "PodNotReady")
    assert plan.stalled == ("PodNotReady" if says else "")
    assert says in plan.message
    assert plan.wake == (None if says else 1)


def overdue(seconds_over: float = 10, **changes: Any) -> Any:
    """A pod that should be gone since then."""
    at = pod(leaving_for=107 + seconds_over, gate=False, **changes)
    return replace(at, spec=replace(at.spec, node_name="node-2"))


def node(ready: str = "Unknown", *taints: str) -> Node:
    conditions = (Condition("Ready", ready),)
    return Node(Metadata("node-2"), NodeSpec(tuple(Taint(key) for key in taints)), NodeStatus(conditions=conditions))


def not_gone(at: Any, admin: Any, known: NodeSays | None) -> Observation:
    return replace(look(server(status=status("Stopping")), at, admin), node=known)


OUT_OF_SERVICE = node("Unknown", "example.com/gpu", "node.kubernetes.io/out-of-service")
SILENT = node("Unknown", "node.kubernetes.io/unreachable")


@pytest.mark.parametrize(
    ("observation", "act", "stalled", "says"),
    [
        pytest.param(not_gone(overdue(9), UNREACHABLE, None), None, "", "stopping", id="the kubelet has a few seconds"),
        pytest.param(
            not_gone(overdue(), UNREACHABLE, node_says(None)),
            DeletePod(0),
            "",
            "no longer exists",
            id="its node is deleted",
        ),
        pytest.param(
            not_gone(overdue(container=None), None, node_says(None)),
            DeletePod(0),
            "",
            "no longer exists",
            id="so is that of one that has ended",
        ),
        pytest.param(
            not_gone(overdue(), UNREACHABLE, node_says(OUT_OF_SERVICE)),
            DeletePod(0),
            "",
            "out-of-service",
            id="its node is out of service",
        ),
        pytest.param(
            not_gone(overdue(), UNREACHABLE, node_says(SILENT)),
            None,
            "NodeLost",
            "node node-2 does not respond",
            id="a node that is silent may run it",
        ),
        pytest.param(
            not_gone(overdue(-50), UNREACHABLE, node_says(SILENT)),
            None,
            "NodeLost",
            "node node-2 does not respond",
            id="and it is reported before the time is over",
        ),
        pytest.param(
            not_gone(overdue(-50), UNREACHABLE, node_says(OUT_OF_SERVICE)),
            DeletePod(0),
            "",
            "out-of-service",
            id="one that is certainly off is believed immediately",
        ),
        pytest.param(
            not_gone(overdue(-50), UNREACHABLE, node_says(node("True"))),
            None,
            "",
            "",
            id="one that is Ready has time",
        ),
        pytest.param(
            not_gone(overdue(), UNREACHABLE, node_says(node("True"))),
            None,
            "DeletionOverdue",
            "is Ready",
            id="so may one that answers",
        ),
        pytest.param(
            not_gone(overdue(), UNREACHABLE, None), None, "NodeLost", "not allowed", id="or one that can't be looked at"
        ),
        pytest.param(
            not_gone(overdue(), report("SUSPENDED"), node_says(None)),
            StopServer(),
            "",
            "stopping",
            id="a server that responds runs, regardless of its node",
        ),
    ],
)
def test_a_pod_that_does_not_go(observation: Observation, act: Act | None, stalled: str, says: str) -> None:
    plan = decide(observation)
    assert (plan.act, plan.stalled) == (act, stalled)
    assert plan.state == "Stopping" or observation.overdue_in > 0
    assert says in plan.message


def test_a_pod_that_leaves_is_looked_at_when_it_should_be_gone() -> None:
    assert decide(not_gone(overdue(-90, container=None), None, None)).wake == 100


def test_a_pod_that_is_held_by_its_finalizers() -> None:
    at = overdue(container=None)
    at = replace(at, metadata=replace(at.metadata, finalizers=("example.com/backup",)))
    plan = decide(replace(look(server(status=status("Stopping")), at, None), node=node_says(node("True"))))
    assert (plan.act, plan.stalled) == (None, "DeletionOverdue")
    assert "example.com/backup" in plan.message


def test_a_server_that_answers_and_does_not_end_is_reported() -> None:
    stopped = Notes(acted=StopServer(), acted_at=NOW - 60)
    o = look(server(status=status("Stopping")), overdue(), report("SUSPENDED"), notes=stopped)
    plan = decide(replace(o, node=node_says(node("True"))))
    assert (plan.act, plan.stalled) == (None, "DeletionOverdue")


@pytest.mark.parametrize("grace", [1, 5, 30])
def test_a_short_grace_period_leaves_time_for_the_stop(grace: int) -> None:
    """The kubelet signals the server at its end; what can be drained before is."""
    reserve = min(5, grace / 2)
    one = server(status=status("PreSuspend", drain("Deletion", since=NOW - 1)))
    early = decide(look(one, pod(leaving_for=grace - reserve - 0.1, grace=grace), report(active=1), routes=("shop",)))
    assert early.state == "PreSuspend"
    late = decide(look(one, pod(leaving_for=grace - reserve, grace=grace), report(active=1), routes=("shop",)))
    assert (late.state, late.act) == ("Stopping", StopServer())
    assert late.finished is not None
    assert late.finished.outcome == "TimedOut"


def test_for_ever_ends_with_the_grace_period_of_the_deletion() -> None:
    one = server(status=status("Suspending", drain("Deletion", suspending_since=NOW - 9)), suspend_timeout_seconds=-1)
    plan = decide(look(one, pod(leaving_for=25, grace=30), report("SUSPENDING", active=1)))
    assert (plan.act, plan.finished.outcome if plan.finished else "") == (StopServer(), "TimedOut")


def test_a_pod_that_was_deleted_by_force_is_recreated() -> None:
    one = server(status=status("Running"))
    plan = decide(look(one, None))
    assert (plan.state, plan.act, plan.stalled) == ("Starting", CreatePod(build_pod(one)), "")


def test_a_server_that_lost_its_finalizer_is_what_it_was() -> None:
    """An uninstall took it away; what is written down of the suspension lets the next operator take it back."""
    suspended = drain(suspending_since=NOW - 590, drained=True)
    one = server(finalizers=(), status=status("Suspended", suspended))
    plan = decide(look(one, pod(gate=False), report("SUSPENDED", shed=True)))
    assert (plan.act, plan.state, plan.drain) == (AddFinalizer(), "Suspended", suspended)


@pytest.mark.parametrize(("age", "act", "wake"), [(10, DeletePod(), None), (4, None, 6), (-99, DeletePod(), None)])
def test_a_pod_that_ended_early_is_not_recreated_immediately(age: float, act: Act | None, wake: float | None) -> None:
    """A node that rejects it may do so again and again."""
    ended = pod(served="", phase="Failed", gate=False, container=None, created_at=NOW - age)
    plan = decide(look(new(), ended))
    assert (plan.act, plan.wake) == (act, wake)


@pytest.mark.parametrize(("ago", "since", "stalled"), [(0.5, 9, "NoEffect"), (0.5, 1, ""), (3600, 3600, "")])
def test_an_act_that_comes_again_after_a_long_time_is_a_new_one(ago: float, since: float, stalled: str) -> None:
    """Someone else has opened a gate again that was closed an hour ago."""
    one = server(annotations={names.SUSPEND: "true"})
    closing = SetGate(open=False, reason="Server", served_container=CONTAINER)
    before = Notes(CONTAINER, acted=closing, acted_at=NOW - ago, acted_since=NOW - since)
    assert decide(look(one, pod(), notes=before)).stalled == stalled
    again = before.after(closing, None, NOW)
    assert again.acted_since == (NOW if ago > REPEATED_SECONDS else NOW - since)


def test_a_request_that_comes_again_is_a_new_one() -> None:
    """The first was removed, and seen to be gone."""
    asked = ConsumeAnnotation(names.FORCE, "true")
    taken = look(server(), notes=Notes(CONTAINER, acted=asked, acted_at=NOW - 5, acted_since=NOW - 5)).measured().notes
    plan = decide(look(server(annotations={names.FORCE: "true"}), notes=taken))
    assert (plan.act, plan.stalled) == (asked, "")


@pytest.mark.parametrize(
    ("one", "at"),
    [
        pytest.param({}, pod(gate=False, leaving_for=1), id="a pod that is deleted"),
        pytest.param({"desired_state": "Stopped"}, pod(gate=False), id="a stop"),
    ],
)
def test_force_is_of_the_end_that_is_seen_with_it(one: dict[str, Any], at: Any) -> None:
    """The server was being suspended; operator and cluster went on without each other for a while."""
    asked = {names.SUSPEND: "-1", names.FORCE: "true"}
    suspending = status("Suspending", drain(suspending_since=NOW - 5))
    plan = decide(look(server(annotations=asked, status=suspending, **one), at, report("SUSPENDING", active=5)))
    assert plan.act == ConsumeAnnotation(names.FORCE, "true")
    told = server(annotations={names.SUSPEND: "-1"}, status=replace(suspending, suspend=plan.drain), **one)
    plan = decide(look(told, at, report("SUSPENDING", active=5)))
    assert isinstance(plan.act, DeletePod | StopServer)
    assert plan.finished
    assert plan.finished.outcome == "Forced"


def test_a_request_that_was_just_removed_and_is_set_again_is_handled_when_it_is_due() -> None:
    asked = ConsumeAnnotation(names.FORCE, "true")
    one = server(annotations={names.FORCE: "true"})
    plan = decide(look(one, notes=Notes(CONTAINER, acted=asked, acted_at=NOW - 0.25, acted_since=NOW - 0.25)))
    assert (plan.act, plan.wake) == (None, 0.75)


def test_of_two_containers_with_the_port_the_first_is_the_server() -> None:
    """As for a Service, and as for the hold."""
    ports = (ContainerPort(9990, "management"),)
    at = pod()
    sidecar = ContainerStatus("sidecar", container_id="containerd://2", state=at.status.container_statuses[0].state)
    at = replace(
        at,
        spec=replace(at.spec, containers=(*at.spec.containers, Container("sidecar", ports))),
        status=replace(at.status, container_statuses=(sidecar, *at.status.container_statuses)),
    )
    found = look(server(), at).container
    assert found
    assert found.container_id == CONTAINER


def labelled(at: Pod, **labels: str) -> Pod:
    """With these labels of quiesce.dev and no other."""
    return replace(at, metadata=replace(at.metadata, labels={f"quiesce.dev/{key}": labels[key] for key in labels}))


BARE = labelled(pod(), managed="true")
MADE_OF = template_hash(template())
LABELS = LabelPod({names.SERVER: "shop-0", names.TEMPLATE_HASH: MADE_OF, names.GATE: "true"})
OF_ANY = {"managed": "true", "server": "shop-0", "template-hash": MADE_OF}
SUSPENDED = server(annotations={names.SUSPEND: "true"}, status=status("Suspended", OURS))


@pytest.mark.parametrize(
    ("one", "at", "notes", "act"),
    [
        pytest.param(server(), BARE, Notes(), LABELS, id="put back"),
        pytest.param(server(), BARE, Notes(labelled_at=NOW - 9), None, id="not again immediately, if it has no effect"),
        pytest.param(
            server(annotations={names.SUSPEND: "true"}),
            BARE,
            Notes(),
            SetGate(open=False, reason="Server", served_container=CONTAINER),
            id="after what is more urgent",
        ),
        pytest.param(
            server(), labelled(pod(), **OF_ANY), Notes(), LabelPod({names.GATE: "true"}), id="from before there was it"
        ),
        pytest.param(
            server(),
            labelled(pod(), **OF_ANY, serving="false"),
            Notes(),
            LabelPod({names.GATE: "true"}),
            id="one that was changed",
        ),
        pytest.param(
            SUSPENDED,
            labelled(pod(gate=False), **OF_ANY, serving="true"),
            Notes(),
            LabelPod({names.GATE: None}),
            id="one that the pod of a suspended server must not have",
        ),
        pytest.param(SUSPENDED, labelled(pod(gate=False), **OF_ANY), Notes(), None, id="and has not"),
        pytest.param(
            server(withdrawal="Termination"),
            labelled(pod(leaving_for=1), **OF_ANY),
            Notes(),
            Shed(),
            id="not of a pod that is being deleted",
        ),
    ],
)
def test_labels_that_are_not_as_they_should_be(one: AppServer, at: Pod, notes: Notes, act: Act | None) -> None:
    admin = report("SUSPENDED") if one is SUSPENDED else report()
    assert decide(look(one, at, admin, notes=notes)).act == act


def test_the_label_of_a_revision_says_what_the_pod_was_made_from_and_not_what_comes_next() -> None:
    at = labelled(pod(), managed="true", server="shop-0", serving="true")
    plan = decide(replace(look(server(template=NEW), at, report(), notes=CHECKED), has_room=False))
    assert plan.reason == "WaitsForBudget"
    assert plan.act == LabelPod({names.TEMPLATE_HASH: MADE_OF})


@pytest.mark.parametrize(
    ("admin", "room", "reason", "act"),
    [
        pytest.param(report("SUSPENDED"), False, "WaitsForBudget", ResumeServer(), id="it returns to service"),
        pytest.param(report("SUSPENDED"), True, "Stopping", DeletePod(), id="where others serve, it is replaced"),
        pytest.param(UNAUTHORIZED, False, "Draining", None, id="and one that can't be asked to go back"),
    ],
)
def test_one_whose_suspension_is_taken_back_is_replaced_within_the_budget(
    admin: Any, room: bool, reason: str, act: Act | None
) -> None:
    suspended = status("Suspended", drain(suspending_since=NOW - 3, drained=True))
    o = look(server(template=NEW, status=suspended), pod(gate=False), admin, notes=CHECKED)
    plan = decide(replace(o, has_room=room))
    assert (plan.reason, plan.act) == (reason, act)


KILLED = look(server(suspend_timeout_seconds=-1), pod(gate=False, up_for=60), report(active=3), killed_at=NOW - 1)


@pytest.mark.parametrize(
    ("o", "act"),
    [
        pytest.param(
            look(server(), pod(up_for=60), killed_at=NOW - 1),
            SetGate(open=False, reason="ContainerRestarted"),
            id="first it leaves its Services",
        ),
        pytest.param(KILLED, StopServer(), id="then it stops immediately, and the hold with it"),
        pytest.param(replace(KILLED, notes=Notes(CONTAINER, acted=StopServer(), acted_at=NOW - 9)), None, id="once"),
        pytest.param(replace(KILLED, admin=UNAUTHORIZED), None, id="one that can't be asked ends by its grace period"),
    ],
)
def test_a_container_that_the_kubelet_restarts_does_not_wait_for_the_hold(o: Observation, act: Act | None) -> None:
    plan = decide(o)
    assert (plan.state, plan.reason, plan.act) == ("Stopping", "ContainerRestarted", act)


@pytest.mark.parametrize(
    "o",
    [
        pytest.param(look(server(), pod(up_for=60), killed_at=NOW - 60), id="it was the container before"),
        pytest.param(look(server(), pod(up_for=900), killed_at=NOW - 600), id="the kubelet has given it up"),
    ],
)
def test_a_restart_of_another_time_takes_nothing_out_of_service(o: Observation) -> None:
    assert (decide(o).state, decide(o).act) == ("Running", None)


def test_a_pod_that_is_deleted_is_drained_whatever_became_of_its_container() -> None:
    plan = decide(look(server(), pod(up_for=60, leaving_for=1), killed_at=NOW - 5))
    assert plan.state == "PreSuspend"


@pytest.mark.parametrize(
    "act",
    [
        AddFinalizer(),
        RemoveFinalizer(),
        ConsumeAnnotation(names.FORCE, "true"),
        CreatePod({}),
        AdoptPod({}),
        OPEN,
        CLOSE,
        Shed(),
        Unshed(),
        SuspendServer(),
        ResumeServer(),
        StopServer(),
        DeletePod(),
    ],
    ids=lambda act: type(act).__name__,
)
def test_a_message_says_what_was_asked_for_and_not_what_the_code_calls_it(act: Act) -> None:
    assert type(act).__name__ not in in_words(act)


def test_an_act_without_an_effect_is_reported_in_words() -> None:
    closing = SetGate(open=False, reason="Server", served_container=CONTAINER)
    notes = Notes(CONTAINER, acted=closing, acted_at=NOW - 1, acted_since=NOW - 9)
    plan = decide(look(server(annotations={names.SUSPEND: "true"}), notes=notes))
    accepted = "the request to close the readiness gate quiesce.dev/serving was accepted"
    assert (plan.stalled, plan.message) == ("NoEffect", f"{accepted}, but has had no effect; retrying")


@pytest.mark.parametrize("state", ["Running", "Suspending", "Suspended"])
def test_a_reload_is_overdue_only_after_its_own_ten_minutes(state: str) -> None:
    """Something else has been left to do for an hour by then."""
    told = Condition("Progressing", "True", "WaitsForBudget", "", moment(NOW - 3600))
    one = server(status=status(state, conditions=(told,)))
    reload = look(one, pod(ready=False), report(runs=False))
    assert decide(reload).stalled == ""
    starting = server(status=status("Starting", conditions=(told,)))
    for after, stalled in ((599, ""), (600, "BootOverdue")):
        later = look(starting, pod(ready=False), report(runs=False), notes=reload.notes, now=NOW + after)
        assert decide(later).stalled == stalled
    gone = look(starting, pod(ready=False), UNREACHABLE, notes=reload.notes, now=NOW + 300)
    later = look(starting, pod(ready=False), report(runs=False), notes=gone.notes, now=NOW + 600)
    assert decide(later).stalled == "BootOverdue"
    again = look(starting, pod(ready=False), report(), notes=reload.notes, now=NOW + 500)
    assert again.notes.booting_since is None
