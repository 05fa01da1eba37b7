"""What random policies do not reach: fragments, ports plugged late, and who remembers what; real packets throughout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.ids import rule_hints
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Family, format_mac
from ovsfw.policy.model import Claim, Direction, Policy, Port, PortRange, Rule, SecurityGroup
from tests.dummy import DummySwitch
from tests.strategies import address, mac

pytestmark = pytest.mark.ovs
UPLINK, LATE = 99, 7
EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS
PAYLOAD, MTU = 8000, 1400


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, (1, 2, 3, LATE, UPLINK))


def group(*, stateful: bool) -> SecurityGroup:
    """Anything out; UDP 53 in."""
    rules = []
    for family in Family:
        rules.append(Rule(f"out-{int(family)}", EGRESS, family))
        rules.append(Rule(f"dns-{int(family)}", INGRESS, family, 17, PortRange(53, 53)))
        # Answers need a rule where there is no state.
        rules.append(Rule(f"back-{int(family)}", INGRESS, family, 17, PortRange(1000, 1000)))
    return SecurityGroup("g", stateful=stateful, rules=tuple(rules))


def policy(*, stateful: bool = True, groups: tuple[str, ...] = ("g",)) -> Policy:
    def port(number: int) -> Port:
        return Port(f"port-{number}", mac(number), tuple(address(family, number) for family in Family), (), groups)

    return Policy({f"port-{n}": port(n) for n in (1, 2, 3)}, {"g": group(stateful=stateful)})


def plugged(*numbers: int, uplink: Uplink | None = None) -> Bindings:
    return Bindings(tuple(Binding(f"port-{n}", n) for n in numbers), (uplink or Uplink(UPLINK),))


def ether(sender: int, receiver: int) -> Packet:
    return Ether(src=format_mac(mac(sender)), dst=format_mac(mac(receiver)))


def datagram(family: Family, sender: int, receiver: int, ports: tuple[int, int], size: int = PAYLOAD) -> list[Packet]:
    """A UDP datagram in fragments, as frames."""
    source, destination = str(address(family, sender)), str(address(family, receiver))
    udp = UDP(sport=ports[0], dport=ports[1]) / Raw(b"x" * size)
    if family is Family.IPV4:
        parts = fragment(IP(src=source, dst=destination, id=sum(ports)) / udp, MTU)
    else:
        parts = fragment6(IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(id=sum(ports)) / udp, MTU)
    assert size < MTU or len(parts) > 1
    return [ether(sender, receiver) / part for part in parts]


def arrived(switch: DummySwitch, came: int, frames: list[Packet]) -> dict[int, int]:
    """How many frames came out of each port."""
    out: dict[int, int] = {}
    for frame in frames:
        for ofport, sent in switch.send(came, bytes(frame)).items():
            out[ofport] = out.get(ofport, 0) + len(sent)
    return out


@pytest.mark.parametrize("stateful", [True, False], ids=["stateful", "stateless"])
@pytest.mark.parametrize("family", Family)
def test_fragments_pass_as_the_first_one_does(switch: DummySwitch, family: Family, stateful: bool) -> None:  # noqa: FBT001
    switch.program(compile_policy(policy(stateful=stateful), plugged(1, 2)))
    question = datagram(family, 1, 2, (1000, 53))
    assert arrived(switch, 1, question) == {2: len(question)}, "new"
    assert arrived(switch, 1, question) == {2: len(question)}, "the same again"
    answer = datagram(family, 2, 1, (53, 1000))
    assert arrived(switch, 2, answer) == {1: len(answer)}, "the answer"
    backwards = datagram(family, 1, 2, (1001, 53))[::-1]
    assert arrived(switch, 1, backwards) == {2: len(backwards)}, "last fragment first"
    assert arrived(switch, 1, datagram(family, 1, 2, (1000, 54))) == {}, "no rule"


@pytest.mark.parametrize("family", Family)
def test_fragments_pass_to_and_from_outside(switch: DummySwitch, family: Family) -> None:
    switch.program(compile_policy(policy(), plugged(1)))
    out = datagram(family, 1, 3, (1000, 4444))
    assert arrived(switch, 1, out)[UPLINK] == len(out)
    back = datagram(family, 3, 1, (4444, 1000))
    assert arrived(switch, UPLINK, back) == {1: len(back)}
    new = datagram(family, 3, 1, (1000, 53))
    assert arrived(switch, UPLINK, new) == {1: len(new)}
    assert arrived(switch, UPLINK, datagram(family, 3, 1, (1001, 54))) == {}


def test_a_datagram_is_not_completed_at_another_endpoint(switch: DummySwitch) -> None:
    switch.program(compile_policy(policy(), plugged(1, 2, 3)))
    first, *later = datagram(Family.IPV4, 1, 2, (1000, 53))
    for frame in later:
        frame[Ether].dst = format_mac(mac(3))
    assert arrived(switch, 1, [first, *later]) == {}
    assert arrived(switch, 1, [*later, first]) == {}


@pytest.mark.parametrize("count", [1, 2])
def test_later_fragments_alone_pass_nowhere(switch: DummySwitch, count: int) -> None:
    switch.program(compile_policy(policy(), plugged(1, 2)))
    assert arrived(switch, 1, datagram(Family.IPV4, 1, 2, (1002, 53))[-count:]) == {}


def test_a_connection_carries_its_rules(switch: DummySwitch) -> None:
    switch.program(compile_policy(policy(), plugged(1, 2)))
    assert arrived(switch, 1, datagram(Family.IPV4, 1, 2, (1000, 53), 100)) == {2: 1}
    entry = switch.call("dpctl/dump-conntrack").strip()
    assert f"mark={2 << 17 | 1 << 2 | 2}" in entry
    label = int(entry.split("labels=")[1].split(",")[0].split()[0], 16)
    hints = rule_hints(policy())
    assert (hints[label & 0xFFFFFFFF].id, hints[label >> 32].id) == ("out-4", "dns-4")


def test_what_only_one_side_accepts_is_not_remembered(switch: DummySwitch) -> None:
    switch.program(compile_policy(policy(), plugged(1, 2)))
    assert arrived(switch, 1, datagram(Family.IPV4, 1, 2, (1000, 54), 100)) == {}
    assert switch.call("dpctl/dump-conntrack") == ""


def test_stateless_groups_leave_no_trace_in_conntrack(switch: DummySwitch) -> None:
    switch.program(compile_policy(policy(stateful=False), plugged(1, 2)))
    assert arrived(switch, 1, datagram(Family.IPV4, 1, 2, (1000, 53), 100)) == {2: 1}
    assert switch.call("dpctl/dump-conntrack") == ""


def test_an_endpoint_plugged_later_does_not_inherit_connections_past_its_rules(switch: DummySwitch) -> None:
    """While port 2 is elsewhere, port 1 talks to it; here, port 2 has no rule for that."""
    switch.program(compile_policy(policy(), plugged(1)))
    question, answer = datagram(Family.IPV4, 1, 2, (1000, 54), 100), datagram(Family.IPV4, 2, 1, (54, 1000), 100)
    assert arrived(switch, 1, question)[UPLINK] == 1
    assert arrived(switch, UPLINK, answer) == {1: 1}
    switch.keep_connections(compile_policy(policy(), plugged(1, 2)))
    assert f"mark={1 << 2 | 2}" in switch.call("dpctl/dump-conntrack")
    assert arrived(switch, 1, question) == {}


def test_a_connection_of_one_endpoint_opens_no_other(switch: DummySwitch) -> None:
    """Port 3 lets everything in.  Whoever sends to port 2's address but to port 3's MAC opens nothing at port 2."""
    before = policy()
    open_to_all = SecurityGroup("open", rules=tuple(Rule(f"all-{f}", INGRESS, f) for f in Family))
    ports = {**before.ports, "port-3": replace(before.ports["port-3"], security_groups=("open",))}
    loose = replace(before, ports=ports, security_groups={**before.security_groups, "open": open_to_all})
    switch.program(compile_policy(loose, plugged(1, 2, 3)))
    to_port_2 = ether(1, 2) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=54)
    misled = ether(1, 3) / to_port_2[IP]
    answer = ether(40, 1) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=54, dport=1)
    assert arrived(switch, 1, [misled]) == {3: 1}
    assert arrived(switch, UPLINK, [answer]) == {1: 1}, "an accomplice outside makes the connection an established one"
    assert arrived(switch, 1, [misled]) == {3: 1}
    assert arrived(switch, 1, [to_port_2]) == {}


def test_endpoints_that_share_a_mac_are_each_judged_by_their_own_rules(switch: DummySwitch) -> None:
    before = policy()
    virtual = Claim(mac(50), address(Family.IPV4, 50))
    closed = SecurityGroup("closed")
    ports = {
        **before.ports,
        "port-2": replace(before.ports["port-2"], pairs=(virtual,)),
        "port-3": replace(before.ports["port-3"], pairs=(virtual,), security_groups=("closed",)),
    }
    shared = replace(before, ports=ports, security_groups={**before.security_groups, "closed": closed})
    switch.program(compile_policy(shared, plugged(1, 2, 3)))
    question = ether(1, 50) / IP(src="10.0.0.1", dst="10.0.0.50") / UDP(sport=1000, dport=53)
    for _ in range(3):
        assert arrived(switch, 1, [question]) == {2: 1}


def test_a_port_that_nobody_has_looked_at_yet_passes_nothing(switch: DummySwitch) -> None:
    switch.program(compile_policy(policy(), plugged(1, 2)))
    assert arrived(switch, LATE, datagram(Family.IPV4, 3, 1, (1000, 53), 100)) == {}
    request = ether(3, 1) / ARP(op=1, psrc="10.0.0.3", pdst="10.0.0.1")
    assert arrived(switch, LATE, [request]) == {}
    assert arrived(switch, UPLINK, [request]) == {1: 1}


def test_a_mac_address_taken_from_a_port_leads_there_no_more(switch: DummySwitch) -> None:
    """The bridge has learned it from what the port sent while it was the port's own."""
    pair = Claim(mac(40), address(Family.IPV4, 40))
    before = policy()
    ports = {**before.ports, "port-1": replace(before.ports["port-1"], pairs=(pair,))}
    switch.program(compile_policy(replace(before, ports=ports), plugged(1, 2)))
    announce = ether(40, 3) / IP(src="10.0.0.40", dst="10.0.0.99") / UDP(sport=1, dport=2)
    assert arrived(switch, 1, [announce])[UPLINK] == 1
    assert format_mac(mac(40)) in switch.call("fdb/show", "br-int")
    switch.keep_connections(compile_policy(before, plugged(1, 2)))
    assert 1 not in arrived(switch, UPLINK, [ether(3, 40) / IP(src="10.0.0.3", dst="10.0.0.40") / UDP(dport=9999)])


