"""The part of a policy that one host needs, put together of rows as they come and go.  Pure.

A host needs its ports, their groups with all rules, all tiers, and of the groups and address groups that those rules
refer to the members.  Compiled for this host, the part gives the same flows as the whole.

A row is read once, by the reader of policy documents; a change costs what it touches.  What comes out depends on the
rows that are there now and not on how they came (law 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy.document import read_values
from ovsfw.policy.model import (
    AddressGroup,
    Network,
    Policy,
    Port,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)
from ovsfw.policy.paged import Paged
from ovsfw.policy.writing import Document
from ovsfw.store.rows import Columns, Key, read_object

_Object = Port | SecurityGroup | AddressGroup | Rule | Tier | Network


@dataclass(frozen=True, slots=True)
class Needs:
    """Which rows a host needs: ports by id, groups with their rules, groups whose member ports, and more by id."""

    ports: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    members_of: frozenset[str] = frozenset()
    address_groups: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()


@dataclass(slots=True)
class Part:
    """The rows of one host, read; `source` is what messages call the database."""

    source: str
    plugged: frozenset[str] = frozenset()
    _ports: dict[str, Port] = field(default_factory=dict)
    _groups: dict[str, SecurityGroup] = field(default_factory=dict)  # without their rules
    _rules: dict[str, dict[str, Rule]] = field(default_factory=dict)  # by group and id
    _group_of: dict[str, str] = field(default_factory=dict)  # of a rule
    _address_groups: dict[str, AddressGroup] = field(default_factory=dict)
    _networks: dict[str, Network] = field(default_factory=dict)
    _tiers: dict[str, tuple[int, Tier]] = field(default_factory=dict)  # with their place
    _wrong: dict[Key, PolicyError] = field(default_factory=dict)
    # What was made of the above, as long as it is the same.
    _whole: dict[str, SecurityGroup] = field(default_factory=dict)
    _trimmed: Paged[str, Port] = field(default_factory=Paged)
    _fresh: set[str] = field(default_factory=set)  # ports that came, changed or went since
    _known: frozenset[str] = frozenset()

    def put(self, key: Key, columns: Columns) -> None:
        """A row is there, or is another now."""
        self.drop(key)
        try:
            self._put(key, columns)
        except PolicyError as error:
            self._wrong[key] = error

    def _put(self, key: Key, columns: Columns) -> None:
        found = _read(key, columns, self.source)
        match found:
            case Port():
                self._ports[key.id] = found
                self._fresh.add(key.id)
            case AddressGroup():
                self._address_groups[key.id] = found
            case Tier():
                self._tiers[key.id] = columns["place"], found
            case Network():
                self._networks[key.id] = found
            case SecurityGroup():
                self._groups[key.id] = found
            case Rule():
                group = columns["security_group"]
                self._group_of[key.id] = group
                self._rules.setdefault(group, {})[key.id] = found
                self._whole.pop(group, None)

    def drop(self, key: Key) -> None:
        """A row is gone; one that never was there is fine."""
        self._wrong.pop(key, None)
        match key.table:
            case "Port":
                self._ports.pop(key.id, None)
                self._fresh.add(key.id)
            case "Address_Group":
                self._address_groups.pop(key.id, None)
            case "Tier":
                self._tiers.pop(key.id, None)
            case "Network":
                self._networks.pop(key.id, None)
            case "Security_Group":
                self._groups.pop(key.id, None)
                self._whole.pop(key.id, None)
            case "Rule" if key.id in self._group_of:
                group = self._group_of.pop(key.id)
                del self._rules[group][key.id]
                self._whole.pop(group, None)

    def needs(self) -> Needs:
        """As far as it is known now: what comes may refer to more."""
        groups = frozenset(group for port in self._here() for group in port.security_groups)
        remotes = {rule.remote for group in groups for rule in self._rules.get(group, {}).values()}
        remotes |= {rule.remote for tier in self._tiers_for(groups) for rule in tier.rules}
        return Needs(
            self.plugged,
            groups,
            frozenset(remote.id for remote in remotes if isinstance(remote, RemoteGroup)),
            frozenset(remote.id for remote in remotes if isinstance(remote, RemoteAddressGroup)),
            frozenset(port.network_id or "" for port in self._here()),
        )

    def policy(self) -> Policy:
        """The policy that the rows make; ports are in pages, all else is sorted by id.

        Raises PolicyError when a row is wrong, or refers to one that is not there.
        """
        problems = [problem for key in sorted(self._wrong) for problem in self._wrong[key].problems]
        problems += [Problem(message, source=self.source) for message in self._loose_ends()]
        if problems:
            raise PolicyError(problems)
        if self._known != self._groups.keys():
            self._known = frozenset(self._groups)
            self._fresh.update(self._ports)
        self._trimmed = self._trimmed.changed({name: self._trim(self._ports.get(name)) for name in self._fresh})
        self._fresh.clear()
        return Policy(
            self._trimmed,
            {name: self._with_rules(name) for name in sorted(self._groups)},
            {name: self._address_groups[name] for name in sorted(self._address_groups)},
            tuple(self._tiers_for(self.needs().groups)),
            {self._networks[name].id: self._networks[name] for name in sorted(self._networks)},
        )

    def _here(self) -> Iterator[Port]:
        return (self._ports[name] for name in sorted(self.plugged & self._ports.keys()))

    def _tiers_for(self, groups: frozenset[str]) -> Iterator[Tier]:
        """The tiers that may concern a port of this host, in their order, for the groups that there are here."""
        for _, tier in sorted(self._tiers.values(), key=lambda placed: (placed[0], placed[1].id)):
            if tier.applies_to is None:
                yield tier
            elif here := tuple(group for group in tier.applies_to if group in groups):
                yield tier if here == tier.applies_to else replace(tier, applies_to=here)

    def _loose_ends(self) -> Iterator[str]:
        """What only another program than ovsfw can have written."""
        for port in self._here():
            kinds = {self._groups[group].stateful for group in port.security_groups if group in self._groups}
            if len(kinds) > 1:
                yield f"port {port.id} has stateful and stateless security groups; a port has one kind"
        needed = self.needs()
        for name in sorted((needed.groups | needed.members_of) - self._groups.keys()):
            yield f"security group {name} is referred to, and is not there"
        for name in sorted(needed.address_groups - self._address_groups.keys()):
            yield f"address group {name} is referred to, and is not there"

    def _with_rules(self, name: str) -> SecurityGroup:
        whole = self._whole.get(name)
        if whole is None:
            rules = self._rules.get(name, {})
            whole = replace(self._groups[name], rules=tuple(rules[rule] for rule in sorted(rules)))
            self._whole[name] = whole
        return whole

    def _trim(self, port: Port | None) -> Port | None:
        """A port elsewhere is a member of groups that mean nothing here; they are left out."""
        if port is None or self._known.issuperset(port.security_groups):
            return port
        return replace(port, security_groups=tuple(group for group in port.security_groups if group in self._known))


def judge(key: Key, columns: Columns, source: str) -> None:
    """Whether a host can read a row, which is called `source`.  Raises PolicyError."""
    _read(key, columns, source)


def _read(key: Key, columns: Columns, source: str) -> _Object:
    """One object, read as if it stood alone in a document, with what it refers to.  Raises PolicyError."""
    try:
        found = read_object(columns["document"])
    except ValueError as error:
        raise PolicyError([Problem(str(error), f"{key.table} {key.id}", source)]) from None
    found["id"] = key.id or None
    match key.table:
        case "Port":
            policy = read_values({"ports": [found], "security_groups": _stubs(found.get("security_groups"))}, source)
            return policy.ports[key.id]
        case "Address_Group":
            return read_values({"address_groups": [found]}, source).address_groups[key.id]
        case "Security_Group":
            return read_values({"security_groups": [found]}, source).security_groups[key.id]
        case "Network":
            return read_values({"networks": [found]}, source).networks[key.id or None]
        case "Tier":
            return _read_tier(found, source)
        case _:
            return _read_rule(found, columns["security_group"], source)


def _read_tier(found: Document, source: str) -> Tier:
    rules = [rule for rule in found.get("rules") or () if isinstance(rule, dict)]
    groups = {*(found.get("applies_to") or ()), *(rule.get("remote_group_id") for rule in rules)}
    document = {
        "tiers": [found],
        "security_groups": _stubs(groups),
        "address_groups": _stubs({rule.get("remote_address_group_id") for rule in rules}),
    }
    (tier,) = read_values(document, source).tiers
    return tier


def _read_rule(found: Document, group: str, source: str) -> Rule:
    others = {found.get("remote_group_id")} - {group}
    document = {
        "security_groups": [{"id": group, "rules": [found]}, *_stubs(others)],
        "address_groups": _stubs([found.get("remote_address_group_id")]),
    }
    (rule,) = read_values(document, source).security_groups[group].rules
    return rule


def _stubs(names: object) -> list[Document]:
    return [{"id": name} for name in names if isinstance(name, str)] if isinstance(names, Iterable) else []


def needed_rows(rows: Mapping[Key, Columns], needs: Needs) -> dict[Key, Columns]:
    """What a server sends to a host with these needs: its conditions, said once more."""
    return {key: columns for key, columns in rows.items() if _is_needed(key, columns, needs)}


def _is_needed(key: Key, columns: Columns, needs: Needs) -> bool:
    by_id = {
        "Security_Group": needs.groups | needs.members_of,
        "Address_Group": needs.address_groups,
        "Network": needs.networks,
        "Assertion": frozenset[str](),
    }
    match key.table:
        case "Port":
            return key.id in needs.ports or not needs.members_of.isdisjoint(columns["security_groups"])
        case "Rule":
            return columns["security_group"] in needs.groups
        case "Tier":
            return True
        case _:
            return key.id in by_id[key.table]
