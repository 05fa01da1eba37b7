"""Networks are apart: VLANs with the same addresses, the same MACs and the same connections at once.

In red (VLAN 7) vm1 talks to vm2, in blue (VLAN 8) vm5 to vm6; vm5 is as vm1 and vm6 as vm2 in all but the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from ovsfw.compiler import Binding
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.pipeline import UNTAGGED, Reason
from tests.ovs.packets.bench import NUMBERS, UPLINK, UPLINK2, Bench, Json, address, ingress, mac, policy_of, vm
from tests.ovs.packets.frames import BROADCAST, FRAGMENT, arp, cut, router_advertisement, solicit, tcp, udp

pytestmark = pytest.mark.ovs

RED, BLUE = 7, 8
SERVER = [ingress(family, protocol, 80) for family in (4, 6) for protocol in ("tcp", "udp")]
BACK: Json = {"sport": 80, "dport": 30000}


def twin(number: int, of: int, *groups: str) -> Json:
    """As another, but in blue."""
    return vm(of, *groups, id=f"vm{number}", network_id="blue")


def red_and_blue(*blue_groups: str) -> list[Json]:
    return [
        vm(1, "talker", network_id="red"),
        vm(2, "server", network_id="red"),
        twin(5, 1, "talker"),
        twin(6, 2, *blue_groups),
    ]


VLANS = {"vm1": RED, "vm2": RED, "vm5": BLUE, "vm6": BLUE}


def enforce(bench: Bench, *blue_groups: str, uplinks: tuple[Uplink, ...] = (Uplink(UPLINK),)) -> Bench:
    policy = policy_of(red_and_blue(*blue_groups), {"server": SERVER})
    bench.enforce_policy(policy, vlans=VLANS, uplinks=uplinks)
    return bench


@pytest.fixture
def apart(bench: Bench) -> Bench:
    """In blue the server accepts nothing."""
    return enforce(bench, "nothing")


@pytest.fixture
def alike(bench: Bench) -> Bench:
    """Both servers accept the same."""
    return enforce(bench, "server")


def tagged(packet: Packet, *vlans: int) -> Packet:
    """With 802.1Q tags, the outermost first."""
    frame = Ether(src=packet.src, dst=packet.dst)
    for vlan in vlans:
        frame /= Dot1Q(vlan=vlan)
    return frame / packet.payload


def vlan_of(frame: bytes) -> int:
    packet = Ether(frame)
    return int(packet[Dot1Q].vlan) if Dot1Q in packet else 0


# --- Two networks with the same of everything -----------------------------------------------------------------------


def test_each_is_judged_in_its_own_network(apart: Bench, family: int) -> None:
    """The very same packet, twice at once."""
    frame = tcp(family, "vm1", "vm2")
    apart.sends("vm1", frame).reaches("vm2")
    apart.sends("vm5", frame).stopped(by=Reason.DENIED)
    apart.sends("vm1", frame).reaches("vm2")


def test_a_connection_in_one_is_none_in_the_other(apart: Bench, family: int) -> None:
    """Equal 5-tuples: accepted in red, the reply passes in red alone."""
    apart.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    answer = udp(family, "vm2", "vm1", **BACK)
    apart.sends("vm6", answer).stopped(by=Reason.DENIED)
    apart.sends("vm2", answer).reaches("vm1")


def test_both_at_once(alike: Bench, family: int) -> None:
    question, answer = udp(family, "vm1", "vm2", dport=80), udp(family, "vm2", "vm1", **BACK)
    alike.sends("vm1", question).reaches("vm2")
    alike.sends("vm5", question).reaches("vm6")
    alike.sends("vm6", answer).reaches("vm5")
    alike.sends("vm2", answer).reaches("vm1")
    assert sorted((entry.zone, entry.sides) for entry in alike.connections()) == [(RED, (1, 2)), (BLUE, (5, 6))]


def test_fragments_of_two_networks_do_not_meet(alike: Bench, family: int) -> None:
    """The first half in one, the second in the other, with the same identifier."""
    packet = udp(family, "vm1", "vm2", dport=80) / bytes(FRAGMENT)
    del packet.payload.payload.len
    del packet.payload.payload.chksum
    first, second = cut(packet, FRAGMENT)
    alike.sends("vm1", first)
    alike.sends("vm5", second).spares("vm2", "vm6")
    assert len(alike.sends("vm1", second).out["vm2"]) == 2


def test_broadcast_stays_in_its_network(alike: Bench) -> None:
    alike.sends("vm1", arp("vm1", "vm2")).reaches("vm2", "uplink")
    alike.sends("vm5", arp("vm1", "vm2")).reaches("vm6", "uplink")
    alike.sends("vm1", solicit("vm1", address(6, 2))).reaches("vm2", "uplink")
    shout = udp(4, "vm1", "vm2", dport=80, to=BROADCAST, dst="255.255.255.255")
    alike.sends("vm5", shout).reaches("vm6", "uplink")


def test_a_mac_of_another_network_is_unknown(bench: Bench, family: int) -> None:
    policy = policy_of([vm(1, "open", network_id="red"), vm(2, "open", network_id="blue")], {})
    bench.enforce_policy(policy, vlans={"vm1": RED, "vm2": BLUE})
    (left,) = bench.sends("vm1", udp(family, "vm1", "vm2")).reaches("uplink")
    assert vlan_of(left) == RED
    bench.sends("uplink", tagged(udp(family, "vm1", "vm2"), RED)).spares("vm1", "vm2")


def test_the_guard_knows_the_network(apart: Bench, family: int) -> None:
    """An endpoint cannot choose its network by a tag."""
    frame = udp(family, "vm1", "vm2", dport=80)
    for vlan in (RED, BLUE, 0):
        apart.sends("vm5", tagged(frame, vlan)).stopped(by=Reason.NO_TAG)
        apart.sends("vm5", tagged(frame, vlan, RED)).stopped(by=Reason.NO_TAG)


# --- Trunk uplink ---------------------------------------------------------------------------------------------------


def test_what_leaves_carries_its_tag(alike: Bench, family: int) -> None:
    for name, vlan in (("vm1", RED), ("vm5", BLUE)):
        (left,) = alike.sends(name, udp(family, "vm1", "outside")).reaches("uplink")
        assert vlan_of(left) == vlan


@pytest.mark.parametrize(("vlan", "receiver"), [(RED, "vm2"), (BLUE, "vm6")])
def test_tagged_packets_from_a_trunk_reach_their_vlan(alike: Bench, family: int, vlan: int, receiver: str) -> None:
    frame = udp(family, "outside", "vm2", dport=80)
    (received,) = alike.sends("uplink", tagged(frame, vlan)).reaches(receiver)
    assert received == bytes(frame)
    alike.sends("uplink", tagged(udp(family, "outside", "vm2", dport=81), vlan)).stopped(by=Reason.DENIED)
    assert {entry.zone for entry in alike.connections()} == {vlan}


@pytest.mark.parametrize("vlans", [(), (0,), (1,), (9,), (4095,), (0, RED), (9, RED), (RED + 0x800,)])
def test_other_tags_from_a_trunk_reach_nobody(alike: Bench, family: int, vlans: tuple[int, ...]) -> None:
    alike.sends("uplink", tagged(udp(family, "outside", "vm2", dport=80), *vlans)).spares(*VLANS)
    alike.sends("uplink", tagged(arp("outside", "vm2"), *vlans)).spares(*VLANS)


def test_two_tags_from_a_trunk(alike: Bench) -> None:
    """The outer tag chooses the network; what is inside is of no kind that endpoints get."""
    for frame in (udp(4, "outside", "vm2", dport=80), arp("outside", "vm2"), router_advertisement("outside")):
        alike.sends("uplink", tagged(frame, RED, BLUE)).spares(*VLANS)
        service = Ether(src=frame.src, dst=frame.dst) / Dot1AD(vlan=RED) / Dot1Q(vlan=BLUE) / frame.payload
        alike.sends("uplink", service).spares(*VLANS)


def test_tagged_broadcast_from_a_trunk(alike: Bench) -> None:
    for vlan, names in ((RED, ("vm1", "vm2")), (BLUE, ("vm5", "vm6"))):
        received = alike.sends("uplink", tagged(arp("outside", "vm2"), vlan)).reaches(*names)
        assert all(ARP in Ether(frame) and not vlan_of(frame) for frame in received)
        alike.sends("uplink", tagged(router_advertisement("outside"), vlan)).reaches(*names)


def test_untagged_is_a_network_of_its_own(bench: Bench, family: int) -> None:
    """Endpoints without a tag, beside a VLAN with the same machines."""
    machines = [vm(1, "talker"), vm(2, "server"), twin(5, 1, "talker"), twin(6, 2, "nothing")]
    bench.enforce_policy(policy_of(machines, {"server": SERVER}), vlans={"vm5": BLUE, "vm6": BLUE})
    frame = udp(family, "vm1", "vm2", dport=80)
    bench.sends("vm1", frame).reaches("vm2")
    bench.sends("vm5", frame).stopped(by=Reason.DENIED)
    (entry,) = bench.connections()
    assert entry.zone == UNTAGGED
    from_outside = udp(family, "outside", "vm2", dport=80, sport=9)
    bench.sends("uplink", from_outside).reaches("vm2")
    bench.sends("uplink", tagged(from_outside, BLUE)).stopped(by=Reason.DENIED)
    bench.sends("uplink", tagged(from_outside, 1)).spares("vm1", "vm2", "vm5", "vm6")


# --- Uplinks of other kinds -----------------------------------------------------------------------------------------


@contextmanager
def port_is(bench: Bench, name: str, **settings: str) -> Iterator[None]:
    """Set columns of the switch's port for a while."""
    port = f"p{NUMBERS[name]}"
    bench.switch.switch.vsctl("set", "port", port, *(f"{column}={value}" for column, value in settings.items()))
    try:
        yield
    finally:
        bench.switch.switch.vsctl(*[word for column in settings for word in ("--", "clear", "port", port, column)])


