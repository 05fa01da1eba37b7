"""Policy and bindings to flows.  Pure; the only place that knows both security groups and OpenFlow.

Compiling is assembled from units: one endpoint, one group, one MAC address, a part of one table's remote sets.  A
`Compiler` keeps each unit's flows together with the inputs that made them, and hands out the very same object while the
inputs are equal, so that a small change costs what it touches (see `units`).  That is all it remembers: what it returns
depends only on what it is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from ovsfw.compiler.bindings import Binding, Bindings, Uplink, VlanMode
from ovsfw.compiler.endpoints import endpoint_flows, endpoint_value, network_of, unknown_port
from ovsfw.compiler.groups import RULE_TABLE, group_flows
from ovsfw.compiler.helpers import helper_flows
from ovsfw.compiler.hook import NEUTRON, STANDALONE, Hook
from ovsfw.compiler.ids import Hints, are_apart, digests, number
from ovsfw.compiler.networks import Member, network_batches, uplink_flows
from ovsfw.compiler.pipeline import NETWORK
from ovsfw.compiler.recording import NOTHING, Copies, Sends, copied, copies
from ovsfw.compiler.remotes import Members, Page, Place, Sets, member_flows, referenced, set_names
from ovsfw.compiler.standing import standing_flows
from ovsfw.compiler.tiers import Course, Helped, Numbers, course_of, helped_rules, tier_flows, tier_size
from ovsfw.compiler.trusted import trusted_flows
from ovsfw.compiler.units import Unit, Units
from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow.flow import Batch, Flow, FlowSet
from ovsfw.openflow.match import Term
from ovsfw.policy.decisions import DROPPED
from ovsfw.policy.helpers import too_many
from ovsfw.policy.model import MAX_GROUPS, Direction, Network, Policy, Port, SecurityGroup, Tier
from ovsfw.policy.tiers import rejects, tiers_of, too_long


@dataclass(frozen=True, slots=True)
class Program:
    """What the switch should hold.

    Our flows; for each ofport that has an iface-id, whether the switch's own forwarding (NORMAL) must not flood into it
    (ports that are not named keep the flag they have); whether flows must see the ports of first fragments; and how
    many connections a conntrack zone of a network may have, any number in those that are not named.
    """

    flows: FlowSet
    no_flood: Mapping[int, bool]
    fragment_ports: bool = True
    connection_limits: Mapping[int, int] = field(default_factory=dict)


def compile_policy(policy: Policy, bindings: Bindings, hook: Hook = STANDALONE) -> Program:
    """Compile without a memory, to flows that send no copies; see `Compiler`.

    Succeeds on every valid policy but those with some hundred times too much of one thing: raises PolicyError where a
    port has more than 500 security groups, 400 endpoints of this host share a MAC address, or one service of a group is
    open to 4,000 remote sets.
    """
    return Compiler(hook).compile(policy, bindings)


class _Host(NamedTuple):
    """Everything that the flows of this host's endpoints depend on; `ports` has None where the policy knows no port."""

    bindings: Bindings
    ports: tuple[Port | None, ...]
    stateless: frozenset[str]
    tiers: tuple[Tier, ...]
    networks: Mapping[str | None, Network]
    helped: Mapping[str, tuple[Helped, ...]]

    @property
    def endpoints(self) -> list[tuple[Binding, Port]]:
        """The endpoints that are filtered."""
        pairs = zip(self.bindings.endpoints, self.ports, strict=True)
        return [(binding, port) for binding, port in pairs if port is not None and port.port_security]

    @property
    def unknown(self) -> tuple[Binding, ...]:
        """Those that the policy does not know."""
        pairs = zip(self.bindings.endpoints, self.ports, strict=True)
        return tuple(binding for binding, port in pairs if port is None)

    @property
    def unfiltered(self) -> frozenset[str]:
        """The ids of ports here without port security."""
        return frozenset(port.id for port in self.ports if port is not None and not port.port_security)


class _Local(NamedTuple):
    """What follows from a `_Host` for everything else.

    `lists` are the lists of groups that endpoints have, `speakers` an endpoint for each, `groups` and `tiers` the
    numbers of groups and tiers by id, `options` what holds in each network, by the value of NETWORK: there may be ports
    of several in one VLAN.
    """

    endpoints: list[tuple[Binding, Port]]
    lists: frozenset[tuple[str, ...]]
    speakers: list[Port]
    groups: Mapping[str, int]
    tiers: Mapping[str, int]
    no_flood: Mapping[int, bool]
    options: Mapping[int, tuple[Network, ...]]


