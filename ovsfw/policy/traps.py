"""Rules that do less than they seem to: for one IP version only, or in a stateless group without a way for answers."""

from __future__ import annotations

from collections.abc import Iterator

from ovsfw.policy import services
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.finding import Finding, Severity
from ovsfw.policy.model import Direction, Policy, RemoteAddressGroup, Rule, SecurityGroup
from ovsfw.policy.protocols import WITH_PORTS
from ovsfw.policy.reach import addresses_of
from ovsfw.policy.spans import difference, union

# Where Linux begins connections (net.ipv4.ip_local_port_range): answers must be able to go there.
EPHEMERAL = (32768, 60999)
_OTHER = {Direction.INGRESS: Direction.EGRESS, Direction.EGRESS: Direction.INGRESS}


def one_family(policy: Policy, group: SecurityGroup) -> Iterator[Finding]:
    """Rules that say nothing of the other IP version, which ports of the group have addresses of.

    A prefix is of one version by its nature, and ICMP differs.
    """
    of_ports = {
        address.family
        for port in policy.ports.values()
        if group.id in port.security_groups
        for address in port.fixed_ips
    }
    for rule in group.rules:
        other = Family.IPV6 if rule.family is Family.IPV4 else Family.IPV4
        if other not in of_ports or not _speaks_of_both(policy, rule) or _is_said(group, rule, other):
            continue
        said = f"is for {rule.family.ethertype} only, and ports of the group have {other.ethertype} addresses, too"
        advice = f"add the same rule for {other.ethertype}, if that is meant"
        yield Finding("one-family", Severity.NOTE, ("rules", rule.id), said, advice)


def _speaks_of_both(policy: Policy, rule: Rule) -> bool:
    """Whether its service and its remote are things of both IP versions."""
    if rule.protocol == services.icmp_of(rule.family):
        return False
    if isinstance(rule.remote, RemoteAddressGroup):
        return len({prefix.family for prefix in policy.members(rule.remote)}) > 1
    return not isinstance(rule.remote, Prefix)


def _is_said(group: SecurityGroup, rule: Rule, family: Family) -> bool:
    others = (
        other
        for other in group.rules
        if (other.direction, other.family) == (rule.direction, family) and other.remote in (None, rule.remote)
    )
    return not difference(services.of_rule(rule), union(span for other in others for span in services.of_rule(other)))


def stateless_answers(policy: Policy, group: SecurityGroup) -> Iterator[Finding]:
    """Rules of a stateless group whose answers some port must not send, or get: nobody remembers the question."""
    if group.stateful:
        return
    # Ports with the same groups are judged once.
    lists = {port.security_groups for port in policy.ports.values() if group.id in port.security_groups}
    for rule in group.rules:
        if rule.protocol not in WITH_PORTS:
            continue
        if any(not _may_answer(policy, rule, groups) for groups in sorted(lists or {(group.id,)})):
            way = "out" if rule.direction is Direction.INGRESS else "in"
            said = f"is stateless, and no rule lets the answers {way} again, to ports from {EPHEMERAL[0]} up"
            advice = f"add an {_OTHER[rule.direction].value} rule for the answers, or make the group stateful"
            yield Finding("stateless-answers", Severity.WARNING, ("rules", rule.id), said, advice)


def _may_answer(policy: Policy, rule: Rule, groups: tuple[str, ...]) -> bool:
    """Whether rules of some groups let the answers to all that a rule allows pass."""
    base = (rule.protocol or 0) * services.POINTS
    answers = ((base + EPHEMERAL[0], base + EPHEMERAL[1]),)
    fitting = [
        other
        for name in groups
        for other in policy.security_groups[name].rules
        if (other.direction, other.family) == (_OTHER[rule.direction], rule.family)
        and not difference(answers, services.of_rule(other))
    ]
    if any(other.remote in (None, rule.remote) for other in fitting):
        return True
    reached = union(span for other in fitting for span in addresses_of(policy, other))
    return not difference(addresses_of(policy, rule), reached)
