"""IP protocols by name and by number, as the Neutron API takes them.

The names are those of `neutron_lib.constants.IP_PROTOCOL_MAP`; the numbers are IANA's
(https://www.iana.org/assignments/protocol-numbers).
"""

from __future__ import annotations

import difflib

from ovsfw.policy.addresses import Family
from ovsfw.policy.verdict import ICMP, ICMPV6, MATCHABLE_PORTS, UNMATCHABLE_PORTS

NUMBERS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": ICMP,
    "icmpv6": ICMPV6,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": ICMPV6,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
# Two names for one number: these are the second names, which we read but do not write.
_SECOND_NAMES = frozenset({"icmpv6", "ip"})
_NAMES = {number: name for name, number in NUMBERS.items() if name not in _SECOND_NAMES}
ANY = "any"
HIGHEST = 255
WITH_PORTS = MATCHABLE_PORTS | UNMATCHABLE_PORTS
# Neutron refuses these in IPv4 rules, by name and by number.
IPV6_ONLY = frozenset({41, 43, 44, ICMPV6, 59, 60})


def number(value: str | int) -> int | None:
    """The number of a protocol given by name (in any case) or number; None for `any`.

    Raises ValueError, with a message for the user, for anything else.

    >>> number("TCP"), number("6"), number(6), number("any")
    (6, 6, 6, None)
    """
    text = str(value).lower()
    if text == ANY:
        return None
    if text in NUMBERS:
        return NUMBERS[text]
    if text.isascii() and text.isdigit() and len(text) <= len(str(HIGHEST)) and int(text) <= HIGHEST:
        return int(text)
    near = difflib.get_close_matches(text, NUMBERS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use a name like tcp, a number from 0 to {HIGHEST}, or any"
    raise ValueError(f"{value!r} is not a protocol; {hint}")


def name(protocol: int | None) -> str:
    """What to call a protocol when we speak of it: `tcp`, `253`, `any`.

    >>> name(58), name(253), name(None)
    ('ipv6-icmp', '253', 'any')
    """
    return ANY if protocol is None else _NAMES.get(protocol, str(protocol))


def in_family(protocol: int | None, family: Family) -> int | None:
    """The protocol that a rule of a family means: `icmp` in an IPv6 rule is ICMPv6, as in Neutron.

    Raises ValueError, with a message for the user, for a protocol of IPv6 in an IPv4 rule.

    >>> in_family(1, Family.IPV6)
    58
    """
    if family is Family.IPV6:
        return ICMPV6 if protocol == ICMP else protocol
    if protocol in IPV6_ONLY:
        raise ValueError(f"{name(protocol)} is not a protocol of {family.ethertype}; the rule needs ethertype: IPv6")
    return protocol
