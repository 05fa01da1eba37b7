"""An endpoint sends only as itself, whatever its rules allow: here they allow everything."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.contrib.lldp import LLDPDUChassisID, LLDPDUEndOfLLDPDU, LLDPDUPortID, LLDPDUTimeToLive
from scapy.contrib.mpls import MPLS
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply, DHCP6_Request
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import (
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import Reason
from tests.ovs.packets.bench import OPEN, Bench, Json, address, egress, ingress, mac, vm
from tests.ovs.packets.frames import (
    ALL_NODES,
    BROADCAST,
    FAR,
    FRAGMENT,
    advertise,
    arp,
    cut,
    dhcp_discover,
    dhcp_offer,
    dhcpv6_reply,
    dhcpv6_solicit,
    ether,
    ip,
    local_of,
    multicast_mac,
    new_ident,
    pad,
    ping,
    redirect,
    router_advertisement,
    solicit,
    tcp,
    udp,
)

pytestmark = pytest.mark.ovs

EVERYONE = ("vm2", "vm3", "uplink")
STRANGE_MAC = "52:54:00:00:00:aa"
OWN = address(6, 1)
NOBODY = "2001:db8::aa"
VIRTUAL_MAC = "00:00:5e:00:01:01"


@pytest.fixture
def three(bench: Bench) -> Bench:
    """Three machines that may send and get everything."""
    bench.enforce(vm(1, "open"), vm(2, "open"), vm(3, "open"))
    return bench


# --- Source MAC and source address ----------------------------------------------------------------------------------


def test_own_mac_and_address_pass(three: Bench, family: int) -> None:
    three.sends("vm1", udp(family, "vm1", "vm2")).reaches("vm2")


@pytest.mark.parametrize("liar", [mac(2), STRANGE_MAC, "00:00:00:00:00:00", VIRTUAL_MAC])
def test_wrong_source_mac(three: Bench, family: int, liar: str) -> None:
    three.sends("vm1", udp(family, "vm1", "vm2", mac=liar)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("group", [BROADCAST, "01:00:5e:00:00:01", "33:33:00:00:00:01", "53:54:00:00:00:01"])
def test_group_address_as_source_mac(three: Bench, family: int, group: str) -> None:
    three.sends("vm1", udp(family, "vm1", "vm2", mac=group)).stopped(by=Reason.SPOOF)
    three.sends("vm1", arp("vm1", "vm2", mac=group, hwsrc=group)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("number", [2, 3, 4, 170])
def test_source_address_of_another(three: Bench, family: int, number: int) -> None:
    three.sends("vm1", udp(family, "vm1", "vm2", src=address(family, number))).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize(
    "source",
    ["127.0.0.1", "255.255.255.255", "224.0.0.1", "10.0.0.0", "169.254.0.1", "::1", "ff02::1", "::ffff:10.0.0.1"],
)
def test_source_address_of_nobody(three: Bench, source: str) -> None:
    family = 6 if ":" in source else 4
    three.sends("vm1", udp(family, "vm1", "vm2", src=source)).stopped(by=Reason.SPOOF)


def test_every_kind_of_packet_is_guarded(three: Bench, family: int) -> None:
    for make in (udp, tcp, ping):
        three.sends("vm1", make(family, "vm1", "vm2", src=FAR[family])).stopped(by=Reason.SPOOF)
        three.sends("vm1", make(family, "vm1", "vm2")).reaches("vm2")


def test_a_spoofed_packet_does_not_leave_either(three: Bench, family: int) -> None:
    three.sends("vm1", udp(family, "vm1", "outside", src=address(family, 2))).stopped(by=Reason.SPOOF)
    three.sends("vm1", udp(family, "vm1", "outside")).reaches("uplink")


def test_a_reply_from_a_foreign_address(three: Bench, family: int) -> None:
    three.sends("vm2", tcp(family, "vm2", "vm1")).reaches("vm1")
    answer: Json = {"sport": 80, "dport": 30000, "flags": "SA"}
    three.sends("vm3", tcp(family, "vm1", "vm2", mac=mac(3), **answer)).stopped(by=Reason.SPOOF)
    three.sends("vm1", tcp(family, "vm1", "vm2", **answer)).reaches("vm2")


# --- ARP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [1, 2])
def test_arp_for_oneself_passes(three: Bench, operation: int) -> None:
    three.sends("vm1", arp("vm1", "vm2", op=operation, hwdst=mac(2))).reaches(*EVERYONE)
    three.sends("vm1", arp("vm1", "vm2", op=operation, hwdst=mac(2), to=mac(2))).reaches("vm2")


@pytest.mark.parametrize("operation", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "lie",
    [
        {"psrc": address(4, 2)},
        {"psrc": "10.0.0.170"},
        {"hwsrc": mac(2)},
        {"hwsrc": STRANGE_MAC},
        {"mac": mac(2)},
        {"mac": mac(2), "hwsrc": mac(2), "psrc": address(4, 2)},
        {"hwsrc": mac(2), "psrc": address(4, 2)},
    ],
    ids=["foreign-spa", "nobodys-spa", "foreign-sha", "nobodys-sha", "foreign-mac", "all-foreign", "all-inside"],
)
def test_arp_that_lies(three: Bench, operation: int, lie: dict[str, str]) -> None:
    three.sends("vm1", arp("vm1", "vm2", op=operation, **lie)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("operation", [1, 2])
def test_gratuitous_arp(three: Bench, operation: int) -> None:
    other = address(4, 2)
    three.sends("vm1", arp("vm1", "vm1", op=operation)).reaches(*EVERYONE)
    three.sends("vm1", arp("vm1", op=operation, psrc=other, pdst=other)).stopped(by=Reason.SPOOF)


def test_arp_reply_for_another(three: Bench) -> None:
    answer: Json = {"op": 2, "hwdst": mac(3), "pdst": address(4, 3), "to": mac(3)}
    three.sends("vm1", arp("vm1", psrc=address(4, 2), **answer)).stopped(by=Reason.SPOOF)
    three.sends("vm1", arp("vm1", **answer)).reaches("vm3")


def test_arp_probe(three: Bench) -> None:
    """RFC 5227: sender address 0.0.0.0, target the address that one wants to use."""
    three.sends("vm1", arp("vm1", "vm1", psrc="0.0.0.0")).reaches(*EVERYONE)
    three.sends("vm1", arp("vm1", "vm2", psrc="0.0.0.0")).stopped(by=Reason.SPOOF)
    three.sends("vm1", arp("vm1", "vm1", psrc="0.0.0.0", hwsrc=mac(2))).stopped(by=Reason.SPOOF)


def test_arp_probe_is_a_request(three: Bench) -> None:
    """A reply that says 0.0.0.0 is at one's MAC is no probe."""
    three.sends("vm1", arp("vm1", "vm1", psrc="0.0.0.0", op=2)).stopped(by=Reason.SPOOF)


