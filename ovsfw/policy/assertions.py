"""Assertions: what must be allowed and what must be denied, as tests of a policy.

An assertion speaks of every machine that it names, every address that the machine may use, and every service: it is
decided exactly (`reach`), and a failed one names a connection and the rule, or the missing rule, that decides it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from ovsfw.policy import services
from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.model import Direction, Policy, Port, RemoteAddressGroup, RemoteGroup, member_addresses
from ovsfw.policy.reach import Asked, Membership, Reach, Spot, familiar, is_familiar, spans_of, whole
from ovsfw.policy.spans import Spans, difference, intersection, union
from ovsfw.policy.verdict import Connection, Judgement, Verdict, verdict
from ovsfw.policy.wording import connection_text, port_text


class Whoever(str, Enum):
    """Machines without a name."""

    OUTSIDE = "outside"
    PORTS = "ports"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class OnePort:
    """One port of the policy."""

    id: str


Selector = OnePort | RemoteGroup | RemoteAddressGroup | Prefix | Whoever


@dataclass(frozen=True, slots=True)
class Assertion:
    """From `sources` to `destinations`, every one of `services` is allowed, or none is."""

    id: str
    allowed: bool
    sources: tuple[Selector, ...]
    destinations: tuple[Selector, ...]
    services: tuple[str, ...]
    except_sources: tuple[Selector, ...] = ()
    except_destinations: tuple[Selector, ...] = ()
    except_services: tuple[str, ...] = ()
    families: tuple[Family, ...] = tuple(Family)

    def wanted(self, family: Family) -> Spans:
        """The services it is about; never those that every network needs, which no rule decides."""
        asked = union(span for text in self.services for span in services.parse(text, family))
        left_out = union(span for text in self.except_services for span in services.parse(text, family))
        return difference(difference(asked, left_out), services.STANDING[family])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an assertion holds.

    `judged` is false where there was nothing to judge.  `connection` and `verdict` are a counterexample.
    """

    assertion: Assertion
    judged: bool
    connection: Connection | None = None
    verdict: Verdict | None = None

    @property
    def holds(self) -> bool:
        """No counterexample."""
        return self.connection is None


def judge(policy: Policy, assertions: Iterable[Assertion]) -> list[Outcome]:
    """Decide assertions, in their order."""
    judge_ = _Judge(policy)
    return [judge_.outcome(assertion) for assertion in assertions]


def failure_text(policy: Policy, outcome: Outcome) -> str:
    """Why an assertion does not hold: a connection, and what decides it."""
    connection, found = outcome.connection, outcome.verdict
    if connection is None or found is None:
        raise ValueError(f"{outcome.assertion.id} holds")
    sender, receiver = (_machine(policy, name) for name in (connection.sender, connection.receiver))
    sides = [("out of", connection.sender, found.egress), ("into", connection.receiver, found.ingress)]
    why = "; ".join(
        f"{word} {port_text(policy.ports[name])} {_decision(policy.ports[name], judgement)}"
        for word, name, judgement in sides
        if name is not None and judgement.allowed is found.allowed
    )
    said = "allowed" if found.allowed else "denied"
    what = f"{connection_text(connection)} ({sender} to {receiver})"
    return f"'{outcome.assertion.id}' does not hold: {what} is {said}: {why}"


def _machine(policy: Policy, name: str | None) -> str:
    return "outside" if name is None else port_text(policy.ports[name])


def _decision(port: Port, judgement: Judgement) -> str:
    if judgement.allowed:
        return f"by rule {judgement.rules[0].id}" if judgement.rules else f"because {judgement.reason}"
    if judgement.tier is not None:
        return judgement.reason
    groups = ", ".join(port.security_groups)
    return f"{judgement.reason} ({f'its groups: {groups}' if groups else 'it has none'})"


Machines = Mapping[tuple[str | None, Family], Spans]  # of each port, or of outside (None): addresses


