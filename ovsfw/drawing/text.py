"""Text in pictures: names are what users write, so they are made harmless, and measured before they are drawn."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from ovsfw.drawing.layout import Size

CHARACTER = 6.7  # the mean width of a character of 12 pixels, in pixels
LINE = 17
PADDING = 8
SHOWN_SERVICES = 3


def clean(text: str) -> str:
    """Without characters that XML forbids, that break a line, or that turn the direction of what follows."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def escaped(text: str) -> str:
    """For XML and HTML, in text and in attributes.

    >>> escaped('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return html.escape(clean(text))


def short(text: str, limit: int) -> str:
    """At most so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def services(texts: Sequence[str], limit: int = 36) -> str:
    """The first of some services, and how many more there are.

    >>> services(["tcp/1", "tcp/2", "tcp/3", "tcp/4"])
    'tcp/1, tcp/2, tcp/3, +1'
    """
    shown = list(texts[:SHOWN_SERVICES])
    while len(shown) > 1 and len(", ".join(shown)) > limit:
        shown.pop()
    more = len(texts) - len(shown)
    return short(", ".join(shown), limit) + (f", +{more}" if more else "")


def size(lines: Sequence[str]) -> Size:
    """The room that lines of text take, with some around them; characters of East Asia are twice as wide."""
    width = max(sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line) for line in lines)
    return Size(width * CHARACTER + 2 * PADDING, len(lines) * LINE + PADDING)
