"""The policy database as a host sees it, on real servers that come, go, lose their disk and are exchanged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ovsfw.policy.document import read_values
from ovsfw.policy.model import Policy
from ovsfw.policy.writing import Document
from ovsfw.sources.database import DatabaseSource
from ovsfw.store import setup
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import edit, select, transact
from ovsfw.store.hosts import Hosts
from ovsfw.store.server import Server
from ovsfw.store.trust import trust
from tests.running import PATIENCE

pytestmark = pytest.mark.ovs
AWAY = "no connection to the policy database; generation"


def port(number: int, *groups: str) -> Document:
    return {
        "id": f"vm{number}",
        "mac_address": f"52:54:00:00:00:{number:02x}",
        "fixed_ips": [{"ip_address": f"10.0.0.{number}"}],
        "security_groups": list(groups),
    }


def group(name: str, *remotes: str) -> Document:
    rules = [{"id": f"{name}-{remote}", "direction": "ingress", "remote_group_id": remote} for remote in remotes]
    return {"id": name, "rules": rules}


POLICY: Document = {
    "security_groups": [group("web", "lb"), group("lb"), group("db", "web"), group("other")],
    "ports": [port(1, "web"), port(2, "lb", "other"), port(3, "db"), port(4, "other")],
}


async def until(ready: Callable[[], object], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def until_row(remote: Remote, generation: int) -> dict[str, object]:
    """The row of the host, once it has this generation."""
    deadline = time.monotonic() + PATIENCE
    while (row := await host_row(remote)).get("generation") != generation:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return row


@asynccontextmanager
async def host(address: str, *plugged: str, name: str = "h1") -> AsyncIterator[DatabaseSource]:
    source = DatabaseSource(Remote.parse(address), name, say_every=0.5)
    await source.start(lambda: None)
    source.plugged(frozenset(plugged))
    try:
        yield source
    finally:
        await source.close()


def ports_of(policy: Policy | None) -> dict[str, tuple[str, ...]]:
    return {} if policy is None else {name: each.security_groups for name, each in policy.ports.items()}


async def put(remote: Remote, document: Document, *, awaited: bool = False) -> int:
    return (await edit(remote, lambda _: document, awaited=awaited)).generation


async def host_row(remote: Remote, name: str = "h1") -> dict[str, object]:
    async with connected(remote) as connection:
        ask = {"op": "select", "table": "Host", "where": [["name", "==", name]]}
        (answer,) = await transact(connection, [ask])
        rows = answer["rows"]
        return dict(rows[0]) if rows else {}


def test_a_host_gets_what_it_needs_and_follows_it(remote: Remote) -> None:
    async def story() -> None:
        await put(remote, POLICY)
        async with host(str(remote), "vm1") as source:
            await until(source.policy)
            assert ports_of(source.policy()) == {"vm1": ("web",), "vm2": ("lb",)}
            assert source.state().problem == ""
            source.plugged(frozenset({"vm1", "vm3", "nobody"}))
            await until(lambda: "vm3" in ports_of(source.policy()))
            known = source.policy()
            # Of a group that means nothing here: a new generation, and the very same policy.
            generation = await put(remote, {**POLICY, "ports": [*POLICY["ports"], port(5, "other")]})
            await until(lambda: source.state().generation == str(generation))
            assert source.policy() is known
            await put(remote, {**POLICY, "ports": [*POLICY["ports"], port(6, "lb")]})
            await until(lambda: ports_of(source.policy()).get("vm6") == ("lb",))
            source.plugged(frozenset({"vm4"}))
            await until(lambda: ports_of(source.policy()) == {"vm4": ("other",)})

    asyncio.run(story())


def test_nothing_is_known_before_it_is_known_what_is_plugged(remote: Remote) -> None:
    async def story() -> None:
        await put(remote, POLICY)
        source = DatabaseSource(remote, "h1")
        await source.start(lambda: None)
        try:
            await until(lambda: "being read" in source.state().problem)
            assert source.policy() is None
            source.plugged(frozenset())
            await until(lambda: source.policy() == Policy())
        finally:
            await source.close()

    asyncio.run(story())


def test_a_host_says_what_it_has(remote: Remote) -> None:
    async def story() -> None:
        generation = await put(remote, POLICY, awaited=True)
        async with host(str(remote), "vm1", "vm3") as source:
            await until(source.policy)
            policy = source.policy()
            assert policy is not None
            assert (await host_row(remote)).get("generation", 0) != generation, "it is not in the flows yet"
            await source.applied(policy, frozenset({"vm1", "vm3"}))
            row = await until_row(remote, generation)
            assert row["ports"] == ["set", ["vm1", "vm3"]]
            # What does not concern this host it has at once.
            later = await put(remote, {**POLICY, "ports": POLICY["ports"][:3]}, awaited=True)
            await until_row(remote, later)

    asyncio.run(story())


def test_a_port_is_ready_once_its_flows_are_in(remote: Remote) -> None:
    """Plugged is not ready, nor is one that no policy knows; who follows the hosts hears of it."""

    async def story() -> None:
        await put(remote, POLICY)
        hosts = Hosts(remote)
        await hosts.synced(PATIENCE)
        async with host(str(remote), "vm1", "stranger", name="h9") as source:
            await until(source.policy)
            await until(lambda: said(hosts, "h9") == (("stranger", "vm1"), ()))
            await source.applied(source.policy() or Policy(), frozenset({"vm1"}))
            await until(lambda: said(hosts, "h9") == (("stranger", "vm1"), ("vm1",)))
            source.plugged(frozenset({"vm1", "vm3"}))
            await until(lambda: said(hosts, "h9") == (("vm1", "vm3"), ("vm1",)))
            await until(lambda: "vm3" in ports_of(source.policy()))
            await source.applied(source.policy() or Policy(), frozenset({"vm1", "vm3"}))
            await until(lambda: hosts.ready().get("vm3") == "h9")
            source.plugged(frozenset({"vm3"}))
            await until(lambda: said(hosts, "h9") == (("vm3",), ("vm3",)))
        hosts.close()

    asyncio.run(story())


def said(hosts: Hosts, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ports of a host, and those that are ready."""
    return next(((each.ports, each.ready) for each in hosts.all() if each.name == name), ((), ()))


