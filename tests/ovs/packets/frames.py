"""Frames between the machines of the bench, by scapy; whatever a test says of a field holds, the rest is right."""

from __future__ import annotations

import itertools
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from ovsfw.policy.addresses import link_local, parse_mac
from tests.ovs.packets.bench import address, mac

BROADCAST = "ff:ff:ff:ff:ff:ff"
ROUTER_MAC = "52:54:00:ff:ff:fe"
ROUTER_LOCAL = "fe80::5054:ff:feff:fffe"
FAR = {4: "203.0.113.9", 6: "2001:db8:ff::9"}
ALL_NODES = "ff02::1"


def mac_of(name: str) -> str:
    """Of a machine; whoever is behind the uplink has the router's."""
    return mac(int(name[2:])) if name.startswith("vm") else ROUTER_MAC


def address_of(family: int, name: str) -> str:
    """Of a machine, or of somebody far away."""
    return address(family, int(name[2:])) if name.startswith("vm") else FAR[family]


def local_of(name: str) -> str:
    """The link-local address that its MAC makes."""
    return str(link_local(parse_mac(mac_of(name))))


def multicast_mac(group: str) -> str:
    """Where a multicast address goes (RFC 1112 section 6.4, RFC 2464 section 7)."""
    if ":" in group:
        return "33:33:" + ":".join(f"{byte:02x}" for byte in bytes(IPv6(dst=group))[36:40])
    numbers = [int(part) for part in group.split(".")]
    return f"01:00:5e:{numbers[1] & 127:02x}:{numbers[2]:02x}:{numbers[3]:02x}"


def solicited_node(target: str) -> str:
    """The group in which a neighbour is looked for (RFC 4291 section 2.7.1)."""
    low = bytes(IPv6(dst=target))[37:40]
    return f"ff02::1:ff{low[0]:02x}:{low[1]:02x}{low[2]:02x}"


def ether(sender: str, receiver: str, **over: Any) -> Packet:
    """The outermost layer."""
    return Ether(**{"src": mac_of(sender), "dst": mac_of(receiver), **over})


def ip(family: int, sender: str, receiver: str, **over: Any) -> Packet:
    """Ethernet and IP; `mac` and `to` are MAC addresses, all else belongs to IP."""
    frame = {"src": over.pop("mac", mac_of(sender)), "dst": over.pop("to", mac_of(receiver))}
    fields = {"src": address_of(family, sender), "dst": address_of(family, receiver), **over}
    return Ether(**frame) / (IP(**fields) if family == 4 else IPv6(**fields))


def udp(family: int, sender: str, receiver: str, dport: int = 53, sport: int = 30000, **over: Any) -> Packet:
    """A datagram."""
    return ip(family, sender, receiver, **over) / UDP(sport=sport, dport=dport) / Raw(b"payload")


def tcp(family: int, sender: str, receiver: str, dport: int = 80, sport: int = 30000, **over: Any) -> Packet:
    """A segment, by default the first."""
    flags, seq, ack = over.pop("flags", "S"), over.pop("seq", 1000), over.pop("ack", 0)
    return ip(family, sender, receiver, **over) / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)


def sctp(family: int, sender: str, receiver: str, dport: int = 80, sport: int = 30000, **over: Any) -> Packet:
    """An INIT."""
    return ip(family, sender, receiver, **over) / SCTP(sport=sport, dport=dport) / SCTPChunkInit()


def ping(family: int, sender: str, receiver: str, **over: Any) -> Packet:
    """An echo request."""
    identifier = over.pop("id", 7)
    if family == 4:
        return ip(family, sender, receiver, **over) / ICMP(type=8, id=identifier) / Raw(b"payload")
    return ip(family, sender, receiver, **over) / ICMPv6EchoRequest(id=identifier, data=b"payload")


def pong(family: int, sender: str, receiver: str, **over: Any) -> Packet:
    """An echo reply."""
    identifier = over.pop("id", 7)
    if family == 4:
        return ip(family, sender, receiver, **over) / ICMP(type=0, id=identifier) / Raw(b"payload")
    return ip(family, sender, receiver, **over) / ICMPv6EchoReply(id=identifier, data=b"payload")


def arp(sender: str, receiver: str = "", **over: Any) -> Packet:
    """Who has the receiver's address?  `mac` and `to` are of the frame, the rest of ARP."""
    frame = {"src": over.pop("mac", mac_of(sender)), "dst": over.pop("to", BROADCAST)}
    fields = {"op": 1, "hwsrc": mac_of(sender), "psrc": address_of(4, sender)}
    target = {"pdst": address_of(4, receiver)} if receiver else {}
    return Ether(**frame) / ARP(**{**fields, **target, **over})