def test_arp_of_other_lengths(three: Bench) -> None:
    """What Open vSwitch cannot read as ARP for IPv4 over Ethernet has no fields that could be right."""
    whole = bytes(arp("vm1", "vm2"))
    for frame in (
        whole[:30],
        bytes(ether("vm1", "vm2", type=0x0806) / ARP(hwtype=6, hwsrc=mac(1), psrc=address(4, 1))),
    ):
        three.sends("vm1", frame).stopped(by=Reason.SPOOF)


def test_rarp(three: Bench) -> None:
    frame = ether("vm1", "vm2", dst=BROADCAST, type=0x8035) / ARP(op=3, hwsrc=mac(1), psrc=address(4, 1))
    three.sends("vm1", frame).stopped(by=Reason.SPOOF)


# --- Neighbour discovery --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [None, mac(1)], ids=["without-option", "with-option"])
def test_neighbour_discovery_for_oneself_passes(three: Bench, option: str | None) -> None:
    for own in (OWN, local_of("vm1")):
        three.sends("vm1", solicit("vm1", address(6, 2), option, src=own)).reaches(*EVERYONE)
        three.sends("vm1", advertise("vm1", own, option, src=own)).reaches(*EVERYONE)
        three.sends("vm1", advertise("vm1", own, option, src=own, dst=address(6, 2), to=mac(2))).reaches("vm2")


@pytest.mark.parametrize("liar", [mac(2), STRANGE_MAC])
def test_neighbour_discovery_with_a_lying_option(three: Bench, liar: str) -> None:
    three.sends("vm1", solicit("vm1", address(6, 2), liar)).stopped(by=Reason.SPOOF)
    three.sends("vm1", advertise("vm1", OWN, liar)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("target", [address(6, 2), NOBODY, "fe80::5054:ff:fe00:2", "ff02::1"])
@pytest.mark.parametrize("option", [None, mac(1)], ids=["without-option", "with-option"])
def test_advertisement_of_another(three: Bench, target: str, option: str | None) -> None:
    three.sends("vm1", advertise("vm1", target, option)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("source", [address(6, 2), NOBODY, "fe80::5054:ff:fe00:2", "fe80::1"])
def test_neighbour_discovery_from_a_foreign_source(three: Bench, source: str) -> None:
    three.sends("vm1", solicit("vm1", address(6, 2), src=source)).stopped(by=Reason.SPOOF)
    three.sends("vm1", advertise("vm1", OWN, src=source)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (2, 3), (1, 1)])
@pytest.mark.parametrize("pairs", [(), ("::/0",)], ids=["own", "any-address"])
def test_two_options(bench: Bench, order: tuple[int, int], pairs: tuple[str, ...]) -> None:
    """Open vSwitch reads an option that comes twice as none at all, but hosts take the first."""
    bench.enforce(vm(1, "open", pairs=pairs), vm(2, "open"))
    first, second = map(mac, order)
    twice = solicit("vm1", address(6, 2), first) / ICMPv6NDOptSrcLLAddr(lladdr=second)
    bench.sends("vm1", twice).stopped(by=Reason.SPOOF)
    twice = advertise("vm1", OWN, first) / ICMPv6NDOptDstLLAddr(lladdr=second)
    bench.sends("vm1", twice).stopped(by=Reason.SPOOF)


def test_neighbour_discovery_cut_short(three: Bench) -> None:
    for frame in (solicit("vm1", address(6, 2), mac(2)), advertise("vm1", OWN, mac(2))):
        whole = bytes(frame)
        for length in (14 + 40 + 8, 14 + 40 + 20):
            short = whole[:18] + (length - 54).to_bytes(2, "big") + whole[20:length]
            three.sends("vm1", short).stopped(by=Reason.SPOOF)


def test_the_option_of_the_other_message_says_nothing(three: Bench) -> None:
    """Open vSwitch cannot match a target option in an NS, nor a source option in an NA.

    They pass, and are not believed: receivers ignore options of other messages (RFC 4861 sections 4.3 and 4.4).
    """
    three.sends("vm1", solicit("vm1", address(6, 2)) / ICMPv6NDOptDstLLAddr(lladdr=mac(2))).reaches(*EVERYONE)
    three.sends("vm1", advertise("vm1", OWN) / ICMPv6NDOptSrcLLAddr(lladdr=mac(2))).reaches(*EVERYONE)


def test_the_option_of_a_router_solicitation_is_not_seen(three: Bench) -> None:
    """A limit: Open vSwitch cannot match it, so a router may be told a wrong MAC for the endpoint's own address."""
    group = {"dst": "ff02::2", "to": multicast_mac("ff02::2"), "hlim": 255}
    lie = ip(6, "vm1", "vm1", **group) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=mac(2))
    assert "uplink" in three.sends("vm1", lie).out
    lie = ip(6, "vm1", "vm1", **{**group, "src": address(6, 2)}) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=mac(1))
    three.sends("vm1", lie).stopped(by=Reason.SPOOF)


