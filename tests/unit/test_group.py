"""A group: which servers there are, and which of them may be replaced now."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from quiesce.decide.budget import max_surge, max_unavailable
from quiesce.decide.group import GroupObservation, decide_group
from quiesce.decide.members import Member
from quiesce.decide.podspec import template_hash
from quiesce.model import names
from quiesce.model.objects import Condition, Container, ContainerPort
from quiesce.model.plan import Act, ApplyServer, ConsumeAnnotation, DeleteServer
from quiesce.model.resources import SecretRef, ServerGroup, ServerGroupStatus, ServerTemplateMetadata
from quiesce.model.times import moment
from tests.unit.build import (
    NOW,
    applied,
    drain,
    earlier,
    group,
    look_at_group,
    member,
    pod,
    server,
    status,
    template,
    with_containers,
)

replace = msgspec.structs.replace
NEW = template("wildfly:2")
IMAGES = {template_hash(template(f"wildfly:{number}")): str(number) for number in (1, 2, 3)}


def told(acts: tuple[Act, ...]) -> list[str]:
    """Acts in short: which server comes to which image, or to which state."""
    return [_told(act) for act in acts]


def _told(act: Act) -> str:
    match act:
        case ApplyServer(manifest):
            spec = manifest["spec"]
            image = IMAGES.get(template_hash(spec["template"]), "stamped")
            state = [spec["desiredState"]] if spec["desiredState"] != "Running" else []
            surge = ["surge"] if names.SURGE in manifest["metadata"]["annotations"] else []
            return " ".join([manifest["metadata"]["name"], image, *state, *surge])
        case DeleteServer(name, uid):
            return f"delete {name} {uid}"
        case _:
            return type(act).__name__


def serving(of: ServerGroup, *ordinals: int, **changes: Any) -> list[Member]:
    """Members as the group's first template made them."""
    return [member(ordinal, of, **changes) for ordinal in ordinals]


def booting(of: ServerGroup, ordinal: int, **changes: Any) -> Member:
    at = pod(f"shop-{ordinal}", gate=False, ready=False, served="")
    return member(ordinal, of, at, status=status("Starting"), **changes)


def suspended(of: ServerGroup, ordinal: int, **changes: Any) -> Member:
    at = pod(f"shop-{ordinal}", of=changes.get("template"), gate=False, unready_for=3600)
    asked = {names.SUSPEND: "true"}
    return member(ordinal, of, at, annotations=asked, status=status("Suspended", drain(drained=True)), **changes)


def suspended_all(of: ServerGroup, *ordinals: int) -> list[Member]:
    return [suspended(of, ordinal) for ordinal in ordinals]


def failing_new(of: ServerGroup, ordinal: int) -> Member:
    at = pod(f"shop-{ordinal}", of=NEW, gate=False, container=None, served="")
    return member(ordinal, of, at, template=NEW, status=status("Pending"))


def drains_new(of: ServerGroup, ordinal: int) -> Member:
    at = pod(f"shop-{ordinal}", of=NEW, gate=False)
    return member(ordinal, of, at, template=NEW, status=status("Suspending", drain("Server")))


def rolled(of: ServerGroup, ordinal: int) -> Member:
    return member(ordinal, of, pod(f"shop-{ordinal}", of=NEW), template=NEW)


def booting_new(of: ServerGroup, ordinal: int) -> Member:
    at = pod(f"shop-{ordinal}", of=NEW, gate=False, ready=False, served="")
    return member(ordinal, of, at, template=NEW, status=status("Starting"))


def given(of: ServerGroup, ordinal: int) -> Member:
    """Its spec is the new one already, its pod is not."""
    return member(ordinal, of, template=NEW)


def draining(of: ServerGroup, ordinal: int) -> Member:
    return member(ordinal, of, template=NEW, status=status("PreSuspend", drain("Rollout")))


OLD = group(3)
ROLL = group(3, template=NEW)
ROLL2 = group(3, template=NEW, max_unavailable=2)
HALF = group(4, template=NEW, max_unavailable="50%")


