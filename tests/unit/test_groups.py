"""The loop's part for one group: when it looks live, and what it makes of refusals."""

import itertools
from typing import Any

import msgspec
import pytest

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import ClusterError
from quiesce.cluster.world import World
from quiesce.control.groups import TAKEN_RETRY_SECONDS, Groups, look_at_pods
from quiesce.control.refusals import FIRST_REFUSED_SECONDS
from quiesce.decide.group import decide_group
from quiesce.decide.members import Member
from quiesce.decide.refusal import REFUSED_SECONDS
from quiesce.model import names
from quiesce.model.objects import Metadata, OwnerReference, Pod, Service
from quiesce.model.plan import ApplyServer
from quiesce.model.resources import AppServer, GroupService, ServerGroup
from quiesce.model.times import moment
from tests.unit.build import NOW, group, look_at_group, member, pod, server, status, template
from tests.unit.fake import FakeCluster, FakeRecorder, refusing
from tests.unit.test_servers import set_again

KEY = ("shop", "shop")
OLD = group(3)
ROLL = group(3, template=template("wildfly:2"))
replace = msgspec.structs.replace


class Loop:
    def __init__(self, cluster: FakeCluster, *seen: Any) -> None:
        self.now = NOW
        self.cluster, self.world, self.events = cluster, World(), FakeRecorder()
        self.groups = Groups(cluster, self.world, Clock(lambda: self.now, lambda: self.now), self.events)
        for thing in seen:
            self.see(thing)

    def see(self, thing: Any) -> None:
        match thing:
            case AppServer():
                self.world.see_server(thing)
            case ServerGroup():
                self.world.see_group(thing)
            case _:
                self.world.see_pod(thing)

    async def turn(self) -> float | None:
        return await self.groups.reconcile(*KEY)

    async def pass_time(self, seconds: float) -> None:
        """Turns as the group asks for them."""
        ends = self.now + seconds
        while (wait := await self.turn()) is not None and self.now + wait < ends:
            self.now += wait
        self.now = ends

    def stalled(self) -> str:
        return self._told("Stalled")

    def progress(self) -> str:
        return self._told("Progressing")

    def _told(self, kind: str) -> str:
        conditions = self.world.groups[KEY].status.conditions
        return next((c.message for c in conditions if c.type == kind and c.status == "True"), "")


def estate(of: ServerGroup, **unready_for: float) -> list[Any]:
    """A group with its servers and pods as the first template made them."""
    members = [member(n, OLD, pod(f"shop-{n}", unready_for=unready_for.get(f"shop_{n}"))) for n in range(3)]
    return [of, *(m.server for m in members), *(m.pod for m in members)]


REFUSALS, TROUBLE = (400, 403, 413, 422, 500), (0, 401, 404, 409, 429, 502, 503, 504)
MADE = ("shop-0", "shop-1", "Service shop", "Service shop-headless", "PodDisruptionBudget shop")


@pytest.mark.parametrize("code", [*REFUSALS, *TROUBLE])
@pytest.mark.parametrize("failing", MADE)
async def test_an_act_that_fails_is_paced_and_reported_and_keeps_no_other_from_being_done(
    failing: str, code: int
) -> None:
    shop = group(2, budget="Managed", service=GroupService(ports=({"port": 80},)))
    cluster, tried = FakeCluster(shop), list[str]()

    def refuse(request: str, name: str) -> None:
        if request.startswith("apply"):
            tried.append(name)
            refusing(request, code, failing)(request, name)

    cluster.refuse = refuse
    loop = Loop(cluster, shop)
    await loop.turn()
    assert set(tried) == set(MADE)
    await loop.pass_time(REFUSED_SECONDS - 1)
    assert loop.stalled() == ""
    await loop.pass_time(50)
    assert loop.stalled().startswith(f"{failing}: apply_")
    assert loop.events.reasons().count("ServersNeedHelp") == 1
    assert cluster.count("group_status") <= 5
    assert tried.count(failing) <= 8
    cluster.refuse = refusing("nothing", code)
    await loop.pass_time(31)
    assert loop.stalled() == ""