class _Asked(NamedTuple):
    """A group or tier whose rules are asked on this host, and the remote sets that they refer to.

    By table the names of those, and for all of them their digests and their numbers.
    """

    owner: SecurityGroup | Tier
    names: Mapping[Place, frozenset[str]]
    digests: Mapping[str, int]
    sets: Mapping[str, int]


class _Referring(NamedTuple):
    """Whose rules are asked on this host, and the remote sets by table."""

    asked: list[_Asked]
    by_place: Mapping[Place, Sets]


class _Kind(NamedTuple):
    """What endpoints with one list of groups have in common: whose rules they have, and how they are asked."""

    course: Course
    stateless: bool
    logs_drops: bool


T = TypeVar("T")
_Endpoint = tuple[Binding, Port, _Kind]
# As many neighbouring ofports are looked at together when one of them differs.
_PAGE = 16


class Compiler:
    """Compiles policies for one hook; its state is a cache of units, and of a few values, by their inputs."""

    def __init__(self, hook: Hook = STANDALONE) -> None:
        """Start with nothing remembered."""
        self._hook = hook
        self._members, self._hints = Members(), Hints()
        self._referring = _Referring([], {})
        self._begin(NOTHING)

    def _begin(self, sends: Sends) -> None:
        """Begin anew with units whose flows send other copies than before; what is rejected concerns but one unit."""
        self._sends = sends._replace(answers=False)
        # Batches of endpoints are among them.
        self._values: dict[Hashable, tuple[object, object]] = {}
        self.units = Units(partial(copied, wanted=copies(self._sends)))

    def compile(self, policy: Policy, bindings: Bindings, sends: Sends = NOTHING) -> Program:
        """The flows for a policy on this host, now; those that the policy names also send copies (see `recording`)."""
        if sends._replace(answers=False) != self._sends:
            self._begin(sends)
        sent = copies(sends._replace(answers=sends.answers and rejects(policy)))
        bindings = _wired(bindings, self._hook)
        ports = tuple(policy.ports.get(bound.port_id) for bound in bindings.endpoints)
        groups = policy.security_groups.items()
        stateless = frozenset(name for name, group in groups if not group.stateful)
        log_drops = frozenset(name for name, group in groups if sends.logs and group.log in DROPPED)
        asked_alone = (tuple(policy.security_groups.values()), policy.tiers)
        helped = self._once("helped", asked_alone, lambda: helped_rules(policy, self._hints.follow(policy)))
        host = _Host(bindings, ports, stateless, policy.tiers, policy.networks, helped)
        local = self._once("local", host, lambda: _local(policy, host))
        rules = (tuple(policy.security_groups.values()), policy.tiers, local.lists, local.groups, local.tiers)
        before = self._referring
        referring = self._referring = self._once("referring", rules, lambda: _referring(policy, local, before))
        kinds = self._kinds(policy, host, local, log_drops)
        batch = self.units.batch
        batches = {
            "frame": batch("frame", (host, sent), lambda: _frame(host, self._hook, sent)),
            **self._once("endpoints", (host, log_drops), lambda: dict(self._endpoint_batches(policy, local, kinds))),
            "rules": batch("rules", rules, lambda: _rules(policy, referring, local, self._hints, logs=sends.logs)),
            **dict(self._member_batches(policy, referring.by_place)),
        }
        self.units.keep(batches)
        # A page of endpoints has a batch and a value of one name.
        for gone in [name for name in self._values if isinstance(name, tuple) and name not in batches]:
            del self._values[gone]
        return Program(FlowSet(batches), local.no_flood, connection_limits=_connection_limits(local.options))

    def _kinds(
        self, policy: Policy, host: _Host, local: _Local, log_drops: AbstractSet[str]
    ) -> Mapping[tuple[str, ...], _Kind]:
        """The kind of endpoints with each list of groups; `log_drops` are the groups that want their drops logged."""
        inputs = (local.groups, local.tiers, host.tiers, host.helped, host.stateless, log_drops)
        numbers = Numbers(local.groups, local.tiers, host.helped)
        known: dict[tuple[str, ...], _Kind] = self._once("kinds", inputs, dict)
        for names in known.keys() - local.lists:
            del known[names]
        for names in local.lists - known.keys():
            course = course_of(policy, names, numbers)
            stateless = bool(names) and host.stateless.issuperset(names)
            known[names] = _Kind(course, stateless, not log_drops.isdisjoint(names))
        return known

    def _endpoint_batches(
        self, policy: Policy, local: _Local, kinds: Mapping[tuple[str, ...], _Kind]
    ) -> Iterator[tuple[object, Batch]]:
        """Each endpoint, in pages of neighbouring ofports, and what the networks that they are in know of them."""
        helps = any(kind.course.helped for kind in kinds.values())
        yield "helpers", self.units.batch("helpers", helps, partial(_helpers, helps=helps))
        pages: dict[int, list[_Endpoint]] = defaultdict(list)
        for binding, port in local.endpoints:
            pages[binding.ofport // _PAGE].append((binding, port, kinds[port.security_groups]))
        networks: dict[int, list[Member]] = defaultdict(list)
        for index, page in pages.items():
            name = ("endpoints", index)
            yield name, self.units.batch(name, (page, helps), partial(_endpoints, page, helps=helps))
            for network, members in self._once(name, page, partial(_members, page)).items():
                networks[network] += members
        sizes = {local.tiers[tier.id]: tier_size(tier, Direction.INGRESS) for tier in policy.tiers}
        for network, inside in networks.items():
            for part, inputs, units in network_batches(network, inside, sizes):
                yield part, self.units.batch(part, inputs, units)
            name, options = ("trusted", network), local.options[network]
            yield name, self.units.batch(name, options, partial(_trusted, name, NETWORK(network), options))

    def _member_batches(self, policy: Policy, by_place: Mapping[Place, Sets]) -> Iterator[tuple[object, Batch]]:
        """The remote sets that rules refer to, a batch for each table and page."""
        pages = self._members.follow(policy)
        for place, sets in by_place.items():
            table = RULE_TABLE[place].number
            for index, page in enumerate(pages[place[1]]):
                name = ("members", table, index)
                units = partial(_member_units, name, place, page, sets)
                yield name, self.units.batch(name, (page, sets), units)

    def _once(self, name: Hashable, inputs: object, build: Callable[[], T]) -> T:
        """A value that depends on `inputs` alone; the same object while they are equal."""
        known = self._values.get(name)
        if known is None or known[0] != inputs:
            known = self._values[name] = (inputs, build())
        value: T = known[1]  # type: ignore[assignment] # what has this name was built by the same function
        return value


def _local(policy: Policy, host: _Host) -> _Local:
    endpoints = host.endpoints
    speakers = {port.security_groups: port for _, port in reversed(endpoints)}
    lists = frozenset(speakers)
    unfiltered = host.unfiltered
    no_flood = {bound.ofport: bound.port_id not in unfiltered for bound in host.bindings.endpoints}
    groups, tiers = number({name for names in lists for name in names}), number(tier.id for tier in policy.tiers)
    options: dict[int, tuple[Network, ...]] = defaultdict(tuple)
    for (vlan, _), port in {(binding.vlan, port.network_id): port for binding, port in endpoints}.items():
        options[network_of(vlan)] += (policy.network_of(port),)
    return _Local(endpoints, lists, [*speakers.values()], groups, tiers, no_flood, options)


def _referring(policy: Policy, local: _Local, before: _Referring) -> _Referring:
    """`before` is what there was last, for what has not changed.

    Raises PolicyError for a port whose rules are more than Open vSwitch can take.
    """
    _refuse_too_much(policy, local.speakers)
    known = {id(asked.owner): asked for asked in before.asked}
    groups = (policy.security_groups[name] for name in sorted(local.groups))
    owners: tuple[SecurityGroup | Tier, ...] = (*groups, *tiers_of(policy, local.speakers))
    asked = [known.get(id(owner)) or _asked(owner) for owner in owners]
    if _names(asked) == _names(before.asked):
        pairs = zip(asked, before.asked, strict=True)
        return before._replace(asked=[new if new is old else new._replace(sets=old.sets) for new, old in pairs])
    places: dict[Place, dict[str, int]] = defaultdict(dict)
    if are_apart(each.digests for each in asked):
        asked = [each if each.sets is each.digests else each._replace(sets=each.digests) for each in asked]
    else:
        numbers = number(name for each in asked for name in each.digests)
        asked = [each._replace(sets={name: numbers[name] for name in each.digests}) for each in asked]
    for each in asked:
        for place, names in each.names.items():
            places[place].update((name, each.sets[name]) for name in names)
    return _Referring(asked, {place: _same(Sets(found), before.by_place.get(place)) for place, found in places.items()})


def _names(asked: Iterable[_Asked]) -> list[Mapping[Place, frozenset[str]]]:
    """All that the numbers of sets depend on."""
    return [each.names for each in asked]


def _asked(owner: SecurityGroup | Tier) -> _Asked:
    names = set_names(referenced([owner]))
    found = digests(name for place in names for name in names[place])
    return _Asked(owner, names, found, found)


def _same(new: T, before: T | None) -> T:
    """The very object from before, while it is equal."""
    return before if before is not None and before == new else new


def _frame(host: _Host, hook: Hook, sent: Copies) -> Iterator[Unit]:
    """What is there whatever the rules say.  Only standing flows reject, so only they send copies to be answered."""
    yield Unit("standing", sent, lambda: copied(standing_flows(hook), sent))
    outside = _outside(host.bindings, host.unfiltered)
    yield Unit("uplinks", outside, partial(_uplinks, outside, hook))
    unknown = host.unknown
    yield Unit("unknown", unknown, lambda: map(unknown_port, unknown))


def _helpers(*, helps: bool) -> Iterator[Unit]:
    if helps:
        yield Unit("helpers", helps, helper_flows)


def _endpoints(page: Iterable[_Endpoint], *, helps: bool) -> Iterator[Unit]:
    for binding, port, kind in page:
        course, stateless, logs = kind
        build = partial(endpoint_flows, binding, port, course, stateless=stateless, logs_drops=logs, helps=helps)
        yield Unit(("endpoint", binding.ofport), (binding, port, kind, helps), build)


def _members(page: Iterable[_Endpoint]) -> dict[int, list[Member]]:
    """Some endpoints as their networks see them, by network."""
    found: dict[int, list[Member]] = defaultdict(list)
    for binding, port, kind in page:
        value = endpoint_value(binding, port, stateless=kind.stateless)
        found[network_of(binding.vlan)].append(Member(binding.ofport, value, port.macs, kind.course))
    return found


def _trusted(name: tuple[str, int], here: Term, options: tuple[Network, ...]) -> Iterator[Unit]:
    yield Unit(name, options, partial(trusted_flows, here, options))


def _rules(policy: Policy, referring: _Referring, local: _Local, known: Hints, *, logs: bool) -> Iterator[Unit]:
    """The groups and tiers that endpoints of this host have.  `logs` never changes in the life of a compiler."""
    hints = known.follow(policy)
    for owner, _, _, sets in referring.asked:
        if isinstance(owner, Tier):
            given_tier = (owner, local.tiers[owner.id], sets, hints(owner))
            yield Unit(("tier", owner.id), given_tier, partial(tier_flows, *given_tier, logs=logs))
        else:
            given = (owner, local.groups[owner.id], sets, hints(owner))
            yield Unit(("group", owner.id), given, partial(group_flows, *given, logs=logs))


def _member_units(name: tuple[object, ...], place: Place, page: Page, sets: Sets) -> Iterator[Unit]:
    """One page of the remote sets that the rules of one table refer to; a bucket depends on the sets in it alone."""
    for index, bucket in enumerate(page):
        yield Unit((*name, index), (bucket, bucket.numbers(place, sets)), partial(member_flows, place, bucket, sets))


def _connection_limits(options: Mapping[int, Iterable[Network]]) -> dict[int, int]:
    """By zone; where ports of several networks are in one VLAN, the lowest holds."""
    every = {
        zone: [network.connection_limit for network in networks if network.connection_limit is not None]
        for zone, networks in options.items()
    }
    return {zone: min(limits) for zone, limits in every.items() if limits}


def _refuse_too_much(policy: Policy, ports: list[Port]) -> None:
    """Open vSwitch would silently drop what such a port sends and gets.  Documents are refused before; others here."""
    problems = [
        Problem(f"port {port.id} has {len(port.security_groups):,} security groups; Open vSwitch can take {MAX_GROUPS}")
        for port in ports
        if len(port.security_groups) > MAX_GROUPS
    ]
    problems += [Problem(text) for text in (*too_long(policy, ports), *too_many(policy, ports))]
    if problems:
        raise PolicyError(problems)


def _wired(bindings: Bindings, hook: Hook) -> Bindings:
    """Nobody knows the endpoints that are not ready."""
    if not any(bound.vlan in hook.unwired for bound in bindings.endpoints):
        return bindings
    wired = (bound._replace(port_id="") if bound.vlan in hook.unwired else bound for bound in bindings.endpoints)
    return Bindings(tuple(wired), bindings.uplinks)


def _outside(bindings: Bindings, unfiltered: AbstractSet[str]) -> tuple[Uplink, ...]:
    """Uplinks, and endpoints without port security: to the filter they are ports like any other."""
    ports = (bound for bound in bindings.endpoints if bound.port_id in unfiltered)
    access = (Uplink(bound.ofport, VlanMode.ACCESS if bound.vlan else VlanMode.TRUNK, bound.vlan) for bound in ports)
    return (*bindings.uplinks, *access)


def _uplinks(outside: tuple[Uplink, ...], hook: Hook) -> Iterator[Flow]:
    for uplink in outside:
        yield from uplink_flows(uplink, hook)


__all__ = ["NEUTRON", "STANDALONE", "Binding", "Bindings", "Compiler", "Hook", "Program", "Sends", "compile_policy"]