@pytest.mark.parametrize(
    ("observation", "acts"),
    [
        pytest.param(look_at_group(OLD), ["shop-0 1", "shop-1 1", "shop-2 1"], id="a new group makes all its servers"),
        pytest.param(look_at_group(OLD, *serving(OLD, 0, 2)), ["shop-1 1"], id="one that is missing is recreated"),
        pytest.param(look_at_group(OLD, *serving(OLD, 0, 1, 2)), [], id="a group that is as it should be rests"),
        pytest.param(look_at_group(ROLL, *serving(OLD, 0, 1, 2)), ["shop-2 2"], id="a rollout starts with the last"),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), given(OLD, 2)), [], id="and waits while the budget is spent"
        ),
        pytest.param(look_at_group(ROLL, *serving(OLD, 0, 1), draining(OLD, 2)), [], id="until the drain is over"),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), rolled(OLD, 2)),
            ["shop-1 2"],
            id="and continues when it serves again",
        ),
        pytest.param(
            look_at_group(ROLL2, *serving(OLD, 0, 1, 2)), ["shop-2 2", "shop-1 2"], id="a budget of 2 takes 2 at once"
        ),
        pytest.param(
            look_at_group(HALF, *serving(OLD, 0, 1, 2, 3)), ["shop-3 2", "shop-2 2"], id="a budget of a half takes half"
        ),
        pytest.param(
            look_at_group(ROLL, booting(OLD, 0), *serving(OLD, 1, 2)),
            ["shop-0 2"],
            id="one that does not serve costs nothing",
        ),
        pytest.param(
            look_at_group(ROLL, booting(OLD, 0), booting(OLD, 1), *serving(OLD, 2)),
            ["shop-1 2", "shop-0 2"],
            id="all that don't serve are replaced immediately, those that do wait",
        ),
        pytest.param(
            look_at_group(group(3, template=template("wildfly:3")), *serving(OLD, 0, 1), draining(OLD, 2)),
            ["shop-2 3"],
            id="a newer template reaches the one that drains, and no other",
        ),
        pytest.param(
            look_at_group(OLD, *serving(OLD, 0, 1), draining(OLD, 2)),
            ["shop-2 1"],
            id="a restored template is applied immediately",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), suspended(OLD, 2)),
            ["shop-2 2"],
            id="a manual suspend uses the budget, and the suspended one is replaced",
        ),
        pytest.param(
            look_at_group(ROLL, *suspended_all(OLD, 0, 1), failing_new(OLD, 2)),
            [],
            id="but not while no server has run with the template: they are what one returns to",
        ),
        pytest.param(
            look_at_group(ROLL, *suspended_all(OLD, 0, 1, 2)),
            ["shop-2 2"],
            id="of servers that are all suspended one proves it",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), member(2, OLD, status=status("PreSuspend", drain("Server")))),
            [],
            id="one that is about to come back is not replaced beyond the budget",
        ),
        pytest.param(
            look_at_group(ROLL, *suspended_all(OLD, 0, 1), rolled(OLD, 2)),
            ["shop-1 2", "shop-0 2"],
            id="and when it has, it is",
        ),
        pytest.param(
            look_at_group(ROLL, *suspended_all(OLD, 0, 1), drains_new(OLD, 2)),
            ["shop-1 2", "shop-0 2"],
            id="also where it is being suspended again",
        ),
        pytest.param(
            look_at_group(ROLL2, *serving(OLD, 0, 1), suspended(OLD, 2, template=NEW)),
            ["shop-1 2"],
            id="what is left of it is used",
        ),
        pytest.param(
            look_at_group(ROLL2, suspended(OLD, 0, template=NEW), suspended(OLD, 1, template=NEW), *serving(OLD, 2)),
            [],
            id="suspends beyond the budget stop the roll",
        ),
        pytest.param(
            look_at_group(group(3, suspend_timeout_seconds=9), *serving(OLD, 0, 1, 2)),
            ["shop-2 1", "shop-1 1", "shop-0 1"],
            id="what is not in the pod's template costs nothing",
        ),
        pytest.param(
            look_at_group(
                group(3, template=NEW, suspend_timeout_seconds=9), *serving(OLD, 0, 1, 2, suspend_timeout_seconds=9)
            ),
            ["shop-2 2"],
            id="beside a roll it is given once",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), member(2, OLD, deleted=True)),
            [],
            id="one that is removed spends the budget",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), member(2, OLD, pod("shop-2", leaving_for=1, ready=False))),
            ["shop-2 2"],
            id="one whose pod is deleted comes back with the new template",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1), member(2, OLD, annotations={names.RESTART: "now"})),
            ["shop-2 2"],
            id="a restart uses the budget from its request, and includes the template",
        ),
        pytest.param(
            look_at_group(
                ROLL, *serving(OLD, 0, 1), member(2, OLD, status=status("Running", restart_pod_uid="pod-shop-2"))
            ),
            ["shop-2 2"],
            id="and when it is written down",
        ),
        pytest.param(
            look_at_group(
                ROLL,
                *serving(OLD, 0, 1),
                member(2, OLD, status=status("PreSuspend", drain("Rollout"), restart_pod_uid="pod-shop-2")),
            ),
            ["shop-2 2"],
            id="one that drains for its restart is replaced only once",
        ),
        pytest.param(
            look_at_group(
                ROLL, *serving(OLD, 0, 1), member(2, OLD, status=status("Running", restart_pod_uid="pod-before"))
            ),
            ["shop-2 2"],
            id="a restart of the pod before this one is over",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, annotations={names.SUSPEND: "true"}), *serving(OLD, 1, 2)),
            [],
            id="a suspend spends the budget from when it is asked for",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, status=status("Unknown")), *serving(OLD, 1, 2)),
            [],
            id="a server of which nothing is known does not count as serving, and may serve",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, pod("shop-0", unready_for=29.9)), *serving(OLD, 1, 2)),
            [],
            id="a slow probe takes no server out: it needs room, too",
        ),
        pytest.param(
            look_at_group(ROLL, *(member(n, OLD, pod(f"shop-{n}", unready_for=1)) for n in range(3))),
            [],
            id="nor do three of them at once",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, pod("shop-0", unready_for=30)), *serving(OLD, 1, 2)),
            ["shop-0 2"],
            id="one that is not ready for 30 s is out",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, pod("shop-0", ready=False)), *serving(OLD, 1, 2)),
            [],
            id="not one whose pod does not say since when",
        ),
        pytest.param(
            look_at_group(
                ROLL, member(0, OLD, pod("shop-0", ready=False, container="containerd://2")), *serving(OLD, 1, 2)
            ),
            ["shop-0 2"],
            id="one whose container is another than the one that served is out",
        ),
        pytest.param(
            look_at_group(ROLL, member(0, OLD, None), *serving(OLD, 1, 2)), ["shop-0 2"], id="one without a pod is out"
        ),
        pytest.param(
            look_at_group(group(1), *serving(OLD, 0, 1, 2)),
            ["shop-1 1 Stopped", "shop-2 1 Stopped"],
            id="a scale-down stops first",
        ),
        pytest.param(
            look_at_group(
                group(2),
                *serving(OLD, 0, 1),
                member(2, OLD, None, desired_state="Stopped", status=status("Stopped")),
            ),
            ["delete shop-2 uid-shop-2"],
            id="and deletes then",
        ),
        pytest.param(
            look_at_group(
                group(2), *serving(OLD, 0, 1), member(2, OLD, None, desired_state="Stopped", status=status("Running"))
            ),
            ["delete shop-2 uid-shop-2"],
            id="whatever the status says, where it can't be written",
        ),
        pytest.param(
            look_at_group(ROLL, *serving(OLD, 0, 1, 2, status=status(None))),
            ["shop-2 2"],
            id="servers whose statuses could never be written roll all the same",
        ),
        pytest.param(
            look_at_group(
                group(2), *serving(OLD, 0, 1), member(2, OLD, desired_state="Stopped", status=status("Suspending"))
            ),
            [],
            id="not while it drains",
        ),
        pytest.param(
            look_at_group(
                OLD, *serving(OLD, 0, 1), member(2, OLD, desired_state="Stopped", status=status("Suspending"))
            ),
            ["shop-2 1"],
            id="a scale-down that is undone is taken back",
        ),
        pytest.param(
            look_at_group(OLD, *serving(OLD, 0, 2), taken=frozenset({"shop-1"})),
            [],
            id="a name that is taken is not touched",
        ),
        pytest.param(look_at_group(group(3, deleted=True)), [], id="a group that is deleted makes nothing"),
        pytest.param(look_at_group(group(0)), [], id="a group of none rests"),
    ],
)
def test_what_a_group_does_now(observation: GroupObservation, acts: list[str]) -> None:
    assert told(decide_group(observation).acts) == acts


