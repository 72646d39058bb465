"""Two operators and one Lease: never do both act, and one of them soon does."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from quiesce.cluster.port import ClusterError
from quiesce.control import lease
from quiesce.control.lease import DEADLINE_SECONDS, DURATION_SECONDS, Leadership
from quiesce.model.lease import Lease, LeaseSpec
from tests.unit.build import NOW
from tests.unit.timeless import TimelessLoop, run

KEY = ("quiesce-system", "quiesce")
LATENCY_SECONDS = 0.01


class FakeLeases:
    """One Lease in memory. `trouble`: called before and after each write; it may raise, or never return."""

    def __init__(self) -> None:
        self.lease_: Lease | None = None
        self.version = 0
        self.writes: list[tuple[float, str]] = []

    async def lease(self, namespace: str, name: str) -> Lease | None:
        assert (namespace, name) == KEY
        await asyncio.sleep(LATENCY_SECONDS)
        return self.lease_

    async def write_lease(self, lease: Lease) -> Lease:
        await asyncio.sleep(LATENCY_SECONDS)
        written = lease.metadata.get("resourceVersion")
        found = self.lease_.metadata["resourceVersion"] if self.lease_ else None
        if written != found:
            raise ClusterError(404 if found is None else 409, "the object has been modified")
        return self.put(lease.spec)

    def put(self, spec: LeaseSpec) -> Lease:
        self.version += 1
        namespace, name = KEY
        metadata = {"namespace": namespace, "name": name, "resourceVersion": str(self.version)}
        self.lease_ = Lease(metadata, spec)
        self.writes.append((now(), spec.holder_identity))
        return self.lease_


class Line:
    """A process's way to the API server, which can break."""

    def __init__(self, leases: FakeLeases) -> None:
        self._leases = leases
        self.is_cut = False
        self.loses_answers = False

    async def lease(self, namespace: str, name: str) -> Lease | None:
        await self._pass()
        return await self._leases.lease(namespace, name)

    async def write_lease(self, lease: Lease) -> Lease:
        await self._pass()
        written = await self._leases.write_lease(lease)
        if self.loses_answers:
            self.loses_answers = False
            await asyncio.sleep(3600)
        return written

    async def _pass(self) -> None:
        if self.is_cut:
            await asyncio.sleep(3600)


class Replica:
    """One operator: it acts from when it has the Lease until it is stopped."""

    def __init__(self, leases: FakeLeases, name: str, wall: Callable[[], float] = lambda: NOW + now()) -> None:
        self.name = name
        self.line = Line(leases)
        self.reason = ""
        self.acted: list[float] = []  # from, until
        self._led = asyncio.Event()
        self.leadership = Leadership(self.line, KEY, name, wall, self._lost)
        self._task = asyncio.create_task(self._run())

    @property
    def acts(self) -> bool:
        return len(self.acted) == 1

    async def leads(self) -> float:
        """The time at which it began to act."""
        async with asyncio.timeout(60):
            await self._led.wait()
        return self.acted[0]

    def kill(self) -> None:
        """SIGKILL."""
        self._stop()
        self._task.cancel()
        if self.leadership._deadline:
            self.leadership._deadline.cancel()

    async def terminate(self) -> None:
        """SIGTERM."""
        self.kill()
        await asyncio.wait({self._task})
        await self.leadership.release()

    async def _run(self) -> None:
        await self.leadership.acquire()
        self.acted.append(now())
        self._led.set()
        await self.leadership.keep()

    def _lost(self, reason: str) -> None:
        self.reason = reason
        self.kill()

    def _stop(self) -> None:
        if self.acts:
            self.acted.append(now())


def now() -> float:
    return asyncio.get_running_loop().time()


def story(told: Callable[[FakeLeases], Any]) -> Callable[[], None]:
    """A test in a time of its own."""

    def test() -> None:
        run(lambda: told(FakeLeases()))

    test.__doc__, test.__name__ = told.__doc__, told.__name__
    return test


