"""YAML text into a `Builder`: the syntax of YAML, with the scalars of YAML 1.2's core schema.

PyYAML's own loader follows YAML 1.1, where the unquoted MAC address 52:54:00:00:00:01 is a number to the base of 60,
`no` is false and 2024-01-01 a date; and its composer recurses in C until the process dies on deeply nested text.
Therefore only its event stream is used.
"""

from __future__ import annotations

import re
from typing import Protocol

import yaml

from ovsfw.policy.places import MAX_DIGITS, Builder, Place, place_of

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# https://yaml.org/spec/1.2.2/#1032-tag-resolution
_WORDS: dict[str, object] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)
_NUMBER_STARTS = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset({None, "!", _TAG_PREFIX + "str", _TAG_PREFIX + "seq", _TAG_PREFIX + "map"})


def read(text: str, builder: Builder) -> None:
    """Tell the builder what is in the text; nothing when there is no document.

    Raises PolicyError where the text is no YAML, or holds more than one document.
    """
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise builder.unreadable("a second YAML document; a policy is one document", _place(event.start_mark))
            _tell(event, builder)
    except yaml.reader.ReaderError as error:
        place = place_of(text, max(text.find(chr(error.character)), 0))
        raise builder.unreadable(f"the character {chr(error.character)!a} is not allowed here", place) from None
    except yaml.MarkedYAMLError as error:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise builder.unreadable(f"not valid YAML: {said}", _place(error.problem_mark or error.context_mark)) from None


def _tell(event: yaml.Event, builder: Builder) -> None:
    match event:
        case yaml.ScalarEvent():
            _scalar(event, builder)
        case yaml.SequenceStartEvent():
            _check_tag(event, builder)
            builder.begin_list(_place(event.start_mark), event.anchor)
        case yaml.MappingStartEvent():
            _check_tag(event, builder)
            builder.begin_mapping(_place(event.start_mark), event.anchor)
        case yaml.CollectionEndEvent():
            builder.end()
        case yaml.AliasEvent():
            builder.alias(str(event.anchor), _place(event.start_mark))
        case _:
            pass  # the stream's and the document's begin and end


def _scalar(event: yaml.ScalarEvent, builder: Builder) -> None:
    place = _place(event.start_mark)
    value: object = event.value
    if event.tag is not None:
        _check_tag(event, builder)
    elif event.implicit[0]:
        try:
            value = resolve(event.value)
        except ValueError as error:
            builder.problem(str(error), place)
    builder.scalar(value, place, event.anchor)


def _check_tag(event: yaml.ScalarEvent | yaml.CollectionStartEvent, builder: Builder) -> None:
    if event.tag not in _PLAIN_TAGS:
        tag = str(event.tag).replace(_TAG_PREFIX, "!!", 1)
        builder.problem(f"the tag {tag} is not allowed; leave it out", _place(event.start_mark))


def resolve(text: str) -> object:
    """The value of an unquoted scalar.  Raises ValueError for a number too long to mean anything.

    >>> resolve("52:54:00:00:00:01"), resolve("no"), resolve("0o17"), resolve("1e3"), resolve("~")
    ('52:54:00:00:00:01', 'no', 15, 1000.0, None)
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits; no number of a policy has more than {MAX_DIGITS}")
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Mark(Protocol):
    """A place in PyYAML's words, counted from 0."""

    line: int
    column: int


def _place(mark: _Mark | None) -> Place:
    return Place(0, 0) if mark is None else Place(mark.line + 1, mark.column + 1)
