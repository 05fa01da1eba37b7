"""The oracle, checked by hand: what a policy means, said in a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovsfw.policy.addresses import Family, Prefix, link_local, parse_mac
from ovsfw.policy.model import (
    AddressGroup,
    Claim,
    Direction,
    Policy,
    Port,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)
from ovsfw.policy.verdict import Connection, matches, verdict

P = Prefix.parse
A, B, FAR = P("10.0.0.1"), P("10.0.0.2"), P("192.0.2.9")
A6, B6, FAR6 = P("2001:db8::1"), P("2001:db8::2"), P("2001:db8:f::9")
MAC_A, MAC_B = 0x525400000001, 0x525400000002


def policy_with(*rules: Rule, **port: object) -> Policy:
    """a has no rules but egress to anywhere, b has `rules`; b's attributes can be changed."""
    opened = tuple(Rule(f"out-{int(family)}", Direction.EGRESS, family) for family in Family)
    b = Port("b", MAC_B, (B, B6), (), ("g",))
    return Policy(
        {"a": Port("a", MAC_A, (A, A6), (), ("open",)), "b": replace(b, **port)},  # type: ignore[arg-type]
        {"g": SecurityGroup("g", rules=rules), "open": SecurityGroup("open", rules=opened)},
        {"set": AddressGroup("set", "", (P("192.0.2.0/28"), P("2001:db8:f::/48")))},
    )


def ingress(family: Family = Family.IPV4, remote: Remote = None, **match: object) -> Rule:
    return Rule("in", Direction.INGRESS, family, remote=remote, **match)  # type: ignore[arg-type]


def tcp(port: int, source: Prefix = A, destination: Prefix = B, sender: str | None = "a") -> Connection:
    return Connection(sender, "b", source, destination, 6, 40000, port)


V6 = Family.IPV6
RULES = [
    (ingress(), tcp(80), True),
    (ingress(protocol=6), tcp(80), True),
    (ingress(protocol=17), tcp(80), False),
    (ingress(protocol=6, ports=PortRange(80, 81)), tcp(79), False),
    (ingress(protocol=6, ports=PortRange(80, 81)), tcp(80), True),
    (ingress(protocol=6, ports=PortRange(80, 81)), tcp(81), True),
    (ingress(protocol=6, ports=PortRange(80, 81)), tcp(82), False),
    (ingress(protocol=6, ports=PortRange(1, 65535)), tcp(0), True),
    (ingress(V6), tcp(80), False),
    (ingress(V6), tcp(80, A6, B6), True),
    (ingress(remote=P("10.0.0.0/31")), tcp(80), True),
    (ingress(remote=P("10.0.0.2/31")), tcp(80), False),
    (ingress(remote=RemoteGroup("open")), tcp(80), True),
    (ingress(remote=RemoteGroup("g")), tcp(80), False),
    (ingress(remote=RemoteAddressGroup("set")), tcp(80, FAR, B, None), True),
    (ingress(remote=RemoteAddressGroup("set")), tcp(80, P("192.0.2.16"), B, None), False),
    (ingress(V6, remote=RemoteAddressGroup("set")), tcp(80, FAR6, B6, None), True),
    # Open vSwitch cannot match these ports: the rule admits nothing, but all ports of the protocol it can.
    (ingress(protocol=33, ports=PortRange(5, 5)), Connection("a", "b", A, B, 33, 1, 5), False),
    (ingress(protocol=33, ports=PortRange(1, 65535)), Connection("a", "b", A, B, 33, 1, 5), True),
    (ingress(protocol=136), Connection("a", "b", A, B, 136, 1, 5), True),
    (ingress(protocol=1, icmp_type=8), Connection("a", "b", A, B, 1, icmp_type=8), True),
    (ingress(protocol=1, icmp_type=8), Connection("a", "b", A, B, 1, icmp_type=13), False),
    (ingress(protocol=1, icmp_type=3, icmp_code=4), Connection("a", "b", A, B, 1, icmp_type=3, icmp_code=3), False),
    (ingress(protocol=1, icmp_type=3, icmp_code=4), Connection("a", "b", A, B, 1, icmp_type=3, icmp_code=4), True),
]


