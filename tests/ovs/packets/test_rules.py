"""What rules say is what packets do, at every border.  vm1 sends and may send all; vm2 has the rules of the test."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from scapy.contrib.ospf import OSPF_Hdr, OSPF_Hello
from scapy.layers.igmp import IGMP
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6Unknown
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.layers.vrrp import VRRP
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import EGRESS_VERDICT, INGRESS_VERDICT, Reason
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.protocols import IPV6_ONLY, NUMBERS
from tests.ovs.packets.bench import Bench, Json, address, egress, ingress, policy_of, vm
from tests.ovs.packets.frames import FAR, ip, ping, sctp, tcp, udp

pytestmark = pytest.mark.ovs

LAST = {4: 0xFF_FF_FF_FF, 6: (1 << 128) - 1}


def passes(bench: Bench, frame: Packet, *, sender: str = "vm1", receiver: str = "vm2") -> bool:
    """Whether the first packet of a connection arrives; when it does not, the rules must be the reason."""
    bench.switch.call("dpctl/flush-conntrack")
    outcome = bench.sends(sender, frame)
    if outcome.out:
        outcome.reaches(receiver)
        return True
    outcome.stopped(by=Reason.DENIED)
    return False


def enforce(bench: Bench, *rules: Json, **more: list[Json]) -> None:
    policy = policy_of([vm(1, "talker"), vm(2, "tested", *more), vm(3, "talker")], {"tested": list(rules), **more})
    bench.enforce_policy(policy)


# --- Protocols ------------------------------------------------------------------------------------------------------

# OVS can tell these apart only by number; what is inside does not matter to it, but a few are made as they really are.
BODIES: dict[int, Packet] = {
    2: IGMP(type=0x16),
    47: GRE() / Raw(b"x" * 8),
    50: ESP(spi=5, seq=1, data=b"x" * 16),
    51: AH(spi=5, seq=1, icv=b"x" * 12),
    89: OSPF_Hdr() / OSPF_Hello(),
    112: VRRP(vrid=1, addrlist=["10.0.0.1"]),
}
# ICMP, TCP, UDP and SCTP have tests of their own; what is an IPv6 header itself is skipped by Open vSwitch.
HEADERS_OF_IPV6 = {0, 43, 44, 51, 60}
HAVE_TESTS = {1, 6, 17, 58, 132}
PLAIN = sorted((set(NUMBERS.values()) | {3, 16, 133, 253, 255}) - HAVE_TESTS)


def of_protocol(family: int, number: int) -> Packet:
    body = bytes(BODIES.get(number, Raw(b"\x00" * 32)))
    return ip(family, "vm1", "vm2", **{"proto" if family == 4 else "nh": number}) / Raw(body)


@pytest.mark.parametrize("number", PLAIN)
def test_protocol_by_number(bench: Bench, family: int, number: int) -> None:
    if family == 4 and number in IPV6_ONLY:
        return
    enforce(bench, ingress(family, number))
    if family == 6 and number in HEADERS_OF_IPV6:
        assert not passes(bench, udp(6, "vm1", "vm2"))
        return
    assert passes(bench, of_protocol(family, number))
    assert not passes(bench, of_protocol(family, 254))
    assert not passes(bench, udp(family, "vm1", "vm2"))
    enforce(bench, ingress(family, 254))
    assert not passes(bench, of_protocol(family, number))


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_protocol_by_name(bench: Bench, family: int, name: str) -> None:
    number = 58 if family == 6 and name == "icmp" else NUMBERS[name]
    if family == 4 and number in IPV6_ONLY:
        return
    enforce(bench, ingress(family, name))
    by_name = bench.policy.security_groups["tested"].rules
    enforce(bench, ingress(family, number))
    assert by_name == bench.policy.security_groups["tested"].rules


def test_any_protocol(bench: Bench, family: int) -> None:
    enforce(bench, ingress(family))
    for frame in (
        udp(family, "vm1", "vm2"),
        tcp(family, "vm1", "vm2"),
        sctp(family, "vm1", "vm2"),
        ping(family, "vm1", "vm2"),
    ):
        assert passes(bench, frame)
    assert passes(bench, of_protocol(family, 89))
    other = 10 - family
    assert not passes(bench, udp(other, "vm1", "vm2"))


MAKERS = {"tcp": tcp, "udp": udp, "sctp": sctp}


@pytest.mark.parametrize("chosen", MAKERS)
def test_protocol_with_ports_by_name(bench: Bench, family: int, chosen: str) -> None:
    enforce(bench, ingress(family, chosen))
    for name, make in MAKERS.items():
        assert passes(bench, make(family, "vm1", "vm2")) == (name == chosen)


def test_both_families_apart(bench: Bench, family: int) -> None:
    enforce(bench, ingress(family, "tcp", 80))
    assert passes(bench, tcp(family, "vm1", "vm2"))
    assert not passes(bench, tcp(10 - family, "vm1", "vm2"))


@pytest.mark.parametrize("protocol", ["dccp", "udplite"])
def test_ports_that_open_vswitch_cannot_read_allow_nothing(bench: Bench, family: int, protocol: str) -> None:
    enforce(bench, ingress(family, protocol, 80))
    assert not passes(bench, of_protocol(family, NUMBERS[protocol]))
    enforce(bench, ingress(family, protocol))
    assert passes(bench, of_protocol(family, NUMBERS[protocol]))


def test_egress_protocols(bench: Bench, family: int) -> None:
    bench.enforce(vm(1, "sender"), vm(2, "open"), sender=[egress(family, "tcp", 80)])
    assert passes(bench, tcp(family, "vm1", "vm2"))
    for frame in (tcp(family, "vm1", "vm2", dport=81), udp(family, "vm1", "vm2", dport=80), ping(family, "vm1", "vm2")):
        bench.sends("vm1", frame).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)


# --- ICMP -----------------------------------------------------------------------------------------------------------

# Kinds that begin a conversation; conntrack calls all others invalid, or belonging to one.
FIRSTS = {4: (8, 13, 15), 6: (128,)}


def icmp(family: int, kind: int, code: int = 0) -> Packet:
    outer = ip(family, "vm1", "vm2")
    if family == 4:
        return outer / ICMP(type=kind, code=code, id=7)
    return outer / ICMPv6EchoRequest(type=kind, code=code, id=7)


@pytest.mark.parametrize("protocol", ["icmp", "number"])
def test_icmp_type(bench: Bench, family: int, protocol: str) -> None:
    number: str | int = protocol if protocol == "icmp" else {4: 1, 6: 58}[family]
    for chosen in FIRSTS[family]:
        enforce(bench, ingress(family, number, chosen))
        for kind in FIRSTS[family]:
            assert passes(bench, icmp(family, kind)) == (kind == chosen)
    enforce(bench, ingress(family, number))
    assert all(passes(bench, icmp(family, kind)) for kind in FIRSTS[family])


def test_icmp_code_with_conntrack(bench: Bench, family: int) -> None:
    """An echo request with a code is no echo request; rules for code 0 are the only ones of use."""
    kind = FIRSTS[family][0]
    for code, expected in ((0, True), (1, False)):
        enforce(bench, ingress(family, "icmp", (kind, code)))
        assert passes(bench, icmp(family, kind, 0)) == expected
        bench.sends("vm1", icmp(family, kind, code=1)).stopped(by=Reason.INVALID)


# Without conntrack every type is judged by rules; those of discovery and routing are not for rules.
KINDS = {4: (0, 3, 4, 8, 11, 12, 13, 17, 255), 6: (1, 2, 3, 4, 128, 129, 138, 139, 200, 255)}


def test_icmp_type_and_code_without_conntrack(bench: Bench, family: int) -> None:
    for chosen, code in itertools.product(KINDS[family][::3], (None, 0, 1, 255)):
        wanted = chosen if code is None else (chosen, code)
        rules = [ingress(family, "icmp", wanted)]
        bench.enforce(vm(1, "all"), vm(2, "tested"), all=[egress(family)], tested=rules, stateless=["all", "tested"])
        for kind, tried in itertools.product(KINDS[family], (0, 1, 2, 255)):
            expected = kind == chosen and code in (None, tried)
            assert passes(bench, icmp(family, kind, tried)) == expected, (wanted, kind, tried)


def test_icmp_of_the_other_family(bench: Bench) -> None:
    """ICMPv6 in IPv4 and ICMP in IPv6 are protocols like any other, and no rule for ICMP lets them in."""
    enforce(bench, ingress(4, "icmp"), ingress(6, "icmp"))
    bench.sends("vm1", ip(4, "vm1", "vm2", proto=58) / Raw(bytes(ICMPv6EchoRequest(cksum=1)))).spares("vm2")
    bench.sends("vm1", ip(6, "vm1", "vm2", nh=1) / Raw(bytes(ICMP()))).spares("vm2")


@pytest.mark.parametrize("kind", [0, 3, 4, 11, 12, 14])
def test_icmp_that_begins_nothing(bench: Bench, kind: int) -> None:
    """A rule for ICMP lets no reply and no error in that belongs to nothing."""
    enforce(bench, ingress(4, "icmp"))
    bench.sends("vm1", icmp(4, kind)).stopped(by=Reason.INVALID)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 129, 138, 139, 141, 148, 200])
def test_icmpv6_that_begins_nothing(bench: Bench, kind: int) -> None:
    enforce(bench, ingress(6, "icmp"))
    frame = ip(6, "vm1", "vm2") / (
        ICMPv6EchoReply(id=7) if kind == 129 else ICMPv6Unknown(type=kind, msgbody=b"x" * 60)
    )
    bench.sends("vm1", frame).stopped(by=Reason.INVALID)


# --- Ports ----------------------------------------------------------------------------------------------------------

RANGES = [
    (0, 0),
    (0, 1),
    (1, 1),
    (1, 65535),
    (0, 65535),
    (1, 65534),
    (80, 83),
    (80, 80),
    (79, 81),
    (1023, 1025),
    (1024, 65535),
    (0, 1023),
    (32767, 32768),
    (5000, 5999),
    (65534, 65535),
    (65535, 65535),
    (12345, 54321),
]


def borders(first: int, last: int) -> set[int]:
    near = {0, 1, 65534, 65535, (first + last) // 2, first ^ 1, last ^ 1, first ^ 0x8000}
    near |= {port + step for port in (first, last) for step in (-1, 0, 1)}
    return {port for port in near if 0 <= port <= 65535}


@pytest.mark.parametrize("protocol", MAKERS)
@pytest.mark.parametrize("ports", RANGES, ids=lambda ports: f"{ports[0]}-{ports[1]}")
def test_borders_of_port_ranges(bench: Bench, family: int, protocol: str, ports: tuple[int, int]) -> None:
    enforce(bench, ingress(family, protocol, ports))
    for port in sorted(borders(*ports)):
        frame = MAKERS[protocol](family, "vm1", "vm2", dport=port)
        if port == 0 and protocol != "sctp":
            bench.sends("vm1", frame).stopped(by=Reason.INVALID)
        else:
            everything = ports in ((0, 65535), (1, 65535))
            assert passes(bench, frame) == (everything or ports[0] <= port <= ports[1]), port


@pytest.mark.parametrize(
    "ports", [(0, 0), (0, 1), (1, 1), (1, 65534), (0, 65535)], ids=lambda ports: f"{ports[0]}-{ports[1]}"
)
def test_port_0(bench: Bench, family: int, ports: tuple[int, int]) -> None:
    """Conntrack calls TCP and UDP to port 0 invalid.  Without it, rules with port 0 mean what they say."""
    rules = [ingress(family, protocol, ports) for protocol in ("tcp", "udp")]
    bench.enforce(
        vm(1, "sender"), vm(2, "tested"), sender=[egress(family)], tested=rules, stateless=["tested", "sender"]
    )
    for make in (tcp, udp):
        assert passes(bench, make(family, "vm1", "vm2", dport=0)) == (ports[0] == 0)
        assert passes(bench, make(family, "vm1", "vm2", dport=1)) == (ports[1] > 0)


def test_source_ports_do_not_matter(bench: Bench, family: int) -> None:
    enforce(bench, ingress(family, "udp", 53))
    assert all(passes(bench, udp(family, "vm1", "vm2", dport=53, sport=port)) for port in (1, 53, 1024, 65535))
    assert not passes(bench, udp(family, "vm1", "vm2", dport=1024, sport=53))


def test_port_ranges_of_egress(bench: Bench, family: int) -> None:
    bench.enforce(vm(1, "sender"), vm(2, "open"), sender=[egress(family, "tcp", (1023, 1025))])
    allowed = [port for port in range(1020, 1029) if passes(bench, tcp(family, "vm1", "vm2", dport=port))]
    assert allowed == [1023, 1024, 1025]


def test_sctp_ports(bench: Bench, family: int) -> None:
    enforce(bench, ingress(family, "sctp", (80, 81)))
    found = [port for port in (79, 80, 81, 82) if passes(bench, sctp(family, "vm1", "vm2", dport=port))]
    assert found == [80, 81]
    chunks = ip(family, "vm1", "vm2") / SCTP(sport=80, dport=9) / SCTPChunkInit()
    assert not passes(bench, chunks)


# --- Rules that overlap ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [((80, 90), (85, 95)), ((80, 90), (80, 90)), ((80, 90), (84, 86)), ((80, 85), (86, 90)), ((80, 80), (82, 82))],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one-group", "two-groups"])
def test_overlapping_port_ranges(
    bench: Bench, family: int, one: tuple[int, int], other: tuple[int, int], *, apart: bool
) -> None:
    first, second = ingress(family, "tcp", one), ingress(family, "tcp", other, remote_ip_prefix=f"{address(family, 1)}")
    if apart:
        enforce(bench, first, more=[second])
    else:
        enforce(bench, first, second)
    for port in range(78, 98):
        allowed = one[0] <= port <= one[1] or other[0] <= port <= other[1]
        assert passes(bench, tcp(family, "vm1", "vm2", dport=port)) == allowed
        only_first = one[0] <= port <= one[1]
        assert passes(bench, tcp(family, "vm3", "vm2", dport=port), sender="vm3") == only_first


def test_every_kind_of_remote_at_once(bench: Bench, family: int) -> None:
    """Plain, prefix, group and address group, on overlapping ports: each adds, none takes away."""
    kinds: list[Json] = [
        ingress(family, "udp", (10, 19)),
        ingress(family, "udp", (20, 39), remote_ip_prefix=address(family, 1)),
        ingress(family, "udp", (30, 49), remote_group_id="friends"),
        ingress(family, "udp", (40, 59), remote_address_group_id="somewhere"),
        ingress(family, "udp", (45, 46), remote_group_id="friends"),
    ]
    ports = [vm(1, "talker"), vm(2, "tested"), vm(3, "talker", "friends"), vm(4, "talker")]
    everywhere = {"somewhere": [address(family, 1), address(family, 3)]}
    allowed = {
        "vm1": {*range(10, 40), *range(40, 60)},
        "vm3": {*range(10, 20), *range(30, 60)},
        "vm4": set(range(10, 20)),
    }
    for rules in itertools.islice(itertools.permutations(kinds), 0, 120, 40):
        bench.enforce(*ports, tested=list(rules), friends=[], address_groups=everywhere)
        for sender, expected in allowed.items():
            tried = range(8, 62)
            found = {port for port in tried if passes(bench, udp(family, sender, "vm2", dport=port), sender=sender)}
            assert found == expected


def test_specific_and_general(bench: Bench, family: int) -> None:
    """A rule that is contained in another changes nothing, wherever it stands and whatever its remote."""
    general = ingress(family, "tcp")
    for specific in (
        ingress(family, "tcp", 80),
        ingress(family, "tcp", 80, remote_ip_prefix=address(family, 3)),
        ingress(family, "tcp", remote_group_id="talker"),
        ingress(family, "tcp", 80, remote_group_id="tested"),
    ):
        enforce(bench, specific, general)
        assert passes(bench, tcp(family, "vm1", "vm2", dport=80))
        assert passes(bench, tcp(family, "vm1", "vm2", dport=81))
        assert not passes(bench, udp(family, "vm1", "vm2", dport=80))


def test_groups_are_a_union(bench: Bench, family: int) -> None:
    enforce(bench, ingress(family, "tcp", 80), two=[ingress(family, "tcp", 81)], three=[ingress(family, "udp", 82)])
    assert [port for port in range(79, 84) if passes(bench, tcp(family, "vm1", "vm2", dport=port))] == [80, 81]
    assert [port for port in range(79, 84) if passes(bench, udp(family, "vm1", "vm2", dport=port))] == [82]


def test_a_group_of_others_gives_nothing(bench: Bench, family: int) -> None:
    bench.enforce(
        vm(1, "talker"), vm(2, "one"), vm(3, "two"), one=[ingress(family, "tcp", 80)], two=[ingress(family, "tcp", 81)]
    )
    for receiver, port in (("vm2", 80), ("vm3", 81)):
        for dport in (80, 81):
            frame = tcp(family, "vm1", receiver, dport=dport)
            assert passes(bench, frame, receiver=receiver) == (dport == port)


def test_a_port_without_groups(bench: Bench, family: int) -> None:
    bench.enforce(vm(1, "open"), vm(2))
    assert not passes(bench, udp(family, "vm1", "vm2"))
    bench.sends("vm2", udp(family, "vm2", "vm1")).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)


def test_both_sides_must_allow(bench: Bench, family: int) -> None:
    sender, receiver = [egress(family, "tcp", (80, 81))], [ingress(family, "tcp", (81, 82))]
    bench.enforce(vm(1, "sender"), vm(2, "receiver"), sender=sender, receiver=receiver)
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=80)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=81)).reaches("vm2")
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=82)).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)


# --- Remote groups and address groups -------------------------------------------------------------------------------


def test_members_here_and_elsewhere(bench: Bench, family: int) -> None:
    policy = policy_of(
        [vm(1, "friends", "talker"), vm(2, "tested"), vm(3, "talker"), vm(4, "friends")],
        {"friends": [], "tested": [ingress(family, "tcp", 80, remote_group_id="friends")]},
    )
    bench.enforce_policy(policy, away={"vm4"})
    assert passes(bench, tcp(family, "vm1", "vm2"))
    assert not passes(bench, tcp(family, "vm3", "vm2"), sender="vm3")
    assert passes(bench, tcp(family, "outside", "vm2", src=address(family, 4)), sender="uplink")
    assert not passes(bench, tcp(family, "outside", "vm2"), sender="uplink")
    assert not passes(bench, tcp(family, "vm1", "vm2", dport=81))
    assert not passes(bench, tcp(10 - family, "vm1", "vm2"))


def test_a_group_that_refers_to_itself(bench: Bench, family: int) -> None:
    inside = [ingress(family, remote_group_id="inside"), egress(family, remote_group_id="inside")]
    bench.enforce(vm(1, "inside"), vm(2, "inside"), vm(3, "open"), inside=inside)
    assert passes(bench, tcp(family, "vm1", "vm2"))
    assert not passes(bench, tcp(family, "vm3", "vm2"), sender="vm3")
    bench.sends("vm1", tcp(family, "vm1", "vm3")).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)


def test_members_by_allowed_pairs(bench: Bench, family: int) -> None:
    """A pair makes its addresses members, all of them and no others."""
    inside, outside = {4: ("10.0.8.0/23", "10.0.9.255"), 6: ("2001:db8:8::/63", "2001:db8:8:1::9")}[family], FAR[family]
    bench.enforce(
        vm(1, "friends", "talker", pairs=[inside[0], outside]),
        vm(2, "tested"),
        vm(3, "talker", pairs=[{4: "10.0.10.0", 6: "2001:db8:8:2::"}[family]]),
        friends=[],
        tested=[ingress(family, "tcp", 80, remote_group_id="friends")],
    )
    for source in (address(family, 1), inside[1], outside):
        assert passes(bench, tcp(family, "vm1", "vm2", src=source))
    beyond = {4: "10.0.10.0", 6: "2001:db8:8:2::"}[family]
    assert not passes(bench, tcp(family, "vm3", "vm2", src=beyond), sender="vm3")


def test_a_member_of_two_sets(bench: Bench, family: int) -> None:
    """One address in two groups and an address group; rules for each, on ports of their own."""
    rules = [
        ingress(family, "tcp", 80, remote_group_id="red"),
        ingress(family, "tcp", 81, remote_group_id="blue"),
        ingress(family, "tcp", 82, remote_address_group_id="list"),
    ]
    bench.enforce(
        vm(1, "talker", "red", "blue"),
        vm(2, "tested"),
        vm(3, "talker", "red"),
        vm(4, "talker", "blue"),
        red=[],
        blue=[],
        tested=rules,
        address_groups={"list": [address(family, 1), address(family, 4)]},
    )
    expected = {"vm1": [80, 81, 82], "vm3": [80], "vm4": [81, 82]}
    for sender, ports in expected.items():
        tried = range(79, 84)
        assert [p for p in tried if passes(bench, tcp(family, sender, "vm2", dport=p), sender=sender)] == ports


def test_egress_to_groups(bench: Bench, family: int) -> None:
    rules = [
        egress(family, "tcp", 80, remote_group_id="red"),
        egress(family, "tcp", 81, remote_address_group_id="list"),
    ]
    bench.enforce(
        vm(1, "sender"),
        vm(2, "open", "red"),
        vm(3, "open"),
        red=[],
        sender=rules,
        address_groups={"list": [FAR[family]]},
    )
    assert passes(bench, tcp(family, "vm1", "vm2", dport=80))
    for receiver, port in (("vm3", 80), ("vm2", 81), ("outside", 80)):
        bench.sends("vm1", tcp(family, "vm1", receiver, dport=port)).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)
    assert passes(bench, tcp(family, "vm1", "outside", dport=81), receiver="uplink")


OVERLAPPING = {
    4: ["198.51.100.0/24", "198.51.100.128/25", "198.51.100.129", "198.51.0.0/16", "203.0.113.0/24"],
    6: ["2001:db8:a::/64", "2001:db8:a::8000/113", "2001:db8:a::8001", "2001:db8::/33", "2001:db8:ff::/64"],
}
SAMPLES = {
    4: ["198.51.100.1", "198.51.100.128", "198.51.100.129", "198.51.99.255", "203.0.113.9", "192.0.2.1", "198.52.0.0"],
    6: [
        "2001:db8:a::1",
        "2001:db8:a::8000",
        "2001:db8:a::8001",
        "2001:db8:b::",
        "2001:db8:ff::9",
        "2001:db9::",
        "2a00::",
    ],
}


def test_address_groups_with_overlapping_prefixes(bench: Bench, family: int) -> None:
    """Four sets, each with some of the prefixes; every sample is judged by each."""
    sets = {
        "a": OVERLAPPING[family][:1],
        "b": OVERLAPPING[family][1:3],
        "c": OVERLAPPING[family][3:],
        "d": OVERLAPPING[family],
    }
    rules = [ingress(family, "udp", 80 + n, remote_address_group_id=name) for n, name in enumerate(sets)]
    bench.enforce(vm(2, "tested"), tested=rules, address_groups=sets)
    for sample in SAMPLES[family]:
        for number, prefixes in enumerate(sets.values()):
            expected = any(Prefix.parse(prefix).contains(Prefix.parse(sample)) for prefix in prefixes)
            frame = udp(family, "outside", "vm2", src=sample, dport=80 + number)
            assert passes(bench, frame, sender="uplink") == expected, (sample, prefixes)


def test_one_of_two_overlapping_remotes_goes(bench: Bench, family: int) -> None:
    """While either allows it, it passes; when both are gone it does not."""
    wide, narrow = {4: ("198.51.100.0/24", "198.51.100.7"), 6: ("2001:db8:a::/64", "2001:db8:a::7")}[family]
    frame = udp(family, "outside", "vm2", src=narrow, dport=80)
    rule = ingress(family, "udp", 80, remote_address_group_id="list")
    for prefixes, expected in (([wide, narrow], True), ([wide], True), ([narrow], True), ([], False), ([narrow], True)):
        bench.enforce(vm(2, "tested"), tested=[rule], address_groups={"list": prefixes})
        assert passes(bench, frame, sender="uplink") == expected
    by_prefix = [ingress(family, "udp", 80, remote_ip_prefix=prefix) for prefix in (wide, narrow)]
    for rules in (by_prefix, by_prefix[:1], by_prefix[1:], []):
        bench.enforce(vm(2, "tested"), tested=rules)
        assert passes(bench, frame, sender="uplink") == bool(rules)
    red, blue = (ingress(family, "udp", 80, remote_group_id=name) for name in ("red", "blue"))
    for rules in ([red, blue], [red], [blue], []):
        bench.enforce(vm(1, "talker", "red", "blue"), vm(2, "tested"), red=[], blue=[], tested=rules)
        assert passes(bench, udp(family, "vm1", "vm2", dport=80)) == bool(rules)


# --- Prefixes of every length ---------------------------------------------------------------------------------------

LENGTHS = {4: range(1, 33), 6: (*range(1, 129, 9), 32, 48, 63, 64, 65, 96, 127, 128)}
_BASE = {4: "198.51.100.165", 6: "2a05:d018:5a5:a5a5:5a5a:a5a5:5a5a:a5a5"}


def edges(family: int, length: int) -> Iterator[tuple[str, bool]]:
    """Addresses just inside and just outside a prefix, and with the bit behind its end turned."""
    bits = {4: 32, 6: 128}[family]
    whole = Prefix.parse(f"{_BASE[family]}/{length}")
    first, last = whole.value, whole.value | ((1 << bits - length) - 1)
    for value in (first, last, first - 1, last + 1, first ^ 1 << bits - length, last ^ 1):
        if 0 < value < LAST[family] and value >> bits - 8 not in (0, 127, 224, 239, 255):
            found = Prefix(Family(family), value, bits)
            yield str(found), whole.contains(found)


@pytest.mark.parametrize("kind", ["prefix", "address-group"])
def test_prefixes_of_every_length(bench: Bench, family: int, kind: str) -> None:
    for length in LENGTHS[family]:
        prefix = f"{_BASE[family]}/{length}"
        by = {"remote_ip_prefix": prefix} if kind == "prefix" else {"remote_address_group_id": "list"}
        bench.enforce(vm(2, "tested"), tested=[ingress(family, "udp", 80, **by)], address_groups={"list": [prefix]})
        for source, expected in edges(family, length):
            assert passes(bench, udp(family, "outside", "vm2", src=source, dport=80), sender="uplink") == expected, (
                prefix,
                source,
            )


@pytest.mark.parametrize("whole", [True, False], ids=["/0", "/1"])
def test_the_shortest_prefixes(bench: Bench, family: int, *, whole: bool) -> None:
    """/0 is everybody, in rules; /1 is a half."""
    prefix = {4: "0.0.0.0/", 6: "::/"}[family] + ("0" if whole else "1")
    enforce(bench, ingress(family, "udp", 80, remote_ip_prefix=prefix))
    low, high = {4: ("10.9.9.9", "198.51.100.1"), 6: ("2001:db8:9::9", "fd00::1")}[family]
    assert passes(bench, udp(family, "outside", "vm2", src=low, dport=80), sender="uplink")
    assert passes(bench, udp(family, "outside", "vm2", src=high, dport=80), sender="uplink") == whole


def test_a_prefix_of_egress(bench: Bench, family: int) -> None:
    prefix = {4: "203.0.113.8/30", 6: "2001:db8:ff::8/126"}[family]
    bench.enforce(vm(1, "sender"), sender=[egress(family, remote_ip_prefix=prefix)])
    base = {4: "203.0.113.", 6: "2001:db8:ff::"}[family]
    found = [
        n for n in (1, 7, 8, 9) if passes(bench, udp(family, "vm1", "outside", dst=f"{base}{n}"), receiver="uplink")
    ]
    assert found == [8, 9]


# --- By chance ------------------------------------------------------------------------------------------------------


def test_many_ranges_at_once(bench: Bench, family: int) -> None:
    """Thirty awkward ranges with and without remotes: every border of each is as the sum of them says."""
    chance = random.Random(family)  # noqa: S311
    ranges = [tuple(sorted(chance.sample(range(65536), 2))) for _ in range(30)]
    rules = [
        ingress(family, "udp", (low, high), **({"remote_group_id": "talker"} if number % 2 else {}))
        for number, (low, high) in enumerate(ranges)
    ]
    enforce(bench, *rules)
    for port in sorted({port + step for pair in ranges for port in pair for step in (-1, 0, 1)} & set(range(65536)))[
        :90
    ]:
        allowed = any(low <= port <= high for low, high in ranges)
        assert passes(bench, udp(family, "vm1", "vm2", dport=port)) == allowed