@pytest.mark.parametrize("code", TROUBLE)
async def test_a_moment_in_which_the_api_server_fails_is_not_reported(code: int) -> None:
    cluster = FakeCluster(group(2))
    cluster.refuse = refusing("apply_server", code, "shop-0")
    loop = Loop(cluster, group(2))
    await loop.pass_time(4)
    assert loop.world.groups[KEY].status.observed_generation == -1  # shop-0 is still to be made
    cluster.refuse = refusing("nothing", code)
    await loop.pass_time(4)
    assert {name for _, name in loop.world.servers} == {"shop-0", "shop-1"}
    assert loop.world.groups[KEY].status.observed_generation == 1
    assert "is refused" not in loop.progress()
    assert not any(note.warning for note in loop.events.notes)


async def test_a_refusal_is_named_in_the_progress_before_the_group_is_stalled() -> None:
    cluster = FakeCluster(group(2))
    cluster.refuse = refusing("apply_server", 422, "shop-0")
    loop = Loop(cluster, group(2))
    await loop.pass_time(1)
    assert "shop-0 (apply_server shop-0 is refused)" in loop.progress()
    assert loop.stalled() == ""


async def test_a_conflict_is_tried_again_immediately_and_the_next_ones_later() -> None:
    cluster = FakeCluster(group(1))
    cluster.refuse = refusing("apply_server", 409)
    loop = Loop(cluster, group(1))
    assert [await loop.turn() for _ in range(4)] == [0, 2, 2, 2]
    assert cluster.count("apply_server") == 2


async def test_an_api_server_that_asks_to_wait_is_not_asked_earlier() -> None:
    def refuse(request: str, _: str) -> None:
        if request == "apply_server":
            raise ClusterError(429, "too many requests", retry_after=7)

    cluster = FakeCluster(group(1))
    cluster.refuse = refuse
    loop = Loop(cluster, group(1))
    assert [await loop.turn() for _ in range(2)] == [0, 7]


async def test_a_bug_is_not_mistaken_for_a_refusal() -> None:
    def fail(request: str, _: str) -> None:
        if request == "apply_server":
            raise KeyError("a bug")

    cluster = FakeCluster(group(1))
    cluster.refuse = fail
    with pytest.raises(KeyError):
        await Loop(cluster, group(1)).turn()


async def test_a_webhook_that_is_slow_to_fail_takes_a_bounded_time_a_turn() -> None:
    cluster = FakeCluster(group(36))
    loop = Loop(cluster, group(36))

    def refuse(request: str, name: str) -> None:
        if request == "apply_server":
            loop.now += 5
            if name != "shop-35":
                raise ClusterError(500, "failed calling webhook: context deadline exceeded")

    cluster.refuse = refuse
    turns = 0
    while ("shop", "shop-35") not in loop.world.servers:
        began = loop.now
        await loop.turn()
        assert loop.now - began <= 10
        turns += 1
    assert turns < 80, "the others are tried again, and do not keep this one from its turn"


async def test_what_is_refused_is_tried_less_and_less_often_and_something_else_immediately() -> None:
    cluster = FakeCluster(group(1))
    cluster.refuse = refusing("apply_server", 422)
    loop = Loop(cluster, group(1))
    tried = []
    while loop.now < NOW + 70:
        before = cluster.count("apply_server")
        wait = await loop.turn()
        if cluster.count("apply_server") > before:
            tried.append(loop.now - NOW)
        assert wait is not None
        loop.now += wait
    assert tried == [0, 1, 3, 7, 15, 31, 61]
    changed = replace(cluster.latest(group(1)), spec=replace(ROLL.spec, replicas=1))
    cluster.put(changed)
    loop.see(cluster.latest(changed))
    cluster.refuse = refusing("nothing", 0)
    await loop.turn()
    assert ("shop", "shop-0") in loop.world.servers


