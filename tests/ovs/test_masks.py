"""Senders who fill the datapath with masks (CVE-2019-25076): they come to no more than is promised, and are seen."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from ovsfw.cli.compile import assume
from ovsfw.compiler import Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.stats import stats
from ovsfw.crowding import Crowding
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.switch import megaflows
from tests.dummy import DummySwitch
from tests.ovs.packets import bench

pytestmark = pytest.mark.ovs

# As many lengths of prefixes as there are, and ranges that fall badly on powers of two.
PREFIXES = [f"{10 + length}.128.0.1/{length}" for length in range(1, 33)]
RULES = [
    *(
        bench.rule(direction, 4, "tcp", 1000 + number, remote_ip_prefix=prefix)
        for number, prefix in enumerate(PREFIXES)
        for direction in ("ingress", "egress")
    ),
    *(
        bench.ingress(4, protocol, ports, remote_ip_prefix="10.0.0.0/8")
        for protocol in ("tcp", "udp")
        for ports in ((1, 65532), (1025, 40001), (5, 9))
    ),
    bench.ingress(4, "tcp", 22, remote_group_id="all"),
    bench.ingress(6, remote_group_id="all"),
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    document = {
        "security_groups": [{"id": "all", "rules": RULES}],
        "ports": [bench.vm(number, "all") for number in bench.MACHINES],
    }
    return parse(json.dumps(document), "masks")


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch, policy: Policy) -> DummySwitch:
    dummies = DummySwitch(dummy_ovs, bench.OFPORTS)
    here = Bindings(assume(policy).endpoints, (Uplink(bench.UPLINK),))
    dummies.program(compile_policy(policy, here))
    # Nothing that was cached goes before it is counted.
    dummy_ovs.vsctl("set", "open_vswitch", ".", "other_config:max-idle=100000")
    return dummies


def addresses() -> Iterator[str]:
    """Each differs in another bit from one that a rule names."""
    for prefix in PREFIXES:
        named = int(ip_address(prefix.partition("/")[0]))
        for bit in range(32):
            found = ip_address(named ^ 1 << bit)
            if not (found.is_multicast or found.is_loopback or found.is_reserved or found.is_unspecified):
                yield str(found)


def hostile(sender: str) -> Iterator[Packet]:
    """Ever other far ends and ports; from outside also ever other sources."""
    chosen = random.Random(4)  # noqa: S311
    for far in addresses():
        for bit in range(0, 16, 3):
            port = chosen.choice((1001, 22, 1025)) ^ 1 << bit
            if sender == "uplink":
                packet = Ether(src="02:00:00:00:00:01", dst=bench.mac(1)) / IP(src=far, dst=bench.address(4, 1))
            else:
                packet = Ether(src=bench.mac(1), dst=bench.mac(2)) / IP(src=bench.address(4, 1), dst=far)
            yield packet / chosen.choice((TCP, UDP))(sport=chosen.randrange(1, 65536), dport=port)
    yield from ordinary(sender)


def ordinary(sender: str) -> Iterator[Packet]:
    ether = Ether(src=bench.mac(1) if sender == "vm1" else "02:00:00:00:00:01", dst=bench.mac(2))
    yield ether / ARP(hwsrc=ether.src, psrc=bench.address(4, 1), pdst=bench.address(4, 2))
    yield ether / IP(src=bench.address(4, 1), dst=bench.address(4, 2)) / ICMP()
    yield ether / IPv6(src=bench.address(6, 1), dst=bench.address(6, 2)) / ICMPv6EchoRequest()
    yield ether / IPv6(src=bench.address(6, 1), dst=bench.address(6, 2)) / TCP(dport=22)
    yield Ether(src=ether.src, dst="ff:ff:ff:ff:ff:ff") / IP(src=bench.address(4, 1), dst="255.255.255.255") / UDP()


def flood(switch: DummySwitch, sender: str) -> None:
    switch.call("revalidator/purge")
    packets = [bytes(packet) for packet in hostile(sender)]
    number = bench.NUMBERS[sender]
    before = switch.received(number)
    switch.receive(number, *packets)
    assert switch.received(number) - before == len(packets)


@pytest.mark.parametrize("sender", ["vm1", "uplink"])
def test_a_hostile_sender_comes_to_no_more_masks_than_promised(
    switch: DummySwitch, policy: Policy, sender: str
) -> None:
    flood(switch, sender)
    found = asyncio.run(megaflows.read(switch.switch.rundir / f"{switch.bridge}.mgmt", 0))
    promised = stats(policy, assume(policy), compile_policy(policy, assume(policy))).masks
    assert 1 < found.masks <= promised
    assert found.masks <= found.flows


def test_the_alarm_is_raised_once_and_taken_back(switch: DummySwitch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    crowding = Crowding(switch.switch.rundir / f"{switch.bridge}.mgmt", 20)
    flood(switch, "uplink")
    asyncio.run(crowding.look())
    asyncio.run(crowding.look())
    assert crowding.seen is not None
    assert crowding.warning.startswith(f"{crowding.seen.masks} masks in the datapath of {switch.bridge}, over the bud")
    assert [record.levelname for record in caplog.records if "masks" in record.message] == ["WARNING"]
    switch.call("revalidator/purge")
    asyncio.run(crowding.look())
    assert not crowding.warning
    assert "within the budget of 20 again" in caplog.records[-1].message
