"""The pipeline as data: tables, registers, conntrack bits, priorities and cookies.

Every flow is built by `Table.flow`, which refuses a field that its table does not declare and a jump to a table that it
does not lead to.  `docs/pipeline.md` tells the story; its tables are generated from here.

To add a table: declare it below with what it may match and where it leads, name its flows' reasons, and build its
flows in the module of its stage.  Numbers are in the range 100-139, which no OpenFlow application we know of uses, and
which Neutron's agent does not clean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from operator import itemgetter

# Cookies are a part of the pipeline, in a module of their own.
from ovsfw.compiler.reasons import OWNER as OWNER
from ovsfw.compiler.reasons import VERSION as VERSION
from ovsfw.compiler.reasons import Reason as Reason
from ovsfw.compiler.reasons import cookie as cookie
from ovsfw.compiler.reasons import read_cookie as read_cookie
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, Place, Resubmit
from ovsfw.openflow.flow import Flow, flow

# --- Registers ------------------------------------------------------------------------------------------------------

PASSED = m.REGISTERS[1]
"""Bit 31: it has been through the filter and is on its way out.  Neutron's agent uses registers 2, 3, 4 and 6."""
ENDPOINT = m.REGISTERS[5]
"""The endpoint this packet is judged for: the sender in the egress stages, the receiver in the ingress stages.
Bits 0-15 are its ofport, bit 16 says that it is filtered without conntrack, bit 17 that it has address pairs, which
others may have too.  0: none of ours."""
NETWORK = m.REGISTERS[6]
"""The VLAN (1-4095), or 4096 for untagged; also the conntrack zone, so that it is never zone 0."""
GROUP = m.REGISTERS[7]
"""Whose rules are being looked up: a security group; a tier; or one rule of a tier, or with a helper, by its hint with
bit 31 set.  With bit 30 too: whether the rule's helper may expect data from there, or to there."""
EGRESS_RULE = m.REGISTERS[8]
"""The egress rule that has spoken in this pass: its hint in bits 0-27, and what it says.  Bit 31: accepted.  Bit 30:
refused by a tier, with bit 29: rejected.  Bit 31 with bit 29: accepted by a rule with a helper.  Bit 28: passed by a
tier.  0: none has spoken."""
INGRESS_RULE = m.REGISTERS[9]
"""The same for ingress."""
CLASS = m.REGISTERS[10]
"""While one broadcast is judged for many: the endpoints that share a list of groups, by their lowest ofport."""
CLASS_PAGE = m.REGISTERS[11]
"""While one broadcast is judged: which part of a long list of classes."""
OUTPUT_PAGE = m.REGISTERS[12]
"""While one packet goes out of many ports: which part of a long list of ports."""
GATE = m.REGISTERS[13]
"""A conntrack zone of the endpoint's own in which fragments of one datagram wait for each other; nothing is ever
committed there."""

SENDER = m.REGISTERS[14]
"""The ofport of the endpoint that sent it, as a connection remembers it; 0 for none of ours (and from 32768 on).
Bit 31: it is data that a helper expects, and the sender is an end of the control connection."""
RECEIVER = m.REGISTERS[15]
"""The same of the endpoint that it is for."""

PASSED_BIT = 1 << 31
STATELESS, PAIRED = 1 << 16, 1 << 17
UNTAGGED = 0x1000
HINT_BIT = 1 << 31
REFUSED, REJECTED, LEFT_TO_GROUPS = 1 << 30, 1 << 29, 1 << 28
HINTS, HELPED, DATA = 1 << 28, 1 << 29, 1 << 30
PARTY = Place(SENDER, 31, 1)
ZONE, GATE_ZONE = Place(NETWORK, 0, 16), Place(GATE, 0, 16)
FIRST_GATE = 0x8000
FRAGMENT_HINT = HINT_BIT
"""Stands for the rule where a datagram came in fragments: which rule it was that accepted the first is not kept."""

# --- What a committed connection carries ----------------------------------------------------------------------------

BLOCKED = 1 << 0
"""ct_mark: no longer allowed; every packet of it is dropped."""
EGRESS_OK = 1 << 1
"""ct_mark: the originator's egress rules accepted it here."""
ORIGIN = Place(m.CT_MARK, 2, 15)
"""ct_mark: the endpoint whose egress rules accepted it, by its ofport; 0 for none.  Answers are for it."""
TARGET = Place(m.CT_MARK, 17, 15)
"""ct_mark: the endpoint whose ingress rules accepted it, by its ofport; 0 for none.  The connection is for it alone:
another endpoint that its packets are sent to asks its own rules."""
EGRESS_LABEL = Place(m.CT_LABEL, 0, 32)
"""ct_label: hint of the egress rule that let it in."""
INGRESS_LABEL = Place(m.CT_LABEL, 32, 32)
"""ct_label: hint of the ingress rule that let it in."""


