"""Policy and bindings to flows.  Pure; the only place that knows both security groups and OpenFlow.

Compiling is assembled from units: one endpoint, one group, one network, one table's remote sets.  A `Compiler` keeps
each unit's flows together with the inputs that made them, and hands out the very same object while the inputs are
equal, so that a small change costs what it touches.  That is all it remembers: what it returns depends only on what it
is given.
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
from ovsfw.compiler.groups import group_flows
from ovsfw.compiler.hook import NEUTRON, STANDALONE, Hook
from ovsfw.compiler.ids import hint_numbers, number
from ovsfw.compiler.networks import Member, network_flows, uplink_flows
from ovsfw.compiler.pipeline import NETWORK
from ovsfw.compiler.recording import recorded
from ovsfw.compiler.remotes import member_flows, members, referenced, set_names
from ovsfw.compiler.standing import standing_flows
from ovsfw.compiler.tiers import course_of, tier_flows, tier_size
from ovsfw.compiler.trusted import trusted_flows
from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow.flow import DuplicateFlowError, Flow, FlowSet, Key, Part, Value
from ovsfw.policy.model import MAX_GROUPS, Direction, Network, Policy, Port, SecurityGroup, Tier
from ovsfw.policy.tiers import tiers_of, too_long

_TOO_LONG = (
    "one flow would be longer than the 64 KiB that OpenFlow has for it; "
    "use fewer security groups on a port, fewer ports with one MAC address, or fewer remote groups in a group's rules"
)


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


def compile_policy(
    policy: Policy, bindings: Bindings, hook: Hook = STANDALONE, *, records_drops: bool = False
) -> Program:
    """Compile without a memory.

    Succeeds on every valid policy but those with some hundred times too much of one thing: raises PolicyError where a
    port has more than 500 security groups, 400 endpoints of this host share a MAC address, or one service of a group is
    open to 4,000 remote sets.
    """
    return Compiler(hook, records_drops=records_drops).compile(policy, bindings)


class _Numbers(NamedTuple):
    """What stands for security groups and for tiers, by their ids."""

    groups: Mapping[str, int]
    tiers: Mapping[str, int]


_Owner = TypeVar("_Owner", SecurityGroup, Tier)


class Compiler:
    """Compiles policies for one hook; its state is a cache of units by their inputs."""

    def __init__(self, hook: Hook = STANDALONE, *, records_drops: bool = False) -> None:
        """Start with nothing remembered.  `records_drops`: flows that drop also send copies (see `recording`)."""
        self._hook, self._records_drops = hook, records_drops
        self._units: dict[Hashable, tuple[object, Part]] = {}
        self._used: dict[Hashable, tuple[object, Part]] = {}

    def compile(self, policy: Policy, bindings: Bindings) -> Program:
        """The flows for a policy on this host, now."""
        self._used = {}
        bindings = _wired(bindings, self._hook)
        secured = {name for name, port in policy.ports.items() if port.port_security}
        unfiltered = policy.ports.keys() - secured
        here = [
            (binding, policy.ports[binding.port_id]) for binding in bindings.endpoints if binding.port_id in secured
        ]
        _refuse_too_much(policy, [port for _, port in here])
        unknown = [binding for binding in bindings.endpoints if binding.port_id not in policy.ports]
        names = sorted({name for _, port in here for name in port.security_groups})
        tiers = tiers_of(policy, (port for _, port in here))
        self._unit("standing", (), partial(standing_flows, self._hook))
        outside = _outside(bindings, unfiltered)
        self._unit(
            "uplinks", outside, lambda: (flow for uplink in outside for flow in uplink_flows(uplink, self._hook))
        )
        self._unit("unknown", tuple(unknown), lambda: map(unknown_port, unknown))
        numbers = _Numbers(number(names), number(tier.id for tier in policy.tiers))
        self._endpoints(policy, here, numbers)
        self._rules(policy, [policy.security_groups[name] for name in names], tiers, numbers)
        self._units = self._used
        flows = FlowSet({name: part for name, (_, part) in self._used.items()})
        no_flood = {bound.ofport: bound.port_id not in unfiltered for bound in bindings.endpoints}
        return Program(flows, no_flood, connection_limits=_connection_limits(policy, here))

    def _unit(self, name: Hashable, inputs: object, build: Callable[[], Iterable[Flow]]) -> None:
        """Take a unit from the cache, or build it at once.  Raises PolicyError for a flow that OpenFlow cannot hold."""
        known = self._units.get(name)
        if known is None or known[0] != inputs:
            try:
                part = _part(build())
                known = (inputs, recorded(part) if self._records_drops else part)
            except OverflowError:
                what = " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
                raise PolicyError([Problem(f"{what}: {_TOO_LONG}")]) from None
        self._used[name] = known

    def _endpoints(self, policy: Policy, here: list[tuple[Binding, Port]], numbers: _Numbers) -> None:
        networks: dict[int, list[Member]] = defaultdict(list)
        said: dict[int, list[Network]] = defaultdict(list)
        lists = {port.security_groups for _, port in here}
        courses = {groups: course_of(policy, groups, *numbers) for groups in lists}
        sizes = {numbers.tiers[tier.id]: tier_size(tier, Direction.INGRESS) for tier in policy.tiers}
        for binding, port in here:
            said[network_of(binding.vlan)].append(policy.network_of(port))
            stateless = policy.is_stateless(port)
            course = courses[port.security_groups]
            build = partial(endpoint_flows, binding, port, course, stateless=stateless)
            self._unit(("endpoint", binding.ofport), (binding, port, course, stateless), build)
            value = endpoint_value(binding, port, stateless=stateless)
            networks[network_of(binding.vlan)].append(Member(binding.ofport, value, port.macs, course))
        for network, inside in networks.items():
            self._unit(("network", network), (inside, sizes), partial(network_flows, network, inside, sizes))
            options = tuple(dict.fromkeys(said[network]))
            self._unit(("trusted", network), options, partial(trusted_flows, NETWORK(network), options))

    def _rules(self, policy: Policy, groups: list[SecurityGroup], tiers: list[Tier], numbers: _Numbers) -> None:
        """The groups and tiers that endpoints of this host have, and the remote sets that their rules refer to."""
        needed = referenced((*groups, *tiers))
        sets = number(set_names(needed))
        hints = hint_numbers(policy)

        def inputs(owner: _Owner, value: int) -> tuple[_Owner, int, Mapping[str, int], Mapping[str, int]]:
            mine = {name: sets[name] for name in set_names(referenced([owner]))}
            return owner, value, mine, {rule.id: hints[rule.id] for rule in owner.rules}

        for group in groups:
            given = inputs(group, numbers.groups[group.id])
            self._unit(("group", group.id), given, partial(group_flows, *given))
        for tier in tiers:
            given_tier = inputs(tier, numbers.tiers[tier.id])
            self._unit(("tier", tier.id), given_tier, partial(tier_flows, *given_tier))
        for place, remotes in needed.items():
            inside = members(policy, place[1], remotes, sets)
            self._unit(("members", place), inside, partial(member_flows, place, inside))


def _connection_limits(policy: Policy, here: Iterable[tuple[Binding, Port]]) -> dict[int, int]:
    """By zone; where ports of several networks are in one VLAN, the lowest holds."""
    limits: dict[int, int] = {}
    for binding, port in here:
        zone, limit = network_of(binding.vlan), policy.network_of(port).connection_limit
        if limit is not None:
            limits[zone] = min(limit, limits.get(zone, limit))
    return limits


def _refuse_too_much(policy: Policy, ports: list[Port]) -> None:
    """Open vSwitch would silently drop what such a port sends and gets.  Documents are refused before; others here."""
    problems = [
        Problem(f"port {port.id} has {len(port.security_groups):,} security groups; Open vSwitch can take {MAX_GROUPS}")
        for port in ports
        if len(port.security_groups) > MAX_GROUPS
    ]
    problems += [Problem(text) for text in too_long(policy, ports)]
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


def _part(flows: Iterable[Flow]) -> dict[Key, Value]:
    part: dict[Key, Value] = {}
    for key, value in flows:
        if key in part:
            raise DuplicateFlowError(f"two flows of one unit claim one key: {key.hex()}")
        part[key] = value
    return part


__all__ = ["NEUTRON", "STANDALONE", "Binding", "Bindings", "Compiler", "Hook", "Program", "compile_policy"]