def test_access_uplink(bench: Bench, family: int) -> None:
    """Its packets are of its VLAN and carry no tag; with a tag they are dropped."""
    with port_is(bench, "uplink2", tag=str(RED)):
        enforce(bench, "server", uplinks=(Uplink(UPLINK), Uplink(UPLINK2, VlanMode.ACCESS, RED)))
        frame = udp(family, "outside", "vm2", dport=80)
        bench.sends("uplink2", frame).reaches("vm2")
        bench.sends("uplink2", tagged(frame, 0)).reaches("vm2")
        for vlan in (RED, BLUE):
            bench.sends("uplink2", tagged(frame, vlan)).stopped(by=Reason.UPLINK_TAGGED)
        _, plain = bench.sends("vm1", arp("vm1", "vm2")).spares("vm5", "vm6").reaches("vm2", "uplink2", "uplink")[:2]
        assert vlan_of(plain) == 0
        assert "uplink2" not in bench.sends("vm5", arp("vm1", "vm2")).out


@pytest.mark.parametrize("mode", ["native-untagged", "native-tagged"])
def test_native_uplink(bench: Bench, family: int, mode: str) -> None:
    """Without a tag its packets are of its native VLAN, with one of that VLAN."""
    with port_is(bench, "uplink2", tag=str(RED), vlan_mode=mode):
        enforce(bench, "server", uplinks=(Uplink(UPLINK2, VlanMode.NATIVE, RED),))
        frame = udp(family, "outside", "vm2", dport=80)
        bench.sends("uplink2", frame).reaches("vm2")
        bench.sends("uplink2", tagged(frame, 0)).reaches("vm2")
        bench.sends("uplink2", tagged(frame, RED)).reaches("vm2")
        bench.sends("uplink2", tagged(frame, BLUE)).reaches("vm6")
        bench.sends("uplink2", tagged(frame, 9)).spares(*VLANS)
        (left,) = bench.sends("vm1", udp(family, "vm1", "outside")).reaches("uplink2")
        assert vlan_of(left) == (RED if mode == "native-tagged" else 0)


