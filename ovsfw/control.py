"""Commands to a running ovsfw, as `ovs-appctl -t ovsfw COMMAND` gives them to every daemon of Open vSwitch.

A small unixctl server: JSON-RPC 1.0 over a Unix socket (ovs-appctl(8), lib/unixctl.c).  Whatever has something to tell
registers a command; each takes words and answers text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ovsfw.errors import OvsfwError

logger = logging.getLogger(__name__)

# Gets the words behind the command; raises OvsfwError for what the caller has done wrong.
Handler = Callable[[Sequence[str]], Awaitable[str]]

_READ_SIZE = 1 << 16
# More than any command is long; keeps a caller who sends nonsense from filling the memory.
_MAX_REQUEST = 1 << 20
_OWNER_AND_GROUP = 0o660
_DECODER = json.JSONDecoder()


class Command(NamedTuple):
    """A command: `usage` shows its arguments, of which it takes `min_args` to `max_args`."""

    name: str
    usage: str
    min_args: int
    max_args: int
    handler: Handler


class CommandError(OvsfwError):
    """A command was called wrongly."""


class Control:
    """The commands of this daemon, and the socket that they come in by."""

    def __init__(self) -> None:
        """Knows `list-commands` only."""
        self._commands: dict[str, Command] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self.register("list-commands", "", 0, 0, self._list)

    def register(self, name: str, usage: str, min_args: int, max_args: int, handler: Handler) -> None:
        """Add a command.  Raises ValueError for a name that is taken."""
        if name in self._commands:
            raise ValueError(f"there is a command {name} already")
        self._commands[name] = Command(name, usage, min_args, max_args, handler)

    async def call(self, name: str, args: Sequence[str]) -> str:
        """What a command answers.  Raises OvsfwError; complaints about arguments are those of Open vSwitch."""
        command = self._commands.get(name)
        if command is None:
            raise CommandError(f'"{name}" is not a valid command (use "list-commands" to see a list of valid commands)')
        if len(args) < command.min_args:
            raise CommandError(f'"{name}" command requires at least {command.min_args} arguments')
        if len(args) > command.max_args:
            raise CommandError(f'"{name}" command takes at most {command.max_args} arguments')
        return await command.handler(args)

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Answer on a socket meanwhile; its owner and group may call.  Raises OSError when it cannot be made."""
        _remove(path)
        old = os.umask(0o777 & ~_OWNER_AND_GROUP)
        try:
            server = await asyncio.start_unix_server(self._converse, str(path))
        finally:
            os.umask(old)
        try:
            yield
        finally:
            server.close()
            for call in self._calls:
                call.cancel()
            _remove(path)

    async def _list(self, _args: Sequence[str]) -> str:
        width = max(map(len, self._commands))
        lines = (f"  {each.name:<{width}}  {each.usage}".rstrip() for each in self._commands.values())
        return "The available commands are:\n" + "".join(f"{line}\n" for line in sorted(lines))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller: requests one after the other, each answered before the next."""
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            rest = ""
            while (data := await reader.read(_READ_SIZE)) and len(rest) <= _MAX_REQUEST:
                requests, rest = _cut(rest + data.decode(errors="replace"))
                for request in requests:
                    writer.write(json.dumps(await self._answer(request)).encode())
                    await writer.drain()
                if rest and not rest.startswith("{"):
                    break
        writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, object]:
        result, problem = None, None
        try:
            result = await self.call(str(request.get("method")), [str(word) for word in request.get("params") or ()])
        except OvsfwError as error:
            problem = f"{error}\n"
        except Exception:
            logger.exception("the command %s failed: this is a bug of ovsfw", request.get("method"))
            problem = "the command failed: this is a bug of ovsfw; its log says more\n"
        return {"id": request.get("id"), "result": result, "error": problem}


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _cut(text: str) -> tuple[list[dict[str, Any]], str]:
    """The whole requests at the beginning of a text, and the rest; it does not begin with `{` when it is nonsense."""
    requests: list[dict[str, Any]] = []
    rest = text.lstrip()
    while rest.startswith("{"):
        try:
            request, end = _DECODER.raw_decode(rest)
        except ValueError:
            break
        requests.append(request)
        rest = rest[end:].lstrip()
    return requests, rest
