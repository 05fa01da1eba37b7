"""A `Policy` as the values of a policy document: what `document` reads, the other way round.

Every object has its id, every reference is an id, and what has its default is left out; so equal policies make equal
documents, whatever they were read from.
"""

from __future__ import annotations

from typing import Any

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy import protocols
from ovsfw.policy.addresses import Prefix, format_mac
from ovsfw.policy.model import (
    AddressGroup,
    Claim,
    Log,
    Network,
    Policy,
    Port,
    Position,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)

Document = dict[str, Any]


def as_document(policy: Policy) -> Document:
    """The document that says exactly this policy, ready for JSON or YAML.

    Raises PolicyError for a rule with source ports, which documents do not know: without them it would allow more.
    """
    problems = [
        Problem(f"rule {rule.id} asks for source ports, and a document cannot")
        for rule in policy.rules
        if rule.source_ports
    ]
    if problems:
        raise PolicyError(problems)
    return {
        "networks": [_network(policy.networks[name]) for name in sorted(policy.networks, key=lambda name: name or "")],
        "tiers": [_tier(tier) for tier in policy.tiers],
        "security_groups": [_group(group) for group in policy.security_groups.values()],
        "address_groups": [_address_group(group) for group in policy.address_groups.values()],
        "ports": [_port(port) for port in policy.ports.values()],
    }


def _group(group: SecurityGroup) -> Document:
    rules = [_rule(rule) for rule in group.rules]
    return _without_defaults(
        {"id": group.id, "name": group.name, "stateful": group.stateful, "rules": rules, "log": _log(group.log)},
        {"name": "", "stateful": True, "rules": [], "log": None},
    )


def _network(network: Network) -> Document:
    found = {
        "id": network.id,
        "dhcp_servers": _texts(network.dhcp_servers),
        "routers": _texts(network.routers),
        "connection_limit": network.connection_limit,
    }
    return _without_defaults(found, dict.fromkeys(found))


def _texts(prefixes: tuple[Prefix, ...] | None) -> list[str] | None:
    return None if prefixes is None else [str(prefix) for prefix in prefixes]


def _tier(tier: Tier) -> Document:
    found = {
        "id": tier.id,
        "name": tier.name,
        "position": tier.position.value,
        "applies_to": None if tier.applies_to is None else list(tier.applies_to),
        "rules": [{**_rule(rule), "action": rule.action.value} for rule in tier.rules],
    }
    defaults: Document = {"name": "", "position": Position.BEFORE.value, "applies_to": None, "rules": []}
    return _without_defaults(found, defaults)


def _rule(rule: Rule) -> Document:
    low, high = rule.ports or (rule.icmp_type, rule.icmp_code)
    found = {
        "id": rule.id,
        "direction": rule.direction.value,
        "ethertype": rule.family.ethertype,
        "protocol": None if rule.protocol is None else protocols.name(rule.protocol),
        "port_range_min": low,
        "port_range_max": high,
        "log": _log(rule.log),
    }
    if rule.helper is not None:
        found["helper"] = rule.helper.value
    match rule.remote:
        case Prefix():
            found["remote_ip_prefix"] = str(rule.remote)
        case RemoteGroup():
            found["remote_group_id"] = rule.remote.id
        case RemoteAddressGroup():
            found["remote_address_group_id"] = rule.remote.id
    return _without_defaults(found, dict.fromkeys(found))


def _log(log: Log | None) -> str | None:
    return None if log is None else log.value


def _address_group(group: AddressGroup) -> Document:
    found = {"id": group.id, "name": group.name, "addresses": [str(prefix) for prefix in group.prefixes]}
    return _without_defaults(found, {"name": "", "addresses": []})


def _port(port: Port) -> Document:
    found = {
        "id": port.id,
        "name": port.name,
        "mac_address": format_mac(port.mac),
        "network_id": port.network_id,
        "fixed_ips": [{"ip_address": str(address)} for address in port.fixed_ips],
        "allowed_address_pairs": [_pair(pair) for pair in port.pairs],
        "security_groups": list(port.security_groups),
        "port_security_enabled": port.port_security,
    }
    empty: list[object] = []
    defaults = {"name": "", "network_id": None, "port_security_enabled": True}
    return _without_defaults(
        found, {**defaults, "fixed_ips": empty, "allowed_address_pairs": empty, "security_groups": empty}
    )


def _pair(pair: Claim) -> Document:
    return {"ip_address": str(pair.prefix), "mac_address": format_mac(pair.mac)}


def _without_defaults(found: Document, defaults: Document) -> Document:
    return {key: value for key, value in found.items() if key not in defaults or value != defaults[key]}
