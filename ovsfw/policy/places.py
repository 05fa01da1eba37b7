"""Values with the places they were written at.

Readers (`yamltext`, `jsontext`) tell a `Builder` what they meet in the text, in order; it makes plain values (dict,
list, str, int, float, bool, None) and a tree of places beside them.  It never recurses, and it bounds depth and the
growth by aliases, so that no text can exhaust the stack or the memory.  What is wrong with the text itself, whatever
it means, is refused here: keys that are no text, duplicate keys, recursion, depth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ovsfw.errors import PolicyError, Problem

MAX_DEPTH = 64
# How many values aliases may add to those that are written.
MAX_ALIASED = 1_000_000
# The longest number worth reading; nothing in a policy has more digits.
MAX_DIGITS = 20

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """A line and a column, both counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """Where a value stands, and where its children do: by index for a list, by key for a mapping."""

    place: Place
    items: list[Node] | None = None
    entries: dict[str, tuple[Place, Node]] | None = None

    def find(self, path: Path, *, key: bool = False) -> Place:
        """The place of the value at `path`, or of its key; of its nearest ancestor where there is no such value."""
        node, place = self, self.place
        for step in path:
            if isinstance(step, int):
                if node.items is None or step >= len(node.items):
                    return node.place
                node = node.items[step]
                place = node.place
            else:
                if node.entries is None or step not in node.entries:
                    return node.place
                place, node = node.entries[step]
        return place if key else node.place


def format_path(path: Path) -> str:
    """`security_groups[0].rules[2].protocol`; a key that is no plain word is quoted.

    >>> format_path(("ports", 0, "what is this"))
    "ports[0]['what is this']"
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[\w:-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{show(step)}]"
    return text


def show(value: object) -> str:
    """A value as a message shows it: short, printable, in the words of YAML.

    >>> show("a" * 80), show(None), show([1]), show(True)
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'", 'null', 'a list', 'true')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() if len(value) > 42:  # noqa: PLR2004 - the longest that is shown whole
            return repr(value[:39] + "...")
        case _:
            return repr(value)


class _List:
    """A list that is not finished."""

    __slots__ = ("nodes", "values")

    def __init__(self) -> None:
        self.values: list[object] = []
        self.nodes: list[Node] = []

    def step(self) -> tuple[int, ...]:
        """The index of the child that comes next."""
        return (len(self.values),)

    def take(self, value: object, node: Node) -> str:
        self.values.append(value)
        self.nodes.append(node)
        return ""

    def finish(self, place: Place) -> tuple[object, Node]:
        return self.values, Node(place, items=self.nodes)


class _Mapping:
    """A mapping that is not finished; keys and values come in turn."""

    __slots__ = ("entries", "key", "key_place", "values")

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.entries: dict[str, tuple[Place, Node]] = {}
        self.key: str | None = None
        self.key_place: Place | None = None  # set while the value of a key is awaited

    def step(self) -> tuple[str, ...]:
        """The key of the child that comes next, where it has a good one."""
        return () if self.key is None else (self.key,)

    def take(self, value: object, node: Node) -> str:
        """Take a key or a value; returns what is wrong with a key.  A wrong key is dropped with its value."""
        if self.key_place is None:
            self.key_place = node.place
            return self._take_key(value)
        if self.key is not None:
            self.values[self.key] = value
            self.entries[self.key] = (self.key_place, node)
        self.key = self.key_place = None
        return ""

    def _take_key(self, key: object) -> str:
        if not isinstance(key, str):
            return f"the key {show(key)} is not text; put it in quotes"
        if key in self.values:
            return f"duplicate key {show(key)}; it stands in line {self.entries[key][0].line} already"
        self.key = key
        return ""

    def finish(self, place: Place) -> tuple[object, Node]:
        return self.values, Node(place, entries=self.entries)


class _Open(NamedTuple):
    """A list or mapping that is not finished, and what to do with it then."""

    values: _List | _Mapping
    place: Place
    anchor: str | None
    size_before: int


class _Anchored(NamedTuple):
    value: object
    node: Node
    size: int


class Builder:
    """Makes one value and its places from what a reader meets.

    `problems` are those that leave the rest readable; others raise PolicyError at once.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.value: object = None
        self.node = Node(Place(0, 0))
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}  # None while the anchored value is not finished
        self._size = 0  # values so far, aliases spelled out
        self._aliased = 0

    def scalar(self, value: object, place: Place, anchor: str | None = None) -> None:
        """Take a value without children."""
        node = Node(place)
        self._size += 1
        if anchor is not None:
            self._anchors[anchor] = _Anchored(value, node, 1)
        self._take(value, node)

    def begin_list(self, place: Place, anchor: str | None = None) -> None:
        """A list begins."""
        self._begin(_List(), place, anchor)

    def begin_mapping(self, place: Place, anchor: str | None = None) -> None:
        """A mapping begins."""
        self._begin(_Mapping(), place, anchor)

    def _begin(self, values: _List | _Mapping, place: Place, anchor: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self.fatal(f"nested more than {MAX_DEPTH} levels deep", place)
        if anchor is not None:
            self._anchors[anchor] = None
        self._open.append(_Open(values, place, anchor, self._size))
        self._size += 1

    def end(self) -> None:
        """The list or mapping that was begun last is finished."""
        values, place, anchor, size_before = self._open.pop()
        value, node = values.finish(place)
        if anchor is not None:
            self._anchors[anchor] = _Anchored(value, node, self._size - size_before)
        self._take(value, node)

    def alias(self, anchor: str, place: Place) -> None:
        """The value of an anchor, once more."""
        if anchor not in self._anchors:
            raise self.fatal(f"the alias *{anchor} has no anchor &{anchor} before it", place)
        anchored = self._anchors[anchor]
        if anchored is None:
            raise self.fatal(f"the alias *{anchor} stands inside its own anchor", place)
        self._size += anchored.size
        self._aliased += anchored.size
        if self._aliased > MAX_ALIASED:
            raise self.fatal(f"aliases add more than {MAX_ALIASED:,} values to those that are written", place)
        self._take(anchored.value, anchored.node)

    def problem(self, message: str, place: Place) -> None:
        """Note something wrong at the value that comes next."""
        self.problems.append(Problem(message, format_path(self._path()), self.source, *place))

    def fatal(self, message: str, place: Place) -> PolicyError:
        """The error to raise when reading cannot go on at the value that comes next; carries the problems so far."""
        self.problem(message, place)
        return PolicyError(self.problems)

    def unreadable(self, message: str, place: Place) -> PolicyError:
        """The error to raise when the text breaks the rules of its format."""
        return PolicyError([*self.problems, Problem(message, "", self.source, *place)])

    def _path(self) -> Path:
        return tuple(step for container in self._open for step in container.values.step())

    def _take(self, value: object, node: Node) -> None:
        if not self._open:
            self.value, self.node = value, node
            return
        wrong = self._open[-1].values.take(value, node)
        if wrong:
            self.problem(wrong, node.place)


def place_of(text: str, offset: int) -> Place:
    r"""The place of a character.

    >>> place_of("ab\ncd", 4)
    Place(line=2, column=2)
    """
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems in the order of the document."""
    return sorted(problems, key=lambda problem: (problem.line, problem.column, problem.path, problem.message))
