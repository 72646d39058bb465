"""What is left of an operator is cleaned up, and nothing is touched while one runs."""

import asyncio
from collections.abc import Callable

import pytest

from quiesce.cluster.port import ClusterError, Held, Scale, ScaleStatus
from quiesce.control import cleanup as module
from quiesce.control.cleanup import OperatorRunsError, cleanup
from quiesce.control.lease import DURATION_SECONDS, Leadership
from quiesce.model import names
from quiesce.model.lease import Lease, LeaseSpec
from quiesce.model.objects import Metadata, Pod
from tests.unit.timeless import run

KEY = ("quiesce-system", "quiesce")
OTHER = "example.com/keep"


class FakeRemains:
    """`refuse`: called with the name of each server whose finalizers are written; it may raise."""

    refuse: Callable[[str], None]

    def __init__(self, *servers: Held, holder: str | None = None) -> None:
        self.servers = {held.metadata.key: held for held in servers}
        self.pods = ["quiesce-1"]
        self.has_no_crds = False
        self.looks = 0  # what comes of a look into the namespaces, when it is refused
        self.takes_over = False  # an operator that comes just before the lease is deleted
        self.scaled: list[str] = []
        self.refuse = lambda _: None
        self.lease_: Lease | None = None
        self.version = 0
        if holder is not None:
            self._put(LeaseSpec(holder, DURATION_SECONDS))

    def finalizers(self) -> dict[str, tuple[str, ...]]:
        return {"/".join(key): held.metadata.finalizers for key, held in self.servers.items()}

    async def lease(self, namespace: str, name: str) -> Lease | None:
        assert (namespace, name) == KEY
        return self.lease_

    async def write_lease(self, lease: Lease) -> Lease:
        assert self.lease_, "a Lease of a namespace that is gone"
        if lease.metadata["resourceVersion"] != self.lease_.metadata["resourceVersion"]:
            raise ClusterError(409, "the object has been modified")
        return self._put(lease.spec)

    async def delete_lease(self, lease: Lease) -> None:
        assert self.lease_
        if self.takes_over:
            self._put(LeaseSpec("quiesce-2", DURATION_SECONDS))
        if lease.metadata == self.lease_.metadata:
            assert self.lease_.holder == ""
            self.lease_ = None

    async def renew(self) -> None:
        """An operator at work."""
        while self.lease_:
            self._put(LeaseSpec(self.lease_.holder, DURATION_SECONDS))
            await asyncio.sleep(2)

    async def leave_out_forbidden(self) -> list[str]:
        if self.looks:
            raise ClusterError(self.looks, "no namespace is left to manage")
        return []

    async def scale_to_zero(self, namespace: str, deployment: str) -> Scale | None:
        self.scaled.append(f"{namespace}/{deployment}")
        return Scale(ScaleStatus("app=quiesce")) if deployment == "quiesce" else None

    async def selected_pods(self, namespace: str, selector: str) -> list[Pod]:
        assert (namespace, selector) == (KEY[0], "app=quiesce")
        return [Pod(Metadata(self.pods.pop()))] if self.pods else []

    async def held(self) -> list[Held]:
        await asyncio.sleep(0.01)
        if self.has_no_crds:
            raise ClusterError(404, "the server could not find the requested resource")
        return list(self.servers.values())

    async def keep_finalizers(self, held: Held, finalizers: list[str]) -> None:
        await asyncio.sleep(0.01)
        key = held.metadata.key
        self.refuse(held.metadata.name)
        self.servers[key] = server(held.metadata.name, *finalizers)

    def _put(self, spec: LeaseSpec) -> Lease:
        self.version += 1
        namespace, name = KEY
        self.lease_ = Lease({"namespace": namespace, "name": name, "resourceVersion": str(self.version)}, spec)
        return self.lease_


def server(name: str, *finalizers: str) -> Held:
    return Held(Metadata(name, "shop", finalizers=finalizers))


async def clean(cluster: FakeRemains, deployment: str = "", *, named: bool = True) -> int:
    def lost(reason: str) -> None:
        raise AssertionError(reason)

    leadership = Leadership(cluster, KEY, "cleanup-1", lambda: 0.0, lost)
    return await cleanup(cluster, leadership, KEY, deployment, named=named)


def test_only_the_operators_own_finalizer_goes() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), server("b", OTHER, names.FINALIZER), server("c", OTHER))
        assert await clean(cluster) == 0
        assert cluster.finalizers() == {"shop/a": (), "shop/b": (OTHER,), "shop/c": (OTHER,)}
        assert await clean(cluster) == 0  # and again

    run(story)


def test_the_operator_is_stopped_first_and_its_lease_goes_in_the_end() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="")
        assert await clean(cluster, "quiesce") == 0
        assert cluster.scaled == ["quiesce-system/quiesce"]
        assert cluster.pods == []
        assert cluster.lease_ is None
        assert cluster.finalizers() == {"shop/a": ()}

    run(story)