# --- What a made-up packet carries ----------------------------------------------------------------------------------

TAKEN_OVER = LEFT_TO_GROUPS
"""In EGRESS_RULE: its connection, which somebody else let in, is taken over.  WRITTEN_MARK is its ct_mark then, SENDER
and RECEIVER are the two halves of its ct_label."""
WRITTEN_MARK = Place(GATE, 0, 32)


# --- Priorities -----------------------------------------------------------------------------------------------------


class Priority(IntEnum):
    """Every priority there is, highest first within its table."""

    # In the hook table, which may be shared.
    HOOK = 1001
    # Elsewhere.
    BAN = 500
    FIRST = 400
    SECOND = 300
    THIRD = 200
    FOURTH = 100
    FIFTH = 50
    SIXTH = 25
    SEVENTH = 12
    EIGHTH = 6
    MISS = 0


# --- Tables ---------------------------------------------------------------------------------------------------------

PACKET = frozenset({m.ETH_TYPE, m.IP_PROTO, m.ICMP6_TYPE, m.ICMP6_CODE, m.UDP_SRC, m.UDP_DST})
ADDRESSES = frozenset({m.IPV4_SRC, m.IPV4_DST, m.IPV6_SRC, m.IPV6_DST})
PORTS = frozenset({m.TCP_DST, m.UDP_DST, m.SCTP_DST})
SERVICE = frozenset(
    {m.ETH_TYPE, m.IP_PROTO, *PORTS, m.ICMP_TYPE, m.ICMP_CODE, m.ICMP6_TYPE, m.ICMP6_CODE}
    | {m.TCP_SRC, m.UDP_SRC, m.SCTP_SRC}
)
STATE = frozenset({m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, m.TCP_FLAGS, m.CT_STATE, m.CT_MARK})


class PipelineError(Exception):
    """A flow that the declaration does not allow: a bug of this program."""


_FIELD = itemgetter(0)
_LEADING = frozenset({Resubmit, Ct})


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """One OpenFlow table: what its flows may match, and the tables they may lead to."""

    name: str
    number: int
    about: str
    matches: frozenset[m.Field]
    leads_to: frozenset[str] = frozenset()
    _seen: set[object] = field(default_factory=set, repr=False)

    def flow(self, priority: Priority, match: m.Match, actions: tuple[Action, ...], why: int) -> Flow:
        """Build a flow of this table; `why` is its cookie.  Raises PipelineError against the declaration."""
        shape = tuple(map(_FIELD, match))
        if shape not in self._seen:
            self._check_match(shape)
        for action in actions:
            if type(action) in _LEADING and action not in self._seen:
                self._check_action(action)
        return flow(self.number, priority, match, actions, why)

    def _check_match(self, shape: tuple[m.Field, ...]) -> None:
        strange = [term.name for term in shape if term not in self.matches]
        if strange:
            raise PipelineError(f"table {self.name} does not match {', '.join(strange)}")
        self._seen.add(shape)

    def _check_action(self, action: Action) -> None:
        target = action.table if isinstance(action, Resubmit | Ct) else None
        name = TABLE_NAMES.get(target, HOOK.name) if target is not None else ""
        if name and name not in self.leads_to:
            raise PipelineError(f"table {self.name} does not lead to {name}")
        self._seen.add(action)


TABLES: list[Table] = []
FIRST_OWN, OWN = 100, 40


def _table(name: str, about: str, matches: Iterable[m.Field], *leads_to: str) -> Table:
    """Declare the next table."""
    number = FIRST_OWN + len(TABLES) - 1 if TABLES else 0
    table = Table(name, number, about, frozenset(matches), frozenset(leads_to))
    TABLES.append(table)
    return table


