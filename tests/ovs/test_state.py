"""State, networks and broadcast, by real packets through a real switch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPerror6, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Family, Prefix, format_mac
from ovsfw.policy.model import Direction, Policy, Port, PortRange, RemoteGroup, Rule, SecurityGroup
from tests.dummy import DummySwitch
from tests.strategies import address, mac

pytestmark = pytest.mark.ovs
UPLINK, OUTSIDE = 99, "52:54:00:99:99:99"
EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS
MANY = 500
IP_A, IP_B, IP_X = "10.0.0.1", "10.0.0.2", "192.0.2.9"
A6, B6 = "2001:db8::1", "2001:db8::2"


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, (1, 2, 3, 4, UPLINK))


def web(*rules: Rule) -> SecurityGroup:
    opened = tuple(Rule(f"out-{int(family)}", EGRESS, family) for family in Family)
    return SecurityGroup("web", rules=(*opened, *rules))


HTTP = tuple(Rule(f"http-{int(family)}", INGRESS, family, 6, PortRange(80, 80)) for family in Family)
DNS = Rule("dns", INGRESS, Family.IPV4, 17, PortRange(53, 53))


def port(number: int, *groups: str, like: int = 0) -> Port:
    """`like`: with the MAC and addresses of another."""
    own = like or number
    fixed = tuple(address(family, own) for family in Family)
    return Port(f"port-{number}", mac(own), fixed, (), groups or ("web",))


def policy(*ports: Port, group: SecurityGroup | None = None) -> Policy:
    return Policy({one.id: one for one in ports or (port(1), port(2))}, {"web": group or web(*HTTP, DNS)})


def plugged(*numbers: int, vlans: dict[int, int] | None = None) -> Bindings:
    return Bindings(tuple(Binding(f"port-{n}", n, (vlans or {}).get(n, 0)) for n in numbers), (Uplink(UPLINK),))


@pytest.fixture
def two(switch: DummySwitch) -> DummySwitch:
    """Two endpoints; both let HTTP and DNS in."""
    switch.program(compile_policy(policy(), plugged(1, 2)))
    return switch


def ether(sender: int | str, receiver: int | str) -> Packet:
    source, target = (one if isinstance(one, str) else format_mac(mac(one)) for one in (sender, receiver))
    return Ether(src=source, dst=target)


def tcp(sender: int, receiver: int, sport: int, dport: int, flags: str) -> Packet:
    network = IP(src=f"10.0.0.{sender}", dst=f"10.0.0.{receiver}")
    return ether(sender, receiver) / network / TCP(sport=sport, dport=dport, flags=flags, seq=1000, ack=1001)


def passes(switch: DummySwitch, came: int, packet: Packet) -> bool:
    return bool(switch.send(came, bytes(packet)))


def handshake(switch: DummySwitch) -> None:
    for came, packet in ((1, tcp(1, 2, 9, 80, "S")), (2, tcp(2, 1, 80, 9, "SA")), (1, tcp(1, 2, 9, 80, "A"))):
        assert passes(switch, came, packet)


# --- Connections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["SA", "SF", "SR", "", "FPU", "F"])
def test_what_begins_no_connection_is_dropped(two: DummySwitch, flags: str) -> None:
    assert not passes(two, 1, tcp(1, 2, 9, 80, flags))
    assert passes(two, 1, tcp(1, 2, 9, 80, "S"))


def test_a_reset_out_of_nowhere_is_dropped(two: DummySwitch) -> None:
    """To the userspace datapath's conntrack a lone RST is new (lib/conntrack-tcp.c)."""
    assert not passes(two, 1, tcp(1, 2, 9, 80, "R"))
    assert not passes(two, 2, tcp(2, 1, 80, 9, "R"))


def test_an_answer_nobody_asked_for_is_dropped(two: DummySwitch) -> None:
    reply = ether(2, 1) / IP(src=IP_B, dst=IP_A) / ICMP(type=0, id=7)
    reply6 = ether(2, 1) / IPv6(src=B6, dst=A6) / ICMPv6EchoReply(id=7)
    assert not passes(two, 2, reply)
    assert not passes(two, 2, reply6)
    assert not passes(two, 2, tcp(2, 1, 80, 9, "SA"))
    answer = ether(2, 1) / IP(src=IP_B, dst=IP_A) / UDP(sport=53, dport=4000)
    assert not passes(two, 2, answer)
    assert passes(two, 1, ether(1, 2) / IP(src=IP_A, dst=IP_B) / UDP(sport=4000, dport=53))
    assert passes(two, 2, answer)


