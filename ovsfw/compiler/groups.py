"""One security group: a subroutine in the rule tables, compiled once however many endpoints have it.

A rule whose remote is a set of addresses is a conjunction: dimension 1 is the set (see `remotes`), dimension 2 is this
group and service.  The flow that a conjunction leads to matches group and service again, and so belongs to one rule
and counts for it alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from operator import attrgetter
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.packets import DESTINATION_OF, IP_OF, PORT_FIELD, SOURCE_OF, load, prefix_terms
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.compiler.portrange import masks
from ovsfw.compiler.recording import LOG_ACCEPTED, LOG_DROPPED
from ovsfw.compiler.template import Numbers, Template
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Conjunction
from ovsfw.openflow.flow import Entry, Flow, Key, Value, joined
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.decisions import is_logged
from ovsfw.policy.model import (
    Action,
    Direction,
    Helper,
    Log,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)
from ovsfw.policy.verdict import ANY_PORT, SCTP, TCP, UDP, UNMATCHABLE_PORTS

RULE_TABLE = {
    (Direction.EGRESS, Family.IPV4): p.EGRESS_RULES_V4,
    (Direction.EGRESS, Family.IPV6): p.EGRESS_RULES_V6,
    (Direction.INGRESS, Family.IPV4): p.INGRESS_RULES_V4,
    (Direction.INGRESS, Family.IPV6): p.INGRESS_RULES_V6,
}
VERDICT = {Direction.EGRESS: p.EGRESS_RULE, Direction.INGRESS: p.INGRESS_RULE}
SAYS = {
    Action.ALLOW: p.HINT_BIT,
    Action.DENY: p.REFUSED,
    Action.REJECT: p.REFUSED | p.REJECTED,
    Action.PASS: p.LEFT_TO_GROUPS,
}
_FROM_PORT = {TCP: m.TCP_SRC, UDP: m.UDP_SRC, SCTP: m.SCTP_SRC}
_ICMP_FIELDS = {Family.IPV4: (m.ICMP_TYPE, m.ICMP_CODE), Family.IPV6: (m.ICMP6_TYPE, m.ICMP6_CODE)}


def remote_field(direction: Direction, family: Family) -> m.Field:
    """The address of the far end: the source on the way in, the destination on the way out."""
    return (SOURCE_OF if direction is Direction.INGRESS else DESTINATION_OF)[family]


def group_flows(
    group: SecurityGroup, number: int, sets: Mapping[str, int], hints: Mapping[str, int], *, logs: bool = False
) -> Iterator[Entry]:
    """The rules of a group.  `sets` numbers the remote sets, `hints` the rules; `logs`: what is to be logged is.

    Rules with a helper are asked alone (see `helpers`), and so is what they say of data connections.
    """
    log = logged(group.rules, group.log) if logs else frozenset()
    yield from rules_flows((rule for rule in group.rules if rule.helper is None), number, sets, hints, log)
    for rule in group.rules:
        if rule.helper is not None:
            hint = hints[rule.id]
            yield from rules_flows((rule,), hint, sets, hints, log)
            yield from rules_flows(data_of(rule), hint | p.DATA, sets, hints, log)


def data_of(rule: Rule) -> Iterator[Rule]:
    """What a rule with a helper allows its data connections: both directions, any port, the remote as it says."""
    for direction in Direction:
        yield replace(rule, direction=direction, ports=None, source_ports=None, helper=None)


def logged(rules: Iterable[Rule], log: Log | None = None) -> frozenset[str]:
    """The ids of the rules whose decisions are to be logged; `log` is what is to be logged of them all."""
    return frozenset(rule.id for rule in rules if is_logged(rule, rule.log) or is_logged(rule, log))


def rules_flows(
    rules: Iterable[Rule],
    number: int,
    sets: Mapping[str, int],
    hints: Mapping[str, int],
    log: Collection[str] = frozenset(),
) -> Iterator[Entry]:
    """Some rules that are asked at once, when `number` is in GROUP; all with one action.  `log` are ids of rules.

    Where two rules claim one flow, the one whose id sorts first has it; both say the same of the same packets.
    """
    clauses: dict[Key, dict[int, Value]] = defaultdict(dict)
    taken: set[Key] = set()
    for rule in sorted(rules, key=attrgetter("id")):
        of_set = sets[remote_name(rule.remote)] if isinstance(rule.remote, _SETS) else 0
        flows = [*_flows_of(rule, number, of_set, hints[rule.id], log=rule.id in log)]
        own = len(flows) // 2 if isinstance(rule.remote, _SETS) else len(flows)
        for key, value in flows[:own]:
            if key not in taken:
                taken.add(key)
                yield key, value
        for key, value in flows[own:]:
            clauses[key][of_set] = value
    for key, values in clauses.items():
        yield key, joined([values[of_set] for of_set in sorted(values)])


def clause(table: Table, match: m.Match, members: Iterable[int], dimension: int, why: int) -> Flow:
    """One value of one dimension of each of some conjunctions."""
    return table.flow(Priority.SECOND, match, tuple(Conjunction(number, dimension, 2) for number in members), why)


class RuleShape(NamedTuple):
    """What the flows of rules have in common besides numbers (see `template`).

    `remote` is the length of a prefix, -1 for a set; `has` says of ICMP type and code, source port and port whether
    there are any.  `bits` are those of the number in GROUP and of the hint that have a meaning of their own.
    """

    direction: Direction
    family: Family
    protocol: int | None
    remote: int | None
    has: tuple[bool, ...]
    action: Action
    helper: Helper | None
    bits: tuple[int, int]
    log: bool


_SETS = RemoteGroup, RemoteAddressGroup
_A_SET = -1


def _flows_of(rule: Rule, number: int, of_set: int, hint: int, *, log: bool) -> Iterable[Entry]:
    """All that speaks for a rule; where its remote is a set, whose number is `of_set`, then as many clauses."""
    if any(ports is not None and ports.first != ports.last for ports in (rule.ports, rule.source_ports)):
        # A range is cut into masks, so it is more than numbers.
        return _written(rule, number, of_set, hint, log=log)
    shape, numbers = measured_rule(rule, number, of_set, hint, log=log)
    return _template(shape).flows(numbers)


def measured_rule(rule: Rule, number: int, of_set: int, hint: int, *, log: bool) -> tuple[RuleShape, Numbers]:
    """The shape of a rule that names no more than one port each way, and its numbers."""
    to_port, from_port, remote = rule.ports, rule.source_ports, rule.remote
    length, far = _A_SET if isinstance(remote, _SETS) else None, of_set
    if isinstance(remote, Prefix):
        _, far, length = remote
    given = rule.icmp_type, rule.icmp_code, from_port and from_port.first, to_port and to_port.first
    has = tuple([value is not None for value in given])
    bits = number & p.DATA, hint & ~(p.HINTS - 1)
    shape = RuleShape(rule.direction, rule.family, rule.protocol, length, has, rule.action, rule.helper, bits, log)
    return shape, (number, hint, far, *[value for value in given if value is not None])


@lru_cache(maxsize=1 << 9)
def _template(shape: RuleShape) -> Template:
    return Template(partial(rule_by_numbers, shape))


def rule_by_numbers(shape: RuleShape, numbers: Numbers) -> Iterator[Flow]:
    """The flows of a rule of some shape."""
    number, hint, far, *rest = numbers
    given = iter(rest)
    kind, code, from_port, to_port = [next(given) if has else None for has in shape.has]
    remote: Remote = None
    if shape.remote is not None:
        remote = RemoteGroup("") if shape.remote == _A_SET else Prefix(shape.family, far, shape.remote)
    rule = Rule(
        "", shape.direction, shape.family, shape.protocol, _single(to_port), kind, code, remote, shape.action,
        _single(from_port), helper=shape.helper,
    )  # fmt: skip
    return _written(rule, number, far, hint, log=shape.log)


def _single(port: int | None) -> PortRange | None:
    return None if port is None else PortRange(port, port)


def _written(rule: Rule, number: int, of_set: int, hint: int, *, log: bool) -> Iterator[Flow]:
    """The flows that speak for a rule: each only writes the rule's hint, and what it says; it may send a copy too."""
    here, table = p.GROUP(number), RULE_TABLE[rule.direction, rule.family]
    copies = (LOG_ACCEPTED if rule.action is Action.ALLOW else LOG_DROPPED,) if log else ()
    says = SAYS[rule.action] | (p.HELPED if rule.helper else 0)
    speak = (load(VERDICT[rule.direction], (hint & ~p.HINT_BIT) | says), *copies)
    why = cookie(Reason.RULE, hint)
    priority, remote = Priority.FIRST, m.Match()
    if isinstance(rule.remote, Prefix):
        remote = prefix_terms(remote_field(rule.direction, rule.family), rule.remote)
    elif rule.remote is not None:
        # Below the plain rules, so that a packet which a plain rule accepts never looks for members.
        priority, remote = Priority.SECOND, (m.CONJ_ID(of_set),)
    for match in services(rule):
        yield table.flow(priority, (here, *match, *remote), speak, why)
    if isinstance(rule.remote, _SETS):
        for match in services(rule):
            yield clause(table, (here, *match), (of_set,), 2, cookie(Reason.GROUPS, number & ~p.DATA))


def services(rule: Rule) -> Iterator[m.Match]:
    """Protocol and ports, or ICMP type and code, as one match per port mask."""
    match: m.Match = (IP_OF[rule.family],)
    if rule.protocol is None:
        yield match
        return
    match = (*match, m.IP_PROTO(rule.protocol))
    icmp = zip(_ICMP_FIELDS[rule.family], (rule.icmp_type, rule.icmp_code), strict=True)
    match = (*match, *(field(value) for field, value in icmp if value is not None))
    for source, destination in product(
        _port_terms(rule.protocol, rule.source_ports, _FROM_PORT), _port_terms(rule.protocol, rule.ports, PORT_FIELD)
    ):
        yield (*match, *source, *destination)


def _port_terms(protocol: int, ports: PortRange | None, fields: Mapping[int, m.Field]) -> Iterator[m.Match]:
    """One for each mask of a range; none, fail closed as `verdict` says, where Open vSwitch cannot read ports."""
    if ports is None or ports in ANY_PORT:
        yield ()
    elif protocol not in UNMATCHABLE_PORTS:
        for value, mask in masks(ports):
            yield (fields[protocol](value, mask),)
