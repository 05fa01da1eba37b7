"""The mechanism driver of Neutron's ML2 plugin: `mechanism_drivers = ovsfw`.

It binds ports for the Open vSwitch agent as Neutron's own driver does, and publishes what is filtered by to the policy
database (see `publishing`).
"""

from __future__ import annotations

import logging
from typing import Any

from neutron.plugins.ml2.drivers.openvswitch.mech_driver.mech_openvswitch import OpenvswitchMechanismDriver
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources

from ovsfw.neutron import config
from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT
from ovsfw.neutron.publishing import Publishing, Settings
from ovsfw.neutron.server_database import snapshot
from ovsfw.store.rows import Key

logger = logging.getLogger(__name__)

_AFTER = (events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE)


class OvsfwMechanismDriver(OpenvswitchMechanismDriver):  # type: ignore[misc]
    """Neutron's driver for its Open vSwitch agent, with a filter that needs no hybrid bridge."""

    def initialize(self) -> None:
        """Listen to what changes.  Raises ConfigError when the section [ovsfw] is wrong."""
        super().initialize()
        section = config.register()
        remote = config.remote_of(section)
        if remote is None:
            logger.warning("[ovsfw] connection is not set: nothing is published to a policy database")
            return
        if remote.tls is not None:
            remote.tls.context()
        settings = Settings(remote, section.retry_interval, section.repair_interval)
        self._publishing = Publishing(settings, snapshot)
        for resource, heard in (
            (resources.SECURITY_GROUP, self._group),
            (resources.SECURITY_GROUP_RULE, self._rule),
            (resources.ADDRESS_GROUP, self._address_group),
            (resources.PORT, self._port),
        ):
            for event in _AFTER:
                registry.subscribe(heard, resource, event)
        registry.subscribe(self._begin, resources.PROCESS, events.AFTER_INIT)

    def get_vif_details(self, context: Any, agent: Any, segment: Any) -> dict[str, Any]:  # noqa: ANN401
        """Filtered by Open vSwitch, without a hybrid bridge unless the agent of that host still needs one."""
        details: dict[str, Any] = super().get_vif_details(context, agent, segment)
        hybrid = bool(agent["configurations"].get(portbindings.OVS_HYBRID_PLUG))
        return {**details, portbindings.CAP_PORT_FILTER: True, portbindings.OVS_HYBRID_PLUG: hybrid}

    def _begin(self, *_args: object, **_kwargs: object) -> None:
        self._publishing.begin()

    def _group(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        self._publishing.mark([Key(GROUP, payload.resource_id)])

    def _rule(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        state = payload.latest_state or {}
        group = payload.metadata.get("security_group_id") or state["security_group_id"]
        self._publishing.mark([Key(GROUP, group)])

    def _address_group(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        self._publishing.mark([Key(ADDRESS_GROUP, payload.resource_id)])

    def _port(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        self._publishing.mark([Key(PORT, payload.resource_id)])
