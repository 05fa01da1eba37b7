"""Answers in pieces, and daemons that misbehave; a real one is asked in tests/ovs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ovsfw.errors import SwitchError
from ovsfw.switch.unixctl import unixctl


def ask(directory: Path, *pieces: bytes, stays: bool = False, timeout: float = 20) -> str:
    """What comes out when a daemon answers in these pieces, then leaves or says no more."""
    path = directory / "daemon.ctl"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.read(1000))
        assert (request["method"], request["params"]) == ("show", ["all", "now"])
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if stays:
            await reader.read()
        writer.close()

    async def both() -> str:
        async with await asyncio.start_unix_server(answer, str(path)):
            return await unixctl(path, "show", "all", "now", timeout=timeout)

    return asyncio.run(both())


def test_a_piece_that_ends_like_an_answer_is_not_one(tmp_path: Path) -> None:
    assert ask(tmp_path, b'{"id":0,"error":null,"result":"{a}', b' {b}"}', stays=True) == "{a} {b}"


def test_a_refusal_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SwitchError, match=r"^show: no such thing$"):
        ask(tmp_path, b'{"id":0,"error":"no such thing\\n","result":null}')


def test_an_answer_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SwitchError, match="closed the connection instead of answering show"):
        ask(tmp_path, b'{"id":0,"result":"x')


def test_silence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SwitchError, match="no answer to show within 1 s"):
        ask(tmp_path, stays=True, timeout=1)
