"""Trunks of ports that `mechanism_drivers = ovsfw` has bound.

Neutron's own driver for its Open vSwitch agent does all there is to do, but only where the mechanism driver is called
`openvswitch` (neutron/services/trunk/drivers/openvswitch/driver.py): without it the trunk plugin refuses to start.
"""

from __future__ import annotations

from typing import Any

from neutron.services.trunk.drivers.openvswitch.driver import (
    SUPPORTED_INTERFACES,
    SUPPORTED_SEGMENTATION_TYPES,
    OVSDriver,
)
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources

NAME = "ovsfw"


class OvsfwTrunkDriver(OVSDriver):  # type: ignore[misc]
    """Neutron's, under our name.  It registers itself with the trunk plugin, should there be one."""

    is_loaded = True

    def __init__(self) -> None:
        """To be made before the trunk plugin is."""
        super().__init__(NAME, SUPPORTED_INTERFACES, SUPPORTED_SEGMENTATION_TYPES, constants.AGENT_TYPE_OVS)

    @registry.receives(resources.PORT, [events.AFTER_UPDATE])  # type: ignore[untyped-decorator]
    def _subport_binding(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        """Once the parent of a trunk is ACTIVE, its sub-ports are bound to the same host."""
        before, port = payload.states[0], payload.latest_state
        drivers = port.get(portbindings.VIF_DETAILS, {}).get(portbindings.VIF_DETAILS_BOUND_DRIVERS, {})
        trunk, active = port.get("trunk_details"), constants.PORT_STATUS_ACTIVE
        if trunk and drivers.get("0") == NAME and before.get("status") != active == port.get("status"):
            self._update_subport_binding(payload.context, trunk["trunk_id"])
