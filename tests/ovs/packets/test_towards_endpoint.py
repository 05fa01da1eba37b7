"""What reaches an endpoint that has no rules at all, and what never does: vm2 has none, vm3 accepts everything."""

from __future__ import annotations

import pytest
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6MLQuery, ICMPv6MLReport, ICMPv6ND_RS
from scapy.layers.l2 import LLC, STP, Dot1AD, Dot1Q, Dot3
from scapy.packet import Packet, Raw

from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.pipeline import INGRESS_VERDICT, Reason
from tests.ovs.packets.bench import UPLINK, UPLINK2, Bench, address, mac, policy_of, unfiltered, vm
from tests.ovs.packets.frames import (
    ALL_NODES,
    BROADCAST,
    FAR,
    ROUTER_LOCAL,
    ROUTER_MAC,
    advertise,
    arp,
    dhcp_discover,
    dhcp_offer,
    dhcpv6_reply,
    dhcpv6_solicit,
    ether,
    ip,
    multicast_mac,
    ping,
    redirect,
    router_advertisement,
    solicit,
    tcp,
    udp,
)

pytestmark = pytest.mark.ovs

BOTH = ("vm2", "vm3")


@pytest.fixture
def pair(bench: Bench) -> Bench:
    bench.enforce(vm(1, "open"), vm(2, "nothing"), vm(3, "open"))
    return bench


def reaches_endpoints(bench: Bench, frame: Packet, *names: str) -> None:
    """Sent from outside."""
    bench.sends("uplink", frame).reaches(*names)


# --- What every network needs ---------------------------------------------------------------------------------------


def test_router_advertisement_from_the_network(pair: Bench) -> None:
    reaches_endpoints(pair, router_advertisement("outside"), "vm1", *BOTH)
    reaches_endpoints(pair, router_advertisement("outside", dst=address(6, 2), to=mac(2)), "vm2")


@pytest.mark.parametrize("to_all", [False, True], ids=["unicast", "broadcast"])
def test_dhcp_reply_from_the_network(pair: Bench, *, to_all: bool) -> None:
    if to_all:
        offer = dhcp_offer("outside", "vm2", dst="255.255.255.255", to=BROADCAST)
        reaches_endpoints(pair, offer, "vm1", *BOTH)
    else:
        reaches_endpoints(pair, dhcp_offer("outside", "vm2"), "vm2")


@pytest.mark.parametrize("kind", [DHCP6_Reply, DHCP6_Advertise])
def test_dhcpv6_reply_from_the_network(pair: Bench, kind: type[Packet]) -> None:
    reaches_endpoints(pair, dhcpv6_reply("outside", "vm2", kind, src=ROUTER_LOCAL), "vm2")


def test_arp_from_the_network(pair: Bench) -> None:
    router = {"psrc": "10.0.0.254"}
    reaches_endpoints(pair, arp("outside", "vm2", **router), "vm1", *BOTH)
    reaches_endpoints(pair, arp("outside", "vm2", op=2, to=mac(2), hwdst=mac(2), **router), "vm2")


def test_neighbour_discovery_from_the_network(pair: Bench) -> None:
    router = {"src": ROUTER_LOCAL}
    reaches_endpoints(pair, solicit("outside", address(6, 2), ROUTER_MAC, **router), "vm1", *BOTH)
    reaches_endpoints(
        pair, solicit("outside", address(6, 2), ROUTER_MAC, dst=address(6, 2), to=mac(2), **router), "vm2"
    )
    reaches_endpoints(pair, advertise("outside", ROUTER_LOCAL, ROUTER_MAC, **router), "vm1", *BOTH)


def test_multicast_listener_query_from_the_network(pair: Bench) -> None:
    query = ip(6, "outside", "vm2", src=ROUTER_LOCAL, dst=ALL_NODES, to=multicast_mac(ALL_NODES), hlim=1)
    reaches_endpoints(pair, query / ICMPv6MLQuery(), "vm1", *BOTH)


