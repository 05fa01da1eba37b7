"""Flows that differ in numbers alone are written once; then the numbers are put into the bytes.

Where a number stands is not known from its field but seen: the same functions build the flows of an example, and of the
example with the lowest bit of one number changed.  The bytes that change then are where the number begins, as often as
it stands there.  So what may be filled in is what stands in the bytes as it is, or with other bits around it; whatever
else there is to know about the flows belongs to their shape, and each shape has a template of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise

from ovsfw.openflow.flow import Entry, Flow

Numbers = tuple[int, ...]
Build = Callable[[Numbers], Iterable[Flow]]


class Template:
    """The flows of one shape.  What it gives depends on the numbers alone, not on what it was asked before.

    The first ones are built, until that has cost as much as the bytes of a template; so no shape costs twice.
    """

    def __init__(self, build: Build) -> None:
        """`build` makes the flows for numbers; it gives as many, in the same order and of the same lengths, for all."""
        self._build = build
        self._known: list[Numbers] = []
        self._filled: Callable[[Numbers], Iterable[Entry]] | None = None

    def flows(self, numbers: Numbers) -> Iterable[Entry]:
        """The flows for these numbers."""
        if self._filled is not None:
            return self._filled(numbers)
        if len(self._known) <= len(numbers):
            self._known.append(numbers)
            return self._build(numbers)
        filled, first = filling(self._build, numbers), self._known[0]
        fits = filled is not None and list(filled(first)) == list(self._build(first))
        # What does not fit is a bug of this program, which costs time and no flow: all are built then.
        self._filled = filled if fits else self._build
        self._known.clear()
        return self.flows(numbers)


def filling(build: Build, example: Numbers) -> Callable[[Numbers], Iterable[Entry]] | None:
    """A template from an example, as a function of the numbers; None where one of them changes more than bits.

    All bytes together are one large number.  Multiplied with the places where the lowest bit of a number stands, the
    bits of the number that differ from the example's come to all its places at once.
    """
    pieces = _pieces(build(example))
    cuts = [*pairwise(accumulate(map(len, pieces), initial=0))]
    spans = [(key, value) for key, value in zip(cuts[::2], cuts[1::2], strict=True)]
    size = cuts[-1][1] if cuts else 0
    blank = _whole(pieces)
    places = []
    for at, number in enumerate(example):
        changed = _pieces(build((*example[:at], number ^ 1, *example[at + 1 :])))
        if [*map(len, changed)] != [*map(len, pieces)]:
            return None
        places.append(blank ^ _whole(changed))

    def filled(numbers: Numbers) -> Iterable[Entry]:
        whole = blank
        for number, old, place in zip(numbers, example, places, strict=True):
            whole ^= (number ^ old) * place
        data = whole.to_bytes(size, "big")
        return [(data[begin:middle], data[middle:end]) for (begin, middle), (_, end) in spans]

    return filled


def _pieces(flows: Iterable[Entry]) -> list[bytes]:
    return [piece for flow in flows for piece in flow]


def _whole(pieces: Iterable[bytes]) -> int:
    return int.from_bytes(b"".join(pieces), "big")
