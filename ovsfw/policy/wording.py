"""What people are told about rules, ports and connections: one way to say each, used by every command."""

from __future__ import annotations

from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Direction, Policy, Port, PortRange, RemoteAddressGroup, RemoteGroup, Rule
from ovsfw.policy.verdict import ANY_PORT, ICMP, ICMPV6, Connection

_ICMP = frozenset({ICMP, ICMPV6})


def port_text(port: Port) -> str:
    """`web1 (7f3c)`, or the id alone where it is the name or there is none.

    >>> port_text(Port("7f3c", 1, name="web1")), port_text(Port("vm1", 1))
    ('web1 (7f3c)', 'vm1')
    """
    return f"{port.name} ({port.id})" if port.name and port.name != port.id else port.id


def connection_text(connection: Connection) -> str:
    """`tcp 10.9.0.2:40000 -> 10.9.0.1:22`, `icmp/8/0 10.9.0.2 -> 10.9.0.1`, `gre 10.9.0.2 -> 10.9.0.1`."""
    source, destination = str(connection.source), str(connection.destination)
    word = protocols.name(connection.protocol)
    if connection.protocol in protocols.WITH_PORTS:
        if connection.family is Family.IPV6:
            source, destination = f"[{source}]", f"[{destination}]"
        return f"{word} {source}:{connection.source_port} -> {destination}:{connection.destination_port}"
    if connection.protocol in _ICMP:
        word = f"{_protocol_text(connection.protocol)}/{connection.icmp_type}/{connection.icmp_code}"
    return f"{word} {source} -> {destination}"


def rule_text(policy: Policy, rule: Rule) -> str:
    """`db: tcp/5432 from group app`; the two rules of a pair for IPv4 and IPv6 read the same.

    A tier's rule says what it does: `baseline: deny anything to anywhere`.

    Raises StopIteration when the rule is not the policy's.
    """
    for group in policy.security_groups.values():
        if rule in group.rules:
            return f"{group.name or group.id}: {service_text(rule)} {remote_text(policy, rule)}"
    tier = next(tier for tier in policy.tiers if rule in tier.rules)
    return f"{tier.name or tier.id}: {rule.action.value} {service_text(rule)} {remote_text(policy, rule)}"


def service_text(rule: Rule) -> str:
    """`tcp/80-90`, `icmp/8/0`, `anything`, `tcp/21 with its data connections`."""
    text = _protocol_text(rule.protocol)
    if isinstance(rule.ports, PortRange) and rule.ports not in ANY_PORT:
        text += f"/{rule.ports}"
    if rule.source_ports is not None:
        text += f" from port {rule.source_ports}"
    if rule.helper is not None:
        text += " with its data connections"
    return "/".join([text, *(str(part) for part in (rule.icmp_type, rule.icmp_code) if part is not None)])


def _protocol_text(protocol: int | None) -> str:
    """ICMP is ICMP in both IP versions."""
    return "anything" if protocol is None else protocols.name(ICMP if protocol == ICMPV6 else protocol)


def remote_text(policy: Policy, rule: Rule) -> str:
    """`from anywhere`, `from group app`, `to addresses office`, `to 10.9.0.0/24`."""
    word, remote = "from" if rule.direction is Direction.INGRESS else "to", rule.remote
    if remote is None:
        return f"{word} anywhere"
    if isinstance(remote, RemoteGroup):
        return f"{word} group {policy.security_groups[remote.id].name or remote.id}"
    if isinstance(remote, RemoteAddressGroup):
        return f"{word} addresses {policy.address_groups[remote.id].name or remote.id}"
    return f"{word} {remote}"
