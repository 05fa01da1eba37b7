"""Live connections against a policy: which does it still allow, and what must happen to the others?

Pure: entries of conntrack in, judgements out.  An entry names the endpoints that accepted it by ofport (see ORIGIN and
TARGET in `compiler.pipeline`), and their packets pass them without a look at the rules; those endpoints are asked again
here, by `verdict`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.endpoints import network_of, remembered
from ovsfw.compiler.identity import part
from ovsfw.compiler.ids import hint_numbers
from ovsfw.openflow.tracked import Tracked, Tuple
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Policy, Port
from ovsfw.policy.verdict import ICMP, ICMPV6, Connection, Judgement, Verdict, owns, verdict

# What another filter leaves: nothing, or, where Neutron's own driver has cut a connection, this.  Ours say who decided.
_OF_ANOTHER = (0, p.BLOCKED)
# From here on source ports are those of clients, which only rules with source ports look at.
_WELL_KNOWN = 1024


class Fate(Enum):
    """What must happen to an entry; the text is what people are told."""

    LIVE = "allowed"
    BLOCKED = "denied, and blocked"
    CUT = "no longer allowed: it is cut"
    REVIVE = "allowed again: it lives on"
    FORGET = "what it remembers is no longer so: it is judged anew"
    ADOPT = "allowed, and let in by another filter: it is taken over"
    FOREIGN = "not understood, and left alone"


DUE = frozenset({Fate.CUT, Fate.REVIVE, Fate.FORGET, Fate.ADOPT})


class Judged(NamedTuple):
    """An entry, what it is to the policy (None where that cannot be said), the verdict on it, and what must happen."""

    entry: Tracked
    fate: Fate
    connection: Connection | None = None
    verdict: Verdict | None = None


class Endpoint(NamedTuple):
    """A port of the policy that is plugged here; `decides` is False where no connection of its is remembered."""

    port: Port
    decides: bool
    ofport: int


class _Side(NamedTuple):
    """One side of an entry: the endpoint that must agree to it, and whether the entry means another than is there."""

    endpoint: Endpoint | None = None
    stale: bool = False

    @property
    def port_id(self) -> str | None:
        """Who is asked; None for nobody."""
        return self.endpoint.port.id if self.endpoint and self.endpoint.decides else None


class _Addresses(NamedTuple):
    """Whose the addresses of this host's endpoints are, in each zone: single ones, and prefixes."""

    owners: dict[tuple[int, Prefix], Endpoint]
    wide: dict[int, list[tuple[Prefix, Endpoint]]]


