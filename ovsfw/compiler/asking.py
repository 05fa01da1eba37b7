"""The rules that are asked on this host, and the remote sets that they refer to; followed by what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from ovsfw.compiler import ids
from ovsfw.compiler.following import Index, Joined, same
from ovsfw.compiler.groups import group_flows
from ovsfw.compiler.host import Local, Speaker
from ovsfw.compiler.remotes import Place, Sets, referenced, set_names
from ovsfw.compiler.tiers import tier_flows
from ovsfw.compiler.units import Unit
from ovsfw.policy.model import SecurityGroup, Tier
from ovsfw.policy.paged import Page, Paged

Names = Mapping[Place, frozenset[str]]
_Set = tuple[Place, str]


class Asked(NamedTuple):
    """A group or tier, its number, and those of the remote sets and of the rules in it."""

    owner: SecurityGroup | Tier
    number: int
    sets: Mapping[str, int]
    hints: Mapping[str, int]


class Referring(NamedTuple):
    """The groups and tiers of this host, and by table the remote sets that they refer to."""

    groups: Paged[str, Asked]
    tiers: tuple[Asked, ...]
    by_place: Mapping[Place, Sets]


class Asking:
    """Its state is what was asked last."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._names: Joined[str, Speaker, Names] = Joined()
        self._users: Index[str, Names, str] = Index(_said)
        self._groups: Joined[str, Speaker, Asked] = Joined()
        self._tiers: tuple[tuple[Tier, ...], tuple[Names, ...]] = (), ()
        self._sets: tuple[Paged[_Set, tuple[str, ...]], tuple[Names, ...]] = Paged(), ()
        self._by_place: Mapping[Place, Sets] = {}
        self._numbers: Mapping[str, int] = {}

    def follow(self, local: Local) -> Referring:
        """What is asked now."""
        speakers = local.speakers
        names = self._names.follow(speakers, lambda _, speaker: set_names(referenced([speaker.group])))
        tiers = tuple(tier for tier, _ in local.concerning)
        if tiers != self._tiers[0]:
            self._tiers = tiers, tuple(set_names(referenced([tier])) for tier in tiers)
        self._follow_sets(self._users.follow(names), self._tiers[1])
        numbers = self._numbers

        def asked(name: str, speaker: Speaker) -> Asked:
            return Asked(speaker.group, speaker.number, _of(names[name], numbers), speaker.hints)

        groups = self._groups.follow(speakers, asked, given=numbers)
        of_tiers = tuple(
            Asked(tier, local.tiers[tier.id], _of(said, numbers), hints)
            for (tier, hints), said in zip(local.concerning, self._tiers[1], strict=True)
        )
        return Referring(groups, of_tiers, self._by_place)

    def _follow_sets(self, users: Paged[_Set, tuple[str, ...]], tiers: tuple[Names, ...]) -> None:
        """The numbers of sets depend on nothing but which there are; those of a table that are equal are the same."""
        if self._sets[0] is users and self._sets[1] is tiers:
            return
        places: dict[Place, set[str]] = defaultdict(set)
        for place, name in users:
            places[place].add(name)
        for said in tiers:
            for place, some in said.items():
                places[place].update(some)
        numbers = ids.number(name for some in places.values() for name in some)
        found = {place: Sets({name: numbers[name] for name in sorted(some)}) for place, some in places.items()}
        self._by_place = {place: same(sets, self._by_place.get(place, sets)) for place, sets in found.items()}
        self._numbers = same(numbers, self._numbers)
        self._sets = users, tiers


def _said(owner: str, names: Names) -> Iterator[tuple[_Set, str]]:
    for place, some in names.items():
        for name in some:
            yield (place, name), owner


def _of(names: Names, numbers: Mapping[str, int]) -> dict[str, int]:
    return {name: numbers[name] for some in names.values() for name in some}


def group_units(page: Page[str, Asked], logs: bool) -> Iterator[Unit]:  # noqa: FBT001 - what all pages are given
    """The groups in a page."""
    return (_unit(asked, logs=logs) for asked in page.values())


def tier_units(tiers: tuple[Asked, ...], *, logs: bool) -> Iterator[Unit]:
    """The tiers that endpoints of this host have."""
    return (_unit(asked, logs=logs) for asked in tiers)


def _unit(asked: Asked, *, logs: bool) -> Unit:
    owner, number, sets, hints = asked
    if isinstance(owner, Tier):
        return Unit(("tier", owner.id), asked, partial(tier_flows, owner, number, sets, hints, logs=logs))
    return Unit(("group", owner.id), asked, partial(group_flows, owner, number, sets, hints, logs=logs))