async def test_an_apply_with_another_result_is_reported() -> None:
    """Someone else owns a field that the group does not set: applying it again changes nothing."""
    cluster = FakeCluster(group(1))
    cluster.alter = lambda made: replace(made, spec=replace(made.spec, desired_state="Stopped"))
    loop = Loop(cluster, group(1))
    assert await loop.turn() == 0
    assert await loop.turn() == FIRST_REFUSED_SECONDS
    await loop.pass_time(REFUSED_SECONDS + 1)
    assert loop.stalled().startswith("shop-0: differs from what was applied")
    cluster.alter = lambda made: made
    await loop.pass_time(10)
    assert loop.stalled() == ""


async def test_a_name_that_is_taken_is_looked_at_again() -> None:
    """It was not seen before: an apply would take it over."""
    cluster = FakeCluster(group(1), server("shop-0"))
    loop = Loop(cluster, group(1))
    await loop.turn()
    assert await loop.turn() == TAKEN_RETRY_SECONDS
    assert cluster.count("apply_server") == 0
    assert "not this group's" in loop.stalled()


async def test_a_recreated_group_waits_for_the_servers_of_its_predecessor() -> None:
    """They drain: no one has to delete anything."""
    going = server("shop-0", deleted=True)
    loop = Loop(FakeCluster(group(1), going), group(1), going)
    await loop.turn()
    assert await loop.turn() == TAKEN_RETRY_SECONDS
    assert loop.cluster.count("apply_server") == 0
    assert loop.stalled() == ""
    assert loop.progress().endswith("waiting for shop-0 (its predecessor is being deleted)")


async def test_a_live_look_counts_a_server_that_lost_its_label() -> None:
    things = estate(ROLL)
    things[1] = replace(things[1], metadata=replace(things[1].metadata, labels={}))
    loop = Loop(FakeCluster(*things), *things)
    await loop.turn()
    assert loop.world.servers["shop", "shop-0"].metadata.labels == {names.SERVER_GROUP: "shop"}
    assert loop.world.servers["shop", "shop-2"].spec == ROLL.spec.template.spec


async def test_a_live_look_forgets_a_server_that_is_gone() -> None:
    things = estate(ROLL)
    loop = Loop(FakeCluster(*things[:3], *things[4:6]), *things)
    await loop.turn()
    # It is made again in the same turn; the roll has room for none while it is away.
    assert loop.cluster.count("apply_server") == 1
    assert loop.world.servers["shop", "shop-2"].status.state is None


async def test_a_live_look_forgets_a_pod_that_is_gone() -> None:
    """The watch still shows it as serving: the budget is computed without it."""
    things = estate(ROLL)
    cluster = FakeCluster(*things)
    cluster.take("shop", "shop-0")
    loop = Loop(cluster, *things)
    await loop.turn()
    assert ("shop", "shop-0") not in loop.world.pods
    given = [s.metadata.name for s in loop.world.members(KEY) if s.spec == ROLL.spec.template.spec]
    assert given == ["shop-0"]


async def test_a_pod_that_is_there_outlives_its_server() -> None:
    """The server of the same name that comes next adopts it."""
    things = estate(ROLL)
    cluster = FakeCluster(*things)
    loop = Loop(cluster, *things)
    gone = cluster.latest(things[1]).metadata
    cluster.refuse = lambda request, _: loop.world.forget_server(gone.key, gone.uid) if request == "pods" else None
    await look_at_pods(cluster, loop.world, KEY)
    assert gone.key not in loop.world.servers
    assert gone.key in loop.world.pods


class DeletedWhileListed(FakeCluster):
    """The watch reports the end of a pod and of a server before the lists that still have them are here."""

    world: World

    async def servers(self, namespace: str, group: str) -> list[AppServer]:
        listed = await super().servers(namespace, group)
        gone = next(one.metadata for one in listed if one.metadata.name == "shop-2")
        self.world.forget_server(gone.key, gone.uid, 1_000)
        return listed

    async def pods(self, namespace: str, group: str) -> list[Pod]:
        listed = await super().pods(namespace, group)
        gone = next(one.metadata for one in listed if one.metadata.name == "shop-0")
        self.world.forget_pod(gone.key, gone.uid, 1_000)
        return listed