class Judge:
    """Judges entries by one policy on one host; remembers verdicts, because many connections differ in nothing else."""

    def __init__(self, policy: Policy, bindings: Bindings) -> None:
        self._policy, self._bindings = policy, bindings
        self._known: dict[object, Verdict] = {}
        self._fates: dict[object, Fate] = {}

    # What most changes need no judge for is made when it is asked for.

    @cached_property
    def _knows_clients(self) -> bool:
        return any(rule.source_ports is not None for rule in self._policy.rules)

    @cached_property
    def _hints(self) -> dict[str, int]:
        return hint_numbers(self._policy)

    @cached_property
    def _endpoints(self) -> dict[tuple[int, int], Endpoint]:
        policy = self._policy
        return {
            (network_of(bound.vlan), bound.ofport): Endpoint(
                port, port.port_security and not policy.is_stateless(port), bound.ofport
            )
            for bound in self._bindings.endpoints
            if (port := policy.ports.get(bound.port_id)) is not None
        }

    @cached_property
    def _addresses(self) -> _Addresses:
        """A pair of the whole world is nobody's address in particular."""
        found = _Addresses({}, defaultdict(list))
        for (zone, _), here in self._endpoints.items():
            for _, prefix in here.port.claims:
                if prefix.is_host:
                    found.owners[zone, prefix] = here
                elif prefix.length:
                    found.wide[zone].append((prefix, here))
        return found

    @cached_property
    def zones(self) -> frozenset[int]:
        """Those that hold connections of ours: one for each network with an endpoint."""
        return frozenset(zone for zone, _ in self._endpoints)

    def zones_of(self, ofports: Collection[int]) -> frozenset[int]:
        """The zones of some endpoints."""
        bound = (each for each in self._bindings.endpoints if each.ofport in ofports)
        return frozenset(network_of(each.vlan) for each in bound if each.port_id in self._policy.ports)

    def owner(self, zone: int, mine: Prefix) -> str:
        """The id of the port of this host that an address belongs to; "" for none."""
        here = self._owner(zone, mine)
        return here.port.id if here else ""

    def judge(self, entry: Tracked) -> Judged:
        """What must happen to an entry."""
        # What is the data of another connection names the ends of that one.
        told = entry.control if entry.is_derived else entry.key
        others = entry.mark in _OF_ANOTHER
        if told is None or not entry.plain or entry.zone not in self.zones or (entry.is_derived and others):
            return Judged(entry, Fate.FOREIGN)
        if part(entry.label, p.BARRED):
            return self._barred(entry)
        source, destination = address(told.source), address(told.destination)
        if others:
            return self._of_another(entry, source, destination)
        sender, receiver = self._sender(entry, source), self._receiver(entry, destination)
        connection = _connection(told, sender.port_id, receiver.port_id)
        if told is not entry.key:
            connection = _data(entry.key, connection)
        said = self._verdict(connection)
        stale = sender.stale or receiver.stale
        return Judged(entry, _fate(entry, allowed=said.allowed, stale=stale), connection, said)

    def _of_another(self, entry: Tracked, source: Prefix, destination: Prefix) -> Judged:
        """Another filter let it in, or cut it; taken over where the rules of both ends allow it.

        What they deny of the former they deny anyway.  The latter must stay as it is: were it forgotten, the side that
        answers could begin it anew.  Whose it is is told by its addresses; the entry comes back as it should be.
        """
        sender, receiver = _Side(self._owner(entry.zone, source)), _Side(self._owner(entry.zone, destination))
        connection = _connection(entry.key, sender.port_id, receiver.port_id)
        said = self._verdict(connection)
        if not (sender.port_id or receiver.port_id):
            return Judged(entry, Fate.FOREIGN)
        if not said.allowed:
            return Judged(entry, Fate.BLOCKED, connection, said) if entry.mark else Judged(entry, Fate.FOREIGN)
        mark, label = (p.EGRESS_OK if sender.port_id else 0), 0
        halves = (sender, said.egress, p.ORIGIN, p.EGRESS_LABEL), (receiver, said.ingress, p.TARGET, p.INGRESS_LABEL)
        for side, judgement, place, half in halves:
            if side.endpoint and side.port_id:
                mark |= remembered(side.endpoint.ofport) << place.first
                label |= self._hint(judgement) << half.first
        return Judged(entry._replace(mark=mark, label=label), Fate.ADOPT, connection, said)

    def _hint(self, judgement: Judgement) -> int:
        """Of the rule that speaks first; 0 where none is needed."""
        return self._hints[judgement.rules[0].id] if judgement.rules else 0

    def _barred(self, entry: Tracked) -> Judged:
        """What stands for a connection that was cut and forgotten, its answer first (see `compiler.remark`)."""
        key = entry.key
        source, destination = address(key.destination), address(key.source)
        ends = (self._owner(entry.zone, end) for end in (source, destination))
        sender, receiver = (_Side(end).port_id for end in ends)
        first = key._replace(
            source=key.destination,
            destination=key.source,
            source_port=key.destination_port,
            destination_port=key.source_port,
        )
        connection = _connection(first, sender, receiver)
        said = self._verdict(connection)
        return Judged(entry, Fate.FORGET if said.allowed else Fate.BLOCKED, connection, said)

    def all(self, entries: Iterable[Tracked]) -> Iterator[Judged]:
        """Each of them, in their order, with nothing but its fate: there may be a hundred thousand."""
        fates = self._fates
        for entry in entries:
            key = entry.key
            client = key.source_port if self._knows_clients else min(key.source_port, _WELL_KNOWN)
            marked = entry.mark, part(entry.label, p.BARRED)
            alike = (marked, entry.zone, entry.plain, entry.is_derived, entry.control, client, key[:3], key[4:])
            fate = fates.get(alike)
            if fate is None:
                fate = fates[alike] = self.judge(entry).fate
            yield Judged(self.judge(entry).entry if fate is Fate.ADOPT else entry, fate)

    def _sender(self, entry: Tracked, source: Prefix) -> _Side:
        """Who began it, if its egress rules accepted it here.

        What an endpoint sends of a connection passes by its address alone, so an entry of an address that is another's
        now would open that one's way out.
        """
        origin = part(entry.mark, p.ORIGIN)
        if not entry.mark & p.EGRESS_OK and not origin:
            return _Side()
        return self._side(entry.zone, origin, source)

    def _receiver(self, entry: Tracked, destination: Prefix) -> _Side:
        """Who accepted it, if its ingress rules did here."""
        target = part(entry.mark, p.TARGET)
        return self._side(entry.zone, target, destination) if target else _Side()

    def _side(self, zone: int, ofport: int, mine: Prefix) -> _Side:
        """Where nobody has the ofport the entry sleeps; `ofport` 0 is one that is not remembered."""
        here = self._endpoints.get((zone, ofport))
        if here is not None and owns(here.port, mine):
            return _Side(here)
        owner = self._owner(zone, mine)
        if owner is not None and ofport:
            return _Side(here, stale=True)
        return _Side(owner or here)

    def _owner(self, zone: int, mine: Prefix) -> Endpoint | None:
        owners, wide = self._addresses
        exact = owners.get((zone, mine))
        return exact or next((here for prefix, here in wide.get(zone, ()) if prefix.contains(mine)), None)

    def _verdict(self, connection: Connection) -> Verdict:
        client = connection.source_port if self._knows_clients else min(connection.source_port, _WELL_KNOWN)
        key = (
            connection.sender, connection.receiver, connection.source, connection.destination, connection.protocol,
            client, connection.destination_port, connection.icmp_type, connection.icmp_code, connection.control,
        )  # fmt: skip
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = verdict(self._policy, connection)
        return known


