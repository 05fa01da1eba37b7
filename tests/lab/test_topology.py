"""A lab comes up, works, and goes without a trace, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab import netns
from ovsfw.lab.machines import Place, namespace
from ovsfw.lab.topology import down, find, make_place, up
from ovsfw.policy.model import Policy
from tests.running import PATIENCE

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
ROOT = Path(__file__).parents[2]


def ovsfw(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ovsfw", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)


def where(place: Place) -> list[str]:
    return ["--name", place.name, "--directory", str(place.directory)]


def traces(place: Place) -> list[str]:
    """What there is of a lab: namespaces, processes that were started for it, files, devices of the host."""
    found = netns.names(f"ovsfw-{place.name}.")
    mark = os.fsencode(place.directory)
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
        except OSError:
            continue
        if mark in arguments and process.name != str(os.getpid()):
            found.append(f"process {process.name}: {arguments!r}")
    found += [str(place.directory)] if place.directory.exists() else []
    devices = {device.name for device in Path("/sys/class/net").iterdir()}
    return found + sorted(devices & {"web1", "br-int", "ovs-netdev"})


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_up_find_and_down(place: Place, shop: Policy) -> None:
    assert traces(place) == []

    lab = up(shop, place, "shop.yaml")
    try:
        assert find(place) == lab
        spaces = netns.names(f"ovsfw-{place.name}.")
        assert spaces == sorted(namespace(place, name) for name in ["switch", "outside", *shop.ports])
        seen = lab.switch.vsctl("--bare", "--columns=external_ids", "find", "Interface", "name=web1")
        assert seen.strip() == "iface-id=web1"
        addresses = netns.inside(namespace(place, "db"), "ip", "-brief", "address", "show", "eth0")
        assert "10.9.0.41/24" in addresses
        assert "2001:db8:9::41/64" in addresses
        with pytest.raises(ConfigError, match=r"is up already.*ovsfw lab down"):
            up(shop, place)
        assert find(place) == lab, "a second `up` must not harm the first"
    finally:
        assert down(place)

    assert traces(place) == []
    assert not down(place)
    with pytest.raises(ConfigError, match="no lab in"):
        find(place)


def test_down_ends_what_people_left_running(place: Place, shop: Policy) -> None:
    up(shop, place)
    script = "trap '' TERM; echo ready; while :; do sleep 60; done"
    command = ["ip", "netns", "exec", namespace(place, "web1"), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stubborn:
        try:
            assert stubborn.stdout is not None
            assert stubborn.stdout.readline() == "ready\n"
            down(place)
            assert stubborn.wait(5) == -signal.SIGKILL
        finally:
            stubborn.kill()
    assert traces(place) == []


# In the order in which they come about.
MOMENTS = ["lab.json", "lab.json:namespaces", "conf.db", "web1.agent", "ovs-vswitchd.pid", "br-int.mgmt"]


def has_come(moment: str, place: Place) -> bool:
    file, _, more = moment.partition(":")
    return (place.directory / file).exists() and (not more or bool(netns.names(f"ovsfw-{place.name}.")))


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_at_any_moment_leaves_nothing(place: Place, moment: str) -> None:
    number = signal.SIGTERM if moment == "conf.db" else signal.SIGINT
    with subprocess.Popen([sys.executable, "-m", "ovsfw", "lab", "up", *where(place)], cwd=ROOT) as process:
        until(lambda: has_come(moment, place))
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    assert traces(place) == []


@pytest.mark.parametrize("moment", ["conf.db", "ovs-vswitchd.pid"])
def test_down_finds_what_a_crash_left(place: Place, moment: str) -> None:
    with subprocess.Popen([sys.executable, "-m", "ovsfw", "lab", "up", *where(place)], cwd=ROOT) as process:
        until(lambda: has_come(moment, place))
        process.kill()
    until(lambda: traces(place))

    # What the dead process had started may need a moment to arrive in its namespace.
    done = ovsfw("lab", "down", *where(place))

    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: not traces(place))


def test_a_directory_with_other_things_is_refused_and_kept(tmp_path: Path, shop: Policy) -> None:
    (tmp_path / "precious").touch()
    place = make_place("t-other", str(tmp_path))
    with pytest.raises(ConfigError, match="not empty"):
        up(shop, place)
    down(place)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "x" * 33])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lab name"):
        make_place(name)


def test_a_path_too_long_for_sockets_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        make_place("t", "/tmp/" + "x" * 90)
