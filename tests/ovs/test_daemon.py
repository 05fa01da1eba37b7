"""The daemon as a user runs it: policy and ports come and go, it is asked, stopped and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ovsfw.lab.vswitch import PrivateSwitch
from tests.running import PATIENCE, running, until

pytestmark = pytest.mark.ovs

GROUPS = """
security_groups:
  - id: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80}
      - {direction: egress}
"""
PORT = (
    '  - {{id: vm{n}, mac_address: "52:54:00:00:00:0{n}", fixed_ips: [{{ip_address: 10.9.0.{n}}}], '
    "security_groups: [web]}}\n"
)


def document(*numbers: int) -> str:
    return GROUPS + "ports:\n" + "".join(PORT.format(n=number) for number in numbers)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(document(1, 2))
    return path


def plug(ovs: PrivateSwitch, number: int, *settings: str) -> None:
    ovs.vsctl(
        *("add-port", "br-int", f"tap{number}", *settings, "--", "set", "interface", f"tap{number}", "type=internal"),
        *(f"ofport_request={number}", f"external_ids:iface-id=vm{number}"),
    )


def ours(ovs: PrivateSwitch) -> list[str]:
    lines = ovs.ofctl("--no-names", "--no-stats", "dump-flows", "br-int").splitlines()
    return sorted(line.strip() for line in lines if "cookie=0xf5f" in line)


def ovsfw(ovs: PrivateSwitch, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ovsfw", *words, "--db", ovs.db]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def is_verified(ovs: PrivateSwitch, policy: Path) -> bool:
    return ovsfw(ovs, "verify", "--policy", str(policy)).returncode == 0


@pytest.mark.usefixtures("bridge")
def test_what_is_plugged_tagged_and_unplugged_is_one_line_of_the_log(ovs: PrivateSwitch, policy: Path) -> None:
    with running(ovs, policy) as daemon:
        daemon.logged(r"\+\d+ -0 ~0 flows.* in \d+ ms \(start\)$")
        daemon.logged(r"in sync: \d+ flows, 0 ports")
        plug(ovs, 1)
        daemon.logged(r"\+\d+ -0 ~\d+ flows, 1 ports taken out of flooding in \d+ ms \(port vm1 plugged\)$")
        ovs.vsctl("set", "port", "tap1", "tag=7")
        daemon.logged(r"flows in \d+ ms \(port vm1 re-tagged\)$")
        ovs.vsctl("set", "interface", "tap1", "external_ids:iface-id=vm2")
        daemon.logged(r"\(port vm2 plugged, port vm1 unplugged\)$")
        ovs.vsctl("set", "interface", "tap1", "ofport_request=9")
        daemon.logged(r"\(port vm2 renumbered\)$")
        assert is_verified(ovs, policy)
        ovs.vsctl("del-port", "tap1")
        daemon.logged(r"\(port vm2 unplugged\)$")
        assert is_verified(ovs, policy)
        assert "Traceback" not in daemon.log


@pytest.mark.usefixtures("bridge")
def test_the_policy_is_read_again_and_a_bad_one_is_refused(ovs: PrivateSwitch, policy: Path) -> None:
    plug(ovs, 1)
    with running(ovs, policy) as daemon:
        first = daemon.in_sync()
        flows = ours(ovs)
        policy.write_text(document(1, 2).replace("tcp", "tpc").replace("10.9.0.2", "10.9.0.x"))
        daemon.logged(r"policy refused: .*policy.yaml:5:")
        daemon.logged(r"policy refused: .*policy.yaml:9:.*10.9.0.x")
        daemon.logged(rf"policy refused: the one before \({first['policy']['generation']}\) stays")
        asked = ovsfw(ovs, "status")
        assert asked.returncode == 2
        assert "problem for" in asked.stdout
        assert ours(ovs) == flows
        policy.write_text(document(1, 2).replace("80", "81"))
        daemon.logged(r"\+\d+ -\d+ ~\d+ flows in \d+ ms \(policy [0-9a-f]{12}\)$")
        daemon.in_sync()
        assert is_verified(ovs, policy)
        assert ovsfw(ovs, "status").returncode == 0


@pytest.mark.usefixtures("bridge")
def test_a_policy_whose_assertion_does_not_hold_is_refused_by_the_daemon_and_by_apply(
    ovs: PrivateSwitch, policy: Path
) -> None:
    holds = "assertions:\n  - {id: telnet, from: outside, to: ports, denied: tcp/23}\n"
    policy.write_text(document(1, 2) + holds)
    plug(ovs, 1)
    with running(ovs, policy) as daemon:
        first = daemon.in_sync()
        flows = ours(ovs)
        policy.write_text(
            document(1, 2).replace("port_range_max: 80", "port_range_max: 90").replace("80", "20") + holds
        )
        daemon.logged(r"policy refused: .*'telnet' does not hold: tcp .*:23 \(outside to vm1\) is allowed")
        daemon.logged(rf"policy refused: the one before \({first['policy']['generation']}\) stays")
        asked = ovsfw(ovs, "status")
        assert (asked.returncode, "'telnet' does not hold" in asked.stdout) == (2, True), asked
        assert ours(ovs) == flows
    applied = ovsfw(ovs, "apply", "--policy", str(policy))
    assert applied.returncode == 1
    assert "'telnet' does not hold" in applied.stderr
    assert ours(ovs) == flows
    ignored = ovsfw(ovs, "apply", "--policy", str(policy), "--no-assertions")
    assert ignored.returncode == 0
    assert "IGNORED because of --no-assertions" in ignored.stderr
    assert ours(ovs) != flows


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ports: 7", "ports: 7 is not a list"),
        (document(1) + "assertions: [{id: http, from: outside, to: vm1, denied: tcp/80}]", "'http' does not hold"),
    ],
    ids=["nonsense", "an assertion does not hold"],
)
def test_while_the_policy_is_not_known_nothing_is_touched(
    ovs: PrivateSwitch, policy: Path, wrong: str, said: str
) -> None:
    plug(ovs, 1)
    with running(ovs, policy) as daemon:
        daemon.in_sync()
    flows = ours(ovs)
    right = policy.read_text()
    policy.write_text(wrong)
    with running(ovs, policy) as daemon:
        daemon.logged(f"policy refused: .*{said}")
        until(lambda: daemon.status()["sync"]["state"].startswith("waiting"), "it waits")
        assert daemon.ask("reconcile").startswith("the policy is not known yet")
        assert ours(ovs) == flows
        policy.write_text(right)
        daemon.in_sync()
        assert daemon.status()["sync"]["flow_mods"] == 0, "a restart with nothing changed sends nothing"


@pytest.mark.usefixtures("bridge")
def test_a_daemon_that_had_to_wait_still_says_why_it_changed_something(ovs: PrivateSwitch, policy: Path) -> None:
    right = policy.read_text()
    policy.write_text("ports: 7")
    with running(ovs, policy) as daemon:
        daemon.logged("policy refused")
        policy.write_text(right)
        daemon.in_sync()
        daemon.logged(r"flows.* in \d+ ms \(start")


@pytest.mark.usefixtures("bridge")
def test_it_is_asked_as_any_daemon_of_open_vswitch(ovs: PrivateSwitch, policy: Path) -> None:
    with running(ovs, policy, "--log-level", "warn") as daemon:
        daemon.in_sync()
        assert daemon.ask("version").startswith("ovsfw 0.")
        assert "vlog/set" in daemon.ask("list-commands")
        assert "br-int: in sync for" in daemon.ask("status")
        assert daemon.ask("vlog/list") == "warn\n"
        daemon.ask("vlog/set", "dbg")
        assert daemon.ask("reconcile") == "0 changes\n"
        assert len(daemon.ask("dump").splitlines()) == daemon.status()["flows"]["total"] == len(ours(ovs))
        before = ours(ovs)
        ovs.ofctl("del-flows", "br-int", "table=105")
        daemon.ask("reconcile")  # unless the flow monitor was faster
        assert ours(ovs) == before
        daemon.ask("exit")
        assert daemon.process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("bridge")
def test_status_as_json_and_without_a_daemon(ovs: PrivateSwitch, policy: Path) -> None:
    plug(ovs, 1)
    plug(ovs, 7)
    with running(ovs, policy) as daemon:
        daemon.in_sync()
        found = json.loads(ovsfw(ovs, "status", "--format", "json").stdout)
        assert found["ports"] == {"plugged": 2, "filtered": 1, "unfiltered": [], "unknown": ["vm7"], "uplinks": 1}
        assert found["flows"]["total"] == len(ours(ovs)) == sum(found["flows"]["tables"].values())
        text = ovsfw(ovs, "status").stdout
        assert "plugged but not in the policy, so pass nothing: vm7" in text
        second = ovsfw(ovs, "run", "--policy", str(policy))
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert f"ovsfw is running already (pid {daemon.process.pid}" in second.stderr
        assert daemon.end() == 0
    assert not list(ovs.rundir.glob("ovsfw.*"))
    away = ovsfw(ovs, "status")
    assert (away.returncode, away.stdout, away.stderr.count("\n")) == (1, "", 1)
    assert "no daemon runs in" in away.stderr


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_flows_stay_and_a_restart_sends_nothing(ovs: PrivateSwitch, policy: Path, how: signal.Signals) -> None:
    plug(ovs, 1)
    with running(ovs, policy) as daemon:
        flows = daemon.in_sync()["flows"]["total"]
        daemon.end(how)
    assert len(ours(ovs)) == flows
    with running(ovs, policy) as daemon:
        found = daemon.in_sync()["sync"]
        assert (found["changes"], found["flow_mods"]) == (0, 0)


@pytest.mark.usefixtures("bridge")
def test_a_hangup_reads_everything_again(ovs: PrivateSwitch, policy: Path) -> None:
    with running(ovs, policy) as daemon:
        daemon.in_sync()
        before = daemon.status()["sync"]["dumped"]
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.status()["sync"]["dumped"] > before, "the switch was not read")
        daemon.in_sync()
        assert is_verified(ovs, policy)
