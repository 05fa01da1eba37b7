"""A process beside this one that finishes what this one cannot, should it be killed.

It is forked before anything else runs, is told over a pipe what it must know, and acts when the pipe ends without word
that all is well: so it hears of whatever ends the other process, SIGKILL and the kernel's hunger for memory too.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_UNMOVED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ALL_IS_WELL = None


class Guardian(Generic[T]):
    """Its state is a pipe and the process at its other end, until it is released."""

    def __init__(self, act: Callable[[list[T]], None]) -> None:
        """Begin to watch.  `act` is done in the other process, with all that was told, if anything was.

        There must be no threads and no event loop yet.
        """
        reading, writing = os.pipe()
        self._child = os.fork()
        if self._child:
            os.close(reading)
            self._pipe = os.fdopen(writing, "wb")
            return
        os.close(writing)
        try:
            _watch(reading, act)
        except BaseException:  # noqa: BLE001 - nobody else could tell
            traceback.print_exc()
        finally:
            os._exit(0)

    def tell(self, thing: T) -> None:
        """Let it know one thing more."""
        self._send(thing)

    def release(self) -> None:
        """All is well: let it end."""
        self._send(_ALL_IS_WELL)
        with suppress(BrokenPipeError):
            self._pipe.close()
        os.waitpid(self._child, 0)

    def _send(self, thing: T | None) -> None:
        """To a guardian that is dead, nothing."""
        with suppress(BrokenPipeError):
            pickle.dump(thing, self._pipe)
            self._pipe.flush()


def _watch(reading: int, act: Callable[[list[T]], None]) -> None:
    """A session of its own: what ends a terminal does not end it."""
    os.setsid()
    for number in _UNMOVED_BY:
        signal.signal(number, signal.SIG_IGN)
    told: list[T] = []
    # What ends in the middle of a thing was not told.
    with os.fdopen(reading, "rb") as pipe, suppress(EOFError, pickle.UnpicklingError):
        while (thing := pickle.load(pipe)) is not _ALL_IS_WELL:  # noqa: S301 - from this very program
            told.append(thing)
        return
    if told:
        act(told)
