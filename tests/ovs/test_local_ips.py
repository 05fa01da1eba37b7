"""A second address of a port of Neutron, for the machines of its host: filtered as the port's own is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ovsfw.compiler.hook import LOCAL_IPS
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.neutron.engine import Engine
from ovsfw.neutron.local_ips import MOST, flows
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.ovs.packets.bench import address, mac
from tests.ovs.packets.frames import ping, pong, tcp, udp

pytestmark = pytest.mark.ovs
VLAN, LOCAL = 7, "10.0.0.200"
# What the agent does with all that a VM sends.
TO_LOCAL_IPS = "table=0,priority=150,ip,ct_state=+trk,in_port={},actions=resubmit(,31)"
FORWARD, BACK = {"sport": 30000, "dport": 80}, {"sport": 80, "dport": 30000}


@pytest.fixture(scope="module")
def host(dummy_ovs: PrivateSwitch) -> DummySwitch:
    """Four machines of one network."""
    switch = DummySwitch(dummy_ovs, (1, 2, 3, 4))
    for number in (1, 2, 3, 4):
        dummy_ovs.vsctl("set", "interface", f"p{number}", f"external_ids:iface-id=port-{number}")
    switch.tag((1, 2, 3, 4), VLAN)
    return switch


@pytest.fixture(autouse=True)
def engine(host: DummySwitch) -> Iterator[Engine]:
    """The first serves TCP 80, UDP 53 and ICMP to the others, of which the last is not filtered; it may ask nobody."""
    host.switch.ofctl("del-flows", BRIDGE)
    add_agent_flows(host.switch, BRIDGE)
    of_agent = [TO_LOCAL_IPS.format(number) for number in (1, 2, 3, 4)]
    of_agent += map(as_text, flows(VLAN, LOCAL, address(4, 1), mac(1)))
    host.switch.ofctl("add-flows", BRIDGE, "-", stdin="\n".join(of_agent))
    made = Engine(BRIDGE, host.switch.db)
    source, any_v4 = made.source, {"ethertype": "IPv4"}
    served = ({"protocol": "tcp", **ports(80)}, {"protocol": "udp", **ports(53)}, {"protocol": "icmp"})
    source.take_rules("web", [{"direction": "ingress", **any_v4, **each} for each in served])
    source.take_rules("app", [{"direction": "egress", **any_v4}])
    for number, group in ((1, "web"), (2, "app"), (3, "app")):
        source.take_port(port(number, security_groups=[group]))
    source.take_port(port(4, port_security_enabled=False))
    assert made.flush()
    host.forget()
    host.sent()
    yield made
    made.close()


def as_text(flow: dict[str, Any]) -> str:
    """As Neutron's bridge writes it."""
    fields = dict(flow)
    return f"{fields.pop('proto')},{','.join(f'{key}={value}' for key, value in fields.items())}"


def ports(number: int) -> dict[str, int]:
    return {"port_range_min": number, "port_range_max": number}


def port(number: int, **more: Any) -> dict[str, Any]:
    return {"device": f"port-{number}", "mac_address": mac(number), "fixed_ips": [address(4, number)], **more}


def passes(host: DummySwitch, sender: int, frame: Packet) -> dict[int, Packet]:
    """What comes out, by port."""
    return {number: Ether(packet) for number, (packet,) in host.send(sender, bytes(frame)).items()}


def learned(host: DummySwitch) -> list[str]:
    lines = host.switch.ofctl("dump-flows", BRIDGE, "table=140").splitlines()
    return [line for line in lines if "actions=" in line and "learn" not in line]


@pytest.mark.parametrize("client", [2, 4], ids=["filtered", "unfiltered"])
def test_a_connection_is_answered_from_the_local_ip(host: DummySwitch, client: int) -> None:
    name = f"vm{client}"
    (asked,) = passes(host, client, tcp(4, name, "vm1", **FORWARD, flags="S", seq=99, dst=LOCAL)).values()
    assert (asked.dst, asked[IP].dst, asked[IP].src) == (mac(1), address(4, 1), address(4, client))
    answer = passes(host, 1, tcp(4, "vm1", name, **BACK, flags="SA", seq=999, ack=100))
    assert {number: packet[IP].src for number, packet in answer.items()} == {client: LOCAL}
    assert TCP(bytes(answer[client][TCP])).chksum == tcp_checksum(answer[client])
    again = passes(host, client, tcp(4, name, "vm1", **FORWARD, flags="A", seq=100, ack=1000, dst=LOCAL))
    assert set(again) == {1}


