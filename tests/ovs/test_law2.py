"""Law 2: the flows say what `verdict` says, judged by a real ovs-vswitchd with real packets and real conntrack."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ovsfw.compiler import NEUTRON, STANDALONE, Bindings, Hook, compile_policy
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.model import Policy
from ovsfw.policy.verdict import DHCP_SERVER, ROUTER_ADVERTISEMENT, UDP, Connection, owns, verdict
from tests import strategies
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.packets import ROUTER, packet
from tests.strategies import UPLINK

pytestmark = pytest.mark.ovs
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "40"))


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, (1, 2, 3, 4, 5, 50, UPLINK))


class Host:
    """Where the machines of a policy are, and what happens when they talk."""

    def __init__(self, switch: DummySwitch, policy: Policy, bindings: Bindings, hook: Hook = STANDALONE) -> None:
        self.switch, self.policy = switch, policy
        self.ofport = {bound.port_id: bound.ofport for bound in bindings.endpoints}
        self.vlan = bindings.endpoints[0].vlan if bindings.endpoints else 0
        switch.tag(self.ofport.values(), self.vlan)
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
        """Send one packet; whether it comes out where it should.  It must never come out elsewhere."""
        came, goes = self.place(connection.sender), self.place(connection.receiver)
        macs = self.mac(connection.sender, connection.source), self.mac(connection.receiver, connection.destination)
        sent = packet(connection, macs, self.vlan if came == UPLINK else 0, answer=answer, first=first)
        out = self.switch.send(came, sent)
        sharing = {self.place(name) for name, port in self.policy.ports.items() if macs[1] in port.macs}
        strangers = {ofport for ofport in out if ofport not in sharing | {goes} and not self.is_unfiltered(ofport)}
        assert not strangers, f"also came out of {strangers}"
        assert len(out.get(goes, [])) <= 1, "came out twice"
        return goes in out

    def mac(self, name: str | None, address: Prefix) -> int:
        """The MAC that goes with an address of a machine."""
        if name is None:
            return ROUTER
        port = self.policy.ports[name]
        fitting = [claim.mac for claim in port.claims if claim.prefix.contains(address)]
        return port.mac if port.mac in fitting or not fitting else fitting[0]

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
        wanted = self.mac(name, address)
        owners = {self.place(port.id) for port in self.policy.ports.values() if wanted in port.macs}
        return UPLINK in owners and len(owners) > 1

    def is_unfiltered(self, ofport: int) -> bool:
        """Ports without port security, and whatever is no endpoint, are flooded like any port of a switch."""
        name = next((name for name, number in self.ofport.items() if number == ofport), None)
        return name is None or (name in self.policy.ports and not self.policy.ports[name].port_security)


@pytest.mark.parametrize("hook", [STANDALONE, NEUTRON], ids=["standalone", "neutron"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_the_flows_say_what_the_policy_says(switch: DummySwitch, hook: Hook, data: st.DataObject) -> None:
    """Alone on the bridge, and with the flows of Neutron's agent before and behind."""
    if hook is NEUTRON:
        add_agent_flows(switch.switch, BRIDGE)
    policy = data.draw(strategies.policies().flatmap(strategies.with_source_ports))
    host = Host(switch, policy, wired(data.draw(strategies.bindings_for(policy)), hook), hook)
    for _ in range(data.draw(st.integers(1, 12))):
        connection = data.draw(strategies.connections(policy))
        if data.draw(st.integers(0, 5)) == 0:
            connection = data.draw(strategies.from_a_server(connection))
        if host.cannot_be_tried(connection):
            continue
        switch.forget()
        converse(host, connection)


def wired(bindings: Bindings, hook: Hook) -> Bindings:
    """Every port of Neutron's agent has a VLAN."""
    endpoints = (bound._replace(vlan=bound.vlan or 9) if hook is NEUTRON else bound for bound in bindings.endpoints)
    return Bindings(tuple(endpoints), bindings.uplinks)


def converse(host: Host, connection: Connection) -> None:
    """First packet, the same again, the answer, and more."""
    allowed = host.judged(connection)
    event(f"allowed={allowed}")
    assert host.arrives(connection) == allowed, "the first packet"
    assert host.arrives(connection) == allowed, "the first packet again"
    if allowed and not is_of_a_server(connection):
        back = connection.reversed()
        answered = host.arrives(back, answer=True) == answer_allowed(host, back)
        assert answered, "the answer"


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