async def test_a_live_look_does_not_bring_back_what_went_while_it_was_made() -> None:
    things = estate(ROLL)
    cluster = DeletedWhileListed(*things)
    loop = Loop(cluster, *things)
    cluster.world = loop.world
    await loop.groups._look_live(loop.world.groups[KEY])
    assert {name for _, name in loop.world.servers} == {"shop-0", "shop-1"}
    assert {name for _, name in loop.world.pods} == {"shop-1", "shop-2"}


async def test_a_restart_is_recorded_before_its_annotation_is_removed() -> None:
    asked = group(3, annotations={names.RESTART: "now"})
    things = estate(asked)
    cluster = FakeCluster(*things)
    loop = Loop(cluster, *things)
    loop.now = NOW + 0.25
    await loop.turn()
    assert cluster.asked == ["group_status", "remove_annotation"]
    assert loop.world.groups[KEY].status.restart_requested_at == moment(NOW + 0.25)
    await loop.turn()
    stamped = [
        s.metadata.name
        for s in loop.world.members(KEY)
        if s.spec.template.get("metadata") == {"annotations": {names.RESTARTED_AT: moment(NOW + 0.25).isoformat()}}
    ]
    assert stamped == ["shop-2"]


async def test_a_group_looks_again_when_an_unready_server_comes_to_be_out() -> None:
    """All of its servers fail their probes; 5 s later, a template that fixes them is applied."""
    things = estate(ROLL, shop_0=5, shop_1=5, shop_2=5)
    wake = await Loop(FakeCluster(*things), *things).turn()
    assert wake is not None
    assert wake <= 25


async def test_the_budget_is_made_once_and_put_back_when_it_is_gone() -> None:
    shop = group(0, budget="Managed")
    cluster = FakeCluster(shop)
    loop = Loop(cluster, shop)
    await loop.turn()
    await loop.turn()
    assert cluster.count("apply_object") == 1
    loop.world.forget_kept(loop.world.budgets[KEY])
    await loop.turn()
    assert cluster.count("apply_object") == 2
    loop.see(replace(cluster.latest(shop), spec=group(0).spec))
    await loop.turn()
    assert loop.world.budgets == {}
    assert cluster.count("delete_object") == 1


async def test_a_foreign_service_is_not_taken_over() -> None:
    shop = group(1, service=GroupService(ports=({"port": 80},)))
    cluster = FakeCluster(shop, Service(Metadata("shop", "shop", uid="theirs"), {"type": "ClusterIP"}))
    loop = Loop(cluster, shop)
    await loop.pass_time(REFUSED_SECONDS + 1)
    theirs = await cluster.service(*KEY)
    assert theirs
    assert theirs.metadata.uid == "theirs"
    assert await cluster.service("shop", "shop-headless")  # what can be made is
    assert ("shop", "shop-0") in loop.world.servers
    assert loop.stalled() == "Service shop: exists and is not this group's: delete it, or rename the group"


@pytest.mark.parametrize("trouble", ["", "a restart", "a Service that is not its own"])
async def test_a_generation_is_observed_when_the_servers_have_been_brought_up_to_it(trouble: str) -> None:
    """A server that is about to start waits for it: it would start with the previous spec."""
    users = GroupService(ports=({"port": 80},)) if "Service" in trouble else None
    before = group(1, desired_state="Stopped", service=users)
    theirs = Service(Metadata("shop", "shop", uid="theirs"), {"type": "ClusterIP"})
    stopped = member(0, before, None, status=status("Stopped")).server
    loop = Loop(FakeCluster(before, stopped, theirs), before, stopped)
    await loop.pass_time(REFUSED_SECONDS + 1)
    asked = {names.RESTART: "true"} if trouble == "a restart" else {}
    changed = group(1, template=template("wildfly:2"), service=users, annotations=asked)
    metadata = replace(changed.metadata, generation=2)
    changed = replace(changed, metadata=metadata, status=loop.world.groups[KEY].status)
    loop.cluster.put(changed)
    loop.see(loop.cluster.latest(changed))
    seen = []

    def look(request: str, _: str) -> None:
        if request == "apply_server":
            seen.append((loop.world.taken_up.get(KEY), loop.world.groups[KEY].status.observed_generation))

    loop.cluster.refuse = look
    for _ in range(4):
        await loop.turn()
    assert set(seen) == {(1, 1)}
    assert (loop.world.taken_up[KEY], loop.world.groups[KEY].status.observed_generation) == (2, 2)