HOOK = _table("hook", "the way in, in a table that others may share", {PASSED}, "classify")
CLASSIFY = _table(
    "classify",
    "who sent it: an endpoint, a port that no policy knows, or the world outside",
    {m.IN_PORT, m.VLAN_VID},
    "spoof_guard",
    "uplink",
    "forward",
)
UPLINK = _table("uplink", "which network a packet from outside is in, by its tag", {m.VLAN_VID}, "forward")
SPOOF_GUARD = _table(
    "spoof_guard",
    "an endpoint sends only as itself",
    {ENDPOINT, m.ETH_SRC, m.VLAN_VID, m.ARP_OP, m.ARP_SPA, m.ARP_TPA, m.ARP_SHA, *PACKET, *ADDRESSES},
    "egress",
    "forward",
)
EGRESS = _table(
    "egress",
    "what an endpoint may always send; the rest is tracked",
    {ENDPOINT, m.IPV6_SRC, m.ND_TARGET, m.ND_SLL, m.IP_FRAG, *PACKET},
    "nd_guard",
    "nd_target",
    "forward",
    "egress_state",
    "egress_policy",
    "egress_verdict",
)
ND_GUARD = _table(
    "nd_guard",
    "the link-layer address inside neighbour discovery is the endpoint's own",
    {ENDPOINT, m.ETH_SRC, m.ND_SLL, m.ND_TLL, *PACKET},
    "nd_target",
    "forward",
)
ND_TARGET = _table(
    "nd_target",
    "an endpoint advertises, and probes for, only its own addresses",
    {ENDPOINT, m.ETH_SRC, m.ND_TARGET, *PACKET},
    "forward",
)
EGRESS_STATE = _table(
    "egress_state",
    "which packets the rules must see",
    {ENDPOINT, *STATE},
    "egress_data",
    "egress_policy",
    "egress_verdict",
    "forward",
)
EGRESS_DATA = _table(
    "egress_data",
    "the data connections that a helper expects, between the ends of their control connection alone",
    {ENDPOINT, m.CT_LABEL, m.IPV4_SRC, m.IPV6_SRC, *STATE},
    "egress_tiers",
    "egress_rules",
    "egress_policy",
    "egress_verdict",
    "forward",
)
EGRESS_POLICY = _table(
    "egress_policy", "the tiers and groups of the sender", {ENDPOINT}, "egress_tiers", "egress_rules", "egress_verdict"
)
EGRESS_TIERS = _table(
    "egress_tiers",
    "the rules of a tier in their order, until one has spoken",
    {GROUP, EGRESS_RULE, m.ETH_TYPE},
    "egress_rules_v4",
    "egress_rules_v6",
)
EGRESS_RULES = _table(
    "egress_rules",
    "the rules of a group, unless one has spoken",
    {EGRESS_RULE, m.ETH_TYPE},
    "egress_rules_v4",
    "egress_rules_v6",
)
EGRESS_RULES_V4 = _table("egress_rules_v4", "IPv4 egress rules", {GROUP, EGRESS_RULE, m.CONJ_ID, m.IPV4_DST, *SERVICE})
EGRESS_RULES_V6 = _table("egress_rules_v6", "IPv6 egress rules", {GROUP, EGRESS_RULE, m.CONJ_ID, m.IPV6_DST, *SERVICE})
EGRESS_VERDICT = _table(
    "egress_verdict",
    "accepted by a rule, or dropped; fragments wait for each other",
    {ENDPOINT, EGRESS_RULE, m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, *PORTS},
    "egress_gate",
    "forward",
)
EGRESS_GATE = _table("egress_gate", "fragments that have found each other", {ENDPOINT, m.CT_STATE}, "forward")
FORWARD = _table(
    "forward", "to an endpoint of this host, to many, or out", {NETWORK, m.ETH_DST}, "ingress", "fan_out", "leave"
)
LEAVE = _table(
    "leave",
    "out of this host; new connections are remembered",
    {EGRESS_RULE, m.ETH_TYPE, m.IP_PROTO, m.CT_STATE, m.CT_MARK},
    "left",
    "hook",
)
LEFT = _table("left", "out by the switch's own forwarding", {m.CT_STATE, m.CT_MARK}, "hook")
FAN_OUT = _table("fan_out", "broadcast and multicast", PACKET, "trusted", "flood", "fan_out_rules")
TRUSTED = _table(
    "trusted",
    "DHCP replies and router advertisements, where a network names who may send them",
    {NETWORK, m.ETH_DST, m.IPV4_SRC, m.IPV6_SRC, *PACKET},
    "flood",
    "deliver",
)
FLOOD = _table("flood", "every endpoint of the network gets it", {NETWORK, OUTPUT_PAGE}, "flood")
FAN_OUT_RULES = _table(
    "fan_out_rules",
    "judged once for all endpoints with the same groups, in one go or in several",
    {NETWORK, m.ETH_TYPE},
    "fan_out_page",
)
FAN_OUT_PAGE = _table("fan_out_page", "one class of endpoints after the other", {NETWORK, CLASS_PAGE}, "fan_out_class")
FAN_OUT_CLASS = _table(
    "fan_out_class", "the tiers and groups of a class", {CLASS}, "ingress_tiers", "ingress_rules", "fan_out_deliver"
)
FAN_OUT_DELIVER = _table(
    "fan_out_deliver", "those whose rules accepted it get it", {CLASS, INGRESS_RULE, OUTPUT_PAGE}, "fan_out_deliver"
)
INGRESS = _table(
    "ingress",
    "what an endpoint always gets; the rest is tracked",
    {ENDPOINT, m.CT_STATE, m.IP_FRAG, *PACKET},
    "trusted",
    "deliver",
    "ingress_state",
    "ingress_policy",
    "ingress_verdict",
)
INGRESS_STATE = _table(
    "ingress_state",
    "which packets the rules must see",
    {ENDPOINT, *STATE},
    "ingress_data",
    "ingress_policy",
    "ingress_verdict",
    "commit",
)
INGRESS_DATA = _table(
    "ingress_data",
    "the data connections that a helper expects, between the ends of their control connection alone",
    {ENDPOINT, m.CT_LABEL, m.IPV4_DST, m.IPV6_DST, *STATE},
    "ingress_tiers",
    "ingress_rules",
    "ingress_policy",
    "ingress_verdict",
    "commit",
)
INGRESS_POLICY = _table(
    "ingress_policy",
    "the tiers and groups of the receiver",
    {ENDPOINT},
    "ingress_tiers",
    "ingress_rules",
    "ingress_verdict",
)
INGRESS_TIERS = _table(
    "ingress_tiers",
    "the rules of a tier in their order, until one has spoken",
    {GROUP, INGRESS_RULE, m.ETH_TYPE},
    "ingress_rules_v4",
    "ingress_rules_v6",
)
INGRESS_RULES = _table(
    "ingress_rules",
    "the rules of a group, unless one has spoken",
    {INGRESS_RULE, m.ETH_TYPE},
    "ingress_rules_v4",
    "ingress_rules_v6",
)
_FROM_RULES = {GROUP, INGRESS_RULE, m.CONJ_ID, *SERVICE}
INGRESS_RULES_V4 = _table("ingress_rules_v4", "IPv4 ingress rules", {*_FROM_RULES, m.IPV4_SRC})
INGRESS_RULES_V6 = _table("ingress_rules_v6", "IPv6 ingress rules", {*_FROM_RULES, m.IPV6_SRC})
INGRESS_VERDICT = _table(
    "ingress_verdict",
    "accepted by a rule, or dropped; fragments wait for each other",
    {ENDPOINT, INGRESS_RULE, m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, *PORTS},
    "ingress_gate",
    "commit",
)
INGRESS_GATE = _table(
    "ingress_gate", "fragments that have found each other", {ENDPOINT, EGRESS_RULE, m.CT_STATE}, "commit"
)
COMMIT = _table(
    "commit",
    "new connections are remembered",
    {EGRESS_RULE, INGRESS_RULE, SENDER, m.ETH_TYPE, m.IP_PROTO, m.CT_STATE, m.CT_MARK},
    "deliver",
    "committed",
)
COMMITTED = _table(
    "committed", "what conntrack has remembered", {EGRESS_RULE, RECEIVER, m.CT_STATE, m.CT_MARK}, "deliver"
)
DELIVER = _table("deliver", "out of the endpoint's port", ())
REMARK = _table(
    "remark",
    "no packet comes here but those that ovsfw makes up, to block a connection, let it live again, or take it over",
    {EGRESS_RULE, m.ETH_TYPE, m.CT_STATE, m.CT_MARK},
)

BY_NUMBER = {table.number: table for table in TABLES}
TABLE_NAMES = {table.number: table.name for table in TABLES}
OWN_TABLES = frozenset(range(FIRST_OWN, FIRST_OWN + OWN))


def is_ours(entry: Flow) -> bool:
    """Whether a flow on the switch belongs to ovsfw.

    Our tables are ours alone, so that a flow somebody else puts there is drift and not a hole; in the hook table, which
    others may share, ours are those with our cookie.
    """
    return entry.table in OWN_TABLES or entry.cookie >> 48 == OWNER
