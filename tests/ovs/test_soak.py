"""Random changes and faults under traffic, for as many seconds as `OVSFW_SOAK` says (`scripts/soak`: two minutes)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ovsfw.lab.topology import Lab
from tests.ovs.test_daemon import is_verified
from tests.ovs.test_daemon_streams import PORT, document, lab, nothing_is_lost, policy, start, streams, write
from tests.running import PATIENCE, Process, until

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
SECONDS = float(os.environ.get("OVSFW_SOAK", "8"))
SEED = int(os.environ.get("OVSFW_SOAK_SEED", "1"))
__all__ = ["lab", "policy"]


class Soak:
    """The daemon, and what is done to it and around it."""

    def __init__(self, made: Lab, document_file: Path, dice: random.Random) -> None:
        self.lab, self.policy, self.dice = made, document_file, dice
        self.daemon = Process(made.switch, document_file)
        self.daemon.in_sync()

    def change(self) -> None:
        write(self.policy, document(self.dice.randrange(60)))

    def refuse(self) -> None:
        right = self.policy.read_text()
        write(self.policy, "ports: 7")
        self.daemon.ask("reload")
        write(self.policy, right)

    def plug(self) -> None:
        self.lab.switch.vsctl(
            *("--may-exist", "add-port", "br-int", "extra", "--", "set", "interface", "extra", "type=internal"),
            "external_ids:iface-id=vm10",
        )

    def unplug(self) -> None:
        self.lab.switch.vsctl("--if-exists", "del-port", "extra")

    def meddle(self) -> None:
        self.lab.switch.ofctl("add-flow", "br-int", f"table=139,priority={self.dice.randrange(1, 99)},actions=NORMAL")

    def crash_database(self) -> None:
        self.lab.switch.restart_server()

    def restart(self) -> None:
        self.daemon.end(self.dice.choice((signal.SIGTERM, signal.SIGKILL)))
        self.daemon = Process(self.lab.switch, self.policy)

    def go_on(self, deeds: tuple[Callable[[], None], ...], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.dice.choice(deeds)()
            self.daemon.in_sync()

    def held(self) -> tuple[int, int]:
        """Open files, and KiB of memory."""
        process = Path(f"/proc/{self.daemon.process.pid}")
        memory = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return len(list((process / "fd").iterdir())), int(memory.split()[1])


def test_soak(lab: Lab, policy: Path) -> None:
    soak = Soak(lab, policy, random.Random(SEED))  # noqa: S311 - the same again
    gentle = (soak.change, soak.refuse, soak.plug, soak.unplug, soak.meddle)
    try:
        with streams(lab) as found:
            # The group of vm3 lets nothing out.
            stranger = start(lab, "vm3", "send", "udp", "10.9.0.3", "10.9.0.2", PORT)
            soak.go_on((*gentle, soak.crash_database, soak.restart), SECONDS / 2)
            before = soak.held()
            soak.go_on(gentle, SECONDS / 2)
            after = soak.held()
            refused = stranger.communicate(timeout=PATIENCE)[0]
        assert nothing_is_lost(found)
        assert '"answered": 0' in refused, "wrongly passed"
        until(lambda: is_verified(lab.switch, policy), "verify is clean")
        assert after[0] <= before[0] + 3, f"open files: {before[0]} before, {after[0]} after"
        assert after[1] <= before[1] * 1.25 + 4096, f"KiB of memory: {before[1]} before, {after[1]} after"
        assert "Traceback" not in soak.daemon.log_file.read_text()
    finally:
        soak.daemon.end(signal.SIGKILL)
