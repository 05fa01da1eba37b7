"""What a user asks about, in words, into the connection that is meant.  Pure.

A word for an end is the id, the name, the MAC or an IP address of a port of the policy, or the IP address of a machine
outside it.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from ovsfw.errors import ConfigError
from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family, Prefix, format_mac, parse_mac
from ovsfw.policy.model import Policy, Port
from ovsfw.policy.verdict import ICMP, ICMPV6, Connection
from ovsfw.policy.wording import port_text

ARROWS = ("->", "→", "to")
SOURCE_PORT = 40000
_ECHO = {Family.IPV4: 8, Family.IPV6: 128}
_HIGHEST_PORT, _HIGHEST_BYTE = 65535, 255


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a port, an address, or a port by one of its addresses."""

    word: str
    port: Port | None = None
    address: Prefix | None = None

    def addresses(self, family: Family) -> list[Prefix]:
        """What it may be known by in an IP version."""
        if self.address is not None:
            return [self.address] if self.address.family is family else []
        return [address for address in self.port.fixed_ips if address.family is family] if self.port else []

    @property
    def name(self) -> str:
        """`port web1 (7f3c)`, or `198.51.100.7, which is no port of the policy`."""
        return f"port {port_text(self.port)}" if self.port else f"{self.word}, which is no port of the policy"


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol, and the port or ICMP type and code; a type of None is an echo request."""

    protocol: int
    port: int = 0
    icmp_type: int | None = None
    icmp_code: int = 0


def split_words(words: list[str]) -> tuple[str, str, str]:
    """Sender, receiver and service ("icmp" where none is given) in what was typed, with or without an arrow.

    Raises ConfigError when it is not two or three words.

    >>> split_words(["vm1 -> vm2 tcp/443"]), split_words(["vm1", "to", "vm2"])
    (('vm1', 'vm2', 'tcp/443'), ('vm1', 'vm2', 'icmp'))
    """
    found = words[0].split() if len(words) == 1 else list(words)
    if found[1:2] == ["-"]:
        raise ConfigError("the shell took '>' of '->' for itself and made a file; put the question into quotes")
    if found[1:2] and found[1] in ARROWS and found[2:]:
        del found[1]
    match found:
        case [sender, receiver]:
            return sender, receiver, "icmp"
        case [sender, receiver, service]:
            return sender, receiver, service
    raise ConfigError(f"{' '.join(words)!r} is no question; ask: ovsfw why 'PORT -> PORT|IP tcp/443'")


def read_service(text: str) -> Service:
    """Read `tcp/443`, `udp/53`, `icmp`, `icmp/8/0`, `proto/47`, `gre`.  Raises ConfigError that says what is wrong."""
    word, *numbers = text.lower().split("/")
    if word == "proto" and numbers:
        word, *numbers = numbers
    try:
        protocol = protocols.number(word)
    except ValueError as error:
        raise ConfigError(f"{text}: {error}") from None
    if protocol is None:
        raise ConfigError(f"{text}: one connection has one protocol; ask for one, like tcp/443")
    if protocol in protocols.WITH_PORTS:
        return Service(protocol, *_numbers(text, numbers, 1, _HIGHEST_PORT, f"a port, like {word}/443"))
    if protocol in (ICMP, ICMPV6):
        return Service(protocol, 0, *_numbers(text, numbers, 2, _HIGHEST_BYTE, "a type and a code, like icmp/8/0"))
    if numbers:
        raise ConfigError(f"{text}: {word} has no ports")
    return Service(protocol)


def _numbers(text: str, given: list[str], most: int, highest: int, wanted: str) -> list[int]:
    """Ports need one number, ICMP may have none."""
    good = all(number.isascii() and number.isdigit() and int(number) <= highest for number in given)
    if not good or len(given) > most or (most == 1 and not given):
        raise ConfigError(f"{text}: it needs {wanted}, each from 0 to {highest}")
    return [int(number) for number in given]


def find_end(policy: Policy, word: str, network: str | None = None, *, is_known: bool = False) -> End:
    """The end that a word means.

    Where several ports have an address or name, the one in `network` is meant if `is_known`.  Raises ConfigError when
    it is none, or more than one.
    """
    if word in policy.ports:
        return End(word, policy.ports[word])
    address = _address(word)
    if address is not None:
        found = [port for port in policy.ports.values() if address in port.fixed_ips] or [
            port for port in policy.ports.values() if any(pair.prefix == address for pair in port.pairs)
        ]
    else:
        found = [port for port in policy.ports.values() if port.name == word or _is_mac(word, port)]
    near = [port for port in found if port.network_id == network]
    if is_known and len(found) > 1 and len(near) == 1:
        found = near
    if len(found) > 1:
        raise ConfigError(f"{word}: {len(found)} ports are meant by that; name one by its id: {_listed(found)}")
    if not found and address is None:
        raise ConfigError(f"{word}: no port has this id, name or MAC, and it is no IP address{_hint(policy, word)}")
    return End(word, found[0] if found else None, address)


def _address(word: str) -> Prefix | None:
    """One unicast address.  Raises ConfigError for a group's."""
    try:
        known = ipaddress.ip_address(word)
    except ValueError:
        return None
    if known.is_multicast or word == "255.255.255.255":
        raise ConfigError(f"{word}: that is many machines; ask about one receiver")
    return Prefix.parse(word)


