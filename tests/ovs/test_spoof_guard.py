"""The spoof guard: what an endpoint tries, the bad and the good beside each other; real packets throughout.

vm1's groups allow everything out and everybody else's allow everything in, so that only the guard can stop a frame.
"""

from __future__ import annotations

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Family, Prefix, format_mac, parse_mac
from ovsfw.policy.model import Claim, Direction, Policy, Port, Rule, SecurityGroup
from tests.dummy import DummySwitch
from tests.strategies import address, mac

pytestmark = pytest.mark.ovs
UPLINK = 99
A, B, PAIR_MAC = format_mac(mac(1)), format_mac(mac(2)), "00:00:5e:00:01:01"
FOREIGN_MAC = "52:54:00:99:99:99"
IP_A, IP_B, IP_C, PAIR, WIDE = "10.0.0.1", "10.0.0.2", "10.0.0.77", "10.0.0.200", "10.8.0.0/16"
A6, B6, C6, PAIR6 = "2001:db8::1", "2001:db8::2", "2001:db8::77", "2001:db8::200"
LL_A, LL_B = "fe80::5054:ff:fe00:1", "fe80::5054:ff:fe00:2"
ALL_NODES, SOLICITED_MAC = "ff02::1", "33:33:ff:00:00:77"


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    switch = DummySwitch(dummy_ovs, (1, 2, UPLINK))
    rules = tuple(Rule(f"{way.value}-{int(family)}", way, family) for way in Direction for family in Family)
    virtual = parse_mac(PAIR_MAC)
    pairs = tuple(Claim(virtual, Prefix.parse(text)) for text in (PAIR, PAIR6))
    pairs = (*pairs, Claim(mac(1), Prefix.parse(WIDE)))
    ports = {
        f"port-{n}": Port(
            f"port-{n}", mac(n), tuple(address(family, n) for family in Family), pairs if n == 1 else (), ("g",)
        )
        for n in (1, 2)
    }
    bindings = Bindings((Binding("port-1", 1), Binding("port-2", 2)), (Uplink(UPLINK),))
    switch.program(compile_policy(Policy(ports, {"g": SecurityGroup("g", rules=rules)}), bindings))
    return switch


def ether(source: str = A, destination: str = B) -> Packet:
    return Ether(src=source, dst=destination)


def ip(source: str = IP_A, destination: str = IP_B, mac_address: str = A) -> Packet:
    return ether(mac_address) / IP(src=source, dst=destination) / UDP(sport=1, dport=2) / Raw(b"x" * 20)


def ip6(source: str = A6, destination: str = B6, mac_address: str = A) -> Packet:
    return ether(mac_address) / IPv6(src=source, dst=destination) / UDP(sport=1, dport=2) / Raw(b"x" * 20)


def arp(**fields: object) -> Packet:
    return ether(destination="ff:ff:ff:ff:ff:ff") / ARP(**{"hwsrc": A, "psrc": IP_A, "pdst": IP_B, **fields})


def nd(
    message: Packet, source: str = A6, destination: str = ALL_NODES, *extension: Packet, mac_address: str = A
) -> Packet:
    packet = ether(mac_address, "33:33:00:00:00:01") / IPv6(src=source, dst=destination, hlim=255)
    for header in extension:
        packet /= header
    return packet / message


def advertisement(target: str = A6, option: str | None = A) -> Packet:
    message = ICMPv6ND_NA(tgt=target, R=0, S=0, O=1)
    return message / ICMPv6NDOptDstLLAddr(lladdr=option) if option else message


def solicitation(target: str = B6, option: str | None = A) -> Packet:
    message = ICMPv6ND_NS(tgt=target)
    return message / ICMPv6NDOptSrcLLAddr(lladdr=option) if option else message


def udp(sport: int, dport: int, source: str, destination: str = "255.255.255.255") -> Packet:
    return ether(destination="ff:ff:ff:ff:ff:ff") / IP(src=source, dst=destination) / UDP(sport=sport, dport=dport)


def udp6(sport: int, dport: int, source: str = LL_A, message: Packet | None = None) -> Packet:
    packet = ether(destination="33:33:00:01:00:02") / IPv6(src=source, dst="ff02::1:2") / UDP(sport=sport, dport=dport)
    return packet / (message or Raw(b""))


