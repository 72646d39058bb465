"""What a turn costs: a template may have a megabyte, and a group 10,000 servers."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from quiesce.control.groups import Groups
from quiesce.decide import podspec, probes
from quiesce.decide.group import decide_group, is_pending
from quiesce.decide.refusal import Refusal
from quiesce.model.resources import AppServer
from tests.unit.build import group, look_at_group, member, pod, template
from tests.unit.fake import FakeCluster, FakeRecorder, FakeWildFly
from tests.unit.test_servers import Loop

replace = msgspec.structs.replace


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each computation that reads a whole template was done."""
    monkeypatch.setattr("quiesce.control.admins.WildFly", FakeWildFly)
    done: Counter[str] = Counter()

    def count(name: str, original: Callable[..., Any]) -> None:
        def counted(*arguments: Any) -> Any:
            done[name] += 1
            return original(*arguments)

        monkeypatch.setattr(f"quiesce.decide.{name}", counted)

    count("podspec.template_hash", podspec.template_hash)
    count("target.build_pod", podspec.build_pod)
    count("probes._failing", probes._failing)
    return done


@pytest.mark.parametrize("image", ["wildfly:1", "wildfly:2"])
async def test_results_that_depend_on_a_template_alone_are_computed_once(work: Counter[str], image: str) -> None:
    """Neither the next turn nor a response or an event with the same template computes them again."""
    of = group(3, template=template(image))
    servers = [member(n, of).server for n in range(3)]
    pods = [pod(one.metadata.name) for one in servers]
    cluster = FakeCluster(of, *servers, *pods)
    loop = Loop(cluster, *(cluster.latest(one) for one in servers), *(cluster.latest(one) for one in pods))
    loop.world.see_group(cluster.latest(of))
    groups = Groups(cluster, loop.world, loop.clock, FakeRecorder())

    async def turn() -> None:
        await groups.reconcile("shop", "shop")
        for one in servers:
            await loop.servers.reconcile(*one.metadata.key)
            again = msgspec.json.decode(msgspec.json.encode(cluster.latest(one)), type=AppServer)
            version = str(int(again.metadata.resource_version) + 1)
            loop.world.see_server(replace(again, metadata=replace(again.metadata, resource_version=version)))
        loop.now += 1

    for _ in range(2):
        await turn()
    work.clear()
    for _ in range(3):
        await turn()
    assert not work


def test_many_refused_servers_take_time_in_proportion() -> None:
    passes = []

    class Refused(tuple[Refusal, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Refusal]:
            passes.append(self)
            return super().__iter__()

    o = look_at_group(group(50))
    plan = decide_group(o)
    refused = Refused(Refusal(act, "Refused", "no", retry_at=0) for act in plan.acts)
    assert not is_pending(replace(o, refused=refused), plan)
    assert len(passes) < 5
