"""The daemon's log: lines on stderr, which a journal can take apart."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from ovsfw.errors import ConfigError

# The levels of Open vSwitch (ovs-appctl(8)) and their other names.
LEVELS: Mapping[str, int] = {
    "off": logging.CRITICAL + 1,
    "err": logging.ERROR,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "dbg": logging.DEBUG,
    "debug": logging.DEBUG,
}
_ROOT = logging.getLogger("ovsfw")
# Priorities of syslog, as sd-daemon(3) has them at the beginning of a line.
_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class _ForJournal(logging.Formatter):
    """`<6>text`: the journal knows the time and takes the level from the number."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 3)}>"
        return "\n".join(f"{prefix}{line}" for line in super().format(record).splitlines())


def start(level: str) -> None:
    """Begin to log; under systemd (JOURNAL_STREAM in the environment) in the form of the journal."""
    handler = logging.StreamHandler(sys.stderr)
    # A line that cannot be written (the disk is full) is lost, without a traceback in its place.
    logging.raiseExceptions = False
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_ForJournal("%(message)s"))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        )
    _ROOT.addHandler(handler)
    _ROOT.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """Log this and what is worse.  Raises ConfigError for an unknown level."""
    if level not in LEVELS:
        raise ConfigError(f"no log level {level}; there are {', '.join(LEVELS)}")
    _ROOT.setLevel(LEVELS[level])


def current_level() -> str:
    """The level in Open vSwitch's words."""
    return next(name for name, number in LEVELS.items() if number == _ROOT.level)
