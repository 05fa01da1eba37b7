"""`ovsfw db`, as a user types it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ovsfw.cli import main
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import transact
from ovsfw.store.server import Server

pytestmark = pytest.mark.ovs
POLICY = """
security_groups:
  - {id: web, rules: [{direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80}]}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
"""


class Commands:
    def __init__(self, capsys: pytest.CaptureFixture[str], store: str) -> None:
        self.capsys, self.store = capsys, store

    def __call__(self, *words: str, status: int = 0) -> str:
        """What it prints; on an error what it complains of."""
        assert main(["db", *words, "--store", self.store]) == status, self.capsys.readouterr()
        said = self.capsys.readouterr()
        return said.err if status == 1 else said.out

    def document(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = json.loads(self("export", "--format", "json"))
        return found


@pytest.fixture
def db(capsys: pytest.CaptureFixture[str], server: Server, tmp_path: Path) -> Commands:
    commands = Commands(capsys, server.address)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    commands("import", str(policy))
    return commands


def test_objects_come_change_and_go(db: Commands) -> None:
    assert "+1 -0 ~0 rows" in db(
        "port", "add", "vm2", "mac_address=52:54:00:00:00:02", "fixed_ips=10.9.0.2,10.9.0.3", "security_groups=web"
    )
    db("port", "set", "vm2", "security_groups=null", "allowed_address_pairs=[{ip_address: 10.8.0.0/24}]")
    pair = {"ip_address": "10.8.0.0/24", "mac_address": "52:54:00:00:00:02"}
    assert db.document()["ports"][1] == {
        "id": "vm2",
        "mac_address": "52:54:00:00:00:02",
        "fixed_ips": [{"ip_address": "10.9.0.2"}, {"ip_address": "10.9.0.3"}],
        "allowed_address_pairs": [pair],
    }
    db("address-group", "add", "office", "addresses=198.51.100.0/24,203.0.113.7")
    db("group", "add", "db", "stateful=false")
    db("rule", "add", "db", "id=r1", "direction=ingress", "remote_address_group_id=office")
    db("rule", "set", "r1", "protocol=udp", "port_range_min=53", "port_range_max=53")
    (group,) = [each for each in db.document()["security_groups"] if each["id"] == "db"]
    assert group["stateful"] is False
    assert "address group has the id" in db("address-group", "del", "office", status=1)
    assert "0 changes" in db("group", "set", "web", "name=null")
    db("rule", "del", "r1")
    db("group", "del", "db")
    db("address-group", "del", "office")
    db("port", "del", "vm2")
    assert len(db.document()["ports"]) == len(db.document()["security_groups"]) == 1


def test_tiers_networks_and_assertions_come_change_and_go(db: Commands) -> None:
    db("tier", "add", "low", "position=after", "rules=[{id: r1, direction: ingress, action: deny, protocol: udp}]")
    db("tier", "add", "top", "applies_to=web", "--place", "0")
    db("rule", "add", "top", "id=r2", "direction=ingress", "action=allow", "protocol=tcp")
    db("rule", "add", "top", "id=r3", "direction=egress", "action=deny", "--place", "0")
    db("rule", "set", "r2", "action=reject", "protocol=null", "--place", "99")
    db("network", "add", "net", "dhcp_servers=10.9.0.2,10.9.0.3", "connection_limit=5")
    db("network", "add", "", "routers=fe80::1")
    db("network", "set", "net", "connection_limit=null")
    db("assertion", "add", "closed", "from=any", "to=vm1", "denied=tcp/22,tcp/23")
    document = db.document()
    assert [(tier["id"], [rule["id"] for rule in tier["rules"]]) for tier in document["tiers"]] == [
        ("top", ["r3", "r2"]),
        ("low", ["r1"]),
    ]
    assert document["tiers"][0]["rules"][1] == {
        "id": "r2", "direction": "ingress", "ethertype": "IPv4", "action": "reject"
    }  # fmt: skip
    assert document["networks"] == [{"routers": ["fe80::1"]}, {"id": "net", "dhcp_servers": ["10.9.0.2", "10.9.0.3"]}]
    assert document["assertions"] == [{"id": "closed", "from": ["any"], "to": ["vm1"], "denied": ["tcp/22", "tcp/23"]}]
    db("tier", "set", "low", "--place", "0")
    assert [tier["id"] for tier in db.document()["tiers"]] == ["low", "top"]
    db("rule", "del", "r1", "r3")
    db("tier", "del", "low", "top")
    db("network", "del", "net", "")
    assert "does not hold" in db("assertion", "set", "closed", "denied=tcp/80", status=1)
    db("assertion", "del", "closed")
    document = db.document()
    assert document["tiers"] == document["networks"] == document["assertions"] == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("port add vm1 mac_address=52:54:00:00:00:09", "port vm1 is there already; change it with: ovsfw db port set"),
        ("port set vm9 name=x", "there is no port vm9"),
        ("port del vm1 vm9", "there is no port vm9"),
        ("port set vm1 security_groups=wbe", "ports[vm1].security_groups[0]: no security group has the id or name 'wb"),
        ("port set vm1 colour=red", "ports[vm1].colour: unknown key 'colour'"),
        ("port set vm1 name", "'name': use KEY=VALUE"),
        ("port set vm1 fixed_ips=[", "no list or mapping in YAML"),
        ("group del web", "no security group has the id or name 'web'"),
        ("rule add nope direction=ingress", "there is no group or tier nope"),
        ("tier set nope position=after", "there is no tier nope"),
        ("tier add top position=middle", "'middle' is not a position"),
        ("network del nope", "there is no network nope"),
        ("network add net connection_limit=0", "is not a number of connections"),
        ("assertion add a from=any to=vm1", "allowed or denied is required"),
        ("rule set nope direction=ingress", "there is no rule nope"),
        ("rule add web direction=up", "'up' is not a direction"),
        ("import /nonexistent", "cannot be read: No such file"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(db: Commands, words: str, complaint: str) -> None:
    before = db("export")
    assert complaint in db(*words.split(), status=1)
    assert db("export") == before


def test_a_change_that_breaks_an_assertion_is_refused(db: Commands, tmp_path: Path) -> None:
    policy = tmp_path / "asserted.yaml"
    policy.write_text(POLICY + "assertions:\n  - {id: closed, from: any, to: vm1, denied: [tcp/22]}\n")
    db("import", str(policy))
    assert db.document()["assertions"] == [{"id": "closed", "from": "any", "to": "vm1", "denied": ["tcp/22"]}]
    rule = ("rule", "add", "web", "direction=ingress", "protocol=tcp", "port_range_min=22", "port_range_max=22")
    assert "'closed' does not hold" in db(*rule, status=1)
    policy.write_text(db("export"))
    assert "0 changes" in db("import", str(policy))


def test_what_is_exported_can_be_imported(db: Commands, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(db("export"))
    assert "0 changes" in db("import", str(copy))
    assert "port vm1 on no host: web" in db("show")
    assert json.loads(db("show", "--format", "json"))["hosts"] == {}
    assert "schema 1.1.0: nothing to do" in db("convert")


async def report(db: Commands, **row: str) -> None:
    """As the host h1 does."""
    async with connected(Remote.parse(db.store)) as connection:
        delete = {"op": "delete", "table": "Host", "where": [["name", "==", "h1"]]}
        insert = {"op": "insert", "table": "Host", "row": {"name": "h1", "last_seen": int(time.time()), **row}}
        await transact(connection, [delete, insert])


def test_a_port_is_shown_with_its_host_and_whether_it_has_its_flows(db: Commands) -> None:
    asyncio.run(report(db, ports="vm1"))
    assert "port vm1 on h1, where its flows are not in yet: web" in db("show")
    asyncio.run(report(db, ports="vm1", ready="vm1"))
    assert "port vm1 on h1: web" in db("show")
    assert json.loads(db("show", "--format", "json"))["ready"] == ["vm1"]
    (host,) = json.loads(db("status", "--format", "json", status=2))["hosts"]  # 2: its generation is old
    assert (host["ports"], host["ready"]) == (["vm1"], ["vm1"])
    assert "is forgotten" in db("forget", "h1")
    assert "nothing to do" in db("forget", "h1")


def test_a_server_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = ["--directory", str(tmp_path / "store")]
    assert main(["db", "start", *where]) == 0
    try:
        assert main(["db", "start", *where]) == 0
        assert "runs in" in capsys.readouterr().out
        db = Commands(capsys, f"unix:{tmp_path}/store/db.sock")
        assert "was set up already" in db("init")
        assert "0 live hosts" in db("group", "add", "web", "--wait=hosts")
        assert main(["db", "stop", *where]) == 0
        assert main(["db", "start", *where]) == 0
        capsys.readouterr()
        assert "security groups        1" in db("show")
        assert json.loads(db("status", "--format", "json"))["generation"] == 1
    finally:
        assert main(["db", "stop", *where]) == 0
    assert main(["db", "stop", *where]) == 0
    assert "does not run" in capsys.readouterr().out
