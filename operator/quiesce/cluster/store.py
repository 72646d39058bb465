"""The newest known state of each object of one kind: from watches, lists and single responses, which race each other.

Resource versions of one kind are ordered numbers (KEP-5504), also across an object and its successor. After a restore
of etcd from a backup, they are not: then, the result of a read that began after an object was last seen is right.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from quiesce.model.objects import Budget, EndpointSlice, Pod, Service
from quiesce.model.resources import AppServer, ServerGroup

Key = tuple[str, str]  # namespace, name
Thing = TypeVar("Thing", AppServer, ServerGroup, Pod, EndpointSlice, Service, Budget)

# How many deleted objects are remembered, for events that were sent before and arrive later.
REMEMBERED = 10_000


class Grave(msgspec.Struct, frozen=True):
    """A deleted object: its last version, and how many were deleted up to it."""

    version: int
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

    def forget(self, key: Key, uid: str, version: int = 0) -> None:
        """Note that the object with this UID is gone, or no longer matches the watch: it may come back newer."""
        known = self.get(key)
        if known is None or known.metadata.uid != uid:
            self._bury(uid, version)
            return
        self._bury(uid, max(version, _version(known)))
        del self[key]
        if self._changed:
            self._changed(known, None)

    def look(self, keys: Iterable[Key] | None = None) -> Look[Thing]:
        """Call this before a read of these objects, or of all."""
        known = dict(self) if keys is None else {key: self[key] for key in keys if key in self}
        return Look(known, self._buried)

    def replace(self, found: Iterable[Thing], look: Look[Thing]) -> None:
        """Process the result of a read of everything in `look`."""
        listed = set()
        for thing in found:
            key, uid = thing.metadata.key, thing.metadata.uid
            listed.add(key)
            grave = self._gone.get(uid)
            if grave and grave.number <= look.buried:
                del self._gone[uid]  # it exists again
            if key in look.things and self.get(key) is look.things[key]:
                self._put(thing)
            else:
                self.see(thing)
        for key, thing in look.things.items():
            if key not in listed and self.get(key) is thing:
                self.forget(key, thing.metadata.uid)

    def _put(self, thing: Thing) -> None:
        known = self.get(thing.metadata.key)
        if known and known.metadata.uid != thing.metadata.uid:
            self._bury(known.metadata.uid, _version(known))
        self[thing.metadata.key] = thing
        if self._changed:
            self._changed(known, thing)

    def _bury(self, uid: str, version: int) -> None:
        self._buried += 1
        self._gone[uid] = Grave(version, self._buried)
        self._gone.move_to_end(uid)
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)


def _version(thing: Thing) -> int:
    return int(thing.metadata.resource_version)
