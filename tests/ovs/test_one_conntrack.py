"""Many connections in one conntrack: whatever was said before, nothing passes an endpoint that it has not agreed to.

The oracle is `verdict` and a memory of answers.  As rules do not change here, a frame may come out of an endpoint when
its ingress rules allow it or when it answers a frame that the endpoint has sent, and a frame of an endpoint may go on
when its egress rules allow it or when it answers a frame that came out of it.  Frames may go to a MAC that is not that
of their address, to the sender's own, or to one that several endpoints share.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.ids import rule_hints
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Family, Prefix, format_mac
from ovsfw.policy.model import Claim, Direction, Policy, Port, PortRange, Rule, SecurityGroup
from ovsfw.policy.verdict import UDP, Connection, verdict
from tests.dummy import BRIDGE, DummySwitch
from tests.packets import ROUTER, packet
from tests.strategies import UPLINK, address, mac

pytestmark = pytest.mark.ovs
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "60"))
HERE = (1, 2, 3)
SHARED = 0x00005E000101
VIRTUAL = Prefix.parse("10.0.0.200")
OUTSIDE = Prefix.parse("192.0.2.1")
DOORS = (53, 1000)


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, (*HERE, UPLINK))


@st.composite
def rules(draw: st.DrawFn, name: str) -> tuple[Rule, ...]:
    """For each direction: nothing, one port, or everything."""
    drawn = ((direction, draw(st.sampled_from((None, *DOORS, "any")))) for direction in Direction)
    return tuple(
        Rule(
            f"{name}/{direction.value}",
            direction,
            Family.IPV4,
            UDP,
            PortRange(door, door) if isinstance(door, int) else None,
        )
        for direction, door in drawn
        if door
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Three ports, each with a group of its own; some share a MAC and an address."""
    groups = {f"g{n}": SecurityGroup(f"g{n}", rules=draw(rules(f"g{n}"))) for n in HERE}
    pairs = {n: (Claim(SHARED, VIRTUAL),) if draw(st.booleans()) else () for n in HERE}
    ports = {f"port-{n}": Port(f"port-{n}", mac(n), (address(Family.IPV4, n),), pairs[n], (f"g{n}",)) for n in HERE}
    return Policy(ports, groups)


@dataclass(frozen=True, slots=True, repr=False)
class Frame:
    """A UDP datagram that comes in by a port; `macs` are its source and destination."""

    came: int
    macs: tuple[int, int]
    connection: Connection

    def __repr__(self) -> str:
        """In one line, so that a failing conversation can be read."""
        by, macs = self.connection, ">".join(map(format_mac, self.macs))
        return f"Frame({self.came}: {macs} {by.source}>{by.destination} {by.source_port}>{by.destination_port})"

    def seen_by(self, sender: str | None, receiver: str | None) -> Connection:
        """The same, as that of a sender and a receiver."""
        return replace(self.connection, sender=sender, receiver=receiver)


