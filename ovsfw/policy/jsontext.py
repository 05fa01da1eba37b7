"""JSON text into values, and, only when somebody needs to know where they stand, into a `Builder`.

The standard library reads JSON much faster than YAML can be read, but says nothing of places and keeps silent about
duplicate keys.  So it reads first; the text is walked again, slowly, when there is something to complain about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ovsfw.policy.places import MAX_DEPTH, MAX_DIGITS, Builder, Place

_TOKEN = re.compile(r'\n|[^\S\n]+|[,:]|[\[{\]}]|"(?:[^"\\]|\\.)*"|[^\s,:\[\]{}"]+')
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERS_THAT_JSON_HAS_NOT = frozenset({"NaN", "Infinity", "-Infinity"})


def looks_like_json(text: str) -> bool:
    """Whether the text begins as only JSON does, or as a list, which is no policy anyway.

    >>> looks_like_json('{"ports": []}'), looks_like_json("{ports: []}")
    (True, False)
    """
    return re.match(r'\s*(\[|\{\s*["}])', text) is not None


def read(text: str, builder: Builder) -> object:
    """The value of the text.  Its problems are left in the builder, which is otherwise empty when there are none.

    Raises PolicyError where the text is no JSON, or nested too deep.
    """
    doubts = _Doubts()
    try:
        value = json.loads(
            text, object_pairs_hook=doubts.mapping, parse_int=doubts.integer, parse_constant=doubts.constant
        )
    except json.JSONDecodeError as error:
        raise builder.unreadable(f"not valid JSON: {error.msg}", Place(error.lineno, error.colno)) from None
    except RecursionError:
        value, doubts.any = None, True
    if doubts.any or "\\ud" in text.lower() or _is_deep(value):
        walk(text, builder)
        return builder.value
    return value


class _Doubts:
    """Hooks of the standard reader that notice what it would let pass."""

    def __init__(self) -> None:
        self.any = False

    def mapping(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        self.any |= len(value) != len(pairs)
        return value

    def integer(self, text: str) -> int:
        if len(text) <= MAX_DIGITS:
            return int(text)
        self.any = True
        return 0

    def constant(self, _text: str) -> None:
        self.any = True


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, (dict, list))]
    return bool(level)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def walk(text: str, builder: Builder) -> None:
    """Tell the builder what is in the text, which must be JSON, with places."""
    line, line_start = 1, 0
    for token in _TOKEN.finditer(text):
        found, place = token[0], Place(line, token.start() - line_start + 1)
        if found == "\n":
            line, line_start = line + 1, token.end()
        elif found == "[":
            builder.begin_list(place)
        elif found == "{":
            builder.begin_mapping(place)
        elif found in "]}":
            builder.end()
        elif not found.isspace() and found not in ",:":
            builder.scalar(_scalar(found, place, builder), place)


def _scalar(text: str, place: Place, builder: Builder) -> object:
    problem = ""
    if text[0] != '"' and len(text) > MAX_DIGITS and text.lstrip("-").isdigit():
        problem = f"a number of {len(text)} digits; no number of a policy has more than {MAX_DIGITS}"
    elif text in _NUMBERS_THAT_JSON_HAS_NOT:
        problem = f"not valid JSON: {text} is not a number"
    if problem:
        builder.problem(problem, place)
        return text
    value = json.loads(text)
    if isinstance(value, str) and _SURROGATE.search(value):
        builder.problem(f"{value!a} holds half of a surrogate pair, which is no character", place)
    return value
