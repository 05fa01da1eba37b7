"""Flows that also send copies of the first bytes, as often as a meter lets them.  Pure.

What is dropped stays dropped, what passes passes: the copies are all that is added.  Who takes down what is dropped has
a meter for each reason, so that a flood of one kind does not hide another
(docs/decisions/0010-drops-are-copied-behind-a-meter.md has what it costs); who answers what is rejected has one
(docs/decisions/0011-the-daemon-answers-what-is-rejected.md); who logs decisions has one for what is accepted and one
for what is dropped, and only those flows send to it that the policy names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import TypeAlias

from ovsfw.compiler.pipeline import OWNER, Reason, read_cookie
from ovsfw.openflow.action import Copy, encode_action, encode_actions
from ovsfw.openflow.flow import Flow, Key, Value

# What drops: these reasons stand on no flow that lets a packet pass.
DROPS = frozenset(
    {
        Reason.UNKNOWN_PORT, Reason.NO_SERVER, Reason.NO_TAG, Reason.SPOOF, Reason.INVALID, Reason.BLOCKED,
        Reason.DENIED, Reason.REFUSED, Reason.REJECTED, Reason.NO_PORTS, Reason.NOT_DELIVERED, Reason.UPLINK_TAGGED,
        Reason.UNTRUSTED, Reason.LIMIT,
    }
)  # fmt: skip
# Ids on the bridge, which others may use too; of ours the owner is part.
RECORDER, ANSWERER, LOGGER = OWNER, OWNER + 1, OWNER + 2
FIRST_METER = OWNER << 4
# Every header of a packet without unusual options, and what an answer quotes of it.
COPIED_BYTES = 128
# A second, for each reason.
RATE, BURST = 20, 100
METERS = tuple(sorted(FIRST_METER + reason.number for reason in DROPS))
# No reason has the number 0.  A second, for all senders together.
ANSWER_METER = FIRST_METER
ANSWER_RATE, ANSWER_BURST = 100, 100
# Nor these numbers.  A second, for all that is accepted, and for all that is dropped.
LOG_METERS = ACCEPTED_METER, DROPPED_METER = FIRST_METER + 0x100, FIRST_METER + 0x101
LOG_RATE, LOG_BURST = 100, 200
LOG_ACCEPTED = Copy(LOGGER, ACCEPTED_METER, COPIED_BYTES)
LOG_DROPPED = Copy(LOGGER, DROPPED_METER, COPIED_BYTES)

_VALUE_HEAD = 16
Copies: TypeAlias = Mapping[Reason, tuple[Copy, ...]]


@lru_cache
def copies(*, records: bool, answers: bool) -> Copies:
    """The copies that flows which drop send, by reason: of all drops, of rejected packets."""
    found: dict[Reason, list[Copy]] = defaultdict(list)
    if records:
        for reason in DROPS:
            found[reason].append(Copy(RECORDER, FIRST_METER + reason.number, COPIED_BYTES))
    if answers:
        found[Reason.REJECTED].append(Copy(ANSWERER, ANSWER_METER, COPIED_BYTES))
    return {reason: tuple(wanted) for reason, wanted in found.items()}


# Flows that drop, before they are given copies: some are logged.
_BARE = {encode_actions(logs): logs for logs in ((), (LOG_DROPPED,))}


def copied(flows: Iterable[Flow], wanted: Copies) -> Iterable[Flow]:
    """The same flows, of which those that drop and do not send copies yet, but to the log, send these."""
    return _copied(flows, wanted) if wanted else flows


def _copied(flows: Iterable[Flow], wanted: Copies) -> Iterator[Flow]:
    for flow in flows:
        logs = _BARE.get(flow.instructions)
        why = None if logs is None else read_cookie(flow.cookie)
        if logs is None or why is None:
            yield flow
        else:
            actions = encode_actions((*wanted.get(why[0], ()), *logs))
            yield Flow(flow.key, flow.value[:_VALUE_HEAD] + actions)


def _instructions(
    records: Iterable[bool], answers: Iterable[bool], reasons: Iterable[Reason] = DROPS
) -> frozenset[bytes]:
    """All that flows which drop for some reasons and send copies can have."""
    every = [copies(records=record, answers=answer) for record, answer in product(records, answers)]
    found = {sent[reason] for sent in every for reason in reasons if reason in sent}
    return frozenset(encode_actions((*sent, *logs)) for sent in found for logs in _BARE.values())


_EITHER = (False, True)
_RECORDS = _instructions([True], [False])
_ANSWERS = _instructions(_EITHER, [True], [Reason.REJECTED])
_DROP = _instructions(_EITHER, _EITHER) | _BARE.keys()


def is_drop(instructions: bytes) -> bool:
    """Whether a flow with these instructions drops: it does nothing, or sends copies and nothing else."""
    return instructions in _DROP


def is_recording(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what they drop, to be taken down."""
    return any(value[_VALUE_HEAD:] in _RECORDS for value in flows.values())


def is_answering(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what they reject, to be answered."""
    return any(value[_VALUE_HEAD:] in _ANSWERS for value in flows.values())


def is_logging(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what is to be logged."""
    logs = encode_action(LOG_ACCEPTED), encode_action(LOG_DROPPED)
    return any(copy in value for value in flows.values() for copy in logs)
