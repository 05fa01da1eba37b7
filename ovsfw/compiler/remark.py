"""What a switch must do so that a connection is blocked, or lives again: a packet of it, and where the packet goes."""

from __future__ import annotations

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import load
from ovsfw.openflow.action import Action, Ct
from ovsfw.openflow.tracked import Tracked


def remark_actions(entry: Tracked, *, blocked: bool) -> tuple[Action, ...]:
    """The actions for a packet of a connection.

    >>> from ovsfw.openflow.tracked import Tuple
    >>> entry = Tracked(Tuple(17, "10.0.0.1", "10.0.0.2", 1000, 53), zone=7, mark=2, label=0)
    >>> len(remark_actions(entry, blocked=True))
    3
    """
    verdict = 0 if blocked else p.FRAGMENT_HINT
    again = Ct(p.ZONE, table=p.REMARK.number)
    return load(p.NETWORK, entry.zone), load(p.EGRESS_RULE, verdict), again
