"""The data connections of FTP and TFTP, agreed or not: the last attempts of `ovsfw lab selftest`.  Pure.

Where a rule with a helper lets a control connection in, one is led by hand: conntrack reads in it what is agreed.  Then
comes data that was agreed, beside data that nobody agreed to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, permutations

from ovsfw.lab import frames as f
from ovsfw.lab.attempts import SYN, SYN_ACK, Attempt, claim
from ovsfw.lab.plan import Plan
from ovsfw.lab.scenes import Actor
from ovsfw.policy.addresses import Family
from ovsfw.policy.helpers import SERVICES
from ovsfw.policy.model import Helper, Policy
from ovsfw.policy.verdict import TCP, Connection, verdict

NUMBERS = 3500
"""How many beginnings there are for the ports of a run, so that it meets nothing that one before it has left: what a
helper expects is expected for five minutes."""
_PORTS_EACH = 4
_CLIENT, _DATA = 48000, 33000  # above what the agents use
_FTP_DATA = 20
ACK, PUSH_ACK = 0x10, 0x18
_CLIENT_BEGINS, _SERVER_BEGINS = 1000, 5000  # sequence numbers
# A signature (RFC 2385).  The machine's own TCP has no key for it, and so is silent; conntrack does not look at it.
_SIGNED = bytes.fromhex("01011312") + bytes(16)


@dataclass(frozen=True, slots=True)
class Talk:
    """A control connection, and a third machine that has no part in it.  `everybody` is who is in the network."""

    helper: Helper
    client: Actor
    server: Actor
    third: Actor
    passive: bool
    everybody: tuple[str, ...]
    number: int

    @property
    def title(self) -> str:
        """Who talks with whom, and how."""
        mode = {Helper.FTP: ", passive" if self.passive else ", active"}.get(self.helper, "")
        names = f"{self.client.name} with {self.server.name}"
        return f"{self.helper.value} of {names}{mode}, {self.client.address.family.ethertype}"

    @property
    def _client_port(self) -> int:
        return _CLIENT + _PORTS_EACH * self.number

    @property
    def _data_port(self) -> int:
        """Where one end listens for data."""
        return _DATA + _PORTS_EACH * self.number if self.helper is Helper.FTP else self._client_port

    @property
    def _begins(self) -> Actor:
        return self.client if self.passive else self.server

    @property
    def _listens(self) -> Actor:
        return self.server if self.passive else self.client

    def control(self) -> Connection:
        """As the policy sees it."""
        protocol, port = SERVICES[self.helper]
        return _connection(self.client, self.server, protocol, (self._client_port, port))

    def agreed(self) -> Connection:
        """The data connection, if a helper has read of it."""
        return replace(self._data(self._begins, self._listens), control=self.control())

    def not_agreed(self) -> Iterator[Connection]:
        """What is tried, and should be denied."""
        yield self._data(self._begins, self._listens)
        yield self._data(self._begins, self._listens, 1)
        yield self._data(self.third, self._listens)
        yield self._data(self._begins, self.third)
        yield self._data(self._begins, self.third, 2)

    def _data(self, sender: Actor, receiver: Actor, further: int = 0) -> Connection:
        if self.helper is Helper.TFTP:
            source = _DATA + _PORTS_EACH * self.number
        else:
            source = self._client_port + 1 if self.passive else _FTP_DATA
        return _connection(sender, receiver, SERVICES[self.helper].protocol, (source, self._data_port + further))

    def attempts(self) -> Iterator[Attempt]:
        """All that is tried, in its order."""
        begins, listens, third = self._begins, self._listens, self.third
        for actor in (self.client, self.server, third):
            others = tuple(name for name in self.everybody if name != actor.name)
            what = f"{actor.name} tells everybody its address"
            yield Attempt(what, actor.name, claim(actor), good=True, machines=others, in_turn=True)
        if self.helper is Helper.FTP:
            yield from self._connects()
        yield self._bad("data before any is agreed", begins, listens)
        yield from self._agrees()
        yield self._bad("data to a port that nobody named", begins, listens, further=1)
        yield self._bad("data from a third machine", third, listens)
        yield self._bad("data to the MAC of a third machine", begins, listens, at=third)
        frame = self._frame(self._data(begins, listens), begins, listens)
        yield Attempt("the data that was agreed", begins.name, frame, good=True, machines=(listens.name,))
        if self.helper is Helper.FTP and not (self.passive and listens.address.family is Family.IPV6):
            # The answer to EPSV names no address.
            yield from self._names_a_third()

    def _bad(self, what: str, sender: Actor, receiver: Actor, *, further: int = 0, at: Actor | None = None) -> Attempt:
        reached = at or receiver
        frame = self._frame(self._data(sender, receiver, further), sender, reached)
        return Attempt(what, sender.name, frame, good=False, machines=(reached.name,))

    def _frame(self, connection: Connection, sender: Actor, receiver: Actor) -> bytes:
        """The first packet of a data connection."""
        ends, ports = (connection.source, connection.destination), (connection.source_port, connection.destination_port)
        body = f.tcp(*ends, ports, SYN) if connection.protocol == TCP else f.udp(*ends, ports, b"\0\3\0\1data")
        kind = f.IP_TYPE[connection.family]
        return f.ethernet(receiver.mac, sender.mac, kind, f.ip(*ends, connection.protocol, body))

    def _connects(self) -> Iterator[Attempt]:
        """The control connection of FTP opens."""
        client, server = _CLIENT_BEGINS, _SERVER_BEGINS
        yield self._says("the client connects", self.client, SYN, client)
        yield self._says("the server answers", self.server, SYN_ACK, server)
        yield self._says("the client is content", self.client, ACK, client + 1)

    def _agrees(self) -> Iterator[Attempt]:
        """On where one end listens for data."""
        if self.helper is Helper.FTP:
            who = "server" if self.passive else "client"
            yield self._says(f"the {who} says where it listens", self._listens, PUSH_ACK, self._told, self._words())
            return
        ends, (protocol, port) = (self.client.address, self.server.address), SERVICES[self.helper]
        body = f.ip(*ends, protocol, f.udp(*ends, (self._client_port, port), b"\0\1file\0octet\0"))
        frame = f.ethernet(self.server.mac, self.client.mac, f.IP_TYPE[ends[0].family], body)
        name = self.server.name
        yield Attempt("the client asks for a file", self.client.name, frame, good=True, machines=(name,), in_turn=True)

    def _names_a_third(self) -> Iterator[Attempt]:
        """The bounce attack (RFC 2577).  Whether the words themselves pass is not the question."""
        words = self._words(self.third, 2)
        told = self._says("a third machine is named", self._listens, PUSH_ACK, self._told + len(self._words()), words)
        yield replace(told, machines=())
        yield self._bad("data to the third machine that was named", self._begins, self.third, further=2)

    @property
    def _told(self) -> int:
        """The sequence number of the first words of the one who listens."""
        return (_SERVER_BEGINS if self.passive else _CLIENT_BEGINS) + 1

    def _words(self, where: Actor | None = None, further: int = 0) -> bytes:
        """What FTP says of where an end listens (RFC 959, RFC 2428)."""
        address, port = (where or self._listens).address, self._data_port + further
        if address.family is Family.IPV4:
            numbers = f"{str(address).replace('.', ',')},{port >> 8},{port & 255}"
            return (f"227 Entering ({numbers}).\r\n" if self.passive else f"PORT {numbers}\r\n").encode()
        passive = f"229 Entering Extended Passive Mode (|||{port}|)\r\n"
        return (passive if self.passive else f"EPRT |2|{address}|{port}|\r\n").encode()

    def _says(self, what: str, speaker: Actor, flags: int, seq: int, words: bytes = b"") -> Attempt:
        """A segment of the control connection of FTP; all that the other end has said before is acknowledged."""
        ports = (self._client_port, SERVICES[self.helper].port)
        hearer, ack = self.server, _SERVER_BEGINS + 1
        if speaker == self.server:
            hearer, ack, ports = self.client, _CLIENT_BEGINS + 1, (ports[1], ports[0])
        ends = (speaker.address, hearer.address)
        segment = f.tcp(*ends, ports, flags, f.Segment(seq, ack, _SIGNED, words))
        frame = f.ethernet(hearer.mac, speaker.mac, f.IP_TYPE[ends[0].family], f.ip(*ends, TCP, segment))
        return Attempt(what, speaker.name, frame, good=True, machines=(hearer.name,), in_turn=True)


def _connection(sender: Actor, receiver: Actor, protocol: int, ports: tuple[int, int]) -> Connection:
    ids = (sender.machine.port_id, receiver.machine.port_id)
    return Connection(*ids, sender.address, receiver.address, protocol, *ports)


def talks(policy: Policy, plan: Plan, number: int) -> Iterator[Talk]:
    """One for every network, family, helper and mode that the policy lets have data; `number` is below NUMBERS."""
    if not any(rule.helper for rule in policy.rules):
        return
    machines = {machine.name: machine for machine in plan.machines}
    numbers = count(number)
    for vlan in sorted({machine.vlan for machine in plan.machines}):
        everybody = tuple(machine.name for machine in plan.machines if machine.vlan == vlan)
        for family in Family:
            people = [
                Actor(machines[party.machine], address)
                for party in plan.parties
                if party.vlan == vlan and (address := party.address(family))
            ]
            for helper, passive in ((Helper.FTP, False), (Helper.FTP, True), (Helper.TFTP, False)):
                found = _find(policy, Talk(helper, people[0], people[0], people[0], passive, everybody, 0), people)
                if found:
                    yield replace(found, number=next(numbers))


def _find(policy: Policy, model: Talk, people: list[Actor]) -> Talk | None:
    """A talk like `model` of some of these people, in which the helper makes the difference."""
    guarded = [actor for actor in people if _is_guarded(policy, actor)]
    for client, server in permutations(people, 2):
        talk = replace(model, client=client, server=server)
        if not _is_helped(policy, talk):
            continue
        for third in guarded:
            talk = replace(talk, third=third)
            if third not in (client, server) and not any(verdict(policy, one).allowed for one in talk.not_agreed()):
                return talk
    return None


def _is_guarded(policy: Policy, actor: Actor) -> bool:
    port = policy.ports.get(actor.machine.port_id or "")
    return port is not None and port.port_security


def _is_helped(policy: Policy, talk: Talk) -> bool:
    """Whether it may be, with its data, at two ends that are not stateless."""
    names = (talk.client.machine.port_id, talk.server.machine.port_id)
    ports = [policy.ports.get(name) for name in names if name]
    if any(port is None or policy.is_stateless(port) for port in ports):
        return False
    said = verdict(policy, talk.control())
    by_helper = any(rule.helper is talk.helper for rule in (*said.egress.rules, *said.ingress.rules))
    return said.allowed and by_helper and verdict(policy, talk.agreed()).allowed