def test_a_deployment_that_is_gone_is_no_obstacle() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER))
        assert await clean(cluster, "elsewhere") == 0
        assert cluster.finalizers() == {"shop/a": ()}

    run(story)


def test_while_an_operator_renews_its_lease_nothing_is_touched() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="quiesce-1")
        operator = asyncio.create_task(cluster.renew())
        with pytest.raises(OperatorRunsError, match="quiesce-system/quiesce is held and renewed by quiesce-1"):
            await clean(cluster)
        operator.cancel()
        assert cluster.finalizers() == {"shop/a": (names.FINALIZER,)}
        assert cluster.lease_
        assert cluster.lease_.holder == "quiesce-1"

    run(story)


def test_an_operator_that_died_with_its_lease_is_waited_for_until_that_has_run_out() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="quiesce-1")
        began = asyncio.get_running_loop().time()
        assert await clean(cluster) == 0
        assert asyncio.get_running_loop().time() - began >= DURATION_SECONDS
        assert cluster.finalizers() == {"shop/a": ()}

    run(story)


def test_a_lease_that_is_not_there_says_nothing_unless_it_was_named() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER))
        with pytest.raises(OperatorRunsError, match=r"no Lease quiesce-system/quiesce.*--lease.*--operator-namespace"):
            await clean(cluster, "quiesce", named=False)
        assert cluster.scaled == []
        assert cluster.finalizers() == {"shop/a": (names.FINALIZER,)}
        there = FakeRemains(server("a", names.FINALIZER), holder="")
        assert await clean(there, named=False) == 0
        assert there.finalizers() == {"shop/a": ()}

    run(story)


def test_no_operator_gets_the_lease_in_the_meantime() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="")
        holders = []

        def look(_: str) -> None:
            holders.append(cluster.lease_ and cluster.lease_.holder)

        cluster.refuse = look
        assert await clean(cluster) == 0
        assert holders == ["cleanup-1"]

    run(story)


def test_one_that_was_changed_in_the_meantime_is_looked_at_again() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER))
        answers = iter([ClusterError(409, "the object has been modified")])

        def once(_: str) -> None:
            for error in answers:
                raise error

        cluster.refuse = once
        assert await clean(cluster) == 0
        assert cluster.finalizers() == {"shop/a": ()}

    run(story)


def test_one_that_is_gone_is_no_failure() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER))

        def gone(_: str) -> None:
            cluster.servers.clear()
            raise ClusterError(404, "not found")

        cluster.refuse = gone
        assert await clean(cluster) == 0

    run(story)


def test_where_the_crds_are_gone_nothing_is_left() -> None:
    async def story() -> None:
        cluster = FakeRemains(holder="")
        cluster.has_no_crds = True
        assert await clean(cluster, "quiesce") == 0
        assert cluster.lease_ is None

    run(story)


@pytest.mark.parametrize("status", [403, 404])
def test_where_no_namespace_or_no_crds_are_left_nothing_is_freed_and_the_lease_goes(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="")
        cluster.looks = status
        assert await clean(cluster, "quiesce") == 0
        assert cluster.scaled == ["quiesce-system/quiesce"]
        assert cluster.finalizers() == {"shop/a": (names.FINALIZER,)}
        assert cluster.lease_ is None

    run(story)
    assert "there are no AppServers to remove the finalizer from: no namespace is left" in caplog.text


def test_an_api_server_in_trouble_is_no_end() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="")
        cluster.looks = 500
        with pytest.raises(ClusterError):
            await clean(cluster, "quiesce")
        assert cluster.scaled == []

    run(story)


def test_a_lease_that_an_operator_has_taken_in_the_meantime_stays() -> None:
    async def story() -> None:
        cluster = FakeRemains(server("a", names.FINALIZER), holder="")
        cluster.takes_over = True
        assert await clean(cluster) == 0
        assert cluster.lease_
        assert cluster.lease_.holder == "quiesce-2"

    run(story)


def test_one_that_can_not_be_freed_is_named_and_the_rest_is_freed(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        cluster = FakeRemains(*(server(f"s-{number}", names.FINALIZER) for number in range(20)), holder="")

        def refuse(name: str) -> None:
            if name == "s-7":
                raise ClusterError(403, "denied by a policy")

        cluster.refuse = refuse
        assert await clean(cluster) == 1
        assert [name for name, left in cluster.finalizers().items() if left] == ["shop/s-7"]
        assert cluster.lease_
        assert cluster.lease_.holder == ""  # for the next run

    run(story)
    assert f"AppServer shop/s-7 still has the finalizer {names.FINALIZER}: denied by a policy" in caplog.text
    assert "AppServers left: 1" in caplog.text


def test_progress_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        assert await clean(FakeRemains(*(server(f"s-{number}", names.FINALIZER) for number in range(250)))) == 0

    with caplog.at_level("INFO", module.__name__):
        run(story)
    assert [f"{done} of 250 AppServers, 0 failed" in caplog.text for done in (100, 200, 250)] == [True] * 3
