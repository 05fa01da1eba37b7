"""Ports that no policy knows, and ports without port security."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet

from ovsfw.compiler import Binding
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.pipeline import INGRESS_VERDICT, Reason
from tests.dummy import BRIDGE
from tests.ovs.packets.bench import STRANGER, UPLINK, Bench, Json, address, ingress, mac, policy_of, unfiltered, vm
from tests.ovs.packets.frames import (
    ALL_NODES,
    BROADCAST,
    FAR,
    advertise,
    arp,
    dhcp_discover,
    dhcp_offer,
    ether,
    ip,
    multicast_mac,
    ping,
    pong,
    router_advertisement,
    solicit,
    tcp,
    udp,
)

pytestmark = pytest.mark.ovs

# --- A port that no policy knows ------------------------------------------------------------------------------------


@pytest.fixture
def strange(bench: Bench) -> Bench:
    """vm1 accepts everything, vm4 is without port security, and somebody has plugged a port."""
    policy = policy_of([vm(1, "open"), unfiltered(4)], {})
    bench.enforce_policy(policy, strangers=(Binding("who-is-this", STRANGER),))
    return bench


FROM_STRANGER = {
    "udp": udp(4, "vm5", "vm1"),
    "udp-v6": udp(6, "vm5", "vm1"),
    "arp": arp("vm5", "vm1"),
    "arp-to-one": arp("vm5", "vm1", to=mac(1)),
    "neighbour-solicitation": solicit("vm5", address(6, 1), mac(5)),
    "dhcp": dhcp_discover("vm5"),
    "router-advertisement": router_advertisement("vm5"),
    "unfiltered": udp(4, "vm5", "vm4"),
    "outside": udp(4, "vm5", "outside"),
    "broadcast": udp(4, "vm5", "vm1", to=BROADCAST, dst="255.255.255.255"),
    "tagged": ether("vm5", "vm1") / Dot1Q(vlan=3) / udp(4, "vm5", "vm1").payload,
    "other": ether("vm5", "vm1", type=0x88CC),
}


@pytest.mark.parametrize("name", FROM_STRANGER)
def test_an_unknown_port_sends_nothing(strange: Bench, name: str) -> None:
    strange.sends("stranger", FROM_STRANGER[name]).stopped(by=Reason.UNKNOWN_PORT)


@pytest.mark.parametrize("sender", ["uplink", "vm1", "vm4"])
def test_an_unknown_port_gets_nothing(strange: Bench, sender: str) -> None:
    """Neither floods nor broadcasts; and the switch learns nothing from what it tries to send."""
    strange.sends("stranger", udp(4, "vm5", "vm1"))
    who = "outside" if sender == "uplink" else sender
    for frame in (
        udp(4, who, "vm5"),
        udp(6, who, "vm5"),
        arp(who, "vm5"),
        arp(who, "vm5", to=mac(5)),
        advertise(who, address(6, int(who[2:])) if who.startswith("vm") else FAR[6], to=mac(5)),
        ip(4, who, "vm5", to=BROADCAST, dst="255.255.255.255"),
        router_advertisement("outside") if sender == "uplink" else arp(who, "vm5", op=2),
        dhcp_offer(who, "vm5"),
    ):
        strange.sends(sender, frame).spares("stranger")


def test_it_passes_once_the_policy_knows_it(strange: Bench, family: int) -> None:
    strange.sends("stranger", udp(family, "vm5", "vm1")).stopped(by=Reason.UNKNOWN_PORT)
    policy = policy_of([vm(1, "open"), vm(5, "open")], {})
    strange.enforce_policy(policy)
    strange.sends("vm5", udp(family, "vm5", "vm1")).reaches("vm1")
    strange.enforce_policy(policy_of([vm(1, "open")], {}), strangers=(Binding("vm5", 5),))
    strange.sends("vm5", udp(family, "vm5", "vm1", dport=9)).stopped(by=Reason.UNKNOWN_PORT)


def test_a_port_that_nobody_has_looked_at_sends_nothing(bench: Bench, family: int) -> None:
    """Plugged a moment ago: no flow speaks of it yet."""
    bench.enforce(vm(1, "open"))
    bench.sends("stranger", udp(family, "vm5", "vm1")).stopped(by=Reason.UNKNOWN_PORT)
    bench.sends("stranger", arp("vm5", "vm1")).stopped(by=Reason.UNKNOWN_PORT)
    bench.sends("uplink", udp(family, "outside", "vm1")).reaches("vm1")


# --- Port security off ----------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(bench: Bench) -> Bench:
    """vm4 and vm5 are unfiltered; vm1 has no rules for what comes in, vm2 accepts ping, vm3 all."""
    bench.enforce(
        vm(1, "talker"),
        vm(2, "pingable"),
        vm(3, "open"),
        unfiltered(4),
        unfiltered(5),
        pingable=[ingress(4, "icmp"), ingress(6, "icmp")],
    )
    return bench


ANYTHING: dict[str, Packet] = {
    "foreign-mac": udp(4, "vm4", "vm5", mac="52:54:00:00:00:aa"),
    "foreign-address": udp(4, "vm4", "vm5", src=FAR[4]),
    "router-advertisement": router_advertisement("vm4", to=mac(5)),
    "dhcp-server": dhcp_offer("vm4", "vm5"),
    "arp-for-another": arp("vm4", "vm5", psrc=FAR[4], to=mac(5)),
    "other-ethertype": ether("vm4", "vm5", type=0x88CC),
    "bad-flags": tcp(4, "vm4", "vm5", flags="SF"),
}


@pytest.mark.parametrize("name", ANYTHING)
def test_unfiltered_means_unfiltered(mixed: Bench, name: str) -> None:
    mixed.sends("vm5", udp(4, "vm5", "outside"))  # so that the switch knows where vm5 is
    mixed.sends("vm4", ANYTHING[name]).reaches("vm5")


def test_unfiltered_ports_take_part_in_flooding(mixed: Bench) -> None:
    mixed.sends("uplink", udp(4, "outside", "vm5", to="52:54:00:00:00:aa")).reaches("vm4", "vm5")
    mixed.sends("vm4", udp(4, "vm4", "vm5", to="52:54:00:00:00:aa")).reaches("vm5", "uplink")


def test_an_unfiltered_port_and_the_outside(mixed: Bench, family: int) -> None:
    mixed.sends("vm4", tcp(family, "vm4", "outside")).spares("vm1", "vm2", "vm3")
    mixed.sends("uplink", tcp(family, "outside", "vm4")).reaches("vm4")


def test_others_are_filtered_towards_it(mixed: Bench, family: int) -> None:
    mixed.sends("vm4", udp(family, "vm4", "vm1")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    mixed.sends("vm4", ping(family, "vm4", "vm2")).reaches("vm2")
    mixed.sends("vm4", udp(family, "vm4", "vm2")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    mixed.sends("vm2", udp(family, "vm2", "vm4")).stopped(by=Reason.DENIED)
    mixed.sends("vm1", udp(family, "vm1", "vm4")).spares("vm2", "vm3")


def test_others_guards_hold_towards_it(mixed: Bench, family: int) -> None:
    mixed.sends("vm3", udp(family, "vm3", "vm4", src=address(family, 5))).stopped(by=Reason.SPOOF)
    mixed.sends("vm3", udp(family, "vm3", "vm4", mac=mac(4))).stopped(by=Reason.SPOOF)
    mixed.sends("vm3", arp("vm3", "vm4", psrc=address(4, 5))).stopped(by=Reason.SPOOF)


def test_spoofing_another_from_it_passes_no_rules(mixed: Bench, family: int) -> None:
    """It may lie about who it is; then it is judged as who it says it is, and never more."""
    mixed.sends("vm4", udp(family, "vm3", "vm1")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    mixed.sends("vm4", udp(family, "vm1", "vm1")).spares("vm1", "vm2", "vm3")
    mixed.sends("vm4", pong(family, "outside", "vm1")).spares("vm1", "vm2", "vm3")


def test_stealing_the_place_in_the_mac_table(mixed: Bench, family: int) -> None:
    """The switch learns vm3's MAC at vm4, but what is for an endpoint never goes by what was learned."""
    mixed.sends("vm4", udp(family, "vm4", "outside", mac=mac(3)))
    mixed.sends("vm4", arp("vm4", "outside", mac=mac(3), hwsrc=mac(3)))
    mixed.sends("uplink", udp(family, "outside", "vm3")).reaches("vm3")
    mixed.sends("vm1", udp(family, "vm1", "vm3")).reaches("vm3")
    mixed.sends("vm3", udp(family, "vm3", "outside")).spares("vm1", "vm2")


