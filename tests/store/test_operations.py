"""Every command of docs/operations.md about the policy database, run as it stands there.

Each machine is a network namespace with the address that the page gives it, a directory, and its own /var/lib.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsfw.lab import netns

pytestmark = pytest.mark.ovs
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
ALL = "tcp:10.0.0.1:6641,tcp:10.0.0.2:6641,tcp:10.0.0.3:6641"
OLD_SCHEMA = Path(__file__).with_name("ovsfw-1.0.0.ovsschema")

# A policy as the version before has written it.
OLD_ROW = json.dumps(
    [
        "OVSFW",
        {"op": "update", "table": "Global", "where": [], "row": {"generation": 1}},
        {"op": "insert", "table": "Security_Group", "row": {"id": "old", "document": '{"id": "old"}'}},
        {"op": "update", "table": "RBAC_Permission", "where": [], "row": {"update": "generation"}},
    ]
)


def commands(heading: str) -> list[str]:
    """The lines of code under a heading."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)^##", page, re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    blocks = re.findall(r"^```\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


class Machine:
    """A place to type commands in."""

    def __init__(self, directory: Path, space: str, number: int) -> None:
        self.directory = directory / f"machine{number}"
        self.space = space
        for name in ("var", "run", "bin"):
            (self.directory / name).mkdir(parents=True)
        ovsfw = self.directory / "bin" / "ovsfw"
        ovsfw.write_text(f'#!/bin/sh\nexec {sys.executable} -m ovsfw "$@"\n')
        ovsfw.chmod(0o755)
        path = f"{ovsfw.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OVS_RUNDIR": f"{self.directory}/run"}

    def words(self, command: str, hostname: str = "db1") -> list[str]:
        there = 'mount --bind "$0/var" /var/lib && hostname "$1" && exec sh -c "$2"'
        inside = ["ip", "netns", "exec", self.space, "unshare", "--mount", "--uts", "--propagation", "private"]
        return [*inside, "sh", "-c", there, str(self.directory), hostname, command]

    def __call__(self, command: str) -> str:
        done = subprocess.run(
            self.words(command), cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Three of them, 10.0.0.1 to 10.0.0.3."""
    prefix = f"ovsfw-ops{os.getpid()}."
    hub = f"{prefix}hub"
    try:
        netns.batch([f"netns add {hub}"])
        netns.inside(hub, "ip", "link", "add", "name", "hub", "up", "type", "bridge")
        found = []
        for number in (1, 2, 3):
            space, port = f"{prefix}{number}", f"port{number}"
            netns.batch([f"netns add {space}"])
            netns.batch([f"link add name {port} type veth peer name eth0 netns {space}"], hub)
            netns.inside(space, "ip", "link", "set", "eth0", "up")
            netns.inside(hub, "ip", "link", "set", port, "up", "master", "hub")
            netns.inside(space, "ip", "link", "set", "lo", "up")
            netns.inside(space, "ip", "address", "add", f"10.0.0.{number}/24", "dev", "eth0")
            found.append(Machine(tmp_path, space, number))
        yield found
    finally:
        netns.remove(netns.names(prefix))


def until(machine: Machine, command: str, said: str) -> None:
    """Try until a command says something."""
    deadline = time.monotonic() + PATIENCE
    while said not in (told := machine(f"{command} || true")):
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def test_the_page_has_no_other_commands() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("\n## The policy database\n")[2].partition("\n## ")[0]
    tested = {"One server, or three", "Backup", "Upgrade", "Rolling restart", "TLS"}
    assert set(re.findall(r"^### (.*)$", section, re.MULTILINE)) == tested


def test_three_servers_and_a_rolling_restart(machines: list[Machine]) -> None:
    """While each is away, changes go on, and none is lost."""
    for machine, command in zip(machines, commands("One server, or three"), strict=True):
        assert "the policy database is at" in machine(command)
    stop, start, look = commands("Rolling restart")
    for number, machine in enumerate(machines):
        machine(stop)
        machines[number - 1](f"ovsfw db group add group{number} --store {ALL}")
        machine(start)
        until(machine, look, "Status: cluster member")
        until(machine, "ovsdb-client dump unix:/var/lib/ovsfw/db.sock OVSFW Security_Group id", f"group{number}")
        assert len(re.findall(r"^    \w+ \(\w+ at tcp:10\.0\.0\.", machine(look), re.MULTILINE)) == 3
    groups = json.loads(machines[0](f"ovsfw db export --format json --store {ALL}"))["security_groups"]
    assert [group["id"] for group in groups] == ["group0", "group1", "group2"]


def test_a_backup_brings_back_what_was(machines: list[Machine]) -> None:
    machine = machines[0]
    machine("ovsfw db start")
    machine("ovsfw db group add kept")
    backup, export, restore, trust = commands("Backup")
    machine(backup)
    before = machine(export)
    machine("ovsfw db group add later && ovsfw db group del kept")
    machine(restore)
    assert machine(export) == before
    assert "ovsfw db init" not in machine("ovsfw db status")
    assert "every host takes the policy" in machine(trust)
    assert machine(export) == before


def test_an_upgrade_with_and_without_the_server(machines: list[Machine]) -> None:
    online, *offline = commands("Upgrade")
    for machine, upgrade in zip(machines, ([online], offline), strict=False):
        machine("mkdir /var/lib/ovsfw")
        machine(f"ovsdb-tool create /var/lib/ovsfw/ovsfw.db {OLD_SCHEMA}")
        machine(
            "ovsfw db start && ovsfw db init && ovsdb-client transact unix:/var/lib/ovsfw/db.sock '" + OLD_ROW + "'"
        )
        for command in upgrade:
            machine(command)
        version = json.loads(Path(machine("ovsfw db schema").strip()).read_text())["version"]
        assert machine("ovsdb-client get-schema-version unix:/var/lib/ovsfw/db.sock OVSFW").strip() == version
        assert "old" in machine("ovsfw db export")
        assert "ready" in machine("ovsdb-client dump unix:/var/lib/ovsfw/db.sock OVSFW RBAC_Permission update")


def test_hosts_and_operators_with_certificates(machines: list[Machine]) -> None:
    server, host = machines[:2]
    pki, start, run = commands("TLS")
    server(pki)
    server("cp pki/db1.* pki/ca.crt .")
    server(f"cp pki/compute-1.* pki/ca.crt {host.directory}")
    server(start)
    tls = "--private-key db1.key --certificate db1.crt --ca-cert ca.crt"
    server(f"echo 'ports: []' > p.yaml && ovsfw db import p.yaml --store ssl:10.0.0.1:6642 {tls}")
    daemon = subprocess.Popen(host.words(run, "compute-1"), cwd=host.directory, env=host.environment)
    try:
        until(server, "ovsfw db status", "compute-1")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