def test_duplicate_address_detection(three: Bench) -> None:
    for own in (OWN, local_of("vm1")):
        three.sends("vm1", solicit("vm1", own, src="::")).reaches(*EVERYONE)
    for other in (address(6, 2), NOBODY, local_of("vm2")):
        three.sends("vm1", solicit("vm1", other, src="::")).stopped(by=Reason.SPOOF)


def test_duplicate_address_detection_has_no_option(three: Bench) -> None:
    """RFC 4861 section 7.1.1: such a message is not valid."""
    three.sends("vm1", solicit("vm1", OWN, mac(1), src="::")).stopped(by=Reason.SPOOF)
    three.sends("vm1", solicit("vm1", OWN, mac(2), src="::")).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("code", [1, 255])
def test_neighbour_discovery_with_a_code(three: Bench, code: int) -> None:
    """CVE-2023-5366: Open vSwitch reads targets and options only where the code is 0."""
    for target in (OWN, address(6, 2)):
        three.sends("vm1", advertise("vm1", target, mac(1), code=code)).stopped(by=Reason.SPOOF)
        three.sends("vm1", solicit("vm1", target, mac(1), code=code)).stopped(by=Reason.SPOOF)


def test_a_wrong_code_does_not_open_the_way_for_what_follows(three: Bench) -> None:
    """The other half of CVE-2023-5366: one datapath flow for right and wrong ones."""
    three.sends("vm1", advertise("vm1", OWN, mac(1))).reaches(*EVERYONE)
    three.sends("vm1", advertise("vm1", address(6, 2), mac(1))).stopped(by=Reason.SPOOF)
    three.sends("vm1", advertise("vm1", address(6, 2), mac(1), code=1)).stopped(by=Reason.SPOOF)
    three.sends("vm1", advertise("vm1", OWN, mac(1))).reaches(*EVERYONE)


# --- Link-local addresses -------------------------------------------------------------------------------------------


def test_link_local_address_of_its_own_mac(three: Bench) -> None:
    three.sends("vm1", ping(6, "vm1", "vm2", src=local_of("vm1"), dst=local_of("vm2"))).reaches("vm2")
    for other in (local_of("vm2"), "fe80::1", "fe80::5054:ff:fe00:aa"):
        three.sends("vm1", ping(6, "vm1", "vm2", src=other, dst=local_of("vm2"))).stopped(by=Reason.SPOOF)


# --- No server, no router -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [local_of("vm1"), OWN])
def test_router_advertisement(three: Bench, source: str) -> None:
    three.sends("vm1", router_advertisement("vm1", src=source)).stopped(by=Reason.NO_SERVER)
    three.sends("vm1", router_advertisement("vm1", src=source, dst=address(6, 2), to=mac(2))).stopped(
        by=Reason.NO_SERVER
    )


def test_router_advertisement_with_a_code(three: Bench) -> None:
    frame = router_advertisement("vm1")
    frame[ICMPv6ND_RA].code = 1
    three.sends("vm1", frame).stopped(by=Reason.NO_SERVER)


def test_redirect(three: Bench) -> None:
    three.sends("vm1", redirect("vm1", "vm2")).stopped(by=Reason.NO_SERVER)


@pytest.mark.parametrize("code", [0, 1])
def test_redirect_about_a_live_connection(three: Bench, code: int) -> None:
    """Conntrack takes an ICMP redirect for an error, and would let it in with the connection that it is about."""
    question = udp(4, "vm2", "vm1")
    three.sends("vm2", question).reaches("vm1")
    about = IPerror(bytes(question.payload))
    lie = ip(4, "vm1", "vm2") / ICMP(type="redirect", code=code, gw=address(4, 1)) / about
    three.sends("vm1", lie).stopped(by=Reason.NO_SERVER)
    three.sends("vm1", ip(4, "vm1", "vm2") / ICMP(type="dest-unreach", code=3) / about).reaches("vm2")


@pytest.mark.parametrize("kind", ["redirect", "router-advertisement"])
def test_routers_words_in_ipv4_need_more_than_a_rule(bench: Bench, kind: str) -> None:
    """Without conntrack, which calls them invalid when they are about nothing."""
    bench.enforce(vm(1, "any"), vm(2, "any"), any=OPEN, stateless=["any"])
    for code in (0, 1):
        frame = ip(4, "vm1", "vm2") / ICMP(type=kind, code=code) / Raw(bytes(32))
        bench.sends("vm1", frame).stopped(by=Reason.NO_SERVER)
    bench.sends("vm1", ping(4, "vm1", "vm2")).reaches("vm2")


def test_dhcp_server(three: Bench) -> None:
    three.sends("vm1", dhcp_offer("vm1", "vm2")).stopped(by=Reason.NO_SERVER)
    three.sends("vm1", dhcp_offer("vm1", "vm2", dst="255.255.255.255", to=BROADCAST)).stopped(by=Reason.NO_SERVER)


@pytest.mark.parametrize("kind", [DHCP6_Reply, DHCP6_Advertise])
def test_dhcpv6_server(three: Bench, kind: type[Packet]) -> None:
    for source in (local_of("vm1"), OWN):
        three.sends("vm1", dhcpv6_reply("vm1", "vm2", kind, src=source)).stopped(by=Reason.NO_SERVER)


