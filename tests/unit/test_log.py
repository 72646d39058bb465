"""The log's lines."""

import logging

import pytest

from quiesce.log import LINE_BYTES, Formatter


def record(message: str, *arguments: object, fault: BaseException | None = None) -> str:
    info = (type(fault), fault, fault.__traceback__) if fault else None
    return Formatter().format(logging.LogRecord("quiesce", logging.INFO, "", 0, message, arguments, info))


@pytest.mark.parametrize("text", ["\n2026-01-01 ERROR forged", "\r", "\x1b[2J", "\x9b2J", "\u2028", "\ud83d", "\x00"])
def test_what_users_write_stays_on_one_line_and_steers_no_terminal(text: str) -> None:
    line = record("%s: reason %s", "shop/shop-0", text)
    assert line.endswith("shop/shop-0: reason " + text.encode("unicode_escape").decode())


def test_a_long_line_is_cut() -> None:
    assert len(record("%s", "x" * 1_000_000)) == LINE_BYTES


def test_a_traceback_is_indented_so_that_no_line_of_it_passes_for_a_record() -> None:
    first, *rest = record("failed", fault=ValueError("\n2026-01-01 ERROR forged \x1b[2J")).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
