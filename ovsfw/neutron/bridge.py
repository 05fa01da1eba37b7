"""What the integration bridge of Neutron's L2 agent must be told by whoever filters on it."""

from __future__ import annotations

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
