"""One packet for many: each endpoint gets it once if its rules accept it, whoever sent it.

vm1 sends; vm2 accepts everything, vm3 UDP 5353, vm4 UDP 5353 from vm1 alone, vm5 nothing, vm6 has no groups.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import UDP

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.pipeline import Reason
from ovsfw.lab.vswitch import PrivateSwitch
from tests.conftest import WITH_VETHS
from tests.dummy import DummySwitch
from tests.ovs.packets.bench import Bench, Json, address, ingress, policy_of, vm
from tests.ovs.packets.frames import (
    ALL_NODES,
    BROADCAST,
    FRAGMENT,
    advertise,
    arp,
    cut,
    dhcp_offer,
    multicast_mac,
    ping,
    router_advertisement,
    solicit,
    udp,
)

pytestmark = pytest.mark.ovs

MDNS = 5353
EVERY = ("vm2", "vm3", "vm4", "vm5", "vm6")
MACHINES = [vm(1, "talker"), vm(2, "open"), vm(3, "mdns"), vm(4, "friendly"), vm(5, "nothing"), vm(6)]
GROUPS = {
    "mdns": [ingress(family, "udp", MDNS) for family in (4, 6)],
    "friendly": [ingress(family, "udp", MDNS, remote_group_id="talker") for family in (4, 6)],
}


@pytest.fixture
def crowd(bench: Bench) -> Bench:
    bench.enforce_policy(policy_of(MACHINES, GROUPS))
    return bench


@pytest.fixture
def stateless_crowd(bench: Bench) -> Bench:
    """The same, but vm3 and vm4 are filtered without conntrack."""
    bench.enforce_policy(policy_of(MACHINES, GROUPS, stateless=["mdns", "friendly"]))
    return bench


TO_MANY = {
    4: ["255.255.255.255", "10.0.0.255", "224.0.0.251", "239.1.2.3"],
    6: [ALL_NODES, "ff02::fb", "ff05::1:3"],
}
ALL_TARGETS = [(family, target) for family, targets in TO_MANY.items() for target in targets]


def to_many(target: str) -> Json:
    whole = target.endswith(".255")
    return {"dst": target, "to": BROADCAST if whole else multicast_mac(target)}


@pytest.mark.parametrize(("version", "target"), ALL_TARGETS)
def test_from_a_neighbour(crowd: Bench, version: int, target: str) -> None:
    shout = udp(version, "vm1", "vm1", dport=MDNS, **to_many(target))
    crowd.sends("vm1", shout).reaches("vm2", "vm3", "vm4", "uplink")
    other = udp(version, "vm1", "vm1", dport=99, **to_many(target))
    crowd.sends("vm1", other).reaches("vm2", "uplink")


@pytest.mark.parametrize(("version", "target"), ALL_TARGETS)
def test_from_outside(crowd: Bench, version: int, target: str) -> None:
    crowd.sends("uplink", udp(version, "outside", "vm1", dport=MDNS, **to_many(target))).reaches("vm2", "vm3")
    crowd.sends("uplink", udp(version, "outside", "vm1", dport=99, **to_many(target))).reaches("vm2")


@pytest.mark.parametrize(("version", "target"), ALL_TARGETS)
def test_without_conntrack(stateless_crowd: Bench, version: int, target: str) -> None:
    shout = udp(version, "vm1", "vm1", dport=MDNS, **to_many(target))
    stateless_crowd.sends("vm1", shout).reaches("vm2", "vm3", "vm4", "uplink")
    shout = udp(version, "outside", "vm1", dport=MDNS, **to_many(target))
    stateless_crowd.sends("uplink", shout).reaches("vm2", "vm3")


def test_what_comes_back_is_what_was_sent(crowd: Bench, family: int) -> None:
    """Nothing is rewritten on the way, and everybody gets the same."""
    shout = udp(family, "vm1", "vm1", dport=MDNS, **to_many(TO_MANY[family][0]))
    received = crowd.sends("vm1", shout).reaches("vm2", "vm3", "vm4", "uplink")
    assert set(received) == {bytes(shout)}


def test_the_sender_needs_a_rule(crowd: Bench, family: int) -> None:
    crowd.sends("vm3", udp(family, "vm3", "vm1", dport=MDNS, **to_many(TO_MANY[family][0]))).stopped(by=Reason.DENIED)


def test_the_sender_must_be_itself(crowd: Bench, family: int) -> None:
    lie = udp(family, "vm1", "vm1", dport=MDNS, **{"src": address(family, 2), **to_many(TO_MANY[family][0])})
    crowd.sends("vm1", lie).stopped(by=Reason.SPOOF)


def test_again_and_again(crowd: Bench, family: int) -> None:
    """What conntrack knows after the first makes no difference to the second."""
    shout = udp(family, "vm1", "vm1", dport=MDNS, **to_many(TO_MANY[family][0]))
    for _ in range(3):
        crowd.sends("vm1", shout).reaches("vm2", "vm3", "vm4", "uplink")


def test_a_ping_of_all(crowd: Bench) -> None:
    crowd.sends("vm1", ping(6, "vm1", "vm1", **to_many(ALL_NODES))).reaches("vm2", "uplink")


def test_unicast_in_a_broadcast_frame(crowd: Bench, family: int) -> None:
    """For vm5 by its address, but to everybody by Ethernet: each endpoint's own rules decide."""
    crowd.sends("vm1", udp(family, "vm1", "vm5", dport=99, to=BROADCAST)).reaches("vm2", "uplink")