def test_from_one_uplink_to_another(bench: Bench, family: int) -> None:
    """The host is a switch for what is not for its endpoints."""
    enforce(bench, "server", uplinks=(Uplink(UPLINK), Uplink(UPLINK2)))
    frame = tagged(udp(family, "outside", "vm3"), RED)
    bench.sends("uplink", frame).reaches("uplink2")
    bench.sends("uplink2", tagged(udp(family, "outside", "vm2", dport=80), RED)).reaches("vm2")


# --- A port moves ---------------------------------------------------------------------------------------------------


def test_a_port_whose_tag_changes_moves_wholly(bench: Bench, family: int) -> None:
    """What it had in the one network does not follow it into the other, in no direction."""
    policy = policy_of([vm(1, "talker"), vm(2, "server"), vm(3, "server")], {"server": SERVER})
    bench.enforce_policy(policy, vlans={"vm1": RED, "vm2": RED, "vm3": BLUE})
    to_red, to_blue = udp(family, "vm1", "vm2", dport=80), udp(family, "vm1", "vm3", dport=80)
    bench.sends("vm1", to_red).reaches("vm2")
    bench.sends("vm1", to_blue).reaches("uplink")
    bench.move("vm1", BLUE)
    bench.sends("vm1", to_red).reaches("uplink")
    bench.sends("vm1", to_blue).reaches("vm3")
    bench.sends("vm2", udp(family, "vm2", "vm1", **BACK)).spares("vm1")
    bench.sends("vm3", udp(family, "vm3", "vm1", **BACK)).reaches("vm1")
    for vlan, expected in ((RED, ()), (BLUE, ("vm1",))):
        outcome = bench.sends("uplink", tagged(arp("outside", "vm1", to=mac(1)), vlan))
        outcome.spares("vm2", "vm3").reaches(*expected)
    assert {entry.zone for entry in bench.connections() if entry.sides == (1, 3)} == {BLUE}


def test_a_port_that_loses_its_tag(bench: Bench, family: int) -> None:
    policy = policy_of([vm(1, "talker"), vm(2, "server")], {"server": SERVER})
    bench.enforce_policy(policy, vlans={"vm1": RED, "vm2": RED})
    frame = udp(family, "vm1", "vm2", dport=80)
    bench.sends("vm1", frame).reaches("vm2")
    bench.move("vm1", 0)
    (left,) = bench.sends("vm1", frame).reaches("uplink")
    assert vlan_of(left) == 0
    assert (IP if family == 4 else IPv6) in Ether(left)


def test_an_unknown_port_in_a_vlan(apart: Bench, family: int) -> None:
    """It has no network until the policy knows it."""
    policy = policy_of(red_and_blue("server"), {"server": SERVER})
    apart.enforce_policy(policy, vlans=VLANS, strangers=(Binding("who", 50, RED),))
    apart.sends("stranger", udp(family, "vm1", "vm2", dport=80)).stopped(by=Reason.UNKNOWN_PORT)
    apart.sends("vm1", arp("vm1", "vm2")).spares("stranger")
    apart.sends("uplink", tagged(arp("outside", "vm2"), RED)).spares("stranger")
