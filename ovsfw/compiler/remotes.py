"""Remote sets: the members of groups and address groups that rules refer to, one flow per address.

All rules share these flows.  An address that is in several sets has one flow with a clause for each, because at one
priority there can be only one flow with its match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import TypeVar

from ovsfw.compiler.following import Pages
from ovsfw.compiler.groups import RULE_TABLE, clause, remote_field
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.packets import IP_OF, prefix_terms
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.openflow.flow import Entry, Value, joined
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
from ovsfw.policy.paged import Paged

T = TypeVar("T")

# The table of rules that refers to a set.
Place = tuple[Direction, Family]
_WHY = cookie(Reason.MEMBER)


def referenced(owners: Iterable[SecurityGroup | Tier]) -> dict[Place, set[RemoteGroup | RemoteAddressGroup]]:
    """Which sets the rules of groups and tiers need in which table."""
    needed: dict[Place, set[RemoteGroup | RemoteAddressGroup]] = defaultdict(set)
    for owner in owners:
        for rule in owner.rules:
            if isinstance(rule.remote, RemoteGroup | RemoteAddressGroup):
                # Data connections go both ways.
                for direction in Direction if rule.helper else (rule.direction,):
                    needed[direction, rule.family].add(rule.remote)
    return needed


def set_names(needed: Mapping[Place, Iterable[RemoteGroup | RemoteAddressGroup]]) -> dict[Place, frozenset[str]]:
    """The names of the sets in the answer of `referenced`."""
    return {place: frozenset(map(remote_name, remotes)) for place, remotes in needed.items()}


# Members are kept in so many pages of as many buckets each, those of each IP version apart, so that one that comes or
# goes costs the rebuilding of one bucket and the looking at one page, however many there are.
PAGES = BUCKETS = 32
# The names of the sets that one port, or one address group, puts its addresses into.
Names = tuple[str, ...]
# These, and the addresses of one port or address group.
_Share = tuple[Names, set[Prefix]]
_NOTHING: _Share = ((), set())
# Where the addresses of an IP version lie: its first bucket; and how long they are, in bits.
_LIE = {family: (number * PAGES * BUCKETS, family.bits) for number, family in enumerate(Family)}


class Bucket(dict[Prefix, tuple[Names, ...]]):
    """Some addresses of one IP version, each with the sets that its owners put it into.

    Never written to once it has been handed out.
    """

    @cached_property
    def names(self) -> frozenset[str]:
        """All sets that one of the addresses is in."""
        of_owners = set(chain.from_iterable(set(self.values())))
        return frozenset(chain.from_iterable(of_owners))

    @cached_property
    def _asked(self) -> dict[Place, tuple[Sets, dict[str, int]]]:
        return {}

    def numbers(self, place: Place, sets: Sets) -> dict[str, int]:
        """The numbers of those of its sets that the rules of a table refer to; the answer is kept for next time."""
        known = self._asked.get(place)
        if known is None or known[0] is not sets:
            known = self._asked[place] = sets, sets.some(self.names)
        return known[1]


class Page(tuple[Bucket, ...]):  # noqa: SLOT001 - it remembers an answer
    """Some buckets; never written to."""

    @cached_property
    def names(self) -> frozenset[str]:
        """All sets that one of the addresses is in."""
        return frozenset[str]().union(*(bucket.names for bucket in self))


class View:
    """What the flows of a page depend on: the page, and those numbers of sets that are in it.

    Two are compared by no more than is needed, for a page that has changed has names that nobody has looked at yet.
    """

    __slots__ = ("page", "sets")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, page: Page, sets: Sets) -> None:
        self.page, self.sets = page, sets

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View) or self.page is not other.page:
            return False
        return self.sets is other.sets or self.page.names.isdisjoint(self.sets.differing(other.sets))


class Members:
    """The addresses of all ports and address groups, each with the sets it is in.

    The index follows a policy by what differs from the one before, and so costs what has changed; it then is what a new
    index would be.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._pages_of_ports: Pages[str, Port] = Pages()
        self._pages_of_groups: Pages[str, AddressGroup] = Pages()
        self._ports: Paged[str, Port] = Paged()
        self._address_groups: Paged[str, AddressGroup] = Paged()
        self._buckets = [Bucket() for _ in range(len(_LIE) * PAGES * BUCKETS)]
        self._pages: list[Page] = [self._page(page) for page in range(len(_LIE) * PAGES)]

    def follow(self, policy: Policy) -> Mapping[Family, Sequence[Page]]:
        """All addresses of a policy.  A page or bucket that is the same as last time is the very same object."""
        fresh: dict[int, Bucket] = {}
        for gone, come in self._moves(policy):
            if gone is not None:
                self._take(fresh, gone)
            if come is not None:
                self._put(fresh, come)
        for number, bucket in fresh.items():
            self._buckets[number] = bucket
        for page in {number // BUCKETS for number in fresh}:
            self._pages[page] = self._page(page)
        return {family: self._pages[first // BUCKETS :][:PAGES] for family, (first, _) in _LIE.items()}

    def _moves(self, policy: Policy) -> Iterator[tuple[_Share | None, _Share | None]]:
        """What each owner had and has, where that differs."""
        ports = self._pages_of_ports.follow(policy.ports)
        for _, port_before, port in ports.differences(self._ports):
            yield _share(_of_port, port_before), _share(_of_port, port)
        groups = self._pages_of_groups.follow(policy.address_groups)
        for _, group_before, group in groups.differences(self._address_groups):
            yield _share(_of_address_group, group_before), _share(_of_address_group, group)
        self._ports, self._address_groups = ports, groups

    def _page(self, page: int) -> Page:
        return Page(self._buckets[page * BUCKETS : (page + 1) * BUCKETS])

    def _take(self, fresh: dict[int, Bucket], share: _Share) -> None:
        """Each owner counts once, so that an address stays as long as anybody has it."""
        names, prefixes = share
        for prefix in prefixes:
            bucket = self._bucket(fresh, prefix)
            left = [*bucket[prefix]]
            left.remove(names)
            if left:
                bucket[prefix] = tuple(left)
            else:
                del bucket[prefix]

    def _put(self, fresh: dict[int, Bucket], share: _Share) -> None:
        names, prefixes = share
        alone = _alone(names)
        for prefix in prefixes:
            bucket = self._bucket(fresh, prefix)
            owners = bucket.get(prefix)
            bucket[prefix] = tuple(sorted((*owners, names))) if owners else alone

    def _bucket(self, fresh: dict[int, Bucket], prefix: Prefix) -> Bucket:
        """The one that an address belongs into; `fresh` are those that were copied for this policy.

        Any spreading will do that depends on nothing but the prefix.  Neighbours are together: they often are in the
        same sets, and a set that is new here then is in few pages.
        """
        family, value, length = prefix
        first, width = _LIE[family]
        block = value >> width - length >> 4
        page, bucket = hash((block >> 5, length)) % PAGES, (block ^ block >> 5 ^ block >> 10) % BUCKETS
        number = first + page * BUCKETS + bucket
        found = fresh.get(number)
        if found is None:
            found = fresh[number] = Bucket(self._buckets[number])
        return found


def _share(of: Callable[[T], _Share], owner: T | None) -> _Share | None:
    return None if owner is None else of(owner)


def _of_port(port: Port) -> _Share:
    groups = port.security_groups
    if not groups:
        return _NOTHING
    return _group_names(groups), set(member_addresses(port) if port.pairs else port.fixed_ips)


def _of_address_group(group: AddressGroup) -> _Share:
    return (remote_name(RemoteAddressGroup(group.id)),), set(group.prefixes)


@lru_cache(maxsize=1 << 12)
def _group_names(groups: tuple[str, ...]) -> Names:
    return tuple(remote_name(RemoteGroup(group)) for group in groups)


@lru_cache(maxsize=1 << 12)
def _alone(names: Names) -> tuple[Names]:
    """One object for all addresses with one owner like this."""
    return (names,)


class _Values(dict[tuple[Names, ...], Value | None]):
    """What the flow of an address says, by whose it is: a clause for each set; None for an address in none of them.

    Nearly every address is asked for, so those that are known are found without a call.
    """

    __slots__ = ("numbers",)

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers

    def __missing__(self, owners: tuple[Names, ...]) -> Value | None:
        numbers = _numbers(self.numbers, owners)
        value = self[owners] = joined([_membership(number) for number in numbers]) if numbers else None
        return value


def _numbers(numbers: Mapping[str, int], owners: tuple[Names, ...]) -> list[int]:
    return sorted({numbers[name] for names in owners for name in names if name in numbers})


class Sets:
    """The numbers of the sets that the rules of one table refer to, by name; never written to."""

    __slots__ = ("_compared", "numbers", "values")

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self._compared: tuple[Sets, frozenset[str]] | None = None
        self.values = _Values(numbers)
        """What the flow of an address says, by its owners; None for an address in none of the sets."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sets) and self.numbers == other.numbers

    __hash__ = None  # type: ignore[assignment]

    def differing(self, other: Sets) -> frozenset[str]:
        """The names that do not have the same number in both; remembered, for every page asks."""
        if self._compared is None or self._compared[0] is not other:
            self._compared = other, frozenset(name for name, _ in self.numbers.items() ^ other.numbers.items())
            other._compared = None
        return self._compared[1]

    def some(self, names: frozenset[str]) -> dict[str, int]:
        """Of these alone."""
        numbers = self.numbers
        return {name: numbers[name] for name in names & numbers.keys()}

    def of(self, owners: tuple[Names, ...]) -> tuple[int, ...]:
        """The sets that an address is in, in ascending order."""
        return tuple(_numbers(self.numbers, owners))


def member_flows(place: Place, bucket: Mapping[Prefix, tuple[Names, ...]], sets: Sets) -> list[Entry]:
    """Every address of a bucket that is in one of the sets; all are of the IP version of the table."""
    size, values = place[1].bits // 8, sets.values
    found: list[Entry] = []
    latest, before, after = -1, b"", b""
    for (_, address, length), owners in bucket.items():
        value = values[owners]
        if value is not None:
            if length != latest:
                latest, (before, after) = length, _around(place, length)
            found.append((before + (address.to_bytes(size, "big") if length else b"") + after, value))
    return found


@lru_cache(maxsize=1 << 10)
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
def _membership(number: int) -> Value:
    """What makes an address a member of one set."""
    return clause(RULE_TABLE[Direction.INGRESS, Family.IPV4], (IP_OF[Family.IPV4],), (number,), 1, _WHY).value
