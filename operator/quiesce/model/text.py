"""Text from outside, made safe to show in a status, an Event or a log."""

import re

# The API's limit for the note of an Event; used for conditions, and for errors of the API server and of servers, too.
MESSAGE_BYTES = 1024
# For a value, a name or a reason that is part of a message.
QUOTE_BYTES = 256
# The API's limit for the reason of an Event.
REASON_BYTES = 128

CUT = "..."
# Control characters, line and paragraph separators, marks that change the direction of text, the byte order mark,
# surrogates and noncharacters.
UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff\ud800-\udfff"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)


def shown(text: str, limit: int = MESSAGE_BYTES) -> str:
    """`text` on one line, with characters that are unfit to be shown escaped, in at most `limit` bytes of UTF-8.

    If it is longer, the beginning and the end are kept: an error often quotes a value before it says what is wrong with
    it. The result doesn't change if it is passed in again.
    """
    begin = UNFIT.sub(_escape, text[:limit]).encode()
    if len(text) <= limit and len(begin) <= limit:
        return begin.decode()
    end = UNFIT.sub(_escape, text[-limit:]).encode()
    rest = (limit - len(CUT)) // 2
    return begin[: limit - len(CUT) - rest].decode(errors="ignore") + CUT + end[-rest:].decode(errors="ignore")


def quoted(text: str) -> str:
    """A value that is quoted in a message."""
    return f"'{shown(text, QUOTE_BYTES)}'"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
