"""The daemon as a process of its own, on a private switch: what it logs, what it says of itself, what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ovsfw.lab.vswitch import PrivateSwitch

# Seconds.  On a machine that runs thirty other things, Python alone starts for a minute.
PATIENCE = 120.0
T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str], patience: float = PATIENCE) -> T:
    """Wait for something true; `what` is told when it does not become so."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.01)
    return found


class Process:
    """`ovsfw run` on a switch; its log goes to a file."""

    def __init__(
        self, ovs: PrivateSwitch, policy: Path, *args: str, command: tuple[str, ...] = (), before: str = ""
    ) -> None:
        """`command` comes before the interpreter, the Python code `before` before everything else."""
        self._ovs = ovs
        self.log_file = policy.parent / "ovsfw.log"
        self._from = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.environment = {name: value for name, value in ovs.environment.items() if name != "JOURNAL_STREAM"}
        start = ["-c", f"{before}\nimport sys, ovsfw.cli\nsys.exit(ovsfw.cli.main())"] if before else ["-m", "ovsfw"]
        words = [*command, sys.executable, *start, "run", "--policy", str(policy), "--db", ovs.db, *args]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        """What this process has logged."""
        return self.log_file.read_bytes()[self._from :].decode()

    def logged(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until lines with a pattern are there, and give them."""

        def look() -> list[str]:
            assert self.process.poll() is None or len(found()) >= times, f"it ended: {self.log}"
            return found() if len(found()) >= times else []

        def found() -> list[str]:
            return [line for line in self.log.splitlines() if re.search(pattern, line)]

        return until(look, lambda: f"not logged: {pattern}\n{self.log}")

    def ask(self, *words: str) -> str:
        """What `ovs-appctl -t ovsfw` prints."""
        return self._ovs.run("ovs-appctl", "-t", "ovsfw", *words)

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = json.loads(self.ask("status", "json"))
        return found

    def connects(self) -> int:
        """How often it has connected to the switch."""
        return int(self.status()["sync"]["connects"])

    def in_sync(self) -> dict[str, Any]:
        """Wait until it is well."""

        def look() -> dict[str, Any]:
            assert self.process.poll() is None, f"it ended: {self.log}"
            with contextlib.suppress(Exception):
                found = self.status()
                return found if found["healthy"] and not found["sync"]["busy"] else {}
            return {}

        return until(look, lambda: f"not in sync: {self.log}")

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)


@contextmanager
def running(
    ovs: PrivateSwitch, policy: Path, *args: str, command: tuple[str, ...] = (), before: str = ""
) -> Iterator[Process]:
    """The daemon meanwhile."""
    process = Process(ovs, policy, *args, command=command, before=before)
    try:
        yield process
    finally:
        process.end(signal.SIGKILL)
