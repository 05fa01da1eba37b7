"""Leaving another firewall: what will differ for each port, and out of the hybrid bridge into the switch.

Neutron's hybrid plug has a Linux bridge for each port, where iptables filters: the VM's tap is in qbrX, and a veth
pair, qvbX and qvoX, leads from there to br-int (nova's os-vif; X is the beginning of the port's id).  Moving a port
puts the tap itself into br-int, in the place of qvoX: with its identity, VLAN and OpenFlow number, so that its flows
and the connections that ovsfw has remembered hold.  Bridge and veth pair stay where they are, so that it can go back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from ovsfw.apply import Bridge, opened
from ovsfw.compiler.pipeline import CLASSIFY, Reason, read_cookie
from ovsfw.connections import Fate, Judge
from ovsfw.errors import ConfigError, SwitchError
from ovsfw.openflow import match as m
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.match import UnknownFieldError
from ovsfw.policy.model import Policy
from ovsfw.switch import links, replug
from ovsfw.switch.replug import Plugged

# Names of network devices have 15 bytes, 3 of which say what they are.
_OF_THE_ID = 11
# In external_ids of the tap's interface: the port of the switch whose place it has.
_INSTEAD_OF = "ovsfw-instead-of"
# Where Neutron's driver takes over the packets of a port: TRANSIENT_TABLE, and the priority (its openvswitch_firewall).
_STOCK_TABLE, _STOCK_PRIORITY = 60, 100


class Filter(str, Enum):
    """What filters a port now."""

    OVSFW = "ovsfw"
    OPENVSWITCH = "openvswitch"
    HYBRID = "iptables_hybrid"
    NOTHING = "nothing"


class Plug(str, Enum):
    """How a port is plugged in."""

    DIRECT = "direct"
    HYBRID = "hybrid"
    MOVED = "moved out of the hybrid bridge"


@dataclass(frozen=True, slots=True)
class Situation:
    """One port of this host, and what will differ for it."""

    port: Plugged
    plug: Plug
    filter: Filter
    differences: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Of the Neutron port."""
        return self.port.ids["iface-id"]


# --- What there is --------------------------------------------------------------------------------------------------


async def survey(db: str, bridge: str, policy: Policy | None = None) -> list[Situation]:
    """Every port of the bridge; with a policy also what becomes of it and its connections.  Raises SwitchError."""
    ports = await replug.plugged(db, bridge)
    async with opened(db, bridge) as held:
        flows = list(map(Flow._make, await held.channel.dump_flows()))
        fates = {} if policy is None else await _fates(held, policy)
    ours, stock = _filtered_by_ovsfw(flows), _filtered_by_neutron(flows)
    found = []
    for port in ports:
        plug = _plug(port)
        by = _filter(port, plug, ours, stock)
        situation = Situation(port, plug, by)
        told = differences(situation, policy, fates.get(situation.id, ()))
        found.append(replace(situation, differences=tuple(told)))
    return found


async def _fates(held: Bridge, policy: Policy) -> dict[str, list[Fate]]:
    """What becomes of the live connections of each port, by its id."""
    judge, fates = Judge(policy, held.bindings), defaultdict[str, list[Fate]](list)
    for one in map(judge.judge, await held.channel.connections(judge.zones)):
        if one.connection is not None:
            for name in {one.connection.sender, one.connection.receiver} - {None}:
                fates[str(name)].append(one.fate)
    return fates


def _plug(port: Plugged) -> Plug:
    if _INSTEAD_OF in port.ids:
        return Plug.MOVED
    return Plug.HYBRID if port.name.startswith("qvo") else Plug.DIRECT


def _filter(port: Plugged, plug: Plug, ours: Collection[int], stock: Collection[int]) -> Filter:
    if port.ofport in ours:
        return Filter.OVSFW
    if port.ofport in stock:
        return Filter.OPENVSWITCH
    return Filter.HYBRID if plug is Plug.HYBRID else Filter.NOTHING


def _filtered_by_ovsfw(flows: Iterable[Flow]) -> frozenset[int]:
    """The ofports whose packets ovsfw judges; only where packets are led to it."""
    why = [(flow, read_cookie(flow.cookie)) for flow in flows]
    if not any(read and read[0] is Reason.HOOK for _, read in why):
        return frozenset()
    return frozenset(
        read[1] for flow, read in why if flow.table == CLASSIFY.number and read and read[0] is Reason.CLASSIFY
    )


def _filtered_by_neutron(flows: Iterable[Flow]) -> frozenset[int]:
    return frozenset(
        ofport
        for flow in flows
        if flow.table == _STOCK_TABLE and flow.priority == _STOCK_PRIORITY
        for ofport in _in_ports(flow)
    )


