"""Fixtures shared by all tests: a real Open vSwitch, apart from any other on the machine."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from ovsfw.lab.vswitch import PrivateSwitch

_NUMBERS = itertools.count()
# "system": packets by way of veths and the kernel datapath; "netdev": the same in userspace.  Otherwise: dummies.
WITH_VETHS = "OVSFW_DATAPATH" in os.environ

# The same examples on every run where a failure stops others; anywhere else they are new each time.  How long one
# takes says nothing on a busy machine.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
# A planted bug need only be found, not made small.
settings.register_profile("mutant", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutant" if os.environ.get("OVSFW_MUTANT") else "ci" if os.environ.get("CI") else "local")

# A shell starts what runs in the background with SIGINT ignored, which the commands under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwitch]:
    """A running switch without bridges, in a namespace of its own."""
    switch = PrivateSwitch(Path(tmp_path_factory.mktemp("ovs")), f"ovs{next(_NUMBERS)}-{os.getpid()}")
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()


@pytest.fixture
def bridge(ovs: PrivateSwitch) -> Iterator[str]:
    """A bridge br-int without ports and flows."""
    ovs.add_bridge("br-int")
    yield "br-int"
    ovs.vsctl("--if-exists", "del-br", "br-int")


@pytest.fixture(scope="module")
def dummy_ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwitch]:
    """A running switch whose ports are dummies: tests put packets in and read what comes out (see tests/dummy.py).

    With OVSFW_DATAPATH=system a switch with the kernel datapath instead, whose ports are veths (see tests/veth.py).
    """
    options = () if WITH_VETHS else ("--enable-dummy=override", "--disable-system")
    name = f"ovs{next(_NUMBERS)}-{os.getpid()}"
    switch = PrivateSwitch(Path(tmp_path_factory.mktemp("dummy")), name, options)
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()
