"""Credentials in what a server answers: it may echo the request, and escape or encode what it echoes."""

import base64
import html.entities
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

# A shorter password is masked only as a word of its own: it is part of too many others.
SHORT = 4
# The hash of Digest authentication.
HASH = re.compile(r"(?<!\w)[0-9a-f]{32,}(?!\w)", re.IGNORECASE)
MASK = "***"
# What an escaped character begins with, in JSON, JavaScript, HTML, a URL or a form.
ESCAPES = "\\&%+"
ENTITIES: defaultdict[str, list[str]] = defaultdict(list)
for _name, _char in html.entities.html5.items():
    ENTITIES[_char].append(f"&{_name}")


class Mask:
    """Removes credentials from a text. Use it before you shorten the text: it doesn't find half of a password."""

    def __init__(self, username: str, password: str) -> None:
        self._username, self._password = username, password
        forms = {_base64(f"{username}:{password}"), *_forms(username), *_forms(password)}
        self._forms = [(form.casefold(), self._pattern(form, re.escape(form))) for form in _longest_first(forms)]

    def __call__(self, text: str) -> str:
        if any(escape in text for escape in ESCAPES):
            for pattern in self._escaped:
                text = pattern.sub(MASK, text)
        folded = text.casefold()
        for form, pattern in self._forms:
            if form in folded:  # much faster than the pattern, and a text can have a million characters
                text = pattern.sub(MASK, text)
        return HASH.sub(MASK, text)

    @cached_property
    def _escaped(self) -> list[re.Pattern[str]]:
        secrets = {*_stripped(self._username), *_stripped(self._password)}
        return [self._pattern(secret, _escaped(secret)) for secret in _longest_first(secrets)]

    def _pattern(self, form: str, pattern: str) -> re.Pattern[str]:
        is_word = form in _stripped(self._username) or len(form) < SHORT
        return re.compile(rf"(?<!\w){pattern}(?!\w)" if is_word else pattern, re.IGNORECASE)


def _longest_first(forms: set[str]) -> list[str]:
    return sorted(forms, key=lambda form: (-len(form), form))


def _stripped(secret: str) -> list[str]:
    return [text for text in (secret, secret.strip()) if text]


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, in base64, and read in an encoding other than UTF-8."""
    for text in _stripped(secret):
        yield text
        yield _base64(text)
        yield text.encode("latin-1", errors="replace").decode(errors="replace")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


def _escaped(secret: str) -> str:
    """A pattern of a secret in which any character may be escaped: servers and proxies differ in which they escape.

    The groups are atomic, which bounds the time that it takes: each character is matched in its longest spelling.
    """
    return "".join(f"(?>{'|'.join(_spellings(char))})" for char in secret)


def _spellings(char: str) -> Iterator[str]:
    units, code = char.encode("utf-16-be"), ord(char)
    yield "".join(rf"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    yield rf"\\x{code:02x}"
    yield rf"&#(?:0*{code}|x0*{code:x});"
    yield from (re.escape(entity) for entity in sorted(ENTITIES.get(char, ()), key=len, reverse=True))
    for encoding in ("utf-8", "latin-1"):
        yield "".join(f"%{byte:02x}" for byte in char.encode(encoding, errors="replace"))
    if char == " ":
        yield r"\+"
    yield re.escape(json.dumps(char)[1:-1])
    yield rf"\\?{re.escape(char)}"
