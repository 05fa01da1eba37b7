"""The mechanism driver of Neutron's ML2 plugin: `mechanism_drivers = ovsfw`.

It binds ports for the Open vSwitch agent as Neutron's own driver does, and publishes what is filtered by to the policy
database (see `publishing`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from neutron.plugins.ml2.common.constants import NO_PBLOCKS_TYPES
from neutron.plugins.ml2.drivers.openvswitch.mech_driver.mech_openvswitch import OpenvswitchMechanismDriver
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources

from ovsfw.neutron import config, provisioning
from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT
from ovsfw.neutron.publishing import Publishing, Settings
from ovsfw.neutron.server_database import ports_of_subnet, snapshot
from ovsfw.neutron.trunk_driver import OvsfwTrunkDriver
from ovsfw.store.rows import Key

logger = logging.getLogger(__name__)

# Of Neutron's agent, beside the daemon.
EXTENSION = "ovsfw"
_NO_EXTENSION = (
    "host {host} is filtered by `ovsfw run`, and its agent lacks `extensions = {extension}`, so that all packets pass "
    "after its start; set it, or if the host is filtered otherwise by now: ovsfw db forget {host}"
)
# Of the callbacks of one event: others tell the agents, and wait for a queue that is away.
_FIRST = 0
_AFTER = (events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE)


class OvsfwMechanismDriver(OpenvswitchMechanismDriver):  # type: ignore[misc]
    """Neutron's driver for its Open vSwitch agent, with a filter that needs no hybrid bridge."""

    def initialize(self) -> None:
        """Listen to what changes.  Raises ConfigError when the section [ovsfw] is wrong."""
        super().initialize()
        self._trunks = OvsfwTrunkDriver()
        section = config.register()
        remote = config.remote_of(section)
        self._waits = False
        # Whether `ovsfw run` filters on a host.
        self._is_known: Callable[[str], bool] = lambda _host: False
        if remote is None:
            logger.warning("[ovsfw] connection is not set: nothing is published to a policy database")
            return
        if remote.tls is not None:
            remote.tls.context()
        settings = Settings(remote, section.retry_interval, section.repair_interval)
        self._waits = section.wait_for_flows
        self._losing: dict[str, list[str]] = {}
        self._publishing = Publishing(settings, snapshot, provisioning)
        self._is_known = self._publishing.readiness.is_known
        for resource, heard in (
            (resources.SECURITY_GROUP, self._group),
            (resources.SECURITY_GROUP_RULE, self._rule),
            (resources.ADDRESS_GROUP, self._address_group),
            (resources.PORT, self._port),
        ):
            for event in _AFTER:
                registry.subscribe(heard, resource, event, priority=_FIRST)
        registry.subscribe(self._subnet_goes, resources.SUBNET, events.PRECOMMIT_DELETE_ASSOCIATIONS)
        registry.subscribe(self._subnet_gone, resources.SUBNET, events.AFTER_DELETE)
        registry.subscribe(self._begin, resources.PROCESS, events.AFTER_INIT)

    def create_port_precommit(self, context: Any) -> None:  # noqa: ANN401 - Neutron has no types
        """A port that is bound from the start waits for its flows."""
        super().create_port_precommit(context)
        self._wait_for_flows(context)

    def update_port_precommit(self, context: Any) -> None:  # noqa: ANN401
        """So does one that is bound, or has gone down: it comes up when both the agent and the filter are ready."""
        super().update_port_precommit(context)
        active = constants.PORT_STATUS_ACTIVE
        if context.original["status"] == active != context.current["status"] and self._wait_for_flows(context):
            self._insert_provisioning_block(context)
        elif context.host != context.original_host:
            self._wait_for_flows(context)

    def _wait_for_flows(self, context: Any) -> bool:  # noqa: ANN401
        """Whether the port has to wait: its host is filtered by what is in the policy database."""
        port, host = context.current, context.host
        if (
            not self._waits
            or port["status"] == constants.PORT_STATUS_ACTIVE
            or port["device_owner"] in NO_PBLOCKS_TYPES
            or not self._comes_to_the_bridge(port)
            or not self._is_known(host)
        ):
            return False
        provisioning.block(context.plugin_context, port["id"])
        self._publishing.wait_for_flows(port["id"], host)
        return True

    def try_to_bind_segment_for_agent(self, context: Any, segment: Any, agent: Any) -> bool:  # noqa: ANN401
        """Not where the daemon filters and the agent, when it has started anew, clears away the way into the filter."""
        host, extensions = agent["host"], agent["configurations"].get("extensions") or ()
        if self._is_known(host) and EXTENSION not in extensions:
            port = context.current["id"]
            logger.error("port %s is not bound: %s", port, _NO_EXTENSION.format(host=host, extension=EXTENSION))
            return False
        return bool(super().try_to_bind_segment_for_agent(context, segment, agent))

    def _comes_to_the_bridge(self, port: dict[str, Any]) -> bool:
        """Not a function of a network card that goes past Open vSwitch."""
        kind = port.get(portbindings.VNIC_TYPE, portbindings.VNIC_NORMAL)
        if kind == portbindings.VNIC_DIRECT:
            return "switchdev" in (port.get(portbindings.PROFILE) or {}).get("capabilities", ())
        return kind in self.supported_vnic_types

    def get_vif_details(self, context: Any, agent: Any, segment: Any) -> dict[str, Any]:  # noqa: ANN401
        """Filtered by Open vSwitch, without a hybrid bridge unless the agent of that host still needs one."""
        details: dict[str, Any] = super().get_vif_details(context, agent, segment)
        hybrid = bool(details.get(portbindings.OVS_HYBRID_PLUG))
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

    def _subnet_goes(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        """Ports lose the addresses that they have made themselves there, and Neutron says nothing of the ports."""
        self._losing[payload.resource_id] = ports_of_subnet(payload.context.session, payload.resource_id)

    def _subnet_gone(self, _resource: str, _event: str, _trigger: object, payload: Any) -> None:  # noqa: ANN401
        self._publishing.mark(Key(PORT, port) for port in self._losing.pop(payload.resource_id, ()))
