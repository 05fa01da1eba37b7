"""The commands on a real switch, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ovsfw.cli.compile import assume
from ovsfw.compiler import compile_policy
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.lab.shapes import shape
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.text import parse_flow
from ovsfw.policy.document import parse
from tests.running import PATIENCE

pytestmark = pytest.mark.ovs

POLICY = """
security_groups:
  - id: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 81}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: web}
      - {direction: egress}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [web]}
"""
FOREIGN = ("table=0,priority=5,in_port=77,actions=drop", "table=50,priority=9,tcp,actions=NORMAL")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def run(ovs: PrivateSwitch, policy: Path) -> Run:
    """`run("verify")` is `ovsfw verify --policy policy.yaml` on the test's switch."""

    def command(
        name: str, *args: str, prefix: tuple[str, ...] = (), **options: str
    ) -> subprocess.CompletedProcess[str]:
        with_policy = () if name in ("clear", "lab") else ("--policy", str(policy))
        return subprocess.run(
            [*prefix, sys.executable, "-m", "ovsfw", name, *with_policy, *args],
            env={**os.environ, "OVS_RUNDIR": str(ovs.rundir), **options},
            capture_output=True,
            text=True,
            check=False,
        )

    return command


@pytest.fixture
def plugged(ovs: PrivateSwitch, bridge: str) -> str:
    """Two endpoints, one uplink, and the flows of somebody else."""
    for ofport, name in enumerate(("vm1", "vm2"), 1):
        ovs.vsctl(
            *("add-port", bridge, f"tap{ofport}", "--", "set", "interface", f"tap{ofport}", "type=internal"),
            *(f"ofport_request={ofport}", f"external_ids:iface-id={name}"),
        )
    for text in FOREIGN:
        ovs.ofctl("add-flow", bridge, text)
    return bridge


def installed(ovs: PrivateSwitch, bridge: str) -> set[str]:
    lines = ovs.ofctl("--no-names", "--no-stats", "dump-flows", bridge).splitlines()
    return {line.strip() for line in lines if "actions=" in line}


