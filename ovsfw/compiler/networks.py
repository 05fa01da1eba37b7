"""One network: the way to each of its endpoints, and what a broadcast in it reaches; and ports with a tag outside it.

A broadcast is judged once for all endpoints with the same list of groups, so it costs lookups per list, not per
endpoint.  Open vSwitch gives up on a packet after 4,096 resubmits (ofproto/ofproto-dpif-xlate.c, MAX_RESUBMITS), and a
flow fits into 64 KiB; what is longer is cut into pages, and where that cannot be, it is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.endpoints import endpoint_value, judge_for, network_of, remembered
from ovsfw.compiler.following import Index, Joined
from ovsfw.compiler.hook import STANDALONE, Hook
from ovsfw.compiler.host import Endpoint
from ovsfw.compiler.packets import IP, IPV6, PRIORITY_TAGGED, UNTAG, load, to
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.compiler.remembering import ACCEPTED
from ovsfw.compiler.tiers import Course, ask, cost_of
from ovsfw.compiler.units import PageUnits, Unit
from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, Output, apply_actions, encode_action
from ovsfw.openflow.flow import VALUE_HEAD, Flow
from ovsfw.policy.addresses import format_mac
from ovsfw.policy.model import Direction, Network, Policy
from ovsfw.policy.paged import Page, Paged

# A port is 16 bytes of a flow, a class 40.
OUTPUTS_PER_FLOW = 3000
# Of the 4,096, leaving room for what came before: a stateless sender is judged in the same pass, by up to MAX_GROUPS
# groups.  A class costs at least 4, so a page has at most 48 KiB.
RESUBMITS_PER_PASS = 2900
# What judging costs an endpoint without conntrack besides its groups; with conntrack, that is a pass of its own.
RESUBMITS_PER_ENDPOINT = 6
# Keys of what is looked at page by page.
_Way = tuple[int, int]
_Class = tuple[int, Course]
_Costs = tuple[tuple[int, int], ...]


class Member(NamedTuple):
    """An endpoint as its network sees it."""

    ofport: int
    value: int
    macs: tuple[int, ...]
    course: Course


class Networks:
    """The networks of this host, by the value of NETWORK; its state is what there was last."""

    def __init__(self) -> None:
        """Start with none."""
        self._ways: Index[int, Endpoint, Member] = Index(_ways)
        self._ofports: Index[int, Endpoint, int] = Index(_ofport)
        self._names: Index[int, Endpoint, str] = Index(_name)
        self._options: Joined[int, tuple[str, ...], tuple[Network, ...]] = Joined()
        self._classes: Index[int, Endpoint, int] = Index(_class_of)
        self._costs: Joined[_Class, tuple[int, ...], tuple[int, int]] = Joined()
        self._costs_of: Index[_Class, tuple[int, int], tuple[int, int]] = Index(lambda key, cost: ((key[0], cost),))
        self._pages: Joined[int, tuple[int, ...], _Costs] = Joined()

    def batches(
        self, endpoints: Paged[int, Endpoint], sizes: Mapping[int, int]
    ) -> Iterator[tuple[str, Paged[Any, Any], object, PageUnits]]:
        """Batches of units in pages (see `units`): the way to each endpoint, and what goes to all of a network.

        `sizes` says how many lookups each tier costs, by its number.
        """
        yield "forward", self._ways.follow(endpoints), sizes, _forward_units
        ofports = self._ofports.follow(endpoints)
        yield "flood", ofports, None, _flood_units
        classes = self._classes.follow(endpoints)
        yield "fan-out", classes, None, _class_units
        costs = self._costs_of.follow(
            self._costs.follow(classes, lambda key, sharing: (sharing[0], 2 + cost_of(key[1], sizes)), given=sizes)
        )
        none: _Costs = ()
        yield (
            "pages",
            self._pages.follow(
                ofports, lambda network, _: costs.get(network, none), leans=(costs, lambda network: (network,))
            ),
            None,
            _page_units,
        )

    def options(self, endpoints: Paged[int, Endpoint], policy: Policy) -> Paged[int, tuple[Network, ...]]:
        """What the policy says of each; there may be ports of several networks in one VLAN."""

        def said(_: int, names: tuple[str, ...]) -> tuple[Network, ...]:
            found = [name or None for name in names]
            return tuple(policy.networks.get(name) or Network(name) for name in dict.fromkeys(found))

        return self._options.follow(self._names.follow(endpoints), said, given=policy.networks)


def _ways(ofport: int, endpoint: Endpoint) -> Iterator[tuple[_Way, Member]]:
    binding, port, kind = endpoint
    value, macs = endpoint_value(binding, port, stateless=kind.stateless), port.macs
    for mac in macs:
        yield (network_of(binding.vlan), mac), Member(ofport, value, macs, kind.course)


def _ofport(ofport: int, endpoint: Endpoint) -> Iterator[tuple[int, int]]:
    yield network_of(endpoint.binding.vlan), ofport


def _name(_: int, endpoint: Endpoint) -> Iterator[tuple[int, str]]:
    yield network_of(endpoint.binding.vlan), endpoint.port.network_id or ""


def _class_of(ofport: int, endpoint: Endpoint) -> Iterator[tuple[_Class, int]]:
    """Endpoints with one course are asked at once; one without groups and tiers gets nothing."""
    if any(endpoint.kind.course):
        yield (network_of(endpoint.binding.vlan), endpoint.kind.course), ofport


def _forward_units(page: Page[_Way, tuple[Member, ...]], sizes: Mapping[int, int]) -> Iterator[Unit]:
    for (network, mac), sharing in page.items():
        _refuse_too_many(mac, sharing, sizes)
        yield Unit(("forward", network, mac), sharing, partial(_forward, p.NETWORK(network), mac, sharing))


def _flood_units(page: Page[int, tuple[int, ...]], _: None) -> Iterator[Unit]:
    for network, ofports in page.items():
        why = cookie(Reason.FLOOD, network)
        yield Unit(("flood", network), ofports, partial(_to_all, p.FLOOD, (p.NETWORK(network),), ofports, why))


def _class_units(page: Page[_Class, tuple[int, ...]], _: None) -> Iterator[Unit]:
    for (network, course), sharing in page.items():
        why = cookie(Reason.FLOOD, network)
        yield Unit(("fan-out", network, course), sharing, partial(_class, course, sharing, why))


def _page_units(page: Page[int, _Costs], _: None) -> Iterator[Unit]:
    for network, costs in page.items():
        why = cookie(Reason.FLOOD, network)
        yield Unit(("pages", network), costs, partial(_pages, p.NETWORK(network), costs, why))


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
        onward: tuple[Action, ...] = ()
        if page is not pages[-1]:
            onward = (load(p.OUTPUT_PAGE, number + 1), to(table), load(p.OUTPUT_PAGE, 0))
        terms = (*match, p.OUTPUT_PAGE(number)) if number else match
        bare = table.flow(Priority.FIRST if number else Priority.SECOND, terms, (UNTAG, *onward), why)
        yield _with(bare, (encode_action(UNTAG), *map(_out, page), *map(encode_action, onward)))


def _with(bare: Flow, actions: Iterable[bytes]) -> Flow:
    """The same flow with other actions; as bytes, so that one that comes does not cost the encoding of all others."""
    return Flow(bare.key, bare.value[:VALUE_HEAD] + apply_actions(b"".join(actions)))


@lru_cache(maxsize=1 << 16)
def _out(ofport: int) -> bytes:
    return encode_action(Output(ofport))


@lru_cache(maxsize=1 << 16)
def _judged(leader: int) -> bytes:
    """Judge the class that is called after this one."""
    return encode_action(load(p.CLASS, leader)) + encode_action(to(p.FAN_OUT_CLASS))


def _class(course: Course, sharing: Sequence[int], why: int) -> Iterator[Flow]:
    """Endpoints with one course; the class is called after the first of them."""
    here = p.CLASS(sharing[0])
    judge = (load(p.INGRESS_RULE, 0), *ask(course, Direction.INGRESS), to(p.FAN_OUT_DELIVER))
    yield p.FAN_OUT_CLASS.flow(Priority.FIRST, (here,), judge, why)
    yield from _to_all(p.FAN_OUT_DELIVER, (here, ACCEPTED[p.INGRESS_RULE]), sharing, why)


def _pages(here: m.Term, costs: _Costs, why: int) -> Iterator[Flow]:
    """All classes, cut into pages that Open vSwitch can take; each page but a single one is a packet's new pass.

    `costs` are the ofports that classes are called after, in ascending order, and what each class costs.
    """
    leaders = [leader for leader, _ in costs]
    spent = [*accumulate(cost for _, cost in costs)]
    pages: list[list[int]] = []
    begin = 0
    while begin < len(leaders) or not pages:
        end = bisect_right(spent, (spent[begin - 1] if begin else 0) + RESUBMITS_PER_PASS)
        # One that costs more than a pass has one to itself.
        end = max(end, begin + 1)
        pages.append(leaders[begin:end])
        begin = end
    single = len(pages) == 1
    for number, page in enumerate(pages):
        bare = p.FAN_OUT_PAGE.flow(Priority.FIRST, (here, p.CLASS_PAGE(number)), (to(p.FAN_OUT_CLASS),), why)
        yield _with(bare, map(_judged, page))
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