class _Judge:
    """Decides assertions about one policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._membership = Membership(policy)
        self._reaches: dict[Asked, Reach] = {}
        taken = [prefix for port in policy.ports.values() for prefix in member_addresses(port)]
        self._outside = {family: difference(whole(family), spans_of(taken, family)) for family in Family}

    def outcome(self, assertion: Assertion) -> Outcome:
        """Look for a counterexample."""
        sources = self._machines(assertion, assertion.sources, assertion.except_sources)
        destinations = self._machines(assertion, assertion.destinations, assertion.except_destinations)
        judged = False
        for asked in self._asked(assertion):
            reach = self._reach(asked)
            for source, destination in self._pairs(sources, destinations, asked.family, reach):
                judged = True
                accepted = reach.connections(source, destination)
                wrong = difference(asked.wanted, accepted) if assertion.allowed else accepted
                if wrong:
                    connection = _connection(wrong, source, destination, asked.source_port)
                    return Outcome(assertion, True, connection, verdict(self._policy, connection))
        return Outcome(assertion, judged)

    def _asked(self, assertion: Assertion) -> Iterator[Asked]:
        """Its services from every kind of source port that rules tell apart."""
        for family in assertion.families:
            wanted = assertion.wanted(family)
            for source_port in services.source_ports(self._policy.rules) if wanted else ():
                yield Asked(family, wanted, source_port)

    def _reach(self, asked: Asked) -> Reach:
        if asked not in self._reaches:
            self._reaches[asked] = Reach(self._policy, self._membership, asked)
        return self._reaches[asked]

    def _machines(self, assertion: Assertion, chosen: Iterable[Selector], left_out: Iterable[Selector]) -> Machines:
        everybody = self._all_of(chosen, strict=not assertion.allowed)
        nobody = self._all_of(left_out, strict=not assertion.allowed)
        return {key: difference(spans, nobody.get(key, ())) for key, spans in everybody.items()}

    def _all_of(self, selectors: Iterable[Selector], *, strict: bool) -> Machines:
        found: dict[tuple[str | None, Family], Spans] = defaultdict(tuple)
        for selector in selectors:
            for family in Family:
                for name, spans in self._selected(selector, family, strict=strict):
                    found[name, family] = union((*found[name, family], *spans))
        return found

    def _selected(self, selector: Selector, family: Family, *, strict: bool) -> Iterator[tuple[str | None, Spans]]:
        within = self._within(selector, family)
        if selector is not Whoever.PORTS and not isinstance(selector, OnePort | RemoteGroup):
            yield None, intersection(self._outside[family], within)
        if selector is Whoever.OUTSIDE:
            return
        for name, port in self._policy.ports.items():
            if not _is_named(selector, port):
                continue
            own = self._addresses(port, family) if strict else spans_of(port.fixed_ips, family)
            yield name, intersection(own, within)

    def _within(self, selector: Selector, family: Family) -> Spans:
        if isinstance(selector, Prefix):
            return spans_of((selector,), family)
        if isinstance(selector, RemoteAddressGroup):
            return spans_of(self._policy.address_groups[selector.id].prefixes, family)
        return whole(family)

    def _addresses(self, port: Port, family: Family) -> Spans:
        """All that a port may use.

        Without port security nobody guards it: it may also pass on what comes from outside, as a router does.
        """
        own = spans_of([claim.prefix for claim in port.claims] + [link_local(mac) for mac in port.macs], family)
        return own if port.port_security else union((*own, *self._outside[family]))

    def _pairs(
        self, sources: Machines, destinations: Machines, family: Family, reach: Reach
    ) -> Iterator[tuple[Spot, Spot]]:
        """One pair for all that the policy cannot tell apart; nobody talks to itself, and outside to outside."""
        senders = self._spots(sources, family, reach, Direction.INGRESS)
        receivers = self._spots(destinations, family, reach, Direction.EGRESS)
        for some in senders:
            for others in receivers:
                pair = next(((one, other) for one in some for other in others if one.port is not other.port), None)
                if pair is not None:
                    yield pair

    def _spots(self, machines: Machines, family: Family, reach: Reach, direction: Direction) -> list[list[Spot]]:
        """The addresses by what the rules of the other side can tell apart (`direction` is theirs).

        Of those alike, two are kept, so that there is always one that is not the other end.
        """
        regions = reach.regions(direction)
        own = Direction.EGRESS if direction is Direction.INGRESS else Direction.INGRESS
        classes: dict[tuple[object, ...], dict[str | None, Spot]] = defaultdict(dict)
        for (name, of_family), spans in machines.items():
            if of_family is not family:
                continue
            port = None if name is None else self._policy.ports[name]
            rules = tuple(rule.id for rule in reach.rules(port, own)) if port else ()
            standing = port is not None, port is not None and port.port_security, rules
            for piece in regions.pieces(spans):
                alike = classes[(standing, piece.remotes, piece.first == 0)]
                if (name not in alike and len(alike) < 2) or (name is None and is_familiar(piece, family)):  # noqa: PLR2004
                    alike[name] = Spot(port, familiar(piece, family), piece.remotes)
        return [list(alike.values()) for _, alike in sorted(classes.items(), key=lambda item: bool(item[0][-1]))]


def _is_named(selector: Selector, port: Port) -> bool:
    if isinstance(selector, OnePort):
        return selector.id == port.id
    return not isinstance(selector, RemoteGroup) or selector.id in port.security_groups


def _connection(wrong: Spans, source: Spot, destination: Spot, source_port: int) -> Connection:
    ends = tuple(services.End(spot.port.id if spot.port else None, spot.address) for spot in (source, destination))
    return services.connection(services.example(wrong, source.address.family), (ends[0], ends[1]), source_port)
