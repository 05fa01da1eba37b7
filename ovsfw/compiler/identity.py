"""Who is behind the numbers that a switch carries: one place for every command that explains something.

    rule -> flows        `Identity.flows_of`
    flow -> rule         `Identity.flow`, by its cookie
    connection -> rules  `Identity.connection`, by its ct_mark and ct_label
    drop -> endpoint     `Identity.drop`, by the cookie of the flow that dropped, and ENDPOINT where a packet tells it

All of it is made from the policy and the bindings; nothing is remembered, so it works on a switch that another process
has programmed, as long as the policy is the one that is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.ids import number, rule_hints
from ovsfw.compiler.pipeline import Reason, read_cookie
from ovsfw.openflow.action import Place
from ovsfw.openflow.flow import Flow
from ovsfw.policy.model import Direction, Policy, Rule, SecurityGroup, Tier

# Reasons whose hint is an ofport.
_OF_AN_ENDPOINT = frozenset(
    {
        Reason.CLASSIFY, Reason.UNKNOWN_PORT, Reason.SOURCE, Reason.ARP, Reason.NEIGHBOUR, Reason.DHCP_CLIENT,
        Reason.ESTABLISHED, Reason.DENIED, Reason.EXPECTED,
    }
)  # fmt: skip
_OFPORT = 0xFFFF


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a flow is there for.

    `rule`, and `owner`, its group or tier, are known where it belongs to one; `endpoint` is a port id, "" where it is
    for all of them; `direction` is the side on which it judges, None outside both.
    """

    reason: Reason
    table: str
    rule: Rule | None = None
    owner: SecurityGroup | Tier | None = None
    endpoint: str = ""
    direction: Direction | None = None


class Drop(NamedTuple):
    """Why a packet went no further; `endpoint` is the port id of whom it was judged for, "" when nobody knows."""

    endpoint: str
    direction: Direction | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Admission:
    """Who let a connection in: by its conntrack entry.

    `origin` and `target` are the port ids of the endpoints whose rules accepted it, "" for none here; a rule is None
    where none was asked, or where it is not known (it is no longer in the policy, or came in fragments).
    """

    origin: str = ""
    target: str = ""
    egress: Rule | None = None
    ingress: Rule | None = None
    blocked: bool = False


class Identity:
    """The names behind hints, group numbers, ofports and cookies, for one policy on one host."""

    def __init__(self, policy: Policy, bindings: Bindings) -> None:
        self.policy = policy
        self._rules = rule_hints(policy)
        self._hints = {rule.id: hint for hint, rule in self._rules.items()}
        self._ports = {bound.ofport: bound.port_id for bound in bindings.endpoints}
        owners: tuple[SecurityGroup | Tier, ...] = (*policy.security_groups.values(), *policy.tiers)
        self._owner_of = {rule.id: owner for owner in owners for rule in owner.rules}
        here = (policy.ports[name] for name in self._ports.values() if name in policy.ports)
        local = {name for port in here if port.port_security for name in port.security_groups}
        self._groups = {value: policy.security_groups[name] for name, value in number(local).items()}
        tiers = {tier.id: tier for tier in policy.tiers}
        self._tiers = {value: tiers[name] for name, value in number(tiers).items()}

    def rule(self, hint: int) -> Rule | None:
        """The rule behind a hint; None for 0, and for one that is not in the policy."""
        return self._rules.get(hint)

    def hint(self, rule: Rule) -> int:
        """What stands for a rule in flows and connections."""
        return self._hints[rule.id]

    def owner_of(self, rule: Rule) -> SecurityGroup | Tier:
        """The group or tier that a rule is in."""
        return self._owner_of[rule.id]

    def group(self, value: int) -> SecurityGroup | None:
        """The group behind a value of GROUP."""
        return self._groups.get(value)

    def endpoint(self, value: int) -> str:
        """The port id behind an ofport or a value of ENDPOINT; "" for none."""
        return self._ports.get(value & _OFPORT, "")

    def flow(self, flow: Flow) -> Meaning | None:
        """What a flow is there for; None when it is not ours."""
        return self.meaning(flow.table, flow.cookie)

    def meaning(self, table: int, cookie: int) -> Meaning | None:
        """The same by table number and cookie, as a trace and a packet-in have them."""
        read = read_cookie(cookie)
        if read is None:
            return None
        reason, hint = read
        name = p.TABLE_NAMES.get(table, str(table))
        direction = direction_of(name)
        if reason is Reason.RULE or (reason is Reason.GROUPS and hint & p.HINT_BIT):
            # What is asked alone, a rule of a tier, is its own group.
            rule = self.rule(hint)
            return Meaning(reason, name, rule, self._owner_of[rule.id] if rule else None, direction=direction)
        if reason is Reason.TIER:
            return Meaning(reason, name, owner=self._tiers.get(hint), direction=direction)
        if reason is Reason.GROUPS and name in _RULE_TABLES:
            return Meaning(reason, name, owner=self.group(hint), direction=direction)
        endpoint = self.endpoint(hint) if reason in _OF_AN_ENDPOINT or name in _ENDPOINT_TABLES else ""
        return Meaning(reason, name, endpoint=endpoint, direction=direction)

    def flows_of(self, rule: Rule, flows: Iterable[Flow]) -> Iterator[Flow]:
        """Of some flows those that accept for a rule: one for each port mask."""
        wanted = p.cookie(Reason.RULE, self.hint(rule))
        return (flow for flow in flows if flow.cookie == wanted)

    def connection(self, mark: int, label: int) -> Admission:
        """Who let a connection in, by its ct_mark and ct_label."""
        return Admission(
            self.endpoint(part(mark, p.ORIGIN)),
            self.endpoint(part(mark, p.TARGET)),
            self.rule(hint_in(label, p.EGRESS_LABEL)),
            self.rule(hint_in(label, p.INGRESS_LABEL)),
            blocked=bool(mark & p.BLOCKED),
        )

    def drop(self, table: int, cookie: int, endpoint: int = 0) -> Drop | None:
        """Who was kept from what; None when the flow is not ours.

        `endpoint` is the packet's value of ENDPOINT, 0 where only the flow is known.
        """
        meaning = self.meaning(table, cookie)
        if meaning is None:
            return None
        return Drop(meaning.endpoint or self.endpoint(endpoint), meaning.direction, meaning.reason)


_RULE_TABLES = frozenset(table.name for table in p.TABLES if p.GROUP in table.matches)
_ENDPOINT_TABLES = frozenset({"egress_policy", "ingress_policy"})
_SENDING = frozenset({"spoof_guard", "nd_guard", "nd_target"})


def direction_of(table: str) -> Direction | None:
    """The side on which a table judges, by its name; None for what is on neither."""
    if table.startswith("egress") or table in _SENDING:
        return Direction.EGRESS
    return Direction.INGRESS if table.startswith(("ingress", "fan_out")) else None


def hint_in(label: int, place: Place) -> int:
    """The hint of the rule that one side of a ct_label names."""
    return part(label, place) & ~p.HELPED


def part(value: int, place: Place) -> int:
    """Some bits of a ct_mark or ct_label."""
    return value >> place.first & ((1 << place.length) - 1)
