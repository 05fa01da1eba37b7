"""Tiers: what a document may say of them, and what they mean."""

from __future__ import annotations

import pytest

from ovsfw.errors import PolicyError
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.document import parse, warnings
from ovsfw.policy.model import (
    Action,
    Direction,
    Policy,
    Port,
    PortRange,
    Position,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)
from ovsfw.policy.tiers import MAX_LOOKUPS
from ovsfw.policy.verdict import DHCP_SERVER, Connection, Judgement, verdict

P = Prefix.parse
OUT, IN = Direction.EGRESS, Direction.INGRESS
SENDER, HERE = P("192.0.2.9"), P("10.0.0.1")
ALLOW, DENY, REJECT, PASS = Action


def rule(name: str, action: Action, port: int | None = None, direction: Direction = IN) -> Rule:
    ports = None if port is None else PortRange(port, port)
    return Rule(name, direction, Family.IPV4, 6 if port else None, ports, action=action)


def tier(name: str, *rules: Rule, position: Position = Position.BEFORE, groups: tuple[str, ...] | None = None) -> Tier:
    return Tier(name, position=position, applies_to=groups, rules=rules)


def after(name: str, *rules: Rule) -> Tier:
    return tier(name, *rules, position=Position.AFTER)


def judge(*tiers: Tier, port: int = 80, groups: tuple[str, ...] = ("web",), secure: bool = True) -> Judgement:
    """What the receiver says of a TCP connection; its group web allows ports 80 and 81."""
    web = SecurityGroup("web", rules=(rule("web-80", ALLOW, 80), rule("web-81", ALLOW, 81)))
    here = Port("here", 0x525400000001, (HERE,), security_groups=groups, port_security=secure)
    policy = Policy({"here": here}, {"web": web, "other": SecurityGroup("other")}, {}, tiers)
    return verdict(policy, Connection(None, "here", SENDER, HERE, 6, 40000, port)).ingress


def outcome(*tiers: Tier, port: int = 80, groups: tuple[str, ...] = ("web",)) -> str:
    """Allowed or not, and by which rules."""
    said = judge(*tiers, port=port, groups=groups)
    return f"{'yes' if said.allowed else 'no'} {' '.join(rule.id for rule in said.rules)}".strip()


@pytest.mark.parametrize(
    ("tiers", "port", "expected"),
    [
        ((), 80, "yes web-80"),
        ((), 22, "no"),
        ((tier("t", rule("d", DENY, 80)),), 80, "no d"),
        ((tier("t", rule("d", DENY, 80)),), 81, "yes web-81"),
        ((tier("t", rule("r", REJECT)),), 80, "no r"),
        ((tier("t", rule("a", ALLOW)),), 22, "yes a"),
        ((tier("t", rule("a", ALLOW)),), 80, "yes a"),
        # The first rule of a tier that matches, and the first tier.
        ((tier("t", rule("a", ALLOW, 80), rule("d", DENY)),), 80, "yes a"),
        ((tier("t", rule("a", ALLOW, 80), rule("d", DENY)),), 81, "no d"),
        ((tier("t", rule("d", DENY), rule("a", ALLOW, 80)),), 80, "no d"),
        ((tier("t", rule("a", ALLOW)), tier("u", rule("d", DENY))), 80, "yes a"),
        ((tier("t", rule("a", ALLOW, 9)), tier("u", rule("d", DENY))), 80, "no d"),
        # A pass skips the rest of its tier and the other tiers before the groups, but not those after.
        ((tier("t", rule("p", PASS), rule("d", DENY)),), 80, "yes web-80"),
        ((tier("t", rule("p", PASS)), tier("u", rule("d", DENY))), 80, "yes web-80"),
        ((tier("t", rule("p", PASS)), tier("u", rule("a", ALLOW))), 22, "no"),
        ((tier("t", rule("p", PASS)), after("u", rule("a", ALLOW))), 22, "yes a"),
        # After the groups, and only for what they have not allowed.
        ((after("t", rule("d", DENY)),), 80, "yes web-80"),
        ((after("t", rule("d", DENY)),), 22, "no d"),
        ((after("t", rule("a", ALLOW)),), 22, "yes a"),
        ((after("t", rule("p", PASS), rule("a", ALLOW)),), 22, "no"),
        ((after("t", rule("p", PASS)), after("u", rule("a", ALLOW))), 22, "yes a"),
        # Before is before, wherever it stands in the document.
        ((after("t", rule("a", ALLOW)), tier("u", rule("d", DENY))), 22, "no d"),
        # Other directions, other groups.
        ((tier("t", rule("d", DENY, direction=OUT)),), 80, "yes web-80"),
        ((tier("t", rule("d", DENY), groups=("other",)),), 80, "yes web-80"),
        ((tier("t", rule("d", DENY), groups=("other", "web")),), 80, "no d"),
        ((tier("t", rule("d", DENY), groups=()),), 80, "yes web-80"),
    ],
)
def test_the_first_last_word_counts(tiers: tuple[Tier, ...], port: int, expected: str) -> None:
    assert outcome(*tiers, port=port) == expected


