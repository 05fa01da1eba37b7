"""What systemd wants to know of a service: it is ready, it is alive, how it is (sd_notify(3)).

One datagram each to the socket that systemd names in the environment; without one, nothing is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable


class Notifier:
    """Its state is what systemd has been told."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        found = dict(os.environ) if environment is None else environment
        self._address = found.get("NOTIFY_SOCKET", "")
        watched = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(found.get("WATCHDOG_USEC", "0")) / 2e6 if watched else 0.0
        self._ready = False
        self._status = ""

    async def run(self, look: Callable[[], tuple[bool, str]]) -> None:
        """Tell, until cancelled, what `look` says: whether the first sync is done, and one line on how it is.

        The watchdog is fed from the loop that does all the work, so that it bites when that hangs.
        """
        while self._address:
            ready, status = look()
            if ready and not self._ready:
                self.tell("READY=1")
                self._ready = True
            if status != self._status:
                self.tell(f"STATUS={status}")
                self._status = status
            if self._every:
                self.tell("WATCHDOG=1")
            await asyncio.sleep(min(self._every or 1.0, 1.0))

    def tell(self, text: str) -> None:
        """Say it; nobody listens is fine."""
        if not self._address:
            return
        # An address that begins with @ is in the abstract namespace (unix(7)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), address)
