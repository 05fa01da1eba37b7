"""What Neutron's server knows, as rows of the policy database (see `comparing`).  Pure; knows no Neutron.

Objects come in the shapes of the Neutron API.  What is published at once is a *unit*: a security group with all its
rules, an address group, or a port.  What cannot be understood is left out, so that it allows nothing, and is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ovsfw.neutron import translate
from ovsfw.neutron.translate import Json
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.model import AddressGroup, Policy, Port, RemoteAddressGroup, RemoteGroup, Rule, SecurityGroup
from ovsfw.store.rows import (
    RULES,
    Key,
    Rows,
    rows_of,
)

GROUP, ADDRESS_GROUP, PORT = UNITS = ("Security_Group", "Address_Group", "Port")
REVISION = "revision"
_TRUSTED_OWNERS = "network:"  # neutron_lib.utils.net.is_port_trusted


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of Neutron by their id; groups have their rules in `security_group_rules`."""

    groups: Mapping[str, Json] = field(default_factory=dict)
    address_groups: Mapping[str, Json] = field(default_factory=dict)
    ports: Mapping[str, Json] = field(default_factory=dict)

    @property
    def units(self) -> frozenset[Key]:
        """What is here."""
        return frozenset(Key(table, name) for table, found in self._tables for name in found)

    @property
    def references(self) -> frozenset[Key]:
        """The groups and address groups that these objects name."""
        rules = [rule for group in self.groups.values() for rule in group["security_group_rules"]]
        named = {
            GROUP: {rule.get("remote_group_id") for rule in rules}.union(
                *(port.get("security_groups") or () for port in self.ports.values())
            ),
            ADDRESS_GROUP: {rule.get("remote_address_group_id") for rule in rules},
        }
        return frozenset(Key(table, name) for table, names in named.items() for name in names if name is not None)

    def __or__(self, other: Objects) -> Objects:
        """Both."""
        return Objects(
            {**self.groups, **other.groups},
            {**self.address_groups, **other.address_groups},
            {**self.ports, **other.ports},
        )

    def __iter__(self) -> Iterator[tuple[Key, Json]]:
        """Each object with the key of its row."""
        for table, found in self._tables:
            for name, data in found.items():
                yield Key(table, name), data

    @property
    def _tables(self) -> tuple[tuple[str, Mapping[str, Json]], ...]:
        return (GROUP, self.groups), (ADDRESS_GROUP, self.address_groups), (PORT, self.ports)


@dataclass(frozen=True, slots=True)
class Published:
    """The rows of some objects, and what of them nobody can be told, in words."""

    rows: Rows
    problems: tuple[str, ...] = ()


def published(objects: Objects, known: Collection[Key]) -> Published:
    """The rows; `known` are groups and address groups of the policy database that may be referred to.

    What refers to another one is without it: a rule is left out, a port is not in that group.  Neutron is changed
    while it is read; whoever has changed it publishes that too.
    """
    known = objects.units.union(known)
    problems: list[str] = []
    policy = Policy(
        {port.id: port for port in _ports(objects.ports.values(), known, problems)},
        {group.id: group for group in _groups(objects.groups.values(), known, problems)},
        {group.id: group for group in _address_groups(objects.address_groups.values(), problems)},
    )
    revisions = dict(_revisions(objects))
    rows: Rows = {key: {**columns, REVISION: revisions[key]} for key, columns in rows_of(policy).items()}
    return Published(rows, tuple(problems))


def _revisions(objects: Objects) -> Iterator[tuple[Key, int]]:
    for key, data in objects:
        yield key, data["revision_number"]
    for group in objects.groups.values():
        for rule in group["security_group_rules"]:
            yield Key(RULES, rule["id"]), rule["revision_number"]


def _ports(found: Iterable[Json], known: Collection[Key], problems: list[str]) -> Iterator[Port]:
    for data in found:
        if (port := _port(data, problems)) is not None:
            groups = tuple(name for name in port.security_groups if Key(GROUP, name) in known)
            yield replace(port, security_groups=groups)


def _port(data: Json, problems: list[str]) -> Port | None:
    try:
        return read_port(data)
    except ValueError as error:
        problems.append(str(error))
        return None


def read_port(data: Json) -> Port:
    """A port of the API, with its addresses whether it is filtered or not.  Raises ValueError as `translate` does."""
    port = translate.read_port({**data, "device": data["id"], "port_security_enabled": True})
    return replace(port, port_security=_is_filtered(data))


def _is_filtered(data: Json) -> bool:
    """Those of routers and DHCP servers are not, also where there is no port security extension."""
    trusted = str(data.get("device_owner") or "").startswith(_TRUSTED_OWNERS)
    return data.get("port_security_enabled") is not False and not trusted


def _groups(found: Iterable[Json], known: Collection[Key], problems: list[str]) -> Iterator[SecurityGroup]:
    for data in found:
        rules = [
            rule
            for each in data["security_group_rules"]
            if (rule := _rule(str(data["id"]), each, problems)) is not None and _remote_is_known(rule, known)
        ]
        stateful = data.get("stateful") is not False
        yield SecurityGroup(str(data["id"]), str(data.get("name") or ""), stateful, tuple(rules))


def _rule(group: str, data: Json, problems: list[str]) -> Rule | None:
    try:
        return replace(translate.read_rule(data), id=str(data["id"]))
    except (ValueError, KeyError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        problems.append(f"security group {group}: rule {data['id']} allows nothing, because {said}")
        return None


def _remote_is_known(rule: Rule, known: Collection[Key]) -> bool:
    match rule.remote:
        case RemoteGroup(name):
            return Key(GROUP, name) in known
        case RemoteAddressGroup(name):
            return Key(ADDRESS_GROUP, name) in known
        case _:
            return True


def _address_groups(found: Iterable[Json], problems: list[str]) -> Iterator[AddressGroup]:
    for data in found:
        name = str(data["id"])
        texts = [str(text) for text in data.get("addresses") or ()]
        prefixes = {prefix for text in texts if (prefix := _prefix(name, text, problems)) is not None}
        yield AddressGroup(name, str(data.get("name") or ""), tuple(sorted(prefixes)))


def _prefix(group: str, text: str, problems: list[str]) -> Prefix | None:
    try:
        return Prefix.parse(text)
    except ValueError as error:
        problems.append(f"address group {group}: {error}; it is left out")
        return None
