"""Which texts a catalogue can hold: one boundary for every way in (folders, manifests and HTTP).

UTF-8 cannot encode lone surrogates, PostgreSQL cannot store NUL, and a terminal obeys control characters. All other
characters are allowed, among them the zero-width joiners of Persian and of emoji, and no-break spaces.
"""

from __future__ import annotations

import re

MAX_ITEM_ID = 512  # characters
MAX_TEXT = 131_072  # characters of a cell of a manifest
MAX_SHOWN = 600  # characters of a text that is quoted in a report

_FAULTY = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FAULTY_IN_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMES = {0: "NUL", 9: "tab", 10: "line feed", 13: "carriage return", 27: "escape", 127: "delete"}


def text_fault(text: str, *, lines: bool = False) -> str | None:
    """Why a text cannot be stored, as the end of a sentence that starts with its name; None for a good text.

    Args:
        lines: allow tabs and line breaks, as in titles and attribute values.
    """
    found = (_FAULTY_IN_LINES if lines else _FAULTY).search(text)
    if found is None:
        return None
    code = ord(found[0])
    place = f"at character {found.start() + 1}"
    if code >= 0xD800:
        return f"contains U+{code:04X} {place}, which is not valid UTF-8 text (half of a character); correct it"
    name = f" ({_NAMES[code]})" if code in _NAMES else ""
    return f"contains the control character U+{code:04X}{name} {place}; remove it"


def id_fault(item_id: str) -> str | None:
    """Why a text cannot be an item_id, as the end of a sentence; None for a good one."""
    if not item_id:
        return "is empty; every row needs one"
    if len(item_id) > MAX_ITEM_ID:
        return f"has {len(item_id)} characters; the limit is {MAX_ITEM_ID}"
    return text_fault(item_id)


def visible(text: str) -> str:
    r"""A text that is safe to print and to store: control characters and surrogates become escapes such as `\x1b`."""
    return _FAULTY.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(text: str) -> str:
    """`visible`, cut to `MAX_SHOWN` characters."""
    return visible(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")
