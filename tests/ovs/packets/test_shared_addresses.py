"""Addresses that move between machines, as keepalived does it: vm2 is one of two, the other is on another host."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import Reason
from tests.ovs.packets.bench import Bench, egress, ingress, mac, vm
from tests.ovs.packets.frames import ROUTER_MAC, arp, mac_of, multicast_mac, udp

pytestmark = pytest.mark.ovs

SHARED, SHARED6 = "10.0.0.200", "2001:db8::200"
VIRTUAL = "00:00:5e:00:01:01"
VRRP, VRRP_GROUP = 112, "224.0.0.18"
SERVICE = [ingress(family, "udp", 53) for family in (4, 6)]


def keepalived(bench: Bench, pair_mac: str | None) -> None:
    """The pair of the shared address has this MAC, or the port's own."""
    pairs = [(SHARED, pair_mac or mac(2)), (SHARED6, pair_mac or mac(2))]
    vrrp = [rule(4, VRRP) for rule in (ingress, egress)]
    bench.enforce(vm(1, "talker"), vm(2, "service", "vrrp", pairs=pairs), service=SERVICE, vrrp=vrrp)


def shared(family: int) -> str:
    return SHARED if family == 4 else SHARED6


def advertisement(name: str, **over: str) -> Packet:
    source = {"vm2": "10.0.0.2", "outside": "10.0.0.9"}[name]
    frame = Ether(src=over.get("mac", mac_of(name)), dst=multicast_mac(VRRP_GROUP))
    return frame / IP(src=source, dst=VRRP_GROUP, ttl=255, proto=VRRP) / Raw(bytes(20))


def test_an_address_that_moves_with_the_macs_of_its_machines(bench: Bench, family: int) -> None:
    """As keepalived does by default: the master is known by its own MAC, wherever it is."""
    keepalived(bench, None)
    bench.sends("vm1", udp(family, "vm1", "outside", dst=shared(family), to=ROUTER_MAC)).reaches("uplink")
    bench.sends("vm2", arp("vm2", psrc=SHARED, pdst=SHARED)).reaches("vm1", "uplink")
    bench.sends("vm1", udp(family, "vm1", "vm2", dst=shared(family), sport=30001)).reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", dst=shared(family), dport=54)).stopped(by=Reason.DENIED)
    bench.sends("vm1", arp("vm1", psrc=SHARED, pdst=SHARED)).stopped(by=Reason.SPOOF)


def test_advertisements_of_the_machines(bench: Bench) -> None:
    keepalived(bench, None)
    bench.sends("vm2", advertisement("vm2")).reaches("uplink")
    bench.sends("uplink", advertisement("outside")).reaches("vm2")


def test_a_virtual_mac_is_taken_to_be_here(bench: Bench, family: int) -> None:
    """A documented limit: what is sent to it never leaves the host, so it must not be used between hosts."""
    keepalived(bench, VIRTUAL)
    bench.sends("uplink", advertisement("outside", mac=VIRTUAL)).reaches("vm2")
    frame = udp(family, "vm1", "vm2", dst=shared(family), to=VIRTUAL)
    bench.sends("vm1", frame).reaches("vm2")
    denied = udp(family, "vm1", "vm2", dst=shared(family), to=VIRTUAL, dport=54)
    bench.sends("vm1", denied).stopped(by=Reason.DENIED)