@pytest.mark.parametrize(
    ("uplink", "tag", "passes"),
    [
        (Uplink(UPLINK), 7, True),
        (Uplink(UPLINK), 8, False),
        (Uplink(UPLINK), None, False),
        (Uplink(UPLINK, VlanMode.ACCESS, 7), None, True),
        (Uplink(UPLINK, VlanMode.ACCESS, 7), 0, True),
        (Uplink(UPLINK, VlanMode.ACCESS, 7), 7, False),
        (Uplink(UPLINK, VlanMode.ACCESS, 8), None, False),
        (Uplink(UPLINK, VlanMode.NATIVE, 7), None, True),
        (Uplink(UPLINK, VlanMode.NATIVE, 8), None, False),
        (Uplink(UPLINK, VlanMode.NATIVE, 8), 7, True),
    ],
)
def test_uplinks_bring_packets_into_the_network_of_their_tag(
    switch: DummySwitch,
    uplink: Uplink,
    tag: int | None,
    passes: bool,  # noqa: FBT001
) -> None:
    bindings = Bindings((Binding("port-1", 1, 7),), (uplink,))
    switch.tag([1], 7)
    try:
        switch.program(compile_policy(policy(), bindings))
        frame = bytes(datagram(Family.IPV4, 3, 1, (1000, 53), 100)[0])
        if tag is not None:
            frame = frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]
        out = switch.send(UPLINK, frame)
        assert ({1} == set(out)) is passes
        assert all(sent[12:14] == b"\x08\x00" for sent in out.get(1, [])), "delivered without its tag"
    finally:
        switch.tag([1], 0)
