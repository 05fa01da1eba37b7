"""One rule of a document into a `Rule`: what its attributes have to do with each other, and its id."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from ovsfw.policy import helpers, protocols
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.decisions import unloggable
from ovsfw.policy.model import Direction, PortRange, Remote, RemoteAddressGroup, RemoteGroup, Rule
from ovsfw.policy.names import Names
from ovsfw.policy.places import Path, format_path, show
from ovsfw.policy.report import Report
from ovsfw.policy.schema import RuleShape, TierRuleShape, read
from ovsfw.policy.verdict import ANY_PORT, EXTENSION_HEADERS, ICMP, ICMPV6, UNMATCHABLE_PORTS


class _Numbers(NamedTuple):
    what: str
    highest: int


PORTS = _Numbers("a port", 65535)
ICMP_TYPES = _Numbers("an ICMP type", 255)
ICMP_CODES = _Numbers("an ICMP code", 255)
_REMOTES = ("remote_ip_prefix", "remote_group_id", "remote_address_group_id")
_RANGE = ("port_range_min", "port_range_max")


class RuleReader:
    """Reads the rules of all groups and tiers, for rule ids are unique in the whole policy."""

    def __init__(self, groups: Names, address_groups: Names, report: Report) -> None:
        self.groups = groups
        self.address_groups = address_groups
        self.report = report
        self._given: dict[str, Path] = {}
        self._made: dict[str, Path] = {}

    def paths(self) -> dict[str, Path]:
        """Where each rule stands, by its id."""
        return {**self._made, **{identifier: path[:-1] for identifier, path in self._given.items()}}

    def read(self, data: object, path: Path, group: str, *, stateful: bool) -> Rule | None:
        """A rule of a group, with an id; None when it is none.  Reports what is wrong with it."""
        found = read(RuleShape, data, path, self.report)
        if found is None:
            return None
        shape, wrong = found
        rule = replace(_Reading(shape, wrong, path, self).rule(), helper=shape.helper)
        if not wrong and (why := helpers.unfit(rule, stateful=stateful)):
            self.report.add((*path, "helper"), why)
        return self._named(rule, content_id(group, rule), path)

    def read_of_tier(self, data: object, path: Path, tier: str) -> Rule | None:
        """The same of a tier."""
        found = read(TierRuleShape, data, path, self.report)
        if found is None:
            return None
        shape, wrong = found
        rule = replace(_Reading(shape, wrong, path, self).rule(), action=shape.action)
        if why := unmatchable(rule):
            # What a tier denies must not pass because a rule silently matches nothing.
            self.report.add((*path, "protocol"), why)
        if shape.helper is not None:
            self.report.add((*path, "helper"), "a rule of a tier has no helper; give it to a rule of a security group")
        return self._named(rule, tier_content_id(tier, rule), path)

    def _named(self, rule: Rule, made: str, path: Path) -> Rule:
        """With the id it was given, or the one made for it."""
        if why := unloggable(rule):
            self.report.add((*path, "log"), why)
        if rule.id:
            self._give(rule.id, (*path, "id"))
            return rule
        self._made.setdefault(made, path)
        return replace(rule, id=made)

    def _give(self, identifier: str, path: Path) -> None:
        first = self._given.setdefault(identifier, path)
        if first != path:
            self.report.add(path, f"{show(identifier)} is the id of {format_path(first[:-1])} already")

    def finish(self) -> None:
        """Report the given ids that are also made for a rule without one."""
        for identifier in self._given.keys() & self._made.keys():
            rule = format_path(self._made[identifier])
            self.report.add(self._given[identifier], f"{show(identifier)} is the id made for {rule}; use another")


@dataclass(frozen=True, slots=True)
class _Reading:
    """One rule being read; `wrong` are the attributes that are reported already and hold defaults."""

    shape: RuleShape
    wrong: frozenset[str]
    path: Path
    reader: RuleReader

    def rule(self) -> Rule:
        shape = self.shape
        protocol = self._protocol()
        remote = self._remote()
        rule = Rule(shape.id or "", shape.direction, shape.ethertype, protocol, remote=remote, log=shape.log)
        if self.wrong.isdisjoint({"protocol", *_RANGE}):
            return self._with_service(rule)
        return rule

    def _problem(self, key: str, message: str) -> None:
        self.reader.report.add((*self.path, key), message)

    def _protocol(self) -> int | None:
        if not self.wrong.isdisjoint({"protocol", "ethertype", "ether_type"}):
            return self.shape.protocol
        try:
            return protocols.in_family(self.shape.protocol, self.shape.ethertype)
        except ValueError as error:
            self._problem("protocol", str(error))
            return self.shape.protocol

    def _remote(self) -> Remote:
        given = [key for key in _REMOTES if getattr(self.shape, key) is not None or key in self.wrong]
        for key in given[1:]:
            self._problem(key, f"given besides {given[0]}; a rule has one remote at most")
        shape = self.shape
        references = (
            (shape.remote_group_id, "remote_group_id", self.reader.groups, RemoteGroup),
            (shape.remote_address_group_id, "remote_address_group_id", self.reader.address_groups, RemoteAddressGroup),
        )
        remote: Remote = self._remote_prefix(shape.remote_ip_prefix)
        for reference, key, names, kind in references:
            if reference is not None:
                identifier = names.resolve(reference, (*self.path, key), self.reader.report)
                remote = kind(identifier or reference)
        return remote

    def _remote_prefix(self, prefix: Prefix | None) -> Prefix | None:
        """The whole of a family is no restriction."""
        if prefix is None:
            return None
        family = self.shape.ethertype
        if prefix.family is not family and self.wrong.isdisjoint({"ethertype", "ether_type"}):
            self._problem("remote_ip_prefix", f"{prefix} is no {family.ethertype} prefix, as the rule's ethertype asks")
        return prefix if prefix.length else None

    def _with_service(self, rule: Rule) -> Rule:
        low, high = self.shape.port_range_min, self.shape.port_range_max
        if low is None and high is None:
            return rule
        if rule.protocol in protocols.WITH_PORTS:
            return replace(rule, ports=self._ports(low, high))
        if rule.protocol in {ICMP, ICMPV6}:
            self._check_icmp(low, high)
            return replace(rule, icmp_type=low, icmp_code=high)
        key = _RANGE[0] if low is not None else _RANGE[1]
        named = ", ".join(sorted(protocols.name(number) for number in protocols.WITH_PORTS))
        said = "a rule for any protocol" if rule.protocol is None else protocols.name(rule.protocol)
        self._problem(key, f"{said} has no ports; they need a protocol of {named} (or a type and code of ICMP)")
        return rule

    def _ports(self, low: int | None, high: int | None) -> PortRange | None:
        """Both or none, as in Neutron: a lower end alone could mean one port or all above."""
        if low is None or high is None:
            given, absent = _RANGE if high is None else _RANGE[::-1]
            value = low if high is None else high
            self._problem(given, f"{value} needs {absent} too (the same number for one port)")
            return None
        within = [self._is_within(_RANGE[0], low, PORTS), self._is_within(_RANGE[1], high, PORTS)]
        if all(within) and low > high:
            self._problem(_RANGE[1], f"{high} is below port_range_min, which is {low}")
        ports = PortRange(low, high)
        return None if ports in ANY_PORT else ports

    def _check_icmp(self, kind: int | None, code: int | None) -> None:
        if kind is None:
            self._problem(_RANGE[1], f"the ICMP code {code} needs an ICMP type, which is port_range_min")
        else:
            self._is_within(_RANGE[0], kind, ICMP_TYPES)
        if code is not None:
            self._is_within(_RANGE[1], code, ICMP_CODES)

    def _is_within(self, key: str, value: int, numbers: _Numbers) -> bool:
        if 0 <= value <= numbers.highest:
            return True
        self._problem(key, f"{value} is not {numbers.what} (0 to {numbers.highest})")
        return False


def unmatchable(rule: Rule) -> str:
    """Why Open vSwitch can find no packet for a rule, and what to do; empty where it can."""
    if rule.ports is not None and rule.protocol in UNMATCHABLE_PORTS:
        return f"Open vSwitch cannot match the ports of {protocols.name(rule.protocol)}; leave the ports out"
    if rule.family is Family.IPV6 and rule.protocol in EXTENSION_HEADERS:
        return f"{protocols.name(rule.protocol)} is an IPv6 extension header; name the protocol behind it"
    return ""


def content_id(group: str, rule: Rule) -> str:
    """An id made of what the rule says; different rules have different ids, equal ones the same.

    >>> content_id("web", Rule("", Direction.INGRESS, Family.IPV4, 6, PortRange(80, 80), remote=RemoteGroup("bastion")))
    'web/ingress-ipv4-tcp-80-from-bastion'
    """
    return f"{_escape(group)}/{_content(rule)}"


def tier_content_id(tier: str, rule: Rule) -> str:
    """The same for a rule of a tier; no group's rule has such an id, because no colon is left in an escaped one.

    >>> from ovsfw.policy.model import Action
    >>> tier_content_id("baseline", Rule("", Direction.EGRESS, Family.IPV4, 6, action=Action.DENY))
    'tier:baseline/deny-egress-ipv4-tcp'
    """
    return f"tier:{_escape(tier)}/{rule.action.value}-{_content(rule)}"


def _content(rule: Rule) -> str:
    parts: list[object] = [rule.direction.value, rule.family.ethertype.lower(), protocols.name(rule.protocol)]
    parts += [part for part in (rule.ports, rule.icmp_type, rule.icmp_code) if part is not None]
    if rule.source_ports is not None:
        parts += ["by", rule.source_ports]
    if rule.helper is not None:
        parts += ["with", rule.helper.value]
    if rule.remote is not None:
        parts += ["from" if rule.direction is Direction.INGRESS else "to", _remote_text(rule.remote)]
    return "-".join(map(str, parts))


def _remote_text(remote: Prefix | RemoteGroup | RemoteAddressGroup) -> str:
    """A slash marks a prefix, a colon an address group: neither is left in an escaped id."""
    match remote:
        case RemoteGroup():
            return _escape(remote.id)
        case RemoteAddressGroup():
            return f"addresses:{_escape(remote.id)}"
        case _:
            return f"{remote}/{remote.length}" if remote.is_host else str(remote)


def _escape(identifier: str) -> str:
    return re.sub(r"[%/:\s]", lambda found: f"%{ord(found[0]):02X}", identifier)
