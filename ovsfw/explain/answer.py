"""What a policy says of one connection, with what would have to change where it says no.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ovsfw.policy.model import Direction, Policy
from ovsfw.policy.near import Miss, nearest
from ovsfw.policy.verdict import Connection, Judgement, verdict


@dataclass(frozen=True, slots=True)
class Side:
    """What one side says; `port` is its port id, None outside the policy.  `near` only where no rule allows it."""

    direction: Direction
    port: str | None
    judgement: Judgement
    near: tuple[Miss, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Both sides."""

    connection: Connection
    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        """Whether the connection may live."""
        return self.egress.judgement.allowed and self.ingress.judgement.allowed


def answer(policy: Policy, connection: Connection) -> Answer:
    """Judge a connection, and look for the rules that come nearest where it is denied for want of one."""
    said = verdict(policy, connection)
    return Answer(
        connection,
        _side(policy, connection, Direction.EGRESS, said.egress),
        _side(policy, connection, Direction.INGRESS, said.ingress),
    )


def _side(policy: Policy, connection: Connection, direction: Direction, judgement: Judgement) -> Side:
    name = connection.sender if direction is Direction.EGRESS else connection.receiver
    if name is None or judgement.allowed or not judgement.reason.startswith(f"no {direction.value} rule"):
        return Side(direction, name, judgement)
    return Side(direction, name, judgement, nearest(policy, policy.ports[name], connection, direction))