def error(about: Packet, kind: Packet) -> Packet:
    """An ICMP error of port 2 about a packet of port 1."""
    return ether(2, 1) / IP(src=IP_B, dst=IP_A) / kind / about


@pytest.mark.parametrize("kind", [ICMP(type=3, code=3), ICMP(type=3, code=4, nexthopmtu=1400), ICMP(type=11)])
def test_errors_pass_when_they_are_about_a_connection(two: DummySwitch, kind: Packet) -> None:
    about = IPerror(src=IP_A, dst=IP_B, proto=17, len=28) / UDPerror(sport=4000, dport=53, len=8)
    stranger = IPerror(src=IP_A, dst=IP_B, proto=17, len=28) / UDPerror(sport=4001, dport=53, len=8)
    assert not passes(two, 2, error(about, kind))
    assert passes(two, 1, ether(1, 2) / IP(src=IP_A, dst=IP_B) / UDP(sport=4000, dport=53))
    assert passes(two, 2, error(about, kind))
    assert not passes(two, 2, error(stranger, kind))


def test_errors_of_routers_pass_in_both_directions(two: DummySwitch) -> None:
    handshake(two)
    about = IPerror(src=IP_A, dst=IP_B, proto=6, len=40) / TCPerror(sport=9, dport=80, seq=1000)
    back = IPerror(src=IP_B, dst=IP_A, proto=6, len=40) / TCPerror(sport=80, dport=9, seq=1000)
    for receiver, embedded in ((1, about), (2, back)):
        head = ether(OUTSIDE, receiver) / IP(src="10.0.0.254", dst=f"10.0.0.{receiver}")
        assert two.send(UPLINK, bytes(head / ICMP(type=3, code=4) / embedded)).keys() == {receiver}


def test_packet_too_big_passes_in_ipv6(two: DummySwitch) -> None:
    syn = ether(1, 2) / IPv6(src=A6, dst=B6) / TCP(sport=9, dport=80, flags="S")
    about = IPerror6(src=A6, dst=B6, nh=6, plen=20) / TCPerror(sport=9, dport=80)
    big = ether(OUTSIDE, 1) / IPv6(src="2001:db8::fe", dst=A6) / ICMPv6PacketTooBig(mtu=1280) / about
    assert not passes(two, UPLINK, big)
    assert passes(two, 1, syn)
    assert two.send(UPLINK, bytes(big)).keys() == {1}


def test_an_echo_reply_needs_its_request(two: DummySwitch) -> None:
    assert passes(two, 1, ether(1, OUTSIDE) / IPv6(src=A6, dst="2001:db8:9::9") / ICMPv6EchoRequest(id=7))
    reply = ether(OUTSIDE, 1) / IPv6(src="2001:db8:9::9", dst=A6)
    assert two.send(UPLINK, bytes(reply / ICMPv6EchoReply(id=7))).keys() == {1}
    assert not passes(two, UPLINK, reply / ICMPv6EchoReply(id=8))


# --- Networks -------------------------------------------------------------------------------------------------------


def test_networks_with_the_same_addresses_do_not_mix(switch: DummySwitch) -> None:
    """Ports 3 and 4 are the twins of 1 and 2 in another VLAN, and equal 5-tuples live in both at once."""
    ports = (port(1), port(2), port(3, like=1), port(4, like=2))
    vlans = {1: 7, 2: 7, 3: 8, 4: 8}
    for number, vlan in vlans.items():
        switch.tag([number], vlan)
    try:
        switch.program(compile_policy(policy(*ports), plugged(1, 2, 3, 4, vlans=vlans)))
        assert switch.send(1, bytes(tcp(1, 2, 9, 80, "S"))).keys() == {2}
        # No connection yet in the other network: its server's answer is nobody's.
        assert switch.send(4, bytes(tcp(2, 1, 80, 9, "SA"))) == {}
        assert switch.send(3, bytes(tcp(1, 2, 9, 80, "S"))).keys() == {4}
        assert switch.send(4, bytes(tcp(2, 1, 80, 9, "SA"))).keys() == {3}
        assert switch.send(2, bytes(tcp(2, 1, 80, 9, "SA"))).keys() == {1}
        zones = {line.split("zone=")[1].split(",")[0] for line in switch.call("dpctl/dump-conntrack").splitlines()}
        assert zones == {"7", "8"}
        tagged = ether(OUTSIDE, 2) / Dot1Q(vlan=8) / IP(src=IP_X, dst=IP_B) / UDP(sport=1, dport=53)
        assert switch.send(UPLINK, bytes(tagged)).keys() == {4}
    finally:
        switch.tag(vlans, 0)