@story
async def test_the_first_leads_immediately_and_the_second_waits_and_says_for_whom(leases: FakeLeases) -> None:
    began = now()
    one = Replica(leases, "one")
    assert await one.leads() - began < 1
    two = Replica(leases, "two")
    await asyncio.sleep(600)
    assert one.acts
    assert not two.acted
    assert two.leadership.waits_for == "one"
    assert leases.lease_
    assert leases.lease_.spec.lease_transitions == 1


@story
async def test_two_that_start_together_do_not_both_lead(leases: FakeLeases) -> None:
    one, two = Replica(leases, "one"), Replica(leases, "two")
    await asyncio.sleep(60)
    assert [one.acts, two.acts].count(True) == 1
    assert [one.acted, two.acted].count([]) == 1


@story
async def test_who_is_killed_is_followed_when_its_lease_has_run_out(leases: FakeLeases) -> None:
    for wait in range(20):  # wherever between two renewals it happens
        one = Replica(leases, f"one-{wait}")
        await one.leads()
        two = Replica(leases, f"two-{wait}")
        await asyncio.sleep(5 + wait / 10)
        one.kill()
        took = await two.leads() - one.acted[1]
        assert DEADLINE_SECONDS < took < DURATION_SECONDS + 2
        await two.terminate()


@story
async def test_who_is_terminated_is_followed_immediately(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    two = Replica(leases, "two")
    await asyncio.sleep(5)
    await one.terminate()
    assert await two.leads() - one.acted[1] < 2


@story
async def test_a_renewal_that_was_given_up_and_lands_does_not_keep_the_lease_from_being_released(
    leases: FakeLeases,
) -> None:
    one = Replica(leases, "one")
    await one.leads()
    taken, read = leases.lease_, leases.lease
    assert taken

    async def read_then_renewed(namespace: str, name: str) -> Lease | None:
        found = await read(namespace, name)
        leases.lease = read  # type: ignore[method-assign]
        leases.put(taken.spec)
        return found

    leases.lease = read_then_renewed  # type: ignore[method-assign]
    await one.terminate()
    assert leases.lease_
    assert leases.lease_.holder == ""


@story
async def test_a_container_that_was_started_again_takes_its_own_lease_back_immediately(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    await asyncio.sleep(5)
    one.kill()
    again = Replica(leases, "one")
    assert await again.leads() - one.acted[1] < 1
    assert leases.lease_
    assert leases.lease_.spec.lease_transitions == 1


@story
async def test_clocks_that_are_hours_apart_or_run_backwards_change_nothing(leases: FakeLeases) -> None:
    one = Replica(leases, "one", wall=lambda: NOW - 3 * now())
    await one.leads()
    two = Replica(leases, "two", wall=lambda: NOW + 36000 + now())
    await asyncio.sleep(600)
    assert one.acts
    assert not two.acted
    one.kill()
    assert DEADLINE_SECONDS < await two.leads() - one.acted[1] < DURATION_SECONDS + 2


@story
async def test_who_is_cut_off_stops_well_before_another_leads(leases: FakeLeases) -> None:
    for wait in range(20):
        one = Replica(leases, f"one-{wait}")
        await one.leads()
        two = Replica(leases, f"two-{wait}")
        await asyncio.sleep(5 + wait / 10)
        one.line.is_cut = True
        assert await two.leads() - one.acted[1] >= DURATION_SECONDS - DEADLINE_SECONDS - 1
        assert "could not be renewed for 8 s: no answer within 2 s" in one.reason
        await two.terminate()


@story
async def test_a_renewal_whose_answer_is_lost_loses_nothing(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    two = Replica(leases, "two")
    for _ in range(5):
        await asyncio.sleep(20)
        one.line.loses_answers = True
    await asyncio.sleep(60)
    assert one.acts
    assert not two.acted


@story
async def test_a_short_break_loses_nothing(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    two = Replica(leases, "two")
    for _ in range(5):
        one.line.is_cut = True
        await asyncio.sleep(4)
        one.line.is_cut = False
        await asyncio.sleep(10)
    assert one.acts
    assert not two.acted


@story
async def test_who_stood_still_stops_before_it_does_anything_else(leases: FakeLeases) -> None:
    """SIGSTOP, or a machine that was paused: its clock has jumped when it continues."""
    one = Replica(leases, "one")
    await one.leads()
    steps: list[float] = []

    async def act() -> None:
        while one.acts:
            await asyncio.sleep(0.5)
            if one.acts:
                steps.append(now())

    acting = asyncio.create_task(act())
    await asyncio.sleep(5.25)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TimelessLoop)
    stood = now()
    loop.now += 60
    await acting
    assert not one.acts
    assert max(steps) <= stood
    assert "could not be renewed" in one.reason


@story
async def test_a_lease_that_another_has_taken_is_lost_immediately(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    await asyncio.sleep(5)
    leases.put(LeaseSpec(holder_identity="two", lease_duration_seconds=DURATION_SECONDS))
    taken = now()
    await asyncio.sleep(5)
    assert one.acted[1] - taken < lease.RENEW_SECONDS + 1
    assert one.reason == "lost the lease quiesce-system/quiesce: two holds it"


async def restored(leases: FakeLeases, backup: LeaseSpec | None) -> str:
    """What the holder ends with when etcd is restored from a backup with this Lease."""
    leases.version = 1000
    one = Replica(leases, "one")
    await one.leads()
    await asyncio.sleep(10)
    leases.version, leases.lease_ = 400, None
    if backup:
        leases.put(backup)
    await asyncio.sleep(DEADLINE_SECONDS)
    assert not one.acts
    return one.reason


@story
async def test_after_a_restore_of_etcd_with_its_lease_the_holder_starts_again(leases: FakeLeases) -> None:
    assert "restore of etcd" in await restored(leases, LeaseSpec(holder_identity="one"))


@story
async def test_after_a_restore_of_etcd_without_a_lease_the_holder_starts_again(leases: FakeLeases) -> None:
    assert "restore of etcd" in await restored(leases, None)


@story
async def test_a_deleted_lease_is_recreated_by_its_holder(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    await one.leads()
    two = Replica(leases, "two")
    await asyncio.sleep(5)
    leases.lease_ = None
    await asyncio.sleep(60)
    assert one.acts
    assert not two.acted
    leases.lease_ = None
    one.kill()
    assert await two.leads() - one.acted[1] < DURATION_SECONDS + 2


@story
async def test_two_that_find_it_expired_do_not_both_lead(leases: FakeLeases) -> None:
    leases.put(LeaseSpec(holder_identity="gone", lease_duration_seconds=DURATION_SECONDS))
    one, two = Replica(leases, "one"), Replica(leases, "two")
    await asyncio.sleep(60)
    assert [one.acts, two.acts].count(True) == 1
    assert [one.acted, two.acted].count([]) == 1


@story
async def test_an_api_server_that_does_not_answer_is_waited_for(leases: FakeLeases) -> None:
    one = Replica(leases, "one")
    one.line.is_cut = True
    await asyncio.sleep(60)
    assert not one.acted
    assert not one.leadership.waits_for  # it knows nothing yet: not ready
    one.line.is_cut = False
    back = now()
    assert await one.leads() - back < 5


def test_the_deadline_leaves_time_for_what_is_in_flight() -> None:
    assert lease.RENEW_SECONDS + 2 * lease.REQUEST_SECONDS < DEADLINE_SECONDS  # one renewal may fail
    assert DEADLINE_SECONDS + lease.REQUEST_SECONDS < DURATION_SECONDS


def test_all_that_is_waited_for_ends() -> None:
    """The loop of these tests itself: one that waits for nothing fails instead of hanging."""

    async def hang() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="everything waits"):
        run(hang)
