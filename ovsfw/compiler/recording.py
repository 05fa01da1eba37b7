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
from typing import NamedTuple, TypeAlias

from ovsfw.compiler.pipeline import OWNER, Reason, read_cookie
from ovsfw.openflow.action import Copy, encode_action, encode_actions
from ovsfw.openflow.flow import VALUE_HEAD, Entry, Flow, Key, Value

# What drops: these reasons stand on no flow that lets a packet pass.
DROPS = frozenset(
    {
        Reason.UNKNOWN_PORT, Reason.NO_SERVER, Reason.NO_TAG, Reason.SPOOF, Reason.INVALID, Reason.BLOCKED,
        Reason.DENIED, Reason.REFUSED, Reason.REJECTED, Reason.NO_PORTS, Reason.NOT_DELIVERED, Reason.UPLINK_TAGGED,
        Reason.UNTRUSTED, Reason.LIMIT, Reason.UNEXPECTED,
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

Copies: TypeAlias = Mapping[Reason, tuple[Copy, ...]]


class Sends(NamedTuple):
    """Which copies flows send: of what they drop, to be taken down; of what they reject, to be answered; to the log."""

    records: bool = False
    answers: bool = False
    logs: bool = False


NOTHING = Sends()


@lru_cache
def copies(sends: Sends) -> Copies:
    """The copies that flows which drop send, by reason; not those to the log, which are their rules' business."""
    found: dict[Reason, list[Copy]] = defaultdict(list)
    if sends.records:
        for reason in DROPS:
            found[reason].append(Copy(RECORDER, FIRST_METER + reason.number, COPIED_BYTES))
    if sends.answers:
        found[Reason.REJECTED].append(Copy(ANSWERER, ANSWER_METER, COPIED_BYTES))
    return {reason: tuple(wanted) for reason, wanted in found.items()}


# Flows that drop, before they are given copies: some are logged.
_BARE = {encode_actions(logs): logs for logs in ((), (LOG_DROPPED,))}


def copied(flows: Iterable[Entry], wanted: Copies) -> Iterable[Entry]:
    """The same flows, of which those that drop and do not send copies yet, but to the log, send these."""
    return _copied(flows, wanted) if wanted else flows


def _copied(flows: Iterable[Entry], wanted: Copies) -> Iterator[Entry]:
    for key, value in flows:
        logs = _BARE.get(value[VALUE_HEAD:])
        why = None if logs is None else read_cookie(Flow(key, value).cookie)
        if logs is None or why is None:
            yield key, value
        else:
            actions = encode_actions((*wanted.get(why[0], ()), *logs))
            yield key, value[:VALUE_HEAD] + actions


def _instructions(
    records: Iterable[bool], answers: Iterable[bool], reasons: Iterable[Reason] = DROPS
) -> frozenset[bytes]:
    """All that flows which drop for some reasons and send copies can have."""
    every = [copies(Sends(record, answer)) for record, answer in product(records, answers)]
    found = {sent[reason] for sent in every for reason in reasons if reason in sent}
    return frozenset(encode_actions((*sent, *logs)) for sent in found for logs in _BARE.values())


_EITHER = (False, True)
_RECORDS = _instructions([True], [False])
_ANSWERS = _instructions(_EITHER, [True], [Reason.REJECTED])
_DROP = _instructions(_EITHER, _EITHER) | _BARE.keys()


def is_drop(instructions: bytes) -> bool:
    """Whether a flow with these instructions drops: it does nothing, or sends copies and nothing else."""
    return instructions in _DROP


def sent_by(flows: Mapping[Key, Value]) -> Sends:
    """Which copies the flows on a switch send."""
    found = {value[VALUE_HEAD:] for value in flows.values()}
    logs = encode_action(LOG_ACCEPTED), encode_action(LOG_DROPPED)
    return Sends(
        records=not found.isdisjoint(_RECORDS),
        answers=not found.isdisjoint(_ANSWERS),
        logs=any(copy in instructions for instructions in found for copy in logs),
    )
