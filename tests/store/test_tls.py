"""TLS and roles on a real server: who has no certificate is not heard, and a host writes its own row only."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ovsfw.cli import main
from ovsfw.errors import ConfigError, StoreAwayError, StoreError
from ovsfw.policy.model import Policy
from ovsfw.sources.database import DatabaseSource
from ovsfw.store import setup
from ovsfw.store.client import Remote, Tls, connected
from ovsfw.store.editing import Operation, transact
from ovsfw.store.pki import Authority
from ovsfw.store.server import Server
from tests.store.test_source import host_row, put, until, until_row

pytestmark = pytest.mark.ovs


class Site(NamedTuple):
    """A server, and two authorities: its own, and one that it knows nothing of."""

    authority: Authority
    strange: Authority
    server: Server
    address: str

    def remote(self, name: str, ca: Authority | None = None) -> Remote:
        return Remote.parse(self.address, tls_of(self.authority, name, ca))


def tls_of(authority: Authority, name: str, ca: Authority | None = None) -> Tls:
    return Tls(*map(str, (*authority.files(name), (ca or authority).files("ca")[1])))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    for name, hosts in (("pki", ("db", "h1", "h2")), ("strange", ("h1",))):
        assert main(["db", "pki", "--directory", str(directory / name), *hosts]) == 0
    authority, strange = Authority(directory / "pki"), Authority(directory / "strange")
    server = Server(directory / "store", tls_of(authority, "db"))
    server.create()
    server.start()
    try:
        asyncio.run(setup.initialise(Remote.parse(server.address), hosts=["pssl:0:127.0.0.1"]))
        port = asyncio.run(_port(server))
        yield Site(authority, strange, server, f"ssl:127.0.0.1:{port}")
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
    stranger = Remote.parse(site.address, tls_of(site.strange, "h1", site.authority))
    with pytest.raises(StoreAwayError, match="cannot reach the policy database"):
        asyncio.run(write(stranger, row_of("h1")))
    with pytest.raises(StoreAwayError, match="certificate verify failed"):
        asyncio.run(write(site.remote("h1", ca=site.strange), row_of("h1")))
    plain = site.address.replace("ssl:", "tcp:")
    with pytest.raises(StoreAwayError):
        asyncio.run(write(Remote.parse(plain), row_of("h1")))


def test_who_has_no_certificate_at_all_is_not_heard(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.authority.files("ca")[1])
    context.check_hostname = False
    port = int(site.address.rpartition(":")[2])
    assert answer_to(context, port) == b""
    key, certificate = site.authority.files("h1")
    context.load_cert_chain(certificate, key)
    assert b'"OVSFW"' in answer_to(context, port), "it is the certificate that was missing"


def answer_to(context: ssl.SSLContext, port: int) -> bytes:
    """What the server answers to a question; nothing when it hangs up."""
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as encrypted:
            encrypted.sendall(b'{"id": 1, "method": "list_dbs", "params": []}')
            return encrypted.recv(1000)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_an_authority_makes_what_is_missing_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["db", "pki", "--directory", str(tmp_path / "pki")]
    assert main([*command, "h1"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    assert {path.name for path in before} == {"ca.key", "ca.crt", "h1.key", "h1.crt", "openssl.cnf"}
    assert not [path for path in before if path.suffix == ".key" and path.stat().st_mode & 0o077]
    assert main([*command, "h1", "h2"]) == 0
    assert "h1.crt is there already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    certificate = ("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", str(tmp_path / "pki" / "h2.crt"))
    subject = subprocess.run(["openssl", *certificate], capture_output=True, text=True, check=True).stdout
    assert subject.strip() == "subject=CN=h2", "exactly the name, for the database compares it"
    certificate_of_ca = tmp_path / "pki" / "ca.crt"
    certificate_of_ca.unlink()
    assert main([*command, "h3"]) == 1, "half an authority is not made anew: its key may be needed"
    assert (tmp_path / "pki" / "ca.key").read_bytes() == before[tmp_path / "pki" / "ca.key"]
    capsys.readouterr()
    for name in ("ca", "../h3", "h 3", "-x", "x" * 65):
        assert main([*command, "--", name]) == 1
        assert "is no name for a certificate" in capsys.readouterr().err


def test_missing_files_are_told(site: Site) -> None:
    remote = Remote.parse(site.address, Tls("no.key", "no.crt", "no.crt"))
    with pytest.raises(ConfigError, match=r"TLS files no.key, no.crt, no.crt: No such file"):
        asyncio.run(write(remote, row_of("h1")))
