"""The loop's part for one server: when it looks live, and what it makes of refusals."""

import contextlib
import itertools
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from quiesce.admin.port import AdminError
from quiesce.cluster.clock import Clock
from quiesce.cluster.port import ClusterError
from quiesce.cluster.world import World
from quiesce.control.admins import Admins
from quiesce.control.servers import POD_KNOWN_SECONDS, Servers
from quiesce.decide.observation import OVERDUE_SECONDS, SILENT_SECONDS
from quiesce.decide.podspec import hold_seconds, template_hash
from quiesce.model import names
from quiesce.model.objects import Condition, Metadata, Node, Pod, QuotaStatus, ResourceQuota, Service
from quiesce.model.plan import SetGate
from quiesce.model.resources import AppServer, AppServerStatus, ServerGroup
from quiesce.model.server import Report
from quiesce.model.times import Seconds
from tests.unit.build import GRACE, NOW, drain, group, pod, report, server, status, stray, template
from tests.unit.fake import FakeCluster, FakeRecorder, FakeWildFly, refusing
from tests.unit.test_world import endpoints, version

KEY, KEY_OF_GROUP = ("shop", "shop-0"), ("shop", "shop")
replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.control.admins.WildFly", FakeWildFly)


class Loop:
    """Servers, with a manual clock and a cache that knows what was put in it."""

    def __init__(self, cluster: FakeCluster, *seen: Any) -> None:
        self.now = NOW
        self.cluster, self.world, self.events = cluster, World(), FakeRecorder()
        self.clock = Clock(lambda: self.now, lambda: self.now)
        self.servers = Servers(cluster, self.world, Admins(cluster), self.clock, self.events)
        for thing in seen:
            see = self.world.see_server if isinstance(thing, AppServer) else self.world.see_pod
            see(thing)

    async def turn(self) -> float | None:
        return await self.servers.reconcile(*KEY)

    def said(self) -> AppServer:
        return self.world.servers[KEY]


def reasons(loop: Loop) -> dict[str, str]:
    """Of the conditions, by their types."""
    return {condition.type: condition.reason for condition in loop.said().status.conditions}


def new(**changes: Any) -> AppServer:
    return server(status=status("Starting"), **changes)


async def test_a_pod_that_exists_already_is_looked_at() -> None:
    """The watch has not reported it: without a live read, it would be created again and again."""
    first = server(status=AppServerStatus())
    cluster = FakeCluster(first, pod(gate=False, container=None, created_at=NOW))
    cluster.refuse = refusing("create_pod", HTTPStatus.CONFLICT)
    loop = Loop(cluster, first)
    assert await loop.turn() == 0
    assert loop.world.pods[KEY].metadata.uid == "pod-shop-0"
    assert await loop.turn() != 0
    assert cluster.count("create_pod") == 1
    assert loop.said().status.state == "Starting"


@pytest.mark.parametrize(
    ("asked", "state"),
    [({}, "Running"), ({"deleted": True}, "Suspending"), ({"desired_state": "Stopped"}, "PreSuspend")],
)
async def test_a_pod_that_lost_its_labels_is_found_and_gets_them_back(asked: dict[str, Any], state: str) -> None:
    """The watch reports its end, by then: it selects the labels."""
    bare = replace(pod(), metadata=replace(pod().metadata, labels={"app": "shop"}))
    cluster = FakeCluster(server(**asked), bare)
    loop = Loop(cluster, server(**asked))
    for _ in range(20):
        await loop.turn()
        loop.now += 1
    assert cluster.count("create_pod") == 0
    assert loop.said().status.state == state
    found = loop.world.pods[KEY].metadata
    gate = {names.GATE: "true"} if state == "Running" else {}
    own = {names.MANAGED: "true", names.SERVER: "shop-0", names.TEMPLATE_HASH: template_hash(template()), **gate}
    assert found.deletion_timestamp or found.labels == {"app": "shop", **own}


async def test_labels_that_can_not_be_restored_are_retried_now_and_then_and_reported() -> None:
    """A webhook takes them off, or the API server refuses them."""
    bare = replace(pod(), metadata=replace(pod().metadata, labels={}))
    cluster = FakeCluster(server(), bare)
    cluster.refuse = refusing("label_pod", HTTPStatus.FORBIDDEN)
    loop = Loop(cluster, server(), bare)
    for _ in range(20):
        await loop.turn()
    assert cluster.count("label_pod") == 1
    assert loop.events.reasons().count("LabelPodRefused") == 1
    assert loop.said().status.state == "Running"


async def test_labels_that_can_not_be_put_back_do_not_hurry_what_is_refused_as_well() -> None:
    """One webhook refuses both: each keeps its own pace."""
    bare = replace(pod(), metadata=replace(pod().metadata, labels={names.MANAGED: "true"}))
    one = server(annotations={names.SUSPEND: "true"})
    cluster = FakeCluster(one, bare)
    loop = Loop(cluster, one, bare)

    def refuse(request: str, name: str) -> None:
        if request in ("label_pod", "set_gate"):
            raise ClusterError(HTTPStatus.FORBIDDEN, f"{request} {name} is refused")

    cluster.refuse = refuse
    for _ in range(1000):
        await loop.turn()
        loop.now += 0.01
    assert 2 <= cluster.count("set_gate") <= 6
    assert cluster.count("label_pod") <= 2
    assert cluster.count("server_status") <= 6


async def test_a_pod_that_leaves_without_its_labels_is_seen_to_end() -> None:
    """No watch reports its end."""
    gone = replace(pod(leaving_for=5), metadata=replace(pod(leaving_for=5).metadata, labels={}))
    one = server(deleted=True, status=status("Stopping"))
    cluster = FakeCluster(one, gone)
    loop = Loop(cluster, one, gone)
    await loop.turn()
    cluster.take("shop", "shop-0")
    for _ in range(5):
        await loop.turn()
    assert KEY not in loop.world.pods
    assert KEY not in loop.world.servers  # nothing held it any more


async def test_a_server_with_the_label_of_a_group_that_is_not_one_of_its_servers_is_its_own() -> None:
    """Otherwise, it would be stopped with it, without anyone noticing."""
    of = group(desired_state="Stopped")
    other = server("other", labels={names.SERVER_GROUP: "shop"})
    loop = Loop(FakeCluster(of, other, pod("other")), other, pod("other"))
    loop.world.see_group(of)
    await loop.servers.reconcile("shop", "other")
    assert loop.world.servers["shop", "other"].status.state == "Running"


