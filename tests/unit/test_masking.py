"""Credentials in what a server answers, as servers and proxies write them."""

import base64
import html
import json
import urllib.parse
from collections.abc import Callable

import pytest

from quiesce.admin.masking import Mask

ODD = 'p\u00e4"ss<w&rd\\1 x\x1b%!'


def masked(text: str, password: str, username: str = "quiesce") -> str:
    return Mask(username, password)(text)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "password", ["sesame1", "correct-horse-battery-staple", "sesame!", ODD, "sesame1\n", " sesame1"]
)
@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(lambda password: password, id="as it is"),
        pytest.param(lambda password: password.strip(), id="without the newline that ends it"),
        pytest.param(lambda password: password.upper(), id="in capitals"),
        pytest.param(lambda password: json.dumps(password)[1:-1], id="in JSON"),
        pytest.param(lambda password: json.dumps(password, ensure_ascii=False)[1:-1], id="in JSON, with its letters"),
        pytest.param(lambda password: urllib.parse.quote(password, safe=""), id="in a URL"),
        pytest.param(urllib.parse.quote_plus, id="in a form"),
        pytest.param(html.escape, id="in HTML"),
        pytest.param(lambda password: encoded(f"quiesce:{password}"), id="in a Basic header"),
        pytest.param(encoded, id="in base64"),
        pytest.param(lambda password: password.encode("latin-1").decode(errors="replace"), id="in another encoding"),
    ],
)
def test_a_password_is_masked_however_it_is_written(echo: Callable[[str], str], password: str) -> None:
    echoed = echo(password)
    assert masked(f"pw={echoed}; retry", password) == "pw=***; retry"
    assert masked(f"x{echoed}y", password) == "x***y"


def test_the_hash_and_the_username_are_masked() -> None:
    assert masked(f"quiesce: response={'0123456789abcdef' * 2}", "sesame1") == "***: response=***"


@pytest.mark.parametrize(
    ("text", "password", "username", "said"),
    [
        ("quiesce-close of a host", "a", "host", "quiesce-close of *** ***"),
        ("ADMIN_ONLY for admin", "sesame1", "admin", "ADMIN_ONLY for ***"),
        ("nothing", "\n", "quiesce", "nothing"),
    ],
)
def test_other_words_stay(text: str, password: str, username: str, said: str) -> None:
    assert masked(text, password, username) == said
