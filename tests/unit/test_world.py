"""The cache of what the watches have reported."""

from typing import Any, TypeVar

import msgspec
import pytest

from quiesce.cluster.port import Listed, Snapshot
from quiesce.cluster.world import World
from quiesce.model import names
from quiesce.model.objects import (
    Budget,
    Condition,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    Event,
    InvolvedObject,
    Metadata,
    Pod,
    PodIP,
    Service,
    TargetRef,
)
from quiesce.model.resources import AppServer, ServerGroup
from quiesce.model.times import Seconds, moment
from tests.unit.build import NOW, group, pod, server, template

KEY = ("shop", "shop-0")
T = TypeVar("T")
replace = msgspec.structs.replace


def version(thing: Any, number: int) -> Any:
    return replace(thing, metadata=replace(thing.metadata, resource_version=str(number)))


def endpoints(name: str, service: str, **ready: bool | None) -> EndpointSlice:
    """A slice; `ready` are its pods' UIDs, and what it says of them."""
    return EndpointSlice(
        Metadata(name, "shop", labels={"kubernetes.io/service-name": service}),
        tuple(Endpoint(EndpointConditions(says), TargetRef(uid)) for uid, says in ready.items()),
    )


def killing(
    uid: str = "one",
    at: Seconds = NOW,
    message: str = "Container wildfly failed liveness probe, will be restarted",
    path: str = "spec.containers{wildfly}",
) -> Event:
    return Event(Metadata("shop-0.1", "shop"), InvolvedObject(uid, path), message, moment(at))


@pytest.mark.parametrize(
    ("event", "at"),
    [
        pytest.param(killing(), NOW, id="a failed probe"),
        pytest.param(killing(message="Container wildfly definition changed, will be restarted"), NOW, id="an image"),
        pytest.param(killing(message="Container wildfly resize requires restart"), NOW, id="other resources"),
        pytest.param(killing(message="Stopping container wildfly"), None, id="the end of a pod"),
        pytest.param(killing(path="spec.containers{proxy}"), None, id="another container"),
        pytest.param(killing(path=""), None, id="no container"),
        pytest.param(killing(uid="two"), None, id="another pod"),
        pytest.param(
            replace(killing(), metadata=Metadata("forged", "attacker")), None, id="an Event of another namespace"
        ),
    ],
)
def test_the_kubelet_says_that_it_restarts_a_container(event: Event, at: Seconds | None) -> None:
    world, one = World(), pod(uid="one")
    world.see_pod(one)
    world.see_event(event)
    assert world.killed_at(one, "wildfly") == at


STOPPING = killing(message="Stopping container wildfly")


@pytest.mark.parametrize("event_first", [True, False])
def test_a_container_without_a_cause_restarts_in_place_if_its_sandbox_is_replaced(event_first: bool) -> None:
    """Of its containers, the kubelet says the same as of those of a pod that ends."""
    world, started = World(), Condition("PodReadyToStartContainers", "True")
    whole = version(pod(uid="one", conditions=(started,)), 1)
    changed = version(pod(uid="one", conditions=(replace(started, status="False"),)), 2)
    world.see_pod(whole)
    if event_first:
        world.see_event(STOPPING)
    world.see_pod(changed)
    if not event_first:
        world.see_event(STOPPING)
    assert world.killed_at(world.pods[KEY], "wildfly") == NOW
    world.see_pod(version(whole, 3))
    assert world.killed_at(world.pods[KEY], "wildfly") is None, "its new sandbox is there"


def test_a_restart_is_reported_once_and_forgotten_with_its_pod() -> None:
    world, one = World(), pod(uid="one")
    world.see_pod(one)
    assert world.see_event(killing()) == KEY
    assert world.see_event(killing()) is None, "the watch has begun again"
    assert world.see_event(killing(at=NOW + 9)) == KEY
    assert world.see_event(replace(killing(at=NOW + 10), metadata=Metadata("forged", "attacker"))) is None
    world.see_pod(version(pod(uid="two"), 1))
    assert world.see_event(killing()) is None
    assert world.killed_at(one, "wildfly") is None


