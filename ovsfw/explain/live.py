"""What a switch does with a packet, in words, and whether that is what the policy says.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ovsfw.compiler.identity import Drop, Identity
from ovsfw.compiler.pipeline import ENDPOINT, TABLE_NAMES, Reason
from ovsfw.explain.legs import Leg
from ovsfw.openflow.match import REGISTERS
from ovsfw.policy.wording import port_text, rule_text
from ovsfw.switch.trace import Step, Trace

_ENDPOINT = REGISTERS.index(ENDPOINT)


@dataclass(frozen=True, slots=True)
class Line:
    """One step for people: the table, what its flow is there for, and what conntrack had said before it."""

    table: str
    reason: str
    state: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of one leg.

    `arrived` says that it came out where it should; `drop` is by whom it was stopped, if it was one of our flows.
    """

    leg: Leg
    lines: tuple[Line, ...]
    arrived: bool
    fate: str
    drop: Drop | None = None

    @property
    def agrees(self) -> bool:
        """Whether the switch does what the policy says."""
        return self.leg.expected in (None, self.arrived)


def passage(identity: Identity, bridge: str, leg: Leg, trace: Trace) -> Passage:
    """Read a trace."""
    lines = tuple(Line(_table(step, bridge), _reason(identity, step, bridge), step.state) for step in trace.steps)
    arrived = trace.normal if leg.target == 0 else str(leg.target) in trace.outputs
    if trace.failed:
        return Passage(leg, lines, arrived=False, fate=trace.failed)
    if arrived or trace.normal or trace.outputs:
        return Passage(leg, lines, arrived, _outcome(identity, leg, trace))
    last = trace.steps[-1] if trace.steps else Step(bridge, 0)
    drop = identity.drop(last.table, last.cookie or 0, trace.registers.get(_ENDPOINT, 0))
    return Passage(leg, lines, arrived=False, fate=_dropped(last, drop), drop=drop)


def _outcome(identity: Identity, leg: Leg, trace: Trace) -> str:
    ports = [_port(identity, int(number)) for number in trace.outputs if number.isdigit()]
    parts = [f"delivered to {' and '.join(ports)}"] if ports else []
    if trace.normal:
        parts.append("left to the switch's own forwarding (NORMAL)")
    return " and ".join(parts) or f"output to {', '.join(trace.outputs)} instead of OpenFlow port {leg.target}"


def _port(identity: Identity, ofport: int) -> str:
    port = identity.policy.ports.get(identity.endpoint(ofport))
    return f"{port_text(port)}, OpenFlow port {ofport}" if port else f"OpenFlow port {ofport}"


def _dropped(last: Step, drop: Drop | None) -> str:
    table = TABLE_NAMES.get(last.table, str(last.table))
    if drop is None:
        why = "no flow matches" if last.cookie is None else f"a flow of another program, {last.match or 'any'}"
        return f"dropped in {table}: {why}"
    return f"dropped in {table}: {drop.reason.text}"


def _table(step: Step, bridge: str) -> str:
    name = TABLE_NAMES.get(step.table) if step.bridge == bridge else None
    return name or (f"table {step.table}" if step.bridge == bridge else f"{step.bridge} {step.table}")


def _reason(identity: Identity, step: Step, bridge: str) -> str:
    if step.cookie is None:
        return "no flow matches"
    meaning = identity.meaning(step.table, step.cookie) if step.bridge == bridge else None
    if meaning is None:
        return f"another program's flow: {step.match or 'any'}, priority {step.priority}"
    if meaning.rule is not None:
        return f"{rule_text(identity.policy, meaning.rule)}  [rule {meaning.rule.id}]"
    if meaning.reason is Reason.RULE:
        return "a rule that is not in the policy accepts it"
    return meaning.reason.text