async def test_a_status_that_can_not_be_written_keeps_no_server_down() -> None:
    cluster = FakeCluster(group(1))
    cluster.refuse = refusing("group_status", 403)
    loop = Loop(cluster, group(1))
    assert await loop.turn() == 0
    assert ("shop", "shop-0") in loop.world.servers
    waits = [await loop.turn() for _ in range(2)]
    assert loop.world.taken_up[KEY] == 1
    assert all(wait and wait <= 0.5 for wait in waits)
    assert (loop.events.reasons(), cluster.count("group_status")) == (["StatusRefused"], 1)
    for _ in range(100):
        wait = await loop.turn()
        assert wait is not None
        loop.now += wait
    assert cluster.count("group_status") < 101  # at most every 30 s in the end
    assert loop.now - NOW > 2000


@pytest.mark.parametrize("code", [0, 409, 429, 503])
async def test_an_api_server_that_fails_at_a_groups_status_alone_keeps_no_server_down(code: int) -> None:
    cluster = FakeCluster(group(1))
    cluster.refuse = refusing("group_status", code)
    loop = Loop(cluster, group(1))
    await loop.turn()
    for _ in range(2):
        with pytest.raises(ClusterError):
            await loop.turn()
    assert loop.events.reasons() == []
    assert await loop.turn()
    assert loop.events.reasons() == ["StatusRefused"]


async def test_a_restart_that_is_requested_again_in_time_is_not_lost() -> None:
    """What has come up since the other one is out of date by this one."""
    asked = group(3, annotations={names.RESTART: "now"})
    things = estate(asked)
    cluster = FakeCluster(*things)
    loop = Loop(cluster, cluster.latest(asked), *things[1:])
    cluster.refuse = set_again(cluster, asked, "now")
    assert await loop.turn() == 0
    assert loop.world.groups[KEY].metadata.annotations == {names.RESTART: "now"}
    loop.now += 5
    await loop.turn()
    accepted = loop.world.groups[KEY]
    assert (accepted.status.restart_requested_at, accepted.metadata.annotations) == (moment(NOW + 5), {})
    assert loop.progress() != ""


async def test_a_restart_that_can_not_be_recorded_waits_and_holds_nothing_else_up() -> None:
    asked = replace(ROLL, metadata=replace(ROLL.metadata, annotations={names.RESTART: "now"}))
    things = estate(asked)
    cluster = FakeCluster(*things)
    cluster.refuse = refusing("group_status", 413)
    loop = Loop(cluster, *things)
    await loop.turn()
    assert cluster.count("apply_server") == 1  # the new template
    assert names.RESTART in loop.world.groups[KEY].metadata.annotations
    cluster.refuse = refusing("nothing", 0)
    loop.now += 30
    await loop.turn()
    assert names.RESTART not in loop.world.groups[KEY].metadata.annotations
    assert loop.world.groups[KEY].status.restart_requested_at == moment(NOW + 30)


async def test_a_service_that_lost_its_labels_gets_them_back() -> None:
    shop = group(1, service=GroupService(ports=({"port": 80},)))
    owner = OwnerReference("ServerGroup", "shop", "uid-shop", controller=True)
    bare = Service(Metadata("shop", "shop", uid="ours", owner_references=(owner,)), {"type": "ClusterIP"})
    cluster = FakeCluster(shop, bare)
    loop = Loop(cluster, shop)
    await loop.turn()
    await loop.turn()
    found = await cluster.service(*KEY)
    assert found
    assert names.MANAGED in found.metadata.labels
    assert loop.stalled() == ""