def test_a_port_that_is_renamed_goes_with_the_template_that_names_it() -> None:
    """With the old pods and the new name, the operator would no longer find its servers."""
    renamed = msgspec.json.decode(msgspec.json.encode(template()).replace(b"management", b"mgmt"))
    admin = type(OLD.spec.template.spec.admin)(
        port="mgmt", credentials_secret_ref=OLD.spec.template.spec.admin.credentials_secret_ref
    )
    acts = decide_group(look_at_group(group(3, template=renamed, admin=admin), *serving(OLD, 0, 1, 2))).acts
    given = [
        (a.manifest["metadata"]["name"], a.manifest["spec"]["admin"]["port"])
        for a in acts
        if isinstance(a, ApplyServer)
    ]
    assert given == [("shop-2", "mgmt")]


@pytest.mark.parametrize("port", ["http", "proxy"])
def test_an_admin_port_alone_goes_to_no_more_servers_than_the_budget_allows(port: str) -> None:
    users = template()
    users["spec"]["containers"].append({"name": "proxy", "ports": [{"name": "proxy", "containerPort": 9000}]})
    old = group(3, template=users)
    new = group(3, template=users, admin=replace(old.spec.template.spec.admin, port=port))
    proxy = Container("proxy", (ContainerPort(9000, "proxy"),))
    pods = [pod(f"shop-{ordinal}", of=users) for ordinal in range(3)]
    members = [
        member(ordinal, old, with_containers(one, *one.spec.containers, proxy), template=users)
        for ordinal, one in enumerate(pods)
    ]
    (act,) = applies(new, *members)
    assert (act.manifest["metadata"]["name"], act.manifest["spec"]["admin"]["port"]) == ("shop-2", port)
    plan = decide_group(look_at_group(new, *members))
    assert (plan.ready, plan.updated, plan.waits_for) == (3, 0, ("shop-0", "shop-1", "shop-2"))


