"""The pipeline as data: tables, registers, conntrack bits, priorities and cookies.

Every flow is built by `Table.flow`, which refuses a field that its table does not declare and a jump to a table that it
does not lead to.  `docs/pipeline.md` tells the story; its tables are generated from here.

To add a table: declare it below with what it may match and where it leads, name its flows' reasons, and build its
flows in the module of its stage.  Numbers are in the range 100-139, which no OpenFlow application we know of uses, and
which Neutron's agent does not clean.
"""

from __future__ import annotations

# Cookies are a part of the pipeline, and so is what a table is, in modules of their own.
from ovsfw.compiler.reasons import OWNER as OWNER
from ovsfw.compiler.reasons import VERSION as VERSION
from ovsfw.compiler.reasons import Reason as Reason
from ovsfw.compiler.reasons import cookie as cookie
from ovsfw.compiler.reasons import read_cookie as read_cookie
from ovsfw.compiler.table import BY_NUMBER as BY_NUMBER
from ovsfw.compiler.table import FIRST_OWN as FIRST_OWN
from ovsfw.compiler.table import OWN as OWN
from ovsfw.compiler.table import TABLES as TABLES
from ovsfw.compiler.table import PipelineError as PipelineError
from ovsfw.compiler.table import Priority as Priority
from ovsfw.compiler.table import Table as Table
from ovsfw.compiler.table import declare
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Place
from ovsfw.openflow.flow import Flow

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
BARRED = Place(m.CT_LABEL, 64, 1)
"""ct_label: it stands for one that was cut and forgotten, and began with an answer in that."""

# --- What a made-up packet carries ----------------------------------------------------------------------------------

TAKEN_OVER = LEFT_TO_GROUPS
"""In EGRESS_RULE: its connection, which somebody else let in, is taken over.  WRITTEN_MARK is its ct_mark then, SENDER
and RECEIVER are the two halves of its ct_label."""
WRITTEN_MARK = Place(GATE, 0, 32)


# --- Tables ---------------------------------------------------------------------------------------------------------

PACKET = frozenset({m.ETH_TYPE, m.IP_PROTO, m.ICMP6_TYPE, m.ICMP6_CODE, m.UDP_SRC, m.UDP_DST})
ADDRESSES = frozenset({m.IPV4_SRC, m.IPV4_DST, m.IPV6_SRC, m.IPV6_DST})
PORTS = frozenset({m.TCP_DST, m.UDP_DST, m.SCTP_DST})
SERVICE = frozenset(
    {m.ETH_TYPE, m.IP_PROTO, *PORTS, m.ICMP_TYPE, m.ICMP_CODE, m.ICMP6_TYPE, m.ICMP6_CODE}
    | {m.TCP_SRC, m.UDP_SRC, m.SCTP_SRC}
)
STATE = frozenset({m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, m.TCP_FLAGS, m.CT_STATE, m.CT_MARK})