def test_what_is_not_needed_needs_a_rule(pair: Bench) -> None:
    """Redirects, reports, router solicitations, requests to DHCP servers: vm2 gets none, vm1 and vm3 have rules."""
    to_all = {"dst": ALL_NODES, "to": multicast_mac(ALL_NODES)}
    for frame in (
        ip(6, "outside", "vm2", src=ROUTER_LOCAL, **to_all) / ICMPv6MLReport(),
        ip(6, "outside", "vm2", src=ROUTER_LOCAL, **to_all) / ICMPv6ND_RS(),
        dhcp_discover("outside"),
        dhcpv6_solicit("outside", src=ROUTER_LOCAL),
    ):
        pair.sends("uplink", frame).spares("vm2")
    pair.sends("uplink", redirect("outside", "vm2", src=ROUTER_LOCAL)).spares("vm2")
    pair.sends("uplink", ping(6, "outside", "vm2")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)


@pytest.mark.parametrize("ports", [(67, 69), (66, 68), (547, 545), (548, 546), (68, 67), (546, 547)])
def test_almost_a_dhcp_reply(pair: Bench, ports: tuple[int, int]) -> None:
    family = 4 if ports[0] < 100 else 6
    frame = ip(family, "outside", "vm2") / UDP(sport=ports[0], dport=ports[1]) / Raw(b"x" * 50)
    pair.sends("uplink", frame).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)


def test_almost_neighbour_discovery(pair: Bench) -> None:
    """With a code it is none (RFC 4861 section 7.1), so it needs a rule, and conntrack calls it invalid."""
    for frame in (
        solicit("outside", address(6, 2), ROUTER_MAC, code=1, dst=address(6, 2), to=mac(2)),
        advertise("outside", FAR[6], ROUTER_MAC, code=1, dst=address(6, 2), to=mac(2)),
    ):
        pair.sends("uplink", frame).stopped(by=(Reason.INVALID, Reason.DENIED))


def test_neighbours_on_this_host_reach_each_other_for_discovery_alone(pair: Bench, family: int) -> None:
    pair.sends("vm1", arp("vm1", "vm2", to=mac(2))).reaches("vm2")
    pair.sends("vm1", solicit("vm1", address(6, 2), mac(1), dst=address(6, 2), to=mac(2))).reaches("vm2")
    pair.sends("vm1", udp(family, "vm1", "vm2")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)


# --- Other ethertypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [mac(3), BROADCAST])
@pytest.mark.parametrize("kind", [0x88CC, 0x8847, 0x8863, 0x888E, 0x88F7, 0x8035, 0x0842, 0xFFFF])
def test_unknown_ethertypes_from_outside(pair: Bench, kind: int, target: str) -> None:
    """vm3 accepts everything, and does not get these."""
    frame = ether("outside", "vm3", dst=target, type=kind) / Raw(b"\x01" * 50)
    outcome = pair.sends("uplink", frame)
    outcome.stopped(by=Reason.NOT_DELIVERED if target == mac(3) else Reason.MISS)


@pytest.mark.parametrize("target", [mac(3), BROADCAST, "01:80:c2:00:00:00"])
def test_llc_from_outside(pair: Bench, target: str) -> None:
    frame = Dot3(src=ROUTER_MAC, dst=target) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()
    pair.sends("uplink", frame).spares("vm1", *BOTH)


@pytest.mark.parametrize("tag", [Dot1Q(vlan=5), Dot1AD(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=0)])
def test_tags_from_outside(pair: Bench, tag: Packet) -> None:
    """The endpoints are in the network without a tag, whatever comes with a tag is for another one."""
    frame = ether("outside", "vm3") / tag / udp(4, "outside", "vm3").payload
    pair.sends("uplink", frame).spares("vm1", *BOTH)


def test_a_priority_tag_from_outside_is_no_vlan(pair: Bench, family: int) -> None:
    """IEEE 802.1Q clause 6.9: VLAN 0 says nothing but a priority; the packet is filtered and delivered without it."""
    frame = ether("outside", "vm3") / Dot1Q(vlan=0, prio=5) / udp(family, "outside", "vm3").payload
    (received,) = pair.sends("uplink", frame).reaches("vm3")
    assert received == bytes(udp(family, "outside", "vm3"))
    frame = ether("outside", "vm2") / Dot1Q(vlan=0, prio=5) / udp(family, "outside", "vm2").payload
    pair.sends("uplink", frame).stopped(by=Reason.DENIED)