def test_a_secret_goes_with_the_template_that_has_its_user_and_alone_to_every_server() -> None:
    admin = replace(OLD.spec.template.spec.admin, credentials_secret_ref=SecretRef("other"))
    for users, names_ in ((NEW, ["shop-2"]), (template(), ["shop-2", "shop-1", "shop-0"])):
        acts = applies(group(3, template=users, admin=admin), *serving(OLD, 0, 1, 2))
        assert [act.manifest["metadata"]["name"] for act in acts] == names_
        assert {act.manifest["spec"]["admin"]["credentialsSecretRef"]["name"] for act in acts} == {"other"}
        assert all(act.manifest["spec"]["template"] == users for act in acts)


def test_pods_of_an_earlier_version_are_not_replaced() -> None:
    members = [member(ordinal, OLD, earlier(pod(f"shop-{ordinal}"))) for ordinal in range(3)]
    plan = decide_group(look_at_group(OLD, *members))
    assert (plan.acts, plan.updated, plan.waits_for) == ((), 3, ())


def test_a_restart_is_recorded_and_removed_before_anything_else() -> None:
    plan = decide_group(look_at_group(group(3, annotations={names.RESTART: "now"}), *serving(OLD, 0, 1)))
    assert plan.acts == (ConsumeAnnotation(names.RESTART, "now"),)
    assert plan.restart_requested_at == NOW


REQUESTED = group(3, status=ServerGroupStatus(restart_requested_at=moment(NOW)))


def stamped(ordinal: int, *, restarted: bool) -> Member:
    """A member with the stamp of the restart, whose pod has it or not yet; when that was made does not count."""
    users = {**template(), "metadata": {"annotations": {names.RESTARTED_AT: moment(NOW).isoformat()}}}
    at = pod(f"shop-{ordinal}", of=users) if restarted else pod(f"shop-{ordinal}", created_at=NOW + 9)
    return member(ordinal, REQUESTED, at, template=users)


@pytest.mark.parametrize(
    ("members", "acts"),
    [
        pytest.param(serving(REQUESTED, 0, 1, 2), ["shop-2 stamped"], id="the last first"),
        pytest.param([*serving(REQUESTED, 0, 1), stamped(2, restarted=False)], [], id="one at a time"),
        pytest.param([*serving(REQUESTED, 0, 1), stamped(2, restarted=True)], ["shop-1 stamped"], id="then the next"),
        pytest.param([stamped(n, restarted=True) for n in range(3)], [], id="until all have it"),
        pytest.param([], ["shop-0 stamped", "shop-1 stamped", "shop-2 stamped"], id="new ones come with it"),
        pytest.param([booting(REQUESTED, 0), *serving(REQUESTED, 1, 2)], ["shop-0 stamped"], id="broken ones first"),
    ],
)
def test_a_restart_rolls_by_a_stamp_on_the_template(members: list[Member], acts: list[str]) -> None:
    assert told(decide_group(look_at_group(REQUESTED, *members)).acts) == acts


