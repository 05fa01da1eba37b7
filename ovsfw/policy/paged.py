"""A mapping of many keys, of which a few change at a time: a new one shares all pages that nothing changed in.

A page that gets too long is a branch of eight pages, and so on.  How they lie depends on nothing but the keys, so a
change costs one short page and the way to it, however many keys there are; and what two mappings differ in is found by
a look at which pages are the very same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from operator import is_
from typing import Any, Generic, TypeVar
from zlib import crc32

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_BITS, _LONGEST, _DEEPEST = 3, 32, 10
_WIDTH = 1 << _BITS
_LAST, _FIRST = _WIDTH - 1, (_DEEPEST - 1) * _BITS
_ALL_BITS = (1 << _BITS * _DEEPEST) - 1


class Page(dict[K, V]):
    """Some keys with their values, in the order of the keys; never written to once it is made."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self)


class Branch(Generic[K, V]):
    """More keys than a page takes, by some bits of where each is spread to; immutable."""

    __slots__ = ("pages", "size")

    def __init__(self, pages: tuple[Tree[K, V], ...], size: int) -> None:
        """`size` is how many keys there are in all of them."""
        self.pages = pages
        self.size = size


Tree = Page[K, V] | Branch[K, V]
# What says where a key is: 30 bits that depend on nothing but the key.
Spread = Callable[[Any], int]
_EMPTY: Page[Any, Any] = Page()


def by_name(key: object) -> int:
    """Any spreading will do that depends on nothing but the key, and uses the first bits well."""
    if isinstance(key, int):
        return key * 0x9E3779B1 & _ALL_BITS
    return crc32((key if isinstance(key, str) else repr(key)).encode()) & _ALL_BITS


class Paged(Mapping[K, V]):
    """Immutable.  It is in an order that depends on nothing but the keys, which is not theirs."""

    __slots__ = ("_spread", "tree")

    def __init__(self, items: Mapping[K, V] | None = None, spread: Spread = by_name) -> None:
        """All of these."""
        self._spread = spread
        self.tree: Tree[K, V] = _changed(_EMPTY, _FIRST, items or {}, spread)

    def changed(self, changes: Mapping[K, V | None]) -> Paged[K, V]:
        """Another one, in which some keys stand for something else, or, where it is None, are gone.

        The very same, where that changes nothing.
        """
        tree = _changed(self.tree, _FIRST, changes, self._spread) if changes else self.tree
        if tree is self.tree:
            return self
        found: Paged[K, V] = Paged(spread=self._spread)
        found.tree = tree
        return found

    def differences(self, before: Paged[K, V]) -> Iterator[tuple[K, V | None, V | None]]:
        """What a key stood for before and does now, where that is not the same object nor equal; None: it did not."""
        for old, new in _differing(before.tree, self.tree):
            for key, now in new.items():
                was = old.get(key)
                if was is None or (was is not now and was != now):
                    yield key, was, now
            for key in old.keys() - new.keys():
                yield key, old[key], None

    def __repr__(self) -> str:
        return f"Paged({dict(self)!r})"

    def __getitem__(self, key: K) -> V:
        page = self.tree
        if isinstance(page, Branch):
            place, shift = self._spread(key), _FIRST
            while isinstance(page, Branch):
                page = page.pages[place >> shift & _LAST]
                shift -= _BITS
        return page[key]

    def __iter__(self) -> Iterator[K]:
        for page in pages(self.tree):
            yield from page

    def __len__(self) -> int:
        return self.tree.size

    def items(self) -> ItemsView[K, V]:
        """Without looking for each key."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Without looking for each key."""
        return _Values(self)


class _Items(ItemsView[K, V]):
    _mapping: Paged[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for page in pages(self._mapping.tree):
            yield from page.items()


class _Values(ValuesView[V]):
    _mapping: Paged[Any, V]

    def __iter__(self) -> Iterator[V]:
        for page in pages(self._mapping.tree):
            yield from page.values()


def pages(tree: Tree[K, V]) -> Iterator[Page[K, V]]:
    """All pages that are no branches."""
    if isinstance(tree, Branch):
        for page in tree.pages:
            yield from pages(page)
    else:
        yield tree


def _differing(old: Tree[K, V], new: Tree[K, V]) -> Iterator[tuple[Mapping[K, V], Mapping[K, V]]]:
    """What may differ, piece by piece."""
    if old is new:
        return
    if isinstance(old, Branch) and isinstance(new, Branch):
        for one, other in zip(old.pages, new.pages, strict=True):
            yield from _differing(one, other)
    else:
        yield _flat(old), _flat(new)


def _flat(tree: Tree[K, V]) -> Mapping[K, V]:
    return {key: value for page in pages(tree) for key, value in page.items()} if isinstance(tree, Branch) else tree


def _changed(tree: Tree[K, V], shift: int, changes: Mapping[K, V | None], spread: Spread) -> Tree[K, V]:
    """The very same where nothing differs."""
    if isinstance(tree, Branch):
        parts: dict[int, dict[K, V | None]] = {}
        for key, value in changes.items():
            parts.setdefault(spread(key) >> shift & _LAST, {})[key] = value
        inside = [*tree.pages]
        for number, part in parts.items():
            inside[number] = _changed(inside[number], shift - _BITS, part, spread)
        if all(map(is_, inside, tree.pages)):
            return tree
        size = sum(page.size for page in inside)
        if size > _LONGEST:
            return Branch(tuple(inside), size)
        return _made({key: value for page in inside for key, value in _flat(page).items()}, shift, spread)
    merged = {key: value for key, value in {**tree, **changes}.items() if value is not None}
    if merged == tree:
        return tree
    return _made(merged, shift, spread)


def _made(items: Mapping[K, V], shift: int, spread: Spread) -> Tree[K, V]:
    places = sorted([(spread(key), key) for key in items])
    keys = [key for _, key in places]
    return _split(items, keys, [place for place, _ in places], range(len(keys)), shift)


def _split(items: Mapping[K, V], keys: list[K], places: list[int], some: range, shift: int) -> Tree[K, V]:
    """Some of the keys in pages that are short enough; all are in the order of where they are spread to."""
    if len(some) <= _LONGEST or shift < 0:
        return Page([(key, items[key]) for key in keys[some.start : some.stop]])
    first = places[some.start] >> shift + _BITS << _BITS
    inside, begin = [], some.start
    for number in range(first + 1, first + _WIDTH + 1):
        end = bisect_left(places, number << shift, begin, some.stop)
        inside.append(_split(items, keys, places, range(begin, end), shift - _BITS))
        begin = end
    return Branch(tuple(inside), len(some))