def solicit(sender: str, target: str, lladdr: str | None = None, **over: Any) -> Packet:
    """NS for an address; `lladdr` is the source link-layer option, None leaves it out."""
    group = solicited_node(target)
    code = over.pop("code", 0)
    fields = {"to": multicast_mac(group), "dst": group, "hlim": 255, **over}
    packet = ip(6, sender, "vm1", **fields) / ICMPv6ND_NS(tgt=target, code=code)
    return packet / ICMPv6NDOptSrcLLAddr(lladdr=lladdr) if lladdr else packet


def advertise(sender: str, target: str, lladdr: str | None = None, **over: Any) -> Packet:
    """NA of an address to everybody; `lladdr` is the target link-layer option."""
    code = over.pop("code", 0)
    fields = {"to": multicast_mac(ALL_NODES), "dst": ALL_NODES, "hlim": 255, **over}
    packet = ip(6, sender, "vm1", **fields) / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1, code=code)
    return packet / ICMPv6NDOptDstLLAddr(lladdr=lladdr) if lladdr else packet


def router_advertisement(sender: str, **over: Any) -> Packet:
    """RA to everybody."""
    local = local_of(sender) if sender.startswith("vm") else ROUTER_LOCAL
    fields = {"to": multicast_mac(ALL_NODES), "dst": ALL_NODES, "src": local, "hlim": 255, **over}
    return ip(6, sender, "vm1", **fields) / ICMPv6ND_RA()


def redirect(sender: str, receiver: str, **over: Any) -> Packet:
    """Use me instead."""
    fields = {"src": local_of(sender), "hlim": 255, **over}
    return ip(6, sender, receiver, **fields) / ICMPv6ND_Redirect(tgt=local_of(sender), dst=FAR[6])


def dhcp_discover(sender: str, **over: Any) -> Packet:
    """A client without an address."""
    fields = {"to": BROADCAST, "src": "0.0.0.0", "dst": "255.255.255.255", **over}
    return _bootp(ip(4, sender, "vm1", **fields) / UDP(sport=68, dport=67), 1, "discover")


def dhcp_offer(sender: str, receiver: str, **over: Any) -> Packet:
    """A server's answer."""
    return _bootp(ip(4, sender, receiver, **over) / UDP(sport=67, dport=68), 2, "offer")


def _bootp(packet: Packet, op: int, kind: str) -> Packet:
    return packet / BOOTP(op=op) / DHCP(options=[("message-type", kind), "end"])


def dhcpv6_solicit(sender: str, **over: Any) -> Packet:
    """A client's."""
    group = "ff02::1:2"
    fields = {"to": multicast_mac(group), "src": local_of(sender), "dst": group, **over}
    return ip(6, sender, "vm1", **fields) / UDP(sport=546, dport=547) / DHCP6_Solicit()


def dhcpv6_reply(sender: str, receiver: str, kind: type[Packet] = DHCP6_Reply, **over: Any) -> Packet:
    """A server's."""
    return ip(6, sender, receiver, **over) / UDP(sport=547, dport=546) / kind()


# Open vSwitch takes no smaller fragments than these, but as the last (ovs-vswitchd(8), dpctl/ipf-set-min-frag).
FRAGMENT = 1280


def pad(size: int, following: int) -> bytes:
    """An IPv6 header of destination options that only takes up room: `size` bytes, a multiple of 8."""
    left, options = size - 2, b""
    while left:
        length = min(left, 257)
        options += b"\x00" if length == 1 else bytes([1, length - 2]) + bytes(length - 2)
        left -= length
    return bytes([following, size // 8 - 1]) + options


_IDENTS = itertools.count(1)


def cut(packet: Packet, *places: int, ident: int | None = None) -> list[Packet]:
    """A packet in fragments, cut at these places of what follows its IP header; by default with a new identifier."""
    raw, version = bytes(packet), 4 if IP in packet else 6
    body = raw[14 + (20 if version == 4 else 40) :]
    protocol = raw[23 if version == 4 else 20]
    ends = [*places, len(body)]
    number = next(_IDENTS) if ident is None else ident
    return [
        piece(packet, number, protocol, body[begin:end], begin, more=end < len(body))
        for begin, end in zip([0, *places], ends, strict=True)
    ]


def new_ident() -> int:
    """For fragments of one datagram that come from different `cut`s."""
    return next(_IDENTS)


def piece(packet: Packet, ident: int, protocol: int, body: bytes, offset: int, *, more: bool) -> Packet:  # noqa: PLR0913
    """One fragment between the ends of a packet; `offset` in bytes."""
    outer = Ether(src=packet.src, dst=packet.dst)
    if IP in packet:
        found = packet[IP]
        flags = "MF" if more else 0
        inner = IP(src=found.src, dst=found.dst, proto=protocol, id=ident, flags=flags, frag=offset // 8)
        return outer / inner / Raw(body)
    found = packet[IPv6]
    header = IPv6ExtHdrFragment(nh=protocol, id=ident, offset=offset // 8, m=int(more))
    return outer / IPv6(src=found.src, dst=found.dst, hlim=found.hlim) / header / Raw(body)
