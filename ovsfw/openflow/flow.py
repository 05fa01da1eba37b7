"""Flows as the switch keeps them: a key and a value, both bytes in canonical form.

The key is what makes two entries the same entry to OpenFlow (table, priority, match); the value is the rest (cookie,
timeouts, flags, importance, instructions).  Because both are canonical, what a switch dumps compares with what was
compiled by bytes, and no difference can hide in a translation.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ovsfw.openflow.action import Action, apply_actions, decode_actions, encode_actions
from ovsfw.openflow.match import Match, decode_match, encode_match

_KEY = struct.Struct("!BH")
# cookie, idle timeout, hard timeout, flags, importance
_VALUE = struct.Struct("!QHHHH")
VALUE_HEAD = _VALUE.size
"""How much of a value comes before the instructions."""
# Where the actions of a flow that has any begin in its value.
_ACTIONS = VALUE_HEAD + 8

# table, priority, OXM TLVs without header and padding
Key = bytes
# cookie, idle and hard timeout, flags, importance (16 bytes), then instructions
Value = bytes
# A flow as no more than that; every Flow is one.
Entry = tuple[Key, Value]


class Flow(NamedTuple):
    """One flow table entry."""

    key: Key
    value: Value

    @property
    def table(self) -> int:
        """Its table number."""
        return self.key[0]

    @property
    def priority(self) -> int:
        """Its priority."""
        return int(_KEY.unpack_from(self.key)[1])

    @property
    def match(self) -> Match:
        """Its match.  Raises UnknownFieldError for somebody else's flow with a field this program does not know."""
        return decode_match(self.key[3:])

    @property
    def cookie(self) -> int:
        """Its cookie."""
        return int.from_bytes(self.value[:8], "big")

    @property
    def timeouts(self) -> tuple[int, int]:
        """Idle and hard timeout in seconds; 0 is never."""
        _, idle, hard, _, _ = _VALUE.unpack_from(self.value)
        return idle, hard

    @property
    def flags(self) -> int:
        """OFPFF_* bits."""
        return int(_VALUE.unpack_from(self.value)[3])

    @property
    def importance(self) -> int:
        """Importance for eviction."""
        return int(_VALUE.unpack_from(self.value)[4])

    @property
    def instructions(self) -> bytes:
        """Instructions as on the wire."""
        return self.value[16:]

    @property
    def actions(self) -> tuple[Action, ...]:
        """Its actions; empty drops."""
        return decode_actions(self.instructions)


def flow(table: int, priority: int, match: Match, actions: tuple[Action, ...], cookie: int) -> Flow:
    """Build a flow without timeouts.  The terms of `match` may come in any order."""
    return Flow(
        _KEY.pack(table, priority) + encode_match(match), _VALUE.pack(cookie, 0, 0, 0, 0) + encode_actions(actions)
    )


def joined(values: Sequence[Value]) -> Value:
    """The value of a flow that does what some do, one after the other, which differ in nothing but their actions."""
    if len(values) == 1:
        return values[0]
    return values[0][:VALUE_HEAD] + apply_actions(b"".join([value[_ACTIONS:] for value in values]))


Part = Mapping[Key, Value]


class Nest(dict[object, "Batch"]):
    """Batches in a batch."""

    __slots__ = ()


Batch = Mapping[object, Part] | Nest


class DuplicateFlowError(ValueError):
    """Two parts of a flow set claim one key: a bug in whoever built it."""


def part_of(flows: Iterable[Entry]) -> dict[Key, Value]:
    """A part of these flows.  Raises DuplicateFlowError when two of them claim one key."""
    entries = list(flows)
    part = dict(entries)
    if len(part) < len(entries):
        twice = next(key for key, count in Counter(key for key, _ in entries).items() if count > 1)
        raise DuplicateFlowError(f"two flows claim one key: {twice.hex()}")
    return part


class FlowSet(Mapping[Key, Value]):
    """Flows over all tables, put together from batches of named parts that never share a key.

    Batches and parts are immutable by convention: a compiler that hands out the very same one again says that nothing
    in it has changed, and `diff` then does not look inside.
    """

    __slots__ = ("_flat", "batches")

    def __init__(self, batches: Mapping[object, Batch]) -> None:
        """Take the parts as they are; nothing is copied."""
        self.batches = batches
        self._flat: dict[Key, Value] | None = None

    @classmethod
    def of(cls, flows: Iterable[Entry]) -> FlowSet:
        """A set of one part.  Raises DuplicateFlowError when two flows claim one key."""
        return cls({None: {None: part_of(flows)}})

    @property
    def parts(self) -> dict[object, Part]:
        """The parts of all batches, by name."""
        return {name: part for batch in self.batches.values() for name, part in parts(batch)}

    @property
    def flat(self) -> Mapping[Key, Value]:
        """Everything in one mapping.  Raises DuplicateFlowError when two parts claim one key."""
        if self._flat is None:
            every = [part for batch in self.batches.values() for _, part in parts(batch)]
            flat: dict[Key, Value] = {}
            for part in every:
                flat.update(part)
            if len(flat) != sum(map(len, every)):
                raise DuplicateFlowError("two parts of a flow set claim one key")
            self._flat = flat
        return self._flat

    def __getitem__(self, key: Key) -> Value:
        return self.flat[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.flat)

    def __len__(self) -> int:
        return sum(len(part) for batch in self.batches.values() for _, part in parts(batch))

    def flows(self) -> Iterator[Flow]:
        """Every flow, by table, then highest priority first, then match."""
        ordered = sorted(self.flat, key=lambda key: (key[0], -_KEY.unpack_from(key)[1], key))
        return (Flow(key, self.flat[key]) for key in ordered)


def parts(batch: Batch) -> Iterator[tuple[object, Part]]:
    """All parts of a batch, by name."""
    if isinstance(batch, Nest):
        for inside in batch.values():
            yield from parts(inside)
    else:
        yield from batch.items()
