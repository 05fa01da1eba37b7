"""What the agent of Neutron is told, and what it must not have."""

from __future__ import annotations

import pytest

from ovsfw.neutron.bridge import refuse_local_ips_of_others, reserve_cookie


class AgentBridge:
    """As much of Neutron's as is asked for."""

    def __init__(self, cookies: object) -> None:
        self._reserved_cookies = cookies


def test_a_cookie_is_kept_beside_those_of_the_agent() -> None:
    cookies = {1, 2}
    reserve_cookie(AgentBridge(cookies), 3)
    assert cookies == {1, 2, 3}


@pytest.mark.parametrize("bridge", [AgentBridge(None), AgentBridge([1]), object()])
def test_an_agent_that_keeps_them_elsewhere_is_refused(bridge: object) -> None:
    with pytest.raises(RuntimeError, match="ovsfw's hook would be cleared away"):
        reserve_cookie(bridge, 3)


def test_an_agent_whose_local_ips_go_round_the_filter_is_refused() -> None:
    refuse_local_ips_of_others(["qos", "ovsfw_local_ip"])
    with pytest.raises(RuntimeError, match=r"Put ovsfw_local_ip in its place \(extensions in openvswitch_agent.ini\)"):
        refuse_local_ips_of_others(["qos", "local_ip"])
