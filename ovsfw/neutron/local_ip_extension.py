"""Neutron's local IPs beside the filter: `extensions = ovsfw_local_ip` in the place of `local_ip`.

Neutron's extension knows only Neutron's firewall driver; beside ours, answers would pass no rules.  What is called and
when: neutron/agent/l2/extensions/local_ip.py.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from neutron.agent.l2.extensions.local_ip import LocalIPAgentExtension
from neutron_lib import constants

from ovsfw.compiler.hook import LOCAL_IPS
from ovsfw.neutron.local_ips import flows


class OvsfwLocalIpExtension(LocalIPAgentExtension):  # type: ignore[misc]
    """Neutron's extension, with other flows."""

    def handle_port(self, context: Any, port: dict[str, Any]) -> None:  # noqa: ANN401 - Neutron has no types
        """Lead what a VM sends to the table of local IPs: the agent does so only for an extension named `local_ip`."""
        is_of_vm = port["device_owner"].startswith(constants.DEVICE_OWNER_COMPUTE_PREFIX)
        if is_of_vm and port.get("local_vlan"):
            self.int_br.setup_local_egress_flows(port["vif_port"].ofport, port["local_vlan"])
        super().handle_port(context, port)

    def setup_local_ip_translation(self, vlan: int, local_ip: str, dest_ip: str, mac: str) -> None:
        """One local IP, for which it does not matter whether `static_nat` is set."""
        for flow in flows(vlan, local_ip, dest_ip, mac):
            self.int_br.add_flow(**flow)
        self._avoid_nat_to_self(vlan, local_ip, dest_ip)

    setup_static_local_ip_translation = setup_local_ip_translation

    def delete_local_ip_translation(self, vlan: int, local_ip: str, dest_ip: str, mac: str) -> None:
        """Take it away; what was learned of it goes by itself."""
        super().delete_local_ip_translation(vlan=vlan, local_ip=local_ip, dest_ip=dest_ip, mac=mac)
        self.int_br.delete_flows(table=LOCAL_IPS, reg6=vlan, metadata=int(IPv4Address(local_ip)))
