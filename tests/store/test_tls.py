"""TLS and roles on a real server: who has no certificate is not heard, and a host writes its own row only."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ovsfw.errors import ConfigError, StoreAwayError, StoreError
from ovsfw.policy.model import Policy
from ovsfw.sources.database import DatabaseSource
from ovsfw.store import setup
from ovsfw.store.client import Remote, Tls, connected
from ovsfw.store.editing import Operation, transact
from ovsfw.store.server import Server
from tests.store.test_source import host_row, put, until, until_row

pytestmark = pytest.mark.ovs


class Site(NamedTuple):
    directory: Path
    server: Server
    address: str

    def tls(self, name: str, ca: str = "ca") -> Tls:
        return Tls(*(str(self.directory / file) for file in (f"{name}.key", f"{name}.crt", f"{ca}.crt")))

    def remote(self, name: str, ca: str = "ca") -> Remote:
        return Remote.parse(self.address, self.tls(name, ca))


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_ca(directory: Path, name: str) -> None:
    subject = ("-subj", f"/CN=ovsfw-{name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)


def make_certificate(directory: Path, name: str, ca: str = "ca") -> None:
    """As docs/operations.md says."""
    subject = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", *subject)
    signed = ("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"{name}.crt")
    openssl(directory, "x509", "-req", "-days", "2", "-in", f"{name}.csr", *signed)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    for ca in ("ca", "strange-ca"):
        make_ca(directory, ca)
    for name in ("db", "h1", "h2"):
        make_certificate(directory, name)
    make_certificate(directory, "stranger", "strange-ca")
    tls = Tls(*(str(directory / file) for file in ("db.key", "db.crt", "ca.crt")))
    server = Server(directory / "store", tls)
    server.create()
    server.start()
    try:
        asyncio.run(setup.initialise(Remote.parse(server.address), hosts=["pssl:0:127.0.0.1"]))
        port = asyncio.run(_port(server))
        yield Site(directory, server, f"ssl:127.0.0.1:{port}")
    finally:
        asyncio.run(server.stop())


async def _port(server: Server) -> str:
    """Which port the system has given."""
    async with connected(Remote.parse(server.address)) as connection:
        while True:
            ask = {"op": "select", "table": "Connection", "where": [], "columns": ["status"]}
            (answer,) = await transact(connection, [ask])
            status = dict(answer["rows"][0]["status"][1])
            if "bound_port" in status:
                return str(status["bound_port"])
            await asyncio.sleep(0.02)


async def write(remote: Remote, *operations: Operation) -> int:
    """How many rows were changed by the last operation."""
    async with connected(remote) as connection:
        return int((await transact(connection, list(operations)))[-1].get("count", 0))


def row_of(name: str) -> Operation:
    return {"op": "insert", "table": "Host", "row": {"name": name, "last_seen": 1}}


def update(table: str, **row: object) -> Operation:
    return {"op": "update", "table": table, "where": [], "row": row}


def test_a_host_follows_the_policy_and_writes_its_row(site: Site) -> None:
    async def story() -> None:
        local = Remote.parse(site.server.address)
        port = {"id": "vm1", "mac_address": "52:54:00:00:00:01"}
        generation = await put(local, {"ports": [port]}, awaited=True)
        source = DatabaseSource(site.remote("h1"), "h1", say_every=0.2)
        await source.start(lambda: None)
        try:
            source.plugged(frozenset({"vm1"}))
            await until(source.policy)
            assert "vm1" in (source.policy() or Policy()).ports
            await source.applied(source.policy() or Policy(), frozenset({"vm1"}))
            assert (await until_row(local, generation))["ports"] == "vm1"
        finally:
            await source.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(row_of("h1"), id="the row of another host is made"),
        pytest.param(update("Host", generation=99), id="the rows of all hosts are changed"),
        pytest.param({"op": "delete", "table": "Host", "where": [["name", "==", "h1"]]}, id="another row is deleted"),
        pytest.param(update("Host", name="h1"), id="a host takes another name"),
        pytest.param(update("Global", generation=99), id="the generation is changed"),
        pytest.param({"op": "insert", "table": "Port", "row": {"id": "x", "document": "{}"}}, id="a port is added"),
        pytest.param({"op": "delete", "table": "Port", "where": []}, id="the policy is deleted"),
        pytest.param({"op": "delete", "table": "RBAC_Role", "where": []}, id="the role is deleted"),
    ],
)
def test_what_a_host_may_not_write(site: Site, operation: Operation) -> None:
    local = Remote.parse(site.server.address)

    async def story() -> None:
        await put(local, {"ports": [{"id": "vm1", "mac_address": "52:54:00:00:00:01"}]})
        if not await host_row(local, "h1"):
            await write(site.remote("h1"), row_of("h1"))
        if not await host_row(local, "h2"):
            await write(site.remote("h2"), row_of("h2"))
        before = await host_row(local, "h1")
        with pytest.raises(StoreError, match="permission error"):
            await write(site.remote("h2"), operation)
        assert await host_row(local, "h1") == before

    asyncio.run(story())


def test_who_has_no_certificate_of_the_ca_is_not_heard(site: Site) -> None:
    with pytest.raises(StoreAwayError, match="cannot reach the policy database"):
        asyncio.run(write(site.remote("stranger"), row_of("stranger")))
    with pytest.raises(StoreAwayError, match="certificate verify failed"):
        asyncio.run(write(site.remote("h1", ca="strange-ca"), row_of("h1")))
    plain = site.address.replace("ssl:", "tcp:")
    with pytest.raises(StoreAwayError):
        asyncio.run(write(Remote.parse(plain), row_of("h1")))


def test_missing_files_are_told(site: Site) -> None:
    remote = Remote.parse(site.address, Tls("no.key", "no.crt", "no.crt"))
    with pytest.raises(ConfigError, match=r"TLS files no.key, no.crt, no.crt: No such file"):
        asyncio.run(write(remote, row_of("h1")))