def test_multicast_in_a_unicast_frame(crowd: Bench, family: int) -> None:
    target = TO_MANY[family][-1]
    crowd.sends("vm1", udp(family, "vm1", "vm3", dst=target, dport=MDNS)).reaches("vm3")
    crowd.sends("vm1", udp(family, "vm1", "vm5", dst=target, dport=MDNS)).stopped(by=Reason.DENIED)


def test_an_answer_to_a_broadcast_needs_a_rule(crowd: Bench, family: int) -> None:
    """It comes from an address that was not asked, so it belongs to no connection, as with any conntrack."""
    crowd.sends("vm1", udp(family, "vm1", "vm1", dport=99, **to_many(TO_MANY[family][0])))
    answer = udp(family, "vm2", "vm1", sport=99, dport=30000)
    crowd.sends("vm2", answer).stopped(by=Reason.DENIED)


# --- What every network needs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["vm1", "uplink"])
def test_arp_and_neighbour_discovery_reach_all(crowd: Bench, sender: str) -> None:
    who, others = ("outside", ("vm1", *EVERY)) if sender == "uplink" else ("vm1", (*EVERY, "uplink"))
    source = {"src": "2001:db8:ff::9"} if who == "outside" else {}
    crowd.sends(sender, arp(who, "vm5")).reaches(*others)
    crowd.sends(sender, solicit(who, address(6, 5), **source)).reaches(*others)
    crowd.sends(sender, advertise(who, source.get("src", address(6, 1)), **source)).reaches(*others)


def test_servers_of_the_network_reach_all(crowd: Bench) -> None:
    crowd.sends("uplink", router_advertisement("outside")).reaches("vm1", *EVERY)
    offer = dhcp_offer("outside", "vm5", dst="255.255.255.255", to=BROADCAST)
    crowd.sends("uplink", offer).reaches("vm1", *EVERY)


def test_a_neighbour_is_no_server(crowd: Bench) -> None:
    crowd.sends("vm1", router_advertisement("vm1")).stopped(by=Reason.NO_SERVER)
    offer = dhcp_offer("vm1", "vm5", dst="255.255.255.255", to=BROADCAST)
    crowd.sends("vm1", offer).stopped(by=Reason.NO_SERVER)


# --- Large ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["vm1", "uplink"])
def test_a_broadcast_in_fragments_reaches_nobody_more(crowd: Bench, family: int, sender: str) -> None:
    """Later fragments have no ports, so rules with ports admit none of them; who accepts everything gets them all.

    The kernel's conntrack puts an endpoint's datagram together, so there rules with ports are asked about the whole.
    """
    who = "outside" if sender == "uplink" else sender
    shout = udp(family, who, "vm1", dport=MDNS, **to_many(TO_MANY[family][0])) / bytes(2 * FRAGMENT)
    del shout[UDP].len
    del shout[UDP].chksum
    found: dict[str, int] = {}
    for part in cut(shout, FRAGMENT):
        for name, frames in crowd.sends(sender, part).out.items():
            found[name] = found.get(name, 0) + len(frames)
    assert found.pop("vm2") == 2
    assert found.pop("uplink", 2) == 2
    assert not found.keys() & {"vm1", "vm5", "vm6"}
    assert all(count < 2 for count in found.values()) or (WITH_VETHS and sender == "vm1")


