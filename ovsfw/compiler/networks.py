"""One network: the way to each of its endpoints, and what a broadcast in it reaches; and ports with a tag outside it.

A broadcast is judged once for all endpoints with the same list of groups, so it costs lookups per list, not per
endpoint: Open vSwitch gives up on a packet after 4,096 resubmits (ofproto/ofproto-dpif-xlate.c, MAX_RESUBMITS).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.endpoints import look_up, network_of
from ovsfw.compiler.packets import PRIORITY_TAGGED, TAGGED, UNTAG, load, to
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.compiler.standing import ACCEPTED
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Output
from ovsfw.openflow.flow import Flow


class Member(NamedTuple):
    """An endpoint as its network sees it."""

    ofport: int
    value: int
    macs: tuple[int, ...]
    groups: tuple[str, ...]


def network_flows(network: int, members: Sequence[Member], groups: Mapping[str, int]) -> Iterator[Flow]:
    """`network` is a value of NETWORK; `groups` numbers the security groups."""
    here = p.NETWORK(network)
    owners: dict[int, list[Member]] = defaultdict(list)
    for member in sorted(members):
        for mac in member.macs:
            owners[mac].append(member)
    for mac, sharing in owners.items():
        # A MAC that several endpoints may use (VRRP) reaches each of them.
        actions = tuple(action for member in sharing for action in (load(p.ENDPOINT, member.value), to(p.INGRESS)))
        match = (here, m.ETH_DST(mac))
        yield p.FORWARD.flow(Priority.SECOND, match, actions, cookie(Reason.FORWARD, sharing[0].ofport))
    why = cookie(Reason.FLOOD, network)
    yield p.FLOOD.flow(Priority.FIRST, (here,), (UNTAG, *_outputs(members)), why)
    yield from _fan_out(here, members, groups, why)


def _outputs(members: Sequence[Member]) -> Iterator[Action]:
    for ofport in sorted(member.ofport for member in members):
        yield Output(ofport)


def _fan_out(here: m.Term, members: Sequence[Member], groups: Mapping[str, int], why: int) -> Iterator[Flow]:
    """Judge once per list of groups; an endpoint without groups gets nothing."""
    classes: dict[tuple[str, ...], list[Member]] = defaultdict(list)
    for member in sorted(members):
        if member.groups:
            classes[tuple(sorted(member.groups))].append(member)
    judge: list[Action] = []
    for names, sharing in sorted(classes.items(), key=lambda item: item[1][0].ofport):
        leader = sharing[0].ofport
        judge += [load(p.INGRESS_RULE, 0), *look_up(names, groups, p.INGRESS_RULES)]
        judge += [load(p.CLASS, leader), to(p.FAN_OUT_DELIVER)]
        match = (p.CLASS(leader), ACCEPTED[p.INGRESS_RULE])
        yield p.FAN_OUT_DELIVER.flow(Priority.FIRST, match, (UNTAG, *_outputs(sharing)), why)
    yield p.FAN_OUT_RULES.flow(Priority.FIRST, (here,), tuple(judge), why)


def uplink_flows(uplink: Uplink) -> Iterator[Flow]:
    """A port with a tag: what it brings untagged is in that VLAN (vswitchd.conf.db(5), Port:vlan_mode)."""
    came = m.IN_PORT(uplink.ofport)
    why = cookie(Reason.UPLINK, uplink.ofport)
    enter = (load(p.NETWORK, network_of(uplink.vlan)), to(p.FORWARD))
    if uplink.mode is VlanMode.TRUNK:
        return
    if uplink.mode is VlanMode.ACCESS:
        banned = (came, TAGGED)
        yield p.CLASSIFY.flow(Priority.HOOK_ACCESS, banned, (), cookie(Reason.UPLINK_TAGGED, uplink.ofport))
    for match in ((came, PRIORITY_TAGGED), (came, m.VLAN_VID(0))):
        yield p.CLASSIFY.flow(Priority.HOOK_BAN, match, enter, why)