def test_a_port_that_changes_its_network_moves_wholly(switch: DummySwitch) -> None:
    ports = (port(1), port(2))
    try:
        switch.tag([1, 2], 7)
        switch.program(compile_policy(policy(*ports), plugged(1, 2, vlans={1: 7, 2: 7})))
        handshake(switch)
        switch.tag([2], 8)
        switch.keep_connections(compile_policy(policy(*ports), plugged(1, 2, vlans={1: 7, 2: 8})))
        assert 2 not in switch.send(1, bytes(tcp(1, 2, 9, 80, "A")))
        assert 1 not in switch.send(2, bytes(tcp(2, 1, 80, 9, "A")))
    finally:
        switch.tag([1, 2], 0)


# --- Broadcast ------------------------------------------------------------------------------------------------------


def shout(sender: int | str, source: str, dport: int, vlan: int = 0) -> bytes:
    head = Ether(src=sender if isinstance(sender, str) else format_mac(mac(sender)), dst="ff:ff:ff:ff:ff:ff")
    if vlan:
        head /= Dot1Q(vlan=vlan)
    return bytes(head / IP(src=source, dst="255.255.255.255") / UDP(sport=1, dport=dport) / Raw(b"x"))


def test_a_broadcast_reaches_those_whose_rules_accept_it(switch: DummySwitch) -> None:
    closed = SecurityGroup("closed")
    ports = (port(1), port(2), port(3, "closed"), port(4, "web", "closed"))
    both = replace(policy(*ports), security_groups={"web": web(DNS), "closed": closed})
    switch.program(compile_policy(both, plugged(1, 2, 3, 4)))
    assert switch.send(1, shout(1, IP_A, 53)).keys() == {2, 4, UPLINK}
    assert switch.send(1, shout(1, IP_A, 54)).keys() == {UPLINK}
    assert switch.send(UPLINK, shout(OUTSIDE, IP_X, 53)).keys() == {1, 2, 4}
    assert switch.send(UPLINK, shout(OUTSIDE, IP_X, 54)) == {}
    assert all(len(sent) == 1 for sent in switch.send(UPLINK, shout(OUTSIDE, IP_X, 53)).values())
    assert switch.send(3, shout(3, "10.0.0.3", 53)) == {}


def test_a_broadcast_of_members_only(switch: DummySwitch) -> None:
    members = web(Rule("mutual", INGRESS, Family.IPV4, 17, PortRange(53, 53), remote=RemoteGroup("web")))
    switch.program(compile_policy(policy(group=members), plugged(1, 2)))
    assert switch.send(1, shout(1, IP_A, 53)).keys() - {3, 4} == {2, UPLINK}
    assert switch.send(UPLINK, shout(OUTSIDE, IP_X, 53)).keys() - {3, 4} == set()


def test_one_broadcast_reaches_500_endpoints_with_300_lists_of_groups(dummy_ovs: PrivateSwitch) -> None:
    """Open vSwitch gives up after 4,096 resubmits; it says so in its log, and delivers nothing."""
    names = [f"g{n}" for n in range(300)]
    groups = {name: SecurityGroup(name, rules=(DNS,) if name != "g0" else ()) for name in names}
    unique = {
        name: replace(group, rules=tuple(replace(rule, id=f"{name}/dns") for rule in group.rules))
        for name, group in groups.items()
    }
    numbers = range(101, 101 + MANY)
    ports = {
        f"port-{n}": Port(
            f"port-{n}", mac(n), (Prefix(Family.IPV4, 0x0A010000 + n, 32),), (), tuple(sorted({"g0", names[n % 300]}))
        )
        for n in numbers
    }
    crowd = DummySwitch(dummy_ovs, (*numbers, 900), bridge="br-crowd")
    bindings = Bindings(tuple(Binding(f"port-{n}", n) for n in numbers), (Uplink(900),))
    crowd.program(compile_policy(Policy(ports, unique), bindings))
    accepting = {n for n in numbers if names[n % 300] != "g0"}
    assert crowd.send(900, shout(OUTSIDE, IP_X, 53)).keys() == accepting
    assert "resubmits" not in (dummy_ovs.rundir / "ovs-vswitchd.log").read_text()