FOREIGN = "52:54:00:00:00:aa"


def test_what_was_learned_before_port_security_leads_there_no_more(bench: Bench, family: int) -> None:
    """It sent from any MAC while it might.  Now it has rules, and what is for that MAC would pass them by."""
    bench.enforce(unfiltered(4), vm(1, "open"))
    bench.sends("vm4", udp(family, "vm4", "outside", mac=FOREIGN)).spares("vm1")
    bench.sends("uplink", udp(family, "outside", "vm4", to=FOREIGN)).reaches("vm4")
    bench.change(vm(4, "nothing"), vm(1, "open"))
    bench.sends("uplink", udp(family, "outside", "vm4", to=FOREIGN)).spares("vm4")
    bench.sends("vm1", udp(family, "vm1", "vm4", to=FOREIGN)).spares("vm4")


def test_what_was_learned_before_the_filter_leads_there_no_more(bench: Bench, family: int) -> None:
    """The same where the bridge was a plain switch until now."""
    bench.enforce(vm(4, "nothing"), vm(1, "open"))
    bench.switch.switch.ofctl("replace-flows", BRIDGE, "-", stdin="priority=0,actions=NORMAL\n")
    bench.sends("vm4", udp(family, "vm4", "outside", mac=FOREIGN))
    bench.switch.switch.ofctl("del-flows", BRIDGE)
    bench.install()
    bench.sends("uplink", udp(family, "outside", "vm4", to=FOREIGN)).spares("vm4")
    bench.sends("vm1", udp(family, "vm1", "vm4", to=FOREIGN)).spares("vm4")