def _fate(entry: Tracked, *, allowed: bool, stale: bool) -> Fate:
    """ICMP cannot be forgotten (see `switch.conntrack`), so what is stale of it is blocked."""
    blocked = bool(entry.mark & p.BLOCKED)
    if stale and entry.key.protocol not in (ICMP, ICMPV6):
        return Fate.FORGET
    if allowed and not stale:
        return Fate.REVIVE if blocked else Fate.LIVE
    return Fate.BLOCKED if blocked else Fate.CUT


@lru_cache(maxsize=1 << 16)
def address(text: str) -> Prefix:
    """An address as conntrack prints it."""
    found = ip_address(text)
    family = Family(found.version)
    return Prefix(family, int(found), family.bits)


def _data(key: Tuple, control: Connection) -> Connection:
    """A data connection is between the ends of its control connection, and either may have begun it."""
    ends = {control.source: control.sender, control.destination: control.receiver}
    data = _connection(key, ends.get(address(key.source)), ends.get(address(key.destination)))
    return replace(data, control=control)


def _connection(key: Tuple, sender: str | None, receiver: str | None) -> Connection:
    icmp = key.protocol in (ICMP, ICMPV6)
    return Connection(
        sender=sender,
        receiver=receiver,
        source=address(key.source),
        destination=address(key.destination),
        protocol=key.protocol,
        source_port=0 if icmp else key.source_port,
        destination_port=key.destination_port,
        icmp_type=key.icmp[0],
        icmp_code=key.icmp[1],
    )


@dataclass(frozen=True, slots=True)
class Due:
    """What must happen to the connections of a host, each exactly once; those to adopt are here as they should be."""

    cut: tuple[Tracked, ...] = ()
    revive: tuple[Tracked, ...] = ()
    forget: tuple[Tracked, ...] = ()
    adopt: tuple[Tracked, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.cut or self.revive or self.forget or self.adopt)

    def __str__(self) -> str:
        """`2 connections cut, 1 revived`."""
        parts = ((self.cut, "cut"), (self.revive, "revived"), (self.forget, "judged anew"), (self.adopt, "taken over"))
        told = [f"{len(entries)} {word}" for entries, word in parts if entries]
        return "connections: " + (", ".join(told) or "0 changed")


def due(judged: Iterable[Judged]) -> Due:
    """Sort by what must happen."""
    by_fate: dict[Fate, list[Tracked]] = defaultdict(list)
    for one in judged:
        by_fate[one.fate].append(one.entry)
    return Due(*(tuple(by_fate[fate]) for fate in (Fate.CUT, Fate.REVIVE, Fate.FORGET, Fate.ADOPT)))
