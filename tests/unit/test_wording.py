"""How things are said."""

from __future__ import annotations

import pytest

from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import (
    Action,
    AddressGroup,
    Direction,
    Policy,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)
from ovsfw.policy.verdict import ICMP, ICMPV6, TCP, Connection
from ovsfw.policy.wording import connection_text, rule_text

IN, OUT = Direction.INGRESS, Direction.EGRESS


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule("r", IN, Family.IPV4), "web: anything from anywhere"),
        (Rule("r", IN, Family.IPV4, TCP, PortRange(80, 81)), "web: tcp/80-81 from anywhere"),
        (Rule("r", OUT, Family.IPV4, TCP, PortRange(1, 65535)), "web: tcp to anywhere"),
        (Rule("r", IN, Family.IPV6, ICMPV6, icmp_type=128, icmp_code=0), "web: icmp/128/0 from anywhere"),
        (Rule("r", IN, Family.IPV4, 47, remote=RemoteGroup("g")), "web: gre from group web"),
        (Rule("r", IN, Family.IPV4, remote=RemoteAddressGroup("a")), "web: anything from addresses office"),
        (Rule("r", OUT, Family.IPV4, remote=Prefix.parse("10.0.0.0/8")), "web: anything to 10.0.0.0/8"),
    ],
)
def test_rules(rule: Rule, text: str) -> None:
    policy = Policy({}, {"g": SecurityGroup("g", "web", rules=(rule,))}, {"a": AddressGroup("a", "office")})
    assert rule_text(policy, rule) == text


def test_a_rule_of_a_tier_says_what_it_does() -> None:
    rule = Rule("r", OUT, Family.IPV4, TCP, action=Action.DENY)
    assert rule_text(Policy(tiers=(Tier("t", "base", rules=(rule,)),)), rule) == "base: deny tcp to anywhere"


@pytest.mark.parametrize(
    ("family", "protocol", "text"),
    [
        (4, TCP, "tcp 10.0.0.1:4000 -> 10.0.0.2:22"),
        (6, TCP, "tcp [::1]:4000 -> [::2]:22"),
        (4, ICMP, "icmp/8/0 10.0.0.1 -> 10.0.0.2"),
        (6, ICMPV6, "icmp/8/0 ::1 -> ::2"),
        (4, 47, "gre 10.0.0.1 -> 10.0.0.2"),
    ],
)
def test_connections(family: int, protocol: int, text: str) -> None:
    source, target = (Prefix.parse(f"10.0.0.{last}" if family == 4 else f"::{last}") for last in (1, 2))
    assert connection_text(Connection(None, None, source, target, protocol, 4000, 22, icmp_type=8)) == text