@pytest.mark.parametrize("labels", [{}, {names.SERVER_GROUP: "shop"}])
async def test_only_servers_without_an_owner_that_have_the_label_are_adopted(labels: dict[str, str]) -> None:
    shop = group(1)
    orphan = server("shop-0", labels=labels)
    cluster = FakeCluster(shop, orphan, pod("shop-0"))
    loop = Loop(cluster, shop, orphan, pod("shop-0"))
    await loop.turn()
    owner = loop.world.servers["shop", "shop-0"].metadata.owner
    assert (owner.uid if owner else None) == ("uid-shop" if labels else None)


async def test_progress_is_written_when_it_is_due() -> None:
    things = estate(OLD, shop_2=1)
    loop = Loop(FakeCluster(*things), *things)
    await loop.turn()
    loop.now += 4
    loop.see(pod("shop-1", unready_for=1))
    wake = await loop.turn()
    assert (loop.cluster.count("group_status"), loop.world.groups[KEY].status.ready_replicas) == (1, 2)
    assert wake == 16
    loop.now += 16
    await loop.turn()
    assert (loop.cluster.count("group_status"), loop.world.groups[KEY].status.ready_replicas) == (2, 1)


async def test_an_edit_that_an_apply_can_not_undo_is_reported_and_tried_again_later() -> None:
    shop = group(0, service=GroupService(ports=({"port": 80},)))
    cluster = FakeCluster(shop)
    loop = Loop(cluster, shop)
    await loop.turn()
    service = loop.world.services[KEY]
    edited = replace(service, spec={**service.spec, "ports": [{"port": 80}, {"port": 81}]})
    cluster.alter = lambda made: replace(made, spec=edited.spec) if made.metadata.name == "shop" else made
    loop.world.see_kept(edited)
    await loop.turn()
    assert await loop.turn() == FIRST_REFUSED_SECONDS
    await loop.pass_time(REFUSED_SECONDS + 1)
    assert loop.stalled().startswith("Service shop: differs from what was applied")


async def test_what_an_apply_leaves_in_the_template_of_a_server_is_removed() -> None:
    """What somebody has added to one of its lists, or what was applied when the list did not merge by its key."""
    shop = group(1)
    cluster = FakeCluster(shop)
    cluster.alter = lambda made: replace(made, spec=replace(made.spec, template={**made.spec.template, "more": {}}))
    loop = Loop(cluster, shop)
    await loop.turn()
    await loop.turn()
    assert loop.world.servers["shop", "shop-0"].spec.template == shop.spec.template.spec.template
    assert loop.stalled() == ""
    assert (cluster.count("apply_server"), cluster.count("replace_template")) == (1, 1)


@pytest.mark.parametrize("field", ["labels", "annotations"])
async def test_a_server_that_a_webhook_changes_is_reported_and_not_applied_for_ever(field: str) -> None:
    def changed(applied: AppServer) -> AppServer:
        own = applied.metadata
        return replace(applied, metadata=replace(own, **{field: dict.fromkeys(getattr(own, field), "other")}))

    shop = group(1)
    cluster = FakeCluster(shop)
    cluster.alter = changed
    loop = Loop(cluster, shop)
    await loop.turn()
    assert await loop.turn() == FIRST_REFUSED_SECONDS
    await loop.pass_time(REFUSED_SECONDS + 1)
    assert loop.stalled().startswith("shop-0: differs from what was applied")


@pytest.mark.parametrize("code", [*REFUSALS, *TROUBLE])
async def test_what_can_not_be_deleted_is_reported_and_stops_nothing_else(code: int) -> None:
    shop = group(0, budget="Managed")
    cluster = FakeCluster(shop)
    cluster.refuse = refusing("delete_object", code)
    loop = Loop(cluster, shop)
    await loop.turn()
    more = replace(cluster.latest(shop), spec=group(1).spec)
    cluster.put(more)
    loop.see(cluster.latest(more))
    await loop.turn()
    assert ("shop", "shop-0") in loop.world.servers
    await loop.pass_time(REFUSED_SECONDS + 1)
    assert loop.stalled().startswith("PodDisruptionBudget shop: delete_object")


AGAIN = {names.RESTART: "once more"}


