"""Who may reach whom, exactly: sets of connections judged piece by piece.

The judge is `verdict`.  What makes it exact is where it is asked: addresses and services are cut at every border that
a rule mentions, so that a piece is judged as a whole by judging one connection of it.  What makes it fast is that each
question is asked once for all ports with the same groups and all addresses in the same remote sets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from ovsfw.policy import services
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Direction, Policy, Port, RemoteAddressGroup, RemoteGroup, Rule, member_addresses
from ovsfw.policy.spans import Span, Spans, cut, intersection, union
from ovsfw.policy.verdict import verdict

Far = Prefix | RemoteGroup | RemoteAddressGroup
# An outside address that people know for one, where any would do (RFC 5737, RFC 3849).
_WELL_KNOWN = {Family.IPV4: 0xCB007101, Family.IPV6: 0x20010DB8_0000FFFF_00000000_00000001}


def whole(family: Family) -> Spans:
    """Every address."""
    return ((0, (1 << family.bits) - 1),)


def span_of(prefix: Prefix) -> Span:
    """The addresses of a prefix."""
    return prefix.value, prefix.value | ((1 << (prefix.family.bits - prefix.length)) - 1)


def spans_of(prefixes: Iterable[Prefix], family: Family) -> Spans:
    """The addresses of those prefixes that are of a family."""
    return union(span_of(prefix) for prefix in prefixes if prefix.family is family)


def addresses_of(policy: Policy, rule: Rule) -> Spans:
    """The far addresses that a rule is for, with the members that its remote has now."""
    if rule.remote is None:
        return whole(rule.family)
    prefixes = (rule.remote,) if isinstance(rule.remote, Prefix) else policy.members(rule.remote)
    return spans_of(prefixes, rule.family)


class Membership:
    """The addresses behind every remote of a policy; each is counted out once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._members: dict[str, list[Prefix]] = defaultdict(list)
        for port in policy.ports.values():
            for group in port.security_groups:
                self._members[group].extend(member_addresses(port))
        self._found: dict[tuple[Far, Family], Spans] = {}

    def addresses(self, far: Far, family: Family) -> Spans:
        """The addresses of a family."""
        key = far, family
        if key not in self._found:
            self._found[key] = spans_of(self._prefixes(far), family)
        return self._found[key]

    def _prefixes(self, far: Far) -> Iterable[Prefix]:
        if isinstance(far, RemoteGroup):
            return self._members.get(far.id, ())
        return self._policy.address_groups[far.id].prefixes if isinstance(far, RemoteAddressGroup) else (far,)


Remotes = frozenset[Far]


class Piece(NamedTuple):
    """Addresses that no rule tells apart: `remotes` are those that they are all in.

    The address zero (0.0.0.0, ::) is always a piece of its own, for the spoof guard tells it apart.
    """

    first: int
    last: int
    remotes: Remotes


def is_familiar(piece: Piece, family: Family) -> bool:
    """Whether people know one of the addresses for an example."""
    return piece.first <= _WELL_KNOWN[family] <= piece.last


def familiar(piece: Piece, family: Family) -> Prefix:
    """An address of a piece that looks like one: no network address where another will do."""
    if is_familiar(piece, family):
        value = _WELL_KNOWN[family]
    else:
        value = piece.first + 1 if piece.last - piece.first > 1 else piece.first
    return Prefix(family, value, family.bits)


class Regions:
    """All addresses of one family, cut wherever a remote of the rules of one direction begins or ends."""

    def __init__(self, rules: Iterable[Rule], membership: Membership, family: Family) -> None:
        comes: dict[int, set[Far]] = defaultdict(set)
        goes: dict[int, set[Far]] = defaultdict(set)
        for far in {rule.remote for rule in rules if rule.remote is not None}:
            for first, last in membership.addresses(far, family):
                comes[first].add(far)
                goes[last + 1].add(far)
        end = 1 << family.bits
        self._firsts = sorted((comes.keys() | goes.keys() | {0, 1}) - {end})
        self._remotes: list[Remotes] = []
        inside: set[Far] = set()
        for first in self._firsts:
            inside = (inside - goes[first]) | comes[first]
            self._remotes.append(frozenset(inside))
        self._lasts = [first - 1 for first in self._firsts[1:]] + [end - 1]

    def pieces(self, spans: Spans) -> Iterator[Piece]:
        """The pieces of a set of addresses."""
        for first, last in spans:
            for at in range(bisect_right(self._firsts, first) - 1, bisect_right(self._firsts, last)):
                yield Piece(max(first, self._firsts[at]), min(last, self._lasts[at]), self._remotes[at])


@dataclass(frozen=True, slots=True)
class Spot:
    """One address of one machine: a port, or None for a machine outside; `remotes` are those that the address is in."""

    port: Port | None
    address: Prefix
    remotes: Remotes


