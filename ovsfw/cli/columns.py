"""Rows as columns of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A line for the head and one for each row.

    >>> list(columns(("port", "packets"), [("vm1", 7), ("stray", 12)]))
    ['port   packets', 'vm1    7', 'stray  12']
    """
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
