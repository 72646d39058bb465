"""Credentials in what a server answers, as servers and proxies write them."""

import base64
import html
import html.entities
import json
import time
import urllib.parse
from collections.abc import Callable

import pytest

from quiesce.admin.masking import Mask

ODD = "p\u00e4\"ss<w&rd\\1 x\x1b%!'/=\u20ac\U0001f511"


def masked(text: str, password: str, username: str = "quiesce") -> str:
    return Mask(username, password)(text)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


def each(text: str, spelled: str, below: int = 0x110000) -> str:
    """With every character that is neither a letter nor a digit of ASCII written like this."""
    return "".join(c if (c.isascii() and c.isalnum()) or ord(c) >= below else spelled.format(ord(c)) for c in text)


def units(text: str, spelled: str) -> str:
    """As `each`, by units of UTF-16."""
    encoded = text.encode("utf-16-be")
    found = [int.from_bytes(encoded[at : at + 2]) for at in range(0, len(encoded), 2)]
    return "".join(chr(unit) if unit < 128 and chr(unit).isalnum() else spelled.format(unit) for unit in found)


def named(text: str) -> str:
    """With the last name that HTML has for each character."""
    names = {value: name for name, value in html.entities.html5.items() if name.endswith(";")}
    return "".join(f"&{names[c]}" if c in names and c != "\n" else c for c in text)


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
        pytest.param(
            lambda password: password.encode("latin-1", errors="replace").decode(errors="replace"),
            id="in another encoding",
        ),
        pytest.param(lambda password: each(password, "&#{:d};"), id="in HTML, by numbers"),
        pytest.param(lambda password: each(password, "&#x{:02X};"), id="in HTML, by hexadecimal numbers"),
        pytest.param(lambda password: each(password, "&#0{:d};"), id="in HTML, by numbers with a zero"),
        pytest.param(lambda password: html.escape(password).replace("&#x27;", "&apos;"), id="in XML"),
        pytest.param(named, id="in HTML, by all names"),
        pytest.param(lambda password: units(password, "\\u{:04x}"), id="in JSON that is safe in HTML"),
        pytest.param(lambda password: each(password, "\\x{:02x}", below=256), id="in JavaScript"),
        pytest.param(lambda password: json.dumps(password)[1:-1].replace("/", "\\/"), id="in JSON, with its slashes"),
        pytest.param(urllib.parse.quote, id="in a URL's path"),
        pytest.param(lambda password: each(password, "%{:02X}", below=256), id="in a URL, in another encoding"),
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


def test_a_spelling_that_mixes_them_is_masked() -> None:
    assert masked("pw=it&#39;s\\u0026&#x20;s%65cret", "it's& secret") == "pw=***"


@pytest.mark.parametrize("password", ["\\" * 30, "\\" * 30 + "x", "&amp" * 10 + "x", "%25" * 10 + "x"])
def test_a_password_that_looks_like_escapes_takes_no_longer(password: str) -> None:
    begin = time.process_time()
    assert masked(f"pw={password} {json.dumps(password)} {html.escape(password)}", password) == 'pw=*** "***" ***'
    masked(password[:-1] * 1000, password)
    assert time.process_time() - begin < 1