@pytest.mark.parametrize(
    ("replicas", "value", "count"),
    [
        pytest.param(3, 1, 1, id="a count"),
        pytest.param(3, "50%", 1, id="a half of 3 is 1"),
        pytest.param(4, "50%", 2, id="a half of 4 is 2"),
        pytest.param(3, "10%", 1, id="1 at least"),
        pytest.param(10, "100%", 10, id="all"),
        pytest.param(0, "50%", 1, id="of none"),
    ],
)
def test_the_budget(replicas: int, value: int | str, count: int) -> None:
    assert max_unavailable(group(replicas, max_unavailable=value)) == count


@pytest.mark.parametrize(
    ("replicas", "value", "count"), [(3, 0, 0), (3, 2, 2), (3, "1%", 1), (10, "25%", 3), (3, 9, 3)]
)
def test_the_surge(replicas: int, value: int | str, count: int) -> None:
    assert max_surge(group(replicas, max_surge=value)) == count


SURGE = group(3, template=NEW, max_unavailable=0, max_surge=1)


def surge(of: Member) -> Member:
    """Made for the time of a roll."""
    metadata = of.server.metadata
    marked = replace(metadata, annotations={**metadata.annotations, names.SURGE: "true"})
    return Member(replace(of.server, metadata=marked), of.pod)


@pytest.mark.parametrize(
    ("members", "acts"),
    [
        pytest.param(serving(SURGE, 0, 1, 2, template=template()), ["shop-3 2 surge"], id="first there is one more"),
        pytest.param(
            [*serving(SURGE, 0, 1, 2, template=template()), surge(booting_new(SURGE, 3))],
            [],
            id="which has to serve first",
        ),
        pytest.param(
            [*serving(SURGE, 0, 1, 2, template=template()), surge(rolled(SURGE, 3))], ["shop-2 2"], id="then one may go"
        ),
        pytest.param(
            [booting_new(SURGE, 0), *(rolled(SURGE, n) for n in (1, 2)), surge(rolled(SURGE, 3))],
            [],
            id="it stays until the last serves",
        ),
        pytest.param(
            [*(rolled(SURGE, n) for n in range(3)), surge(rolled(SURGE, 3))],
            ["shop-3 2 Stopped surge"],
            id="and then it is removed",
        ),
        pytest.param(
            [surge(rolled(SURGE, 0)), *(rolled(SURGE, n) for n in (1, 2, 3))],
            ["shop-0 2 Stopped surge"],
            id="wherever there was a place for it",
        ),
        pytest.param(
            [*(rolled(SURGE, n) for n in (0, 2)), suspended(SURGE, 1, template=NEW), surge(rolled(SURGE, 3))],
            ["shop-3 2 Stopped surge"],
            id="and not one that someone has suspended",
        ),
        pytest.param(
            [*(rolled(SURGE, n) for n in (0, 1)), surge(rolled(SURGE, 2))], ["shop-2 2"], id="a scale-up keeps it"
        ),
        pytest.param(
            [*(rolled(SURGE, n) for n in (0, 2, 3)), suspended(SURGE, 1, template=NEW)],
            ["shop-1 2 Stopped"],
            id="a scale-down is not, and removes what does not serve",
        ),
        pytest.param([rolled(SURGE, n) for n in range(3)], [], id="no surge without a roll"),
        pytest.param(
            [*(rolled(SURGE, n) for n in (0, 1)), booting_new(SURGE, 2)], [], id="nor for a server that is not ready"
        ),
        pytest.param(
            [*(rolled(SURGE, n) for n in range(3)), surge(booting(SURGE, 3, template=template()))],
            ["shop-3 1 Stopped surge"],
            id="a roll that was withdrawn",
        ),
        pytest.param([rolled(SURGE, 0)], ["shop-1 2", "shop-2 2"], id="nor for a scale-up"),
        pytest.param([], ["shop-0 2", "shop-1 2", "shop-2 2"], id="nor for a first start"),
        pytest.param(
            [member(n, SURGE, None, template=NEW, status=status("Pending")) for n in range(3)],
            [],
            id="nor for servers without pods",
        ),
    ],
)
def test_a_surge_comes_first_and_goes_last(members: list[Member], acts: list[str]) -> None:
    assert told(decide_group(look_at_group(SURGE, *members)).acts) == acts


