"""A policy from a file on disk: read once, or watched."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy.document import Document, parse, read
from ovsfw.policy.model import Policy
from ovsfw.sources.source import SourceState
from ovsfw.waiting import within

# Larger than any policy; keeps /dev/zero and a mistaken disk image from filling the memory.
MAX_BYTES = 256 * 1024 * 1024
# Seconds between two looks at the file.  A change is read once it has stood still for one, so that a file that is being
# written in place is not read by halves.
LOOK_EVERY = 0.25


def read_policy(path: str | Path) -> Policy:
    """The policy in a file, which may be a pipe.

    Raises PolicyError when the file cannot be read, or its document is wrong, or an assertion in it does not hold.
    """
    return parse(_read(path), str(path))


def read_document(path: str | Path) -> Document:
    """All that the document in a file says; its assertions are not judged.  Raises PolicyError."""
    return read(_read(path), str(path))


def _read(path: str | Path) -> bytes:
    """The bytes of a file.  Raises PolicyError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise _unreadable(path, error) from None
    if len(text) > MAX_BYTES:
        raise PolicyError([Problem(f"larger than {MAX_BYTES // 1024**2} MiB; is it a policy?", source=str(path))])
    return text


def _unreadable(path: str | Path, error: OSError | ValueError) -> PolicyError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PolicyError([Problem(f"cannot be read: {said}", source=str(path))])


class _Look(NamedTuple):
    """What tells one state of a file from another; `problem` when there is nothing to be seen."""

    identity: tuple[int, ...] = ()
    problem: str = ""


class FileSource:
    """A file that is read again whenever it changes, also when another takes its name.

    A file that is wrong or gone changes nothing but the state: the last good policy stands.  The generation is a digest
    of the bytes.
    """

    def __init__(self, path: str | Path, look_every: float = LOOK_EVERY) -> None:
        """`look_every` is the time between two looks, in seconds."""
        self._path = Path(path)
        self._look_every = look_every
        self._policy: Policy | None = None
        self._state = SourceState(problem=f"{path}: not read yet", since=time.time())
        self._wake: Callable[[], None] = lambda: None
        self._again = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, wake: Callable[[], None]) -> None:
        """Begin to look.  Returns at once."""
        self._wake = wake
        self._watcher = asyncio.create_task(self._watch())

    def policy(self) -> Policy | None:
        """The newest good policy; None while none is known."""
        return self._policy

    def state(self) -> SourceState:
        """How well it is."""
        return self._state

    def plugged(self, port_ids: frozenset[str]) -> None:
        """A file has all ports."""

    async def applied(self, policy: Policy, ports: frozenset[str]) -> None:
        """A file wants no answer."""

    def reload(self) -> None:
        """Read it again, even if it looks unchanged."""
        self._again.set()

    async def close(self) -> None:
        """Stop; doing it again is fine."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _watch(self) -> None:
        read: _Look | None = None
        before = self._look()
        while True:
            now = self._look()
            if self._again.is_set() or (now == before and now != read):
                self._again.clear()
                read = now
                await self._take(now)
            before = now
            await self._pause()

    async def _pause(self) -> None:
        try:
            await within(self._again.wait(), self._look_every)
        except asyncio.TimeoutError:
            return

    def _look(self) -> _Look:
        try:
            seen = self._path.stat()
        except (OSError, ValueError) as error:
            return _Look(problem=str(_unreadable(self._path, error)))
        if not stat.S_ISREG(seen.st_mode):
            return _Look(problem=f"{self._path}: not a regular file; only such a one can be watched")
        return _Look((seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns))

    async def _take(self, look: _Look) -> None:
        """Read what was seen; another thread does, so that a long document holds up nothing."""
        if look.problem:
            self._complain(look.problem)
            return
        try:
            text = await asyncio.to_thread(_read, self._path)
            generation = hashlib.sha256(text).hexdigest()[:12]
            if generation != self._state.generation or self._policy is None:
                self._policy = await asyncio.to_thread(parse, text, str(self._path))
                self._become(SourceState(generation, since=time.time()))
            elif self._state.problem:
                self._become(SourceState(generation, since=time.time()))
        except PolicyError as error:
            self._complain(str(error), refused=True)

    def _complain(self, problem: str, *, refused: bool = False) -> None:
        if problem != self._state.problem:
            self._become(SourceState(self._state.generation, problem, time.time(), refused))

    def _become(self, state: SourceState) -> None:
        self._state = state
        self._wake()
