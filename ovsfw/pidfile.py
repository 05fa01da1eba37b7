"""The pid file, by which `ovs-appctl -t ovsfw` finds the daemon and a second daemon finds the first.

As with Open vSwitch's own daemons, what counts is the lock on the file and not its presence: whatever ends a process
gives its lock back (lib/daemon-unix.c; ovs-appctl refuses a pid file that is not locked).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ovsfw.errors import ConfigError


class PidFile:
    """Its state is the open file that holds the lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def claim(self) -> None:
        """Take the lock.  Raises ConfigError when another daemon has it or there can be no such file."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot make the pid file: {error.strerror}; see --rundir") from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(file, 32).decode(errors="replace").strip()
            os.close(file)
            raise ConfigError(f"ovsfw is running already (pid {other or 'unknown'}, {self._path})") from None
        self._file = file

    def write(self) -> None:
        """Write our pid into it.  Raises OSError, on a full disk for one."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Remove it; doing it again is fine."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = None