@pytest.mark.parametrize(
    ("slices", "routes"),
    [
        pytest.param([], (), id="no slices"),
        pytest.param([endpoints("a", "shop", one=True)], ("shop",), id="ready"),
        pytest.param([endpoints("a", "shop", one=False)], (), id="not ready"),
        pytest.param([endpoints("a", "shop", one=None)], ("shop",), id="unknown is ready"),
        pytest.param([endpoints("a", "shop", two=True)], (), id="another pod's"),
        pytest.param(
            [endpoints("a", "shop", one=True), endpoints("b", "shop", one=True)],
            ("shop",),
            id="two slices of a Service",
        ),
        pytest.param(
            [endpoints("a", "shop", one=True), endpoints("b", "admin", one=True)], ("admin", "shop"), id="two Services"
        ),
        pytest.param([endpoints("a", "shop", one=True), endpoints("a", "shop")], (), id="taken out of its slice"),
        pytest.param(
            [endpoints("a", "shop", one=True), endpoints("b", "shop", one=True), endpoints("a", "shop", one=False)],
            ("shop",),
            id="still in the other slice",
        ),
        pytest.param([EndpointSlice(Metadata("a", "shop"))], (), id="a slice without endpoints"),
        pytest.param([endpoints("a", "", one=True)], (), id="a slice of no Service"),
        pytest.param([endpoints("a", "shop", one=True), endpoints("a", "", one=True)], (), id="that left its Service"),
    ],
)
def test_routes_are_the_services_that_have_the_pod_as_ready(
    slices: list[EndpointSlice], routes: tuple[str, ...]
) -> None:
    world = World()
    for one in slices:
        world.see_slice(one)
    assert world.routes(pod(uid="one")) == routes


def by_hand(*addresses: str, ready: bool | None = True, uid: str | None = None) -> EndpointSlice:
    """A slice as people write it: without `targetRef`, or with one that says no more than a name."""
    target = None if uid is None else TargetRef(uid)
    endpoint = Endpoint(EndpointConditions(ready), target, addresses)
    return EndpointSlice(Metadata("by-hand", "shop", labels={"kubernetes.io/service-name": "shop"}), (endpoint,))


@pytest.mark.parametrize(
    ("written", "routes"),
    [
        pytest.param(by_hand("10.0.0.7"), ("shop",), id="its address"),
        pytest.param(by_hand("10.0.0.6", "10.0.0.7"), ("shop",), id="among others"),
        pytest.param(by_hand("10.0.0.7", uid=""), ("shop",), id="a reference without a UID"),
        pytest.param(by_hand("FD00:0::7"), ("shop",), id="its other address, spelt otherwise"),
        pytest.param(by_hand("10.0.0.7", ready=None), ("shop",), id="one that does not say that it is ready"),
        pytest.param(by_hand("10.0.0.7", ready=False), (), id="not ready"),
        pytest.param(by_hand("10.0.0.70"), (), id="another address"),
        pytest.param(by_hand("shop.example"), (), id="a host name"),
        pytest.param(by_hand("10.0.0.7", uid="other"), (), id="another pod's by its UID"),
        pytest.param(by_hand(""), (), id="no address"),
    ],
)
def test_an_endpoint_without_a_pod_is_the_pods_that_has_its_address(
    written: EndpointSlice, routes: tuple[str, ...]
) -> None:
    known = pod(uid="one", ip="10.0.0.7")
    world, both = World(), replace(known, status=replace(known.status, pod_ips=(PodIP("10.0.0.7"), PodIP("fd00::7"))))
    world.see_slice(written)
    assert world.routes(both) == routes
    assert world.routes(pod(uid="two", ip="")) == ()
    world.see_slice(written, gone=True)
    assert world.routes(both) == ()


