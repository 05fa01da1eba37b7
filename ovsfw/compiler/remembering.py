"""Connections are remembered once nobody is left to ask, with who let them in, and by which rules."""

from __future__ import annotations

from collections.abc import Iterator

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.hook import Hook
from ovsfw.compiler.packets import IP, IPV6, to
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, Load, Move, Place, whole
from ovsfw.openflow.flow import Flow

ACCEPTED = {register: register(p.HINT_BIT, p.HINT_BIT) for register in (p.EGRESS_RULE, p.INGRESS_RULE)}
# Not errors (+rel): what is committed with one is written into the connection that it is about.
ONE_WAY = m.ct_state("+trk-rpl-rel")
# What a side writes into a connection that its rules accepted.
EGRESS_ACCEPTS = (
    Load(Place(m.CT_MARK, p.EGRESS_OK.bit_length() - 1, 1), 1),
    Move(Place(p.SENDER, 0, p.ORIGIN.length), p.ORIGIN),
    Move(whole(p.EGRESS_RULE), p.EGRESS_LABEL),
)
INGRESS_ACCEPTS = (
    Move(Place(p.RECEIVER, 0, p.TARGET.length), p.TARGET),
    Move(whole(p.INGRESS_RULE), p.INGRESS_LABEL),
)


def remember(onward: Table, *writes: Load | Move, alg: int = 0) -> tuple[Action, ...]:
    """Commit, with a helper if `alg` is its number.

    The packet goes on in another table, which looks at its state once more: what comes out of conntrack need not be
    what went in (see `standing`).  A connection beyond the network's limit has no mark: the kernel's datapath drops its
    packets by itself, the userspace datapath would let them on without remembering them.
    """
    return (Ct(p.ZONE, commit=True, table=onward.number, exec=writes, alg=alg),)


def leave_flows(hook: Hook) -> Iterator[Flow]:
    """Out of this host; the rank above belongs to helpers."""
    remembered = remember(p.LEFT, *EGRESS_ACCEPTS)
    for family in (IP, IPV6):
        match = (family, ONE_WAY, ACCEPTED[p.EGRESS_RULE])
        yield _flow(p.LEAVE, Priority.FIRST, match, remembered, Reason.COMMIT)
    yield _flow(p.LEAVE, Priority.MISS, (), hook.out, Reason.LEAVE)
    # Not data (+rel): its mark is the control connection's.
    yield _flow(p.LEFT, Priority.BAN, (m.ct_state("+trk-rel"), m.CT_MARK(0, p.EGRESS_OK)), (), Reason.LIMIT)
    yield _flow(p.LEFT, Priority.FIRST, (m.ct_state("+trk-inv"),), hook.out, Reason.LEAVE)


def commit_flows() -> Iterator[Flow]:
    """Only what a rule accepted in this pass is written; replies never are.  The rank above belongs to helpers."""
    egress, ingress = ACCEPTED[p.EGRESS_RULE], ACCEPTED[p.INGRESS_RULE]
    cases = (
        (Priority.FIRST, (egress, ingress), remember(p.COMMITTED, *EGRESS_ACCEPTS, *INGRESS_ACCEPTS)),
        (Priority.SECOND, (egress,), remember(p.COMMITTED, *EGRESS_ACCEPTS)),
        (Priority.THIRD, (ingress,), remember(p.COMMITTED, *INGRESS_ACCEPTS)),
    )
    for priority, terms, actions in cases:
        for family in (IP, IPV6):
            match = (family, ONE_WAY, *terms)
            yield _flow(p.COMMIT, priority, match, actions, Reason.COMMIT)
    yield _flow(p.COMMIT, Priority.MISS, (), (to(p.DELIVER),), Reason.DELIVER)
    # An endpoint that connections do not name may have left no mark in one that it accepted.
    nameless = (p.EGRESS_RULE(0), p.RECEIVER(0), m.ct_state("+trk-inv"))
    yield _flow(p.COMMITTED, Priority.BAN, nameless, (to(p.DELIVER),), Reason.DELIVER)
    yield _flow(p.COMMITTED, Priority.FIRST, (m.ct_state("+trk"), m.CT_MARK(0)), (), Reason.LIMIT)
    yield _flow(p.COMMITTED, Priority.SECOND, (m.ct_state("+trk-inv"),), (to(p.DELIVER),), Reason.DELIVER)


def _flow(table: Table, priority: Priority, match: m.Match, actions: tuple[Action, ...], why: Reason) -> Flow:
    return table.flow(priority, match, actions, cookie(why))
