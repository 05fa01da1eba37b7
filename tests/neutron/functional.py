"""Runs Neutron's own functional suite for firewall drivers: `python -m tests.neutron.functional DRIVER...`.

The suite (neutron.tests.functional.agent.test_firewall) ships with Neutron, which has skipped its Open vSwitch
scenarios since it left eventlet.  Here each test runs in a sandbox: a process with mount, network and process
namespaces of its own and a fresh Open vSwitch, whose end takes everything with it.  What is patched at run time is in
`_patch`.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

SUITE = "neutron.tests.functional.agent.test_firewall"
CASES = ("FirewallTestCase", "FirewallTestCaseIPv6")
DRIVERS = {
    "ovsfw": "ovsfw.neutron.firewall_driver:OvsfwFirewallDriver",
    "openvswitch": "neutron.agent.linux.openvswitch_firewall:OVSFirewallDriver",
}
# Some of each kind, which take a minute and a half together.
QUICK = frozenset(
    f"FirewallTestCase.test_{name}"
    for name in (
        "arp_is_allowed", "dhcp_server_forbidden_on_vm", "established_connection_is_cut", "ingress_tcp_rule",
        "mac_spoofing", "remote_security_groups",
    )
)  # fmt: skip
SANDBOX = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
TEST_TIMEOUT = 400.0
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"
_EXIT = {0: PASSED, 5: SKIPPED}
_ALL_PROTOCOLS = tuple(f"OpenFlow1{minor}" for minor in range(6))


# --- All tests ------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run, print, and say whether every test that another driver passes passes with the first one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drivers", nargs="+", choices=DRIVERS)
    parser.add_argument("--only", default="", help="tests with this in their name")
    parser.add_argument("--quick", action="store_true", help="a few tests of each kind")
    parser.add_argument("--logs", type=Path, default=Path(".build/neutron-functional"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return _run_one(given.one, given.drivers[0])
    given.logs.mkdir(parents=True, exist_ok=True)
    names = [name for name in _names() if given.only in name and (name in QUICK or not given.quick)]
    with ThreadPoolExecutor(given.jobs) as pool:
        runs = {
            (driver, name): pool.submit(_in_sandbox, driver, name, given.logs)
            for name in names
            for driver in given.drivers
        }
        results = {key: run.result() for key, run in runs.items()}
    return _report(given.drivers, names, results)


def _names() -> list[str]:
    module = _module()
    loader = unittest.TestLoader()
    return [f"{case}.{name}" for case in CASES for name in loader.getTestCaseNames(getattr(module, case))]


def _module() -> Any:
    """The tests of Neutron 27 would replace threads by those of eventlet, which its agent has left."""
    import importlib  # noqa: PLC0415 - only where Neutron is

    # That it is done already; and what that agent says of its controller.
    os.environ.update({"EVENTLET_MONKEYPATCH": "1", "OSKEN_HUB_TYPE": "native"})
    return importlib.import_module(SUITE)


def _in_sandbox(driver: str, name: str, logs: Path) -> tuple[str, float]:
    """The result of one test, and how long it took in seconds."""
    began = time.monotonic()
    command = [*SANDBOX, sys.executable, "-W", "ignore", "-m", __spec__.name, driver, "--one", name]
    with (logs / f"{driver}.{name}.log").open("wb") as log:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=TEST_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return FAILED, time.monotonic() - began
    return _EXIT.get(done.returncode, FAILED), time.monotonic() - began


def _report(drivers: Sequence[str], names: list[str], results: dict[tuple[str, str], tuple[str, float]]) -> int:
    for name in names:
        found = (f"{driver} {results[driver, name][0]} {results[driver, name][1]:.0f} s" for driver in drivers)
        print(f"{name:60} {', '.join(found)}")
    for driver in drivers:
        counts = {kind: sum(results[driver, name][0] == kind for name in names) for kind in (PASSED, FAILED, SKIPPED)}
        print(f"{driver}: " + ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()))
    ours = drivers[0]
    worse = [
        name
        for name in names
        if results[ours, name][0] == FAILED and all(results[driver, name][0] == PASSED for driver in drivers[1:])
    ]
    for name in worse:
        print(f"{name}: fails with {ours} alone")
    passed = sum(results[ours, name][0] == PASSED for name in names)
    print(f"{passed} passed, {len(worse)} failed")
    return 1 if worse or not passed else 0


# --- One test, in its sandbox ---------------------------------------------------------------------------------------


def _run_one(name: str, driver: str) -> int:
    start_open_vswitch()
    os.environ.update({"OS_SUDO_TESTING": "1", "OS_ROOTWRAP_CMD": "timeout --foreground 0"})
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    module = _module()
    for patch in _patch(module, driver):
        patch.start()
    case, _, method = name.partition(".")
    result = unittest.TextTestRunner(verbosity=2).run(getattr(module, case)(method))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by sys.exit: a controller's thread cannot be joined.
    os._exit(1 if not result.wasSuccessful() else 5 if result.skipped else 0)


def start_open_vswitch() -> None:
    """On its default sockets, which nobody outside sees."""
    run = functools.partial(subprocess.run, check=True)
    run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    run(["ip", "link", "set", "lo", "up"])
    rundir = Path("/run/openvswitch")
    rundir.mkdir()
    (rundir / "log").mkdir()
    database = str(rundir / "conf.db")
    run(["ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema"])
    common = ["--pidfile", "--detach", "--no-chdir", "-vconsole:off"]
    run(["ovsdb-server", database, f"--remote=punix:{rundir}/db.sock", "--remote=ptcp:6640:127.0.0.1", *common])
    run(["ovs-vsctl", "--no-wait", "init"])
    run(["ovs-vswitchd", f"unix:{rundir}/db.sock", *common])


def _patch(module: Any, driver: str) -> Iterator[Any]:
    """What the suite needs in order to run without eventlet, and with the userspace datapath."""
    from neutron.agent.common.ovs_lib import OVSBridge  # noqa: PLC0415
    from neutron.plugins.ml2.drivers.openvswitch.agent.openflow.native import ovs_oskenapp  # noqa: PLC0415
    from neutron.tests.functional.agent.l2.base import OVSOFControllerHelper  # noqa: PLC0415
    from os_ken.app.ofctl.service import OfctlService  # noqa: PLC0415

    for case in CASES:
        test = getattr(module, case)
        # Without scenarios: the one for Open vSwitch, as attributes.
        test.scenarios, test.initialize, test.firewall_name = [], "initialize_ovs", "openvswitch"
    features = OfctlService._switch_features_handler  # noqa: SLF001
    # It only skips; Neutron 27 has none.
    if "setUp" in vars(module.FirewallTestCaseIPv6):
        del module.FirewallTestCaseIPv6.setUp
    path, _, name = DRIVERS[driver].partition(":")
    found = getattr(__import__(path, fromlist=[name]), name)
    yield mock.patch.object(module.openvswitch_firewall, "OVSFirewallDriver", found)
    if driver == "ovsfw":
        yield mock.patch.object(module.BaseFirewallTestCase, "initialize_ovs", _with_trusted_peer(module))
    yield mock.patch.object(signal, "signal", _signal_of_the_main_thread(signal.signal))
    # os-ken notes what an application needs at whoever imports the library first.
    yield mock.patch.object(ovs_oskenapp, "_REQUIRED_APP", ["os_ken.app.ofctl.service"], create=True)
    yield mock.patch.object(OfctlService, "_switch_features_handler", _patient(features))
    yield mock.patch.object(OVSOFControllerHelper, "_kill_main", lambda helper: helper.main_ev.set())
    yield mock.patch.object(OVSBridge, "__init__", _in_userspace(OVSBridge.__init__))
    yield mock.patch.object(OVSBridge, "add_protocols", _all_at_once(OVSBridge.add_protocols))


def _with_trusted_peer(module: Any) -> Any:
    """The peer plays a patch port, but it has an iface-id, and those of which the agent has said nothing are closed."""
    original = module.BaseFirewallTestCase.initialize_ovs

    def initialize_ovs(test: Any) -> tuple[Any, Any]:
        tester, firewall = original(test)
        play = tester.set_peer_port_as_patch_port

        def set_peer_port_as_patch_port() -> None:
            play()
            firewall.process_trusted_ports([tester.peer_port_id])

        tester.set_peer_port_as_patch_port = set_peer_port_as_patch_port
        return tester, firewall

    return initialize_ovs


def _signal_of_the_main_thread(original: Any) -> Any:
    """Python has handlers of signals in the main thread alone; the controller runs in another one here."""

    def set_handler(number: int, handler: Any) -> Any:
        return original(number, handler) if threading.current_thread() is threading.main_thread() else None

    return set_handler


def _patient(original: Any) -> Any:
    """Two applications get the switch's features at once, and this one needs what the other makes of them."""

    @functools.wraps(original)
    def handler(service: Any, event: Any) -> None:
        deadline = time.monotonic() + 10
        while event.msg.datapath.id is None and time.monotonic() < deadline:
            time.sleep(0.005)
        original(service, event)

    return handler


def _in_userspace(original: Any) -> Any:
    """The kernel's datapath is the machine's, not the sandbox's."""

    @functools.wraps(original)
    def with_datapath(bridges: Any, name: str, *_args: Any, **_more: Any) -> Any:
        return original(bridges, name, datapath_type="netdev")

    return with_datapath


def _all_at_once(original: Any) -> Any:
    """A bridge drops its controllers whenever its protocols change, so they change once, before it has any."""

    def add_protocols(bridge: Any, *_protocols: str) -> None:
        original(bridge, *_ALL_PROTOCOLS)

    return add_protocols


if __name__ == "__main__":
    sys.exit(main())