def test_a_slice_of_another_namespace_keeps_no_drain_waiting() -> None:
    """Anybody who may write slices there could hold up this one's."""
    world, elsewhere = World(), by_hand("10.0.0.7")
    world.see_slice(replace(elsewhere, metadata=replace(elsewhere.metadata, namespace="other")))
    assert world.routes(pod(ip="10.0.0.7")) == ()


def test_a_slice_that_is_gone_routes_nothing() -> None:
    world = World()
    world.see_slice(endpoints("a", "shop", one=True))
    assert world.see_slice(endpoints("a", "shop", one=True), gone=True) == {"one"}
    assert world.routes(pod(uid="one")) == ()


def test_a_slice_reports_whose_readiness_changed() -> None:
    world = World()
    world.see_pod(pod(uid="one"))
    assert world.see_slice(endpoints("a", "shop", one=True, two=True)) == {"one", "two"}
    assert world.see_slice(endpoints("a", "shop", one=False, two=True)) == {"one"}
    assert world.pods_by_uid("shop", {"one", "unknown"}) == [KEY]
    assert world.pods_by_uid("other", {"one"}) == []


def test_a_slice_in_another_namespace_is_another_slice() -> None:
    world = World()
    world.see_slice(endpoints("a", "shop", one=True))
    elsewhere = endpoints("a", "shop", one=False)
    world.see_slice(replace(elsewhere, metadata=replace(elsewhere.metadata, namespace="other")))
    assert world.routes(pod(uid="one")) == ("shop",)


@pytest.mark.parametrize(
    ("known", "seen", "kept"),
    [
        pytest.param(7, 8, 8, id="a newer one counts"),
        pytest.param(8, 7, 8, id="an older one does not"),
        pytest.param(9, 10, 10, id="they are numbers, not texts"),
        pytest.param(7, 7, 7, id="the same is the same"),
    ],
)
def test_a_watch_that_is_behind_does_not_undo_what_is_known(known: int, seen: int, kept: int) -> None:
    world = World()
    for number in (known, seen):
        world.see_server(version(server(), number))
        world.see_pod(version(pod(), number))
        world.see_group(version(group(), number))
    found = (world.servers[KEY], world.pods[KEY], world.groups["shop", "shop"])
    assert {thing.metadata.resource_version for thing in found} == {str(kept)}


def test_the_end_of_a_pod_is_not_the_end_of_its_successor() -> None:
    world = World()
    world.see_pod(version(pod(uid="old"), 1))
    world.see_pod(version(pod(uid="new"), 2))
    world.forget_pod(KEY, "old")
    assert world.pods[KEY].metadata.uid == "new"
    assert world.pods_by_uid("shop", {"old", "new"}) == [KEY]
    world.forget_pod(KEY, "new")
    assert world.pods == {}
    assert world.pods_by_uid("shop", {"old", "new"}) == []


def test_a_list_forgets_what_went_away_unseen() -> None:
    shop, world = group(), World()
    world.see_pod(pod("shop-0"))
    world.see_pod(pod("shop-1"))
    world.see_server(server("shop-0", of=shop))
    world.see_server(server("shop-1", of=shop))
    world.see_slice(endpoints("a", "shop", **{"pod-shop-0": True, "pod-shop-1": True}))
    before = world.known()
    world.see_all(listing(server("shop-0", of=shop), shop, pod("shop-0")), before)
    assert list(world.pods) == [KEY]
    assert list(world.servers) == [KEY]
    assert world.routes(pod("shop-0")) == ()
    assert [s.metadata.name for s in world.members(("shop", "shop"))] == ["shop-0"]


def test_a_list_forgets_nothing_that_was_seen_while_it_was_made() -> None:
    """What a watch reported after the list began is newer than the list."""
    world = World()
    world.see_pod(version(pod("shop-0"), 5))
    before = world.known()
    world.see_pod(version(pod("shop-0"), 9))
    world.see_pod(version(pod("shop-1"), 8))
    world.see_slice(version(endpoints("a", "shop", **{"pod-shop-1": True}), 8))
    world.see_all(listing(version(pod("shop-0"), 7), at=7), before)
    assert world.pods[KEY].metadata.resource_version == "9"
    assert "shop-1" in {name for _, name in world.pods}
    assert world.routes(pod("shop-1")) == ("shop",)


