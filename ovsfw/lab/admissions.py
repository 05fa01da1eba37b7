"""Which rule let a connection in, by the switch's own word: the label of the connection in conntrack.

The compiler commits every connection with two hints in its ct_label: that of the rule of the sender's side and that of
the rule of the receiver's; 0 where no rule was asked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ovsfw.compiler.endpoints import network_of
from ovsfw.compiler.identity import hint_in
from ovsfw.compiler.pipeline import EGRESS_LABEL, INGRESS_LABEL
from ovsfw.lab.services import Probe
from ovsfw.policy.model import Rule
from ovsfw.policy.verdict import ICMP, ICMPV6, TCP, UDP, Judgement

_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6}
# dpctl/dump-conntrack, one line each:
# tcp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=20000,dport=80),reply=(...),zone=1,labels=0x7,protoinfo=(state=...)
_ENTRY = re.compile(
    r"(?P<protocol>\w+),orig=\(src=(?P<source>[^,]+),dst=(?P<destination>[^,]+),"
    r"(?:sport=(?P<sport>\d+),dport=(?P<dport>\d+)|id=(?P<id>\d+),[^)]*)\)"
    r",reply=\([^)]*\)(?:,zone=(?P<zone>\d+))?(?:,mark=\w+)?(?:,labels=(?P<label>0x[0-9a-f]+))?(?:,.*)?"
)


class Tuple(NamedTuple):
    """A conntrack zone and the original direction of a connection; `source_port` is the identifier of an ICMP echo."""

    zone: int
    protocol: int
    source: int
    destination: int
    source_port: int
    destination_port: int


class Hints(NamedTuple):
    """The two halves of a label; None is what nobody knows any more."""

    egress: int | None
    ingress: int | None


class Notes(NamedTuple):
    """What conntrack knew on a host when it was asked: of each connection, the hints of those ends that are there."""

    machines: frozenset[str]
    connections: Mapping[Tuple, Hints]


def original_tuple(probe: Probe, source_port: int) -> Tuple:
    """How conntrack knows the connection of a probe that was sent from a port, or with an echo identifier."""
    connection = probe.connection(source_port)
    ends = connection.source.value, connection.destination.value
    zone = network_of(probe.sender.vlan)
    return Tuple(zone, connection.protocol, *ends, source_port, connection.destination_port)


def admitted(probe: Probe, source_port: int, notes: Iterable[Notes]) -> Hints | None:
    """The hints of a probe's connection; None when neither end's host has noted it, or conntrack forgot it too soon."""
    connection = original_tuple(probe, source_port)
    found = [(each.machines, hints) for each in notes if (hints := each.connections.get(connection))]
    egress = next((hints.egress for machines, hints in found if probe.sender.machine in machines), None)
    ingress = next((hints.ingress for machines, hints in found if probe.receiver.machine in machines), None)
    return None if egress is None and ingress is None else Hints(egress, ingress)


def parse_admissions(dump: str) -> dict[Tuple, Hints]:
    """Read a dump of conntrack; entries of other protocols are skipped."""
    found: dict[Tuple, Hints] = {}
    for line in dump.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is None or entry["protocol"] not in _PROTOCOLS:
            continue
        source, destination = (int(ipaddress.ip_address(entry[end])) for end in ("source", "destination"))
        ports = int(entry["sport"] or entry["id"]), int(entry["dport"] or 0)
        label = int(entry["label"] or "0", 16)
        hints = Hints(hint_in(label, EGRESS_LABEL), hint_in(label, INGRESS_LABEL))
        zone = int(entry["zone"] or "0")
        found[Tuple(zone, _PROTOCOLS[entry["protocol"]], source, destination, *ports)] = hints
    return found


def wrong_admission(judgement: Judgement, hint: int | None, rules: Mapping[int, Rule]) -> str:
    """What is wrong with a hint, "" if nothing is: it must name a rule of the verdict, if that has any."""
    if hint is None:
        return ""
    if not judgement.rules:
        return f"a rule admitted it, but the verdict is: {judgement.reason}" if hint else ""
    if hint not in rules:
        return f"the switch names an unknown rule {hint:#x}"
    return "" if rules[hint] in judgement.rules else f"the switch names rule {rules[hint].id}, which does not allow it"
