"""What is plugged into the bridge of this host, now."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Binding(NamedTuple):
    """A port (by its `external_ids:iface-id`), its OpenFlow port number, and its VLAN (0 when it has no tag)."""

    port_id: str
    ofport: int
    vlan: int = 0


class VlanMode(Enum):
    """How the switch reads VLAN tags on a port that is no endpoint (vswitchd.conf.db(5), Port:vlan_mode)."""

    TRUNK = "trunk"
    ACCESS = "access"
    NATIVE = "native"


class Uplink(NamedTuple):
    """A switch port without iface-id: tunnel, physical port, patch, the bridge itself.

    `vlan` is the VLAN of its untagged packets, 0 when it has no tag.
    """

    ofport: int
    mode: VlanMode = VlanMode.TRUNK
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Bindings:
    """Every port of the bridge that has an OpenFlow number; both sorted by ofport.

    One iface-id may stand on several OpenFlow ports; each is filtered.
    """

    endpoints: tuple[Binding, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
