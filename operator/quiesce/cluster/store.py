"""The newest known state of each object of one kind: from watches, lists and single responses, which race each other.

Resource versions of one kind are ordered numbers (KEP-5504), also across an object and its successor. After a restore
of etcd from a backup, they are not: then, the result of a read that began after an object was last seen is right.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from quiesce.model.objects import Budget, EndpointSlice, Pod, Service, is_same
from quiesce.model.resources import AppServer, ServerGroup

Key = tuple[str, str]  # namespace, name
Thing = TypeVar("Thing", AppServer, ServerGroup, Pod, EndpointSlice, Service, Budget)

# How many deleted objects are remembered, for events that were sent before and arrive later.
REMEMBERED = 10_000


class Grave(msgspec.Struct, frozen=True):
    """A deleted object: every version up to this one is past; and how many were deleted up to it."""

    version: float
    number: int


class Look(msgspec.Struct, Generic[Thing], frozen=True):
    """What was known when a read began. What hasn't changed since is replaced by what the read finds."""

    things: dict[Key, Thing]
    buried: int  # how many had been deleted by then


class Store(dict[Key, Thing]):
    """Only `see`, `forget` and `replace` change it; `changed` gets the object before and after each change."""

    def __init__(self, changed: Callable[[Thing | None, Thing | None], None] | None = None) -> None:
        super().__init__()
        self._changed: Callable[[Thing | None, Thing | None], None] | None = changed
        self._gone: OrderedDict[str, Grave] = OrderedDict()  # by UID
        self._buried = 0

    def see(self, thing: Thing) -> bool:
        """Process an event, or the response to a request; False if it is older than what is known."""
        known, version = self.get(thing.metadata.key), _version(thing)
        grave = self._gone.get(thing.metadata.uid)
        if (known and version < _version(known)) or (grave and version <= grave.version):
            return False
        self._put(thing)
        return True

    def forget(self, key: Key, uid: str, version: float = math.inf) -> None:
        """Note that the object with this UID is gone for good, or no longer matched the watch as of this version."""
        known = self.get(key)
        self._bury(uid, version)
        if known is None or known.metadata.uid != uid or _version(known) > version:
            return
        del self[key]
        if self._changed:
            self._changed(known, None)

    def look(self, keys: Iterable[Key] | None = None) -> Look[Thing]:
        """Call this before a read of these objects, or of all."""
        known = dict(self) if keys is None else {key: self[key] for key in keys if key in self}
        return Look(known, self._buried)

    def replace(self, found: Iterable[Thing], look: Look[Thing], version: int | None = None) -> None:
        """Process the result of a read of everything in `look`; a list of all that matches the watch has a version."""
        listed = set()
        for thing in found:
            key, uid = thing.metadata.key, thing.metadata.uid
            listed.add(key)
            grave = self._gone.get(uid)
            if grave and grave.number <= look.buried:
                del self._gone[uid]  # it exists again
                grave = None
            if grave is None and self.get(key) is look.things.get(key):
                self._put(thing)
            else:
                self.see(thing)
        for key in {*(look.things if version is None else self)} - listed:
            known = self.get(key)
            if known and _is_past(known, look.things.get(key), version):
                self.forget(key, known.metadata.uid, math.inf if version is None else max(version, _version(known)))

    def _put(self, thing: Thing) -> None:
        known = self.get(thing.metadata.key)
        if known and known.metadata.uid != thing.metadata.uid:
            self._bury(known.metadata.uid, math.inf)
        self[thing.metadata.key] = thing = _with_known_spec(thing, known)
        if self._changed:
            self._changed(known, thing)

    def _bury(self, uid: str, version: float) -> None:
        self._buried += 1
        known = self._gone.get(uid)
        self._gone[uid] = Grave(max(version, known.version) if known else version, self._buried)
        self._gone.move_to_end(uid)
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)


def _is_past(known: Thing, before: Thing | None, version: int | None) -> bool:
    """Whether an object that a read did not find is gone, even if something was heard of it while the read was made."""
    if version is None:
        return before is not None and before.metadata.uid == known.metadata.uid
    return known is before or _version(known) <= version


def _with_known_spec(thing: Thing, known: Thing | None) -> Thing:
    """Most changes are to the status: keep the spec, with the results that were computed from it."""
    if isinstance(thing, AppServer) and isinstance(known, AppServer) and is_same(thing.spec, known.spec):
        return msgspec.structs.replace(thing, spec=known.spec)
    return thing


def _version(thing: Thing) -> int:
    return int(thing.metadata.resource_version)