SHOP = ("shop", "shop")


def kinds() -> list[Any]:
    """One of each kind that the operator keeps, all of one version."""
    return [server(of=group()), group(), pod()]


def seen(world: World, thing: Any) -> Any:
    kept: dict[Any, Any] = {AppServer: world.servers, ServerGroup: world.groups, Pod: world.pods}
    return kept[type(thing)].get(thing.metadata.key)


def see(world: World, thing: Any) -> None:
    kinds: dict[Any, Any] = {AppServer: world.see_server, ServerGroup: world.see_group, Pod: world.see_pod}
    kinds[type(thing)](thing)


def forget(world: World, thing: Any) -> None:
    own = thing.metadata
    kinds: dict[Any, Any] = {AppServer: world.forget_server, ServerGroup: world.forget_group, Pod: world.forget_pod}
    kinds[type(thing)](own.key, own.uid, int(own.resource_version))


def listing(*things: Any, at: int = 0) -> Snapshot:
    """Lists of each kind as of this version."""

    def listed(kind: type[T]) -> Listed[T]:
        return Listed([thing for thing in things if isinstance(thing, kind)], at)

    return Snapshot(
        listed(AppServer), listed(ServerGroup), listed(Pod), listed(EndpointSlice), listed(Service), listed(Budget)
    )


def successor(thing: Any, number: int) -> Any:
    return version(replace(thing, metadata=replace(thing.metadata, uid="again")), number)


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
@pytest.mark.parametrize("known", [True, False])
def test_a_list_does_not_bring_back_what_went_while_it_was_made(thing: Any, known: bool) -> None:
    """It was listed, and deleted while the next kind was."""
    world = World()
    if known:
        see(world, version(thing, 5))
    before = world.known()
    forget(world, version(thing, 9))
    world.see_all(listing(version(thing, 5)), before)
    assert seen(world, thing) is None
    assert world.members(SHOP) == []


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
def test_an_answer_that_comes_late_does_not_bring_back_what_is_gone(thing: Any) -> None:
    world = World()
    see(world, version(thing, 5))
    forget(world, version(thing, 9))
    see(world, version(thing, 7))
    assert seen(world, thing) is None
    see(world, successor(thing, 11))
    see(world, version(thing, 8))
    forget(world, version(thing, 9))
    assert seen(world, thing).metadata.uid == "again"


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
def test_what_its_successor_has_followed_is_gone(thing: Any) -> None:
    """Its end was not seen; the end of the successor was."""
    world = World()
    see(world, version(thing, 5))
    before = world.known()
    see(world, successor(thing, 11))
    forget(world, successor(thing, 12))
    world.see_all(listing(version(thing, 5)), before)
    assert seen(world, thing) is None


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
def test_what_left_the_watch_by_its_label_comes_back_with_it(thing: Any) -> None:
    """The watch calls it deleted; it has the same UID."""
    world = World()
    see(world, version(thing, 5))
    forget(world, version(thing, 6))
    see(world, version(thing, 7))
    assert seen(world, thing).metadata.resource_version == "7"


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
def test_after_a_restore_of_etcd_a_list_replaces_what_is_known(thing: Any) -> None:
    world = World()
    see(world, version(thing, 900))
    world.see_all(listing(version(thing, 400)), world.known())
    assert seen(world, thing).metadata.resource_version == "400"
    see(world, version(thing, 401))
    assert seen(world, thing).metadata.resource_version == "401"


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
@pytest.mark.parametrize("followed", [True, False])
def test_after_a_restore_of_etcd_what_was_deleted_is_there_again(thing: Any, followed: bool) -> None:
    world = World()
    see(world, version(thing, 900))
    forget(world, version(thing, 901))
    if followed:
        see(world, successor(thing, 902))
    world.see_all(listing(version(thing, 400)), world.known())
    assert seen(world, thing).metadata.uid == thing.metadata.uid
    see(world, version(thing, 401))
    assert seen(world, thing).metadata.resource_version == "401"
    forget(world, successor(thing, 403))
    assert seen(world, thing).metadata.resource_version == "401"


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_an_answer_from_before_a_list_does_not_bring_back_what_the_list_lacks(
    thing: Any, known: bool, late: bool
) -> None:
    """The watch did not report its end. The answer arrives after the list, or while it is made."""
    world = World()
    if known:
        see(world, version(thing, 5))
    before = world.known()
    if not late:
        see(world, version(thing, 7))
    world.see_all(listing(at=9), before)
    if late and known:
        see(world, version(thing, 7))
    assert seen(world, thing) is None
    see(world, version(thing, 10))
    assert seen(world, thing), "it has its label again"


