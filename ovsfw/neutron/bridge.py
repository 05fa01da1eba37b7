"""What the integration bridge of Neutron's L2 agent must be told by whoever filters on it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

PROTOCOLS = ("OpenFlow10", "OpenFlow13", "OpenFlow14")


def reserve_cookie(bridge: Any, cookie: int) -> None:  # noqa: ANN401 - Neutron has no types
    """Keep a flow in the agent's table when, after its start, the agent clears away what it does not know.

    A cookie can only be asked for there, and is then another one after each start, so ours is put beside those.
    """
    reserved = getattr(bridge, "_reserved_cookies", None)
    if not isinstance(reserved, set):
        raise RuntimeError(  # noqa: TRY004 - the agent hides a TypeError
            "this release of Neutron keeps the cookies of its bridge elsewhere: ovsfw's hook would be cleared away"
        )
    reserved.add(cookie)


def refuse_local_ips_of_others(extensions: Container[str]) -> None:
    """Raise RuntimeError for an agent whose extension lets answers from local IPs go round the filter."""
    if "local_ip" in extensions:
        raise RuntimeError(
            "the agent's extension `local_ip` knows only Neutron's own firewall driver: answers from local IPs would "
            "pass no rules. Put ovsfw_local_ip in its place (extensions in openvswitch_agent.ini)"
        )
