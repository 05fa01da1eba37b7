"""The values of a policy document into a `Policy`: every object of it, and what they have to do with each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ovsfw.policy import helpers
from ovsfw.policy.addresses import LINK_LOCAL, Prefix, format_mac
from ovsfw.policy.assertion_reader import AssertionReader, Located
from ovsfw.policy.model import MAX_GROUPS, AddressGroup, Claim, Network, Policy, Port, Rule, SecurityGroup, Tier
from ovsfw.policy.names import Names
from ovsfw.policy.places import Path, format_path, show
from ovsfw.policy.report import Report
from ovsfw.policy.rules import RuleReader
from ovsfw.policy.schema import (
    AddressGroupShape,
    DocumentShape,
    NetworkShape,
    PortShape,
    SecurityGroupShape,
    TierShape,
    read,
)
from ovsfw.policy.selectors import SelectorReader
from ovsfw.policy.suppressions import COLLECTION, Suppression, read_suppression
from ovsfw.policy.tiers import too_long
from ovsfw.policy.values import identifier

_Object = TypeVar("_Object", Port, SecurityGroup, AddressGroup)
_Token = int | Prefix  # what only one port of a network may have: a MAC, an address


class Assembly:
    """One document being read; everything wrong goes to the report, and then the policy is of no use."""

    def __init__(self, value: Mapping[str, object], report: Report) -> None:
        found = read(DocumentShape, value, (), report)
        self._lists = found[0] if found else DocumentShape()
        self._report = report
        self._groups = Names("security group", "security_groups", self._lists.security_groups)
        self._address_groups = Names("address group", "address_groups", self._lists.address_groups)
        self._tiers = Names("tier", "tiers", self._lists.tiers)
        self._suppressions: dict[str, Path] = {}
        self._ports = Names("port", "ports", self._lists.ports)
        self._rules = RuleReader(self._groups, self._address_groups, report)
        self._networks: dict[str | None, Path] = {}
        self._stateful: dict[str, bool] = {}
        self._taken: dict[tuple[str | None, _Token], Path] = {}

    def policy(self) -> Policy:
        """The policy, sorted by id all through; only tiers and their rules keep their order."""
        lists = self._lists
        address_groups = [self._address_group(*item) for item in _paths("address_groups", lists.address_groups)]
        groups = [self._group(*item) for item in _paths("security_groups", lists.security_groups)]
        tiers = [self._tier(*item) for item in _paths("tiers", lists.tiers)]
        self._rules.finish()
        ports = [self._port(*item) for item in _paths("ports", lists.ports)]
        networks = [self._network(*item) for item in _paths("networks", lists.networks)]
        by_network = {each.id: each for each in networks if each is not None}
        in_order = tuple(tier for tier in tiers if tier is not None)
        policy = Policy(_by_id(ports), _by_id(groups), _by_id(address_groups), in_order, by_network)
        for message in too_long(policy, policy.ports.values()):
            self._report.add(("tiers",), message)
        for message in helpers.too_many(policy, policy.ports.values()):
            self._report.add(("security_groups",), message)
        return policy

    def _network(self, data: object, path: Path) -> Network | None:
        found = read(NetworkShape, data, path, self._report)
        if found is None:
            return None
        shape, wrong = found
        first = path if "id" in wrong else self._networks.setdefault(shape.id, path)
        if first != path:
            named = show(shape.id) if shape.id else "the network without an id"
            self._report.add(path, f"{named} stands in {format_path(first)} already")
        return Network(shape.id, _prefixes(shape.dhcp_servers), self._routers(shape, path), shape.connection_limit)

    def _routers(self, shape: NetworkShape, path: Path) -> tuple[Prefix, ...] | None:
        for index, router in enumerate(shape.routers or ()):
            if not LINK_LOCAL.contains(router):
                text = f"{router} is no IPv6 link-local address, from which routers advertise themselves (RFC 4861)"
                self._report.add((*path, "routers", index), text)
        return _prefixes(shape.routers)

    def paths(self) -> dict[tuple[str, str], Path]:
        """Where each object stands, by its collection (rules too) and its id."""
        everything = {
            "ports": self._ports.paths(),
            "security_groups": self._groups.paths(),
            "address_groups": self._address_groups.paths(),
            "tiers": self._tiers.paths(),
            "rules": self._rules.paths(),
            COLLECTION: self._suppressions,
        }
        return {(kind, name): path for kind, paths in everything.items() for name, path in paths.items()}

    def assertions(self) -> tuple[Located, ...]:
        """What the document says about its own policy, in its order."""
        selectors = SelectorReader(self._ports, self._groups, self._address_groups, self._report)
        reader = AssertionReader(selectors, self._report)
        found = [reader.read(*item) for item in _paths("assertions", self._lists.assertions)]
        return tuple(assertion for assertion in found if assertion is not None)

    def suppressions(self) -> tuple[Suppression, ...]:
        """The findings of an audit that are not to be told, in the order of the document; one each."""
        found: list[Suppression] = []
        for data, path in _paths(COLLECTION, self._lists.audit_suppressions):
            suppression = read_suppression(data, path, self._report)
            if suppression is not None:
                first = self._suppressions.setdefault(suppression.finding, path)
                if first != path:
                    self._report.add(path, f"{show(suppression.finding)} is suppressed by {format_path(first)} already")
                found.append(suppression)
        return tuple(found)

    def _address_group(self, data: object, path: Path) -> AddressGroup | None:
        found = read(AddressGroupShape, data, path, self._report)
        if found is None:
            return None
        shape, wrong = found
        group_id = self._group_id(shape, wrong, path, self._address_groups)
        return AddressGroup(group_id, shape.name or "", tuple(sorted(set(shape.addresses))))

    def _group(self, data: object, path: Path) -> SecurityGroup | None:
        found = read(SecurityGroupShape, data, path, self._report)
        if found is None or not isinstance(data, dict):
            return None
        shape, wrong = found
        group_id = self._group_id(shape, wrong, path, self._groups)
        key = shape.written("rules", data)
        read_rules = (
            self._rules.read(rule, (*path, key, index), group_id, stateful=shape.stateful)
            for index, rule in enumerate(shape.rules)
        )
        rules = _without_copies(read_rules)
        if "stateful" not in wrong:
            self._stateful[group_id] = shape.stateful
        in_order = tuple(rules[key] for key in sorted(rules))
        return SecurityGroup(group_id, shape.name or "", shape.stateful, in_order, shape.log)

    def _tier(self, data: object, path: Path) -> Tier | None:
        found = read(TierShape, data, path, self._report)
        if found is None:
            return None
        shape, wrong = found
        tier_id = self._group_id(shape, wrong, path, self._tiers)
        read_rules = (
            self._rules.read_of_tier(rule, (*path, "rules", index), tier_id) for index, rule in enumerate(shape.rules)
        )
        rules = _without_copies(read_rules)
        applies_to = None if shape.applies_to is None else self._resolved(shape.applies_to, (*path, "applies_to"))
        return Tier(tier_id, shape.name or "", shape.position, applies_to, tuple(rules.values()))

    def _group_id(
        self, shape: SecurityGroupShape | AddressGroupShape | TierShape, wrong: frozenset[str], path: Path, names: Names
    ) -> str:
        """The id, or else the name; an empty text, reported, where there is neither."""
        key = "name" if shape.id is None else "id"
        if key == "name" and not wrong.isdisjoint({"id", "name"}):
            return ""
        try:
            group_id = identifier(shape.name if shape.id is None else shape.id)
        except ValueError as error:
            if shape.name is None:
                self._report.add(path, "id is required (or a name, which then is the id)")
            else:
                self._report.add((*path, key), str(error))
            return ""
        names.claim(group_id, (*path, key), self._report)
        return group_id

    def _port(self, data: object, path: Path) -> Port | None:
        found = read(PortShape, data, path, self._report)
        if found is None or not isinstance(data, dict):
            return None
        shape, wrong = found
        if "id" not in wrong:
            self._ports.claim(shape.id, (*path, "id"), self._report)
        if "network_id" not in wrong:
            self._take(shape, wrong, path)
        groups_path = (*path, shape.written("security_groups", data))
        groups = self._groups_of(shape, groups_path)
        if not shape.port_security_enabled:
            self._check_unguarded(shape, path, groups_path)
        return Port(
            shape.id,
            shape.mac_address,
            tuple(sorted({fixed.ip_address for fixed in shape.fixed_ips})),
            tuple(sorted({_claim(pair.mac_address, pair.ip_address, shape) for pair in shape.allowed_address_pairs})),
            groups,
            shape.port_security_enabled,
            shape.network_id,
            shape.name or "",
        )

    def _groups_of(self, shape: PortShape, path: Path) -> tuple[str, ...]:
        """Its groups by id, sorted; Neutron refuses stateful and stateless ones on one port."""
        groups = self._resolved(shape.security_groups, path)
        if len(groups) > MAX_GROUPS:
            self._report.add(path, f"{len(groups):,} security groups; Open vSwitch can take {MAX_GROUPS} for a port")
        stateful = [group for group in groups if self._stateful.get(group) is True]
        stateless = [group for group in groups if self._stateful.get(group) is False]
        if stateful and stateless:
            self._report.add(path, f"{stateful[0]} is stateful and {stateless[0]} is stateless; a port has one kind")
        return groups

    def _resolved(self, references: Iterable[str], path: Path) -> tuple[str, ...]:
        """The security groups that some references mean, by id, sorted."""
        resolved = (
            self._groups.resolve(reference, (*path, index), self._report) for index, reference in enumerate(references)
        )
        return tuple(sorted({group for group in resolved if group is not None}))

    def _take(self, shape: PortShape, wrong: frozenset[str], path: Path) -> None:
        """MACs and addresses are unique in a network, as in Neutron."""
        network = shape.network_id
        if "mac_address" not in wrong:
            mac = shape.mac_address
            self._take_one((network, mac), format_mac(mac), (*path, "mac_address"))
        for index, fixed in enumerate(shape.fixed_ips):
            address = fixed.ip_address
            self._take_one((network, address), str(address), (*path, "fixed_ips", index, "ip_address"))

    def _take_one(self, token: tuple[str | None, _Token], text: str, path: Path) -> None:
        first = self._taken.setdefault(token, path)
        if first != path:
            network = f" in network {token[0]}" if token[0] else ""
            self._report.add(path, f"{text} belongs to {format_path(first[:2])} already{network}")

    def _check_unguarded(self, shape: PortShape, path: Path, groups_path: Path) -> None:
        """Neutron refuses these too: what filters nothing must not look as if it did."""
        given = {groups_path: shape.security_groups, (*path, "allowed_address_pairs"): shape.allowed_address_pairs}
        for place, values in given.items():
            if values:
                self._report.add(place, f"port_security_enabled is false, so {place[-1]} must be left out")


def _without_copies(read_rules: Iterable[Rule | None]) -> dict[str, Rule]:
    """By id; of those that say the same the first place, and what any of them wants to have logged."""
    rules: dict[str, Rule] = {}
    for rule in read_rules:
        if rule is not None:
            rules[rule.id] = max(rules.get(rule.id, rule), rule, key=lambda each: each.log or "")
    return rules


def _prefixes(found: Iterable[Prefix] | None) -> tuple[Prefix, ...] | None:
    return None if found is None else tuple(sorted(set(found)))


def _claim(mac: int | None, prefix: Prefix, port: PortShape) -> Claim:
    return Claim(port.mac_address if mac is None else mac, prefix)


def _paths(collection: str, objects: Iterable[object]) -> Iterable[tuple[object, Path]]:
    return ((data, (collection, index)) for index, data in enumerate(objects))


def _by_id(objects: Iterable[_Object | None]) -> dict[str, _Object]:
    present = (each for each in objects if each is not None)
    return {each.id: each for each in sorted(present, key=lambda each: each.id)}
