"""An event loop whose clock jumps to the next timer: hours of waiting pass in no time, in the right order."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class TimelessLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        return self.now

    def _jump(self, seconds: float) -> None:
        self.now += seconds


class _Selector(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits, and nothing for a time"
        self._jump(timeout)
        return super().select(0)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=TimelessLoop) as runner:
        runner.run(story())
