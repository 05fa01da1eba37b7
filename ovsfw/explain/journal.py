"""The log of decisions: copies that flows send become lines of JSON.

Nothing waits for it: a meter in the switch limits the copies, they come over a connection of their own, and a thread of
its own writes the lines.  What is too much is lost, and counted.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from ovsfw.compiler.recording import COPIED_BYTES, LOG_BURST, LOG_METERS, LOG_RATE, LOGGER
from ovsfw.errors import ConfigError
from ovsfw.explain.decisions import decision, timestamp
from ovsfw.explain.known import Known
from ovsfw.switch import packet_in

logger = logging.getLogger(__name__)

# Lines that wait to be written.
WAITING = 1000
STANDARD_OUTPUT = "-"
# Seconds that the end may take.
_LAST_LINES = 1.0


class Lines:
    """A file that lines are appended to by a thread; its state is the lines that wait, and how many were lost."""

    def __init__(self, name: str) -> None:
        """`name` is a path, or - for standard output.  Raises ConfigError when it cannot be written to."""
        self._name = name
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._reopen = threading.Event()
        self._lost = self._told = 0
        self._is_failing = False
        try:
            self._file: FileIO | None = self._open()
        except OSError as error:
            raise ConfigError(f"--log-decisions: cannot write to {name}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._write_all, name="decisions", daemon=True)
        self._thread.start()

    def give(self, line: str) -> None:
        """Have a line written soon; never waits."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def reopen(self) -> None:
        """Begin again with the file of this name, which may have been moved away."""
        self._reopen.set()

    def close(self) -> None:
        """Write what waits, if that is quickly done."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_LAST_LINES)

    def _open(self) -> FileIO:
        """Without a buffer, whose lock could hold up the end of the program."""
        if self._name == STANDARD_OUTPUT:
            return FileIO(os.dup(sys.stdout.fileno()), "w")
        return FileIO(self._name, "a")

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._try(line)

    def _try(self, line: str) -> None:
        """Write a line, or lose it; the next one tries again."""
        try:
            self._write(line)
            self._is_failing = False
        except OSError as error:
            self._fail(error)

    def _write(self, line: str) -> None:
        if self._file is None or self._reopen.is_set():
            self._reopen.clear()
            self._shut()
            self._file = self._open()
        lost = self._lost
        if lost > self._told:
            _write_line(self._file, json.dumps({"time": timestamp(time.time()), "lost": lost - self._told}))
            self._told = lost
        _write_line(self._file, line)

    def _fail(self, error: OSError) -> None:
        """Say so once."""
        self._lost += 1
        if not self._is_failing:
            logger.warning("decisions are not logged: %s: %s", self._name, error)
        self._is_failing = True
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None


def _write_line(file: FileIO, line: str) -> None:
    """All of it.  Raises OSError."""
    data = f"{line}\n".encode()
    while data:
        written = file.write(data)
        if not written:
            raise BlockingIOError("it takes no more")
        data = data[written:]


class Journal:
    """Listens to the copies of one bridge."""

    def __init__(self, path: Path, known: Known) -> None:
        """`path` is the management socket of the bridge."""
        self._path, self._known = path, known
        # Copies a second, and at once.
        self.rate, self.burst = LOG_RATE, LOG_BURST
        self._is_new = True

    async def prepare(self) -> None:
        """Make the meters that the flows refer to.  Raises SwitchError."""
        await packet_in.add_meters(self._path, LOG_METERS, self.rate, self.burst, change=self._is_new)
        self._is_new = False

    async def run(self, lines: Lines) -> None:
        """Write what comes.  Raises SwitchError when the bridge is away."""
        async for found in self.decisions():
            lines.give(json.dumps(found))

    async def decisions(self) -> AsyncIterator[dict[str, object]]:
        """What comes, as it comes.  Raises SwitchError when the bridge is away."""
        async for copy in packet_in.packets(self._path, LOGGER, COPIED_BYTES):
            identity = self._known.identity()
            found = decision(identity, copy, time.time()) if identity else None
            if found:
                yield found
