"""Law 2: the flows say what `verdict` says, judged by a real ovs-vswitchd with real packets and real conntrack."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ovsfw.compiler import NEUTRON, STANDALONE, Bindings, Hook, compile_policy
from ovsfw.explain.legs import mac_for
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.model import Policy
from ovsfw.policy.verdict import DHCP_SERVER, ROUTER_ADVERTISEMENT, UDP, Connection, owns, verdict
from tests import strategies
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.packets import ROUTER, packet
from tests.strategies import OFPORTS, UPLINK

pytestmark = pytest.mark.ovs
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "40"))
# Seconds; a long run may take as long as it needs.
PATIENCE = 300 + 10 * EXAMPLES
ETHERTYPE_VLAN = 0x8100


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, OFPORTS)


class Host:
    """Where the machines of a policy are, and what happens when they talk."""

    def __init__(self, switch: DummySwitch, policy: Policy, bindings: Bindings, hook: Hook = STANDALONE) -> None:
        self.switch, self.policy = switch, policy
        self.ofport = {bound.port_id: bound.ofport for bound in bindings.endpoints}
        self.vlan = {bound.ofport: bound.vlan for bound in bindings.endpoints}
        switch.wire(bindings)
        switch.program(compile_policy(policy, bindings, hook))

    def place(self, name: str | None) -> int:
        """The ofport of a machine; whoever is not here is behind the uplink."""
        return self.ofport.get(name or "", UPLINK)

    def judged(self, connection: Connection) -> bool:
        """What the policy says, as far as this host is asked: the far side of the uplink is judged elsewhere."""
        said = verdict(self.policy, connection)
        egress = said.egress.allowed or self.place(connection.sender) == UPLINK
        ingress = said.ingress.allowed or self.place(connection.receiver) == UPLINK
        return egress and ingress

    def arrives(self, connection: Connection, *, answer: bool = False, first: bool = True) -> bool:
        """Send one packet; whether it comes out where it should, in its network.  It must never come out elsewhere."""
        came, goes = self.place(connection.sender), self.place(connection.receiver)
        vlan = self.vlan[came if goes == UPLINK else goes]
        macs = self.mac(connection.sender, connection.source), self.mac(connection.receiver, connection.destination)
        sent = packet(connection, macs, vlan if came == UPLINK else 0, answer=answer, first=first)
        out = self.switch.send(came, sent)
        strangers = (out.keys() & self.vlan.keys()) - {goes} - self.may_get(vlan, macs[1])
        assert not strangers, f"also came out of {strangers}"
        assert len(out.get(goes, [])) <= 1, "came out twice"
        for ofport in out.keys() & {*self.vlan, UPLINK}:
            expected = vlan if self.vlan.get(ofport, 0) == 0 else 0
            assert {tag_of(each) for each in out[ofport]} == {expected}, f"tag at {ofport}"
        return goes in out

    def may_get(self, vlan: int, mac: int) -> set[int]:
        """Who gets what is sent to a MAC in a network: who uses it, and whoever is not filtered, by flooding.

        Without a tag, a port that is not filtered is a trunk to Open vSwitch, and gets what is flooded in any network.
        """
        found = set()
        for name, ofport in self.ofport.items():
            port, inside = self.policy.ports.get(name), self.vlan[ofport]
            if port and (inside in (0, vlan) if not port.port_security else inside == vlan and mac in port.macs):
                found.add(ofport)
        return found

    def mac(self, name: str | None, address: Prefix) -> int:
        """The MAC that goes with an address of a machine."""
        return ROUTER if name is None else mac_for(self.policy.ports[name], address)

    def shares_its_mac(self, connection: Connection) -> bool:
        """Whether another endpoint here gets what is sent to the receiver, too.

        A connection names one endpoint whose rules accepted it, the last; the answers of another need rules of their
        own (docs/security.md).
        """
        goes = self.place(connection.receiver)
        vlan, mac = self.vlan.get(goes, 0), self.mac(connection.receiver, connection.destination)
        filtered = {self.place(port.id) for port in self.policy.ports.values() if port.port_security}
        return goes != UPLINK and bool(self.may_get(vlan, mac) & filtered - {goes})

    def cannot_be_tried(self, connection: Connection) -> bool:
        """Packets that never meet this switch, or that nobody can send."""
        return (
            self.place(connection.sender) == self.place(connection.receiver)
            or connection.source == connection.destination
            or self.is_elsewhere_too(connection.sender, connection.source)
            or self.is_elsewhere_too(connection.receiver, connection.destination)
        )

    def is_elsewhere_too(self, name: str | None, address: Prefix) -> bool:
        """Whether a port that is not here uses a MAC that one here claims: this host then keeps what is sent to it."""
        if name is None:
            return False
        wanted, inside = self.mac(name, address), self.policy.ports[name].network_id
        owners = {
            self.place(port.id)
            for port in self.policy.ports.values()
            if wanted in port.macs and port.network_id == inside
        }
        return UPLINK in owners and len(owners) > 1


def tag_of(packet: bytes) -> int:
    """The VLAN of a packet, 0 for none."""
    kind, tag = struct.unpack_from("!HH", packet, 12)
    return tag & 0xFFF if kind == ETHERTYPE_VLAN else 0


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("hook", [STANDALONE, NEUTRON], ids=["standalone", "neutron"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_the_flows_say_what_the_policy_says(switch: DummySwitch, hook: Hook, data: st.DataObject) -> None:
    """Alone on the bridge, and with the flows of Neutron's agent before and behind.

    Where there are two networks, the same packets are sent in both, turn by turn.  Rules with a helper are among them;
    what their helpers expect is for tests/ovs/packets/test_helpers.py, because this datapath helps on the ports of FTP
    and TFTP alone, and a data connection needs a whole conversation before it.
    """
    if hook is NEUTRON:
        add_agent_flows(switch.switch, BRIDGE)
    policy = data.draw(strategies.policies().flatmap(strategies.with_source_ports))
    host = Host(switch, policy, wired(data.draw(strategies.bindings_for(policy)), hook), hook)
    for _ in range(data.draw(st.integers(4, 16))):
        connection = data.draw(strategies.connections(policy))
        if data.draw(st.integers(0, 5)) == 0:
            connection = data.draw(strategies.from_a_server(connection))
        alike = (connection, strategies.twin(policy, connection))
        tried = [each for each in alike if each is not None and not host.cannot_be_tried(each)]
        switch.forget()
        converse(host, tried)


def wired(bindings: Bindings, hook: Hook) -> Bindings:
    """Every port of Neutron's agent has a VLAN."""
    endpoints = (bound._replace(vlan=bound.vlan or 9) if hook is NEUTRON else bound for bound in bindings.endpoints)
    return Bindings(tuple(endpoints), bindings.uplinks)