def _in_ports(flow: Flow) -> Iterator[int]:
    try:
        yield from (term.value for term in flow.match if term.field is m.IN_PORT)
    except UnknownFieldError:
        return


def differences(now: Situation, policy: Policy | None, fates: Collection[Fate] = ()) -> Iterator[str]:
    """What will differ for a port that is not filtered by ovsfw yet.  Pure."""
    plug, by = now.plug, now.filter
    if by is Filter.OVSFW:
        if plug is Plug.HYBRID:
            yield "iptables still filter it in its hybrid bridge, too: move it out"
        return
    if policy is not None:
        yield from _by_policy(now.id, by, policy)
    if by is Filter.OPENVSWITCH:
        yield from _by_connections(fates)
    elif by is Filter.HYBRID:
        yield "its connections are unknown to Open vSwitch: each goes on with the next packet of the side that began it"
        yield "no bridge and no iptables between it and the switch, once it is moved out"
    else:
        yield "it is not filtered now"


def _by_policy(port_id: str, by: Filter, policy: Policy) -> Iterator[str]:
    port = policy.ports.get(port_id)
    if port is None:
        yield "the policy does not know it: it will pass nothing"
        return
    if not port.port_security:
        yield "no port security: it passes everything, as now"
    elif not port.security_groups:
        yield "no security group: it passes nothing but what is needed to get an address"
    if by is Filter.OPENVSWITCH and policy.is_stateless(port):
        yield "its groups are stateless, which the driver before ignored: answers will need rules"


def _by_connections(fates: Collection[Fate]) -> Iterator[str]:
    taken = sum(fate is Fate.ADOPT for fate in fates)
    if taken:
        yield f"{taken} live connections are taken over"


# --- Moving ---------------------------------------------------------------------------------------------------------


async def move_out(db: str, bridge: str, only: str = "") -> list[str]:
    """Move every hybrid port, or one, out of its bridge; their ids.  Raises ConfigError, SwitchError.

    Only what ovsfw filters is moved: iptables do not see it any more afterwards.
    """
    chosen = _chosen(await survey(db, bridge), Plug.HYBRID, only)
    unfiltered = [each.id for each in chosen if each.filter is not Filter.OVSFW]
    if unfiltered:
        raise ConfigError(
            f"ovsfw does not filter {', '.join(unfiltered)} yet, and iptables would not any more; set "
            "firewall_driver = ovsfw and restart the agent first"
        )
    for each in chosen:
        tap = _device("tap", each.id)
        ids = {**each.port.ids, _INSTEAD_OF: each.port.name}
        await _swap(db, bridge, each.port, (tap, ids), _device("qbr", each.id))
    return [each.id for each in chosen]


async def move_back(db: str, bridge: str, only: str = "") -> list[str]:
    """Put every port that was moved, or one, back into its hybrid bridge; their ids.

    Raises ConfigError, SwitchError.
    """
    chosen = _chosen(await survey(db, bridge), Plug.MOVED, only)
    for each in chosen:
        ids = {key: value for key, value in each.port.ids.items() if key != _INSTEAD_OF}
        await _swap(db, bridge, each.port, (each.port.ids[_INSTEAD_OF], ids), "")
        links.enter(each.port.name, _device("qbr", each.id))
    return [each.id for each in chosen]


def _chosen(found: Iterable[Situation], plug: Plug, only: str) -> list[Situation]:
    chosen = [each for each in found if each.plug is plug and only in ("", each.id)]
    if only and not chosen:
        raise ConfigError(f"port {only} is not plugged in here, or not {plug.value}")
    return chosen


async def _swap(db: str, bridge: str, old: Plugged, new: tuple[str, dict[str, str]], master: str) -> None:
    """One port of the switch in the place of another.  What goes wrong is undone.

    `master` is the Linux bridge that the new one's device is in, "" for none: it leaves that first, so that no packet
    ever finds a way past both filters.
    """
    device, ids = new
    if master:
        if links.master_of(device) != master:
            raise ConfigError(f"{device} is not in {master}; nothing was changed")
        links.leave(device, master)
    try:
        await replug.replace(db, bridge, old, device, ids)
    except SwitchError:
        await _undo(db, bridge, old, device)
        if master:
            links.enter(device, master)
        raise


async def _undo(db: str, bridge: str, old: Plugged, device: str) -> None:
    """Put the old port back, if the new one is there."""
    now = {port.row["name"]: port for port in await replug.plugged(db, bridge)}
    if device in now and old.name not in now:
        await replug.replace(db, bridge, now[device], old.name, old.ids)


def _device(kind: str, port_id: str) -> str:
    return f"{kind}{port_id[:_OF_THE_ID]}"
