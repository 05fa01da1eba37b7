"""Trunk ports (VLAN-aware VMs) as Neutron wires them: each sub-port has its own groups and its own guard.

The VM hangs in a bridge of its own; a pair of patch ports leads from there to br-int for the parent port and for each
sub-port, with the sub-port's VLAN of the VM as the tag on one side and its network's local VLAN on the other
(https://docs.openstack.org/neutron/latest/contributor/internals/openvswitch_agent.html, trunk bridges).
"""

from __future__ import annotations

import asyncio

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from ovsfw.compiler import Bindings, compile_policy
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.switch.ovsdb import Ovsdb
from tests.dummy import BRIDGE, DummySwitch
from tests.ovs.packets.bench import Json, egress, ingress, mac, policy_of, vm

pytestmark = pytest.mark.ovs

TRUNK, VM, UPLINK = "tbr-1", 1, 99
# By port of the policy: the VLAN inside the VM, and the local VLAN of its network; the parent is untagged in the VM.
WIRES = {"parent": (0, 1), "web": (101, 2), "mute": (102, 3)}
PEER = "52:54:00:00:00:77"


def address(family: int, name: str) -> str:
    number = [*WIRES].index(name)
    return f"10.{number}.0.1" if family == 4 else f"2001:db8:{number}::1"


def port(name: str, *groups: str) -> Json:
    """All have the MAC address of the VM's one card, as VLAN devices inside a machine do."""
    fixed = [{"ip_address": address(family, name)} for family in (4, 6)]
    return vm(1, *groups, id=name, network_id=name, fixed_ips=fixed)


def both_ways(number: int) -> list[Json]:
    return [rule(family, "tcp", number) for rule in (ingress, egress) for family in (4, 6)]


class TrunkedVm:
    """The VM's card, and the rest of the world behind a trunk of br-int."""

    def __init__(self, ovs: PrivateSwitch) -> None:
        self.inside, self.host = DummySwitch(ovs, (VM,), bridge=TRUNK), DummySwitch(ovs, (UPLINK,))
        ovs.ofctl("add-flow", TRUNK, "actions=NORMAL")
        for name, (inner, local) in WIRES.items():
            self._patch(f"t-{name}", TRUNK, f"i-{name}", inner)
            self._patch(f"i-{name}", BRIDGE, f"t-{name}", local, f"external_ids:iface-id={name}")
        ports = [port("parent", "ssh"), port("web", "http"), port("mute", "nothing")]
        policy = policy_of(ports, {"ssh": both_ways(22), "http": both_ways(80)})
        self.host.program(compile_policy(policy, bindings(ovs)))

    def _patch(self, name: str, bridge: str, peer: str, tag: int, *more: str) -> None:
        interface = ("--", "set", "interface", name, "type=patch", f"options:peer={peer}", *more)
        self.host.switch.vsctl("add-port", bridge, name, *([f"tag={tag}"] if tag else []), *interface)

    def sends(self, frame: Packet) -> list[bytes]:
        """What comes out of the uplink."""
        self.host.sent()
        self.inside.send(VM, bytes(frame))
        return self.host.sent().get(UPLINK, [])

    def gets(self, frame: Packet) -> list[bytes]:
        """What comes out of the VM's card, of what the uplink brings."""
        self.inside.sent()
        self.host.send(UPLINK, bytes(frame))
        return self.inside.sent().get(VM, [])


def bindings(ovs: PrivateSwitch) -> Bindings:
    async def read() -> Bindings:
        ovsdb = Ovsdb()
        await ovsdb.connect(ovs.db)
        try:
            return ovsdb.snapshot(BRIDGE)
        finally:
            ovsdb.close()

    return asyncio.run(read())


@pytest.fixture(scope="module")
def wired(dummy_ovs: PrivateSwitch) -> TrunkedVm:
    return TrunkedVm(dummy_ovs)


@pytest.fixture
def trunked(wired: TrunkedVm) -> TrunkedVm:
    wired.host.forget()
    return wired


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def tagged(frame: Packet, *vlans: int) -> Packet:
    outer = Ether(src=frame.src, dst=frame.dst)
    for vlan in vlans:
        outer /= Dot1Q(vlan=vlan)
    return outer / frame.payload


def to_vm(family: int, name: str, dport: int) -> Packet:
    far = "192.0.2.1" if family == 4 else "2001:db8:ff::1"
    inner = (IP if family == 4 else IPv6)(src=far, dst=address(family, name))
    return Ether(src=PEER, dst=mac(1)) / inner / TCP(sport=30000, dport=dport, flags="S")