@pytest.mark.parametrize("late", [True, False])
def test_an_answer_from_before_a_pod_was_not_found_does_not_bring_it_back(late: bool) -> None:
    """Only a read that begins later can find it again: in an etcd that was restored."""
    world = World()
    world.see_pod(version(pod(), 5))
    look = world.pods.look([KEY])
    if not late:
        world.see_pod(version(pod(), 7))
    world.pods.replace([], look)
    if late:
        world.see_pod(version(pod(), 7))
    assert world.pods == {}
    world.see_all(listing(version(pod(), 4), at=4), world.known())
    assert KEY in world.pods


def test_a_read_does_not_bring_back_a_successor_that_went_while_it_was_made() -> None:
    world = World()
    world.see_pod(version(pod(), 5))
    before = world.known()
    forget(world, successor(pod(), 12))
    world.see_all(listing(successor(pod(), 11), at=11), before)
    assert [known.metadata.uid for known in world.pods.values()] == [pod().metadata.uid]


@pytest.mark.parametrize("thing", kinds(), ids=lambda thing: type(thing).__name__)
def test_a_late_report_of_a_lost_label_does_not_remove_what_has_it_again(thing: Any) -> None:
    """The response to the write that restored it is there before the watch reports the loss."""
    world = World()
    see(world, version(thing, 7))
    forget(world, version(thing, 6))
    assert seen(world, thing).metadata.resource_version == "7"
    forget(world, version(thing, 8))
    assert seen(world, thing) is None


def test_the_end_of_a_pod_that_was_confirmed_is_final_whatever_is_reported_later() -> None:
    world = World()
    world.see_pod(version(pod(), 5))
    world.forget_pod(KEY, pod().metadata.uid)
    forget(world, version(pod(), 6))
    world.see_pod(version(pod(), 7))
    assert world.pods == {}


def test_a_read_that_finds_nothing_does_not_remove_what_came_in_the_meantime() -> None:
    world = World()
    world.see_pod(version(pod(uid="old"), 5))
    look = world.pods.look([KEY])
    world.see_pod(version(pod(uid="new"), 8))
    world.pods.replace([], look)
    assert world.pods[KEY].metadata.uid == "new"
    world.pods.replace([], world.pods.look([KEY]))
    assert world.pods == {}


def test_of_what_is_gone_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.cluster.store.REMEMBERED", 2)
    world = World()
    for uid in ("one", "two", "three"):
        world.forget_pod(KEY, uid, 9)
    world.see_pod(version(pod(uid="two"), 5))
    assert world.pods == {}
    world.see_pod(version(pod(uid="one"), 5))
    assert world.pods[KEY].metadata.uid == "one"


def test_a_server_that_leaves_its_group_leaves_nothing_behind() -> None:
    world, other = World(), replace(group(), metadata=replace(group().metadata, name="other", uid="other"))
    one = server("shop-0", of=group())
    world.see_server(version(one, 1))
    assert [s.metadata.name for s in world.members(SHOP)] == ["shop-0"]
    world.see_server(version(server("shop-0"), 2))
    assert SHOP not in world._members
    world.see_server(version(one, 3))
    world.see_server(version(server("shop-0", of=other), 4))
    assert set(world._members) == {("shop", "other")}
    world.forget_server(KEY, one.metadata.uid)
    assert world._members == {}


