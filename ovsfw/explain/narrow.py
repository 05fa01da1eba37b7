"""What one host adds to an audit: rules that nobody uses, and how narrow a rule its live connections leave room for.

Pure.  What is not used here may be used on another host, or on another day, so these are notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ovsfw.explain.usage import Unused, Usage, unused
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.finding import Finding, Severity
from ovsfw.policy.model import Action, Direction, Policy, PortRange, RemoteGroup, Rule
from ovsfw.policy.protocols import WITH_PORTS
from ovsfw.policy.verdict import Connection
from ovsfw.policy.wording import remote_text, service_text


def unused_rules(found: Iterable[Usage], seconds: int, said: str) -> Iterator[Finding]:
    """Rules that let nothing in for some time, which `said` says in words."""
    for usage in found:
        if unused(usage, seconds) is Unused.UNUSED:
            text = f"was not hit for {said} by any endpoint of this host"
            advice = "take it away, if no other host needs it"
            yield Finding("unused-rule", Severity.NOTE, ("rules", usage.rule.id), text, advice)


def wider_than_used(policy: Policy, live: Iterable[tuple[Rule, Connection]]) -> Iterator[Finding]:
    """Rules that a narrower one could stand for, as far as the live connections say that each has let in."""
    admitted: dict[Rule, list[Connection]] = defaultdict(list)
    for rule, connection in live:
        # Data connections of a helper say nothing of the ports that its rule is for.
        admitted[rule].append(connection.control or connection)
    for rule, connections in admitted.items():
        needed = narrowest(policy, rule, connections)
        if rule.action is Action.ALLOW and needed != rule:
            count = len(connections)
            needs = f"{count} live connection{' needs' if count == 1 else 's need'}"
            text = f"allows {_text(policy, rule)}, but its {needs} only {_text(policy, needed)}"
            advice = "narrow it, if that is all that it is for"
            yield Finding("wider-than-used", Severity.NOTE, ("rules", rule.id), text, advice)


def narrowest(policy: Policy, rule: Rule, connections: Iterable[Connection]) -> Rule:
    """The narrowest rule of one protocol, one range of ports and one remote that lets some connections in.

    Its remote is a group that all the far addresses are members of, if it was anybody and there is such a group; or
    else the longest prefix that has all of them.  A rule for connections of several protocols keeps its service.
    """
    seen = list(connections)
    protocols = {connection.protocol for connection in seen}
    protocol, ports = rule.protocol, rule.ports
    if len(protocols) == 1:
        (protocol,) = protocols
        if protocol in WITH_PORTS:
            wanted = {connection.destination_port for connection in seen}
            ports = PortRange(min(wanted), max(wanted))
    inwards = rule.direction is Direction.INGRESS
    far = {connection.source if inwards else connection.destination for connection in seen}
    remote = rule.remote
    if remote is None:
        remote = next((group for group in _groups(policy) if all(policy.has_member(group, each) for each in far)), None)
    if remote is None or isinstance(remote, Prefix):
        prefix = enclosing(far)
        remote = prefix if prefix.length else None
    return replace(rule, protocol=protocol, ports=ports, remote=remote)


def _groups(policy: Policy) -> Iterator[RemoteGroup]:
    """Security groups, the smallest first: the less it opens, the better."""
    size: dict[str, int] = defaultdict(int)
    for port in policy.ports.values():
        for name in port.security_groups:
            size[name] += 1
    return (RemoteGroup(name) for name in sorted(size, key=lambda name: (size[name], name)))


def enclosing(addresses: Iterable[Prefix]) -> Prefix:
    """The longest prefix that has all of some addresses of one IP version.

    >>> str(enclosing([Prefix.parse("10.9.0.4"), Prefix.parse("10.9.0.7")]))
    '10.9.0.4/30'
    """
    found = sorted(addresses)
    family = found[0].family
    length = family.bits - (found[0].value ^ found[-1].value).bit_length()
    shift = family.bits - length
    return Prefix(family, found[0].value >> shift << shift, length)


def _text(policy: Policy, rule: Rule) -> str:
    return f"{service_text(rule)} {remote_text(policy, rule)}"
