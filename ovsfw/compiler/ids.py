"""Numbers for names, without an allocator: a digest of the name, so that they survive restarts and need no memory.

Two names with one digest are told apart by counting on in sorted order, so the numbers depend only on which names there
are.  Open vSwitch asks of a conjunction id only that it be unique within its table (ovs-fields(7)).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2s
from operator import is_
from typing import NamedTuple

from ovsfw.compiler.pipeline import HINT_BIT, HINTS
from ovsfw.policy.model import Policy, RemoteAddressGroup, RemoteGroup, Rule, SecurityGroup, Tier


@lru_cache(maxsize=1 << 17)
def _digest(name: str) -> int:
    return int.from_bytes(blake2s(name.encode(), digest_size=4).digest(), "big") & (HINT_BIT - 1)


def number(names: Iterable[str], below: int = HINT_BIT) -> dict[str, int]:
    """A number from 1 on for every name, no two the same; all of them below a power of 2."""
    numbers = digests(names, below)
    if not are_apart([numbers]):
        by_digest: dict[int, list[str]] = defaultdict(list)
        for name, value in numbers.items():
            by_digest[value].append(name)
        numbers |= told_apart(by_digest, (value for value, alike in by_digest.items() if len(alike) > 1), below)
    return numbers


def digests(names: Iterable[str], below: int = HINT_BIT) -> dict[str, int]:
    """The numbers that names have, but where two are alike, or one is 0."""
    return {name: _digest(name) % below for name in names}


def are_apart(parts: Iterable[Mapping[str, int]]) -> bool:
    """Whether the digests of all these names, some of which may be in several parts, can be their numbers."""
    whole: dict[str, int] = {}
    for part in parts:
        whole.update(part)
    return len({0, *whole.values()}) > len(whole)


def told_apart(by_digest: Mapping[int, Collection[str]], crowded: Iterable[int], below: int) -> dict[str, int]:
    """Numbers for the names that cannot all have their digests, and for those that these push on.

    `crowded` are the digests that several names have.
    """
    pushing: set[int] = set()
    for first in (0, *crowded):
        value = first
        waiting = 1 if first == 0 else 0  # 0 is taken, by nobody
        while waiting := waiting + len(set(by_digest.get(value, ()))) - 1:
            pushing.add(value)
            value = (value + 1) % below
        pushing.add(value)
    numbers: dict[str, int] = {}
    taken = {0}
    for name in sorted({name for value in pushing for name in by_digest.get(value, ())}):
        value = _digest(name) % below
        while value in taken:
            value = (value + 1) % below
        taken.add(value)
        numbers[name] = value
    return numbers


def remote_name(remote: RemoteGroup | RemoteAddressGroup) -> str:
    """The name under which a remote set gets its conjunction id."""
    kind = "group" if isinstance(remote, RemoteGroup) else "addresses"
    return f"{kind}:{remote.id}"


def rule_hints(policy: Policy) -> Mapping[int, Rule]:
    """The rule behind each hint that flows, counters and conntrack labels carry."""
    rules = {rule.id: rule for rule in policy.rules}
    return {hint: rules[name] for name, hint in hint_numbers(policy).items()}


def hint_numbers(policy: Policy) -> dict[str, int]:
    """The hint of each rule by its id; bit 31 is set in all of them."""
    return _hints(number((rule.id for rule in policy.rules), HINTS))


def _hints(numbers: Mapping[str, int]) -> dict[str, int]:
    return {name: value | HINT_BIT for name, value in numbers.items()}


Owner = SecurityGroup | Tier


class _Digested(NamedTuple):
    owner: Owner
    digests: dict[str, int]
    hints: dict[str, int]


class Hinted(NamedTuple):
    """The hints of one policy's rules; `apart` are those whose digests are alike, and what these push on."""

    known: Mapping[int, _Digested]
    apart: Mapping[str, int]

    def __call__(self, owner: Owner) -> Mapping[str, int]:
        """Those of a group or tier by the ids of its rules; the very same as before where nothing differs."""
        return _with(self.known[id(owner)].hints, self.apart)


class Hints:
    """The hints of the rules of each group and tier, as `hint_numbers` has them.

    They follow a policy by what differs from the one before, and so cost what has changed.  A group or tier that is the
    same object has the same object for its answer, but where digests are alike.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._known: dict[int, _Digested] = {}
        self._by_digest: dict[int, list[str]] = {}
        self._crowded: set[int] = set()
        self._every: tuple[Owner, ...] = ()
        self._seen: tuple[object, object] = None, None
        self._hinted = Hinted(self._known, {})

    def follow(self, policy: Policy) -> Hinted:
        """Those of each group and tier of a policy, until the next one is followed."""
        if policy.security_groups is self._seen[0] and policy.tiers is self._seen[1]:
            return self._hinted
        every: tuple[Owner, ...] = (*policy.security_groups.values(), *policy.tiers)
        if len(every) == len(self._every) and all(map(is_, every, self._every)):
            self._seen = policy.security_groups, policy.tiers
            return self._hinted
        # What is known is held here, so that nothing new has its place in memory.
        owners = {id(owner): owner for owner in every}
        for gone in self._known.keys() - owners.keys():
            for name, value in self._known.pop(gone).digests.items():
                left = [*self._by_digest[value]]
                left.remove(name)
                self._note(value, left)
        for new in owners.keys() - self._known.keys():
            self._known[new] = _digested(owners[new])
            for name, value in self._known[new].digests.items():
                self._note(value, [*self._by_digest.get(value, ()), name])
        apart = _hints(told_apart(self._by_digest, self._crowded, HINTS))
        self._every, self._hinted = every, Hinted(self._known, apart)
        self._seen = policy.security_groups, policy.tiers
        return self._hinted

    def _note(self, value: int, names: list[str]) -> None:
        """The names with a digest; each as often as there are groups with such a rule."""
        self._by_digest[value] = names
        (self._crowded.add if len(set(names)) > 1 else self._crowded.discard)(value)
        if not names:
            del self._by_digest[value]


def _with(hints: Mapping[str, int], others: Mapping[str, int]) -> Mapping[str, int]:
    """The very same hints, where none of the others is about them."""
    differing = others.keys() & hints.keys()
    return {**hints, **{name: others[name] for name in differing}} if differing else hints


def _digested(owner: Owner) -> _Digested:
    found = digests((rule.id for rule in owner.rules), HINTS)
    return _Digested(owner, found, _hints(found))