ADDRESSES = (*(address(Family.IPV4, n) for n in HERE), VIRTUAL, OUTSIDE)
MACS = (*map(mac, HERE), SHARED, ROUTER)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Mostly of few connections, so that they meet in conntrack."""
    came = draw(st.sampled_from((*HERE, UPLINK)))
    own = [(mac(came), address(Family.IPV4, came)), (SHARED, VIRTUAL)] if came != UPLINK else [(ROUTER, OUTSIDE)]
    source_mac, source = draw(st.sampled_from(own))
    if came == UPLINK:
        source = draw(st.sampled_from(ADDRESSES))
    ports = draw(st.permutations(DOORS))
    destination = draw(st.sampled_from([other for other in ADDRESSES if other != source]))
    connection = Connection(None, None, source, destination, UDP, ports[0], ports[1])
    return Frame(came, (source_mac, draw(st.sampled_from(MACS))), connection)


Tuple = tuple[Prefix, Prefix, int, int]


def tuple_of(connection: Connection) -> Tuple:
    return connection.source, connection.destination, connection.source_port, connection.destination_port


@dataclass
class Memory:
    """What each endpoint has sent, and what has come out of it."""

    policy: Policy
    sent: dict[int, set[Tuple]] = field(default_factory=lambda: {n: set() for n in HERE})
    received: dict[int, set[Tuple]] = field(default_factory=lambda: {n: set() for n in HERE})

    def may_leave(self, frame: Frame) -> bool:
        """Whether its sender agrees."""
        if frame.came == UPLINK:
            return True
        said = verdict(self.policy, frame.seen_by(f"port-{frame.came}", None))
        return said.egress.allowed or tuple_of(frame.connection.reversed()) in self.received[frame.came]

    def may_enter(self, frame: Frame, ofport: int) -> bool:
        """Whether an endpoint agrees to get it."""
        said = verdict(self.policy, frame.seen_by(None, f"port-{ofport}"))
        return said.ingress.allowed or tuple_of(frame.connection.reversed()) in self.sent[ofport]

    def note(self, frame: Frame) -> None:
        """Remember what was agreed to; what an endpoint sends to itself does not come out of it, but counts."""
        if not self.may_leave(frame):
            return
        if frame.came != UPLINK:
            self.sent[frame.came].add(tuple_of(frame.connection))
        for ofport in HERE:
            if frame.macs[1] in self.policy.ports[f"port-{ofport}"].macs and self.may_enter(frame, ofport):
                self.received[ofport].add(tuple_of(frame.connection))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(policies(), st.lists(frames(), min_size=4, max_size=24))
def test_nothing_passes_an_endpoint_that_has_not_agreed(
    switch: DummySwitch, policy: Policy, conversation: list[Frame]
) -> None:
    bindings = Bindings(tuple(Binding(f"port-{n}", n) for n in HERE), (Uplink(UPLINK),))
    switch.program(compile_policy(policy, bindings))
    memory = Memory(policy)
    for number, frame in enumerate(conversation):
        came_out = switch.send(frame.came, packet(frame.connection, frame.macs))
        event(f"passes={bool(came_out)}")
        if came_out:
            assert memory.may_leave(frame), f"frame {number} left its endpoint"
        for ofport in came_out.keys() & set(HERE):
            assert memory.may_enter(frame, ofport), f"frame {number} came out of {ofport}"
        memory.note(frame)


def test_an_address_that_two_may_use_does_not_lend_the_rules_of_one_to_the_other(switch: DummySwitch) -> None:
    talker = SecurityGroup("g2", rules=(Rule("g2/egress", Direction.EGRESS, Family.IPV4),))
    pairs = (Claim(SHARED, VIRTUAL),)
    ports = {f"port-{n}": Port(f"port-{n}", mac(n), (address(Family.IPV4, n),), pairs, (f"g{n}",)) for n in (2, 3)}
    switch.program(
        compile_policy(
            Policy(ports, {"g2": talker, "g3": SecurityGroup("g3")}),
            Bindings((Binding("port-2", 2), Binding("port-3", 3)), (Uplink(UPLINK),)),
        )
    )
    question = packet(Connection(None, None, VIRTUAL, OUTSIDE, UDP, 1000, 53), (SHARED, ROUTER))
    answer = packet(Connection(None, None, OUTSIDE, VIRTUAL, UDP, 53, 1000), (ROUTER, SHARED))
    for _ in range(3):
        assert UPLINK in switch.send(2, question)
        assert switch.send(3, question) == {}
        assert switch.send(UPLINK, answer).keys() == {2}


@pytest.mark.parametrize("client", [2, UPLINK])
def test_an_answer_needs_no_rule_and_a_question_does(switch: DummySwitch, client: int) -> None:
    """The client may only ask, the server may only be asked."""
    asks = SecurityGroup("g2", rules=(Rule("g2/egress", Direction.EGRESS, Family.IPV4),))
    serves = SecurityGroup("g1", rules=(Rule("g1/ingress", Direction.INGRESS, Family.IPV4),))
    ports = {f"port-{n}": Port(f"port-{n}", mac(n), (address(Family.IPV4, n),), (), (f"g{n}",)) for n in (1, 2)}
    bindings = Bindings((Binding("port-1", 1), Binding("port-2", 2)), (Uplink(UPLINK),))
    switch.program(compile_policy(Policy(ports, {"g1": serves, "g2": asks}), bindings))
    at = OUTSIDE if client == UPLINK else address(Family.IPV4, client)
    question = Connection(None, None, at, address(Family.IPV4, 1), UDP, 1000, 53)
    macs = (ROUTER if client == UPLINK else mac(client), mac(1))
    back = packet(question.reversed(), macs[::-1])
    assert switch.send(1, back) == {}
    for _ in range(3):
        assert switch.send(client, packet(question, macs)).keys() == {1}
        assert switch.send(1, back).keys() == {client}


def everything(name: str, *directions: Direction) -> SecurityGroup:
    return SecurityGroup(name, rules=tuple(Rule(f"{name}/{each.value}", each, Family.IPV4) for each in directions))


def two(one: SecurityGroup, other: SecurityGroup) -> Policy:
    """Ports 1 and 2, each with a group."""
    groups = {1: one, 2: other}
    ports = {
        f"port-{n}": Port(f"port-{n}", mac(n), (address(Family.IPV4, n),), (), (group.id,))
        for n, group in groups.items()
    }
    return Policy(ports, {group.id: group for group in groups.values()})


def both_ways(server: int) -> tuple[bytes, bytes]:
    """Port 1 asks, the other answers."""
    question = Connection(None, None, address(Family.IPV4, 1), address(Family.IPV4, server), UDP, 1000, 53)
    macs = mac(1), mac(server)
    return packet(question, macs), packet(question.reversed(), macs[::-1])


def test_an_answer_that_its_sender_s_rules_had_to_allow_stays_an_answer(switch: DummySwitch) -> None:
    """The server is plugged while the client already talks to it: nobody remembers that it was asked."""
    policy = two(everything("asks", Direction.EGRESS), everything("both", *Direction))
    client, server = Binding("port-1", 1), Binding("port-2", 2)
    question, answer = both_ways(2)
    switch.program(compile_policy(policy, Bindings((client,), (Uplink(UPLINK),))))
    assert UPLINK in switch.send(1, question)
    assert switch.send(UPLINK, answer).keys() == {1}
    switch.keep_connections(compile_policy(policy, Bindings((client, server), (Uplink(UPLINK),))))
    for _ in range(3):
        assert switch.send(2, answer).keys() == {1}


def test_a_blocked_connection_passes_in_no_direction(switch: DummySwitch) -> None:
    policy = two(everything("one", *Direction), everything("other", *Direction))
    switch.program(compile_policy(policy, Bindings((Binding("port-1", 1), Binding("port-2", 2)), (Uplink(UPLINK),))))
    question, answer = both_ways(2)
    assert switch.send(1, question).keys() == {2}
    assert switch.send(2, answer).keys() == {1}
    block = f"table=0,priority=40000,in_port=1,udp,actions=ct(commit,zone={p.UNTAGGED},exec(load:1->NXM_NX_CT_MARK[0]))"
    switch.switch.ofctl("add-flow", BRIDGE, block)
    switch.call("revalidator/purge")
    switch.send(1, question)
    switch.switch.ofctl("del-flows", BRIDGE, "--strict", block.split(",actions", maxsplit=1)[0])
    switch.call("revalidator/purge")
    assert switch.send(1, question) == {}
    assert switch.send(2, answer) == {}


def test_the_first_group_that_accepts_has_the_connection(switch: DummySwitch) -> None:
    """Groups are asked in order of their ids, and not after one has accepted."""
    policy = two(everything("a", *Direction), everything("b", *Direction))
    ports = {name: replace(port, security_groups=("a", "b")) for name, port in policy.ports.items()}
    policy = replace(policy, ports=ports)
    switch.program(compile_policy(policy, Bindings((Binding("port-1", 1), Binding("port-2", 2)), (Uplink(UPLINK),))))
    assert switch.send(1, both_ways(2)[0]).keys() == {2}
    entry = switch.call("dpctl/dump-conntrack")
    label = int(entry.split("labels=")[1].split(",")[0].split()[0], 16)
    hints = rule_hints(policy)
    assert (hints[label & 0xFFFFFFFF].id, hints[label >> 32].id) == ("a/egress", "a/ingress")
