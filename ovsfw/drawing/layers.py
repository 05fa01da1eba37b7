"""Which box stands in which layer, so that links lead to the right where they can and layers are few."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

Links = Sequence[tuple[str, str]]  # from box to box, never to the same one
_Beside = Mapping[str, Sequence[str]]


def sequence(boxes: Iterable[str], links: Links) -> dict[str, int]:
    """A place in a row for each box, so that only links of circles lead back.

    Boxes of one circle come by their distance from the one that has the most to say in it: any other order would make
    a long chain of them.
    """
    after, before = _beside(links), _beside((target, source) for source, target in links)
    place: dict[str, int] = {}
    circle_of: dict[str, str] = {}
    for start in reversed(_finished(boxes, after)):
        if start in circle_of:
            continue
        circle = list(_reached(start, before, circle_of))
        circle_of.update(dict.fromkeys(circle, start))
        inside = set(circle)
        first = max(sorted(circle), key=lambda name: len(after[name]) - len(before[name]))
        for name in _reached(first, {name: [each for each in after[name] if each in inside] for name in circle}):
            place[name] = len(place)
    return place


def layers(place: Mapping[str, int], links: Links) -> dict[str, int]:
    """The layer of each box, from 0, where all links lead forwards in the sequence.

    A box is right of all that lead to it, and one to which nothing leads is next to what it leads to.
    """
    after, before = _beside(links), _beside((target, source) for source, target in links)
    found: dict[str, int] = {}
    for name in sorted(place, key=lambda name: place[name]):
        found[name] = max((found[other] + 1 for other in before[name]), default=0)
    for name in place:
        if not before[name] and after[name]:
            found[name] = min(found[other] for other in after[name]) - 1
    return found


def _beside(links: Iterable[tuple[str, str]]) -> _Beside:
    beside: dict[str, list[str]] = defaultdict(list)
    for source, target in links:
        beside[source].append(target)
    return beside


def _finished(boxes: Iterable[str], after: _Beside) -> list[str]:
    """Depth first, each box when all behind it are done; without recursion, for chains may be long."""
    finished: list[str] = []
    seen: set[str] = set()
    for start in boxes:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(after[start]))]
        while stack:
            name, rest = stack[-1]
            following = next((there for there in rest if there not in seen), None)
            if following is None:
                finished.append(name)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(after[following])))
    return finished


def _reached(start: str, beside: _Beside, apart: Container[str] = ()) -> Iterator[str]:
    """Breadth first, but never by boxes apart."""
    seen, waiting = {start}, deque([start])
    while waiting:
        name = waiting.popleft()
        yield name
        fresh = [other for other in dict.fromkeys(beside[name]) if other not in seen and other not in apart]
        seen.update(fresh)
        waiting.extend(fresh)