async def complains(source: DatabaseSource, words: str) -> bool:
    """Whether the state comes to say so, while the policy stands."""
    known = source.policy()
    await until(lambda: words in source.state().problem)
    return source.policy() is known


async def exchange(server: Server, contents: bytes) -> None:
    """Let the server come back with another database."""
    await server.stop()
    server.file.write_bytes(contents)
    server.start()


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Server]:
    """A server that is set up, for one test alone."""
    server = Server(tmp_path / "one")
    server.create()
    server.start()
    try:
        asyncio.run(setup.initialise(Remote.parse(server.address)))
        yield server
    finally:
        asyncio.run(server.stop())


def test_what_was_known_outlives_the_database(lonely: Server) -> None:
    """Gone, back, back without a policy, back with an older one: the policy stands, and the state says why."""

    async def story() -> None:
        remote = Remote.parse(lonely.address)
        without_policy = lonely.file.read_bytes()
        async with host(lonely.address, "vm1") as source:
            await until(lambda: "there is no policy in the database" in source.state().problem)
            assert source.policy() is None
            await put(remote, POLICY)
            older = lonely.file.read_bytes()
            await put(remote, {**POLICY, "ports": POLICY["ports"][:1]})
            await until(lambda: source.state().generation == "2")
            assert ports_of(source.policy()) == {"vm1": ("web",)}
            await lonely.stop()
            assert await complains(source, "no connection to the policy database; generation 2 stands")
            assert not source.state().refused
            lonely.start()
            await until(lambda: not source.state().problem)
            await exchange(lonely, without_policy)
            assert await complains(source, "there is no policy in the database")
            await exchange(lonely, older)
            assert await complains(source, "is older (generation 1)")
            assert source.state().refused

    asyncio.run(story())


def test_another_database_is_taken_only_when_an_operator_says_so(lonely: Server, tmp_path: Path) -> None:
    async def story() -> None:
        remote = Remote.parse(lonely.address)
        other = Server(tmp_path / "two")
        other.create()
        async with host(lonely.address, "vm1") as source:
            await put(remote, {**POLICY, "ports": POLICY["ports"][:1]})
            await until(source.policy)
            await exchange(lonely, other.file.read_bytes())
            assert await complains(source, "there is no policy in the database")
            await setup.initialise(remote)
            for document in ({}, POLICY, {}, POLICY):
                await put(remote, document)
            assert await complains(source, "is another one than that which is applied here")
            await trust(remote)
            await until(lambda: not source.state().problem)
            assert ports_of(source.policy()) == {"vm1": ("web",), "vm2": ("lb",)}

    asyncio.run(story())


def test_a_database_of_another_shape_is_none(lonely: Server, tmp_path: Path) -> None:
    """Though it says that it is the same one, and newer: no tables are not an empty policy."""

    async def story() -> None:
        remote = Remote.parse(lonely.address)
        schema = json.loads(setup.schema_file().read_text())
        tables = {name: schema["tables"][name] for name in ("Global", "Connection")}
        (tmp_path / "other.ovsschema").write_text(json.dumps({**schema, "tables": tables}))
        other = Server(tmp_path / "two")
        other.create(tmp_path / "other.ovsschema")
        async with host(lonely.address, "vm1") as source:
            await put(remote, POLICY)
            await until(source.policy)
            async with connected(remote) as connection:
                (answer,) = await transact(connection, [select("Global", ["identity"])])
            await exchange(lonely, other.file.read_bytes())
            async with connected(remote) as connection:
                row = {"identity": answer["rows"][0]["identity"], "generation": 99}
                await transact(connection, [{"op": "insert", "table": "Global", "row": row}])
            known = source.policy()
            await until(lambda: AWAY in source.state().problem)
            # Long enough for a client that takes what it gets.
            await asyncio.sleep(2)
            assert AWAY in source.state().problem
            assert source.policy() is known

    asyncio.run(story())


def test_rows_that_are_no_policy_change_nothing(remote: Remote) -> None:
    async def story() -> None:
        await put(remote, POLICY)
        async with host(str(remote), "vm1") as source:
            await until(source.policy)
            known = source.policy()
            async with connected(remote) as connection:
                row = {"document": '{"id": "vm2", "mac_address": "x"}'}
                where = [["id", "==", "vm2"]]
                await transact(connection, [{"op": "update", "table": "Port", "where": where, "row": row}])
            await until(lambda: "ports[vm2].mac_address: 'x' is not a MAC address" in source.state().problem)
            assert source.policy() is known
            assert source.state().refused
            await put(remote, {"ports": [port(1)]})
            await until(lambda: source.policy() == read_values({"ports": [port(1)]}, "t"))
            assert source.state().problem == ""

    asyncio.run(story())