HOOK = declare("hook", "the way in, in a table that others may share", {PASSED}, "classify")
CLASSIFY = declare(
    "classify",
    "who sent it: an endpoint, a port that no policy knows, or the world outside",
    {m.IN_PORT, m.VLAN_VID},
    "spoof_guard",
    "uplink",
    "forward",
)
UPLINK = declare("uplink", "which network a packet from outside is in, by its tag", {m.VLAN_VID}, "forward")
SPOOF_GUARD = declare(
    "spoof_guard",
    "an endpoint sends only as itself",
    {ENDPOINT, m.ETH_SRC, m.VLAN_VID, m.ARP_OP, m.ARP_SPA, m.ARP_TPA, m.ARP_SHA, m.ICMP_TYPE, *PACKET, *ADDRESSES},
    "egress",
    "forward",
)
EGRESS = declare(
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
ND_GUARD = declare(
    "nd_guard",
    "the link-layer address inside neighbour discovery is the endpoint's own",
    {ENDPOINT, m.ETH_SRC, m.ND_SLL, m.ND_TLL, *PACKET},
    "nd_target",
    "forward",
)
ND_TARGET = declare(
    "nd_target",
    "an endpoint advertises, and probes for, only its own addresses",
    {ENDPOINT, m.ETH_SRC, m.ND_TARGET, *PACKET},
    "forward",
)
EGRESS_STATE = declare(
    "egress_state",
    "which packets the rules must see",
    {ENDPOINT, *STATE},
    "egress_data",
    "egress_policy",
    "egress_verdict",
    "forward",
)
EGRESS_DATA = declare(
    "egress_data",
    "the data connections that a helper expects, between the ends of their control connection alone",
    {ENDPOINT, m.CT_LABEL, m.IPV4_SRC, m.IPV6_SRC, *STATE},
    "egress_tiers",
    "egress_rules",
    "egress_policy",
    "egress_verdict",
    "forward",
)
EGRESS_POLICY = declare(
    "egress_policy", "the tiers and groups of the sender", {ENDPOINT}, "egress_tiers", "egress_rules", "egress_verdict"
)
EGRESS_TIERS = declare(
    "egress_tiers",
    "the rules of a tier in their order, until one has spoken",
    {GROUP, EGRESS_RULE, m.ETH_TYPE},
    "egress_rules_v4",
    "egress_rules_v6",
)
EGRESS_RULES = declare(
    "egress_rules",
    "the rules of a group, unless one has spoken",
    {EGRESS_RULE, m.ETH_TYPE},
    "egress_rules_v4",
    "egress_rules_v6",
)
EGRESS_RULES_V4 = declare("egress_rules_v4", "IPv4 egress rules", {GROUP, EGRESS_RULE, m.CONJ_ID, m.IPV4_DST, *SERVICE})
EGRESS_RULES_V6 = declare("egress_rules_v6", "IPv6 egress rules", {GROUP, EGRESS_RULE, m.CONJ_ID, m.IPV6_DST, *SERVICE})
EGRESS_VERDICT = declare(
    "egress_verdict",
    "accepted by a rule, or dropped; fragments wait for each other",
    {ENDPOINT, EGRESS_RULE, m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, *PORTS},
    "egress_gate",
    "forward",
)
EGRESS_GATE = declare("egress_gate", "fragments that have found each other", {ENDPOINT, m.CT_STATE}, "forward")
FORWARD = declare(
    "forward", "to an endpoint of this host, to many, or out", {NETWORK, m.ETH_DST}, "ingress", "fan_out", "leave"
)
LEAVE = declare(
    "leave",
    "out of this host; new connections are remembered",
    {EGRESS_RULE, m.ETH_TYPE, m.IP_PROTO, m.CT_STATE, m.CT_MARK},
    "left",
    "hook",
)
LEFT = declare("left", "out by the switch's own forwarding", {m.CT_STATE, m.CT_MARK}, "hook")
FAN_OUT = declare("fan_out", "broadcast and multicast", PACKET, "trusted", "flood", "fan_out_rules")
TRUSTED = declare(
    "trusted",
    "DHCP replies and router advertisements, where a network names who may send them",
    {NETWORK, m.ETH_DST, m.IPV4_SRC, m.IPV6_SRC, *PACKET},
    "flood",
    "deliver",
)
FLOOD = declare("flood", "every endpoint of the network gets it", {NETWORK, OUTPUT_PAGE}, "flood")
FAN_OUT_RULES = declare(
    "fan_out_rules",
    "judged once for all endpoints with the same groups, in one go or in several",
    {NETWORK, m.ETH_TYPE},
    "fan_out_page",
)
FAN_OUT_PAGE = declare("fan_out_page", "one class of endpoints after the other", {NETWORK, CLASS_PAGE}, "fan_out_class")
FAN_OUT_CLASS = declare(
    "fan_out_class", "the tiers and groups of a class", {CLASS}, "ingress_tiers", "ingress_rules", "fan_out_deliver"
)
FAN_OUT_DELIVER = declare(
    "fan_out_deliver", "those whose rules accepted it get it", {CLASS, INGRESS_RULE, OUTPUT_PAGE}, "fan_out_deliver"
)
INGRESS = declare(
    "ingress",
    "what an endpoint always gets; the rest is tracked",
    {ENDPOINT, m.CT_STATE, m.IP_FRAG, *PACKET},
    "trusted",
    "deliver",
    "ingress_state",
    "ingress_policy",
    "ingress_verdict",
)
INGRESS_STATE = declare(
    "ingress_state",
    "which packets the rules must see",
    {ENDPOINT, *STATE},
    "ingress_data",
    "ingress_policy",
    "ingress_verdict",
    "commit",
)
INGRESS_DATA = declare(
    "ingress_data",
    "the data connections that a helper expects, between the ends of their control connection alone",
    {ENDPOINT, m.CT_LABEL, m.IPV4_DST, m.IPV6_DST, *STATE},
    "ingress_tiers",
    "ingress_rules",
    "ingress_policy",
    "ingress_verdict",
    "commit",
)
INGRESS_POLICY = declare(
    "ingress_policy",
    "the tiers and groups of the receiver",
    {ENDPOINT},
    "ingress_tiers",
    "ingress_rules",
    "ingress_verdict",
)
INGRESS_TIERS = declare(
    "ingress_tiers",
    "the rules of a tier in their order, until one has spoken",
    {GROUP, INGRESS_RULE, m.ETH_TYPE},
    "ingress_rules_v4",
    "ingress_rules_v6",
)
INGRESS_RULES = declare(
    "ingress_rules",
    "the rules of a group, unless one has spoken",
    {INGRESS_RULE, m.ETH_TYPE},
    "ingress_rules_v4",
    "ingress_rules_v6",
)
_FROM_RULES = {GROUP, INGRESS_RULE, m.CONJ_ID, *SERVICE}
INGRESS_RULES_V4 = declare("ingress_rules_v4", "IPv4 ingress rules", {*_FROM_RULES, m.IPV4_SRC})
INGRESS_RULES_V6 = declare("ingress_rules_v6", "IPv6 ingress rules", {*_FROM_RULES, m.IPV6_SRC})
INGRESS_VERDICT = declare(
    "ingress_verdict",
    "accepted by a rule, or dropped; fragments wait for each other",
    {ENDPOINT, INGRESS_RULE, m.ETH_TYPE, m.IP_FRAG, m.IP_PROTO, *PORTS},
    "ingress_gate",
    "commit",
)
INGRESS_GATE = declare(
    "ingress_gate", "fragments that have found each other", {ENDPOINT, EGRESS_RULE, m.CT_STATE}, "commit"
)
COMMIT = declare(
    "commit",
    "new connections are remembered",
    {EGRESS_RULE, INGRESS_RULE, SENDER, m.ETH_TYPE, m.IP_PROTO, m.CT_STATE, m.CT_MARK},
    "deliver",
    "committed",
)
COMMITTED = declare(
    "committed", "what conntrack has remembered", {EGRESS_RULE, RECEIVER, m.CT_STATE, m.CT_MARK}, "deliver"
)
DELIVER = declare("deliver", "out of the endpoint's port", (), "hook")
REMARK = declare(
    "remark",
    "no packet comes here but those that ovsfw makes up, to block a connection, let it live again, or take it over",
    {EGRESS_RULE, m.ETH_TYPE, m.CT_STATE, m.CT_MARK},
)

TABLE_NAMES = {table.number: table.name for table in TABLES}
OWN_TABLES = frozenset(range(FIRST_OWN, FIRST_OWN + OWN))


def is_ours(entry: Flow) -> bool:
    """Whether a flow on the switch belongs to ovsfw.

    Our tables are ours alone, so that a flow somebody else puts there is drift and not a hole; in the hook table, which
    others may share, ours are those with our cookie.
    """
    return entry.table in OWN_TABLES or entry.cookie >> 48 == OWNER