@pytest.mark.parametrize("ports", [(67, 68), (547, 546)])
def test_dhcp_server_as_an_answer(three: Bench, ports: tuple[int, int]) -> None:
    """Even to a client that has asked, so that conntrack knows the connection."""
    family = 4 if ports[0] == 67 else 6
    three.sends("vm2", udp(family, "vm2", "vm1", sport=ports[1], dport=ports[0])).reaches("vm1")
    three.sends("vm1", udp(family, "vm1", "vm2", sport=ports[0], dport=ports[1])).stopped(by=Reason.NO_SERVER)


@pytest.mark.parametrize("ports", [(1067, 68), (67, 1068), (1547, 546), (547, 1546)])
def test_other_ports_are_nothing_special(three: Bench, ports: tuple[int, int]) -> None:
    """Guarding DHCP stops only what a client would take for a server's message."""
    family = 4 if 67 in ports or 68 in ports else 6
    three.sends("vm1", udp(family, "vm1", "vm2", sport=ports[0], dport=ports[1])).reaches("vm2")


# --- What needs no rule ---------------------------------------------------------------------------------------------


@pytest.fixture
def silent(bench: Bench) -> Bench:
    """One machine without any rule, and two to listen: one of them accepts everything."""
    bench.enforce(vm(1, "nothing"), vm(2, "open"), vm(3, "nothing"))
    return bench


def test_without_rules_nothing_else_passes(silent: Bench, family: int) -> None:
    silent.sends("vm1", udp(family, "vm1", "vm2")).stopped(by=Reason.DENIED)


@pytest.mark.parametrize("source", ["0.0.0.0", address(4, 1)])
def test_dhcp_client(silent: Bench, source: str) -> None:
    silent.sends("vm1", dhcp_discover("vm1", src=source)).reaches("vm2", "uplink")


def test_dhcp_renewal_to_its_server(silent: Bench) -> None:
    silent.sends("vm1", dhcp_discover("vm1", src=address(4, 1), dst=FAR[4], to=mac(9))).reaches("uplink")


def test_dhcpv6_client(silent: Bench) -> None:
    silent.sends("vm1", dhcpv6_solicit("vm1")).reaches("vm2", "uplink")
    unicast = ip(6, "vm1", "outside") / UDP(sport=546, dport=547) / DHCP6_Request()
    silent.sends("vm1", unicast).reaches("uplink")


def test_router_solicitation(silent: Bench) -> None:
    for source in ("::", local_of("vm1"), OWN):
        frame = ip(6, "vm1", "vm1", src=source, dst="ff02::2", to=multicast_mac("ff02::2"), hlim=255) / ICMPv6ND_RS()
        assert "uplink" in silent.sends("vm1", frame).out


LISTENING = {"report": ICMPv6MLReport(), "done": ICMPv6MLDone(), "report-v2": ICMPv6MLReport2()}


@pytest.mark.parametrize("alerted", [False, True], ids=["plain", "router-alert"])
@pytest.mark.parametrize("message", LISTENING)
def test_multicast_listener(silent: Bench, message: str, *, alerted: bool) -> None:
    """RFC 2710, RFC 3810; they carry a router alert, which is a hop-by-hop option."""
    for source in ("::", local_of("vm1")):
        frame = ip(6, "vm1", "vm1", src=source, dst="ff02::16", to=multicast_mac("ff02::16"), hlim=1)
        frame = frame / IPv6ExtHdrHopByHop(options=[RouterAlert()]) if alerted else frame
        assert "uplink" in silent.sends("vm1", frame / LISTENING[message]).out


def test_multicast_listener_query(silent: Bench) -> None:
    """An endpoint may be the querier, from its link-local address."""
    group = {"dst": ALL_NODES, "to": multicast_mac(ALL_NODES), "hlim": 1}
    silent.sends("vm1", ip(6, "vm1", "vm1", src=local_of("vm1"), **group) / ICMPv6MLQuery()).reaches(*EVERYONE)
    silent.sends("vm1", ip(6, "vm1", "vm1", src="::", **group) / ICMPv6MLQuery()).stopped(by=Reason.SPOOF)


def test_arp_and_neighbour_discovery_need_no_rule(silent: Bench) -> None:
    silent.sends("vm1", arp("vm1", "vm3")).reaches(*EVERYONE)
    silent.sends("vm1", solicit("vm1", address(6, 3), mac(1))).reaches(*EVERYONE)
    silent.sends("vm1", advertise("vm1", OWN, mac(1))).reaches(*EVERYONE)


# --- The addresses of those who have none ---------------------------------------------------------------------------


def test_the_unspecified_ipv4_address_is_for_dhcp_alone(three: Bench) -> None:
    nowhere = {"src": "0.0.0.0", "dst": "255.255.255.255", "to": BROADCAST}
    three.sends("vm1", dhcp_discover("vm1")).reaches(*EVERYONE)
    for ports in ((68, 69), (69, 67), (67, 68)):
        with_ports = ip(4, "vm1", "vm2", **nowhere) / UDP(sport=ports[0], dport=ports[1])
        three.sends("vm1", with_ports).spares(*EVERYONE)
    three.sends("vm1", ip(4, "vm1", "vm2", **nowhere) / ICMP()).stopped(by=Reason.SPOOF)
    three.sends("vm1", ip(4, "vm1", "vm2", **nowhere) / TCP(sport=68, dport=67)).stopped(by=Reason.SPOOF)
    three.sends("vm1", dhcp_discover("vm1", dst=address(4, 2), to=mac(2))).stopped(by=Reason.SPOOF)
    three.sends("vm1", dhcp_discover("vm1", mac=mac(2))).stopped(by=Reason.SPOOF)


