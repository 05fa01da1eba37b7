"""The control socket: what callers send, in pieces or all at once, and what they are told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from ovsfw.control import Control
from ovsfw.errors import SwitchError
from ovsfw.switch.unixctl import unixctl


async def echo(words: Sequence[str]) -> str:
    return " ".join(words)


async def refuse(_words: Sequence[str]) -> str:
    raise SwitchError("no bridge br-int")


async def stumble(_words: Sequence[str]) -> str:
    raise KeyError("bug")


def served(directory: Path, use: Callable[[Path], Awaitable[object]]) -> object:
    """What `use` gives, with a server that has three commands at the path it is called with."""

    async def both() -> object:
        control, path = Control(), directory / "ovsfw.1.ctl"
        control.register("echo", "WORD [WORD]", 1, 2, echo)
        control.register("refuse", "", 0, 0, refuse)
        control.register("stumble", "", 0, 0, stumble)
        async with control.serving(path):
            return await use(path)

    return asyncio.run(both())


def ask(directory: Path, *words: str) -> object:
    return served(directory, lambda path: unixctl(path, *words))


def test_a_command_is_answered(tmp_path: Path) -> None:
    assert ask(tmp_path, "echo", "a", "b") == "a b"


def test_the_commands_are_listed(tmp_path: Path) -> None:
    lines = ["  echo           WORD [WORD]", "  list-commands", "  refuse", "  stumble"]
    assert str(ask(tmp_path, "list-commands")).splitlines() == ["The available commands are:", *lines]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("fly",), 'fly: "fly" is not a valid command'),
        (("echo",), '"echo" command requires at least 1 arguments'),
        (("echo", "1", "2", "3"), '"echo" command takes at most 2 arguments'),
        (("refuse",), "refuse: no bridge br-int"),
    ],
)
def test_a_wrong_call_is_an_error(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(SwitchError, match=complaint):
        ask(tmp_path, *words)


def test_a_bug_is_logged_and_the_server_lives_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(path: Path) -> str:
        with pytest.raises(SwitchError, match="this is a bug"):
            await unixctl(path, "stumble")
        return await unixctl(path, "echo", "alive")

    with caplog.at_level(logging.ERROR):
        assert served(tmp_path, use) == "alive"
    assert "KeyError" in caplog.text


def test_requests_come_in_pieces_and_together(tmp_path: Path) -> None:
    async def use(path: Path) -> list[object]:
        reader, writer = await asyncio.open_unix_connection(str(path))
        texts = [json.dumps({"id": n, "method": "echo", "params": [f"{n}"]}) for n in (1, 2, 3)]
        for piece in (texts[0][:9], texts[0][9:] + texts[1], "\n" + texts[2]):
            writer.write(piece.encode())
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write_eof()
        text = (await reader.read()).decode()
        writer.close()
        return [json.loads(part)["result"] for part in text.replace("}{", "}\n{").splitlines()]

    assert served(tmp_path, use) == ["1", "2", "3"]


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.0\r\n\r\n", b"[1]", b"\xff\xff"])
def test_nonsense_ends_the_conversation(tmp_path: Path, nonsense: bytes) -> None:
    async def use(path: Path) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(nonsense)
        answer = await reader.read()
        writer.close()
        return answer

    assert served(tmp_path, use) == b""


def test_only_owner_and_group_may_call(tmp_path: Path) -> None:
    async def use(path: Path) -> int:
        return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - at once

    assert served(tmp_path, use) == 0o660
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="a command list-commands already"):
        Control().register("list-commands", "", 0, 0, echo)
