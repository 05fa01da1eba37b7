"""Services: what of a protocol, its ports, and its ICMP types and codes a rule or a question is about.

All services of one IP version are points of one line, so that sets of them are spans: a point is the protocol's number
times 65536, plus the destination port, or the ICMP type times 256 plus its code.  A protocol without either has 65536
points that nothing tells apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Rule
from ovsfw.policy.spans import Spans, contains, cut, intersection, union
from ovsfw.policy.verdict import (
    ANY_PORT,
    ICMP,
    ICMP_ROUTER_ONLY,
    ICMPV6,
    ICMPV6_FROM_ENDPOINT,
    ICMPV6_ROUTER_ONLY,
    ICMPV6_TO_ENDPOINT,
    TCP,
    UDP,
    UNMATCHABLE_PORTS,
    Connection,
)

POINTS = 1 << 16  # of one protocol
EVERYTHING: Spans = ((0, 256 * POINTS - 1),)
SOURCE_PORT = 40000
# With other source ports than DHCP's, what holds for DHCP whatever the rules say does not come in.
_SOURCE_PORTS: Spans = ((0, 66), (69, 545), (548, 65535))
PING = "ping"
ECHO_REQUEST = {Family.IPV4: 8, Family.IPV6: 128}
_CODES = 256
_HIGHEST_PORT = 65535
_NO_SERVICE = "is not a service; use one like tcp/443, udp/5000-5999, icmp, ping, gre or any"


def icmp_of(family: Family) -> int:
    """The number of ICMP in an IP version."""
    return ICMP if family is Family.IPV4 else ICMPV6


def of_protocol(protocol: int | None) -> Spans:
    """Every service of a protocol; None for any."""
    return EVERYTHING if protocol is None else ((protocol * POINTS, (protocol + 1) * POINTS - 1),)


def of_icmp(family: Family, kind: int, code: int | None = None) -> Spans:
    """One type of ICMP, or one code of it."""
    first = icmp_of(family) * POINTS + kind * _CODES + (code or 0)
    return ((first, first if code is not None else first + _CODES - 1),)


# Neighbour discovery, multicast listeners and what only routers say: decided whatever the rules say.
STANDING = {
    Family.IPV4: union(span for kind in ICMP_ROUTER_ONLY for span in of_icmp(Family.IPV4, kind)),
    Family.IPV6: union(
        span
        for kind in ICMPV6_FROM_ENDPOINT | ICMPV6_TO_ENDPOINT | ICMPV6_ROUTER_ONLY
        for span in of_icmp(Family.IPV6, kind)
    ),
}


def of_rule(rule: Rule) -> Spans:
    """What a rule is for; nothing where Open vSwitch could not match it."""
    if rule.ports is not None and rule.ports not in ANY_PORT:
        if rule.protocol is None or rule.protocol in UNMATCHABLE_PORTS:
            return ()
        return ((rule.protocol * POINTS + rule.ports.first, rule.protocol * POINTS + rule.ports.last),)
    if rule.icmp_type is not None:
        return of_icmp(rule.family, rule.icmp_type, rule.icmp_code)
    return of_protocol(rule.protocol)


def parse(text: str, family: Family) -> Spans:
    """Read `tcp`, `tcp/443`, `udp/5000-5999`, `icmp`, `icmp/8/0`, `ipv6-icmp/128`, `ping`, `gre`, `47`, `any`.

    `icmp` is the ICMP of the family, but with a type it is IPv4's.  Nothing, for what is not of the family.  Raises
    ValueError, with a message for the user, for anything else.

    >>> parse("tcp/80-81", Family.IPV4) == ((6 * POINTS + 80, 6 * POINTS + 81),)
    True
    >>> parse("icmp/8", Family.IPV6)
    ()
    """
    if text.lower() == PING:
        return of_icmp(family, ECHO_REQUEST[family])
    word, *details = text.split("/")
    protocol = protocols.number(word)
    if not details:
        return _whole(protocol, family)
    if protocol in protocols.WITH_PORTS and len(details) == 1:
        first, last = _numbers(details[0], text, _HIGHEST_PORT)
        return ((protocol * POINTS + first, protocol * POINTS + last),)
    if protocol in {ICMP, ICMPV6} and len(details) <= 2:  # noqa: PLR2004 - type and code
        kind, *codes = [_numbers(detail, text, _CODES - 1, ranges=False)[0] for detail in details]
        return of_icmp(family, kind, *codes) if protocol == icmp_of(family) else ()
    raise ValueError(f"{text!r} {_NO_SERVICE}")


def _whole(protocol: int | None, family: Family) -> Spans:
    if protocol == ICMP:
        return of_protocol(icmp_of(family))
    if family is Family.IPV4 and protocol in protocols.IPV6_ONLY:
        return ()
    return of_protocol(protocol)


def _numbers(text: str, service: str, highest: int, *, ranges: bool = True) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?" if ranges else "([0-9]{1,5})()", text)
    if not found:
        raise ValueError(f"{service!r} {_NO_SERVICE}")
    first, last = int(found[1]), int(found[2] or found[1])
    if first > last:
        raise ValueError(f"{service!r} is not a service: the range is backwards")
    if last > highest:
        raise ValueError(f"{service!r} is not a service: the highest number here is {highest}")
    return first, last


def example(spans: Spans, family: Family) -> int:
    """The service of a set, which is not empty, that people know best."""
    for wanted in (*(of_protocol(protocol) for protocol in (TCP, UDP)), of_icmp(family, ECHO_REQUEST[family])):
        known = intersection(spans, wanted)
        if known:
            first, last = known[0]
            return min(first + 1, last) if first % POINTS == 0 else first  # port 0 is no port
    return spans[0][0]


def show(point: int, family: Family) -> str:
    """One service.

    >>> show(6 * POINTS + 443, Family.IPV4), show(8 * 256 + POINTS, Family.IPV4), show(47 * POINTS, Family.IPV4)
    ('tcp/443', 'icmp/8/0', 'gre')
    """
    protocol, detail = divmod(point, POINTS)
    if protocol in protocols.WITH_PORTS:
        return f"{protocols.name(protocol)}/{detail}"
    if protocol == icmp_of(family):
        return f"icmp/{detail // _CODES}/{detail % _CODES}"
    return protocols.name(protocol)


def source_ports(rules: Iterable[Rule]) -> list[int]:
    """One source port of each kind that the rules tell apart, none of DHCP's; a usual one stands first."""
    ranges = {((rule.source_ports.first, rule.source_ports.last),) for rule in rules if rule.source_ports is not None}
    kinds: dict[frozenset[Spans], int] = {}
    for first, last in ((SOURCE_PORT, SOURCE_PORT), *cut(_SOURCE_PORTS, ranges)):
        kinds.setdefault(frozenset(spans for spans in ranges if contains(spans, first)), min(first, last))
    return list(kinds.values())


class End(NamedTuple):
    """A port (None: a machine outside) and its address."""

    port: str | None
    address: Prefix


def connection(point: int, ends: tuple[End, End], source_port: int = SOURCE_PORT) -> Connection:
    """The connection that asks for a service, from one end to the other."""
    (sender, source), (receiver, destination) = ends
    protocol, detail = divmod(point, POINTS)
    made = Connection(sender, receiver, source, destination, protocol)
    if protocol in protocols.WITH_PORTS:
        return Connection(sender, receiver, source, destination, protocol, source_port, detail)
    if protocol == icmp_of(source.family):
        kind, code = divmod(detail, _CODES)
        return Connection(sender, receiver, source, destination, protocol, icmp_type=kind, icmp_code=code)
    return made
