"""What the logging API wants to have logged: told by the agent's `ovsfw_log` extension, asked by the engine.

The extension begins before there is a firewall driver, and nobody hands it one, so both meet at `BOOK`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ovsfw.compiler.recording import LOG_BURST, LOG_RATE
from ovsfw.neutron.log_objects import LogObject, lines, read_log

logger = logging.getLogger(__name__)


class LogBook:
    """Its state is the log objects of this host by their ids, and where lines go.

    `is_used` says that there is an extension, so that the switch is to be prepared: for `rate` copies a second, `burst`
    at once.  `on_change` is called by the agent's threads when something else is to be logged.
    """

    def __init__(self) -> None:
        """Nobody wants anything."""
        self.is_used = False
        self.rate, self.burst = LOG_RATE, LOG_BURST
        self.write: Callable[[str], None] = logger.info
        self.on_change: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._logs: dict[str, LogObject] = {}

    @property
    def logs(self) -> tuple[LogObject, ...]:
        """All of them, sorted by id."""
        with self._lock:
            return tuple(self._logs[key] for key in sorted(self._logs))

    def take(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Log objects, with all their ports."""
        found = {log.id: log for log in map(read_log, told)}
        with self._lock:
            self._logs |= found

    def take_port(self, port: str, told: Iterable[Mapping[str, Any]]) -> None:
        """All log objects that a port has, told for this port alone."""
        found = {log.id: log for log in map(read_log, told)}
        with self._lock:
            self._forget_port(port)
            for key, log in found.items():
                known = self._logs.get(key, log)
                self._logs[key] = replace(log, groups={**known.groups, **log.groups})

    def drop(self, ids: Iterable[str]) -> None:
        """Log objects that are gone, or disabled."""
        with self._lock:
            for key in ids:
                self._logs.pop(key, None)

    def drop_port(self, port: str) -> None:
        """A port that is gone."""
        with self._lock:
            self._forget_port(port)

    def tell(self, decision: Mapping[str, object]) -> None:
        """Write a decision down for those who want it."""
        for line in lines(self.logs, decision):
            self.write(line)

    def _forget_port(self, port: str) -> None:
        for key, log in self._logs.items():
            if port in log.groups:
                rest = {name: groups for name, groups in log.groups.items() if name != port}
                self._logs[key] = replace(log, groups=rest)


BOOK = LogBook()
