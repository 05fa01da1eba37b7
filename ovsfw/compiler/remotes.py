"""Remote sets: the members of groups and address groups that rules refer to, one flow per address.

All rules share these flows.  An address that is in several sets has one flow with a clause for each, because at one
priority there can be only one flow with its match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import compress
from operator import is_not
from typing import TypeVar

from ovsfw.compiler.groups import RULE_TABLE, clause, remote_field
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.packets import IP_OF, prefix_terms
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.openflow.flow import Flow, Value
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import (
    AddressGroup,
    Direction,
    Policy,
    Port,
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


def set_names(needed: Mapping[Place, Iterable[RemoteGroup | RemoteAddressGroup]]) -> dict[Place, frozenset[str]]:
    """The names of the sets in the answer of `referenced`."""
    return {place: frozenset(map(remote_name, remotes)) for place, remotes in needed.items()}


# Members are kept in so many parts, so that one that comes or goes costs the rebuilding of one of them.
BUCKETS = 128
# The names of the sets that one port, or one address group, puts its addresses into.
Names = tuple[str, ...]
Bucket = Mapping[Prefix, tuple[Names, ...]]
_Owner = TypeVar("_Owner", Port, AddressGroup)


class Members:
    """The addresses of all ports and address groups, each with the sets it is in.

    The index follows a policy by what differs from the one before, and so costs what has changed; it then is what a new
    index would be.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._ports: Mapping[str, Port] = {}
        self._address_groups: Mapping[str, AddressGroup] = {}
        self._buckets: list[dict[Prefix, tuple[Names, ...]]] = [{} for _ in range(BUCKETS)]

    def follow(self, policy: Policy) -> tuple[Bucket, ...]:
        """All addresses of a policy.  A bucket that is the same as last time is the very same object."""
        fresh: set[int] = set()
        for port_before, port in _differences(self._ports, policy.ports):
            self._replace(fresh, _of_port(port_before), _of_port(port))
        for group_before, group in _differences(self._address_groups, policy.address_groups):
            self._replace(fresh, _of_address_group(group_before), _of_address_group(group))
        self._ports, self._address_groups = policy.ports, policy.address_groups
        return tuple(self._buckets)

    def _replace(self, fresh: set[int], before: tuple[Names, set[Prefix]], after: tuple[Names, set[Prefix]]) -> None:
        """Buckets that were handed out are never written to: `fresh` are those that were copied for this policy."""
        for (names, prefixes), is_there in ((before, False), (after, True)):
            for prefix in prefixes if names else ():
                number = _bucket_of(prefix)
                if number not in fresh:
                    fresh.add(number)
                    self._buckets[number] = dict(self._buckets[number])
                _note(self._buckets[number], prefix, names, is_there=is_there)


def _differences(
    before: Mapping[str, _Owner], after: Mapping[str, _Owner]
) -> list[tuple[_Owner | None, _Owner | None]]:
    """What is not the same object, nor equal."""
    if before is after:
        return []
    # There may be ten thousand, and nearly always one that differs: no step of this loop is Python's.
    differing = compress(after, map(is_not, map(before.get, after), after.values()))
    pairs: list[tuple[_Owner | None, _Owner | None]] = [(before.get(name), after[name]) for name in differing]
    pairs += [(before[name], None) for name in before.keys() - after.keys()]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _of_port(port: Port | None) -> tuple[Names, set[Prefix]]:
    return ((), set()) if port is None else (_group_names(port.security_groups), set(member_addresses(port)))


def _of_address_group(group: AddressGroup | None) -> tuple[Names, set[Prefix]]:
    return ((), set()) if group is None else ((remote_name(RemoteAddressGroup(group.id)),), set(group.prefixes))


@lru_cache(maxsize=1 << 12)
def _group_names(groups: tuple[str, ...]) -> Names:
    return tuple(remote_name(RemoteGroup(group)) for group in groups)


def _bucket_of(prefix: Prefix) -> int:
    """Any spreading will do that depends on nothing but the prefix."""
    value = prefix.value >> (prefix.family.bits - prefix.length)
    return (value ^ value >> 6 ^ value >> 12 ^ prefix.length) % BUCKETS


def _note(bucket: dict[Prefix, tuple[Names, ...]], prefix: Prefix, names: Names, *, is_there: bool) -> None:
    """Each owner counts once, so that an address stays as long as anybody has it."""
    owners = [*bucket.get(prefix, ())]
    if is_there:
        owners.append(names)
    else:
        owners.remove(names)
    if owners:
        bucket[prefix] = tuple(sorted(owners))
    else:
        del bucket[prefix]


def sets_of(owners: tuple[Names, ...], sets: Mapping[str, int]) -> Sets:
    """The numbers of the sets that an address is in, in ascending order."""
    return tuple(sorted({sets[name] for names in owners for name in names if name in sets}))


def member_flows(place: Place, bucket: Bucket, sets: Mapping[str, int]) -> Iterator[Flow]:
    """Every address of a bucket that is in one of the sets; `sets` numbers those that the table of `place` needs."""
    _, family = place
    for prefix, owners in bucket.items():
        if prefix.family is family and (numbers := sets_of(owners, sets)):
            before, after = _around(place, prefix.length)
            address = prefix.value.to_bytes(family.bits // 8, "big") if prefix.length else b""
            yield Flow(before + address + after, _value(numbers))


@lru_cache
def _around(place: Place, length: int) -> tuple[bytes, bytes]:
    """What stands before and behind the address in the key of a member flow; there are very many of them.

    In canonical order the address comes last, and behind it only its mask.
    """
    direction, family = place
    prefix = Prefix(family, 0, length)
    match = (IP_OF[family], *prefix_terms(remote_field(direction, family), prefix))
    key = clause(RULE_TABLE[place], match, (1,), 1, _WHY).key
    width = family.bits // 8
    mask = width if 0 < length < family.bits else 0
    end = len(key) - mask
    return key[: end - width if length else end], key[end:]


@lru_cache(maxsize=1 << 16)
def _value(numbers: Sets) -> Value:
    """A clause for each set."""
    return clause(RULE_TABLE[Direction.INGRESS, Family.IPV4], (IP_OF[Family.IPV4],), numbers, 1, _WHY).value
