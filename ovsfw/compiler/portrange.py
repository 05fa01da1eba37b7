"""A port range as the fewest value/mask pairs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ovsfw.policy.model import PortRange

PORT_BITS = 16
ALL_ONES = 0xFFFF


class Masked(NamedTuple):
    """A 16-bit value and mask; the mask is None when all bits count."""

    value: int
    mask: int | None


@lru_cache(maxsize=4096)
def masks(ports: PortRange) -> tuple[Masked, ...]:
    """Cover a range exactly with aligned blocks, greedily from below, which is minimal for prefixes.

    >>> masks(PortRange(80, 83))
    (Masked(value=80, mask=65532),)
    >>> len(masks(PortRange(1, 65534)))
    30
    """
    return tuple(_blocks(ports.first, ports.last))


def _blocks(first: int, last: int) -> Iterator[Masked]:
    while first <= last:
        size = (first & -first) or 1 << PORT_BITS
        while first + size - 1 > last:
            size >>= 1
        yield Masked(first, None if size == 1 else ALL_ONES ^ (size - 1))
        first += size
