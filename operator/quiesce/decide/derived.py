"""Results that depend on a spec alone and are costly to compute: a template can have a megabyte."""

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
