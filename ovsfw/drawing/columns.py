"""What stands in columns, put in an order with few crossings, and then as near to its neighbours as there is room."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

APART = 14  # pixels between two items of a column
APART_LINES = 6  # if neither is a box
SWEEPS = 12


@dataclass(slots=True, eq=False)
class Item:
    """A box, or the place of a line or its label in a column; `y` is its middle.

    `before` and `after` are its neighbours in the columns beside it.
    """

    rank: int
    width: float
    height: float
    is_box: bool = False
    y: float = 0
    at: int = 0
    before: list[Item] = field(default_factory=list)
    after: list[Item] = field(default_factory=list)


def arrange(items: Iterable[Item]) -> float:
    """Give every item its `y`; returns the height of all."""
    by_rank: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        by_rank[item.rank].append(item)
    columns = _ordered([by_rank[rank] for rank in sorted(by_rank)])
    for column in columns:
        _spread(column, [0.0] * len(column))
    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 1
        for column in reversed(columns) if backwards else columns:
            _spread(column, [_wanted(item, backwards=backwards, final=sweep >= SWEEPS - 2) for item in column])
    top = min(item.y - item.height / 2 for column in columns for item in column)
    for column in columns:
        for item in column:
            item.y -= top
    return max(item.y + item.height / 2 for column in columns for item in column)


def _ordered(columns: list[list[Item]]) -> list[list[Item]]:
    """The best of some orders, each made from the one before by the middle of everybody's neighbours."""
    best, fewest = columns, _crossings(columns)
    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 1
        made = [list(column) for column in columns]
        for column in reversed(made) if backwards else made:
            _number(column)
        for column in reversed(made) if backwards else made:
            column.sort(key=lambda item: _middle(item, item.after if backwards else item.before))
            _number(column)
        columns = made
        crossings = _crossings(columns)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _number(column: Iterable[Item]) -> None:
    for number, item in enumerate(column):
        item.at = number


def _middle(item: Item, neighbours: Sequence[Item]) -> float:
    return sum(other.at for other in neighbours) / len(neighbours) if neighbours else item.at


def _crossings(columns: Iterable[Sequence[Item]]) -> int:
    """How often lines between neighbouring columns cross."""
    columns = list(columns)
    for column in columns:
        _number(column)
    count = 0
    for column in columns:
        seen: list[int] = []
        for item in column:
            ends = sorted(other.at for other in item.after)
            count += sum(len(seen) - _not_above(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


def _not_above(seen: list[int], end: int) -> int:
    return bisect_left(seen, end + 1)


def _wanted(item: Item, *, backwards: bool, final: bool) -> float:
    """Where an item would like to stand: with its neighbours on one side, and in the end of both."""
    neighbours = item.before + item.after if final else (item.after if backwards else item.before)
    return sum(other.y for other in neighbours) / len(neighbours) if neighbours else item.y


def _spread(column: Sequence[Item], wanted: Sequence[float]) -> None:
    """As near as can be to where all want to be, in their order and apart: least squares by pooling neighbours."""
    offset, offsets = 0.0, []
    pools: list[tuple[float, int]] = []  # the middle of what they want, and how many they are
    for number, item in enumerate(column):
        if number:
            above = column[number - 1]
            apart = APART if item.is_box or above.is_box else APART_LINES
            offset += (above.height + item.height) / 2 + apart
        offsets.append(offset)
        middle, count = wanted[number] - offset, 1
        while pools and pools[-1][0] >= middle:
            other, more = pools.pop()
            middle, count = (middle * count + other * more) / (count + more), count + more
        pools.append((middle, count))
    places = [middle for middle, count in pools for _ in range(count)]
    for item, place, distance in zip(column, places, offsets, strict=True):
        item.y = place + distance
