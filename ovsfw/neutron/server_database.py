"""What Neutron's database says now: groups, address groups and ports, in the shapes of Neutron's API.

Read by columns: objects of Neutron take thirty times as long (measured), and a group may have thousands of rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from neutron.db import models_v2
from neutron.db.models.address_group import AddressAssociation
from neutron.db.models.address_group import AddressGroup as AddressGroupModel
from neutron.db.models.allowed_address_pair import AllowedAddressPair
from neutron.db.models.securitygroup import SecurityGroup, SecurityGroupPortBinding, SecurityGroupRule
from neutron.db.port_security.models import PortSecurityBinding
from neutron_lib import context
from neutron_lib.db import api
from neutron_lib.db.standard_attr import StandardAttribute

from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT, Objects
from ovsfw.store.rows import Key

# More than these are chosen here, out of all.
_MOST_NAMES = 1000
_RULE = (
    "id", "security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
    "remote_ip_prefix", "remote_group_id", "remote_address_group_id",
)  # fmt: skip
_PORT = ("id", "name", "network_id", "mac_address", "device_owner")
Row = dict[str, Any]


class Snapshot:
    """Neutron's database at one moment; only good inside `snapshot`."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        self._session = session

    def everything(self) -> Objects:
        """All there is."""
        return Objects(self._groups(None), self._address_groups(None), self._ports(None))

    def read(self, units: Collection[Key]) -> Objects:
        """Those of some units that there are."""
        names = {table: [key.id for key in units if key.table == table] for table in (GROUP, ADDRESS_GROUP, PORT)}
        return Objects(self._groups(names[GROUP]), self._address_groups(names[ADDRESS_GROUP]), self._ports(names[PORT]))

    def _groups(self, names: list[str] | None) -> dict[str, Row]:
        rules = defaultdict(list)
        for rule in self._revised(SecurityGroupRule, _RULE, SecurityGroupRule.security_group_id, names):
            rules[rule["security_group_id"]].append(rule)
        found = self._revised(SecurityGroup, ("id", "name", "stateful"), SecurityGroup.id, names)
        return {group["id"]: {**group, "security_group_rules": rules[group["id"]]} for group in found}

    def _address_groups(self, names: list[str] | None) -> dict[str, Row]:
        addresses = defaultdict(list)
        model = AddressAssociation
        for name, address in self._select((model.address_group_id, model.address), model.address_group_id, names):
            addresses[name].append(address)
        found = self._revised(AddressGroupModel, ("id", "name"), AddressGroupModel.id, names)
        return {group["id"]: {**group, "addresses": addresses[group["id"]]} for group in found}

    def _ports(self, names: list[str] | None) -> dict[str, Row]:
        addresses = self._of_ports(models_v2.IPAllocation, ("ip_address",), names)
        pairs = self._of_ports(AllowedAddressPair, ("ip_address", "mac_address"), names)
        groups = self._of_ports(SecurityGroupPortBinding, ("security_group_id",), names)
        security = self._of_ports(PortSecurityBinding, ("port_security_enabled",), names)
        return {
            port["id"]: {
                **port,
                "fixed_ips": addresses[port["id"]],
                "allowed_address_pairs": pairs[port["id"]],
                "security_groups": [row["security_group_id"] for row in groups[port["id"]]],
                **dict(*security[port["id"]]),
            }
            for port in self._revised(models_v2.Port, _PORT, models_v2.Port.id, names)
        }

    def _of_ports(self, model: Any, columns: tuple[str, ...], names: list[str] | None) -> dict[str, list[Row]]:  # noqa: ANN401
        found = defaultdict(list)
        wanted = (model.port_id, *(getattr(model, column) for column in columns))
        for port, *values in self._select(wanted, model.port_id, names):
            found[port].append(dict(zip(columns, values, strict=True)))
        return found

    def _revised(self, model: Any, columns: tuple[str, ...], by: Any, names: list[str] | None) -> Iterator[Row]:  # noqa: ANN401
        """Rows of an object of the API, with its revision number."""
        wanted = (*(getattr(model, column) for column in columns), StandardAttribute.revision_number)
        join = model.standard_attr_id == StandardAttribute.id
        for values in self._select(wanted, by, names, join):
            yield dict(zip((*columns, "revision_number"), values, strict=True))

    def _select(self, columns: Any, by: Any, names: list[str] | None, *where: Any) -> Iterator[Any]:  # noqa: ANN401
        """Rows whose column `by` is one of the names; None is any."""
        if names is not None and not names:
            return
        query = sqlalchemy.select(*columns, by).where(*where)
        few = names is not None and len(names) <= _MOST_NAMES
        if few:
            query = query.where(by.in_(names))
        chosen = None if names is None or few else frozenset(names)
        for row in self._session.execute(query):
            if chosen is None or row[-1] in chosen:
                yield row[:-1]


@contextmanager
def snapshot() -> Iterator[Snapshot]:
    """Neutron's database, with everything as of the first question (REPEATABLE READ, as MariaDB has it)."""
    admin = context.get_admin_context()
    with api.CONTEXT_READER.using(admin):
        yield Snapshot(admin.session)


def ports_of_subnet(session: Any, subnet: str) -> list[str]:  # noqa: ANN401
    """The ports with an address of a subnet."""
    query = sqlalchemy.select(models_v2.IPAllocation.port_id).where(models_v2.IPAllocation.subnet_id == subnet)
    return [port for (port,) in session.execute(query) if port is not None]
