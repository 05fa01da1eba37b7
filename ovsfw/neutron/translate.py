"""What Neutron's L2 agent hands to its firewall driver, as values of our policy.  Pure; knows no Neutron.

The shapes are those of `SecurityGroupInfoAPIMixin.security_group_info_for_ports`
(neutron/db/securitygroups_rpc_base.py): dicts as they come, where keys that we do not know are nobody's fault.  What
cannot be understood is left out, so that it allows nothing, and is told in a line of `problems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ovsfw.neutron.log_objects import NOTHING, Wanted
from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family, Prefix, parse_mac
from ovsfw.policy.model import (
    AddressGroup,
    Claim,
    Direction,
    Log,
    Policy,
    Port,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)
from ovsfw.policy.rules import content_id
from ovsfw.policy.verdict import ANY_PORT, ICMP, ICMPV6

Json = Mapping[str, Any]

# Both spellings of the far end's prefix are sent; the near end's is never sent for a rule of a group.
_FAR_PREFIX = {
    Direction.INGRESS: ("source_ip_prefix", "remote_ip_prefix"),
    Direction.EGRESS: ("dest_ip_prefix", "destination_ip_prefix", "remote_ip_prefix"),
}
_NEAR_PREFIX = {
    Direction.INGRESS: ("dest_ip_prefix", "destination_ip_prefix"),
    Direction.EGRESS: ("source_ip_prefix",),
}
_HIGHEST_PORT, _HIGHEST_ICMP = 65535, 255
_FAMILIES = {family.ethertype: family for family in Family}

# By whether they are stateful; no id of Neutron's has a space.
_DROPS = {
    stateful: SecurityGroup(f"logged drops{'' if stateful else ', stateless'}", stateful=stateful, log=Log.DROPPED)
    for stateful in (True, False)
}

_mac = lru_cache(maxsize=1 << 16)(parse_mac)
_prefix = lru_cache(maxsize=1 << 17)(Prefix.parse)


@dataclass(frozen=True, slots=True)
class Group:
    """A security group, the groups that its rules name as remote ones, and what was wrong with its rules."""

    group: SecurityGroup
    remote_groups: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


# --- Ports ----------------------------------------------------------------------------------------------------------


def read_port(data: Json) -> Port:
    """A port; `device` is what the switch has as `external_ids:iface-id`.

    Raises ValueError, with a message for the operator, where it has no MAC address or a wrong address.
    """
    name = str(data["device"])
    if not data.get("port_security_enabled", True):
        return trusted_port(name)
    try:
        mac = _mac(str(data.get("mac_address")))
        fixed = {_host(_address(each)) for each in data.get("fixed_ips") or ()}
        pairs = {_pair(each, mac) for each in data.get("allowed_address_pairs") or ()}
    except ValueError as error:
        raise ValueError(f"port {name}: {error}; it passes nothing") from None
    groups = tuple(sorted({str(group) for group in data.get("security_groups") or ()}))
    network = data.get("network_id")
    return Port(
        name,
        mac,
        tuple(sorted(fixed)),
        tuple(sorted(pairs)),
        groups,
        network_id=None if network is None else str(network),
        name=str(data.get("name") or ""),
    )


def trusted_port(name: str) -> Port:
    """A port that is not filtered: a router's, a DHCP server's, or one without port security."""
    return Port(name, 0, port_security=False)


def _address(value: object) -> str:
    return str(value["ip_address"] if isinstance(value, Mapping) else value)


def _host(text: str) -> Prefix:
    prefix = _prefix(text)
    if not prefix.is_host:
        raise ValueError(f"{text!r} is not one address")
    return prefix


def _pair(data: Json, mac: int) -> Claim:
    own = data.get("mac_address")
    return Claim(mac if own is None else _mac(str(own)), _prefix(_address(data)))


# --- Groups ---------------------------------------------------------------------------------------------------------


def read_group(name: str, rules: Iterable[Json]) -> Group:
    """A security group from its rules; an empty mapping stands for none, too.

    The rules have no ids here, so they get those of their content; they also carry whether their group is stateful.
    """
    found: dict[str, Rule] = {}
    problems, remote_groups = [], set()
    stateful = True
    for data in rules:
        stateful = stateful and data.get("stateful") is not False
        try:
            rule = read_rule(data)
        except (ValueError, KeyError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            problems.append(f"security group {name}: a rule ({_shown(data)}) allows nothing, because {said}")
            continue
        rule = replace(rule, id=content_id(name, rule))
        if isinstance(rule.remote, RemoteGroup):
            remote_groups.add(rule.remote.id)
            # All that is known here of another group is its addresses.
            rule = replace(rule, remote=RemoteAddressGroup(rule.remote.id))
        found[rule.id] = rule
    ordered = tuple(found[key] for key in sorted(found))
    return Group(SecurityGroup(name, "", stateful, ordered), frozenset(remote_groups), tuple(problems))


def _shown(data: Json) -> str:
    return " ".join(f"{key}={value}" for key, value in data.items() if value is not None)


def read_rule(data: Json) -> Rule:
    """One rule, without an id.  Raises KeyError or ValueError with the reason why it cannot be understood."""
    direction, family = Direction(data["direction"]), _FAMILIES.get(data["ethertype"])
    if family is None:
        raise ValueError(f"{data['ethertype']!r} is no ethertype")
    given = data.get("protocol")
    protocol = None if given is None else protocols.in_family(protocols.number(given), family)
    rule = Rule("", direction, family, protocol, remote=_remote(data, direction, family))
    if protocol in (ICMP, ICMPV6):
        return _with_icmp(rule, data)
    asked = _range(data, "port_range"), _range(data, "source_port_range")
    if asked != (None, None) and protocol not in protocols.WITH_PORTS:
        raise ValueError(f"{protocols.name(protocol)} has no ports")
    return replace(rule, ports=asked[0], source_ports=asked[1])


def _remote(data: Json, direction: Direction, family: Family) -> Remote:
    """The far end: a group, an address group, or a prefix."""
    if any(data.get(key) is not None for key in _NEAR_PREFIX[direction]):
        raise ValueError("it names an address of the near end")
    group, addresses = data.get("remote_group_id"), data.get("remote_address_group_id")
    texts = [str(data[key]) for key in _FAR_PREFIX[direction] if data.get(key) is not None]
    if (group is not None) + (addresses is not None) + bool(texts) > 1:
        raise ValueError("it has more than one remote")
    if group is not None:
        return RemoteGroup(str(group))
    if addresses is not None:
        return RemoteAddressGroup(str(addresses))
    if not texts:
        return None
    prefix = _prefix(texts[0])
    if prefix.family is not family:
        raise ValueError(f"{prefix} is no {family.ethertype} prefix")
    return prefix if prefix.length else None


def _range(data: Json, key: str) -> PortRange | None:
    """A range of ports; one border alone is one port."""
    low, high = data.get(f"{key}_min"), data.get(f"{key}_max")
    if low is None and high is None:
        return None
    borders = [int(border) for border in (low, high) if border is not None]
    ports = PortRange(borders[0], borders[-1])
    if not 0 <= ports.first <= ports.last <= _HIGHEST_PORT:
        raise ValueError(f"{ports} is no range of ports")
    return None if ports in ANY_PORT else ports


def _with_icmp(rule: Rule, data: Json) -> Rule:
    """The type is where the first port would be, the code where the last would."""
    kind, code = (data.get(f"port_range_{end}") for end in ("min", "max"))
    numbers = [None if value is None else int(value) for value in (kind, code)]
    if any(value is not None and not 0 <= value <= _HIGHEST_ICMP for value in numbers):
        raise ValueError(f"ICMP type {kind} and code {code} are none")
    if kind is None and code is not None:
        raise ValueError(f"the ICMP code {code} needs a type")
    if _range(data, "source_port_range") is not None:
        raise ValueError("ICMP has no ports")
    return replace(rule, icmp_type=numbers[0], icmp_code=numbers[1])


def read_members(members: Mapping[str, Iterable[Any]]) -> tuple[Prefix, ...]:
    """The addresses of a remote group: `{"IPv4": [(address, MAC), ...], "IPv6": ...}`, sorted.

    Raises ValueError for what is no address.
    """
    return tuple(sorted({_prefix(text) for addresses in members.values() for text in _texts(addresses)}))


def _texts(addresses: Iterable[Any]) -> Iterator[str]:
    for each in addresses:
        yield each if isinstance(each, str) else str(each[0])


# --- All of it ------------------------------------------------------------------------------------------------------


def assemble(
    ports: Mapping[str, Port],
    groups: Mapping[str, Group],
    members: Mapping[str, tuple[Prefix, ...]],
    logged: Wanted = NOTHING,
) -> Policy:
    """The policy for these ports; `logged` is what is to be logged.

    A group without rules is left out, for nobody says whether it is stateful, and it allows nothing either way.  The
    whole world as an allowed address pair makes nobody a member (see `Policy.members`).
    """
    used = {name for port in ports.values() for name in port.security_groups}
    chosen = {name: groups[name] for name in sorted(used) if name in groups and groups[name].group.rules}
    by_group = frozenset[str]().union(*(group.remote_groups for group in chosen.values()))
    remotes = {
        rule.remote.id
        for group in chosen.values()
        for rule in group.group.rules
        if isinstance(rule.remote, RemoteAddressGroup)
    }
    sets = {}
    for name in sorted(remotes):
        inside = members.get(name, ())
        if name in by_group:
            inside = tuple(prefix for prefix in inside if prefix.length)
        sets[name] = AddressGroup(name, "", inside)
    asked = {name: _logging(group.group) if name in logged.accepted else group.group for name, group in chosen.items()}
    known = {name: _with_groups(ports[name], asked) for name in sorted(ports)}
    policy = Policy(known, asked, sets)
    return _logging_drops(policy, logged.dropped.intersection(known)) if logged.dropped else policy


def _with_groups(port: Port, groups: Mapping[str, SecurityGroup]) -> Port:
    return replace(port, security_groups=tuple(name for name in port.security_groups if name in groups))


def _logging(group: SecurityGroup) -> SecurityGroup:
    return replace(group, log=Log.ACCEPTED)


def _logging_drops(policy: Policy, names: Iterable[str]) -> Policy:
    """With a group without rules at some ports: what it logs is what the port drops, whatever its other groups are.

    Groups of both kinds at a port would make it stateful, so it is of the kind of the others.
    """
    ports = dict(policy.ports)
    for name in names:
        port = ports[name]
        extra = _DROPS[not policy.is_stateless(port)]
        ports[name] = replace(port, security_groups=(*port.security_groups, extra.id))
    extras = {group.id: group for group in _DROPS.values()}
    return replace(policy, ports=ports, security_groups={**policy.security_groups, **extras})
