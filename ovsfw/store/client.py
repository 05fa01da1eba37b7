"""Requests to an OVSDB server, one at a time: JSON-RPC 1.0 as RFC 7047 has it, with the standard library's JSON.

For commands, which read everything once and write one transaction.  Open vSwitch's own client, which keeps a copy up to
date, is for the daemon (`copy`); its parser takes more than a second for what is read here in 30 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ovsfw.errors import ConfigError, StoreAwayError, StoreError
from ovsfw.waiting import within

DATABASE = "OVSFW"
CONNECT_TIMEOUT = 3.0
# Also of a whole policy, which is written in one transaction.
ANSWER_TIMEOUT = 60.0
# An answer is one JSON object of any length; this is only how much is read at once.
_READ_SIZE = 1 << 18
_DECODER = json.JSONDecoder()
METHODS = ("tcp", "ssl", "unix")
WHERE = "tcp:HOST:PORT, ssl:HOST:PORT or unix:PATH, several with commas between"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a client that speaks TLS: its key, its certificate, and that of who has signed the server's."""

    private_key: str
    certificate: str
    ca_certificate: str

    def context(self) -> ssl.SSLContext:
        """For a connection; the server's name is not checked, as everywhere in Open vSwitch: its CA is private.

        Raises ConfigError when a file is missing or wrong.
        """
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_certificate)
            context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.private_key}, {self.certificate}, {self.ca_certificate}"
            raise ConfigError(f"TLS files {files}: {error.strerror or error}") from None
        context.check_hostname = False
        return context


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a policy database is: the servers of one cluster, or one server, and how to speak TLS with them."""

    addresses: tuple[str, ...]
    tls: Tls | None = None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> Remote:
        """Read `ssl:10.0.0.1:6641,ssl:10.0.0.2:6641`.  Raises ConfigError."""
        addresses = tuple(part.strip() for part in text.split(","))
        for address in addresses:
            _check(address, tls)
        return cls(addresses, tls)

    def __str__(self) -> str:
        """As it was written."""
        return ",".join(self.addresses)


def is_remote(text: str) -> bool:
    """Whether a text names a database and not a file."""
    return text.partition(":")[0] in METHODS and ":" in text


def _check(address: str, tls: Tls | None) -> None:
    method, _, where = address.partition(":")
    if method not in METHODS or not where:
        raise ConfigError(f"{address!r} is not the address of a policy database; use {WHERE}")
    if method != "unix" and not _host_and_port(where)[1]:
        raise ConfigError(f"{address!r} has no port; use {method}:HOST:PORT")
    if method == "ssl" and tls is None:
        raise ConfigError(f"{address}: TLS needs --private-key, --certificate and --ca-cert")


def _host_and_port(where: str) -> tuple[str, int]:
    """The host without the brackets of IPv6; port 0 when there is no good one."""
    host, _, port = where.rpartition(":")
    return host.strip("[]"), int(port) if host and port.isascii() and port.isdigit() else 0


class Connection:
    """One open connection; it answers the server's probes, so that it may be kept.

    `on_notice` is called with what the server tells without being asked (RFC 7047, section 4.1.6).
    """

    def __init__(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.address = address
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._data = bytearray()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.on_notice: Callable[[dict[str, Any]], None] = lambda _: None
        self._listener = asyncio.create_task(self._listen())

    async def call(self, method: str, params: Sequence[object]) -> Any:  # noqa: ANN401 - whatever it answers
        """What the server answers.  Raises StoreError when it refuses, OSError when the connection is lost.

        Where the network is cut, nobody says so: it counts as lost after `ANSWER_TIMEOUT` seconds.
        """
        if self._listener.done():
            raise ConnectionResetError(f"{self.address}: the connection is closed")
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        self._send({"id": self._number, "method": method, "params": params})
        await self._writer.drain()
        try:
            message = await within(answer, ANSWER_TIMEOUT)
        except asyncio.TimeoutError:
            raise ConnectionResetError(f"{self.address}: no answer within {ANSWER_TIMEOUT:.0f} s") from None
        if message.get("error") is not None:
            raise StoreError(f"{self.address}: {words(message['error'])}")
        return message["result"]

    def _send(self, message: dict[str, object]) -> None:
        self._writer.write(json.dumps(message).encode())

    async def _listen(self) -> None:
        """Hand out answers until the connection is lost."""
        lost = ConnectionResetError(f"{self.address}: the server closed the connection")
        try:
            while (message := await self._receive()) is not None:
                self._take(message)
        except OSError as error:
            lost = ConnectionResetError(f"{self.address}: {error.strerror or error}")
        except (ValueError, KeyError):
            lost = ConnectionResetError(f"{self.address}: what the server says is no JSON-RPC")
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(lost)
                    answer.exception()  # whoever failed to ask does not hear of it, and nobody need be told so

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "echo":
            self._send({"id": message["id"], "result": message["params"], "error": None})
        elif "method" in message:
            self.on_notice(message)
        elif (answer := self._answers.pop(message["id"], None)) is not None and not answer.done():
            answer.set_result(message)

    async def _receive(self) -> dict[str, Any] | None:
        """The next message, None at the end; they follow each other without anything between."""
        while True:
            # Parsing a part is wasted work, so look for what an object ends with.
            if self._data.endswith(b"}"):
                text = self._data.decode()
                with contextlib.suppress(ValueError):
                    message, end = _DECODER.raw_decode(text)
                    self._data = bytearray(text[end:].encode())
                    return dict(message)
            chunk = await self._reader.read(_READ_SIZE)
            if not chunk:
                return None
            self._data += chunk

    def close(self) -> None:
        """Close at once."""
        self._listener.cancel()
        self._writer.close()


def words(problem: object) -> str:
    """An error object of OVSDB in words."""
    if isinstance(problem, dict):
        return ": ".join(str(problem[key]) for key in ("error", "details") if problem.get(key))
    return str(problem)


@asynccontextmanager
async def connected(remote: Remote) -> AsyncIterator[Connection]:
    """A connection to the first server of `remote` that answers and belongs to the cluster.

    Raises StoreAwayError, with what each of them said, when none does, and StoreError when one has another database.
    """
    said: list[str] = []
    for address in remote.addresses:
        if (connection := await _try(address, remote.tls, said)) is not None:
            try:
                yield connection
            finally:
                connection.close()
            return
    raise StoreAwayError("\n".join(said))


async def _try(address: str, tls: Tls | None, said: list[str]) -> Connection | None:
    """An open connection; None, and why in `said`, when another server may do better."""
    try:
        return await within(_open(address, tls), CONNECT_TIMEOUT)
    except asyncio.TimeoutError:
        said.append(f"{address}: no answer within {CONNECT_TIMEOUT:.0f} s")
    except StoreAwayError as error:
        said.append(str(error))
    except OSError as error:
        said.append(f"{address}: cannot reach the policy database: {error.strerror or error}")
    return None


async def _open(address: str, tls: Tls | None) -> Connection:
    method, _, where = address.partition(":")
    if method == "unix":
        connection = Connection(address, *await asyncio.open_unix_connection(where))
    else:
        host, port = _host_and_port(where)
        context = tls.context() if method == "ssl" and tls is not None else None
        connection = Connection(address, *await asyncio.open_connection(host, port, ssl=context))
    try:
        await _check_membership(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def _check_membership(connection: Connection) -> None:
    """Raise StoreError when the server has no policy database, or is cut off from the others of its cluster."""
    if DATABASE not in await connection.call("list_dbs", []):
        raise StoreError(f"{connection.address}: there is no policy database; make one with: ovsfw db start")
    where = [["name", "==", DATABASE]]
    ask = {"op": "select", "table": "Database", "where": where, "columns": ["connected"]}
    (answer,) = await connection.call("transact", ["_Server", ask])
    if not all(row["connected"] for row in answer["rows"]):
        raise StoreAwayError(f"{connection.address}: the server is cut off from its cluster")
