"""The extension of Neutron's L2 agent for hosts where `ovsfw run --hook neutron` filters: `extensions = ovsfw`.

After its start the agent clears away flows that it does not know, in its own tables.  The one flow that leads into the
filter is there; without it, every packet would pass.
"""

from __future__ import annotations

from typing import Any

from neutron_lib.agent.l2_extension import L2AgentExtension
from oslo_config import cfg

from ovsfw.compiler.hook import HOOK_COOKIE
from ovsfw.neutron.bridge import PROTOCOLS, refuse_local_ips_of_others, reserve_cookie


class OvsfwAgentExtension(L2AgentExtension):  # type: ignore[misc]
    """Keeps the way into the filter, which another process looks after."""

    def consume_api(self, agent_api: Any) -> None:  # noqa: ANN401 - Neutron has no types
        """The agent says what it has."""
        self._bridge = agent_api.br_int

    def initialize(self, connection: Any, driver_type: str) -> None:  # noqa: ANN401, ARG002
        """Before the agent clears anything away.

        Raises RuntimeError when this agent cannot be told what to keep, or has an extension that goes round the filter.
        """
        refuse_local_ips_of_others(cfg.CONF.agent.extensions)
        reserve_cookie(self._bridge, HOOK_COOKIE)
        self._bridge.add_protocols(*PROTOCOLS)

    def handle_port(self, context: Any, data: Any) -> None:  # noqa: ANN401
        """The daemon follows the ports by itself."""

    def delete_port(self, context: Any, data: Any) -> None:  # noqa: ANN401
        """The daemon follows the ports by itself."""