def test_the_unspecified_ipv6_address_is_for_discovery_alone(three: Bench) -> None:
    for frame in (
        udp(6, "vm1", "vm2", src="::"),
        ping(6, "vm1", "vm2", src="::"),
        tcp(6, "vm1", "vm2", src="::"),
        advertise("vm1", OWN, mac(1), src="::"),
        dhcpv6_solicit("vm1", src="::"),
    ):
        three.sends("vm1", frame).stopped(by=Reason.SPOOF)
    three.sends("vm1", solicit("vm1", OWN, src="::")).reaches(*EVERYONE)
    three.sends("vm1", solicit("vm1", OWN, src="::", mac=mac(2))).stopped(by=Reason.SPOOF)


# --- Frames of other kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [0, 1, 7, 4095])
def test_vlan_tag(three: Bench, family: int, tag: int) -> None:
    """A priority tag (VLAN 0) too: receivers drop it or read past it, so it hides what is inside from a filter."""
    inner = ip(family, "vm1", "vm2")
    frame = ether("vm1", "vm2") / Dot1Q(vlan=tag, prio=3) / inner.payload / UDP(dport=53)
    three.sends("vm1", frame).stopped(by=Reason.NO_TAG)


@pytest.mark.parametrize("outer", [Dot1Q(vlan=0), Dot1Q(vlan=7), Dot1AD(vlan=7), Dot1AD(vlan=0)])
def test_two_vlan_tags(three: Bench, outer: Packet) -> None:
    inner = udp(4, "vm1", "vm2").payload
    three.sends("vm1", ether("vm1", "vm2") / outer / Dot1Q(vlan=0) / inner).stopped(by=Reason.NO_TAG)
    three.sends("vm1", ether("vm1", "vm2") / outer / inner).stopped(by=Reason.NO_TAG)


def test_tagged_arp_and_router_advertisement(three: Bench) -> None:
    def tagged(frame: Packet) -> Packet:
        return Ether(src=frame.src, dst=frame.dst) / Dot1Q(vlan=0) / frame.payload

    three.sends("vm1", tagged(arp("vm1", "vm2"))).stopped(by=Reason.NO_TAG)
    three.sends("vm1", tagged(arp("vm1", psrc=address(4, 2)))).stopped(by=Reason.NO_TAG)
    three.sends("vm1", tagged(router_advertisement("vm1"))).stopped(by=(Reason.NO_TAG, Reason.NO_SERVER))


def test_llc(three: Bench) -> None:
    for body in (LLC() / Raw(b"x" * 40), LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()):
        for target in (mac(2), BROADCAST, "01:80:c2:00:00:00"):
            three.sends("vm1", Dot3(src=mac(1), dst=target) / body).stopped(by=Reason.SPOOF)


def test_snap_is_filtered_as_what_is_inside(three: Bench, family: int) -> None:
    """Open vSwitch reads the type inside SNAP (802.2), so such a packet is as guarded and as ruled as any other."""
    code = {4: 0x0800, 6: 0x86DD}[family]

    def snap(packet: Packet, inside: int = code) -> Packet:
        return (
            Dot3(src=packet.src, dst=packet.dst)
            / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
            / SNAP(code=inside)
            / packet.payload
        )

    three.sends("vm1", snap(udp(family, "vm1", "vm2"))).reaches("vm2")
    three.sends("vm1", snap(udp(family, "vm1", "vm2", src=address(family, 3)))).stopped(by=Reason.SPOOF)
    three.sends("vm1", snap(udp(family, "vm1", "vm2", mac=mac(3)))).stopped(by=Reason.SPOOF)
    three.sends("vm1", snap(arp("vm1", psrc=address(4, 2)), 0x0806)).stopped(by=Reason.SPOOF)
    three.sends("vm1", snap(router_advertisement("vm1"), 0x86DD)).stopped(by=Reason.NO_SERVER)
    three.enforce(vm(1, "open"), vm(2, "web"), web=[ingress(family, "udp", 53)])
    three.sends("vm1", snap(udp(family, "vm1", "vm2", dport=53))).reaches("vm2")
    three.sends("vm1", snap(udp(family, "vm1", "vm2", dport=54))).stopped(by=Reason.DENIED)


def test_snap_of_another_organisation(three: Bench) -> None:
    """With an OUI other than 0 the code is no Ethernet type."""
    packet = udp(4, "vm1", "vm2")
    frame = (
        Dot3(src=mac(1), dst=mac(2)) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xF8, code=0x0800) / packet.payload
    )
    three.sends("vm1", frame).stopped(by=Reason.SPOOF)


LLDP = LLDPDUChassisID(subtype=4, id=b"ABCDEF") / LLDPDUPortID(subtype=5, id=b"p") / LLDPDUTimeToLive(ttl=9)


@pytest.mark.parametrize("target", [mac(2), BROADCAST, "01:80:c2:00:00:0e"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0x88CC, LLDP / LLDPDUEndOfLLDPDU()),
        (0x8847, MPLS(label=16, s=1) / IP(src=address(4, 1), dst=address(4, 2)) / UDP(dport=53)),
        (0x8848, MPLS(label=16, s=1) / IP(src=address(4, 1), dst=address(4, 2))),
        (0x8809, Raw(b"\x01" * 50)),
        (0x8863, Raw(b"\x11" * 50)),
        (0x888E, Raw(b"\x01" * 50)),
        (0x88F7, Raw(b"\x01" * 50)),
        (0x88CA, Raw(b"\x01" * 50)),
        (0x6558, Raw(b"\x01" * 50)),
        (0x894F, Raw(b"\x01" * 50)),
        (0x0600, Raw(b"\x01" * 50)),
        (0xFFFF, Raw(b"\x01" * 50)),
    ],
    ids=lambda value: f"{value:04x}" if isinstance(value, int) else "",
)
def test_other_ethertypes(three: Bench, kind: int, body: Packet, target: str) -> None:
    """LLDP, MPLS, LACP, PPPoE, 802.1X, PTP, TIPC, transparent Ethernet bridging, NSH, and what nobody knows."""
    three.sends("vm1", ether("vm1", "vm2", dst=target, type=kind) / body).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("length", [14, 15, 20, 33])