async def test_a_restart_that_can_not_be_removed_from_the_group_is_requested_once() -> None:
    things = estate(replace(OLD, metadata=replace(OLD.metadata, annotations={names.RESTART: "now"})))
    cluster = FakeCluster(*things)
    cluster.refuse = refusing("remove_annotation", 403)
    loop = Loop(cluster, *things)
    stamps = set()
    for _ in range(4):
        await loop.turn()
        stamps.add(loop.world.groups[KEY].status.restart_requested_at)
        loop.now += REFUSED_SECONDS
    assert len(stamps) == 1
    assert cluster.count("apply_server") == 1  # and it rolls
    assert loop.stalled().startswith("quiesce.dev/restart='now': ")
    cluster.put(replace(known := cluster.latest(OLD), metadata=replace(known.metadata, annotations=AGAIN)))
    loop.world.see_group(cluster.latest(OLD))
    await loop.turn()
    assert loop.world.groups[KEY].status.restart_requested_at == moment(loop.now)  # another value: another request


async def test_words_that_change_with_every_try_are_no_reason_to_hurry() -> None:
    cluster = FakeCluster(group(1))
    tries = itertools.count()

    def refuse(call: str, _: str) -> None:
        if call == "apply_server":
            raise ClusterError(422, f"request {next(tries)}: no")

    cluster.refuse = refuse
    loop = Loop(cluster, group(1))
    while loop.now < NOW + 60:  # each status that is written comes back as an event
        await loop.turn()
        loop.now += 0.1
    assert next(tries) <= 8
    assert cluster.count("group_status") <= 3
    assert "request 3: no" in loop.stalled()


def test_a_field_at_its_default_is_written_back() -> None:
    """An apply leaves fields that it omits as someone else has set them."""
    changed = server("shop-0", of=group(1), desired_state="Stopped", suspend_timeout_seconds=0, pre_suspend_seconds=9)
    plan = decide_group(look_at_group(group(1), Member(changed)))
    (act,) = (act for act in plan.acts if isinstance(act, ApplyServer))
    spec = act.manifest["spec"]
    assert (spec["desiredState"], spec["suspendTimeoutSeconds"], spec["preSuspendSeconds"]) == ("Running", 60, 2)
    assert spec["admin"]["profile"] == "wildfly"


async def test_a_service_of_an_earlier_version_selects_the_label_when_every_pod_has_had_it_for_a_moment() -> None:
    web = group(3, service=GroupService(ports=({"port": 80},)))
    group_of_web, *servers, first, second, third = estate(web)
    bare = [replace(p, metadata=replace(p.metadata, labels={names.MANAGED: "true"})) for p in (first, second, third)]
    loop = Loop(FakeCluster(group_of_web, *servers, *bare), group_of_web, *servers, *bare)

    async def selects() -> bool:
        for _ in range(4):
            await loop.turn()
        return names.GATE in loop.world.services[KEY].spec["selector"]

    assert not await selects()
    for number, one in enumerate((first, second, third)):
        assert not await selects()
        loop.see(replace(one, metadata=replace(one.metadata, resource_version=str(500 + number))))
    assert not await selects()
    assert await loop.turn() == 5
    loop.now += 5
    assert await selects()
    loop.see(replace(third, metadata=replace(third.metadata, labels={}, resource_version="900")))
    assert await selects()


async def test_a_refusal_whose_message_varies_is_written_once_a_minute() -> None:
    """A webhook may put a time, or an ID of the request, into each message."""
    tries = itertools.count()
    of = group(2, status=OLD.status)
    cluster = FakeCluster(of)

    def refuse(request: str, name: str) -> None:
        if request == "apply_server" and name == "shop-0":
            raise ClusterError(403, f"denied (request {next(tries)})")

    cluster.refuse = refuse
    loop = Loop(cluster, of)
    await loop.pass_time(60)
    assert "shop-0: denied" in loop.stalled()
    before, said = cluster.count("group_status"), loop.stalled()
    await loop.pass_time(600)
    assert loop.stalled() != said
    assert cluster.count("group_status") - before <= 11
