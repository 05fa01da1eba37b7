"""Terms and actions that several stages share."""

from __future__ import annotations

from functools import lru_cache

from ovsfw.compiler import pipeline as p
from ovsfw.openflow import match as m
from ovsfw.openflow.action import VLAN_TCI, Load, Resubmit, whole
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.verdict import DHCP_CLIENT, DHCP_SERVER, ICMP, ICMPV6, ROUTER_ADVERTISEMENT, SCTP, TCP, UDP, Ports

IP = m.ETH_TYPE(0x0800)
IPV6 = m.ETH_TYPE(0x86DD)
ARP = m.ETH_TYPE(0x0806)
IP_OF = {Family.IPV4: IP, Family.IPV6: IPV6}
SOURCE_OF = {Family.IPV4: m.IPV4_SRC, Family.IPV6: m.IPV6_SRC}
PORT_FIELD = {TCP: m.TCP_DST, UDP: m.UDP_DST, SCTP: m.SCTP_DST}
DESTINATION_OF = {Family.IPV4: m.IPV4_DST, Family.IPV6: m.IPV6_DST}

TAGGED = m.VLAN_VID(m.VLAN_PRESENT, m.VLAN_PRESENT)
PRIORITY_TAGGED = m.VLAN_VID(m.VLAN_PRESENT)
GROUP_ADDRESSED = m.ETH_DST(1 << 40, 1 << 40)
# Writing the whole TCI works on tagged and untagged packets alike; pop_vlan would have to match the tag first.
UNTAG = Load(whole(VLAN_TCI), 0)
NO_LINK_LAYER = 0
# Bits of nw_frag (ovs-fields(7)): part of a fragmented datagram, and, not its first part.
FRAGMENT = m.IP_FRAG(1, 1)
FIRST_FRAGMENT = m.IP_FRAG(1)
LATER_FRAGMENT = m.IP_FRAG(3)


def prefix_terms(field: m.Field, prefix: Prefix) -> m.Match:
    """Match a prefix; nothing at all for /0, because an empty mask is no match to OpenFlow."""
    if not prefix.length:
        return ()
    return (field(prefix.value, None if prefix.is_host else prefix.mask),)


def udp(family: Family, ports: Ports) -> m.Match:
    """UDP from one port to another."""
    return IP_OF[family], m.IP_PROTO(UDP), m.UDP_SRC(ports.source), m.UDP_DST(ports.destination)


def icmp(kind: int) -> m.Match:
    """ICMP of a type, whatever its code."""
    return IP, m.IP_PROTO(ICMP), m.ICMP_TYPE(kind)


def icmpv6(kind: int, code: int | None = 0) -> m.Match:
    """ICMPv6 of a type; with a code always, where neighbour discovery fields are matched (CVE-2023-5366)."""
    match = (IPV6, m.IP_PROTO(ICMPV6), m.ICMP6_TYPE(kind))
    return match if code is None else (*match, m.ICMP6_CODE(code))


FIN, RST = 0x01, 0x04
# What ends a connection; both at once are told by the second.
TCP_ENDINGS = (m.TCP_FLAGS(RST, RST), m.TCP_FLAGS(FIN, FIN | RST))
DHCP_REQUESTS = tuple(udp(family, DHCP_CLIENT[family]) for family in Family)
DHCP_REPLIES = tuple(udp(family, DHCP_SERVER[family]) for family in Family)
ROUTER_ADVERTISEMENTS = icmpv6(ROUTER_ADVERTISEMENT)


@lru_cache
def to(table: p.Table) -> Resubmit:
    """Go on in another table."""
    return Resubmit(table.number)


def load(field: m.Field, value: int) -> Load:
    """Write a whole register."""
    return Load(_whole(field), value)


_whole = lru_cache(whole)