@pytest.mark.parametrize(("rule", "connection", "allowed"), RULES)
def test_rules(rule: Rule, connection: Connection, allowed: bool) -> None:  # noqa: FBT001
    said = verdict(policy_with(rule), connection)
    assert said.allowed is allowed
    assert said.ingress.rules == ((rule,) if allowed else ())
    assert bool(said.ingress.reason) is not allowed


def test_every_rule_that_allows_is_named() -> None:
    one, two = replace(ingress(), id="one"), replace(ingress(protocol=6), id="two")
    assert verdict(policy_with(one, two), tcp(80)).ingress.rules == (one, two)


def test_a_rule_of_the_other_direction_says_nothing() -> None:
    outward = Rule("out", Direction.EGRESS, Family.IPV4, remote=P("10.0.0.2"))
    policy = policy_with(outward)
    assert not verdict(policy, tcp(80)).allowed
    assert matches(policy, outward, tcp(80))
    assert not matches(policy, outward, Connection("b", None, B, FAR, 6, 1, 2))


def test_no_group_denies_and_no_port_security_allows() -> None:
    assert not verdict(policy_with(ingress(), security_groups=()), tcp(80)).allowed
    assert (
        verdict(policy_with(security_groups=(), port_security=False), tcp(80)).ingress.reason == "port security is off"
    )
    spoofing = Connection("b", None, FAR, A, 6, 1, 2)
    assert verdict(policy_with(security_groups=(), port_security=False), spoofing).allowed


def test_the_world_outside_is_not_judged() -> None:
    said = verdict(policy_with(), Connection("a", None, A, FAR, 6, 1, 2))
    assert said.allowed
    assert said.ingress.reason == "outside this policy"
    assert not verdict(policy_with(), Connection(None, "b", FAR, B, 6, 1, 2)).allowed


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        (A, True),
        (B, False),
        (A6, True),
        (link_local(MAC_A), True),
        (link_local(MAC_B), False),
        (P("10.7.0.9"), True),
        (P("10.8.0.9"), False),
        (P("0.0.0.0"), False),
        (P("::"), False),
    ],
)
def test_a_port_sends_only_from_what_it_claims(source: Prefix, allowed: bool) -> None:  # noqa: FBT001
    policy = policy_with()
    a = replace(policy.ports["a"], pairs=(Claim(MAC_A, P("10.7.0.0/16")),))
    far = FAR if source.family is Family.IPV4 else FAR6
    said = verdict(replace(policy, ports={"a": a}), Connection("a", None, source, far, 6, 1, 2))
    assert said.allowed is allowed


def test_an_allowed_pair_of_the_whole_world_makes_nobody_a_member() -> None:
    world = (Claim(MAC_A, P("0.0.0.0/0")), Claim(MAC_A, P("10.7.0.0/16")))
    policy = policy_with(ingress(remote=RemoteGroup("open")))
    policy = replace(policy, ports={**policy.ports, "a": replace(policy.ports["a"], pairs=world)})
    assert not verdict(policy, tcp(80, FAR, B, None)).allowed
    assert verdict(policy, tcp(80, P("10.7.1.1"), B, None)).allowed
    assert verdict(policy, Connection("a", None, P("198.51.100.1"), FAR, 6, 1, 2)).allowed


def dhcp(source: Prefix, ports: tuple[int, int], destination: Prefix, sender: str | None = "b") -> Connection:
    receiver = None if sender else "b"
    return Connection(sender, receiver, source, destination, 17, *ports)


BROADCAST = P("255.255.255.255")


