"""Credentials in what a server answers: it may echo the request, and escape or encode what it echoes."""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator

# A shorter password is masked only as a word of its own: it is part of too many others.
SHORT = 4
# The hash of Digest authentication.
HASH = re.compile(r"(?<!\w)[0-9a-f]{32,}(?!\w)", re.IGNORECASE)
MASK = "***"


class Mask:
    """Removes credentials from a text. Use it before you shorten the text: it doesn't find half of a password."""

    def __init__(self, username: str, password: str) -> None:
        passwords = set(_forms(password))
        anywhere = {_base64(f"{username}:{password}"), *(form for form in passwords if len(form) >= SHORT)}
        patterns = {form: _word(form) for form in {*_forms(username), *passwords}}
        patterns |= {form: re.escape(form) for form in anywhere}
        longest_first = sorted(patterns, key=lambda form: (-len(form), form))
        self._patterns = [(form.casefold(), re.compile(patterns[form], re.IGNORECASE)) for form in longest_first]

    def __call__(self, text: str) -> str:
        folded = text.casefold()
        for form, pattern in self._patterns:
            if form in folded:  # much faster than the pattern, and a text can have a million characters
                text = pattern.sub(MASK, text)
        return HASH.sub(MASK, text)


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may be quoted: in JSON, in a URL, in HTML, and in an encoding other than UTF-8."""
    for text in filter(None, (secret, secret.strip())):
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield urllib.parse.quote(text, safe="")
        yield urllib.parse.quote_plus(text)
        yield html.escape(text)
        yield _base64(text)
        yield text.encode("latin-1", errors="replace").decode(errors="replace")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


def _word(text: str) -> str:
    return rf"(?<!\w){re.escape(text)}(?!\w)"