def _is_mac(word: str, port: Port) -> bool:
    try:
        return parse_mac(word) == port.mac
    except ValueError:
        return False


def _listed(ports: Iterable[Port]) -> str:
    return ", ".join(sorted(f"{port.id} ({format_mac(port.mac)})" for port in ports))


def _hint(policy: Policy, word: str) -> str:
    known = {*policy.ports, *(port.name for port in policy.ports.values() if port.name)}
    near = difflib.get_close_matches(word, sorted(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def find_ends(policy: Policy, sender: str, receiver: str) -> tuple[End, End]:
    """Both ends, each helping to say who the other is.  Raises ConfigError when neither is a port of the policy."""
    ends = []
    for word, other in ((sender, receiver), (receiver, sender)):
        port = policy.ports.get(other) or next((each for each in policy.ports.values() if each.name == other), None)
        ends.append(find_end(policy, word, port.network_id if port else None, is_known=port is not None))
    if not any(end.port for end in ends):
        raise ConfigError(f"neither {sender} nor {receiver} is a port of the policy, which says nothing about the two")
    if ends[0].port is not None and ends[0].port == ends[1].port:
        raise ConfigError(f"{sender} and {receiver} are the same port; its packets to itself meet no filter")
    return ends[0], ends[1]


def connection_of(ends: tuple[End, End], service: Service, source_port: int, family: Family | None) -> Connection:
    """The connection that is asked about.  Raises ConfigError when the ends have no IP version in common."""
    wanted = [family] if family else [Family.IPV6] if service.protocol == ICMPV6 else list(Family)
    shared = [each for each in wanted if all(end.addresses(each) for end in ends)]
    if not shared:
        versions = " or ".join(each.ethertype for each in wanted)
        without = next(end for end in ends if not any(end.addresses(each) for each in wanted) or end is ends[1])
        raise ConfigError(f"{without.name} has no {versions} address that the other end could be asked about with")
    chosen = shared[0]
    try:
        protocol = protocols.in_family(service.protocol, chosen)
    except ValueError:
        raise ConfigError(f"{protocols.name(service.protocol)} is not a protocol of {chosen.ethertype}") from None
    source, destination = (end.addresses(chosen)[0] for end in ends)
    kind = _ECHO[chosen] if service.icmp_type is None and service.protocol in (ICMP, ICMPV6) else service.icmp_type
    return Connection(
        ends[0].port.id if ends[0].port else None,
        ends[1].port.id if ends[1].port else None,
        source,
        destination,
        service.protocol if protocol is None else protocol,
        source_port if service.protocol in protocols.WITH_PORTS else 0,
        service.port,
        kind or 0,
        service.icmp_code,
    )
