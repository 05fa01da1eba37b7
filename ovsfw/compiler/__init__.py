"""Policy and bindings to flows.  Pure; the only place that knows both security groups and OpenFlow.

Compiling is assembled from units: one endpoint, one group, one MAC address, a part of one table's remote sets.  A
`Compiler` keeps each unit's flows together with the inputs that made them, and hands out the very same object while the
inputs are equal, so that a small change costs what it touches (see `units`).  That is all it remembers: what it returns
depends only on what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from ovsfw.compiler.asking import Asking, group_units, tier_units
from ovsfw.compiler.bindings import Binding, Bindings, Uplink, VlanMode
from ovsfw.compiler.endpoints import endpoint_flows, unknown_port
from ovsfw.compiler.groups import RULE_TABLE
from ovsfw.compiler.helpers import helper_flows
from ovsfw.compiler.hook import NEUTRON, STANDALONE, Hook
from ovsfw.compiler.host import Endpoint, Host, Local
from ovsfw.compiler.networks import Networks, uplink_flows
from ovsfw.compiler.pipeline import NETWORK
from ovsfw.compiler.recording import NOTHING, Copies, Sends, copied, copies
from ovsfw.compiler.remotes import Members, Page, Place, Sets, View, member_flows
from ovsfw.compiler.standing import standing_flows
from ovsfw.compiler.tiers import tier_size
from ovsfw.compiler.trusted import trusted_flows
from ovsfw.compiler.units import Unit, Units
from ovsfw.openflow.flow import Batch, Flow, FlowSet, Nest
from ovsfw.policy import paged
from ovsfw.policy.model import Direction, Network, Policy
from ovsfw.policy.paged import Paged
from ovsfw.policy.tiers import rejects


@dataclass(frozen=True, slots=True)
class Program:
    """What the switch should hold.

    Our flows; for each ofport that has an iface-id, whether the switch's own forwarding (NORMAL) must not flood into it
    (ports that are not named keep the flag they have); whether flows must see the ports of first fragments; and how
    many connections a conntrack zone of a network may have, any number in those that are not named.
    """

    flows: FlowSet
    no_flood: Paged[int, bool]
    fragment_ports: bool = True
    connection_limits: Mapping[int, int] = field(default_factory=dict)


def compile_policy(policy: Policy, bindings: Bindings, hook: Hook = STANDALONE) -> Program:
    """Compile without a memory, to flows that send no copies; see `Compiler`.

    Succeeds on every valid policy but those with some hundred times too much of one thing: raises PolicyError where a
    port has more than 500 security groups, 400 endpoints of this host share a MAC address, or one service of a group is
    open to 4,000 remote sets.
    """
    return Compiler(hook).compile(policy, bindings)


class Compiler:
    """Compiles policies for one hook; its state is a cache of units, and of a few values, by their inputs."""

    def __init__(self, hook: Hook = STANDALONE) -> None:
        """Start with nothing remembered."""
        self._hook = hook
        self._host, self._networks, self._asking, self._members = Host(hook), Networks(), Asking(), Members()
        self._begin(NOTHING)

    def _begin(self, sends: Sends) -> None:
        """Begin anew with units whose flows send other copies than before; what is rejected concerns but one unit."""
        self._sends = sends._replace(answers=False)
        self.units = Units(partial(copied, wanted=copies(self._sends)))

    def compile(self, policy: Policy, bindings: Bindings, sends: Sends = NOTHING) -> Program:
        """The flows for a policy on this host, now; those that the policy names also send copies (see `recording`)."""
        if sends._replace(answers=False) != self._sends:
            self._begin(sends)
        sent = copies(sends._replace(answers=sends.answers and rejects(policy)))
        local = self._host.follow(policy, bindings, logs=sends.logs)
        asked = self._asking.follow(local)
        options = self._networks.options(local.endpoints, policy)
        batches = Nest(
            frame=self._frame(bindings.uplinks, local, sent),
            **dict(self._endpoint_batches(policy, local, options)),
            groups=self.units.pages("groups", asked.groups, sends.logs, group_units),
            tiers=self.units.batch("tiers", asked.tiers, partial(tier_units, asked.tiers, logs=sends.logs)),
        )
        batches.update(self._member_batches(policy, asked.by_place))
        self.units.keep(batches)
        return Program(FlowSet(batches), local.closed, connection_limits=_connection_limits(options))

    def _frame(self, uplinks: tuple[Uplink, ...], local: Local, sent: Copies) -> Batch:
        """What is there whatever the rules say."""
        outside = (*uplinks, *map(_as_uplink, local.others.get(True, ())))
        unknown = local.others.get(False, ())
        return self.units.batch("frame", (outside, unknown, sent), partial(_frame, outside, unknown, self._hook, sent))

    def _endpoint_batches(
        self, policy: Policy, local: Local, options: Paged[int, tuple[Network, ...]]
    ) -> Iterator[tuple[str, Batch]]:
        """Each endpoint, and what the networks that they are in know of them."""
        batch, pages = self.units.batch, self.units.pages
        helps = local.helps
        yield "helpers", batch("helpers", helps, partial(_helpers, helps=helps))
        yield "endpoints", pages("endpoints", local.endpoints, helps, _endpoints)
        yield "trusted", pages("trusted", options, None, _trusted)
        sizes = {local.tiers[tier.id]: tier_size(tier, Direction.INGRESS) for tier in policy.tiers}
        for name, items, given, units in self._networks.batches(local.endpoints, sizes):
            yield name, pages(name, items, given, units)

    def _member_batches(self, policy: Policy, by_place: Mapping[Place, Sets]) -> Iterator[tuple[object, Batch]]:
        """The remote sets that rules refer to, a batch for each table and page."""
        pages = self._members.follow(policy)
        for place, sets in by_place.items():
            table = RULE_TABLE[place].number
            for index, page in enumerate(pages[place[1]]):
                name = ("members", table, index)
                units = partial(_member_units, name, place, page, sets)
                yield name, self.units.batch(name, View(page, sets), units)


def _frame(outside: tuple[Uplink, ...], unknown: tuple[Binding, ...], hook: Hook, sent: Copies) -> Iterator[Unit]:
    """Only standing flows reject, so only they send copies to be answered."""
    yield Unit("standing", sent, lambda: copied(standing_flows(hook), sent))
    yield Unit("uplinks", outside, partial(_uplinks, outside, hook))
    yield Unit("unknown", unknown, lambda: map(unknown_port, unknown))


def _helpers(*, helps: bool) -> Iterator[Unit]:
    if helps:
        yield Unit("helpers", helps, helper_flows)


def _endpoints(page: paged.Page[int, Endpoint], helps: bool) -> Iterator[Unit]:  # noqa: FBT001 - what all pages are given
    for endpoint in page.values():
        binding, port, (course, stateless, logs) = endpoint
        build = partial(endpoint_flows, binding, port, course, stateless=stateless, logs_drops=logs, helps=helps)
        yield Unit(("endpoint", binding.ofport), (endpoint, helps), build)


def _trusted(page: paged.Page[int, tuple[Network, ...]], _: None) -> Iterator[Unit]:
    for network, options in page.items():
        yield Unit(("trusted", network), options, partial(trusted_flows, NETWORK(network), options))


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


def _as_uplink(bound: Binding) -> Uplink:
    """An endpoint without port security: to the filter it is a port like any other."""
    return Uplink(bound.ofport, VlanMode.ACCESS if bound.vlan else VlanMode.TRUNK, bound.vlan)


def _uplinks(outside: tuple[Uplink, ...], hook: Hook) -> Iterator[Flow]:
    for uplink in outside:
        yield from uplink_flows(uplink, hook)


__all__ = ["NEUTRON", "STANDALONE", "Binding", "Bindings", "Compiler", "Hook", "Program", "Sends", "compile_policy"]