def test_a_server_that_is_about_to_be_deleted_is_waited_for() -> None:
    """Another is made then: until it serves, the group has not settled."""
    gone = member(1, OLD, None, deleted=True, status=status("Stopped"))
    assert decide_group(look_at_group(OLD, *serving(OLD, 0, 2), gone)).waits_for == ("shop-1",)


def test_what_a_group_counts_and_waits_for() -> None:
    helpless = status(
        "Pending", conditions=(Condition("Stalled", "True", message="no such image", observed_generation=1),)
    )
    plan = decide_group(
        look_at_group(
            group(4),
            member(0, OLD),
            suspended(OLD, 1),
            member(2, OLD, None, status=helpless),
            taken=frozenset({"shop-3"}),
        )
    )
    assert (plan.ready, plan.updated, plan.suspended, plan.waits_for) == (1, 2, 1, ("shop-2", "shop-3"))
    assert [name for name, _ in plan.stalled] == ["shop-3", "shop-2"]


def test_a_name_that_is_about_to_be_free_is_waited_for_and_not_stalled() -> None:
    plan = decide_group(look_at_group(OLD, *serving(OLD, 0, 2), going=frozenset({"shop-1"})))
    assert (plan.waits_for, plan.stalled, plan.acts) == (("shop-1",), (), ())


def test_a_group_of_suspended_servers_has_settled_when_they_have_its_template() -> None:
    assert decide_group(look_at_group(ROLL, *suspended_all(OLD, 0, 1, 2))).waits_for == ("shop-0", "shop-1", "shop-2")
    assert decide_group(look_at_group(OLD, *suspended_all(OLD, 0, 1, 2))).waits_for == ()


def test_the_manifest_says_whose_server_it_is() -> None:
    act = decide_group(look_at_group(group(1))).acts[0]
    assert isinstance(act, ApplyServer)
    own = act.manifest["metadata"]
    assert own["labels"][names.SERVER_GROUP] == "shop"
    assert own["finalizers"] == [names.FINALIZER]
    assert [(o["kind"], o["uid"], o["controller"]) for o in own["ownerReferences"]] == [
        ("ServerGroup", "uid-shop", True)
    ]
    assert (own["labels"], own["annotations"]) == applied(group(1))


def test_a_group_never_copies_its_state_into_its_servers() -> None:
    shop = group(2, annotations={names.SUSPEND: "true"}, desired_state="Suspended")
    assert told(decide_group(look_at_group(shop)).acts) == ["shop-0 1", "shop-1 1"]


def test_a_bad_value_on_the_group_is_complained_about() -> None:
    plan = decide_group(look_at_group(group(0, annotations={names.SUSPEND: "soon"})))
    assert [note.reason for note in plan.notes] == ["BadAnnotation"]


def test_members_of_ten_and_more_are_ordered_by_number() -> None:
    assert Member(server("shop-10")).ordinal == 10


LABELLED = group(1, metadata=ServerTemplateMetadata({"team": "a", "tier": "web"}, {"note": "x"}))


@pytest.mark.parametrize(
    ("now", "applied_again"),
    [
        pytest.param(LABELLED, [], id="the same"),
        pytest.param(group(1, metadata=ServerTemplateMetadata({"team": "a"}, {"note": "x"})), ["shop-0 1"], id="less"),
        pytest.param(group(1), ["shop-0 1"], id="none left"),
        pytest.param(
            group(1, metadata=ServerTemplateMetadata({"team": "b", "tier": "web"}, {"note": "x"})),
            ["shop-0 1"],
            id="another value",
        ),
        pytest.param(
            group(1, metadata=ServerTemplateMetadata({"team": "a", "tier": "web"})), ["shop-0 1"], id="no annotation"
        ),
    ],
)
def test_labels_and_annotations_are_seen_through_to_their_removal(now: ServerGroup, applied_again: list[str]) -> None:
    assert told(decide_group(look_at_group(now, member(0, LABELLED))).acts) == applied_again


