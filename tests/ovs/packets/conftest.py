"""The bench that all packet tests share; every test enforces its own policy on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.packets.bench import OFPORTS, Bench
from tests.veth import make_switch


@pytest.fixture(scope="module")
def bench(dummy_ovs: PrivateSwitch) -> Iterator[Bench]:
    """Eight machines, a port for a stranger, and two uplinks."""
    made = Bench(make_switch(dummy_ovs, OFPORTS))
    yield made
    made.close()


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    """The IP version; a test that asks for it runs twice."""
    found: int = request.param
    return found