def from_vm(family: int, name: str, dport: int) -> Packet:
    far = "192.0.2.1" if family == 4 else "2001:db8:ff::1"
    inner = (IP if family == 4 else IPv6)(src=address(family, name), dst=far)
    return Ether(src=mac(1), dst=PEER) / inner / TCP(sport=30000, dport=dport, flags="S")


def vlan_of(frame: bytes) -> int:
    packet = Ether(frame)
    return int(packet[Dot1Q].vlan) if Dot1Q in packet else 0


@pytest.mark.parametrize("name", WIRES)
def test_each_sub_port_gets_what_its_own_groups_accept(trunked: TrunkedVm, family: int, name: str) -> None:
    inner, local = WIRES[name]
    accepted = {"parent": 22, "web": 80, "mute": 0}[name]
    for dport in (22, 80):
        out = trunked.gets(tagged(to_vm(family, name, dport), local))
        assert [vlan_of(frame) for frame in out] == ([inner] if dport == accepted else [])


@pytest.mark.parametrize("name", WIRES)
def test_each_sub_port_sends_what_its_own_groups_accept(trunked: TrunkedVm, family: int, name: str) -> None:
    inner, local = WIRES[name]
    accepted = {"parent": 22, "web": 80, "mute": 0}[name]
    for dport in (22, 80):
        frame = from_vm(family, name, dport)
        out = trunked.sends(tagged(frame, inner) if inner else frame)
        assert [vlan_of(frame) for frame in out] == ([local] if dport == accepted else [])


def test_a_sub_port_sends_only_as_itself(trunked: TrunkedVm, family: int) -> None:
    """Not with the address of the parent, nor with that of another sub-port, though the MAC is the same."""
    for name in ("parent", "mute"):
        assert trunked.sends(tagged(from_vm(family, name, 80), WIRES["web"][0])) == []
    for name in ("web", "mute"):
        assert trunked.sends(from_vm(family, name, 22)) == []
    assert len(trunked.sends(tagged(from_vm(family, "web", 80), WIRES["web"][0]))) == 1
    assert len(trunked.sends(from_vm(family, "parent", 22))) == 1


@pytest.mark.parametrize("sender", [mac(2), "01:00:5e:00:00:01"], ids=["another", "a-group"])
def test_a_sub_port_sends_with_the_mac_of_the_card_alone(trunked: TrunkedVm, family: int, sender: str) -> None:
    """Nothing before br-int looks at it: the bridge of the trunk passes every MAC on, as the good twin shows."""
    for name, dport in (("web", 80), ("parent", 22)):
        inner, local = WIRES[name]
        forged, good = from_vm(family, name, dport), from_vm(family, name, dport)
        forged.src = sender
        assert trunked.sends(tagged(forged, inner) if inner else forged) == []
        assert [vlan_of(frame) for frame in trunked.sends(tagged(good, inner) if inner else good)] == [local]


def test_arp_of_a_sub_port(trunked: TrunkedVm) -> None:
    """Not for the parent's address, nor with another MAC on the outside or inside."""
    own, other = mac(1), mac(2)
    for speaks_as, outer, inner, passes in (
        ("web", own, own, True),
        ("parent", own, own, False),
        ("web", other, own, False),
        ("web", own, other, False),
    ):
        claim = Ether(src=outer, dst="ff:ff:ff:ff:ff:ff") / ARP(
            hwsrc=inner, psrc=address(4, speaks_as), pdst="10.1.0.9"
        )
        assert bool(trunked.sends(tagged(claim, WIRES["web"][0]))) is passes


@pytest.mark.parametrize("vlans", [(103,), (1,), (101, 2), (101, 102)])
def test_other_tags_lead_nowhere(trunked: TrunkedVm, family: int, vlans: tuple[int, ...]) -> None:
    """A VLAN without sub-port, a local VLAN of the host, and a second tag inside one that is good."""
    assert trunked.sends(tagged(from_vm(family, "web", 80), *vlans)) == []
    assert trunked.sends(tagged(from_vm(family, "parent", 22), *vlans)) == []


def test_sub_ports_do_not_meet(trunked: TrunkedVm, family: int) -> None:
    """What one has asked opens nothing for another that has the same MAC address."""
    assert trunked.sends(tagged(from_vm(family, "web", 80), WIRES["web"][0]))
    answer = to_vm(family, "web", 30000)
    answer[TCP].sport, answer[TCP].flags = 80, "SA"
    assert trunked.gets(tagged(answer, WIRES["mute"][1])) == []
    assert trunked.gets(tagged(answer, WIRES["parent"][1])) == []
    assert [vlan_of(frame) for frame in trunked.gets(tagged(answer, WIRES["web"][1]))] == [WIRES["web"][0]]
