"""Flows that drop also send a copy of the first bytes, as often as a meter lets them.  Pure.

What is dropped stays dropped: the copy is all that is added.  There is a meter for each reason, so that a flood of one
kind does not hide another (docs/decisions/0010-drops-are-copied-behind-a-meter.md has what it costs).
"""

from __future__ import annotations

from collections.abc import Mapping

from ovsfw.compiler.pipeline import OWNER, Reason, read_cookie
from ovsfw.openflow.flow import Key, Part, Value
from ovsfw.openflow.packet_in import copy_instructions

# What drops: these reasons stand on no flow that lets a packet pass.
DROPS = frozenset(
    {
        Reason.UNKNOWN_PORT, Reason.NO_SERVER, Reason.NO_TAG, Reason.SPOOF, Reason.INVALID, Reason.BLOCKED,
        Reason.DENIED, Reason.NOT_DELIVERED, Reason.UPLINK_TAGGED, Reason.LIMIT,
    }
)  # fmt: skip
# Ids on the bridge, which others may use too; of ours the owner is part.
CONTROLLER = OWNER
FIRST_METER = OWNER << 4
COPIED_BYTES = 128
# A second, for each reason.
RATE, BURST = 20, 100
METERS = tuple(sorted(FIRST_METER + reason.number for reason in DROPS))


_COPIES = {reason: copy_instructions(CONTROLLER, FIRST_METER + reason.number, COPIED_BYTES) for reason in DROPS}
_VALUE_HEAD = 16


def recorded(part: Part) -> dict[Key, Value]:
    """The same flows, of which those that drop send copies."""
    return {key: _recorded(value) for key, value in part.items()}


def _recorded(value: Value) -> Value:
    if len(value) > _VALUE_HEAD:
        return value
    why = read_cookie(int.from_bytes(value[:8], "big"))
    return value + _COPIES[why[0]] if why and why[0] in DROPS else value


def is_recording(flows: Mapping[Key, Value]) -> bool:
    """Whether some flows send copies of what they drop."""
    copies = frozenset(_COPIES.values())
    return any(value[_VALUE_HEAD:] in copies for value in flows.values())