# --- Unknown unicast ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["uplink", "vm1"])
def test_unknown_unicast_is_not_flooded_into_endpoints(pair: Bench, family: int, sender: str) -> None:
    frame = udp(family, "outside" if sender == "uplink" else sender, "vm3", to="52:54:00:00:00:aa")
    reached = () if sender == "uplink" else ("uplink",)
    pair.sends(sender, frame).reaches(*reached)
    pair.sends("uplink", udp(family, "outside", "vm3")).reaches("vm3")


@pytest.mark.parametrize("kind", ["arp", "neighbour-discovery", "router-advertisement"])
def test_discovery_for_a_foreign_mac_is_not_delivered(pair: Bench, kind: str) -> None:
    stranger = "52:54:00:00:00:aa"
    frame = {
        "arp": arp("outside", "vm3", to=stranger),
        "neighbour-discovery": solicit("outside", address(6, 3), ROUTER_MAC, to=stranger),
        "router-advertisement": router_advertisement("outside", to=stranger),
    }[kind]
    pair.sends("uplink", frame).spares("vm1", *BOTH)


def test_a_foreign_mac_that_the_switch_has_learned(bench: Bench, family: int) -> None:
    """vm1 may send as another MAC, so the switch learns it there; what is for it is still filtered."""
    virtual = "00:00:5e:00:01:01"
    pairs = [(address(version, 1), virtual) for version in (4, 6)]
    bench.enforce(vm(1, "talker", pairs=pairs), vm(2, "open"))
    bench.sends("vm1", udp(family, "vm1", "outside", mac=virtual, dport=99)).reaches("uplink")
    assert virtual in bench.switch.call("fdb/show", "br-int")
    bench.sends("uplink", tcp(family, "outside", "vm1", to=virtual)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    bench.sends("vm2", tcp(family, "vm2", "vm1", to=virtual)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)


def test_learning_behind_the_uplink_takes_no_endpoint_away(pair: Bench, family: int) -> None:
    """Somebody outside sends with vm3's MAC: what is for vm3 goes to vm3 all the same."""
    pair.sends("uplink", udp(family, "outside", "vm1", mac=mac(3))).reaches("vm1")
    pair.sends("vm1", udp(family, "vm1", "vm3", dport=99)).reaches("vm3")
    pair.sends("uplink", udp(family, "outside", "vm3", dport=98)).reaches("vm3")


def test_a_spoofed_frame_teaches_the_switch_nothing(bench: Bench, family: int) -> None:
    bench.enforce(unfiltered(4), vm(1, "open"))
    bench.sends("vm1", udp(family, "vm1", "vm4", mac=mac(4))).stopped(by=Reason.SPOOF)
    assert mac(4) not in bench.switch.call("fdb/show", "br-int")


def test_an_endpoint_gets_each_frame_once(pair: Bench, family: int) -> None:
    """Also after the switch has learned where it is."""
    pair.sends("vm3", udp(family, "vm3", "outside", dport=9)).reaches("uplink")
    pair.sends("uplink", udp(family, "outside", "vm3")).reaches("vm3")
    pair.sends("vm1", udp(family, "vm1", "vm3")).reaches("vm3")


# --- Who may send what needs no rule, where the network names them --------------------------------------------------

TRUSTED_ROUTER, ROGUE = ROUTER_LOCAL, "fe80::bad"
SERVERS = {4: "10.0.0.250", 6: "fe80::5e:5e"}
ROGUES = {4: "10.0.0.251", 6: ROGUE}


def enforce_trust(bench: Bench, **network: list[str]) -> None:
    """vm3 accepts everything; vm5 is not filtered."""
    ports = [vm(1, "open"), vm(2, "nothing"), vm(3, "open"), unfiltered(5)]
    bench.enforce_policy(policy_of(ports, {}, networks=[network]))


@pytest.fixture
def trusting(bench: Bench) -> Bench:
    enforce_trust(bench, dhcp_servers=[*SERVERS.values(), "10.0.0.248/31"], routers=[TRUSTED_ROUTER])
    return bench


def reply(version: int, source: str, **over: str) -> Packet:
    over["src"] = source
    if version == 4:
        return dhcp_offer("outside", "vm3", **over)
    return dhcpv6_reply("outside", "vm3", DHCP6_Reply, **over)


def test_replies_of_trusted_servers_alone(trusting: Bench, family: int) -> None:
    """Not even a machine that accepts everything gets those of others; from outside and from a machine unfiltered."""
    trusting.sends("uplink", reply(family, SERVERS[family])).reaches("vm3")
    trusting.sends("vm5", reply(family, SERVERS[family], mac=mac(5))).reaches("vm3")
    trusting.sends("uplink", reply(family, ROGUES[family])).stopped(by=Reason.UNTRUSTED)
    trusting.sends("vm5", reply(family, ROGUES[family], mac=mac(5))).stopped(by=Reason.UNTRUSTED)


def test_a_prefix_of_trusted_servers(trusting: Bench) -> None:
    for last, passes in ((247, False), (248, True), (249, True), (251, False)):
        outcome = trusting.sends("uplink", reply(4, f"10.0.0.{last}"))
        assert bool(outcome.out) is passes, last


def test_broadcast_replies_of_trusted_servers_alone(trusting: Bench, family: int) -> None:
    """Machines without port security get what is sent to all, as ever."""
    every = {4: ("255.255.255.255", BROADCAST), 6: (ALL_NODES, multicast_mac(ALL_NODES))}
    dst, to = every[family]
    trusting.sends("uplink", reply(family, SERVERS[family], dst=dst, to=to)).reaches("vm1", *BOTH, "vm5")
    trusting.sends("uplink", reply(family, ROGUES[family], dst=dst, to=to)).reaches("vm5")


def test_advertisements_of_trusted_routers_alone(trusting: Bench) -> None:
    trusting.sends("uplink", router_advertisement("outside", src=TRUSTED_ROUTER)).reaches("vm1", *BOTH, "vm5")
    trusting.sends("uplink", router_advertisement("outside", src=ROGUE)).reaches("vm5")
    to_one = {"dst": address(6, 3), "to": mac(3)}
    trusting.sends("uplink", router_advertisement("outside", src=TRUSTED_ROUTER, **to_one)).reaches("vm3")
    trusting.sends("uplink", router_advertisement("outside", src=ROGUE, **to_one)).stopped(by=Reason.UNTRUSTED)


def test_trust_is_about_nothing_else(trusting: Bench, family: int) -> None:
    """Other packets of the rogue meet the rules, and what is not named is from anybody."""
    trusting.sends("uplink", udp(family, "outside", "vm3", src=ROGUES[family])).reaches("vm3")
    enforce_trust(trusting, routers=[TRUSTED_ROUTER])
    trusting.sends("uplink", reply(family, ROGUES[family])).reaches("vm3")


def test_nobody_is_trusted(bench: Bench, family: int) -> None:
    enforce_trust(bench, dhcp_servers=[], routers=[])
    bench.sends("uplink", reply(family, SERVERS[family])).stopped(by=Reason.UNTRUSTED)
    bench.sends("uplink", router_advertisement("outside", src=TRUSTED_ROUTER)).reaches("vm5")


def test_each_network_trusts_its_own(bench: Bench, family: int) -> None:
    """vm3 and vm4 are in VLANs of their own; vm6 shares one with vm4, and there what both networks say holds."""
    other = {4: "10.0.0.200", 6: "fe80::200"}[family]
    networks = [{"id": "a", "dhcp_servers": [SERVERS[family]]}, {"id": "b", "dhcp_servers": [other]}]
    ports = [vm(3, network_id="a"), vm(4, network_id="b"), vm(6, network_id="c")]
    policy = policy_of(ports, {}, networks=networks)
    uplinks = (Uplink(UPLINK, VlanMode.ACCESS, 7), Uplink(UPLINK2, VlanMode.ACCESS, 8))
    bench.enforce_policy(policy, vlans={"vm3": 7, "vm4": 8, "vm6": 8}, uplinks=uplinks)
    make = dhcp_offer if family == 4 else dhcpv6_reply
    for place, machine, trusted, rogue in (
        ("uplink", "vm3", SERVERS[family], other),
        ("uplink2", "vm4", other, SERVERS[family]),
        ("uplink2", "vm6", other, SERVERS[family]),
    ):
        bench.sends(place, make("outside", machine, src=trusted)).reaches(machine)
        bench.sends(place, make("outside", machine, src=rogue)).stopped(by=Reason.UNTRUSTED)