def test_a_group_of_the_same_name_starts_from_nothing() -> None:
    world = World()
    world.see_group(version(group(), 1))
    world.taken_up[SHOP] = 1
    world.see_group(version(group(), 2))
    assert world.taken_up == {SHOP: 1}
    world.see_group(successor(group(), 3))
    assert world.taken_up == {}


def test_the_members_of_a_group_are_the_servers_it_owns() -> None:
    shop, world = group(), World()
    world.see_server(server("shop-0", of=shop))
    world.see_server(server("shop-1"))
    assert [s.metadata.name for s in world.members(("shop", "shop"))] == ["shop-0"]
    world.forget_server(KEY, world.servers[KEY].metadata.uid)
    assert world.members(("shop", "shop")) == []


def test_objects_are_read_as_the_api_server_writes_them() -> None:
    raw = b"""{"metadata": {"name": "shop-0", "namespace": "shop", "uid": "u", "resourceVersion": "12",
        "labels": {"quiesce.dev/server": "shop-0"}, "unknown": [1]}, "spec": {"nodeName": "n", "volumes": []},
        "status": {"podIP": "10.1.2.3", "conditions": [{"type": "quiesce.dev/serving", "status": "True"}],
        "containerStatuses": [{"name": "w", "containerID": "containerd://9", "state": {"running": {}}}]}}"""
    read = msgspec.json.decode(raw, type=Pod)
    assert (read.status.pod_ip, read.holds(names.GATE), read.status.container_statuses[0].container_id) == (
        "10.1.2.3",
        True,
        "containerd://9",
    )


FIELDS = b"""[{"manager": "kubectl-annotate", "fieldsV1": {"f:metadata": {"f:annotations": {"f:a": {}}}}}]"""


@pytest.mark.parametrize("kind", [AppServer, ServerGroup])
def test_of_its_own_kinds_the_operator_reads_who_wrote_what(kind: Any) -> None:
    own = b'{"metadata": {"name": "shop", "managedFields": %s}, "spec": %s}'
    spec = msgspec.json.encode((server() if kind is AppServer else group()).spec)
    read = msgspec.json.decode(own % (FIELDS, spec), type=kind)
    assert (read.metadata.annotated_by("a"), read.metadata.annotated_by("b")) == ("kubectl-annotate", "")


def test_of_others_it_does_not() -> None:
    read = msgspec.json.decode(b'{"metadata": {"name": "shop-0", "managedFields": %s}}' % FIELDS, type=Pod)
    assert not hasattr(read.metadata, "managed_fields")


def test_the_end_of_something_is_not_that_of_its_successor() -> None:
    shop, world = group(), World()
    one, again = server("shop-0", of=shop), server("shop-0", of=shop)
    again = replace(again, metadata=replace(again.metadata, uid="again"))
    world.see_server(again)
    world.forget_server(KEY, one.metadata.uid)
    assert world.servers == {KEY: again}
    other = replace(shop, metadata=replace(shop.metadata, uid="again"))
    world.see_group(other)
    world.forget_group(shop.metadata.key, shop.metadata.uid)
    assert world.groups == {shop.metadata.key: other}


def test_a_slice_of_another_namespace_routes_nothing_here() -> None:
    world = World()
    world.see_pod(pod("shop-0"))
    foreign = endpoints("a", "shop", **{"pod-shop-0": True})
    world.see_slice(replace(foreign, metadata=replace(foreign.metadata, namespace="elsewhere")))
    assert world.routes(pod("shop-0")) == ()


def test_a_template_that_differs_only_in_the_type_of_a_value_is_another_one() -> None:
    """The API server takes `true` for a Boolean, and not 1."""
    world = World()
    wrong, right = (server(template=template(automountServiceAccountToken=value)) for value in (1, True))
    world.see_server(version(wrong, 1))
    world.see_server(version(right, 2))
    known = world.servers["shop", "shop-0"].spec.template["spec"]["automountServiceAccountToken"]
    assert known is True