@pytest.mark.parametrize(
    ("of", "taken_up", "made"),
    [
        pytest.param(group(1), {}, 0, id="its group has yet to look"),
        pytest.param(group(1), {KEY_OF_GROUP: 1}, 1, id="it has"),
        pytest.param(group(1, deleted=True), {}, 1, id="it no longer updates its servers"),
    ],
)
async def test_a_server_comes_up_when_its_group_has_brought_it_up_to_date(
    of: ServerGroup, taken_up: dict[tuple[str, str], int], made: int
) -> None:
    first = server(of=of, status=AppServerStatus())
    cluster = FakeCluster(of, first)
    loop = Loop(cluster, first)
    loop.world.see_group(of)
    loop.world.taken_up.update(taken_up)
    await loop.turn()
    assert cluster.count("create_pod") == made


@pytest.mark.parametrize("code", [400, 403, 422, 500])
async def test_a_refused_pod_is_reported_once_and_tried_again_later(code: int) -> None:
    cluster = FakeCluster(new())
    cluster.refuse = refusing("create_pod", code)
    loop = Loop(cluster, new())
    assert await loop.turn() == 0
    assert await loop.turn() == pytest.approx(1)
    assert await loop.turn() == pytest.approx(1)
    assert cluster.count("create_pod") == 1
    assert loop.events.reasons().count("CreatePodRefused") == 1
    assert reasons(loop)["Progressing"] == "CreatePodRefused"
    loop.now += 1
    await loop.turn()
    assert cluster.count("create_pod") == 2
    assert await loop.turn() == pytest.approx(2)
    assert reasons(loop)["Stalled"] == "NotStalled"  # a namespace may be short of its service account for so long
    loop.now += 10
    while await loop.turn() == 0:
        pass
    assert reasons(loop)["Stalled"] == "CreatePodRefused"
    assert loop.events.reasons().count("CreatePodRefused") == 1
    cluster.refuse = refusing("nothing", code)
    loop.now += 4
    await loop.turn()
    assert KEY in loop.world.pods


TROUBLE = (0, 401, 404, 409, 429, 502, 503, 504)


@pytest.mark.parametrize("code", TROUBLE)
async def test_a_pod_whose_creation_keeps_failing_is_reported_when_it_lasts(code: int) -> None:
    cluster = FakeCluster(new())
    cluster.refuse = refusing("create_pod", code)
    loop = Loop(cluster, new())
    await pass_time(loop, 9)
    assert loop.events.reasons() == []
    assert "CreatePodRefused" not in reasons(loop).values()
    await pass_time(loop, 51)
    assert reasons(loop)["Stalled"] == "CreatePodRefused"
    assert "create_pod shop-0 is refused" in [c.message for c in loop.said().status.conditions]
    assert loop.events.reasons() == ["CreatePodRefused"]
    assert cluster.count("create_pod") <= 8
    assert cluster.count("server_status") <= 4
    cluster.refuse = refusing("nothing", code)
    await pass_time(loop, 31)
    assert cluster.holds_pod(*KEY)


@pytest.mark.parametrize("code", [403, *TROUBLE])
async def test_a_gate_that_can_not_be_closed_keeps_a_server_that_is_suspended_in_service(code: int) -> None:
    """Its Services still send it requests."""
    one = server(annotations={names.SUSPEND: "true"})
    cluster = Kubelet(one, pod())
    cluster.refuse = refusing("set_gate", code)
    loop = Loop(cluster, one, pod())
    await pass_time(loop, 60)
    assert cluster.latest(pod()).holds(names.GATE)
    assert FakeWildFly.opened[-1].done == []
    assert reasons(loop)["Stalled"] == "SetGateRefused"
    assert 2 < cluster.count("set_gate") <= 8


