"""Sets of whole numbers as spans: sorted, apart from each other, first and last included.

Addresses, transport ports and whatever else a rule restricts can be put on a line of numbers.  Two sets of billions
of them are compared exactly by looking at their borders only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
Spans = tuple[Span, ...]


def union(spans: Iterable[Span]) -> Spans:
    """Every number of the spans, which may overlap and come in any order.

    >>> union([(5, 9), (1, 2), (3, 4), (8, 12)])
    ((1, 12),)
    """
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def intersection(one: Spans, other: Spans) -> Spans:
    """What is in both.

    >>> intersection(((1, 5), (8, 9)), ((4, 8),))
    ((4, 5), (8, 8))
    """
    found: list[Span] = []
    left = right = 0
    while left < len(one) and right < len(other):
        first, last = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if first <= last:
            found.append((first, last))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(found)


def difference(one: Spans, other: Spans) -> Spans:
    """What is in one and not in the other.

    >>> difference(((1, 9),), ((3, 4), (9, 20)))
    ((1, 2), (5, 8))
    """
    found: list[Span] = []
    at = 0
    for start, last in one:
        first = start
        while at < len(other) and other[at][1] < first:
            at += 1
        here = at
        while here < len(other) and other[here][0] <= last:
            if first < other[here][0]:
                found.append((first, other[here][0] - 1))
            first = max(first, other[here][1] + 1)
            here += 1
        if first <= last:
            found.append((first, last))
    return tuple(found)


def contains(spans: Spans, number: int) -> bool:
    """Whether a number is in the set.

    >>> contains(((1, 5),), 5), contains(((1, 5),), 6)
    (True, False)
    """
    at = bisect_right(spans, (number, float("inf"))) - 1
    return at >= 0 and spans[at][1] >= number


def cut(wanted: Spans, sets: Iterable[Spans]) -> Iterator[Span]:
    """The wanted spans, cut so that each piece is either wholly inside or wholly outside every one of the sets.

    >>> list(cut(((1, 9),), [((3, 4),)]))
    [(1, 2), (3, 4), (5, 9)]
    """
    borders = sorted({border for spans in sets for first, last in spans for border in (first, last + 1)})
    for start, last in wanted:
        first = start
        for border in borders[bisect_right(borders, start) : bisect_right(borders, last)]:
            yield first, border - 1
            first = border
        yield first, last
