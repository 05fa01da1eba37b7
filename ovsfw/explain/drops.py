"""What was dropped last, by endpoint; bounded, whatever comes.

Its state is a short list for each endpoint, of which the oldest entries go first, and how many there were: in all, and
by endpoint, side and reason.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ovsfw.compiler.identity import Identity
from ovsfw.compiler.pipeline import ENDPOINT, TABLE_NAMES
from ovsfw.explain.frame import Frame, read_frame
from ovsfw.openflow.match import REGISTERS
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.policy.verdict import ICMP, ICMPV6

PER_ENDPOINT = 50
# Ports that no policy knows have lists too, but not more than this.
MOST_ENDPOINTS = 4096
_ENDPOINT = REGISTERS.index(ENDPOINT)


@dataclass(frozen=True, slots=True)
class Record:
    """One packet that was dropped: when (seconds of time.time()), for whom, on which side, by which table and why."""

    when: float
    endpoint: str
    side: str
    table: str
    reason: str
    packet: str
    details: dict[str, object]


class Kind(NamedTuple):
    """What drops of an endpoint have in common: the side, the table and the reason, as in a Record."""

    side: str
    table: str
    reason: str


class Recorder:
    """The last drops of each endpoint; "" is for those of which nobody knows whose they were.

    `sampled` and `counts`, the same by endpoint and kind, are of copies: a meter lets only so many come.
    """

    def __init__(self) -> None:
        self._last: dict[str, deque[Record]] = {}
        self.sampled = 0
        self.counts: dict[str, Counter[Kind]] = {}

    def add(self, identity: Identity, copy: PacketIn, when: float) -> Record | None:
        """Take a copy down; None when a flow of another program sent it."""
        drop = identity.drop(copy.table, copy.cookie, copy.registers.get(_ENDPOINT, 0))
        if drop is None:
            return None
        try:
            frame: Frame | None = read_frame(copy.packet)
        except ValueError:
            frame = None
        record = Record(
            when,
            drop.endpoint,
            drop.direction.value if drop.direction else "",
            TABLE_NAMES.get(copy.table, str(copy.table)),
            drop.reason.text,
            str(frame) if frame else copy.packet.hex(),
            details(frame) if frame else {},
        )
        self.sampled += 1
        if record.endpoint not in self._last and len(self._last) >= MOST_ENDPOINTS:
            oldest = min(self._last, key=lambda name: self._last[name][-1].when)
            del self._last[oldest], self.counts[oldest]
        self.counts.setdefault(record.endpoint, Counter())[Kind(record.side, record.table, record.reason)] += 1
        self._last.setdefault(record.endpoint, deque(maxlen=PER_ENDPOINT)).append(record)
        return record

    def last(self, wanted: Callable[[str], bool] = lambda _: True) -> list[Record]:
        """What is remembered of some endpoints, the oldest first."""
        found = [record for name, records in self._last.items() if wanted(name) for record in records]
        return sorted(found, key=lambda record: record.when)


def details(frame: Frame) -> dict[str, object]:
    """The 5-tuple, as far as there is one."""
    found: dict[str, object] = {
        "protocol": frame.protocol,
        "source": str(frame.source) if frame.source else None,
        "destination": str(frame.destination) if frame.destination else None,
    }
    if frame.protocol in (ICMP, ICMPV6):
        found |= {"icmp_type": frame.icmp_type, "icmp_code": frame.icmp_code}
    elif frame.destination_port is not None:
        found |= {"source_port": frame.source_port, "destination_port": frame.destination_port}
    return {name: value for name, value in found.items() if value is not None}