def is_one_clear_line(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Exit 1, one line on stderr that says what to do, and no traceback."""
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return True


@pytest.mark.usefixtures("plugged")
def test_apply_twice_changes_nothing_the_second_time(run: Run) -> None:
    first, second = run("apply"), run("apply")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.startswith("br-int changed: +")
    assert "2 ports taken out of flooding" in first.stdout
    assert second.stdout == "br-int: 0 changes\n"
    assert (first.stderr, second.stderr) == ("", "")


def test_drift_is_shown_exactly_and_repaired_exactly(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    run("apply")
    right = installed(ovs, plugged)
    assert run("verify").returncode == 0
    accept = next(line for line in right if "tp_dst=0x50/0xfffe" in line)
    table = accept.split("table=")[1].split(",")[0]
    ovs.ofctl(
        "--strict",
        "del-flows",
        plugged,
        f"table={table},priority=400," + accept.split("priority=400,")[1].split(" ")[0],
    )
    ovs.ofctl("mod-flows", plugged, f"table={table},priority=0,actions=NORMAL", "--strict")
    ovs.ofctl("add-flow", plugged, "table=105,priority=999,actions=NORMAL")
    ovs.ofctl("add-flow", plugged, "cookie=0x0f5f010100000009,table=0,priority=1030,in_port=9,actions=NORMAL")
    ovs.vsctl("set", "bridge", plugged, "other_config:unrelated=1")
    drift = run("verify")
    assert drift.returncode == 2
    shown = [line for line in drift.stdout.splitlines() if line[0] in "+-"]
    assert sorted(line[0] for line in shown) == ["+", "+", "-", "-", "-"], drift.stdout
    assert any("priority=999" in line and line[0] == "-" for line in shown)
    assert any("in_port=9" in line and line[0] == "-" for line in shown)
    assert run("diff").returncode == 2
    repair = run("apply")
    assert "+1 -2 ~1 flows" in repair.stdout
    assert installed(ovs, plugged) == right
    assert {parse_flow(line) for line in right} >= {parse_flow(text) for text in FOREIGN}
    assert run("verify").returncode == 0


def test_the_flows_of_others_stay(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    before = installed(ovs, plugged)
    run("apply")
    assert before < installed(ovs, plugged)
    run("clear")
    assert installed(ovs, plugged) == before


def test_clear_gives_ports_back(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    run("apply")
    shown = ovs.run("ovs-ofctl", "show", plugged)
    assert shown.count("NO_FLOOD") == 2
    assert "frags=nx-match" in shown
    done = run("clear")
    assert "2 ports put back into flooding" in done.stdout
    shown = ovs.run("ovs-ofctl", "show", plugged)
    assert "NO_FLOOD" not in shown
    assert "frags=normal" in shown
    assert run("clear").stdout == "br-int: 0 changes\n"


def test_lost_settings_are_drift(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    run("apply")
    ovs.run("ovs-ofctl", "mod-port", plugged, "tap1", "flood")
    ovs.ofctl("set-frags", plugged, "normal")
    drift = run("verify")
    assert drift.returncode == 2
    assert "+port 1: no-flood\n+ports of fragments shown\n" in drift.stdout
    run("apply")
    assert run("verify").returncode == 0


@pytest.mark.usefixtures("plugged")
def test_diff_changes_nothing(ovs: PrivateSwitch, run: Run) -> None:
    before = installed(ovs, "br-int")
    assert run("diff").returncode == 2
    assert installed(ovs, "br-int") == before
    run("apply")
    done = run("diff")
    assert (done.returncode, done.stdout) == (0, "br-int: 0 changes\n")


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("command", ["diff", "apply", "verify", "clear", "compile", "check"])
def test_everything_prints_json(run: Run, command: str) -> None:
    done = run(command, "--format", "json")
    assert isinstance(json.loads(done.stdout), dict | list)


def test_what_compile_prints_loads_as_it_is(ovs: PrivateSwitch, bridge: str, run: Run) -> None:
    text = run("compile").stdout
    ovs.ofctl("add-flows", bridge, "-", stdin=text)
    policy = parse(POLICY, "test")
    wanted = compile_policy(policy, assume(policy)).flows.flat
    loaded = {parse_flow(line) for line in installed(ovs, bridge)}
    assert {flow.key: flow.value for flow in loaded} == wanted
    by_hand = {parse_flow(line) for line in text.splitlines() if not line.startswith("#")}
    assert {flow.key: flow.value for flow in by_hand} == wanted


def test_a_flow_of_others_that_comes_first_is_no_silent_hole(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    ovs.ofctl("add-flow", plugged, "table=0,priority=40000,in_port=2,actions=NORMAL")
    applied = run("apply")
    assert applied.returncode == 0
    assert "priority=40000" in applied.stderr
    checked = run("verify")
    assert checked.returncode == 2
    assert "comes before ovsfw's" in checked.stderr


def test_a_port_that_the_policy_does_not_know_is_named(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    ovs.vsctl(
        "add-port", plugged, "tap3", "--", "set", "interface", "tap3", "type=internal", "external_ids:iface-id=stray"
    )
    done = run("apply")
    assert "stray" in done.stderr
    assert "in_port=" in run("compile").stdout


def test_a_bridge_that_would_open_on_restart_is_warned_of(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    ovs.vsctl("set", "bridge", plugged, "fail_mode=standalone")
    assert "fail_mode" in run("apply").stderr


def test_a_refused_policy_changes_nothing(ovs: PrivateSwitch, plugged: str, run: Run, policy: Path) -> None:
    run("apply")
    before = installed(ovs, plugged)
    policy.write_text(POLICY.replace("tcp", "tpc", 1).replace("52:54:00:00:00:02", "52:54"))
    done = run("apply")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) >= 2
    assert all(f"{policy}:" in line for line in done.stderr.splitlines())
    assert installed(ovs, plugged) == before


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("command", ["diff", "apply", "verify"])
def test_a_policy_that_is_not_there_is_an_error_and_no_difference(run: Run, policy: Path, command: str) -> None:
    policy.unlink()
    assert is_one_clear_line(run(command), f"ovsfw: {policy}: cannot be read: No such file or directory")


def test_json_says_what_text_says(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    would = json.loads(run("diff", "--format", "json").stdout)
    assert (would["delete"], would["change"]) == ([], [])
    assert would["no_flood"] == {"set": [1, 2], "clear": []}
    run("apply")
    wanted = {parse_flow(line) for line in installed(ovs, plugged)} - {parse_flow(text) for text in FOREIGN}
    assert {parse_flow(line, TABLE_NAMES) for line in would["add"]} == wanted
    nothing = json.loads(run("verify", "--format", "json").stdout)
    assert not any((nothing["add"], nothing["delete"], nothing["change"], nothing["warnings"]))


def test_ctrl_c_is_one_word(policy: Path, tmp_path: Path) -> None:
    """A database that takes connections and never answers, so that the command waits."""
    with socket.socket(socket.AF_UNIX) as database:
        database.bind(str(tmp_path / "db.sock"))
        database.listen()
        database.settimeout(60)
        command = [sys.executable, "-m", "ovsfw", "apply", "--policy", str(policy), "--db", f"unix:{tmp_path}/db.sock"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            # The first connection only asks whether anybody is there.
            database.accept()[0].close()
            with database.accept()[0]:
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (130, "", "ovsfw: interrupted\n")


# --- Something is away: one clear line that says what to do -----------------------------------------------------------


def test_no_open_vswitch(run: Run, tmp_path: Path) -> None:
    assert is_one_clear_line(run("apply", OVS_RUNDIR=str(tmp_path)), "not running", "systemctl start")


def test_no_bridge(run: Run) -> None:
    assert is_one_clear_line(run("apply", "--bridge", "br-nope"), "br-nope", "add-br")


@pytest.mark.usefixtures("bridge")
def test_no_permission(run: Run, ovs: PrivateSwitch, policy: Path) -> None:
    # The directories may be entered, so that it is the socket that refuses.
    for directory in (ovs.rundir, *ovs.rundir.parents, *policy.parents):
        if directory.stat().st_mode & 0o777 == 0o700 and directory != Path("/root"):
            directory.chmod(0o755)
    done = run("apply", prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    if "No module named" in done.stderr or "Permission denied:" in done.stderr:
        pytest.fail(f"the interpreter is not readable for an ordinary user: {done.stderr}")
    assert is_one_clear_line(done, "permission denied", "root")


@pytest.mark.parametrize("left", ["OpenFlow10,OpenFlow13", "OpenFlow14"])
def test_an_openflow_version_is_not_enabled(ovs: PrivateSwitch, plugged: str, run: Run, left: str) -> None:
    ovs.vsctl("set", "bridge", plugged, f"protocols={left}")
    missing = "OpenFlow10" if left == "OpenFlow14" else "OpenFlow14"
    assert is_one_clear_line(run("apply"), missing, "protocols")


def test_open_vswitch_is_too_old(ovs: PrivateSwitch, plugged: str, run: Run) -> None:
    ovs.vsctl("set", "Open_vSwitch", ".", "ovs_version=2.9.8")
    try:
        assert is_one_clear_line(run("apply"), "2.9.8", "2.17")
    finally:
        ovs.vsctl("set", "Open_vSwitch", ".", "ovs_version=3.1.0")
    assert plugged


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ("| head -1 | wc -l", ""),
        (">&-", ""),
        ("2>&- >&-", ""),
        (">/dev/full", "ovsfw: [Errno 28] No space left on device\n"),
    ],
)
@pytest.mark.parametrize("options", ["", "--stats", "--format json"])
def test_output_that_nobody_takes_is_no_traceback(tmp_path: Path, into: str, said: str, options: str) -> None:
    """The policy is one whose flows do not fit into a pipe."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps(shape("small")))
    command = f"{sys.executable} -m ovsfw compile --policy {path} {options} {into}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602 - the shell is the point
    assert done.stderr == said
