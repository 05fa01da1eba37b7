"""Mappings that are made of other mappings, and follow them by what differs.

Each remembers what it has seen last, and looks only at what is another now, so a small change costs what it touches.
What it says depends on what it follows alone, never on the way there: that is how it is written, and law 3 tests it.
What raises an error on the way is as if it had not been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import takewhile
from operator import is_
from typing import Any, Generic, TypeVar

from ovsfw.policy.paged import Paged

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")
_ANYTHING = object()


class Pages(Generic[K, V]):
    """A mapping in pages; whoever has none brings a new dict for each change, and never writes to one again."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: Mapping[K, V] = {}
        self._found: Paged[K, V] = Paged()

    def follow(self, items: Mapping[K, V]) -> Paged[K, V]:
        """The same, with the very same pages as last time where nothing differs."""
        if isinstance(items, Paged):
            return items
        if items is not self._seen:
            before = self._seen
            changes: dict[K, V | None] = {key: value for key, value in items.items() if before.get(key) is not value}
            changes.update(dict.fromkeys(before.keys() - items.keys()))
            self._found, self._seen = self._found.changed(changes), items
        return self._found


class Joined(Generic[K, V, T]):
    """For each key something that is made of its value, and of what that leans on; None leaves it out."""

    def __init__(self) -> None:
        """Start empty."""
        self._given: object = _ANYTHING
        self._seen: Paged[K, V] = Paged()
        self._leans: Paged[Any, Any] = Paged()
        self.found: Paged[K, T] = Paged()
        """The answer of last time."""

    def follow(
        self,
        items: Paged[K, V],
        make: Callable[[K, V], T | None],
        given: object = None,
        leans: tuple[Paged[Any, Any], Callable[[Any], Iterable[K]]] | None = None,
    ) -> Paged[K, T]:
        """The same again, where `make` says the same.

        It may depend on the item, on all of `given`, and on those values of `leans` to which the function there says
        that the item belongs.
        """
        others, keys_of = leans or (self._leans, tuple)
        changes: dict[K, T | None] = {}
        if self._given is not given and self._given != given:
            changes.update({key: make(key, value) for key, value in items.items()})
            changes.update(dict.fromkeys(self.found.keys() - changes.keys()))
        else:
            for key, _, value in items.differences(self._seen):
                changes[key] = None if value is None else make(key, value)
            for other, _, _ in others.differences(self._leans):
                for key in keys_of(other):
                    if key not in changes and (value := items.get(key)) is not None:
                        changes[key] = make(key, value)
        self.found = self.found.changed(changes)
        self._given, self._seen, self._leans = given, items, others
        return self.found


class Index(Generic[K, V, T]):
    """What all items of a mapping say about other keys: for each, everything that is said, sorted."""

    def __init__(self, says: Callable[[K, V], Iterable[tuple[Any, T]]]) -> None:
        """`says` has what an item says, and about which key; it depends on the item alone."""
        self._says = says
        self._seen: Paged[K, V] = Paged()
        self._found: Paged[Any, tuple[T, ...]] = Paged()

    def follow(self, items: Paged[K, V]) -> Paged[Any, tuple[T, ...]]:
        """What they say now."""
        if items is not self._seen:
            said: dict[Any, list[T]] = {}
            for key, before, now in items.differences(self._seen):
                for about, word in self._says(key, before) if before is not None else ():
                    self._words(said, about).remove(word)
                for about, word in self._says(key, now) if now is not None else ():
                    self._words(said, about).append(word)
            changes = {about: tuple(sorted(words)) or None for about, words in said.items()}  # type: ignore[type-var]
            self._found, self._seen = self._found.changed(changes), items
        return self._found

    def _words(self, said: dict[Any, list[T]], about: Hashable) -> list[T]:
        words = said.get(about)
        if words is None:
            words = said[about] = [*self._found.get(about, ())]
        return words


def same(new: T, before: T) -> T:
    """The very object from before, while it is equal."""
    return before if before == new else new


def spliced(before: tuple[T, ...], now: tuple[T, ...]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Where two long tuples differ: without what both begin with, and what both end with.

    >>> spliced((1, 2, 3, 4), (1, 3, 4))
    ((2,), ())
    """
    if before is now:
        return (), ()
    first = _alike(before, now)
    before, now = before[first:], now[first:]
    last = _alike(before[::-1], now[::-1])
    return before[: len(before) - last], now[: len(now) - last]


def _alike(one: tuple[T, ...], other: tuple[T, ...]) -> int:
    """How many of both are the very same objects, from the first on."""
    return sum(takewhile(bool, map(is_, one, other)))
