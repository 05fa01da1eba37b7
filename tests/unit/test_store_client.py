"""A server that is there and says nothing, as behind a network that is cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ovsfw.store import client
from ovsfw.store.client import Connection


def test_a_server_that_says_nothing_is_lost_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT", 0.05)
    socket = tmp_path / "silent.sock"

    async def story() -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(listen, socket):
            connection = Connection(f"unix:{socket}", *await asyncio.open_unix_connection(socket))
            with pytest.raises(OSError, match="no answer within"):
                await connection.call("list_dbs", [])
            connection.close()

    asyncio.run(story())
