"""Results that depend only on a spec and are costly to compute: a template can be a megabyte long."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


def derived(derive: Callable[[S], T]) -> Callable[[S], T]:
    """Computes the result once for each source, a frozen struct with `dict=True`, and keeps it there."""

    @wraps(derive)
    def kept(source: S) -> T:
        known = vars(source)
        if derive.__name__ not in known:
            known[derive.__name__] = derive(source)
        found: T = known[derive.__name__]
        return found

    return kept
