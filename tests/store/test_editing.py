"""Changes to a real policy database: whole or not at all, judged as a file is, and none lost between two writers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ovsfw.errors import PolicyError, StoreAwayError, StoreError
from ovsfw.policy.document import read_values
from ovsfw.policy.writing import Document
from ovsfw.store import setup
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import edit, read, select, transact
from ovsfw.store.server import Server

pytestmark = pytest.mark.ovs

POLICY: Document = {
    "security_groups": [
        {
            "id": "web",
            "rules": [
                {"id": "http", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 80,
                 "port_range_max": 80},
                {"id": "mutual", "direction": "egress", "ethertype": "IPv6", "remote_group_id": "web"},
            ],
        },
        {"id": "empty", "stateful": False},
    ],
    "address_groups": [{"id": "office", "addresses": ["192.0.2.0/24"]}],
    "ports": [
        {"id": "vm1", "mac_address": "52:54:00:00:00:01", "fixed_ips": [{"ip_address": "10.0.0.1"}],
         "security_groups": ["web"]},
        {"id": "vm2", "mac_address": "52:54:00:00:00:02"},
    ],
}  # fmt: skip


def put(remote: Remote, document: Document) -> int:
    return asyncio.run(edit(remote, lambda _: document)).generation


def port(number: int) -> Document:
    return {"id": f"vm{number}", "mac_address": f"52:54:00:00:01:{number:02x}"}


def test_what_is_put_in_comes_out(remote: Remote) -> None:
    generation = put(remote, POLICY)
    found = asyncio.run(read(remote))
    assert read_values(found.document, "t") == read_values(POLICY, "t")
    assert found.generation == generation > 0
    assert put(remote, POLICY) == generation, "nothing changed, so it is the same generation"
    assert put(remote, {}) == generation + 1
    assert asyncio.run(read(remote)).rows == {}


def test_a_wrong_policy_changes_nothing(remote: Remote) -> None:
    put(remote, POLICY)
    before = asyncio.run(read(remote))
    with pytest.raises(PolicyError, match=r"ports\[vm9\].security_groups\[0\]: no security group has the id or name"):
        put(remote, {**POLICY, "ports": [{**port(9), "security_groups": ["gone"]}]})
    assert asyncio.run(read(remote)) == before


def test_of_two_writers_none_loses_its_change(remote: Remote) -> None:
    """Each adds its own port to what it finds, all at the same time."""
    start = put(remote, {})

    async def add(number: int) -> None:
        await edit(remote, lambda found: {**found, "ports": [*found["ports"], port(number)]}, timeout=60)

    async def all_at_once() -> None:
        await asyncio.gather(*(add(number) for number in range(8)))

    asyncio.run(all_at_once())
    found = asyncio.run(read(remote))
    assert [each["id"] for each in found.document["ports"]] == [f"vm{number}" for number in range(8)]
    assert found.generation == start + 8


def test_a_database_that_is_not_set_up_is_no_empty_policy(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.create()
    server.start()
    remote = Remote.parse(server.address)
    try:
        with pytest.raises(StoreError, match="has not been set up; run: ovsfw db init"):
            asyncio.run(read(remote))
        assert asyncio.run(setup.initialise(remote, hosts=["ptcp:0"]))
        assert not asyncio.run(setup.initialise(remote, hosts=["ptcp:0"]))
        assert asyncio.run(read(remote)).generation == 0
        assert put(remote, {}) == 1, "an empty policy that somebody has put in is a policy"
    finally:
        asyncio.run(server.stop())
    with pytest.raises(StoreAwayError, match=r"db.sock: cannot reach the policy database"):
        asyncio.run(edit(remote, lambda found: found, timeout=0))


def test_a_database_of_the_version_before_is_converted_with_everybody_connected(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.create(Path(__file__).with_name("ovsfw-1.0.0.ovsschema"))
    server.start()
    remote = Remote.parse(server.address)
    try:
        assert asyncio.run(_convert_between(remote)) == "1.0.0"
        assert asyncio.run(setup.convert(remote)) == asyncio.run(setup.convert(remote)) != "1.0.0"
        assert [key.id for key in asyncio.run(read(remote)).rows] == ["old"]
        put(remote, POLICY)
    finally:
        asyncio.run(server.stop())


async def _convert_between(remote: Remote) -> str:
    old = {"op": "insert", "table": "Address_Group", "row": {"id": "old", "document": '{"id": "old"}'}}
    permission = {"op": "insert", "table": "RBAC_Permission", "row": {"table": "Host", "update": "generation"}}
    async with connected(remote) as connection:
        top = {"op": "insert", "table": "Global", "row": {"identity": "x", "generation": 4}}
        await transact(connection, [top, old, permission])
    version = await setup.convert(remote)
    async with connected(remote) as connection:
        (answer,) = await transact(connection, [select("RBAC_Permission", ["update"])])
        assert "ready" in answer["rows"][0]["update"][1], "hosts may write what is new"
    return version


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http:example", "not the address of a policy database"),
        ("tcp:127.0.0.1", "has no port"),
        ("tcp:127.0.0.1:x", "has no port"),
        ("unix:", "not the address"),
        ("tcp:127.0.0.1:1,ssl:127.0.0.1:2", "TLS needs --private-key"),
    ],
)
def test_bad_addresses_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        Remote.parse(text)
