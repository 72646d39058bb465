"""The process's log: one line for each record, whatever is in it."""

import logging
from types import TracebackType

from quiesce.model.text import shown

LINE_BYTES = 4096

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Formatter(logging.Formatter):
    """Names, annotations and messages from outside can't start a new line or send escape codes to a terminal.

    The lines of a traceback follow, indented.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        return shown(super().formatMessage(record), LINE_BYTES)

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802
        return "\n".join(f"    {shown(line, LINE_BYTES)}" for line in super().formatException(ei).splitlines())


def log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=level, handlers=[handler])
