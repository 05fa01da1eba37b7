"""Where boxes and the links between them go, from left to right in layers.  Pure, and the same for the same input.

Sugiyama's method: links that close a circle are turned round, every box stands to the right of those that lead to it, a
link that passes layers has a place of its own in each, and so has its label; so nothing is drawn over anything else.
What is not connected is laid out apart and packed in rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ovsfw.drawing.columns import Item, arrange
from ovsfw.drawing.layers import layers, sequence

GAP = 34  # pixels between two columns
MARGIN = 16
BETWEEN = 40  # parts that are not connected
ASPECT = 1.6  # of the whole picture, width by height, if the parts allow it


@dataclass(frozen=True, slots=True)
class Size:
    """Of a box or a label, in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Link:
    """Something that leads from a box to another one, with a label."""

    id: str
    source: str
    target: str
    label: Size

    def turned(self) -> Link:
        """The other way round."""
        return Link(self.id, self.target, self.source, self.label)


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """The top left corner of each box; for each link the points it passes, and the middle of its label."""

    width: float
    height: float
    boxes: Mapping[str, Point]
    routes: Mapping[str, tuple[Point, ...]]
    labels: Mapping[str, Point]


def layout(boxes: Mapping[str, Size], links: Sequence[Link]) -> Layout:
    """Place everything; the order of the boxes decides where nothing else does."""
    parts = [_Part({name: boxes[name] for name in names}, found).placed() for names, found in _parts(boxes, links)]
    parts.sort(key=lambda part: (-part.height, -part.width))
    return _packed(parts)


def _parts(boxes: Iterable[str], links: Sequence[Link]) -> Iterator[tuple[list[str], list[Link]]]:
    """What hangs together, each part with its links."""
    beside: dict[str, list[str]] = defaultdict(list)
    for link in links:
        beside[link.source].append(link.target)
        beside[link.target].append(link.source)
    part_of: dict[str, str] = {}
    for start in boxes:
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name not in part_of:
                part_of[name] = start
                waiting.extend(beside[name])
    names: dict[str, list[str]] = defaultdict(list)
    for name, part in part_of.items():
        names[part].append(name)
    inside: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        inside[part_of[link.source]].append(link)
    for part, members in names.items():
        yield members, inside[part]


def _packed(parts: Sequence[Layout]) -> Layout:
    """Parts in rows, from the highest to the lowest."""
    area = sum((part.width + BETWEEN) * (part.height + BETWEEN) for part in parts)
    wanted = max([(area * ASPECT) ** 0.5, *(part.width for part in parts)])
    whole: tuple[dict[str, Point], dict[str, tuple[Point, ...]], dict[str, Point]] = ({}, {}, {})
    left = top = float(MARGIN)
    row = width = 0.0
    for part in parts:
        if left > MARGIN and left + part.width > wanted + MARGIN:
            left, top, row = float(MARGIN), top + row + BETWEEN, 0.0
        whole[0].update({name: (x + left, y + top) for name, (x, y) in part.boxes.items()})
        whole[1].update({key: tuple((x + left, y + top) for x, y in route) for key, route in part.routes.items()})
        whole[2].update({key: (x + left, y + top) for key, (x, y) in part.labels.items()})
        left, row = left + part.width + BETWEEN, max(row, part.height)
        width = max(width, left - BETWEEN)
    return Layout(width + MARGIN, top + row + MARGIN, *whole)


@dataclass(slots=True)
class _Part:
    """Boxes that hang together."""

    boxes: dict[str, Size]
    links: list[Link]
    _items: dict[str, Item] = field(default_factory=dict)
    _chains: dict[str, list[Item]] = field(default_factory=dict)

    def placed(self) -> Layout:
        place = sequence(self.boxes, [(link.source, link.target) for link in self.links])
        forwards = {link.id: link if place[link.source] < place[link.target] else link.turned() for link in self.links}
        ranks = layers(place, [(link.source, link.target) for link in forwards.values()])
        # Boxes stand in even columns, labels in odd ones.
        self._items = {
            name: Item(2 * ranks[name], size.width, size.height, is_box=True) for name, size in self.boxes.items()
        }
        for link in forwards.values():
            self._chains[link.id] = self._chain(link)
        items = [*self._items.values(), *(item for chain in self._chains.values() for item in chain)]
        height = arrange(items)
        lefts, width = _columns(items)
        return Layout(
            width,
            height,
            {name: (lefts[item.rank], item.y - item.height / 2) for name, item in self._items.items()},
            {link.id: self._route(link, forwards[link.id], lefts) for link in self.links},
            {link.id: self._label(link, lefts) for link in self.links},
        )

    def _chain(self, link: Link) -> list[Item]:
        """The places of a link between its boxes; the widest is its label's."""
        first, last = self._items[link.source], self._items[link.target]
        middle = (first.rank + last.rank) // 2
        middle += middle % 2 == 0
        chain = [
            Item(rank, link.label.width, link.label.height) if rank == middle else Item(rank, 0, 4)
            for rank in range(first.rank + 1, last.rank)
        ]
        way = [first, *chain, last]
        for here, there in pairwise(way):
            here.after.append(there)
            there.before.append(here)
        return chain

    def _route(self, link: Link, forwards: Link, lefts: Mapping[int, float]) -> tuple[Point, ...]:
        first, last = self._items[forwards.source], self._items[forwards.target]
        points = [(lefts[first.rank] + first.width, first.y)]
        for item in self._chains[link.id]:
            left = lefts[item.rank]
            # Straight through its column, so that it cannot touch what else stands there.
            points += [(left, item.y), (left + self._width(item.rank, lefts), item.y)]
        points.append((lefts[last.rank], last.y))
        return tuple(points if forwards.source == link.source else reversed(points))

    def _width(self, rank: int, lefts: Mapping[int, float]) -> float:
        return lefts[rank + 1] - lefts[rank] - GAP

    def _label(self, link: Link, lefts: Mapping[int, float]) -> Point:
        item = max(self._chains[link.id], key=lambda item: item.width)
        return lefts[item.rank] + self._width(item.rank, lefts) / 2, item.y


def _columns(items: Iterable[Item]) -> tuple[dict[int, float], float]:
    """Where each column begins, also one behind the last; and the width of all."""
    widths: dict[int, float] = defaultdict(float)
    for item in items:
        widths[item.rank] = max(widths[item.rank], item.width)
    lefts, left = {}, 0.0
    for rank in range(max(widths) + 1):
        lefts[rank] = left
        left += widths[rank] + GAP
    lefts[max(widths) + 1] = left
    return lefts, left - GAP