def converse(host: Host, connections: Sequence[Connection]) -> None:
    """The first packet of each, the same again, the answers, and more; some policies allow one and deny its twin."""
    allowed = {connection: host.judged(connection) for connection in connections}
    event(f"allowed: {sorted(allowed.values())}")
    for what in ("the first packet", "the first packet again"):
        for connection, expected in allowed.items():
            assert host.arrives(connection) == expected, what
    answered = {connection: answers(host, connection, is_allowed=expected) for connection, expected in allowed.items()}
    for connection, is_answered in answered.items():
        if allowed[connection] and is_answered:
            assert host.arrives(connection, first=False), "a later packet"
            assert host.arrives(connection.reversed(), answer=True, first=False), "a later answer"
        elif not allowed[connection] and not is_answered:
            assert not host.arrives(connection, first=False), "a later packet of what is denied"


def answers(host: Host, connection: Connection, *, is_allowed: bool) -> bool:
    """Send the answer; whether it has arrived.

    It must if the connection was allowed, and else it may only where it could begin a connection itself.
    """
    back = connection.reversed()
    if is_of_a_server(connection):
        return False
    arrived = host.arrives(back, answer=True)
    if host.shares_its_mac(connection):
        # It may also be one in the connection that another one with this address has accepted.
        return arrived and not is_allowed
    if is_allowed:
        assert arrived == answer_allowed(host, back), "the answer"
    else:
        assert not arrived or host.judged(back), "the answer to what is denied"
    return arrived


def answer_allowed(host: Host, back: Connection) -> bool:
    """An answer needs no rule, but on a stateless side, where it is judged like any packet; it never may be spoofed."""
    said = verdict(host.policy, back)
    if host.place(back.sender) != UPLINK and back.sender:
        port = host.policy.ports[back.sender]
        if port.port_security and not owns(port, back.source):
            return False
    sides = ((back.sender, said.egress), (back.receiver, said.ingress))
    return all(judgement.allowed for name, judgement in sides if is_stateless(host, name))


def is_stateless(host: Host, name: str | None) -> bool:
    if name is None or host.place(name) == UPLINK:
        return False
    port = host.policy.ports[name]
    return port.port_security and host.policy.is_stateless(port)


def is_of_a_server(connection: Connection) -> bool:
    """What needs no rules is not tracked, and so has no answers."""
    ports = (connection.source_port, connection.destination_port)
    dhcp = connection.protocol == UDP and ports == DHCP_SERVER[connection.family]
    return dhcp or connection.icmp_type == ROUTER_ADVERTISEMENT
