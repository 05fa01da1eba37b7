"""The firewall driver of Neutron's L2 agent: `firewall_driver = ovsfw` in openvswitch_agent.ini.

What the agent calls and when: neutron/agent/firewall.py, neutron/agent/securitygroups_rpc.py.  A change is made when
the call returns, or when the agent leaves `defer_apply`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from neutron.agent import firewall
from neutron.conf.agent import agent_extensions_manager
from neutron_lib.callbacks import events, registry, resources
from oslo_config import cfg

from ovsfw.compiler.hook import HOOK_COOKIE
from ovsfw.neutron.bridge import PROTOCOLS, refuse_local_ips_of_others, reserve_cookie
from ovsfw.neutron.engine import Engine
from ovsfw.neutron.logbook import BOOK
from ovsfw.neutron.translate import Json

logger = logging.getLogger(__name__)

_STOCK_LOGGING = "log"


class OvsfwFirewallDriver(firewall.FirewallDriver):  # type: ignore[misc]
    """Security groups in the tables of ovsfw, hooked into the agent's pipeline at its table 60."""

    # The agent then adds no such flows of its own.
    provides_arp_spoofing_protection = True
    OVS_HYBRID_PLUG_REQUIRED = False

    def __init__(self, integration_bridge: Any) -> None:  # noqa: ANN401 - Neutron has no types
        """Begin; raises RuntimeError rather than TypeError, which the agent takes for a driver without arguments."""
        super().__init__()
        try:
            self._begin(integration_bridge)
        except TypeError as error:
            raise RuntimeError(f"ovsfw cannot use this agent's integration bridge: {error}") from error

    def _begin(self, bridge: Any) -> None:  # noqa: ANN401
        if is_green():
            raise RuntimeError("this agent runs on eventlet; ovsfw needs the agent of Neutron 27 or newer")
        agent_extensions_manager.register_agent_ext_manager_opts()
        refuse_local_ips_of_others(cfg.CONF.agent.extensions)
        self.int_br = SimpleNamespace(br=bridge)
        self._filtered: dict[str, dict[str, Any]] = {}
        self._deferred = 0
        bridge.add_protocols(*PROTOCOLS)
        reserve_cookie(bridge, HOOK_COOKIE)
        if _STOCK_LOGGING in cfg.CONF.agent.extensions:
            logger.error(
                "the agent's extension `log` knows only Neutron's own flows and logs nothing here: "
                "put ovsfw_log in its place (extensions in openvswitch_agent.ini)"
            )
        self._engine = Engine(bridge.br_name, book=BOOK)
        registry.subscribe(self._switch_restarted, resources.AGENT, events.OVS_RESTARTED)

    def _switch_restarted(self, *_args: object, **_kwargs: object) -> None:
        self._engine.doubt()

    # --- Ports ------------------------------------------------------------------------------------------------------

    @property
    def ports(self) -> Mapping[str, dict[str, Any]]:
        """The ports that are filtered, as the agent has handed them over; a copy, for several threads read it."""
        return dict(self._filtered)

    def prepare_port_filter(self, port: dict[str, Any]) -> None:
        """A port, new or changed."""
        device = port["device"]
        if firewall.port_sec_enabled(port):
            self._filtered[device] = port
        else:
            self._filtered.pop(device, None)
        self._engine.source.take_port(port)
        self._changed()

    update_port_filter = apply_port_filter = prepare_port_filter

    def remove_port_filter(self, port: Json) -> None:
        """A port is gone, or must not be known any more: it then passes nothing."""
        self._filtered.pop(port["device"], None)
        self._engine.source.drop([port["device"]])
        self._changed()

    def process_trusted_ports(self, port_ids: Iterable[str]) -> None:
        """Ports that are not filtered: those of routers and DHCP servers."""
        self._engine.source.trust(port_ids)
        self._changed()

    def remove_trusted_ports(self, port_ids: Iterable[str]) -> None:
        """Ports that are gone."""
        self._engine.source.drop(port_ids)
        self._changed()

    # --- Groups -----------------------------------------------------------------------------------------------------

    def update_security_group_rules(self, sg_id: str, rules: Iterable[Json]) -> None:
        """All rules of a group."""
        self._engine.source.take_rules(sg_id, rules)
        self._changed()

    def update_security_group_members(self, sg_id: str, ips: Mapping[str, Iterable[Any]]) -> None:
        """All addresses of a remote security group or address group."""
        self._engine.source.take_members(sg_id, ips)
        self._changed()

    def security_group_updated(
        self, action_type: str, sec_group_ids: Iterable[str], device_ids: Iterable[str] | None = None
    ) -> None:
        """The agent hands over what has changed by the other calls."""

    # --- When -------------------------------------------------------------------------------------------------------

    def filter_defer_apply_on(self) -> None:
        """Several calls follow that are one change."""
        self._deferred += 1

    def filter_defer_apply_off(self) -> None:
        """That was the last of them."""
        self._deferred -= 1
        self._changed()

    def _changed(self) -> None:
        if self._deferred <= 0:
            self._engine.flush()


def is_green() -> bool:
    """Whether eventlet has replaced threads, which the loop of the engine would wait for in vain."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("thread"))
