"""One network: the way to each of its endpoints, and what a broadcast in it reaches; and ports with a tag outside it.

A broadcast is judged once for all endpoints with the same list of groups, so it costs lookups per list, not per
endpoint.  Open vSwitch gives up on a packet after 4,096 resubmits (ofproto/ofproto-dpif-xlate.c, MAX_RESUBMITS), and a
flow fits into 64 KiB; what is longer is cut into pages, and where that cannot be, it is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.endpoints import judge_for, network_of, remembered
from ovsfw.compiler.hook import STANDALONE, Hook
from ovsfw.compiler.packets import IP, IPV6, PRIORITY_TAGGED, UNTAG, load, to
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.compiler.remembering import ACCEPTED
from ovsfw.compiler.tiers import Course, ask, cost_of
from ovsfw.compiler.units import Unit
from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, Output
from ovsfw.openflow.flow import Flow
from ovsfw.policy.addresses import format_mac
from ovsfw.policy.model import Direction

# A port is 16 bytes of a flow, a class 40.
OUTPUTS_PER_FLOW = 3000
# Of the 4,096, leaving room for what came before: a stateless sender is judged in the same pass, by up to MAX_GROUPS
# groups.  A class costs at least 4, so a page has at most 48 KiB.
RESUBMITS_PER_PASS = 2900
# What judging costs an endpoint without conntrack besides its groups; with conntrack, that is a pass of its own.
RESUBMITS_PER_ENDPOINT = 6
# MAC addresses are looked at by their last bits, so that one that is new costs a look at few.
_PAGES = 64


class Member(NamedTuple):
    """An endpoint as its network sees it."""

    ofport: int
    value: int
    macs: tuple[int, ...]
    course: Course


def network_batches(
    network: int, members: Sequence[Member], sizes: Mapping[int, int]
) -> Iterator[tuple[tuple[str, int, int], object, Callable[[], Iterable[Unit]]]]:
    """Batches of units (see `units`): the way to endpoints in pages by MAC address, and what goes to all.

    `network` is a value of NETWORK; `sizes` says how many lookups each tier costs, by its number.
    """
    pages: dict[int, list[tuple[int, Member]]] = defaultdict(list)
    for member in sorted(members):
        for mac in member.macs:
            pages[mac % _PAGES].append((mac, member))
    for number, page in pages.items():
        yield ("forward", network, number), (page, sizes), partial(_forward_units, network, page, sizes)
    yield ("all", network, 0), (members, sizes), partial(_all_units, network, members, sizes)


def _forward_units(network: int, page: Iterable[tuple[int, Member]], sizes: Mapping[int, int]) -> Iterator[Unit]:
    owners: dict[int, list[Member]] = defaultdict(list)
    for mac, member in page:
        owners[mac].append(member)
    for mac, sharing in owners.items():
        _refuse_too_many(mac, sharing, sizes)
        build = partial(_forward, p.NETWORK(network), mac, sharing)
        yield Unit(("forward", network, mac), tuple(sharing), build)


def _all_units(network: int, members: Sequence[Member], sizes: Mapping[int, int]) -> Iterator[Unit]:
    why = cookie(Reason.FLOOD, network)
    ofports = tuple(sorted(member.ofport for member in members))
    yield Unit(("flood", network), ofports, partial(_to_all, p.FLOOD, (p.NETWORK(network),), ofports, why))
    yield from _fan_out(network, members, sizes, why)


def _forward(here: m.Term, mac: int, sharing: Sequence[Member]) -> Iterator[Flow]:
    """A MAC that several endpoints may use (VRRP) reaches each of them."""
    actions = tuple(action for one in sharing for action in _towards(one))
    yield p.FORWARD.flow(Priority.SECOND, (here, m.ETH_DST(mac)), actions, cookie(Reason.FORWARD, sharing[0].ofport))


def _refuse_too_many(mac: int, sharing: Sequence[Member], sizes: Mapping[int, int]) -> None:
    """Raise PolicyError where a packet to a MAC would cost more than Open vSwitch allows: it would be dropped."""
    stateless = (cost_of(member.course, sizes) for member in sharing if member.value & p.STATELESS)
    cost = len(sharing) * RESUBMITS_PER_ENDPOINT + sum(stateless)
    if cost > RESUBMITS_PER_PASS:
        text = f"{len(sharing)} endpoints of this host share the MAC address {format_mac(mac)}, with so many stateless "
        text += "groups that Open vSwitch would drop what is sent to it; give them fewer groups, or MAC addresses apart"
        raise PolicyError([Problem(text)])


def _towards(member: Member) -> tuple[Action, ...]:
    """Judge it for one endpoint, whatever another that shares the MAC has said."""
    receiver = load(p.RECEIVER, remembered(member.ofport))
    return *judge_for(member.ofport, member.value), receiver, load(p.INGRESS_RULE, 0), to(p.INGRESS)


def _to_all(table: Table, match: m.Match, ofports: Sequence[int], why: int) -> Iterator[Flow]:
    """Out of many ports, in ascending order; a list too long for one flow goes on in further ones of its table."""
    pages = [ofports[at : at + OUTPUTS_PER_FLOW] for at in range(0, len(ofports), OUTPUTS_PER_FLOW)]
    for number, page in enumerate(pages):
        actions: list[Action] = [UNTAG, *map(Output, page)]
        if page is not pages[-1]:
            actions += [load(p.OUTPUT_PAGE, number + 1), to(table), load(p.OUTPUT_PAGE, 0)]
        terms = (*match, p.OUTPUT_PAGE(number)) if number else match
        yield table.flow(Priority.FIRST if number else Priority.SECOND, terms, tuple(actions), why)


def _fan_out(network: int, members: Sequence[Member], sizes: Mapping[int, int], why: int) -> Iterator[Unit]:
    """Judge once per course; an endpoint without groups and tiers gets nothing."""
    classes: dict[Course, list[int]] = defaultdict(list)
    for member in members:
        if any(member.course):
            classes[member.course].append(member.ofport)
    costs: list[tuple[int, int]] = []
    for course, sharing in classes.items():
        sharing.sort()
        costs.append((sharing[0], 2 + cost_of(course, sizes)))
        yield Unit(("fan-out", network, course), tuple(sharing), partial(_class, course, sharing, why))
    costs.sort()
    yield Unit(("pages", network), tuple(costs), partial(_pages, p.NETWORK(network), costs, why))


def _class(course: Course, sharing: Sequence[int], why: int) -> Iterator[Flow]:
    """Endpoints with one course; the class is called after the first of them."""
    here = p.CLASS(sharing[0])
    judge = (load(p.INGRESS_RULE, 0), *ask(course, Direction.INGRESS), to(p.FAN_OUT_DELIVER))
    yield p.FAN_OUT_CLASS.flow(Priority.FIRST, (here,), judge, why)
    yield from _to_all(p.FAN_OUT_DELIVER, (here, ACCEPTED[p.INGRESS_RULE]), sharing, why)


def _pages(here: m.Term, costs: Iterable[tuple[int, int]], why: int) -> Iterator[Flow]:
    """All classes, cut into pages that Open vSwitch can take; each page but a single one is a packet's new pass.

    `costs` are the ofports that classes are called after, in ascending order, and what each class costs.
    """
    pages: list[list[Action]] = [[]]
    room = RESUBMITS_PER_PASS
    for leader, cost in costs:
        if room < cost:
            pages.append([])
            room = RESUBMITS_PER_PASS
        pages[-1] += [load(p.CLASS, leader), to(p.FAN_OUT_CLASS)]
        room -= cost
    single = len(pages) == 1
    for number, page in enumerate(pages):
        yield p.FAN_OUT_PAGE.flow(Priority.FIRST, (here, p.CLASS_PAGE(number)), tuple(page), why)
    onward: list[Action] = []
    for number in range(len(pages)):
        # Conntrack is only asked because it gives each page a pass of its own; nothing is committed.
        again = Ct(p.ZONE, table=p.FAN_OUT_PAGE.number)
        onward += [load(p.CLASS_PAGE, number), to(p.FAN_OUT_PAGE) if single else again]
    for family in (IP, IPV6):
        yield p.FAN_OUT_RULES.flow(Priority.FIRST, (here, family), tuple(onward), why)


def uplink_flows(uplink: Uplink, hook: Hook = STANDALONE) -> Iterator[Flow]:
    """A port outside the filter, by how it reads VLAN tags (vswitchd.conf.db(5), Port:vlan_mode)."""
    came = m.IN_PORT(uplink.ofport)
    why = cookie(Reason.UPLINK, uplink.ofport)
    if uplink.mode is not VlanMode.TRUNK:
        enter = (load(p.NETWORK, network_of(uplink.vlan)), to(p.FORWARD))
        for untagged in (PRIORITY_TAGGED, m.VLAN_VID(0)):
            yield p.CLASSIFY.flow(Priority.FIRST, (came, untagged), enter, why)
        if hook.inside and uplink.vlan:
            # Flows before the hook may have put it there already.
            own = m.VLAN_VID(m.VLAN_PRESENT | uplink.vlan)
            yield p.CLASSIFY.flow(Priority.FIRST, (came, own), enter, why)
    if uplink.mode is VlanMode.ACCESS:
        yield p.CLASSIFY.flow(Priority.SECOND, (came,), (), cookie(Reason.UPLINK_TAGGED, uplink.ofport))
    else:
        yield p.CLASSIFY.flow(Priority.SECOND, (came,), (to(p.UPLINK),), why)