class _Side(NamedTuple):
    """What the judgement of one side depends on: the rules that speak of the far address, and the own address."""

    rules: tuple[str, ...]
    direction: Direction
    unspecified: bool


class Asked(NamedTuple):
    """What is asked for."""

    family: Family
    wanted: Spans
    source_port: int


class Reach:
    """Who may ask whom, from one source port, for services of one IP version; answers are kept for the next to ask.

    Only rules that are about these services count, so the fewer services, the more ports and addresses are alike.
    """

    def __init__(self, policy: Policy, membership: Membership, asked: Asked) -> None:
        self._policy = policy
        self._asked = asked
        self._family = family = asked.family
        self._wanted = asked.wanted
        relevant = [rule for rule in policy.rules if rule.family is family and self._is_about(rule)]
        self._regions = {
            direction: Regions((rule for rule in relevant if rule.direction is direction), membership, family)
            for direction in Direction
        }
        self._relevant: dict[tuple[tuple[str, ...], Direction], tuple[Rule, ...]] = {}
        self._accepted: dict[_Side, Spans] = {}

    def regions(self, direction: Direction) -> Regions:
        """The far addresses that the rules of a direction tell apart."""
        return self._regions[direction]

    def rules(self, port: Port, direction: Direction) -> tuple[Rule, ...]:
        """Those of its groups and tiers that are about the services."""
        key = port.security_groups, direction
        if key not in self._relevant:
            policy, groups = self._policy, port.security_groups
            tiers = (rule for tier in policy.tiers if tier.concerns(groups) for rule in tier.rules)
            rules = chain((rule for group in groups for rule in policy.security_groups[group].rules), tiers)
            self._relevant[key] = tuple(
                rule
                for rule in rules
                if rule.direction is direction and rule.family is self._family and self._is_about(rule)
            )
        return self._relevant[key]

    def _is_about(self, rule: Rule) -> bool:
        return bool(intersection(services.of_rule(rule), self._wanted))

    def connections(self, source: Spot, destination: Spot) -> Spans:
        """Which of the services a machine may ask another for."""
        out = self._side(source, destination, Direction.EGRESS)
        return intersection(out, self._side(destination, source, Direction.INGRESS)) if out else ()

    def _side(self, near: Spot, far: Spot, direction: Direction) -> Spans:
        """What one side accepts, whatever the other says."""
        if near.port is None or not near.port.port_security:
            return self._wanted
        rules = tuple(
            rule for rule in self.rules(near.port, direction) if rule.remote is None or rule.remote in far.remotes
        )
        side = _Side(tuple(rule.id for rule in rules), direction, near.address.value == 0)
        if side not in self._accepted:
            self._accepted[side] = self._judged_apart(near, near.port, far, side, rules)
        return self._accepted[side]

    def _judged_apart(self, near: Spot, port: Port, far: Spot, side: _Side, rules: tuple[Rule, ...]) -> Spans:
        """Where there are no tiers, what several rules accept is what each accepts: few judgements serve all ports."""
        groups = port.security_groups
        if len(rules) < 2 or side.unspecified or any(tier.concerns(groups) for tier in self._policy.tiers):  # noqa: PLR2004
            return union(self._judged((port, near.address), far.address, side.direction, rules))
        parts = []
        for rule in rules:
            alone = _Side((rule.id,), side.direction, unspecified=False)
            if alone not in self._accepted:
                self._accepted[alone] = union(self._judged((port, near.address), far.address, side.direction, (rule,)))
            parts.append(self._accepted[alone])
        return union(chain.from_iterable(parts))

    def _judged(
        self, near: tuple[Port, Prefix], far: Prefix, direction: Direction, rules: tuple[Rule, ...]
    ) -> Iterator[Span]:
        """The pieces of the services that are accepted."""
        port, address = near
        policy = _with_only(self._policy, port, {rule.id for rule in rules})
        here, there = services.End(port.id, address), services.End(None, far)
        ends = (here, there) if direction is Direction.EGRESS else (there, here)
        for piece in cut(self._wanted, (*map(services.of_rule, rules), services.STANDING[self._family])):
            if verdict(policy, services.connection(piece[0], ends, self._asked.source_port)).allowed:
                yield piece


def _with_only(policy: Policy, port: Port, wanted: set[str]) -> Policy:
    """The policy for one port, with nothing but rules that speak of one far address; so they need not say of whom."""

    def speaking(rules: Iterable[Rule]) -> tuple[Rule, ...]:
        return tuple(replace(rule, remote=None) for rule in rules if rule.id in wanted)

    groups = {name: policy.security_groups[name] for name in port.security_groups}
    return replace(
        policy,
        ports={port.id: port},
        security_groups={name: replace(group, rules=speaking(group.rules)) for name, group in groups.items()},
        tiers=tuple(replace(tier, rules=speaking(tier.rules)) for tier in policy.tiers),
    )
