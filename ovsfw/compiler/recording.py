"""Flows that drop also send copies of the first bytes, as often as a meter lets them.  Pure.

What is dropped stays dropped: the copies are all that is added.  Who takes down what is dropped has a meter for each
reason, so that a flood of one kind does not hide another (docs/decisions/0010-drops-are-copied-behind-a-meter.md has
what it costs); who answers what is rejected has one (docs/decisions/0011-the-daemon-answers-what-is-rejected.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import TypeAlias

from ovsfw.compiler.pipeline import OWNER, Reason, read_cookie
from ovsfw.openflow.flow import Flow, Key, Value
from ovsfw.openflow.packet_in import Copy, copy_instructions

# What drops: these reasons stand on no flow that lets a packet pass.
DROPS = frozenset(
    {
        Reason.UNKNOWN_PORT, Reason.NO_SERVER, Reason.NO_TAG, Reason.SPOOF, Reason.INVALID, Reason.BLOCKED,
        Reason.DENIED, Reason.REFUSED, Reason.REJECTED, Reason.NO_PORTS, Reason.NOT_DELIVERED, Reason.UPLINK_TAGGED,
        Reason.UNTRUSTED, Reason.LIMIT,
    }
)  # fmt: skip
# Ids on the bridge, which others may use too; of ours the owner is part.
RECORDER, ANSWERER = OWNER, OWNER + 1
FIRST_METER = OWNER << 4
# Every header of a packet without unusual options, and what an answer quotes of it.
COPIED_BYTES = 128
# A second, for each reason.
RATE, BURST = 20, 100
METERS = tuple(sorted(FIRST_METER + reason.number for reason in DROPS))
# No reason has the number 0.  A second, for all senders together.
ANSWER_METER = FIRST_METER
ANSWER_RATE, ANSWER_BURST = 100, 100

_VALUE_HEAD = 16
Instructions: TypeAlias = Mapping[Reason, bytes]


@lru_cache
def copies(*, records: bool, answers: bool) -> Instructions:
    """The instructions of flows that drop, by reason, where they send copies: of all drops, of rejected packets."""
    found: dict[Reason, list[Copy]] = defaultdict(list)
    if records:
        for reason in DROPS:
            found[reason].append(Copy(RECORDER, FIRST_METER + reason.number, COPIED_BYTES))
    if answers:
        found[Reason.REJECTED].append(Copy(ANSWERER, ANSWER_METER, COPIED_BYTES))
    return {reason: copy_instructions(wanted) for reason, wanted in found.items()}


def copied(flows: Iterable[Flow], instructions: Instructions) -> Iterable[Flow]:
    """The same flows, of which those that drop and send no copies yet have these instructions."""
    return _copied(flows, instructions) if instructions else flows


def _copied(flows: Iterable[Flow], instructions: Instructions) -> Iterator[Flow]:
    for flow in flows:
        why = read_cookie(flow.cookie) if len(flow.value) == _VALUE_HEAD else None
        yield Flow(flow.key, flow.value + instructions.get(why[0], b"")) if why else flow


_EVERY = [copies(records=records, answers=answers) for records, answers in product((False, True), repeat=2)]
_COPIES_ALONE = frozenset(found for instructions in _EVERY for found in instructions.values())
_RECORDS = frozenset(copies(records=True, answers=False).values())
_ANSWERS = frozenset(copies(records=records, answers=True)[Reason.REJECTED] for records in (False, True))


def is_drop(instructions: bytes) -> bool:
    """Whether a flow with these instructions drops: it does nothing, or sends copies and nothing else."""
    return not instructions or instructions in _COPIES_ALONE


def is_recording(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what they drop, to be taken down."""
    return any(value[_VALUE_HEAD:] in _RECORDS for value in flows.values())


def is_answering(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what they reject, to be answered."""
    return any(value[_VALUE_HEAD:] in _ANSWERS for value in flows.values())