def test_frames_cut_short(three: Bench, family: int, length: int) -> None:
    """Not even an IP header: no address to be right."""
    three.sends("vm1", bytes(udp(family, "vm1", "vm2"))[:length]).stopped(by=Reason.SPOOF)


# --- IPv6 extension headers -----------------------------------------------------------------------------------------

HEADERS: dict[str, Packet] = {
    "hop-by-hop": IPv6ExtHdrHopByHop(),
    "destination-options": IPv6ExtHdrDestOpt(),
    "routing": IPv6ExtHdrRouting(addresses=[]),
    "atomic-fragment": IPv6ExtHdrFragment(offset=0, m=0, id=5),
    "all": IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[]) / IPv6ExtHdrDestOpt(),
}


def behind(header: str, packet: Packet) -> Packet:
    """The packet with an extension header put in."""
    fixed = packet[IPv6].copy()
    body = fixed.payload.copy()
    fixed.remove_payload()
    del fixed.nh, fixed.plen
    if "cksum" in body.fields:
        del body.cksum
    # Scapy computes checksums over the final packet.
    return Ether(src=packet.src, dst=packet.dst, type=0x86DD) / fixed / HEADERS[header].copy() / body


@pytest.mark.parametrize("header", HEADERS)
def test_extension_headers_hide_no_server(three: Bench, header: str) -> None:
    three.sends("vm1", behind(header, router_advertisement("vm1"))).stopped(by=Reason.NO_SERVER)
    three.sends("vm1", behind(header, redirect("vm1", "vm2"))).stopped(by=Reason.NO_SERVER)
    three.sends("vm1", behind(header, dhcpv6_reply("vm1", "vm2"))).stopped(by=Reason.NO_SERVER)


@pytest.mark.parametrize("header", HEADERS)
def test_extension_headers_hide_no_lie(three: Bench, header: str) -> None:
    for frame in (
        advertise("vm1", address(6, 2), mac(1)),
        advertise("vm1", OWN, mac(2)),
        solicit("vm1", address(6, 2), mac(2)),
        solicit("vm1", address(6, 2), src="::"),
        udp(6, "vm1", "vm2", src=address(6, 3)),
    ):
        three.sends("vm1", behind(header, frame)).stopped(by=Reason.SPOOF)


@pytest.mark.parametrize("header", HEADERS)
def test_extension_headers_hide_no_port(bench: Bench, header: str) -> None:
    bench.enforce(vm(1, "open"), vm(2, "web"), web=[ingress(6, "udp", 53)])
    bench.sends("vm1", behind(header, udp(6, "vm1", "vm2", dport=53))).reaches("vm2")
    bench.sends("vm1", behind(header, udp(6, "vm1", "vm2", dport=54))).stopped(by=Reason.DENIED)


def hidden(packet: Packet) -> Packet:
    """Behind so many options that the first fragment says nothing of what is inside."""
    inner = packet[IPv6]
    body = bytes(packet)[14 + 40 :]
    outer = IPv6(src=inner.src, dst=inner.dst, hlim=inner.hlim, nh=60)
    return Ether(src=packet.src, dst=packet.dst) / outer / Raw(pad(FRAGMENT, inner.nh) + body)


def padded(packet: Packet) -> Packet:
    return packet / Raw(bytes(2 * FRAGMENT))


