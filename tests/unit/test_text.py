"""Text of others, fit to be shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.model.text import MESSAGE_BYTES, quoted, shown

ANY = st.text(st.characters())  # lone surrogates included


@given(ANY, st.integers(16, 2000))
def test_whatever_is_shown_is_one_bounded_line_of_utf_8(text: str, limit: int) -> None:
    said = shown(text, limit)
    assert len(said.encode()) <= limit
    assert len(said.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in said} & {"Cc", "Cs", "Zl", "Zp"}
    assert shown(said, limit) == said


@pytest.mark.parametrize(
    "text", ["maintenance 😀", "Wartung für ½ h", "保守 中", "👩‍💻 at work", "C:\\temp", "it's", "\xa0"]
)
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a\nb\r\tc", "a\\nb\\r\\tc", id="lines"),
        pytest.param("\x1b[31mred", "\\x1b[31mred", id="a terminal's escape"),
        pytest.param("a\x00b\x85", "a\\x00b\\x85", id="NUL and NEL"),
        pytest.param("a\u2028b\u2029", "a\\u2028b\\u2029", id="separators"),
        pytest.param("\ufeffa", "\\ufeffa", id="a byte order mark"),
        pytest.param("a\ud83d", "a\\ud83d", id="half a pair"),
        pytest.param("\uffff\U0001ffff", "\\uffff\\U0001ffff", id="no characters"),
        pytest.param("\u202egnp.exe", "\\u202egnp.exe", id="another direction"),
    ],
)
def test_what_can_not_be_seen_is_escaped(text: str, said: str) -> None:
    assert shown(text) == said


def test_of_a_long_text_the_beginning_and_the_end_are_kept() -> None:
    said = shown("metadata.labels: Invalid value: " + "x" * 100_000 + ": must be no more than 63 bytes")
    assert said.startswith("metadata.labels: Invalid value: xxx")
    assert said.endswith("xxx: must be no more than 63 bytes")
    assert len(said) == MESSAGE_BYTES
    assert len(quoted("😀" * 100_000).encode()) <= 258
