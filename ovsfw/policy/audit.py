"""A least-privilege review: what a policy opens further than it surely means to, and what in it does nothing.

A finding has a stable id, its kind and the id of what it is about, so that it can be told apart from day to day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ovsfw.policy import services
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.finding import Finding, Severity
from ovsfw.policy.model import (
    Action,
    AddressGroup,
    Direction,
    Policy,
    Port,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)
from ovsfw.policy.reach import addresses_of, whole
from ovsfw.policy.rules import unmatchable
from ovsfw.policy.spans import Spans, cut, difference, intersection, union
from ovsfw.policy.traps import one_family, stateless_answers
from ovsfw.policy.wording import service_text

# Services by which a machine is taken over or its data read, when anybody may ask for them.
ADMIN_SERVICES = {
    "tcp/22": "SSH", "tcp/23": "Telnet", "tcp/445": "SMB", "tcp/1433": "SQL Server", "tcp/1521": "Oracle",
    "tcp/2375": "Docker", "tcp/2379": "etcd", "tcp/3306": "MySQL", "tcp/3389": "RDP", "tcp/5432": "PostgreSQL",
    "tcp/5900": "VNC", "tcp/5985": "WinRM", "tcp/6379": "Redis", "tcp/6640": "OVSDB", "tcp/9200": "Elasticsearch",
    "udp/11211": "memcached", "tcp/11211": "memcached", "tcp/27017": "MongoDB",
}  # fmt: skip


def audit(policy: Policy) -> list[Finding]:
    """Every finding, the worst first, then by id."""
    found: list[Finding] = []
    for group in policy.security_groups.values():
        found += _of_rules(policy, group)
        found += _of_group(policy, group)
        found += one_family(policy, group)
        found += stateless_answers(policy, group)
    for tier in policy.tiers:
        found += _of_tier(policy, tier)
    for addresses in policy.address_groups.values():
        found += _of_address_group(policy, addresses)
    for port in policy.ports.values():
        found += _of_port(port)
    return sorted(found, key=lambda finding: (-finding.severity, finding.id))


def _of_rules(policy: Policy, group: SecurityGroup) -> Iterator[Finding]:
    for rule in group.rules:
        about = "rules", rule.id
        yield from _world_open(policy, group.rules, rule)
        yield from _of_remote(policy, rule)
        # Of two equal rules, the second is shadowed.
        others = [
            other for other in group.rules if other is not rule and not (_same(other, rule) and other.id > rule.id)
        ]
        if unmatchable(rule):
            said = "matches no packet, for Open vSwitch cannot match what it asks for"
            yield Finding("allows-nothing", Severity.WARNING, about, said, "leave the ports out, or take the rule away")
        elif by := _shadowing(policy, others, rule):
            listed = ", ".join(other.id for other in by)
            said = f"allows nothing that {listed} {'does' if len(by) == 1 else 'do'} not allow"
            yield Finding("shadowed", Severity.WARNING, about, said, "take it away, or narrow what shadows it")


def _of_tier(policy: Policy, tier: Tier) -> Iterator[Finding]:
    for number, rule in enumerate(tier.rules):
        yield from _world_open(policy, tier.rules, rule)
        yield from _of_remote(policy, rule)
        if by := _shadowing(policy, tier.rules[:number], rule):
            listed = ", ".join(other.id for other in by)
            said = f"is never asked: all that it is about is for {listed}, before it in the tier"
            yield Finding("unreachable", Severity.WARNING, ("rules", rule.id), said, "take it away, or move it up")


def _of_remote(policy: Policy, rule: Rule) -> Iterator[Finding]:
    remote = rule.remote
    if isinstance(remote, RemoteGroup) and not any(remote.id in port.security_groups for port in policy.ports.values()):
        said = f"is for the members of {remote.id}, which has none"
        advice = "take it away, or put ports into that group"
        yield Finding("empty-remote", Severity.NOTE, ("rules", rule.id), said, advice)


def _world_open(policy: Policy, rules: Iterable[Rule], rule: Rule) -> Iterator[Finding]:
    """Open to every address of its IP version, by itself or together with other rules of its group or tier."""
    if rule.direction is not Direction.INGRESS or rule.action is not Action.ALLOW:
        return
    about, asked = ("rules", rule.id), services.of_rule(rule)
    together = "" if rule.remote is None else "together with others "
    if rule.protocol is None and _is_for_everybody(policy, rules, rule, asked):
        said = f"{together}lets everybody in by any protocol ({rule.family.ethertype})"
        yield Finding("any-any", Severity.ERROR, about, said, "say which protocol and ports, and for whom")
        return
    parts = {text: intersection(services.parse(text, rule.family), asked) for text in ADMIN_SERVICES}
    admin = {
        ADMIN_SERVICES[text]: text
        for text, part in parts.items()
        if part and _is_for_everybody(policy, rules, rule, part)
    }
    if admin:
        listed = ", ".join(f"{name} ({text})" for name, text in admin.items())
        said = f"{together}lets everybody in to {listed} by {service_text(rule)} ({rule.family.ethertype})"
        advice = "name a remote: a bastion's group, an address group, a prefix"
        yield Finding("world-open", Severity.ERROR, about, said, advice)


def _is_for_everybody(policy: Policy, rules: Iterable[Rule], rule: Rule, asked: Spans) -> bool:
    """Whether a rule, or it together with others that name addresses, too, lets in every address for some services."""
    if rule.remote is None or isinstance(rule.remote, RemoteGroup):
        return rule.remote is None
    named = (
        other
        for other in rules
        if (other.direction, other.family, other.action) == (rule.direction, rule.family, Action.ALLOW)
        and isinstance(other.remote, (Prefix, RemoteAddressGroup))
        and not difference(asked, services.of_rule(other))
    )
    return union(span for other in named for span in addresses_of(policy, other)) == whole(rule.family)


def _shadowing(policy: Policy, rules: Iterable[Rule], rule: Rule) -> tuple[Rule, ...]:
    """Those of some rules that together are about all that a rule is about; none, if they are not.

    Members come and go, so the members of a group are only contained in themselves and in everybody.
    """
    others = [
        other
        for other in rules
        if (other.direction, other.family) == (rule.direction, rule.family)
        and other.source_ports in (None, rule.source_ports)
        and rule.helper in (None, other.helper)
        and _covers_remote(policy, other, rule)
        and intersection(services.of_rule(other), services.of_rule(rule))
    ]
    if isinstance(rule.remote, RemoteGroup):
        left = difference(services.of_rule(rule), union(span for other in others for span in services.of_rule(other)))
        return () if left else tuple(others)
    reached = {other.id: addresses_of(policy, other) for other in others}
    for first, last in cut(addresses_of(policy, rule), reached.values()):
        there = [other for other in others if intersection(((first, last),), reached[other.id])]
        if difference(services.of_rule(rule), union(span for other in there for span in services.of_rule(other))):
            return ()
    return tuple(others)


def _same(one: Rule, other: Rule) -> bool:
    return (services.of_rule(one), one.remote, one.source_ports, one.helper) == (
        services.of_rule(other),
        other.remote,
        other.source_ports,
        other.helper,
    )


def _covers_remote(policy: Policy, other: Rule, rule: Rule) -> bool:
    """Whether another rule's remote may have addresses in common with a rule's, whoever is a member today."""
    if other.remote is None or other.remote == rule.remote:
        return True
    if isinstance(other.remote, RemoteGroup) or isinstance(rule.remote, RemoteGroup):
        return False
    return bool(intersection(addresses_of(policy, other), addresses_of(policy, rule)))


def _of_group(policy: Policy, group: SecurityGroup) -> Iterator[Finding]:
    has_ports = any(group.id in port.security_groups for port in policy.ports.values())
    named = RemoteGroup(group.id)
    if not has_ports and not any(rule.remote == named for rule in policy.rules):
        said = "no port has it, and no rule names it"
        yield Finding("unused-group", Severity.NOTE, ("security_groups", group.id), said, "take it away")


def _of_address_group(policy: Policy, group: AddressGroup) -> Iterator[Finding]:
    about, named = ("address_groups", group.id), RemoteAddressGroup(group.id)
    if not any(rule.remote == named for rule in policy.rules):
        yield Finding("unused-addresses", Severity.NOTE, about, "no rule names it", "take it away")
    elif not group.prefixes:
        said = "rules name it, but it has no addresses, so they match nothing"
        yield Finding("empty-addresses", Severity.WARNING, about, said, "give it addresses, or take the rules away")


def _of_port(port: Port) -> Iterator[Finding]:
    about = "ports", port.id
    if not port.port_security:
        said = "port security is off: it sends from any address, and no rule is asked"
        yield Finding("unguarded", Severity.WARNING, about, said, "turn it on, with allowed address pairs where needed")
    elif not port.security_groups:
        said = "has no security group: only tiers can let anything in or out"
        yield Finding("no-groups", Severity.NOTE, about, said, "give it a group, if it is meant to be used")
    for prefix in sorted({pair.prefix for pair in port.pairs if pair.prefix.length == 0}):
        said = f"may send from any {prefix.family.ethertype} address, also that of another port"
        yield Finding("pairs-wide-open", Severity.ERROR, about, said, "name the prefixes that it needs")
