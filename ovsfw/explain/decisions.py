"""One decision as a line of the log.  Pure."""

from __future__ import annotations

from datetime import datetime, timezone

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.identity import Identity, Meaning
from ovsfw.compiler.pipeline import Reason
from ovsfw.explain.drops import details
from ovsfw.explain.frame import read_frame
from ovsfw.openflow.match import REGISTERS
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.policy import protocols
from ovsfw.policy.model import Direction, SecurityGroup

_VERDICT = {Direction.EGRESS: p.EGRESS_RULE, Direction.INGRESS: p.INGRESS_RULE}


def decision(identity: Identity, copy: PacketIn, when: float) -> dict[str, object] | None:
    """What was decided about a packet; None when a flow of another program sent the copy.

    `when` is in seconds of time.time().  What is not known, or not there, is left out: the port of a broadcast, which
    is judged for many at once; a rule that is no longer in the policy; ports that the packet does not show.
    """
    meaning = identity.meaning(copy.table, copy.cookie)
    if meaning is None or meaning.direction is None:
        return None
    reason = _reason(meaning, copy)
    for_many = meaning.direction is Direction.INGRESS and _register(copy, p.CLASS)
    found: dict[str, object] = {
        "time": timestamp(when),
        "verdict": "accepted" if reason is Reason.ACCEPTED else "dropped",
        "direction": meaning.direction.value,
        "port": None if for_many else identity.endpoint(_register(copy, p.ENDPOINT)) or None,
    }
    if meaning.rule is not None and meaning.owner is not None:
        owner = "security_group" if isinstance(meaning.owner, SecurityGroup) else "tier"
        found |= {"rule": meaning.rule.id, owner: meaning.owner.id}
    found |= {**_packet(copy.packet), "reason": reason.text}
    return {name: value for name, value in found.items() if value is not None}


def timestamp(when: float) -> str:
    """RFC 3339, in UTC.

    >>> timestamp(0.5)
    '1970-01-01T00:00:00.500+00:00'
    """
    return datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="milliseconds")


def _reason(meaning: Meaning, copy: PacketIn) -> Reason:
    """A rule says what it says in a register, before the copy is sent."""
    if meaning.reason is not Reason.RULE or meaning.direction is None:
        return meaning.reason
    said = _register(copy, _VERDICT[meaning.direction])
    if said & p.HINT_BIT:
        return Reason.ACCEPTED
    return Reason.REJECTED if said & p.REJECTED else Reason.REFUSED


def _register(copy: PacketIn, field: object) -> int:
    return next((value for number, value in copy.registers.items() if REGISTERS[number] is field), 0)


def _packet(data: bytes) -> dict[str, object]:
    try:
        frame = read_frame(data)
    except ValueError:
        return {}
    found = details(frame)
    return {**found, "protocol": protocols.name(frame.protocol)} if frame.protocol is not None else found
