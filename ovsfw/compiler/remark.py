"""What a switch must do so that a connection is blocked, lives again, or is taken over.

It gets a packet of the connection, and these actions for it.

What a helper reads or expects cannot be cut by a mark: in the userspace datapath data connections keep that of their
control connection, and what a control connection has agreed stays agreed until it is forgotten.  So it is forgotten,
and then blocked as a connection that is unknown: by an answer, which no helper expects.
"""

from __future__ import annotations

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.identity import part
from ovsfw.compiler.packets import load
from ovsfw.openflow.action import Action, Ct
from ovsfw.openflow.tracked import Tracked


def remark_actions(zone: int, *, blocked: bool, helped: bool = False) -> tuple[Action, ...]:
    """The actions for a packet of a connection in a zone of conntrack; `helped`: a helper reads or expects it.

    >>> len(remark_actions(7, blocked=True))
    3
    """
    block = p.HELPED if helped else 0
    return _shown(zone, block if blocked else p.FRAGMENT_HINT)


def take_over_actions(entry: Tracked) -> tuple[Action, ...]:
    """The same so that a connection that has no mark gets the mark and the label of `entry`."""
    labels = part(entry.label, p.EGRESS_LABEL), part(entry.label, p.INGRESS_LABEL)
    written = zip((p.GATE, p.SENDER, p.RECEIVER), (entry.mark, *labels), strict=True)
    return (*(load(field, value) for field, value in written), *_shown(entry.zone, p.TAKEN_OVER))


def _shown(zone: int, said: int) -> tuple[Action, ...]:
    again = Ct(p.ZONE, table=p.REMARK.number)
    return load(p.NETWORK, zone), load(p.EGRESS_RULE, said), again
