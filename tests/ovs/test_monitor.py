"""What others do to the switch is undone at once, and nothing else is touched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.test_daemon import document, is_verified, ours, plug
from tests.running import Process, running, until

pytestmark = pytest.mark.ovs
FOREIGN = "table=0,priority=5,in_port=77,actions=drop"
# DESIGN says 0.1 s; a machine that runs other tests meanwhile gets ten times that.
SOON = 1.0


@pytest.fixture(scope="module")
def daemon(ovs: PrivateSwitch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with two endpoints, whose audit never comes."""
    policy = Path(tmp_path_factory.mktemp("policy")) / "policy.yaml"
    policy.write_text(document(1, 2))
    ovs.add_bridge("br-int")
    plug(ovs, 1)
    plug(ovs, 2)
    ovs.ofctl("add-flow", "br-int", FOREIGN)
    with running(ovs, policy, "--audit-every", "1000000") as process:
        process.in_sync()
        yield process


def repaired(daemon: Process, before: int) -> int:
    """Wait for another repair; how many flows it mended."""
    until(lambda: daemon.status()["sync"]["repairs"] > before, f"no repair: {daemon.log}")
    return int(daemon.status()["sync"]["repaired_flows"])


@pytest.mark.parametrize(
    ("harm", "flows", "told"),
    [
        (("del-flows", "--strict", "br-int", "table=105,priority=0"), 1, "somebody deleted: .*priority=0"),
        (("mod-flows", "--strict", "br-int", "table=105,priority=0,actions=NORMAL"), 1, "somebody changed: .*NORMAL"),
        (("add-flow", "br-int", "table=139,priority=9,tcp,actions=NORMAL"), 1, "somebody added: .*NORMAL"),
        (("add-flow", "br-int", "cookie=0x0f5f010100000009,table=0,priority=9,actions=1"), 1, "somebody added: "),
        (("del-flows", "br-int", "cookie=0x0f5f000000000000/0xffff000000000000,table=0"), 1, "deleted: .*table=hook"),
        (("add-flow", "br-int", "table=0,priority=1001,actions=NORMAL"), 1, "somebody deleted: .*table=hook"),
    ],
)
def test_what_somebody_does_to_our_flows_is_undone_and_told(
    ovs: PrivateSwitch, daemon: Process, harm: tuple[str, ...], flows: int, told: str
) -> None:
    right, before = ours(ovs), daemon.status()["sync"]
    began = len(daemon.log)
    ovs.ofctl(*harm)
    assert repaired(daemon, before["repairs"]) == before["repaired_flows"] + flows
    assert ours(ovs) == right
    assert daemon.status()["sync"]["dumped"] == before["dumped"], "without a look at the whole switch"
    daemon.logged(told)
    assert "repaired: " in daemon.log[began:]
    assert "priority=5,in_port=77" in ovs.ofctl("--no-names", "--no-stats", "dump-flows", "br-int")


def test_all_flows_are_back_soon(ovs: PrivateSwitch, daemon: Process) -> None:
    right, before = ours(ovs), daemon.status()["sync"]["repairs"]
    began = time.monotonic()
    ovs.ofctl("del-flows", "br-int", "cookie=0x0f5f000000000000/0xffff000000000000")
    repaired(daemon, before)
    assert time.monotonic() - began < SOON
    assert ours(ovs) == right
    daemon.logged("and [0-9]+ more$")


def test_a_port_that_somebody_puts_back_into_flooding_is_taken_out(ovs: PrivateSwitch, daemon: Process) -> None:
    assert "NO_FLOOD" in ovs.run("ovs-ofctl", "show", "br-int")
    before = daemon.status()["sync"]["repairs"]
    ovs.run("ovs-ofctl", "mod-port", "br-int", "tap1", "flood")
    repaired(daemon, before)
    shown = ovs.run("ovs-ofctl", "show", "br-int")
    assert shown.count("NO_FLOOD") == 2


def test_what_others_do_beside_us_is_nothing_to_us(ovs: PrivateSwitch, daemon: Process) -> None:
    before = daemon.status()["sync"]
    for number in range(30):
        ovs.ofctl("add-flow", "br-int", f"table=0,priority=7,in_port={number + 100},actions=drop")
    ovs.ofctl("add-flow", "br-int", "table=50,priority=7,actions=drop")
    ovs.ofctl("del-flows", "br-int", "table=0,in_port=100")
    after = daemon.status()["sync"]
    assert (after["steps"], after["repairs"]) == (before["steps"], before["repairs"])


def test_a_flow_that_comes_before_ours_is_warned_of_while_it_is_there(ovs: PrivateSwitch, daemon: Process) -> None:
    ovs.ofctl("add-flow", "br-int", "table=0,priority=9999,in_port=1,actions=NORMAL")
    until(lambda: daemon.status()["sync"]["warnings"], "a warning")
    assert "comes before ovsfw's" in daemon.ask("status")
    ovs.ofctl("del-flows", "br-int", "table=0,in_port=1")
    until(lambda: not daemon.status()["sync"]["warnings"], "no warning")


def test_more_than_the_switch_can_tell_is_read(ovs: PrivateSwitch, daemon: Process) -> None:
    """A monitor is paused when too much has happened; in the end all is right all the same."""
    right, before = ours(ovs), daemon.status()["sync"]["dumped"]
    flows = "".join(f"table=139,priority={number},tcp,tp_dst=1,actions=drop\n" for number in range(1, 30001))
    ovs.ofctl("--bundle", "add-flows", "br-int", "-", stdin=flows)
    until(lambda: daemon.status()["sync"]["dumped"] > before, "it was paused")
    until(lambda: len(ours(ovs)) == len(right) and "table=139" not in "".join(ours(ovs)), "all is gone")
    found = ovs.ofctl("dump-aggregate", "br-int", "table=139")
    assert "flow_count=0" in found


def test_what_a_monitor_does_not_tell_the_audit_finds(ovs: PrivateSwitch, daemon: Process) -> None:
    """Flags of a flow are in no event."""
    actions = ovs.ofctl("--no-names", "--no-stats", "dump-flows", "br-int", "table=139")
    assert actions.strip() == ""
    victim = next(line for line in ours(ovs) if "table=105," in line and "priority=0 " in line)
    ovs.ofctl(
        "add-flow", "br-int", victim.replace(" actions", ",send_flow_rem actions").replace(" priority", "priority")
    )
    assert "send_flow_rem" in "".join(ours(ovs))
    assert "1 flows" in daemon.ask("reconcile") or "~1 flows" in daemon.log
    assert "send_flow_rem" not in "".join(ours(ovs))
    assert is_verified(ovs, daemon.log_file.parent / "policy.yaml")