def tcp_checksum(frame: Packet) -> int:
    """As it should be."""
    copy = Ether(bytes(frame))
    del copy[TCP].chksum
    return int(Ether(bytes(copy))[TCP].chksum)


def test_so_are_datagrams_and_echo_requests(host: DummySwitch) -> None:
    assert set(passes(host, 2, udp(4, "vm2", "vm1", dst=LOCAL))) == {1}
    assert passes(host, 1, udp(4, "vm1", "vm2", sport=53, dport=30000))[2][IP].src == LOCAL
    assert set(passes(host, 2, ping(4, "vm2", "vm1", dst=LOCAL))) == {1}
    assert passes(host, 1, pong(4, "vm1", "vm2"))[2][IP].src == LOCAL


def test_what_no_rule_accepts_does_not_pass_and_teaches_nothing(host: DummySwitch) -> None:
    assert passes(host, 2, tcp(4, "vm2", "vm1", sport=30000, dport=81, dst=LOCAL)) == {}
    assert learned(host) == []
    assert passes(host, 1, tcp(4, "vm1", "vm2", sport=81, dport=30000)) == {}


def test_who_sends_as_somebody_else_teaches_nothing(host: DummySwitch) -> None:
    """Else anyone could have the answers to others come from a wrong address."""
    forged = tcp(4, "vm2", "vm1", **FORWARD, flags="S", dst=LOCAL)
    assert passes(host, 3, forged) == {}
    assert learned(host) == []
    assert set(passes(host, 2, forged)) == {1}
    assert len(learned(host)) == 1


def test_connections_to_the_port_s_own_address_are_as_before(host: DummySwitch) -> None:
    assert set(passes(host, 2, tcp(4, "vm2", "vm1", **FORWARD, flags="S", seq=99, dst=LOCAL))) == {1}
    beside = {"sport": 30001, "dport": 80}
    assert set(passes(host, 2, tcp(4, "vm2", "vm1", **beside, flags="S", seq=99))) == {1}
    answer = passes(host, 1, tcp(4, "vm1", "vm2", sport=80, dport=30001, flags="SA", seq=999, ack=100))
    assert answer[2][IP].src == address(4, 1)


def test_an_established_connection_is_cut_with_its_rule(host: DummySwitch, engine: Engine) -> None:
    going_on: dict[str, Any] = {**FORWARD, "flags": "A", "seq": 100, "ack": 1000, "dst": LOCAL}
    assert set(passes(host, 2, tcp(4, "vm2", "vm1", **FORWARD, flags="S", seq=99, dst=LOCAL))) == {1}
    assert set(passes(host, 1, tcp(4, "vm1", "vm2", **BACK, flags="SA", seq=999, ack=100))) == {2}
    assert set(passes(host, 2, tcp(4, "vm2", "vm1", **going_on))) == {1}
    engine.source.take_rules("web", [])
    assert engine.flush()
    host.call("revalidator/purge")
    assert passes(host, 2, tcp(4, "vm2", "vm1", **going_on)) == {}


def test_who_opens_connections_without_end_fills_no_memory(host: DummySwitch) -> None:
    """Those that are remembered go on; the limit is made small here."""
    limit = f"limit={MOST}"
    smaller = [as_text(flow) for flow in flows(VLAN, LOCAL, address(4, 1), mac(1)) if flow["table"] == LOCAL_IPS]
    assert all(limit in flow for flow in smaller)
    host.switch.ofctl("add-flows", BRIDGE, "-", stdin="\n".join(smaller).replace(limit, "limit=3"))
    host.forget()
    for sport in range(30000, 30010):
        passes(host, 2, tcp(4, "vm2", "vm1", sport=sport, dport=80, flags="S", seq=99, dst=LOCAL))
    assert len(learned(host)) == 3
    answer = passes(host, 1, tcp(4, "vm1", "vm2", **BACK, flags="SA", seq=999, ack=100))
    assert answer[2][IP].src == LOCAL
