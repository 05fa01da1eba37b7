"""A bench for packets: machines on a real switch, a policy, and one sentence for each packet.

    bench.enforce(vm(1, "web"), vm(2, "open"), web=[ingress(4, "tcp", 80)])
    bench.sends("vm2", tcp(4, "vm2", "vm1", dport=80)).reaches("vm1")
    bench.sends("vm2", tcp(4, "vm2", "vm1", dport=81)).stopped(by=Reason.DENIED)

Machine `vmN` is port N of the policy and ofport N of the switch; the rest of the world is behind `uplink`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from scapy.packet import Packet

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.identity import hint_in
from ovsfw.compiler.ids import rule_hints
from ovsfw.compiler.pipeline import EGRESS_LABEL, INGRESS_LABEL, ORIGIN, TABLE_NAMES, TARGET, Reason, Table, read_cookie
from ovsfw.openflow.action import Place
from ovsfw.openflow.flow import Key
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.switch.channel import Channel
from tests.dummy import BRIDGE, DummySwitch

MACHINES = tuple(range(1, 9))
STRANGER, UPLINK2, UPLINK = 50, 98, 99
OFPORTS = (*MACHINES, STRANGER, UPLINK2, UPLINK)
NAMES = {STRANGER: "stranger", UPLINK2: "uplink2", UPLINK: "uplink", **{n: f"vm{n}" for n in MACHINES}}
NUMBERS = {name: number for number, name in NAMES.items()}

Json: TypeAlias = dict[str, Any]
Ports: TypeAlias = int | tuple[int, int] | None
Frame: TypeAlias = Packet | bytes


# --- Words for policies ---------------------------------------------------------------------------------------------


def mac(number: int) -> str:
    """Of machine `number`."""
    return f"52:54:00:00:00:{number:02x}"


def address(family: int, number: int) -> str:
    """Of machine `number`."""
    return f"10.0.0.{number}" if family == 4 else f"2001:db8::{number:x}"


def vm(number: int, *groups: str, pairs: Iterable[str | tuple[str, str]] = (), **more: Any) -> Json:
    """Machine `number`; a pair is an address or prefix, or such with a MAC."""
    texts = [(pair, None) if isinstance(pair, str) else pair for pair in pairs]
    port = {
        "id": f"vm{number}",
        "mac_address": mac(number),
        "fixed_ips": [{"ip_address": address(family, number)} for family in (4, 6)],
        "allowed_address_pairs": [{"ip_address": text, "mac_address": owner} for text, owner in texts],
        "security_groups": list(groups),
    }
    return port | more


def unfiltered(number: int) -> Json:
    """Machine `number` without port security."""
    return vm(number, port_security_enabled=False)


def rule(direction: str, family: int, protocol: str | int | None = None, ports: Ports = None, **more: Any) -> Json:
    """One rule; `ports` are one port or first and last, for ICMP a type, or type and code."""
    written = {"direction": direction, "ethertype": f"IPv{family}", "protocol": protocol, **more}
    if ports is not None:
        icmp = protocol in ("icmp", 1, "ipv6-icmp", "icmpv6", 58)
        low, high = (ports, None if icmp else ports) if isinstance(ports, int) else ports
        written |= {"port_range_min": low, "port_range_max": high}
    return written


def ingress(family: int, protocol: str | int | None = None, ports: Ports = None, **more: Any) -> Json:
    """A rule for what comes to the machine."""
    return rule("ingress", family, protocol, ports, **more)


def egress(family: int, protocol: str | int | None = None, ports: Ports = None, **more: Any) -> Json:
    """A rule for what the machine sends."""
    return rule("egress", family, protocol, ports, **more)


def tier(name: str, *rules: Json, **more: Any) -> Json:
    """A tier before the groups, for every port."""
    return {"id": name, "rules": list(rules), **more}


OPEN = [rule(direction, family) for direction in ("ingress", "egress") for family in (4, 6)]
TALKER = [egress(4), egress(6)]
# Groups that every policy here has.
STANDARD: dict[str, list[Json]] = {"open": OPEN, "talker": TALKER, "nothing": []}


def policy_of(  # noqa: PLR0913, PLR0917 - the parts of a document
    ports: Iterable[Json],
    groups: Mapping[str, list[Json]],
    stateless: Collection[str] = (),
    address_groups: Mapping[str, list[str]] | None = None,
    networks: Iterable[Json] = (),
    tiers: Iterable[Json] = (),
) -> Policy:
    """Through the front door: what is tested is a document."""
    document = {
        "security_groups": [
            {"id": name, "stateful": name not in stateless, "rules": rules}
            for name, rules in {**STANDARD, **groups}.items()
        ],
        "address_groups": [{"id": name, "addresses": found} for name, found in (address_groups or {}).items()],
        "tiers": list(tiers),
        "ports": list(ports),
        "networks": list(networks),
    }
    return parse(json.dumps(document), "bench.json")


# --- The bench ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drop:
    """A flow that drops, and was hit."""

    reason: Reason
    table: str


@dataclass(frozen=True)
class Outcome:
    """What became of one packet: what came out, by machine, and which of our flows dropped it (or a copy of it)."""

    out: Mapping[str, list[bytes]]
    drops: tuple[Drop, ...]

    def reaches(self, *names: str) -> list[bytes]:
        """It came out there, once each, and nowhere else; what came out, in the order of the names."""
        assert sorted(self.out) == sorted(names), f"reached {sorted(self.out)}, not {sorted(names)}; {self._told()}"
        twice = [name for name, packets in self.out.items() if len(packets) > 1]
        assert not twice, f"came out more than once of {twice}"
        return [self.out[name][0] for name in names]

    def spares(self, *names: str) -> Outcome:
        """It did not come out there, wherever else it did."""
        reached = sorted(set(names) & set(self.out))
        assert not reached, f"reached {reached}"
        return self

    def stopped(self, *, by: Reason | tuple[Reason, ...], table: Table | None = None) -> None:
        """It came out nowhere, and a flow with this reason (or one of these) dropped it, in the named table if any."""
        assert not self.out, f"reached {sorted(self.out)}"
        wanted = by if isinstance(by, tuple) else (by,)
        places = {drop.table for drop in self.drops if drop.reason in wanted}
        found = places if table is None else places & {table.name}
        assert found, f"not stopped by {' or '.join(reason.name for reason in wanted)}; {self._told()}"

    def _told(self) -> str:
        return "dropped by " + (", ".join(f"{drop.reason.name} in {drop.table}" for drop in self.drops) or "no flow")


@dataclass(frozen=True)
class Tracked:
    """An entry of conntrack, as `ovs-appctl dpctl/dump-conntrack` prints it."""

    text: str
    zone: int
    mark: int
    label: int

    @property
    def sides(self) -> tuple[int, int]:
        """The ofports of the endpoints whose egress and whose ingress rules accepted it; 0 for none."""
        return _part(self.mark, ORIGIN), _part(self.mark, TARGET)

    @classmethod
    def read(cls, line: str) -> Tracked:
        numbers = {"zone": 0, "mark": 0, "labels": 0}
        for name, value in re.findall(r",(zone|mark|labels)=(\w+)", line):
            numbers[name] = int(value, 0)
        return cls(line, *numbers.values())


def _part(value: int, place: Place) -> int:
    return value >> place.first & ((1 << place.length) - 1)


class Bench:
    """The machines and the switch."""

    def __init__(self, switch: DummySwitch) -> None:
        self.switch = switch
        self.policy = Policy()
        self.bindings = Bindings()
        self._loop = asyncio.new_event_loop()
        self._channel = Channel()
        self._loop.run_until_complete(self._channel.connect(switch.switch.rundir / f"{BRIDGE}.mgmt"))
        self._drops: dict[Key, int] = {}

    def close(self) -> None:
        self._channel.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def enforce(
        self,
        *ports: Json,
        stateless: Collection[str] = (),
        address_groups: Mapping[str, list[str]] | None = None,
        **groups: list[Json],
    ) -> None:
        """A policy whose machines are all here, untagged, with one uplink; nothing is remembered of before."""
        self.enforce_policy(policy_of(ports, groups, stateless, address_groups))

    def enforce_policy(
        self,
        policy: Policy,
        *,
        away: Collection[str] = (),
        vlans: Mapping[str, int] | None = None,
        uplinks: tuple[Uplink, ...] = (Uplink(UPLINK),),
        strangers: tuple[Binding, ...] = (),
    ) -> None:
        """The same with machines elsewhere, VLANs by machine, uplinks of any kind, and ports that no policy knows."""
        tags = vlans or {}
        here = [Binding(name, NUMBERS[name], tags.get(name, 0)) for name in policy.ports if name not in away]
        self.policy, self.bindings = policy, Bindings((*sorted(here, key=lambda bound: bound[1]), *strangers), uplinks)
        self.switch.wire(self.bindings)
        self.install()
        self.switch.forget()

    def change(self, *ports: Json, **groups: list[Json]) -> None:
        """Another policy for the machines that are here; connections, and what the switch has learned, live on."""
        self.policy = policy_of(ports, groups)
        self.install()

    def install(self) -> None:
        """Make the switch hold the policy; connections live on."""
        self.switch.keep_connections(compile_policy(self.policy, self.bindings))
        self._drops = self._dropping()

    def plug(self, name: str, vlan: int = 0) -> None:
        """Plug a machine in that was elsewhere; connections live on."""
        bound = (*self.bindings.endpoints, Binding(name, NUMBERS[name], vlan))
        self.bindings = Bindings(tuple(sorted(bound, key=lambda each: each[1])), self.bindings.uplinks)
        self.install()

    def move(self, name: str, vlan: int) -> None:
        """Put a machine into another VLAN; connections live on."""
        moved = [bound._replace(vlan=vlan) if bound.port_id == name else bound for bound in self.bindings.endpoints]
        self.bindings = Bindings(tuple(moved), self.bindings.uplinks)
        self.switch.tag([NUMBERS[name]], vlan)
        self.install()

    def sends(self, name: str, frame: Frame) -> Outcome:
        """One packet, from one machine."""
        out = self.switch.send(NUMBERS[name], bytes(frame))
        after = self._dropping()
        hit = [key for key, packets in after.items() if packets > self._drops.get(key, 0)]
        self._drops = after
        here = {bound.ofport for bound in self.bindings.endpoints} | {port.ofport for port in self.bindings.uplinks}
        reached = {NAMES[ofport]: packets for ofport, packets in out.items() if ofport in here}
        return Outcome(reached, tuple(self._reasons[key] for key in hit))

    def _dropping(self) -> dict[Key, int]:
        """How many packets each of our dropping flows has dropped."""
        self.switch.call("revalidator/purge")
        counted = self._loop.run_until_complete(self._channel.dump_counters())
        dropping = [(entry.flow, entry.packets) for entry in counted if not entry.flow.instructions]
        self._reasons = {}
        for flow, _ in dropping:
            why = read_cookie(flow.cookie)
            if why is not None:
                self._reasons[flow.key] = Drop(why[0], TABLE_NAMES[flow.table])
        return {flow.key: packets for flow, packets in dropping if flow.key in self._reasons}

    def connections(self) -> list[Tracked]:
        """Every entry of conntrack."""
        return [Tracked.read(line) for line in self.switch.call("dpctl/dump-conntrack").splitlines()]

    def rules_named(self, label: int) -> tuple[str, str]:
        """The ids of the egress and the ingress rule that a ct_label names; "" for none."""
        hints = {hint: found.id for hint, found in rule_hints(self.policy).items()}
        low, high = hint_in(label, EGRESS_LABEL), hint_in(label, INGRESS_LABEL)
        return hints[low] if low else "", hints[high] if high else ""
