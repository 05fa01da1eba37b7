"""A mapping of many names, of which a few change at a time: a new one shares all pages that nothing changed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

V = TypeVar("V")
_PAGES = 256


class Paged(Mapping[str, V]):
    """Immutable.  It is in an order that depends on nothing but the names, which is not theirs.

    A change copies one page of 256, and what two of them differ in is found by a look at which pages are the very same.
    """

    __slots__ = ("_pages",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        """All of these."""
        self._pages = _changed([{}] * _PAGES, items or {})

    def changed(self, changes: Mapping[str, V | None]) -> Paged[V]:
        """Another one, in which some names stand for something else, or, where it is None, are gone."""
        found: Paged[V] = Paged()
        found._pages = _changed(self._pages, changes)
        return found

    def differences(self, before: Paged[V]) -> Iterator[tuple[V | None, V | None]]:
        """What a name stood for before and does now, where that is not the same object nor equal; None: it did not."""
        for old, new in zip(before._pages, self._pages, strict=True):
            if old is not new:
                for name in old.keys() | new.keys():
                    pair = old.get(name), new.get(name)
                    if pair[0] is not pair[1] and pair[0] != pair[1]:
                        yield pair

    def __repr__(self) -> str:
        return f"Paged({dict(self)!r})"

    def __getitem__(self, name: str) -> V:
        return self._pages[_page_of(name)][name]

    def __iter__(self) -> Iterator[str]:
        for page in self._pages:
            yield from page

    def __len__(self) -> int:
        return sum(map(len, self._pages))


def _changed(before: Sequence[dict[str, V]], changes: Mapping[str, V | None]) -> list[dict[str, V]]:
    """Pages, sorted by name inside; those that nothing changed in are the very same."""
    by_page: dict[int, dict[str, V | None]] = {}
    for name, value in changes.items():
        by_page.setdefault(_page_of(name), {})[name] = value
    pages = [*before]
    for number, inside in by_page.items():
        merged = {**pages[number], **inside}
        pages[number] = {name: value for name in sorted(merged) if (value := merged[name]) is not None}
    return pages


def _page_of(name: str) -> int:
    """Any spreading will do that depends on nothing but the name."""
    return crc32(name.encode()) % _PAGES