SERVERS = {
    "dhcp": dhcp_offer("vm1", "vm2"),
    "dhcp-to-all": dhcp_offer("vm1", "vm2", dst="255.255.255.255", to=BROADCAST),
    "dhcpv6": dhcpv6_reply("vm1", "vm2"),
    "router-advertisement": router_advertisement("vm1"),
    "router-advertisement-to-one": router_advertisement("vm1", dst=address(6, 2), to=mac(2)),
    "redirect": redirect("vm1", "vm2"),
    "advertisement-of-another": advertise("vm1", address(6, 2), mac(1)),
    "advertisement-to-one": advertise("vm1", address(6, 2), mac(1), dst=address(6, 2), to=mac(2)),
}


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
@pytest.mark.parametrize("message", SERVERS)
def test_fragments_smuggle_no_message(bench: Bench, message: str, *, stateless: bool) -> None:
    """RFC 6980 and RFC 7113: cut so that only the first fragment says what it is, or not even that one."""
    bench.enforce(vm(1, "any"), vm(2, "any"), any=OPEN, stateless=["any"] if stateless else [])
    frame = SERVERS[message]
    attempts: list[tuple[Any, ...]] = [(padded(frame), FRAGMENT), (frame, 8)]
    if IPv6 in frame:
        attempts += [(hidden(frame), FRAGMENT), (hidden(padded(frame)), FRAGMENT, FRAGMENT + 8)]
        attempts.append((hidden(padded(frame)), FRAGMENT, 2 * FRAGMENT))
    for whole, *places in attempts:
        for order in (1, -1):
            for part in cut(whole, *places)[::order]:
                bench.sends("vm1", part).spares("vm2", "uplink")


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_fragments_of_what_is_allowed_pass(bench: Bench, family: int, *, stateless: bool) -> None:
    """But with headers between fragment header and transport, which the userspace datapath cannot put together."""
    bench.enforce(vm(1, "any"), vm(2, "any"), any=OPEN, stateless=["any"] if stateless else [])
    for whole in (padded(ping(family, "vm1", "vm2")), padded(udp(family, "vm1", "vm2"))):
        parts = [bench.sends("vm1", part) for part in cut(whole, FRAGMENT, 2 * FRAGMENT)]
        assert sum(len(part.out.get("vm2", [])) for part in parts) == len(parts)
    if family == 6:
        for part in cut(hidden(udp(6, "vm1", "vm2")), FRAGMENT):
            bench.sends("vm1", part).spares("vm2")


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_fragments_smuggle_no_port(bench: Bench, family: int, *, stateless: bool) -> None:
    """One datagram told in two ways: a second first fragment, one that overlaps the ports, or one that came before."""
    web = [ingress(family, "udp", 53)]
    bench.enforce(vm(1, "any"), vm(2, "web"), any=OPEN, web=web, stateless=["any", "web"] if stateless else [])
    whole = {port: padded(udp(family, "vm1", "vm2", dport=port)) for port in (53, 54)}

    def arrived(*parts: tuple[int, int]) -> list[bytes]:
        ident = new_ident()
        pieces = {port: cut(packet, FRAGMENT, ident=ident) for port, packet in whole.items()}
        short = {port: cut(packet, FRAGMENT - 8, FRAGMENT, ident=ident)[0] for port, packet in whole.items()}
        found = [pieces[port][number] if number < 2 else short[port] for port, number in parts]
        return [frame for part in found for frame in bench.sends("vm1", part).out.get("vm2", [])]

    assert len(arrived((53, 0), (53, 1))) == 2
    assert len(arrived((53, 1), (53, 0))) == 2
    assert arrived((54, 0), (54, 1)) == []
    assert arrived((54, 1), (54, 0)) == []
    for told_twice in (
        [(53, 0), (54, 0), (53, 1)],
        [(54, 0), (53, 0), (53, 1)],
        [(53, 2), (54, 0), (53, 1)],
        [(54, 2), (53, 0), (53, 1)],
        [(53, 0), (53, 1), (54, 0)],
        [(53, 0), (53, 1), (54, 0), (54, 1)],
    ):
        bad = (54).to_bytes(2, "big")
        start = 14 + (20 if family == 4 else 48)
        assert not [frame for frame in arrived(*told_twice) if frame[start : start + 4] == b"\x75\x30" + bad]


# --- Allowed address pairs ------------------------------------------------------------------------------------------


def paired(bench: Bench, *pairs: str | tuple[str, str]) -> Bench:
    """vm1 has pairs, vm2 and vm3 have not."""
    bench.enforce(vm(1, "open", pairs=pairs), vm(2, "open"), vm(3, "open"))
    return bench


PAIRS = {4: ("10.0.0.200", "10.0.8.0/23"), 6: ("2001:db8::200", "2001:db8:8::/63")}
INSIDE = {4: ("10.0.0.200", "10.0.8.0", "10.0.9.255"), 6: ("2001:db8::200", "2001:db8:8::", "2001:db8:8:1:ffff::1")}
BEYOND = {
    4: ("10.0.0.199", "10.0.0.201", "10.0.7.255", "10.0.10.0"),
    6: ("2001:db8::1ff", "2001:db8::201", "2001:db8:7:ffff::1", "2001:db8:8:2::"),
}


def test_pairs_are_honoured_and_no_wider(bench: Bench, family: int) -> None:
    paired(bench, *PAIRS[family])
    for source in (*INSIDE[family], address(family, 1)):
        bench.sends("vm1", udp(family, "vm1", "vm2", src=source)).reaches("vm2")
    for source in BEYOND[family]:
        bench.sends("vm1", udp(family, "vm1", "vm2", src=source)).stopped(by=Reason.SPOOF)
    bench.sends("vm2", udp(family, "vm2", "vm3", src=INSIDE[family][0])).stopped(by=Reason.SPOOF)


def test_pairs_in_arp_and_neighbour_discovery(bench: Bench) -> None:
    paired(bench, *PAIRS[4], *PAIRS[6])
    for source in INSIDE[4]:
        bench.sends("vm1", arp("vm1", "vm2", psrc=source)).reaches(*EVERYONE)
        bench.sends("vm1", arp("vm1", psrc="0.0.0.0", pdst=source)).reaches(*EVERYONE)
    for source in BEYOND[4]:
        bench.sends("vm1", arp("vm1", "vm2", psrc=source)).stopped(by=Reason.SPOOF)
        bench.sends("vm1", arp("vm1", psrc="0.0.0.0", pdst=source)).stopped(by=Reason.SPOOF)
    for target in INSIDE[6]:
        bench.sends("vm1", advertise("vm1", target, mac(1))).reaches(*EVERYONE)
        bench.sends("vm1", solicit("vm1", target, src="::")).reaches(*EVERYONE)
    for target in BEYOND[6]:
        bench.sends("vm1", advertise("vm1", target, mac(1))).stopped(by=Reason.SPOOF)
        bench.sends("vm1", solicit("vm1", target, src="::")).stopped(by=Reason.SPOOF)


def test_a_pair_with_another_mac_goes_with_that_mac_alone(bench: Bench, family: int) -> None:
    shared = PAIRS[family][0]
    paired(bench, (shared, VIRTUAL_MAC))
    bench.sends("vm1", udp(family, "vm1", "vm2", src=shared, mac=VIRTUAL_MAC)).reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", src=shared)).stopped(by=Reason.SPOOF)
    bench.sends("vm1", udp(family, "vm1", "vm2", mac=VIRTUAL_MAC)).stopped(by=Reason.SPOOF)
    bench.sends("vm1", udp(family, "vm1", "vm2")).reaches("vm2")
    bench.sends("vm2", udp(family, "vm2", "vm1", to=VIRTUAL_MAC, dst=shared)).reaches("vm1")


