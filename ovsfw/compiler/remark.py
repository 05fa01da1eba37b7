"""What a switch must do so that a connection is blocked, or lives again: a packet of it, and where the packet goes."""

from __future__ import annotations

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import load
from ovsfw.openflow.action import Action, Ct


def remark_actions(zone: int, *, blocked: bool) -> tuple[Action, ...]:
    """The actions for a packet of a connection in a zone of conntrack.

    >>> len(remark_actions(7, blocked=True))
    3
    """
    verdict = 0 if blocked else p.FRAGMENT_HINT
    again = Ct(p.ZONE, table=p.REMARK.number)
    return load(p.NETWORK, zone), load(p.EGRESS_RULE, verdict), again