def test_port_security_goes_and_comes_back(bench: Bench, family: int) -> None:
    """Its guard and its rules hold again at once, also for connections that began while there were none."""
    filtered, open_ = (vm(4, "nothing"), vm(1, "open")), (unfiltered(4), vm(1, "open"))
    out, forged = udp(family, "vm4", "vm1"), udp(family, "vm4", "vm1", mac=FOREIGN, sport=30001)
    in_ = udp(family, "vm1", "vm4", sport=30002)
    bench.enforce(*filtered)
    for _ in range(2):
        bench.sends("vm4", out).stopped(by=Reason.DENIED)
        bench.sends("vm4", forged).stopped(by=Reason.SPOOF)
        bench.sends("vm1", in_).stopped(by=Reason.DENIED)
        bench.sends("vm4", udp(family, "vm4", "vm1", sport=53, dport=30002)).stopped(by=Reason.DENIED)
        bench.change(*open_)
        bench.sends("vm4", out).reaches("vm1")
        bench.sends("vm4", forged).reaches("vm1")
        assert "vm4" in bench.sends("vm1", in_).out
        bench.change(*filtered)


def test_broadcast_from_it_is_filtered(mixed: Bench) -> None:
    to_all: Json = {"to": BROADCAST, "dst": "255.255.255.255"}
    mixed.sends("vm4", udp(4, "vm4", "vm1", **to_all)).reaches("vm3", "vm5", "uplink")
    everybody: Json = {"to": multicast_mac(ALL_NODES), "dst": ALL_NODES}
    mixed.sends("vm4", udp(6, "vm4", "vm1", **everybody)).reaches("vm3", "vm5", "uplink")
    mixed.sends("vm4", ping(6, "vm4", "vm1", **everybody)).reaches("vm2", "vm3", "vm5", "uplink")


def test_it_cannot_send_into_another_network(bench: Bench) -> None:
    """A tag that it puts on by itself: its port is an access port of its VLAN."""
    policy = policy_of([vm(1, "open"), vm(2, "open"), unfiltered(4)], {})
    bench.enforce_policy(policy, vlans={"vm1": 7, "vm2": 8, "vm4": 7}, uplinks=(Uplink(UPLINK),))
    plain = udp(4, "vm4", "vm2")
    bench.sends("vm4", udp(4, "vm4", "vm1")).reaches("vm1")
    bench.sends("vm4", plain).spares("vm2")
    for tag in (Dot1Q(vlan=8), Dot1Q(vlan=7), Dot1Q(vlan=8) / Dot1Q(vlan=7)):
        bench.sends("vm4", ether("vm4", "vm2") / tag / plain.payload).spares("vm1", "vm2")
