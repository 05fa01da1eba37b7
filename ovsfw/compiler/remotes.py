"""Remote sets: the members of groups and address groups that rules refer to, one flow per address.

All rules share these flows.  An address that is in several sets has one flow with a clause for each, because at one
priority there can be only one flow with its match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from ovsfw.compiler.groups import RULE_TABLE, clause, remote_field
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.packets import IP_OF, prefix_terms
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.openflow.flow import Flow
from ovsfw.policy.model import (
    Direction,
    Family,
    Policy,
    Prefix,
    RemoteAddressGroup,
    RemoteGroup,
    SecurityGroup,
    Tier,
    member_addresses,
)

# The table of rules that refers to a set.
Place = tuple[Direction, Family]
Sets = tuple[int, ...]
_WHY = cookie(Reason.MEMBER)


def referenced(owners: Iterable[SecurityGroup | Tier]) -> dict[Place, set[RemoteGroup | RemoteAddressGroup]]:
    """Which sets the rules of groups and tiers need in which table."""
    needed: dict[Place, set[RemoteGroup | RemoteAddressGroup]] = defaultdict(set)
    for owner in owners:
        for rule in owner.rules:
            if isinstance(rule.remote, RemoteGroup | RemoteAddressGroup):
                needed[rule.direction, rule.family].add(rule.remote)
    return needed


def set_names(needed: Mapping[Place, Iterable[RemoteGroup | RemoteAddressGroup]]) -> set[str]:
    """The names of all sets in the answer of `referenced`."""
    return {remote_name(remote) for remotes in needed.values() for remote in remotes}


def members(
    policy: Policy, family: Family, needed: Iterable[RemoteGroup | RemoteAddressGroup], sets: Mapping[str, int]
) -> dict[Prefix, Sets]:
    """For each address of a family, the sets it is in; sets in ascending order, addresses in none."""
    found: dict[Prefix, set[int]] = defaultdict(set)
    for prefix, numbers in _memberships(policy, {remote: sets[remote_name(remote)] for remote in needed}):
        if prefix.family is family:
            found[prefix].update(numbers)
    return {prefix: tuple(sorted(numbers)) for prefix, numbers in found.items()}


def _memberships(
    policy: Policy, wanted: Mapping[RemoteGroup | RemoteAddressGroup, int]
) -> Iterator[tuple[Prefix, list[int]]]:
    """Every address with some of the sets it is in; an address may come several times."""
    by_group = {remote.id: number for remote, number in wanted.items() if isinstance(remote, RemoteGroup)}
    for port in policy.ports.values():
        numbers = [by_group[group] for group in port.security_groups if group in by_group]
        if numbers:
            for prefix in member_addresses(port):
                yield prefix, numbers
    for remote, number in wanted.items():
        if isinstance(remote, RemoteAddressGroup):
            for prefix in policy.address_groups[remote.id].prefixes:
                yield prefix, [number]


def member_flows(place: Place, found: Mapping[Prefix, Sets]) -> Iterator[Flow]:
    """Every address in one table; all of the place's family."""
    field = remote_field(*place)
    for prefix, numbers in found.items():
        match = (IP_OF[prefix.family], *prefix_terms(field, prefix))
        yield clause(RULE_TABLE[place], match, numbers, 1, _WHY)
