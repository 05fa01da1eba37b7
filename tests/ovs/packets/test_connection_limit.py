"""One network cannot fill the table of connections: at its limit nothing new begins there, and nothing else changes."""

from __future__ import annotations

import pytest
from scapy.packet import Packet

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.pipeline import COMMITTED, LEFT, UNTAGGED, Reason, Table
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.model import Policy
from tests.conftest import WITH_VETHS
from tests.ovs.packets.bench import Bench, Json, Outcome, ingress, policy_of, vm
from tests.ovs.packets.frames import cut, tcp, udp
from tests.veth import make_switch

pytestmark = pytest.mark.ovs

LIMIT = 3
RED = 7
SERVER = [ingress(family, protocol, 80) for family in (4, 6) for protocol in ("tcp", "udp")]
# Of somebody else, who has a limit of his own.
FOREIGN_ZONE = 20000
HIGH, GATE = 40000, 901


def policy(*networks: Json) -> Policy:
    """vm1 asks vm2; vm3 asks vm4 in another network."""
    red = {"network_id": "red"}
    ports = [vm(1, "talker"), vm(2, "server", "talker"), vm(3, "talker", **red), vm(4, "open", **red)]
    return policy_of(ports, {"server": SERVER}, networks=networks)


@pytest.fixture
def limited(bench: Bench) -> Bench:
    bench.enforce_policy(policy({"connection_limit": LIMIT}), vlans={"vm3": RED, "vm4": RED})
    return bench


def question(family: int, number: int, sender: str = "vm1", receiver: str = "vm2") -> Packet:
    return udp(family, sender, receiver, dport=80, sport=30000 + number)


def answer(family: int, number: int) -> Packet:
    return udp(family, "vm2", "vm1", dport=30000 + number, sport=80)


def fill(bench: Bench, family: int) -> None:
    for number in range(LIMIT):
        bench.sends("vm1", question(family, number)).reaches("vm2")


def refused(outcome: Outcome, table: Table | None = None) -> None:
    """It came out nowhere.  The kernel drops what it cannot commit there and then, before a flow can count it."""
    if WITH_VETHS:
        outcome.reaches()
    else:
        outcome.stopped(by=Reason.LIMIT, table=table)


def limits(bench: Bench) -> dict[int, int]:
    lines = [line for line in bench.switch.call("dpctl/ct-get-limits").splitlines() if line.startswith("zone=")]
    parts = [dict(part.split("=") for part in line.split(",")) for line in lines]
    return {int(part["zone"]): int(part["limit"]) for part in parts}


@pytest.mark.parametrize("make", [udp, tcp])
def test_nothing_new_begins_at_the_limit(limited: Bench, family: int, make: type) -> None:
    """Between endpoints, out and in: where it could not be remembered it does not pass, for no answer could."""
    fill(limited, family)
    assert len(limited.connections()) == LIMIT
    refused(limited.sends("vm1", make(family, "vm1", "vm2", dport=80, sport=40000)), COMMITTED)
    refused(limited.sends("vm1", make(family, "vm1", "outside")), LEFT)
    refused(limited.sends("uplink", make(family, "outside", "vm2", dport=80)), COMMITTED)
    assert len(limited.connections()) == LIMIT
    limited.switch.forget()
    limited.sends("vm1", make(family, "vm1", "vm2", dport=80)).reaches("vm2")


def test_what_lives_lives_on_at_the_limit(limited: Bench, family: int) -> None:
    fill(limited, family)
    refused(limited.sends("vm1", question(family, LIMIT)))
    for number in range(LIMIT):
        limited.sends("vm2", answer(family, number)).reaches("vm1")
        limited.sends("vm1", question(family, number)).reaches("vm2")


def test_fragments_at_the_limit(limited: Bench, family: int) -> None:
    large = udp(family, "vm1", "vm2", dport=80, sport=40000) / (b"x" * 3000)
    first, *rest = cut(large, 1280, 2560)
    limited.sends("vm1", first)
    for fragment in rest:
        outcome = limited.sends("vm1", fragment)
    assert len(outcome.out["vm2"]) == LIMIT
    fill_after = [question(family, number) for number in range(LIMIT - 1)]
    for frame in fill_after:
        limited.sends("vm1", frame).reaches("vm2")
    large.sport = 40001
    for fragment in cut(large, 1280, 2560):
        assert not limited.sends("vm1", fragment).out


def test_other_networks_have_their_own(limited: Bench, family: int) -> None:
    fill(limited, family)
    refused(limited.sends("vm1", question(family, LIMIT)))
    for number in range(LIMIT + 2):
        limited.sends("vm3", question(family, number, "vm3", "vm4")).reaches("vm4")


def test_an_endpoint_that_connections_do_not_name(dummy_ovs: PrivateSwitch, family: int) -> None:
    """From ofport 32768 on nothing marks a connection that an endpoint accepted; it passes all the same."""
    switch = make_switch(dummy_ovs, (HIGH, GATE), bridge=f"br-high{family}")
    bindings = Bindings((Binding("vm2", HIGH),), (Uplink(GATE),))
    switch.program(compile_policy(policy_of([vm(2, "server")], {"server": SERVER}), bindings))
    assert switch.send(GATE, bytes(question(family, 0, "outside", "vm2"))).keys() == {HIGH}
    assert switch.send(GATE, bytes(udp(family, "outside", "vm2", dport=81))) == {}
    switch.switch.vsctl("del-br", switch.bridge)


def test_limits_are_set_repaired_and_lifted(limited: Bench) -> None:
    """Like a flow: what differs is drift, what is no longer wanted goes; those of other zones are left alone."""
    assert limits(limited) == {UNTAGGED: LIMIT}
    by_hand = {UNTAGGED: 9, FOREIGN_ZONE: 5, 8: 1}
    limited.switch.call("dpctl/ct-set-limits", *(f"zone={zone},limit={limit}" for zone, limit in by_hand.items()))
    limited.install()
    assert limits(limited) == {UNTAGGED: LIMIT, FOREIGN_ZONE: 5}
    limited.policy = policy({"connection_limit": 7}, {"id": "red", "connection_limit": 8})
    limited.install()
    assert limits(limited) == {UNTAGGED: 7, RED: 8, FOREIGN_ZONE: 5}
    limited.policy = policy()
    limited.install()
    assert limits(limited) == {FOREIGN_ZONE: 5}
    limited.switch.call("dpctl/ct-del-limits", f"zone={FOREIGN_ZONE}")