GOOD = {
    "its own IPv4 address": ip(),
    "its own IPv6 address": ip6(),
    "its own link-local address": ip6(LL_A, LL_B),
    "an allowed pair with its MAC": ip(PAIR, mac_address=PAIR_MAC),
    "an address of an allowed prefix": ip("10.8.3.4"),
    "ARP request": arp(),
    "ARP reply": arp(op=2, hwdst=B),
    "gratuitous ARP for itself": arp(pdst=IP_A),
    "ARP probe for itself": arp(psrc="0.0.0.0", pdst=IP_A),
    "ARP of an allowed prefix": arp(psrc="10.8.3.4"),
    "NA for itself": nd(advertisement()),
    "NA for itself without the option": nd(advertisement(option=None)),
    "NA for its link-local address": nd(advertisement(LL_A), LL_A),
    "NS": nd(solicitation()),
    "NS without the option": nd(solicitation(option=None)),
    "DAD for itself": nd(solicitation(A6, None), "::"),
    "DAD for its link-local address": nd(solicitation(LL_A, None), "::"),
    "NA for the pair with its MAC": nd(advertisement(PAIR6, PAIR_MAC), PAIR6, mac_address=PAIR_MAC),
    "RS": nd(ICMPv6ND_RS(), LL_A),
    "RS from nowhere": nd(ICMPv6ND_RS(), "::"),
    "MLD report": nd(ICMPv6MLReport2(), LL_A, "ff02::16", IPv6ExtHdrHopByHop()),
    "MLD report from nowhere": nd(ICMPv6MLReport2(), "::", "ff02::16", IPv6ExtHdrHopByHop()),
    "MLDv1 report": nd(ICMPv6MLReport(), LL_A, "ff02::1:ff00:1", IPv6ExtHdrHopByHop()),
    "DHCP client without an address": udp(68, 67, "0.0.0.0"),
    "DHCP client with an address": udp(68, 67, IP_A, IP_B),
    "DHCPv6 client": udp6(546, 547, message=DHCP6_Solicit()),
    "a ping": ether() / IP(src=IP_A, dst=IP_B) / ICMP(),
    "a ping in IPv6 behind extension headers": nd(ICMPv6EchoRequest(), A6, B6, IPv6ExtHdrDestOpt()),
}
BAD = {
    "a foreign MAC": ip(mac_address=FOREIGN_MAC),
    "another endpoint's MAC": ip(mac_address=B),
    "a foreign MAC in IPv6": ip6(mac_address=FOREIGN_MAC),
    "a multicast source MAC": ip(mac_address="01:00:5e:00:00:01"),
    "a broadcast source MAC": ip(mac_address="ff:ff:ff:ff:ff:ff"),
    "a foreign IPv4 address": ip(IP_C),
    "another endpoint's IPv4 address": ip(IP_B),
    "0.0.0.0": ip("0.0.0.0"),
    "a foreign IPv6 address": ip6(C6),
    "another's link-local address": ip6(LL_B),
    ":: with data": ip6("::"),
    "a link-local address of its own making": ip6("fe80::1"),
    "an allowed pair with the port's MAC": ip(PAIR),
    "the port's address with the pair's MAC": ip(IP_A, mac_address=PAIR_MAC),
    "beside an allowed prefix": ip("10.9.0.1"),
    "ARP for another": arp(psrc=IP_B),
    "ARP reply for another": arp(op=2, psrc=IP_B, hwdst=B),
    "gratuitous ARP for another": arp(psrc=IP_C, pdst=IP_C),
    "ARP with a foreign MAC inside": arp(hwsrc=FOREIGN_MAC),
    "ARP probe for another": arp(psrc="0.0.0.0", pdst=IP_B),
    "ARP of a pair with the port's MAC": arp(psrc=PAIR),
    "NA for another": nd(advertisement(B6)),
    "NA for another without the option": nd(advertisement(B6, None)),
    "NA whose option lies": nd(advertisement(option=FOREIGN_MAC)),
    "NA from a foreign source": nd(advertisement(), C6),
    "NA with a code": nd(ICMPv6ND_NA(tgt=A6, code=1)),
    "NS whose option lies": nd(solicitation(option=FOREIGN_MAC)),
    "NS from a foreign source": nd(solicitation(), C6),
    "NS with a code": nd(ICMPv6ND_NS(tgt=B6, code=1)),
    "DAD for another": nd(solicitation(B6, None), "::"),
    "DAD with an option": nd(solicitation(A6, A), "::"),
    "NA from nowhere": nd(advertisement(), "::"),
    "NS with the option twice, the second a lie": nd(solicitation() / ICMPv6NDOptSrcLLAddr(lladdr=FOREIGN_MAC)),
    "NS with the option twice, the first a lie": nd(solicitation(option=FOREIGN_MAC) / ICMPv6NDOptSrcLLAddr(lladdr=A)),
    "NA with the option twice": nd(advertisement() / ICMPv6NDOptDstLLAddr(lladdr=FOREIGN_MAC)),
    "DAD with options": nd(solicitation(A6, A) / ICMPv6NDOptSrcLLAddr(lladdr=FOREIGN_MAC), "::"),
    "NA for the pair with the port's MAC": nd(advertisement(PAIR6)),
    "NA for the pair with the port's MAC, without the option": nd(advertisement(PAIR6, None)),
    "NA for itself with the pair's MAC": nd(advertisement(option=PAIR_MAC)),
    "NS with the pair's MAC": nd(solicitation(option=PAIR_MAC)),
    "an ARP reply from nowhere": arp(op=2, psrc="0.0.0.0", pdst=IP_A),
    "RA": nd(ICMPv6ND_RA(), LL_A),
    "redirect": nd(ICMPv6ND_Redirect(), LL_A),
    "RA behind a hop-by-hop header": nd(ICMPv6ND_RA(), LL_A, ALL_NODES, IPv6ExtHdrHopByHop()),
    "RA behind destination options": nd(ICMPv6ND_RA(), LL_A, ALL_NODES, IPv6ExtHdrDestOpt()),
    "RA behind a routing header": nd(ICMPv6ND_RA(), LL_A, ALL_NODES, IPv6ExtHdrRouting()),
    "RA in a first fragment": nd(ICMPv6ND_RA(), LL_A, ALL_NODES, IPv6ExtHdrFragment(m=1, id=7)),
    "RA in an atomic fragment": nd(ICMPv6ND_RA(), LL_A, ALL_NODES, IPv6ExtHdrFragment(m=0, id=7)),
    "NA for another behind destination options": nd(advertisement(B6), A6, ALL_NODES, IPv6ExtHdrDestOpt()),
    "DHCP server": udp(67, 68, IP_A),
    "DHCP server to one client": udp(67, 68, IP_A, IP_B),
    "DHCPv6 server": udp6(547, 546, message=DHCP6_Advertise()),
    "DHCP client from nowhere to one host": udp(68, 67, "0.0.0.0", IP_B),
    "DHCP client from a foreign address": udp(68, 67, IP_C),
    "DHCPv6 client from nowhere": udp6(546, 547, "::", DHCP6_Solicit()),
    "a VLAN tag": ether() / Dot1Q(vlan=7) / ip()[IP],
    "a priority tag": ether() / Dot1Q(vlan=0) / ip()[IP],
    "two VLAN tags": ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / ip()[IP],
    "a provider tag": ether() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / ip()[IP],
    "ARP in a VLAN": ether() / Dot1Q(vlan=7) / arp()[ARP],
    "foreign IP in SNAP": Dot3(src=A, dst=B) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / ip(IP_C)[IP],
    "STP": Dot3(src=A, dst="01:80:c2:00:00:00") / LLC() / STP(),
    "LLDP": Ether(src=A, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(b"\x02\x07\x04" + b"x" * 40),
    "MPLS": ether() / MPLS(label=3) / ip()[IP],
    "an unknown ethertype": Ether(src=A, dst=B, type=0x88B5) / Raw(b"x" * 40),
    "RARP": Ether(src=A, dst="ff:ff:ff:ff:ff:ff", type=0x8035) / ARP(op=3, hwsrc=A, psrc=IP_A),
}


def out_of(switch: DummySwitch, frame: Packet) -> set[int]:
    switch.forget()
    return set(switch.send(1, bytes(frame)))


@pytest.mark.parametrize("name", GOOD)
def test_it_may_send(switch: DummySwitch, name: str) -> None:
    assert out_of(switch, GOOD[name]), f"{name} was stopped"


@pytest.mark.parametrize("name", BAD)
def test_it_may_not_send(switch: DummySwitch, name: str) -> None:
    assert out_of(switch, BAD[name]) == set(), f"{name} got out"


TOWARDS = {
    "RA": nd(ICMPv6ND_RA(), "fe80::99"),
    "NS": nd(solicitation(A6, FOREIGN_MAC), C6),
    "NA": nd(advertisement(C6, FOREIGN_MAC), C6),
    "ARP": arp(hwsrc=FOREIGN_MAC, psrc=IP_C, pdst=IP_A),
    "DHCP reply": udp(67, 68, IP_C),
    "DHCPv6 reply": udp6(547, 546, "fe80::99", DHCP6_Advertise()),
}


@pytest.mark.parametrize("name", TOWARDS)
def test_it_gets_what_a_network_needs(switch: DummySwitch, name: str) -> None:
    frame = TOWARDS[name]
    frame[Ether].src = FOREIGN_MAC
    switch.forget()
    assert set(switch.send(UPLINK, bytes(frame))) == {1, 2}


@pytest.mark.parametrize("name", ["an unknown ethertype", "LLDP", "STP", "MPLS", "RARP"])
def test_it_does_not_get_other_protocols(switch: DummySwitch, name: str) -> None:
    frame = BAD[name].copy()
    frame.dst = A
    switch.forget()
    assert set(switch.send(UPLINK, bytes(frame))) == set()


def test_unknown_unicast_does_not_reach_endpoints(switch: DummySwitch) -> None:
    switch.forget()
    frame = Ether(src=FOREIGN_MAC, dst="52:54:00:88:88:88") / IP(src=IP_C, dst=IP_B) / TCP(dport=80)
    assert set(switch.send(UPLINK, bytes(frame))) == set()


def test_a_snap_frame_is_judged_as_what_is_in_it(switch: DummySwitch) -> None:
    """Open vSwitch reads through SNAP (lib/flow.c, parse_ethertype), so it is filtered like IP, not past the filter."""
    inside = Dot3(src=A, dst=B) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / ip()[IP]
    assert out_of(switch, inside) == {2}
