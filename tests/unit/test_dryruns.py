"""Dry runs of new pods: whom one answer counts for, for how long, and who waits for it."""

import asyncio
import weakref
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from quiesce.cluster.clock import Clock
from quiesce.cluster.port import ClusterError
from quiesce.cluster.world import World
from quiesce.control.admins import Admins
from quiesce.control.dryruns import DryRuns, UnansweredError
from quiesce.control.queue import Queue
from quiesce.control.servers import Servers
from quiesce.decide.podspec import build_pod, hash_of
from quiesce.model import names
from quiesce.model.objects import Condition, Pod
from quiesce.model.plan import CheckTemplate
from quiesce.model.resources import AppServer, GroupService, SecretRef
from quiesce.model.times import Seconds, moment
from tests.unit import timeless
from tests.unit.build import GRACE, NOW, group, pod, server, spec, template
from tests.unit.fake import FakeCluster, FakeRecorder, FakeWildFly, refusing
from tests.unit.test_servers import Loop

replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.control.admins.WildFly", FakeWildFly)


def changed(count: int, **others: Any) -> list[AppServer]:
    """Servers whose pods are of an earlier template."""
    return [server(f"shop-{n}", template=template("wildfly:2"), **others) for n in range(count)]


class Manifest(dict[str, Any]):
    """One that can have weak references."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class SlowCluster(FakeCluster):
    """A webhook hangs, and its timeout is an error."""

    hangs_for: Seconds = 5

    async def try_pod(self, manifest: dict[str, Any]) -> dict[str, Any]:
        await super().try_pod(manifest)
        await asyncio.sleep(self.hangs_for)
        raise ClusterError(HTTPStatus.INTERNAL_SERVER_ERROR, "failed calling webhook: context deadline exceeded")


def running(servers: list[AppServer], kind: type[FakeCluster] = FakeCluster) -> tuple[FakeCluster, Loop]:
    pods = [pod(one.metadata.name) for one in servers]
    return (cluster := kind(*servers, *pods)), Loop(cluster, *servers, *pods)


async def turns(loop: Loop, servers: list[AppServer], count: int) -> None:
    for _ in range(count):
        for one in servers:
            await loop.servers.reconcile(*one.metadata.key)
        loop.now += 1


def told(loop: Loop, one: AppServer, kind: str = "Progressing") -> Condition:
    conditions = loop.world.servers[one.metadata.key].status.conditions
    return next(condition for condition in conditions if condition.type == kind)


async def test_servers_with_the_same_template_share_an_acceptance() -> None:
    servers = changed(36)
    cluster, loop = running(servers)
    await turns(loop, servers, 1)
    assert cluster.count("check_pod") == 1


async def test_servers_with_the_same_template_share_a_refusal_and_each_names_itself_in_it() -> None:
    servers = changed(36)
    cluster, loop = running(servers)

    def refuse(request: str, name: str) -> None:
        if request == "check_pod":
            raise ClusterError(HTTPStatus.FORBIDDEN, f'pods "{name}" is forbidden: no')

    cluster.refuse = refuse
    await turns(loop, servers, 30)
    assert {told(loop, one).message for one in servers} == {f'pods "shop-{n}" is forbidden: no' for n in range(36)}
    assert 3 < cluster.count("check_pod") < 8  # as often as for one server


async def test_servers_whose_pods_have_other_labels_are_checked_on_their_own() -> None:
    """A policy may require a label."""
    first, second = changed(1, labels={"team": "a"})[0], changed(2)[1]
    cluster, loop = running([first, second])

    def refuse(request: str, name: str) -> None:
        if name.startswith("shop-1"):
            refusing("check_pod", HTTPStatus.FORBIDDEN)(request, name)

    cluster.refuse = refuse
    await turns(loop, [first, second], 20)
    assert not cluster.latest(pod()).holds(names.GATE)
    assert cluster.latest(pod("shop-1")).holds(names.GATE)


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({"suspend_timeout_seconds": 3600}, id="another hold and grace period"),
        pytest.param({"admin": replace(spec().admin, port="http")}, id="another admin port"),
        pytest.param({"admin": replace(spec().admin, credentials_secret_ref=SecretRef("b"))}, id="another Secret"),
        pytest.param({"labels": {"team": "shop-1"}}, id="a label that has its name"),
    ],
)
async def test_servers_with_the_same_template_whose_pods_differ_are_checked_on_their_own(others: Any) -> None:
    first, second = changed(1)[0], changed(2, **others)[1]
    cluster, loop = running([first, second])
    await turns(loop, [first, second], 1)
    assert cluster.count("check_pod") == 2


async def test_what_names_a_server_does_not_make_its_pod_another() -> None:
    of = group(3, service=GroupService(ports=({"port": 80},)))
    servers = [
        server(
            f"shop-{n}", of=of, labels={names.SERVER_GROUP: "shop", "pod": f"shop-{n}"}, template=template("wildfly:2")
        )
        for n in range(3)
    ]
    cluster = FakeCluster()
    dry_runs = DryRuns(cluster)
    for one in servers:
        await dry_runs.answer(CheckTemplate(build_pod(one, of), hash_of(one.spec)))
    assert cluster.count("check_pod") == 1


@pytest.mark.parametrize("after", [15, 30, 300])
def test_a_policy_that_is_tightened_during_a_rollout_keeps_the_next_server(after: int) -> None:
    async def story() -> None:
        first, second = changed(2)
        cluster, loop = running([first, second])
        await turns(loop, [second], 2)
        assert cluster.count("check_pod") == 1
        cluster.refuse = refusing("check_pod", HTTPStatus.FORBIDDEN)
        loop.now += after
        await asyncio.sleep(after)
        await turns(loop, [first], 40)
        assert cluster.latest(pod()).holds(names.GATE)
        assert told(loop, first, "Stalled").reason == "CheckTemplateRefused"

    timeless.run(story)


def deleted(known: Pod, now: Seconds) -> Pod:
    ends = moment(now + GRACE)
    return replace(
        known, metadata=replace(known.metadata, deletion_timestamp=ends, deletion_grace_period_seconds=GRACE)
    )


@pytest.mark.parametrize("hangs", [5, 30])
@pytest.mark.parametrize(("count", "after", "victim"), [(1, 0.5, 0), (8, 70, 3), (36, 0.5, 35), (36, 50, 7)])
def test_a_deletion_is_noticed_while_a_webhook_hangs(count: int, after: float, victim: int, hangs: int) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        servers = changed(count)
        cluster, start = SlowCluster(*servers, *(pod(one.metadata.name) for one in servers)), loop.time()
        cluster.hangs_for = hangs
        world = World()
        for one in servers:
            world.see_server(one)
            world.see_pod(cluster.latest(pod(one.metadata.name)))
        clock = Clock(lambda: NOW + loop.time() - start, loop.time)
        reconciles = Servers(cluster, world, Admins(cluster), clock, FakeRecorder())
        queue = Queue(lambda key: reconciles.reconcile(*key[1:]), loop.time)
        for one in servers:
            queue.add(("server", *one.metadata.key))
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(after)
        name = f"shop-{victim}"
        cluster.put(deleted(cluster.latest(pod(name)), clock.now()))
        world.see_pod(cluster.latest(pod(name)))
        queue.add(("server", "shop", name))
        await asyncio.sleep(3)
        assert not cluster.latest(pod(name)).holds(names.GATE)
        task.cancel()

    timeless.run(story)


def test_a_slow_answer_is_not_lost() -> None:
    """It arrives while nothing waits for it."""

    async def story() -> None:
        servers = changed(3)
        cluster, loop = running(servers, SlowCluster)
        await turns(loop, servers, 1)  # each waits for a second
        await asyncio.sleep(4)
        for one in servers * 2:
            await loop.servers.reconcile(*one.metadata.key)
        assert cluster.count("check_pod") == 1
        assert {told(loop, one).reason for one in servers} == {"CheckTemplateRefused"}

    timeless.run(story)


def manifest(name: str = "shop-0") -> CheckTemplate:
    return CheckTemplate(build_pod(server(name)), hash_of(server().spec))


def test_an_answer_is_forgotten_once_it_counts_no_longer() -> None:
    """A pod can have a megabyte, and the next check may be weeks later."""

    async def story() -> None:
        cluster, made = FakeCluster(), weakref.WeakSet[Manifest]()

        async def try_pod(manifest: dict[str, Any]) -> dict[str, Any]:
            made.add(pod := Manifest(manifest))
            return pod

        cluster.try_pod = try_pod  # type: ignore[method-assign]
        dry_runs = DryRuns(cluster)
        await dry_runs.answer(manifest())
        assert len(made) == 1
        await asyncio.sleep(60)
        assert len(made) == 0

    timeless.run(story)


def test_a_dry_run_that_is_cancelled_is_begun_again() -> None:
    async def story() -> None:
        cluster = SlowCluster()
        dry_runs = DryRuns(cluster)
        for count in (1, 2):
            before = asyncio.all_tasks()
            with pytest.raises(UnansweredError):
                await dry_runs.answer(manifest())
            assert cluster.count("check_pod") == count
            (task,) = asyncio.all_tasks() - before
            task.cancel()
            with pytest.raises(UnansweredError):  # not CancelledError, which would end the caller
                await dry_runs.answer(manifest())
            await asyncio.sleep(1)

    timeless.run(story)
