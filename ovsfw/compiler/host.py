"""Who is on this host, and whose rules they have; followed by what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from ovsfw.compiler.bindings import Binding, Bindings
from ovsfw.compiler.following import Index, Joined, Pages, same, spliced
from ovsfw.compiler.hook import Hook
from ovsfw.compiler.ids import Hinted, Hints, number
from ovsfw.compiler.tiers import Course, Helped, Numbers, course_of
from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow.flow import DuplicateFlowError
from ovsfw.policy.decisions import DROPPED
from ovsfw.policy.helpers import too_many
from ovsfw.policy.model import MAX_GROUPS, Policy, Port, SecurityGroup, Tier
from ovsfw.policy.paged import Paged
from ovsfw.policy.tiers import too_long

# The security groups of a port.
List = tuple[str, ...]


class Plugged(NamedTuple):
    """What is plugged in, and its port; None where the policy knows none."""

    binding: Binding
    port: Port | None

    @property
    def is_known(self) -> bool:
        """Whether the policy knows it."""
        return self.port is not None

    @property
    def filtered(self) -> Port | None:
        """Its port, where that makes it an endpoint."""
        return self.port if self.port is not None and self.port.port_security else None


class Speaker(NamedTuple):
    """A group that an endpoint of this host has, its number, and those of its rules."""

    group: SecurityGroup
    number: int
    hints: Mapping[str, int]

    @property
    def helped(self) -> tuple[Helped, ...]:
        """Its rules with a helper."""
        return tuple(Helped(self.hints[rule.id], rule.direction, rule.family) for rule in self.group.helped)


class Kind(NamedTuple):
    """What endpoints with one list of groups have in common: whose rules they have, and how they are asked."""

    course: Course
    stateless: bool
    logs_drops: bool


class Endpoint(NamedTuple):
    """An endpoint, with all that its flows depend on."""

    binding: Binding
    port: Port
    kind: Kind


class Local(NamedTuple):
    """All that is of this host.

    `endpoints` are by ofport; `others` are no endpoints, by whether the policy knows them; `closed` says
    for each ofport whether the switch's own forwarding must not flood into it.  `tiers` are the numbers of all tiers by
    id, `concerning` the tiers that an endpoint has, with the numbers of their rules.  `helps`: an endpoint has a rule
    with a helper.
    """

    endpoints: Paged[int, Endpoint]
    others: Paged[bool, tuple[Binding, ...]]
    closed: Paged[int, bool]
    speakers: Paged[str, Speaker]
    tiers: Mapping[str, int]
    concerning: tuple[tuple[Tier, Mapping[str, int]], ...]
    helps: bool


class Host:
    """Its state is what was plugged in last, and what followed from that and from the policy."""

    def __init__(self, hook: Hook) -> None:
        """Start with nothing plugged in."""
        self._unwired = hook.unwired
        self._hints = Hints()
        self._seen: tuple[Binding, ...] = ()
        self._bindings: Paged[int, Binding] = Paged()
        self._ports: Pages[str, Port] = Pages()
        self._ofports: Index[int, Binding, int] = Index(lambda ofport, bound: ((bound.port_id, ofport),))
        self._plugged: Joined[int, Binding, Plugged] = Joined()
        self._closed: Joined[int, Plugged, bool] = Joined()
        self._others: Index[int, Plugged, Binding] = Index(_other)
        self._lists: Index[int, Plugged, int] = Index(_list)
        self._groups: Index[List, tuple[int, ...], List] = Index(lambda names, _: ((name, names) for name in names))
        self._helped: Index[str, Speaker, str] = Index(_helped)
        self._security_groups: Pages[str, SecurityGroup] = Pages()
        self._numbers: Mapping[str, int] = {}
        self._numbered: Paged[str, tuple[List, ...]] = Paged()
        self._speakers: Joined[str, tuple[List, ...], Speaker] = Joined()
        self._kinds: Joined[List, tuple[int, ...], Kind] = Joined()
        self._endpoints: Joined[int, Plugged, Endpoint] = Joined()
        # Lists of groups whose rules may be more than Open vSwitch can take.
        self._unchecked: set[List] = set()

    def follow(self, policy: Policy, bindings: Bindings, *, logs: bool) -> Local:
        """What there is now; `logs`: what is to be logged is.

        Raises PolicyError for a port whose rules are more than Open vSwitch can take.
        """
        plugged = self._follow_plugged(policy, bindings)
        lists = self._lists.follow(plugged)
        groups = self._groups.follow(lists)
        hints = self._hints.follow(policy)
        speakers = self._follow_speakers(policy, groups, hints)
        tiers = number(tier.id for tier in policy.tiers)
        kinds = self._kinds.follow(
            lists,
            lambda names, _: self._kind(policy, names, speakers, tiers, logs=logs),
            given=(policy.tiers, tiers, logs),
            leans=(speakers, lambda name: groups.get(name, ())),
        )
        self._refuse_too_much(policy, [plugged[lists[names][0]].port for names in self._unchecked if names in lists])
        endpoints = self._endpoints.follow(
            plugged, partial(_endpoint, kinds), leans=(kinds, lambda names: lists.get(names, ()))
        )
        concerning = tuple((tier, hints(tier)) for tier in policy.tiers if lists and tier.concerns(groups))
        closed = self._closed.follow(plugged, lambda _, one: one.filtered is not None or not one.is_known)
        helps = bool(self._helped.follow(speakers))
        return Local(endpoints, self._others.follow(plugged), closed, speakers, tiers, concerning, helps)

    def _follow_plugged(self, policy: Policy, bindings: Bindings) -> Paged[int, Plugged]:
        gone, come = spliced(self._seen, bindings.endpoints)
        changes: dict[int, Binding | None] = {bound.ofport: None for bound in gone}
        changes.update({bound.ofport: self._wired(bound) for bound in come})
        now = self._bindings.changed(changes)
        if len(now) != len(bindings.endpoints):
            raise DuplicateFlowError("two endpoints have one OpenFlow port")
        self._bindings, self._seen = now, bindings.endpoints
        ports, ofports = self._ports.follow(policy.ports), self._ofports.follow(self._bindings)
        return self._plugged.follow(
            self._bindings,
            lambda _, bound: Plugged(bound, ports.get(bound.port_id)),
            leans=(ports, lambda name: ofports.get(name, ())),
        )

    def _wired(self, bound: Binding) -> Binding:
        """Nobody knows the endpoints that are not ready."""
        return bound._replace(port_id="") if bound.vlan in self._unwired else bound

    def _follow_speakers(
        self, policy: Policy, groups: Paged[str, tuple[List, ...]], hints: Hinted
    ) -> Paged[str, Speaker]:
        if any(was is None or now is None for _, was, now in groups.differences(self._numbered)):
            self._numbers = same(number(groups), self._numbers)
        self._numbered = groups
        numbers = self._numbers

        def speaker(name: str, _: object) -> Speaker:
            group = policy.security_groups[name]
            return Speaker(group, numbers[name], hints(group))

        owners = self._security_groups.follow(policy.security_groups)
        return self._speakers.follow(
            groups, speaker, given=(numbers, hints.apart), leans=(owners, lambda name: (name,))
        )

    def _kind(
        self, policy: Policy, names: List, speakers: Paged[str, Speaker], tiers: Mapping[str, int], *, logs: bool
    ) -> Kind:
        """The kind of endpoints with a list of groups."""
        self._unchecked.add(names)
        known = {name: speakers[name] for name in names}
        numbers = Numbers(
            {name: one.number for name, one in known.items()}, tiers, {name: one.helped for name, one in known.items()}
        )
        stateless = bool(names) and not any(one.group.stateful for one in known.values())
        logs_drops = logs and any(one.group.log in DROPPED for one in known.values())
        return Kind(course_of(policy, names, numbers), stateless, logs_drops)

    def _refuse_too_much(self, policy: Policy, ports: list[Port | None]) -> None:
        """Open vSwitch would silently drop what such a port sends and gets.  Documents are refused before; others here.

        What has been refused is looked at again next time.
        """
        known = [port for port in ports if port is not None]
        problems = [
            Problem(f"port {port.id} has {count:,} security groups; Open vSwitch can take {MAX_GROUPS}")
            for port in known
            if (count := len(port.security_groups)) > MAX_GROUPS
        ]
        problems += [Problem(text) for text in (*too_long(policy, known), *too_many(policy, known))] if known else []
        if problems:
            raise PolicyError(problems)
        self._unchecked.clear()


def _list(ofport: int, plugged: Plugged) -> Iterator[tuple[List, int]]:
    if (port := plugged.filtered) is not None:
        yield port.security_groups, ofport


def _helped(name: str, speaker: Speaker) -> Iterator[tuple[bool, str]]:
    if speaker.group.helped:
        yield True, name


def _other(_: int, plugged: Plugged) -> Iterator[tuple[bool, Binding]]:
    if plugged.filtered is None:
        yield plugged.is_known, plugged.binding


def _endpoint(kinds: Paged[List, Kind], _: int, plugged: Plugged) -> Endpoint | None:
    port = plugged.filtered
    return None if port is None else Endpoint(plugged.binding, port, kinds[port.security_groups])