def test_a_tier_for_everybody_is_also_for_ports_without_groups() -> None:
    assert outcome(tier("t", rule("a", ALLOW)), groups=()) == "yes a"
    assert outcome(tier("t", rule("a", ALLOW), groups=("web",)), groups=()) == "no"


def test_a_port_without_port_security_has_no_tiers() -> None:
    assert judge(tier("t", rule("d", DENY)), groups=(), secure=False).allowed


def test_a_judgement_names_its_tier() -> None:
    denying = tier("t", rule("d", DENY))
    said = judge(denying)
    assert (said.tier, said.rules, said.is_rejected) == (denying, denying.rules, False)
    assert said.reason == "rule d of tier t denies it"
    said = judge(tier("t", rule("r", REJECT)))
    assert (said.reason, said.is_rejected) == ("rule r of tier t rejects it", True)
    assert judge(tier("t", rule("a", ALLOW))).reason == ""
    assert judge().tier is None


def test_standing_allowances_and_the_spoof_guard_come_before_the_tiers() -> None:
    deny, allow = tier("t", rule("d", DENY), rule("o", DENY, direction=OUT)), tier("t", rule("o", ALLOW, direction=OUT))
    here = Port("here", 0x525400000001, (HERE,))
    reply = Connection(None, "here", SENDER, HERE, 17, *DHCP_SERVER[Family.IPV4])
    assert verdict(Policy({"here": here}, tiers=(deny,)), reply).allowed
    forged = Connection("here", None, P("10.0.0.2"), SENDER, 6, 1, 2)
    assert not verdict(Policy({"here": here}, tiers=(allow,)), forged).allowed


DOCUMENT = """
security_groups:
  - {id: "1", name: web}
  - {id: "2"}
address_groups:
  - {id: office, addresses: [192.0.2.0/24]}
tiers:
  - id: zulu
    name: first
    applies_to: ["2", web]
    rules:
      - {direction: ingress, action: deny, protocol: tcp, port_range_min: 80, port_range_max: 80}
      - {direction: ingress, action: allow, remote_address_group_id: office}
      - {direction: ingress, action: deny, protocol: tcp, port_range_min: 80, port_range_max: 80}
      - {id: own, direction: egress, action: pass, ethertype: IPv6, remote_group_id: web}
  - {name: alpha, position: after, rules: [{direction: ingress, action: reject}]}
ports:
  - {id: vm1, mac_address: 52:54:00:00:00:01, security_groups: [web]}
  - {id: vm2, mac_address: 52:54:00:00:00:02, security_groups: ["2"]}
"""


def test_a_document_keeps_the_order_of_tiers_and_rules() -> None:
    first, second = parse(DOCUMENT, "t").tiers
    made = "tier:zulu/deny-ingress-ipv4-tcp-80"
    assert first == Tier(
        "zulu",
        "first",
        Position.BEFORE,
        ("1", "2"),
        (
            Rule(made, IN, Family.IPV4, 6, PortRange(80, 80), action=DENY),
            Rule(
                "tier:zulu/allow-ingress-ipv4-any-from-addresses:office",
                IN,
                Family.IPV4,
                remote=RemoteAddressGroup("office"),
            ),
            Rule("own", OUT, Family.IPV6, remote=RemoteGroup("1"), action=PASS),
        ),
    )
    reject = Rule("tier:alpha/reject-ingress-ipv4-any", IN, Family.IPV4, action=REJECT)
    assert second == Tier("alpha", "alpha", Position.AFTER, None, (reject,))
    assert warnings(parse(DOCUMENT, "t")) == []


def test_tiers_that_do_nothing_are_warned_of() -> None:
    text = """
security_groups: [{id: web}]
tiers: [{id: empty}, {id: nobody, applies_to: [], rules: [&deny {direction: ingress, action: deny}]},
        {id: unused, applies_to: [web], rules: [*deny]}]
"""
    assert warnings(parse(text, "t")) == [
        "tier empty does nothing: it has no rules",
        "tier nobody does nothing: applies_to is empty; leave it out to mean every port",
        "tier unused applies to the security group web, which no port has",
    ]


def many(tiers: int, rules: int) -> str:
    """A document with tiers for a port with two groups."""
    ports = "security_groups: [{id: a}, {id: b}]\n"
    ports += "ports: [{id: vm1, mac_address: 52:54:00:00:00:01, security_groups: [a, b]}]\ntiers:\n"
    rule_text = "      - {direction: ingress, action: deny, protocol: tcp, port_range_min: %d, port_range_max: 65535}\n"
    rules_text = "".join(rule_text % (number + 1) for number in range(rules))
    return ports + "".join(f"  - id: tier-{number}\n    rules:\n{rules_text}" for number in range(tiers))


def test_more_than_open_vswitch_takes_is_refused() -> None:
    most = (MAX_LOOKUPS - 2 - 4) // 2
    parse(many(2, most), "t")
    with pytest.raises(PolicyError, match=r"tiers: port vm1 has 2 tiers with 1,146 IPv4 ingress rules; .* 1,150 tiers"):
        parse(many(2, most + 1), "t")