@pytest.mark.parametrize("code", [403, *TROUBLE])
async def test_a_gate_that_can_not_be_closed_keeps_no_pod_that_is_deleted_from_its_drain(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not in the endpoints any more, and ends soon, drained or not."""
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    one, going = server(), pod(leaving_for=0)
    cluster = Kubelet(one, going)
    cluster.refuse = refusing("set_gate", code)
    loop = Loop(cluster, one, going)
    await pass_time(loop, 15)
    assert FakeWildFly.opened[-1].done[:2] == ["shed", "suspend"]
    assert "stop" in FakeWildFly.opened[-1].done
    assert cluster.count("set_gate") <= 8


async def test_a_gate_of_a_deleted_pod_is_closed_before_the_drain_if_only_a_moment_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    one, going = server(), pod(leaving_for=0)
    cluster = Kubelet(one, going)
    cluster.refuse = refusing("set_gate", 503)
    loop = Loop(cluster, one, going)
    await pass_time(loop, 1)
    cluster.refuse = refusing("nothing", 0)
    await pass_time(loop, 1)
    assert not cluster.latest(going).holds(names.GATE)
    assert FakeWildFly.opened[-1].done in ([], ["shed"])


async def test_a_bug_is_not_mistaken_for_a_refusal() -> None:
    def fail(request: str, _: str) -> None:
        if request == "create_pod":
            raise KeyError("a bug")

    cluster = FakeCluster(new())
    cluster.refuse = fail
    with pytest.raises(KeyError):
        await Loop(cluster, new()).turn()


async def test_a_conflict_with_a_change_is_decided_again_immediately() -> None:
    """Another controller has changed the server since the watch reported it."""
    one = server(finalizers=())
    cluster = FakeCluster(one)
    seen = cluster.latest(one)
    cluster.put(seen)
    loop = Loop(cluster, seen)

    def refuse(request: str, _: str) -> None:
        if request == "set_finalizers" and cluster.count("set_finalizers") == 1:
            raise ClusterError(HTTPStatus.CONFLICT, "the object has been modified")

    cluster.refuse = refuse
    assert [await loop.turn() for _ in range(2)] == [0, 0]
    assert names.FINALIZER in cluster.latest(one).metadata.finalizers
    assert loop.events.reasons() == []


def out_of_date(**annotations: str) -> AppServer:
    return server(template=template("wildfly:2"), annotations=annotations)


@pytest.mark.parametrize("code", [0, 403, 409, 429, 503])
async def test_a_template_that_can_not_be_tried_holds_nothing_else_up(code: int) -> None:
    asked = out_of_date(**{names.SUSPEND: "true"})
    cluster = FakeCluster(asked, pod())
    cluster.refuse = refusing("check_pod", code)
    loop = Loop(cluster, asked, pod())
    await pass_time(loop, 11)
    assert not cluster.latest(pod()).holds(names.GATE)
    assert reasons(loop)["Stalled"] == "CheckTemplateRefused"
    assert cluster.count("check_pod") <= 6


async def test_two_refusals_are_paced_each_by_itself() -> None:
    asked = out_of_date(**{names.SUSPEND: "true"})
    cluster = FakeCluster(asked, pod())

    def refuse(request: str, name: str) -> None:
        refusing("set_gate", HTTPStatus.FORBIDDEN)(request, name)
        refusing("check_pod", HTTPStatus.FORBIDDEN)(request, name)

    cluster.refuse = refuse
    loop = Loop(cluster, asked, pod())
    for _ in range(20):
        await loop.turn()
    assert (cluster.count("set_gate"), cluster.count("check_pod")) == (1, 1)


async def test_a_template_is_tried_under_a_name_that_the_api_server_makes_up() -> None:
    cluster = FakeCluster(out_of_date(), pod())
    tried = []
    cluster.refuse = lambda request, name: tried.append(name) if request == "check_pod" else None
    await Loop(cluster, out_of_date(), pod()).turn()
    assert tried == ["shop-0-x7k2p"]


async def test_the_generated_name_is_not_reported() -> None:
    """Otherwise, each retry would be reported as new."""
    cluster = FakeCluster(out_of_date(), pod())

    def refuse(request: str, name: str) -> None:
        if request == "check_pod":
            raise ClusterError(HTTPStatus.FORBIDDEN, f'pods "{name}" is forbidden: no')

    cluster.refuse = refuse
    loop = Loop(cluster, out_of_date(), pod())
    while await loop.turn() == 0:
        pass
    told = next(c for c in loop.said().status.conditions if c.type == "Progressing")
    assert told.message == 'pods "shop-0" is forbidden: no'


async def test_other_words_for_the_same_refusal_are_written_once_a_minute() -> None:
    """A webhook that says from which port it was asked."""
    cluster = FakeCluster(new())
    tries = itertools.count()

    def refuse(request: str, _: str) -> None:
        if request == "create_pod":
            raise ClusterError(HTTPStatus.INTERNAL_SERVER_ERROR, f"read tcp 10.0.0.1:{40000 + next(tries)}: reset")

    cluster.refuse = refuse
    loop = Loop(cluster, new())
    for _ in range(110):
        await loop.turn()
        loop.now += 0.5
    assert next(tries) > 5
    assert cluster.count("server_status") == 3  # that it boots, what keeps it from that, and that it lasts
    for _ in range(20):
        await loop.turn()
        loop.now += 1
    assert cluster.count("server_status") == 3
    assert loop.events.reasons().count("CreatePodRefused") == 1


def of_memory(limit: str, used: str) -> ResourceQuota:
    amounts = QuotaStatus({"requests.memory": limit}, {"requests.memory": used})
    return ResourceQuota(Metadata("small", "shop"), status=amounts)


def asking(memory: str, image: str = "wildfly:2") -> dict[str, Any]:
    of = template(image)
    of["spec"]["containers"][0]["resources"] = {"requests": {"memory": memory}}
    return of


def exceeded(memory: str) -> str:
    return f"exceeded quota: small, requested: requests.memory={memory}, used: requests.memory=512Mi, limited: x"


@pytest.mark.parametrize(
    ("memory", "said", "begins"),
    [
        pytest.param("512Mi", exceeded("512Mi"), True, id="it fits once the old pod is gone"),
        pytest.param("600Mi", exceeded("600Mi"), False, id="it does not"),
        pytest.param("512Mi", exceeded("600Mi"), False, id="a LimitRange adds to it"),
        pytest.param(
            "512Mi", "exceeded quota: other, requested: pods=1, used: x", False, id="a quota that was not listed"
        ),
        pytest.param("512Mi", "exceeded quota: a wholly new message", False, id="words that can't be read"),
        pytest.param("512Mi", "failed quota: small: must specify limits.memory", False, id="no matter of size"),
    ],
)
async def test_a_server_is_taken_out_only_for_a_pod_that_a_quota_lets_in(memory: str, said: str, begins: bool) -> None:
    one = server(template=asking(memory))
    cluster = FakeCluster(one, pod())
    cluster.resource_quotas = [of_memory("512Mi", "512Mi")]
    cluster.pod_specs["shop-0"] = asking("512Mi")["spec"]

    def refuse(request: str, name: str) -> None:
        if request == "check_pod":
            raise ClusterError(HTTPStatus.FORBIDDEN, f'pods "{name}" is forbidden: {said}')

    cluster.refuse = refuse
    loop = Loop(cluster, one, pod())
    for _ in range(20):
        await loop.turn()
        loop.now += 1
    assert cluster.latest(pod()).holds(names.GATE) is not begins
    told = next(c for c in loop.said().status.conditions if c.type == "Stalled")
    assert (told.reason == "CheckTemplateRefused") is not begins
    assert begins or said in told.message


async def test_a_quota_that_was_filled_during_the_drain_takes_the_server_back_to_service() -> None:
    one = server(template=asking("512Mi"), suspend_timeout_seconds=60)
    cluster = FakeCluster(one, pod())
    cluster.resource_quotas = [of_memory("512Mi", "512Mi")]
    cluster.pod_specs["shop-0"] = asking("512Mi")["spec"]
    loop = Loop(cluster, one, pod())
    await loop.turn()
    FakeWildFly.opened[-1].says = report(active=1)
    for _ in range(15):
        await loop.turn()
        loop.now += 1
    assert not cluster.latest(pod()).holds(names.GATE)
    cluster.resource_quotas = [of_memory("256Mi", "512Mi")]
    FakeWildFly.opened[-1].says = report("SUSPENDED", shed=True)
    for _ in range(10):
        await loop.turn()
        loop.now += 0.1
    assert FakeWildFly.opened[-1].done[-1] == "unshed"
    assert cluster.count("delete_pod") == 0


async def test_of_two_servers_that_a_quota_has_room_to_replace_one_by_one_one_is_taken() -> None:
    """Both old pods count while they are there, and none of the new ones."""
    first, second = (server(name, template=asking("600Mi")) for name in ("shop-0", "shop-1"))
    cluster = FakeCluster(first, second, pod(), pod("shop-1"))
    cluster.resource_quotas = [of_memory("1150Mi", "1024Mi")]
    cluster.pod_specs = dict.fromkeys(("shop-0", "shop-1"), asking("512Mi")["spec"])
    loop = Loop(cluster, first, second, pod(), pod("shop-1"))
    for _ in range(40):
        await loop.turn()
        await loop.servers.reconcile("shop", "shop-1")
        loop.now += 1
    assert cluster.latest(pod()).metadata.deletion_timestamp or not cluster.latest(pod()).holds(names.GATE)
    assert cluster.latest(pod("shop-1")).holds(names.GATE)


@pytest.mark.parametrize("known_refused", [True, False])
async def test_the_room_of_a_replaced_pod_in_a_quota_is_for_its_successor_not_for_a_surge(known_refused: bool) -> None:
    """The quota has room for two pods: for as many as there are servers without the surge."""
    of = group(2, max_surge=1, template=template("wildfly:2"))
    first, second, surge = (
        server(f"shop-{n}", of=of, template=template("wildfly:2"), status=status("Starting"), annotations=of_surge)
        for n, of_surge in enumerate(({}, {}, {names.SURGE: "true"}))
    )
    cluster = FakeCluster(of, first, second, surge, pod(), pod("shop-1"))
    quota_is_full = [True]

    def refuse(request: str, name: str) -> None:
        full = quota_is_full[0] or all(cluster.holds_pod("shop", f"shop-{n}") for n in (0, 1))
        if request == "create_pod" and (full or cluster.holds_pod("shop", "shop-2")):
            raise ClusterError(HTTPStatus.FORBIDDEN, f"pods {name!r} is forbidden: exceeded quota: exact")

    cluster.refuse = refuse
    loop = Loop(cluster, first, second, surge, pod(), pod("shop-1"))
    loop.world.see_group(of)
    loop.world.taken_up[KEY_OF_GROUP] = 1

    async def surge_tries(turns: int) -> None:
        for _ in range(turns):
            await loop.servers.reconcile("shop", "shop-2")
            loop.now += 1

    if known_refused:
        await surge_tries(3)
    cluster.take("shop", "shop-1")
    loop.world.forget_pod(("shop", "shop-1"), "pod-shop-1")
    quota_is_full[0] = False  # the room comes back, and the surge server is there first
    await surge_tries(40)
    assert not cluster.holds_pod("shop", "shop-2")
    told = {c.type: c.reason for c in loop.world.servers["shop", "shop-2"].status.conditions if c.status == "True"}
    assert told["Progressing"] == ("CreatePodRefused" if known_refused else "WaitsForOthers")
    assert cluster.count("pod") <= 8  # in 40 s
    assert "Stalled" not in told
    await loop.servers.reconcile("shop", "shop-1")
    assert cluster.holds_pod("shop", "shop-1")
    await surge_tries(1)
    assert cluster.count("create_pod") == (4 if known_refused else 2)  # it tries again, and is refused


async def test_the_finalizer_stays_while_there_is_a_pod_that_the_watch_does_not_show() -> None:
    leaving = server(deleted=True)
    cluster = FakeCluster(leaving, pod())
    loop = Loop(cluster, leaving)
    await loop.turn()
    assert cluster.count("set_finalizers") == 0
    assert cluster.count("delete_pod") == 1
    loop.world.forget_pod(KEY, "pod-shop-0")
    cluster.take(*KEY)
    await loop.turn()
    assert cluster.count("set_finalizers") == 1


async def test_a_pod_that_has_lost_its_owner_is_adopted_and_serves_on() -> None:
    cluster = FakeCluster(server(), pod(owned=False))
    loop = Loop(cluster, server(), pod(owned=False))
    while await loop.turn() == 0:
        pass
    found = cluster.latest(pod())
    assert found.metadata.is_owned_by("uid-shop-0")
    assert found.holds(names.GATE)
    assert (loop.said().status.state, cluster.count("delete_pod")) == ("Running", 0)


async def test_no_credentials_go_to_a_pod_without_an_owner() -> None:
    cluster = FakeCluster(new(), stray())
    loop = Loop(cluster, new(), stray())
    for _ in range(5):
        await loop.turn()
    assert cluster.count("secret") == 0


async def test_pods_that_a_deleted_workload_has_left_are_found_and_replaced_one_by_one() -> None:
    """No watch reports them: they don't have the operator's label."""
    of = group(3)
    servers = [server(f"shop-{n}", of=of, status=status("Starting")) for n in range(3)]
    cluster = FakeCluster(of, *servers, *(stray(f"shop-{n}") for n in range(3)))

    def refuse(request: str, name: str) -> None:
        if request == "create_pod" and cluster.holds_pod("shop", name):
            raise ClusterError(HTTPStatus.CONFLICT, f"{name} exists")

    cluster.refuse = refuse
    loop = Loop(cluster, *servers)
    loop.world.see_group(of)
    loop.world.taken_up[KEY_OF_GROUP] = 1
    for _ in range(60):
        for n in range(3):
            await loop.servers.reconcile("shop", f"shop-{n}")
        loop.now += 0.5
    leaving = [n for n in range(3) if cluster.latest(stray(f"shop-{n}")).metadata.deletion_timestamp]
    assert leaving == [2]


async def test_the_end_of_a_pod_that_is_not_its_own_is_found() -> None:
    """Without our label, no watch reports it."""
    cluster = FakeCluster(new())
    loop = Loop(cluster, new(), pod(owner_uid="someone"))
    await loop.turn()
    assert cluster.count("create_pod") == 1


@pytest.mark.parametrize("found", [True, False])
async def test_an_answer_about_a_pod_that_comes_late_does_not_undo_what_the_watch_has_reported(found: bool) -> None:
    """Its end after it was found; its successor after none was found."""

    class Late(FakeCluster):
        async def pod(self, namespace: str, name: str) -> Pod | None:
            there = await super().pod(namespace, name)
            if found:
                loop.world.forget_pod(KEY, "pod-shop-0", 1_000)
            else:
                loop.world.see_pod(version(pod(uid="successor"), 1_000))
            return there

    loop = Loop(Late(server(), *([pod()] if found else [])), server(), pod())
    await loop.servers._look_at_pod(server())
    uids = [known.metadata.uid for known in loop.world.pods.values()]
    assert uids == ([] if found else ["successor"])


async def test_a_service_that_was_found_to_be_unconfirmable_is_not_asked_about_again() -> None:
    known = replace(drain(since=NOW - 5), unconfirmable=("headless",))
    one = server(annotations={names.SUSPEND: "true"}, status=status("PreSuspend", known))
    spec = {"publishNotReadyAddresses": True}
    cluster = FakeCluster(one, pod(gate=False), Service(Metadata("late", "shop"), spec))
    loop = Loop(cluster, one, pod(gate=False))
    loop.world.see_slice(endpoints("a", "headless", **{"pod-shop-0": True}))
    await loop.turn()
    assert cluster.count("service") == 0
    loop.world.see_slice(endpoints("b", "late", **{"pod-shop-0": True}))
    await loop.turn()
    assert cluster.count("service") == 1
    written = loop.said().status.suspend
    assert written is not None
    assert written.unconfirmable == ("headless", "late")


async def test_disruptive_acts_are_decided_by_a_live_read() -> None:
    """The watch has not yet reported that the suspend was withdrawn."""
    asked = server(annotations={names.SUSPEND: "true"})
    cluster = FakeCluster(server(), pod())
    loop = Loop(cluster, asked, pod())
    await loop.turn()
    assert cluster.count("set_gate") == 0
    assert loop.said().status.state == "Running"


@pytest.mark.parametrize(("withdrawal", "act"), [("Gate", "set_gate"), ("Termination", "delete_pod")])
@pytest.mark.parametrize("other_is_ready", [True, False])
async def test_a_roll_looks_live_at_the_others_before_it_takes_a_server_out(
    withdrawal: str, act: str, other_is_ready: bool
) -> None:
    """The watch has not yet reported that the other one no longer serves."""
    own, changed = group(2), template("wildfly:2")
    labels = {names.SERVER_GROUP: "shop"}
    one = server("shop-0", of=own, labels=labels, template=changed, withdrawal=withdrawal)
    other = server("shop-1", of=own, labels=labels)
    live = pod("shop-1") if other_is_ready else pod("shop-1", ready=False, unready_for=1)
    cluster = FakeCluster(own, one, other, pod("shop-0"), live)
    loop = Loop(cluster, one, other, pod("shop-0"), pod("shop-1"))
    loop.world.see_group(own)
    for _ in range(3):
        await loop.turn()
    assert cluster.count(act) == int(other_is_ready)


async def test_the_status_is_written_before_the_act() -> None:
    asked = server(annotations={names.SUSPEND: "true"})
    cluster = FakeCluster(asked, pod())
    loop = Loop(cluster, asked, pod())
    await loop.turn()
    assert [r for r in cluster.asked if r in ("server_status", "set_gate")] == ["server_status", "set_gate"]


async def test_a_restart_replaces_the_pod_that_was_there_and_no_other() -> None:
    asked = server(annotations={names.RESTART: "now"})
    cluster = FakeCluster(asked, pod())
    loop = Loop(cluster, asked, pod())
    await loop.turn()
    assert (loop.said().status.restart_pod_uid, loop.said().metadata.annotations) == ("pod-shop-0", {})
    loop.now += 1
    for _ in range(3):
        await loop.turn()
    assert loop.said().status.state == "PreSuspend"
    successor = pod(uid="successor")
    cluster.put(successor)
    loop.world.see_pod(replace(successor, metadata=replace(successor.metadata, resource_version="900")))
    await loop.turn()
    assert loop.said().status.state in ("Running", "Starting")
    assert FakeWildFly.opened[-1].says == report()


def set_again(cluster: FakeCluster, thing: Any, value: str) -> Callable[[str, str], None]:
    """The request is set again between the read and the removal."""

    def ask(request: str, _: str) -> None:
        if request == "remove_annotation" and cluster.count(request) == 1:
            latest: Any = cluster.latest(thing)
            own = replace(latest.metadata, annotations={names.RESTART: value})
            cluster.put(replace(latest, metadata=own))

    return ask


@pytest.mark.parametrize("value", ["once more", "now"])
async def test_a_restart_that_is_requested_again_in_time_is_not_lost(value: str) -> None:
    """The other one was for the pod that is gone by then."""
    cluster = FakeCluster(server(annotations={names.RESTART: "now"}), pod())
    loop = Loop(cluster, cluster.latest(server()), pod())
    cluster.refuse = set_again(cluster, server(), value)
    assert await loop.turn() == 0
    assert loop.said().metadata.annotations == {names.RESTART: value}
    successor = pod(uid="successor")
    cluster.put(successor)
    loop.world.see_pod(cluster.latest(successor))
    await loop.turn()
    assert (loop.said().status.restart_pod_uid, loop.said().metadata.annotations) == ("successor", {})


async def test_a_restart_whose_annotation_can_not_be_removed_restarts_once() -> None:
    asked = server(annotations={names.RESTART: "now"})
    cluster = FakeCluster(asked, pod())
    cluster.refuse = refusing("remove_annotation", HTTPStatus.FORBIDDEN)
    loop = Loop(cluster, asked, pod())
    await loop.turn()
    for number in range(5):
        successor = pod(uid=f"successor-{number}", gate=False)
        cluster.put(successor)
        loop.world.see_pod(cluster.latest(successor))
        for _ in range(5):
            loop.now += 31
            await loop.turn()
    assert cluster.latest(pod()).holds(names.GATE)
    assert cluster.count("remove_annotation") > 5
    assert loop.said().status.restart_pod_uid == "pod-shop-0"


UNDER_WAY = status("Suspending", drain(since=NOW - 9, suspending_since=NOW - 5))
OF_A_DRAIN = {names.SUSPEND: "-1", names.FORCE: "true"}


def in_effect(written: AppServerStatus, asked: str) -> bool:
    return bool(written.suspend and written.suspend.forced) if asked == names.FORCE else bool(written.restart_pod_uid)


@pytest.mark.parametrize("code", [0, 400, 403, 413, 422, 429, 500, 503])
@pytest.mark.parametrize(
    ("asked", "one", "at"),
    [
        pytest.param(names.FORCE, server(annotations=OF_A_DRAIN, status=UNDER_WAY), pod(gate=False), id="force"),
        pytest.param(names.RESTART, server(annotations={names.RESTART: "now"}), pod(), id="restart"),
    ],
)
async def test_a_request_stays_on_the_object_until_the_status_that_records_it_is_written(
    asked: str, one: AppServer, at: Pod, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment, a new process finds one or the other. The request is carried out all the same."""
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    cluster = Kubelet(one, at)
    cluster.refuse = refusing("server_status", code)
    loop = Loop(cluster, cluster.latest(one), cluster.latest(at))
    for number in range(60):
        with contextlib.suppress(ClusterError):
            await loop.turn()
        loop.now += 0.25
        if number == 40:
            assert cluster.asked.count("remove_annotation") == 0
            assert FakeWildFly.opened[-1].done
            cluster.refuse = refusing("nothing", 0)
        known = cluster.latest(one)
        assert asked in known.metadata.annotations or in_effect(known.status, asked)
    await pass_time(loop, 40)
    assert asked not in cluster.latest(one).metadata.annotations
    assert cluster.count("remove_annotation") == 1
    assert "ConsumeAnnotationRefused" not in loop.events.reasons()


async def test_a_request_that_waits_for_the_status_does_not_repeat_itself_and_wakes_nobody() -> None:
    asked = server(annotations={names.FORCE: "true"})
    cluster = FakeCluster(asked, pod())
    cluster.refuse = refusing("server_status", HTTPStatus.FORBIDDEN)
    loop = Loop(cluster, asked, pod())
    turns = 0
    until = loop.now + 120
    while loop.now < until:
        loop.now += await loop.turn() or 0
        turns += 1
    assert turns < 40
    assert loop.events.reasons().count("NothingToDo") == 1
    assert cluster.count("remove_annotation") == 0


async def test_a_restart_that_is_requested_again_while_the_status_is_refused_is_of_the_next_pod() -> None:
    asked = server(annotations={names.RESTART: "now"})
    cluster = FakeCluster(asked, pod())
    cluster.refuse = refusing("server_status", HTTPStatus.FORBIDDEN)
    loop = Loop(cluster, asked, pod())
    await pass_time(loop, 1)
    successor = pod(uid="successor")
    cluster.put(successor)
    loop.world.see_pod(cluster.latest(successor))
    cluster.put(asked_for(cluster.latest(asked), **{names.RESTART: "once more"}))
    loop.world.see_server(cluster.latest(asked))
    await pass_time(loop, 1)
    cluster.refuse = refusing("nothing", 0)
    await pass_time(loop, 10)
    known = cluster.latest(asked)
    assert (known.status.restart_pod_uid, known.metadata.annotations) == ("successor", {})


@pytest.mark.parametrize(
    ("annotations", "changes", "end"),
    [
        pytest.param({names.SUSPEND: "-1"}, {}, "suspend", id="suspend"),
        pytest.param({names.RESTART: "now"}, {}, "stop", id="restart"),
        pytest.param({names.RESTART: "now", names.SUSPEND: "-1"}, {}, "stop", id="restart and suspend"),
        pytest.param({}, {"desired_state": "Suspended"}, "suspend", id="desiredState: Suspended"),
        pytest.param({}, {"desired_state": "Stopped"}, "stop", id="desiredState: Stopped"),
        pytest.param({}, {"desired_state": "Stopped", "withdrawal": "Termination"}, "stop", id="with Termination"),
        pytest.param({}, {"deleted": True}, "stop", id="deletion"),
        pytest.param({}, {"template": template("wildfly:2")}, "stop", id="a new template"),
    ],
)
async def test_a_drain_that_is_requested_together_with_force_is_forced(
    annotations: dict[str, str], changes: dict[str, Any], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one command: nothing is in progress when the operator sees it."""
    monkeypatch.setattr("quiesce.control.admins.WildFly", Busy)
    one = server(annotations={**annotations, names.FORCE: "true"}, suspend_timeout_seconds=-1, **changes)
    cluster = Kubelet(one, pod())
    loop = Loop(cluster, one, pod())
    await pass_time(loop, 5)
    assert end in FakeWildFly.opened[-1].done
    assert names.FORCE not in cluster.latest(one).metadata.annotations
    assert "NothingToDo" not in loop.events.reasons()


@pytest.mark.parametrize(
    ("annotations", "state"),
    [
        pytest.param({names.SUSPEND: "false"}, "Running", id="suspend=false"),
        pytest.param({names.SPECIFIED_DELETE: "true"}, "Running", id="a mark for the next scale-down"),
        pytest.param({names.SUSPEND: "false"}, "Suspending", id="a suspend that is taken back"),
    ],
)
async def test_a_force_without_a_drain_says_so_whatever_is_set_with_it(annotations: dict[str, str], state: str) -> None:
    before = UNDER_WAY if state == "Suspending" else status(state)
    one = server(annotations={**annotations, names.FORCE: "true"}, status=before)
    at = pod(gate=state == "Running")
    cluster = FakeCluster(one, at)
    loop = Loop(cluster, one, at)
    await pass_time(loop, 3)
    assert cluster.latest(one).metadata.annotations == annotations
    assert loop.events.reasons().count("NothingToDo") == 1
    assert loop.said().status.suspend is None
    await pass_time(loop, 20)
    known = loop.said()
    assert known.status.suspend is None


async def test_what_may_be_over_soon_is_written_when_it_is_not() -> None:
    asked = server(
        annotations={names.SUSPEND: "true"}, status=status("PreSuspend", drain(since=NOW - 9)), pre_suspend_seconds=0
    )
    cluster = FakeCluster(asked, pod(gate=False))
    loop = Loop(cluster, asked, pod(gate=False))
    busy = report(active=2, shed=True)
    await loop.turn()
    FakeWildFly.opened[-1].says = busy
    loop.now += 1
    before = cluster.count("server_status")
    assert await loop.turn() == 0
    wake = await loop.turn()
    assert (cluster.count("server_status"), loop.said().status.state) == (before, "PreSuspend")
    assert wake is not None
    assert wake < 1.5
    began = loop.now
    loop.now += 1.5
    await loop.turn()
    assert (cluster.count("server_status"), loop.said().status.state) == (before + 1, "Suspending")
    written = loop.said().status.suspend
    assert written is not None
    assert written.suspending_since is not None
    assert written.suspending_since.timestamp() == pytest.approx(began)
    assert loop.events.reasons().count("Draining") == 1


class Obedient(FakeWildFly):
    """Does what it is asked for."""

    async def shed(self) -> None:
        await super().shed()
        self.says = report(self.says.suspend_state, shed=True)

    async def unshed(self) -> None:
        await super().unshed()
        self.says = report(self.says.suspend_state)

    async def suspend(self) -> None:
        await super().suspend()
        self.says = report("SUSPENDED", shed=self.says.shed)

    async def resume(self) -> None:
        await super().resume()
        self.says = report(shed=self.says.shed)


class Busy(Obedient):
    """Has requests in flight that don't end."""

    async def suspend(self) -> None:
        await super().suspend()
        self.says = report("SUSPENDING", active=3, shed=self.says.shed)

    async def report(self) -> Report:
        return replace(self.says, active_requests=3)


class Kubelet(FakeCluster):
    """A pod is ready when its gate is open."""

    async def set_gate(self, pod: Pod, gate: SetGate, now: Seconds) -> Pod:
        changed = await super().set_gate(pod, gate, now)
        others = tuple(c for c in changed.status.conditions if c.type != "Ready")
        ready = Condition("Ready", str(gate.open))
        return self._put(replace(changed, status=replace(changed.status, conditions=(*others, ready))))


def asked_for(one: AppServer, **annotations: str) -> AppServer:
    return replace(one, metadata=replace(one.metadata, annotations=annotations))


async def pass_time(loop: Loop, seconds: float) -> None:
    until = loop.now + seconds
    while loop.now < until:
        await loop.turn()
        loop.now += 0.25


@pytest.mark.parametrize(
    ("limit", "takes"), [(60, 20), (60, 45), (60, 57), (300, 90), (300, 290), (3600, 1000), (-1, 90), (-1, 3000)]
)
@pytest.mark.parametrize("path", ["suspend", "stop", "deletion"])
async def test_a_client_whose_request_was_under_way_at_the_shed_gets_the_margin_however_long_that_took(
    path: str, limit: int, takes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer leaves the connection open: the next request within `preSuspendSeconds` is answered too."""
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    changes: dict[str, dict[str, Any]] = {
        "suspend": {"annotations": {names.SUSPEND: "true"}},
        "stop": {"desired_state": "Stopped"},
        "deletion": {},
    }
    one = server(suspend_timeout_seconds=limit, **changes[path])
    hold = hold_seconds(one)
    at = pod(leaving_for=0 if path == "deletion" else None, grace=hold + 30)
    held = {**at.metadata.annotations, names.HOLD_SECONDS: str(hold)}
    at = replace(at, metadata=replace(at.metadata, annotations=held))
    cluster = Kubelet(one, at)
    loop = Loop(cluster, one, at)
    await loop.turn()
    busy = replace(FakeWildFly.opened[-1].says, active_requests=1)
    FakeWildFly.opened[-1].says = busy
    while FakeWildFly.opened[-1].done != ["shed"]:
        await loop.turn()
    FakeWildFly.opened[-1].says = replace(busy, shed=True, sheds_all=True)
    for _ in range(100):
        await loop.turn()
        loop.now += takes / 100
    FakeWildFly.opened[-1].says = report(shed=True)
    await pass_time(loop, one.spec.pre_suspend_seconds)
    assert FakeWildFly.opened[-1].done == ["shed"]
    assert cluster.count("delete_pod") == 0
    await pass_time(loop, 1.5)
    assert FakeWildFly.opened[-1].done[:2] == ["shed", "suspend"]


@pytest.mark.parametrize("code", [400, 403, 413, 422, 500])
async def test_a_status_that_can_not_be_written_keeps_a_server_from_nothing(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    one = server()
    cluster = Kubelet(asked_for(one, **{names.SUSPEND: "true"}), pod())
    cluster.refuse = refusing("server_status", code)
    loop = Loop(cluster, cluster.latest(one), pod())
    await pass_time(loop, 30)
    assert FakeWildFly.opened[-1].done == ["shed", "suspend"]
    assert not cluster.latest(pod()).holds(names.GATE)
    refused = loop.events.reasons().count("StatusRefused")
    assert 0 < refused == cluster.count("server_status") < 12
    assert {"Withdrawing", "Suspended"} <= set(loop.events.reasons())  # its Events continue
    # And back, with the status still refused.
    cluster.put(asked_for(cluster.latest(one)))
    loop.world.see_server(cluster.latest(one))
    await pass_time(loop, 30)
    assert FakeWildFly.opened[-1].done == ["shed", "suspend", "unshed", "resume"]
    assert cluster.latest(pod()).holds(names.GATE)
    # It is written when it can be.
    cluster.refuse = refusing("nothing", 0)
    cluster.put(asked_for(cluster.latest(one), **{names.SUSPEND: "true"}))
    loop.world.see_server(cluster.latest(one))
    await pass_time(loop, 40)
    assert loop.said().status.state == "Suspended"
    assert loop.said().status.suspend


async def test_a_server_whose_status_can_not_be_written_can_be_deleted() -> None:
    one = server(deleted=True)
    cluster = FakeCluster(one, pod(container=None))
    cluster.refuse = refusing("server_status", 422)
    loop = Loop(cluster, one, pod(container=None))
    await pass_time(loop, 2)
    assert cluster.count("delete_pod") == 1
    cluster.take("shop", "shop-0")
    loop.world.forget_pod(KEY, pod().metadata.uid)
    await pass_time(loop, 2)
    assert cluster.latest(one).metadata.finalizers == ()


class Picky(Kubelet):
    """Takes no status with a certain text in it."""

    async def apply_server_status(self, server: AppServer, status: dict[str, Any]) -> AppServer:
        if "unloved" in str(status):
            raise ClusterError(400, "unloved")
        return await super().apply_server_status(server, status)


async def test_a_reason_that_is_refused_in_mid_drain_is_forgotten_with_the_suspension(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quiesce.control.admins.WildFly", Obedient)
    one = server()
    cluster = Picky(asked_for(one, **{names.SUSPEND: "true"}), pod())
    loop = Loop(cluster, cluster.latest(one), pod())
    await pass_time(loop, 1)
    assert loop.said().status.state == "PreSuspend"
    cluster.put(asked_for(cluster.latest(one), **{names.SUSPEND: "true", names.SUSPEND_REASON: "unloved"}))
    loop.world.see_server(cluster.latest(one))
    await pass_time(loop, 4)
    assert "StatusRefused" in loop.events.reasons()
    cluster.put(asked_for(cluster.latest(one)))
    loop.world.see_server(cluster.latest(one))
    await pass_time(loop, 6)
    assert cluster.latest(pod()).holds(names.GATE)
    assert (loop.said().status.state, loop.said().status.suspend) == ("Running", None)
    assert cluster.latest(one).status.state == "Running"


async def test_an_api_server_that_gives_no_answer_is_tried_three_times_before_an_act() -> None:
    one = server(annotations={names.SUSPEND: "true"})
    cluster = FakeCluster(one, pod())
    cluster.refuse = refusing("server_status", 0)
    loop = Loop(cluster, one, pod())
    for _ in range(2):
        with pytest.raises(ClusterError):
            await loop.turn()
        assert (cluster.count("set_gate"), loop.events.notes) == (0, [])
    await loop.turn()
    assert (cluster.count("set_gate"), loop.events.reasons()) == (1, ["StatusRefused", "Withdrawing"])


async def test_a_new_member_of_a_group_that_is_ahead_says_what_it_waits_for() -> None:
    of = group(1)
    one = server(of=of, labels={names.SERVER_GROUP: "shop"}, status=AppServerStatus())
    loop = Loop(FakeCluster(one, of), one)
    loop.world.see_group(of)
    await loop.turn()
    assert [(note.reason, bool(note.message)) for note in loop.events.notes] == [("WaitsForGroup", True)]


async def test_the_node_of_a_pod_that_does_not_go_is_looked_at_now_and_then() -> None:
    at = pod(leaving_for=150, gate=False, container=None)
    at = replace(at, spec=replace(at.spec, node_name="node-2"))
    cluster = FakeCluster(server(), at)
    cluster.nodes["node-2"] = Node(Metadata("node-2"))
    loop = Loop(cluster, server(), at)
    for _ in range(5):
        await loop.turn()
    assert reasons(loop)["Stalled"] == "NodeLost"
    assert cluster.count("node") == 1
    del cluster.nodes["node-2"]
    loop.now += 10
    await loop.turn()
    assert (cluster.count("node"), cluster.count("delete_pod")) == (2, 1)


async def test_the_node_of_a_server_that_falls_silent_while_it_leaves_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(_: FakeWildFly) -> None:
        raise AdminError("Unreachable", "no answer")

    monkeypatch.setattr(FakeWildFly, "report", silent)
    at = pod(leaving_for=5, gate=False)
    cluster = FakeCluster(server(), replace(at, spec=replace(at.spec, node_name="node-2")))
    loop = Loop(cluster, server(), replace(at, spec=replace(at.spec, node_name="node-2")))
    await loop.turn()
    loop.now += SILENT_SECONDS - 1
    await loop.turn()
    assert cluster.count("node") == 0
    loop.now += 1
    await loop.turn()
    assert (cluster.count("node"), cluster.count("delete_pod")) == (1, 1)


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param(pod(), id="serves"),
        pytest.param(pod(gate=False, served="", up_for=60), id="starts"),
        pytest.param(pod(leaving_for=5, gate=False), id="leaves"),
        pytest.param(pod(leaving_for=GRACE + OVERDUE_SECONDS, gate=False, container=None), id="should be gone"),
    ],
)
async def test_a_pod_whose_end_no_watch_reports_is_missed_soon(stale: Pod) -> None:
    cluster = FakeCluster(server())
    loop = Loop(cluster, server(), stale)
    while not cluster.holds_pod(*KEY) and loop.now < NOW + 60:
        wake = await loop.turn()
        assert wake is not None, "nothing will happen to the pod any more"
        loop.now += wake
    assert loop.now <= NOW + SILENT_SECONDS + POD_KNOWN_SECONDS
    assert loop.world.pods[KEY].metadata.uid == cluster.latest(stale).metadata.uid != stale.metadata.uid


async def test_the_pod_of_a_server_that_does_not_respond_is_read_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: FakeWildFly) -> None:
        raise AdminError("Unreachable", "no answer")

    monkeypatch.setattr(FakeWildFly, "report", silent)
    cluster = FakeCluster(server(), pod())
    loop = Loop(cluster, server(), pod())
    for _ in range(60):
        await loop.turn()
        loop.now += 1
    opened = 1
    assert cluster.count("pod") == opened + 60 // POD_KNOWN_SECONDS
    assert loop.said().status.state == "Running"


async def test_a_pod_that_was_never_scheduled_and_does_not_go_has_no_node_to_look_at() -> None:
    at = pod(leaving_for=150, gate=False, container=None)
    at = replace(at, metadata=replace(at.metadata, finalizers=("example.com/keep",)))
    cluster = FakeCluster(server(), at)
    loop = Loop(cluster, server(), at)
    await loop.turn()
    stalled = next(c for c in loop.said().status.conditions if c.type == "Stalled")
    assert (stalled.reason, stalled.message) == (
        "DeletionOverdue",
        "the pod is held by its finalizers: example.com/keep",
    )


async def test_without_the_right_to_look_a_node_may_run_its_pods() -> None:
    at = pod(leaving_for=150, gate=False, container=None)
    at = replace(at, spec=replace(at.spec, node_name="node-2"))
    cluster = FakeCluster(server(), at)
    cluster.refuse = refusing("node", HTTPStatus.FORBIDDEN)
    loop = Loop(cluster, server(), at)
    await loop.turn()
    assert reasons(loop)["Stalled"] == "NodeLost"
    assert cluster.count("delete_pod") == 0


async def test_a_server_that_lies_is_reported_and_stopped_when_its_time_is_over() -> None:
    """It says success to everything, and does nothing."""
    one = server(desired_state="Stopped", suspend_timeout_seconds=4, pre_suspend_seconds=1)
    cluster = FakeCluster(one, pod(gate=False))
    loop = Loop(cluster, one, pod(gate=False))
    began, told = loop.now, set()
    while cluster.count("delete_pod") == 0:
        assert loop.now < began + 20
        await loop.turn()
        loop.now += 0.5
        told.add(reasons(loop)["Progressing"])
    assert "NoEffect" in told
    asked = FakeWildFly.opened[-1].done
    assert asked.count("shed") <= 6
    assert 1 < asked.count("suspend") <= 6
    outcome = loop.said().status.last_drain
    assert outcome
    assert outcome.outcome == "TimedOut"


async def test_a_server_that_lies_is_not_suspended_before_its_clients_were_asked_to_leave() -> None:
    """It is to stay: there is time to fix it."""
    one = server(annotations={names.SUSPEND: "4"})
    cluster = FakeCluster(one, pod(gate=False))
    loop = Loop(cluster, one, pod(gate=False))
    for _ in range(70):
        await loop.turn()
        loop.now += 0.5
    assert set(FakeWildFly.opened[-1].done) == {"shed"}
    assert reasons(loop)["Stalled"] == "NoEffect"


@pytest.mark.parametrize("refusals", [1, 9])
async def test_a_shed_that_is_refused_is_tried_once_more(refusals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be in the middle of something; without a shed, kept-alive connections get no warning."""
    one = server(annotations={names.SUSPEND: "20"})
    loop = Loop(FakeCluster(one, pod(gate=False)), one, pod(gate=False))
    asked: list[tuple[float, str]] = []
    told = set()

    async def shed(server: FakeWildFly) -> None:
        asked.append((loop.now, "shed"))
        if len(asked) <= refusals:
            raise AdminError("Unexpected", "not now")
        server.says = report(shed=True)

    async def suspend(_: FakeWildFly) -> None:
        asked.append((loop.now, "suspend"))

    monkeypatch.setattr(FakeWildFly, "shed", shed)
    monkeypatch.setattr(FakeWildFly, "suspend", suspend)
    while "suspend" not in (act for _, act in asked):
        assert loop.now < NOW + 20
        await loop.turn()
        loop.now += 0.25
        told |= {c.reason for c in loop.said().status.conditions if c.type == "Stalled" and c.status == "True"}
    assert [act for _, act in asked] == ["shed", "shed", "suspend"]
    assert told == set()
    assert refusals > 1 or asked[-1][0] - asked[-2][0] >= one.spec.pre_suspend_seconds