def test_a_label_that_others_took_away_is_given_again_and_what_they_added_is_left() -> None:
    one = member(0, LABELLED, annotations={"others": "kept"})
    assert decide_group(look_at_group(LABELLED, one)).acts == ()
    bare = msgspec.structs.replace(one.server.metadata, labels={})
    one = Member(msgspec.structs.replace(one.server, metadata=bare), one.pod)
    assert told(decide_group(look_at_group(LABELLED, one)).acts) == ["shop-0 1"]


def test_a_template_that_differs_only_in_the_type_of_a_value_is_another_one() -> None:
    wrong, right = (template(automountServiceAccountToken=value) for value in (1, True))
    of = group(1, template=wrong)
    (act,) = applies(group(1, template=right), member(0, of, template=wrong))
    assert act.manifest["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_a_second_restart_stamps_all_again() -> None:
    again = group(3, status=ServerGroupStatus(restart_requested_at=moment(NOW + 60)))
    members = [stamped(n, restarted=True) for n in range(3)]
    plan = decide_group(look_at_group(again, *members))
    assert (plan.updated, told(plan.acts)) == (0, ["shop-2 stamped"])


def test_the_stamp_is_added_to_the_users_own_annotations() -> None:
    users = {**template(), "metadata": {"labels": {"app": "shop"}, "annotations": {"note": "kept"}}}
    shop = group(1, template=users, status=ServerGroupStatus(restart_requested_at=moment(NOW)))
    act = decide_group(look_at_group(shop)).acts[0]
    assert isinstance(act, ApplyServer)
    stamp = moment(NOW).isoformat()
    assert act.manifest["spec"]["template"]["metadata"] == {
        "labels": {"app": "shop"},
        "annotations": {"note": "kept", names.RESTARTED_AT: stamp},
    }
    assert shop.spec.template.spec.template == users


def test_the_crd_takes_the_stamp() -> None:
    """A rule that keeps users off keys of quiesce.dev would keep a group from restarting its servers."""
    crd = yaml.safe_load((Path(__file__).parents[2] / "crds" / "appservers.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    annotations = spec["template"]["properties"]["metadata"]["properties"]["annotations"]
    rules = " ".join(rule["rule"] for rule in annotations.get("x-kubernetes-validations", ()))
    assert "quiesce.dev/" not in rules or names.RESTARTED_AT in rules


def test_a_template_that_was_refused_is_fixed_by_another() -> None:
    """It still serves with its old pod, which is not the one that its spec asks for: it has spent its budget."""
    mended = group(3, template=template("wildfly:3"))
    assert told(decide_group(look_at_group(mended, *serving(OLD, 0, 1), given(OLD, 2))).acts) == ["shop-2 3"]


def test_a_surge_does_not_count_as_updated_for_another() -> None:
    plan = decide_group(
        look_at_group(SURGE, member(0, SURGE, template=template()), *(rolled(SURGE, n) for n in (1, 2, 3)))
    )
    assert (plan.ready, plan.updated) == (4, 2)


def test_a_template_that_can_not_become_a_pod_goes_to_no_server_that_has_another() -> None:
    """Its next pod would be its last; and it is reported in the group's own words, once."""
    good = group(3, suspend_timeout_seconds=60)
    port = replace(good.spec.template.spec.admin, port="nowhere")
    bad = group(3, suspend_timeout_seconds=90, template=template("wildfly:2"), admin=port)
    told = "spec.template.spec.admin.port: no container in spec.template has a port named 'nowhere'"
    servers = [member(number, good) for number in range(2)]
    applied_to = {
        act.manifest["metadata"]["name"]: act.manifest["spec"] for act in applies(bad, *servers, lost(2, good))
    }
    assert set(applied_to) == {"shop-0", "shop-1", "shop-2"}
    for spec in applied_to.values():
        assert spec["suspendTimeoutSeconds"] == 90
        assert (spec["template"], spec["admin"]["port"]) == (template(), "management")
    ((name, said),) = decide_group(look_at_group(bad, *servers, lost(2, good))).stalled
    assert name == "shop"
    assert said.startswith(told)


def applies(of: ServerGroup, *members: Member) -> list[ApplyServer]:
    return [act for act in decide_group(look_at_group(of, *members)).acts if isinstance(act, ApplyServer)]


def lost(ordinal: int, of: ServerGroup) -> Member:
    """A server whose pod was deleted."""
    return member(ordinal, of, None, status=status("Starting"))
