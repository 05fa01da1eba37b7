"""What others get to see of the daemon: systemd, Prometheus; and with how few privileges it works."""

from __future__ import annotations

import configparser
import json
import os
import re
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.test_daemon import document, is_verified, ours, plug
from tests.running import PATIENCE, running, until
from tests.test_house import ROOT

pytestmark = [pytest.mark.ovs, pytest.mark.usefixtures("bridge")]
NOBODY = 65534


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(document(1, 2))
    return path


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that a service tells systemd about itself by."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        yield listener


def hear(systemd: socket.socket, pattern: str) -> list[str]:
    heard: list[str] = []
    while not heard or not re.fullmatch(pattern, heard[-1]):
        heard.append(systemd.recv(4096).decode())
    return heard


def test_systemd_is_told(ovs: PrivateSwitch, policy: Path, systemd: socket.socket) -> None:
    right = policy.read_text()
    policy.write_text("ports: 7")
    with running(ovs, policy) as daemon:
        waiting = hear(systemd, "STATUS=waiting for a policy: .*")
        policy.write_text(right)
        ready = hear(systemd, "READY=1")
        assert "READY=1" not in waiting
        assert "WATCHDOG=1" in [*waiting, *ready]
        hear(systemd, "STATUS=in sync")
        assert ours(ovs)
        policy.write_text("ports: 7")
        hear(systemd, "STATUS=in sync: .*policy.yaml.*")
        daemon.end()
        hear(systemd, "STOPPING=1")


def scrape(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def value(text: str, name: str) -> float:
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_metrics_are_what_dashboard_and_alerts_use(ovs: PrivateSwitch, policy: Path) -> None:
    plug(ovs, 1)
    with running(ovs, policy, "--metrics", "127.0.0.1:0") as daemon:
        daemon.in_sync()
        port = int(daemon.logged("metrics: http://127.0.0.1:")[0].split(":")[-1].split("/")[0])
        text = scrape(port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape(port, "/")
        assert value(text, "ovsfw_in_sync") == value(text, "ovsfw_healthy") == value(text, "ovsfw_changes_total") == 1
        assert value(text, 'ovsfw_endpoints{state="filtered"}') == 1
        assert value(text, "ovsfw_step_seconds_count") == 1
        assert value(text, 'ovsfw_connections{network="4096"}') == 0
        assert value(text, 'ovsfw_dropped_packets_total{reason="spoof"}') >= 0
        flows = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("ovsfw_flows{"))
        assert flows == len(ours(ovs))
        existing = {re.split(r"[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}
        used = (ROOT / "share/grafana-dashboard.json").read_text() + (ROOT / "share/alerts.yml").read_text()
        named = set(re.findall(r"\bovsfw_\w+", used))
        assert len(named) > 10
        assert named <= existing
        assert daemon.in_sync()


def test_metrics_at_a_bad_address_are_refused(ovs: PrivateSwitch, policy: Path) -> None:
    with running(ovs, policy, "--metrics", "here") as daemon:
        assert daemon.process.wait(PATIENCE) == 1
        assert "--metrics here: give ADDR:PORT" in daemon.log
        assert "Traceback" not in daemon.log


def test_an_address_that_is_taken_leaves_the_sync_alone(ovs: PrivateSwitch, policy: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with running(ovs, policy, "--metrics", f"127.0.0.1:{taken.getsockname()[1]}") as daemon:
            daemon.logged("metrics: .*address already in use")
            daemon.in_sync()


def test_dashboard_and_alerts_can_be_read() -> None:
    dashboard = json.loads((ROOT / "share/grafana-dashboard.json").read_text())
    assert all(panel["targets"] for panel in dashboard["panels"])
    rules = yaml.safe_load((ROOT / "share/alerts.yml").read_text())["groups"][0]["rules"]
    assert all({"alert", "expr", "labels", "annotations"} <= rule.keys() for rule in rules)


def test_the_unit_starts_what_there_is() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "share/ovsfw.service")
    words = unit["Service"]["ExecStart"].split()
    assert words[:4] == ["/usr/bin/ovsfw", "run", "--policy", "${OVSFW_POLICY}"]
    assert unit["Service"]["Type"] == "notify"


def test_it_needs_no_privilege_but_the_sockets(ovs: PrivateSwitch, policy: Path, tmp_path: Path) -> None:
    """An unprivileged user without any capability, in the group that may write to Open vSwitch's sockets."""
    plug(ovs, 1)
    group = 54321
    rundir = tmp_path / "run"
    rundir.mkdir()
    os.chown(rundir, NOBODY, NOBODY)
    for path in (*ovs.rundir.glob("*.mgmt"), ovs.rundir / "db.sock", *ovs.rundir.glob("ovs-vswitchd.*.ctl")):
        os.chown(path, 0, group)
        path.chmod(0o660)
    roots = (Path("/"), Path("/tmp"))
    opened = [each for path in (ovs.rundir, policy) for each in (path, *path.parents) if each not in roots]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}")
    bare = ("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
    try:
        for path in opened:
            path.chmod(before[path] | 0o055)
        with running(ovs, policy, "--rundir", str(rundir), command=(*user, f"--groups={group}", *bare)) as daemon:
            until(lambda: "in sync: " in daemon.log, daemon.log)
            capabilities = Path(f"/proc/{daemon.process.pid}/status").read_text()
            assert re.search(r"CapEff:\s+0+$", capabilities, re.MULTILINE)
            ovs.ofctl("del-flows", "br-int", "table=105")
            daemon.logged("repaired: ")
            assert is_verified(ovs, policy)
        with running(ovs, policy, "--rundir", str(rundir), command=(*user, "--clear-groups", *bare)) as daemon:
            daemon.logged("not in sync: .*permission denied; run this as")
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def test_the_journal_gets_levels(ovs: PrivateSwitch, policy: Path) -> None:
    environment = {**os.environ, "JOURNAL_STREAM": "1:1", "OVS_RUNDIR": str(ovs.rundir)}
    words = ["ovsfw", "run", "--policy", str(policy), "--rundir", "/nonexistent"]
    done = subprocess.run(
        ["python", "-m", *words], env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "/nonexistent/ovsfw.pid: cannot make the pid file" in done.stderr