# --- Many endpoints -------------------------------------------------------------------------------------------------

MANY, LISTS, GATE = 500, 300, 900
FIRST = 101


# They need dummies: a veth for each takes too long where the kernel's datapath is emulated, and has no other flows.
DUMMIES = pytest.mark.skipif(WITH_VETHS, reason="needs hundreds of ports, or bridges of the dummy datapath")


@pytest.fixture(scope="module")
def town(dummy_ovs: PrivateSwitch) -> DummySwitch:
    """500 endpoints in one network, with 300 different lists of seven groups; every other list accepts UDP 53.

    To ask them all takes more resubmits than Open vSwitch allows for one packet.
    """
    numbers = range(FIRST, FIRST + MANY)
    groups: dict[str, list[Json]] = {f"g{n}": [ingress(4, "tcp", 1000 + n)] for n in range(LISTS)}
    for n in range(0, LISTS, 2):
        groups[f"g{n}"].append(ingress(4, "udp", 53))
    shared = ["nothing", "talker", *(f"shared{n}" for n in range(4))]
    groups.update({name: [ingress(4, "tcp", 80)] for name in shared[2:]})
    ports = [
        vm(
            0,
            *shared,
            f"g{n % LISTS}",
            id=f"vm{n}",
            mac_address=f"52:54:00:01:{n >> 8:02x}:{n & 255:02x}",
            fixed_ips=[],
        )
        for n in numbers
    ]
    made = DummySwitch(dummy_ovs, (*numbers, GATE), bridge="br-town")
    bindings = Bindings(tuple(Binding(f"vm{n}", n) for n in numbers), (Uplink(GATE),))
    made.program(compile_policy(policy_of(ports, groups), bindings))
    return made


@DUMMIES
def test_one_broadcast_to_500_endpoints(town: DummySwitch) -> None:
    """It arrives at every endpoint that accepts it, and Open vSwitch's limit of 4,096 resubmits is not met."""
    shout = bytes(udp(4, "outside", "vm1", to=BROADCAST, dst="255.255.255.255", dport=53))
    out = town.send(GATE, shout)
    accepting = {n for n in range(FIRST, FIRST + MANY) if n % LISTS % 2 == 0}
    assert set(out) == accepting
    assert all(len(frames) == 1 for frames in out.values())
    nothing = town.send(GATE, bytes(udp(4, "outside", "vm1", to=BROADCAST, dst="255.255.255.255", dport=54)))
    assert nothing == {}
    whole = f"in_port={GATE},udp,dl_dst={BROADCAST},nw_src=203.0.113.9,nw_dst=255.255.255.255,udp_dst=53"
    trace = town.call("ofproto/trace", "br-town", whole)
    assert "Too many resubmits" not in trace
    log = (town.switch.rundir / "ovs-vswitchd.log").read_text()
    assert "resubmit" not in log


@DUMMIES
def test_one_arp_request_to_500_endpoints(town: DummySwitch) -> None:
    out = town.send(GATE, bytes(arp("outside", "vm1")))
    assert len(out) == MANY
    assert all(len(frames) == 1 for frames in out.values())


@DUMMIES
def test_the_limit_of_resubmits_would_be_noticed(dummy_ovs: PrivateSwitch) -> None:
    """What goes over the limit is said in the trace and in the log, where the test above looks."""
    made = DummySwitch(dummy_ovs, (901,), bridge="br-loop")
    lines = "".join(f"table={n},actions={','.join([f'resubmit(,{n + 1})'] * 20)}\n" for n in range(1, 4))
    made.switch.ofctl("add-flows", "br-loop", "-", stdin=f"table=0,actions=resubmit(,1)\n{lines}table=4,actions=drop\n")
    assert "Too many resubmits" in made.call("ofproto/trace", "br-loop", "in_port=901")
    made.send(901, bytes(arp("vm1", "vm2")))
    assert "resubmit" in (made.switch.rundir / "ovs-vswitchd.log").read_text()
