"""A Neutron in memory, as far as publishing sees it: objects in the shapes of the API, with revision numbers."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT, Objects
from ovsfw.store.rows import Key

Json = dict[str, Any]


def rule(name: str, **more: Any) -> Json:
    """As `GET /v2.0/security-group-rules` has it."""
    keys = ("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id")
    nothing = dict.fromkeys((*keys, "remote_address_group_id"))
    return {"id": name, "direction": "ingress", "ethertype": "IPv4", **nothing, "revision_number": 0, **more}


class Cloud:
    """Its state is the objects; each is a unit of publication by its key."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.reads = 0

    def group(self, name: str, *rules: Json, **more: Any) -> Key:
        """Make or change a security group."""
        return self._put(
            Key(GROUP, name), {"name": name, "stateful": True, "security_group_rules": list(rules), **more}
        )

    def address_group(self, name: str, *addresses: str) -> Key:
        """Make or change an address group."""
        return self._put(Key(ADDRESS_GROUP, name), {"name": name, "addresses": list(addresses)})

    def port(self, number: int, *groups: str, **more: Any) -> Key:
        """Make or change a port."""
        values = {
            "name": "",
            "network_id": "net",
            "mac_address": f"fa:16:3e:00:00:{number:02x}",
            "device_owner": "compute:nova",
            "fixed_ips": [{"ip_address": f"10.0.0.{number}", "subnet_id": "subnet"}],
            "allowed_address_pairs": [],
            "security_groups": list(groups),
            "port_security_enabled": True,
        }
        return self._put(Key(PORT, f"vm{number}"), {**values, **more})

    def delete(self, key: Key) -> Key:
        """Neutron deletes rules whose remote group goes without a word (ON DELETE CASCADE)."""
        del self.objects[key]
        for data in self.objects.values():
            rules = data.get("security_group_rules", [])
            rules[:] = [each for each in rules if each["remote_group_id"] != key.id]
        return key

    def _put(self, key: Key, data: Json) -> Key:
        before = self.objects.get(key, {"revision_number": 0})
        self.objects[key] = {"id": key.id, **data, "revision_number": before["revision_number"] + 1}
        return key

    @contextmanager
    def snapshot(self) -> Iterator[Cloud]:
        """As it is now."""
        now = Cloud()
        now.objects = copy.deepcopy(self.objects)
        self.reads += 1
        yield now

    def everything(self) -> Objects:
        """All there is."""
        return self.read(self.objects.keys())

    def read(self, units: Collection[Key]) -> Objects:
        """Those of some units that there are."""
        of_table: dict[str, dict[str, Json]] = {GROUP: {}, ADDRESS_GROUP: {}, PORT: {}}
        for key in self.objects.keys() & set(units):
            of_table[key.table][key.id] = self.objects[key]
        return Objects(of_table[GROUP], of_table[ADDRESS_GROUP], of_table[PORT])