@pytest.mark.parametrize(
    ("connection", "allowed"),
    [
        (dhcp(P("0.0.0.0"), (68, 67), BROADCAST), True),
        (dhcp(P("0.0.0.0"), (68, 67), FAR), False),
        (dhcp(B, (68, 67), FAR), True),
        (dhcp(FAR, (68, 67), A), False),
        (dhcp(B, (67, 68), A), False),
        (dhcp(link_local(MAC_B), (546, 547), P("ff02::1:2")), True),
        (dhcp(P("::"), (546, 547), P("ff02::1:2")), False),
        (dhcp(link_local(MAC_B), (547, 546), A6), False),
        (dhcp(FAR, (67, 68), B, None), True),
        (dhcp(FAR6, (547, 546), B6, None), True),
        (dhcp(FAR, (67, 69), B, None), False),
    ],
)
def test_dhcp_needs_no_rule_and_no_rule_makes_a_server(connection: Connection, allowed: bool) -> None:  # noqa: FBT001
    everything = tuple(Rule(f"{d.value}{f}", d, f) for d in Direction for f in Family)
    assert verdict(policy_with(), connection).allowed is allowed
    if "67" in str(connection.source_port) or connection.source_port == 547:
        assert verdict(policy_with(*everything), connection).egress.allowed is (connection.sender is None)


@pytest.mark.parametrize(
    ("kind", "code", "sender", "source", "allowed"),
    [
        (135, 0, "b", B6, True),
        (136, 0, "b", B6, True),
        (135, 1, "b", B6, False),
        (135, 0, "b", P("::"), True),
        (136, 0, "b", P("::"), False),
        (133, 0, "b", link_local(MAC_B), True),
        (143, 0, "b", P("::"), True),
        (130, 0, "b", P("::"), False),
        (134, 0, "b", link_local(MAC_B), False),
        (137, 0, "b", link_local(MAC_B), False),
        (128, 0, "b", B6, False),
        (134, 0, None, FAR6, True),
        (136, 0, None, FAR6, True),
        (137, 0, None, FAR6, False),
        (128, 0, None, FAR6, False),
    ],
)
def test_neighbour_discovery(kind: int, code: int, sender: str | None, source: Prefix, allowed: bool) -> None:  # noqa: FBT001
    receiver = None if sender else "b"
    packet = Connection(sender, receiver, source, P("ff02::1"), 58, icmp_type=kind, icmp_code=code)
    assert verdict(policy_with(), packet).allowed is allowed


def test_a_reply_is_the_connection_turned_round() -> None:
    back = tcp(80).reversed()
    assert (back.sender, back.receiver, back.source, back.destination) == ("b", "a", B, A)
    assert (back.source_port, back.destination_port) == (80, 40000)
    assert Connection("a", "b", A, B, 1, icmp_type=8).reversed().icmp_type == 0
    assert Connection("a", "b", A6, B6, 58, icmp_type=128).reversed().icmp_type == 129
    assert Connection("a", "b", A6, B6, 58, icmp_type=135).reversed().icmp_type == 135


def test_stateless_is_a_property_of_all_groups_of_a_port() -> None:
    policy = policy_with()
    assert not policy.is_stateless(policy.ports["b"])
    assert not policy.is_stateless(replace(policy.ports["b"], security_groups=()))
    loose = {"g": replace(policy.security_groups["g"], stateful=False)}
    assert replace(policy, security_groups=loose).is_stateless(policy.ports["b"])


def test_macs_are_read_in_the_usual_ways() -> None:
    for text in ("52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "5254.00ab.cd01"):
        assert parse_mac(text) == 0x525400ABCD01


@pytest.mark.parametrize(
    "text", ["", "52:54:00", "52:54-00:00:00:01", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]
)
def test_no_port_has_such_a_mac(text: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        parse_mac(text)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.1/33", "300.1.1.1", "2001:db8::/129", "web"])
def test_no_prefix_is_written_so(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP"):
        P(text)


def test_values_print_as_people_write_them() -> None:
    assert [str(P(text)) for text in ("10.0.0.7/8", "10.0.0.7", "2001:DB8::/32")] == [
        "10.0.0.0/8",
        "10.0.0.7",
        "2001:db8::/32",
    ]
    assert [str(PortRange(*pair)) for pair in ((80, 80), (80, 81))] == ["80", "80-81"]
    assert Family.IPV6.ethertype == "IPv6"