def test_arp_of_a_pair_with_another_mac(bench: Bench) -> None:
    shared = PAIRS[4][0]
    paired(bench, (shared, VIRTUAL_MAC))
    bench.sends("vm1", arp("vm1", "vm2", mac=VIRTUAL_MAC, hwsrc=VIRTUAL_MAC, psrc=shared)).reaches(*EVERYONE)
    for lie in (
        {"psrc": shared},
        {"psrc": shared, "hwsrc": VIRTUAL_MAC},
        {"psrc": shared, "mac": VIRTUAL_MAC},
        {"mac": VIRTUAL_MAC, "hwsrc": VIRTUAL_MAC},
        {"mac": VIRTUAL_MAC, "hwsrc": VIRTUAL_MAC, "psrc": "0.0.0.0", "pdst": address(4, 1)},
    ):
        bench.sends("vm1", arp("vm1", "vm2", **lie)).stopped(by=Reason.SPOOF)


def test_neighbour_discovery_of_a_pair_with_another_mac(bench: Bench) -> None:
    shared = PAIRS[6][0]
    paired(bench, (shared, VIRTUAL_MAC))
    own = {"mac": VIRTUAL_MAC, "src": shared}
    bench.sends("vm1", advertise("vm1", shared, VIRTUAL_MAC, **own)).reaches(*EVERYONE)
    bench.sends("vm1", solicit("vm1", address(6, 2), VIRTUAL_MAC, **own)).reaches(*EVERYONE)
    bench.sends("vm1", advertise("vm1", shared, mac(2), **own)).stopped(by=Reason.SPOOF)


def test_neighbour_discovery_does_not_mix_two_macs(bench: Bench) -> None:
    """The MAC of one claim with the address of another: in ARP it is refused, so it is here."""
    shared = PAIRS[6][0]
    paired(bench, (shared, VIRTUAL_MAC))
    for lie in (
        advertise("vm1", shared, mac(1)),
        advertise("vm1", OWN, VIRTUAL_MAC),
        advertise("vm1", shared),
        advertise("vm1", OWN, mac=VIRTUAL_MAC, src=shared),
        solicit("vm1", address(6, 2), VIRTUAL_MAC),
        solicit("vm1", address(6, 2), mac(1), mac=VIRTUAL_MAC, src=shared),
        solicit("vm1", shared, src="::"),
        solicit("vm1", OWN, src="::", mac=VIRTUAL_MAC),
    ):
        bench.sends("vm1", lie).stopped(by=Reason.SPOOF)


ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def test_a_pair_of_the_whole_world(bench: Bench, family: int) -> None:
    """It turns the guard of that IP version off for the addresses, never for the MAC, and not for the other version."""
    paired(bench, ANYWHERE[family])
    other = 10 - family
    bench.sends("vm1", udp(family, "vm1", "vm2", src=FAR[family])).reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", src=FAR[family], mac=STRANGE_MAC)).stopped(by=Reason.SPOOF)
    bench.sends("vm1", udp(other, "vm1", "vm2", src=FAR[other])).stopped(by=Reason.SPOOF)
    bench.sends("vm2", udp(family, "vm2", "vm3", src=FAR[family])).stopped(by=Reason.SPOOF)


def test_a_pair_of_the_whole_world_in_arp(bench: Bench) -> None:
    paired(bench, ANYWHERE[4])
    bench.sends("vm1", arp("vm1", "vm2", psrc=FAR[4])).reaches(*EVERYONE)
    bench.sends("vm1", arp("vm1", "vm2", psrc=FAR[4], hwsrc=mac(2))).stopped(by=Reason.SPOOF)
    bench.sends("vm1", arp("vm1", "vm2", psrc=FAR[4], mac=mac(2))).stopped(by=Reason.SPOOF)


def test_a_pair_of_the_whole_world_makes_no_server(bench: Bench) -> None:
    paired(bench, ANYWHERE[4], ANYWHERE[6])
    bench.sends("vm1", router_advertisement("vm1")).stopped(by=Reason.NO_SERVER)
    bench.sends("vm1", dhcp_offer("vm1", "vm2")).stopped(by=Reason.NO_SERVER)
    bench.sends("vm1", udp(6, "vm1", "vm2", src="::")).stopped(by=Reason.SPOOF)
    tagged = ether("vm1", "vm2") / Dot1Q(vlan=7) / udp(4, "vm1", "vm2").payload
    bench.sends("vm1", tagged).stopped(by=Reason.NO_TAG)


@pytest.mark.parametrize("owner", [None, VIRTUAL_MAC], ids=["own-mac", "another-mac"])
def test_a_pair_of_the_whole_world_does_not_widen_a_group(bench: Bench, family: int, owner: str | None) -> None:
    """https://bugs.launchpad.net/bugs/1867119"""
    world: Json = {"ip_address": ANYWHERE[family], "mac_address": owner}
    bench.enforce(
        vm(1, "open", "friends", allowed_address_pairs=[world]),
        vm(2, "closed"),
        vm(3, "open"),
        friends=[],
        closed=[ingress(family, remote_group_id="friends"), egress(family, remote_group_id="friends")],
    )
    bench.sends("vm1", udp(family, "vm1", "vm2")).reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", src=FAR[family], mac=owner or mac(1))).stopped(by=Reason.DENIED)
    bench.sends("vm3", udp(family, "vm3", "vm2")).stopped(by=Reason.DENIED)
    bench.sends("uplink", udp(family, "outside", "vm2")).stopped(by=Reason.DENIED)
    bench.sends("vm2", udp(family, "vm2", "vm1", dport=99)).reaches("vm1")
    bench.sends("vm2", udp(family, "vm2", "outside")).stopped(by=Reason.DENIED)
