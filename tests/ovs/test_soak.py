"""Random changes and faults under traffic, for as many seconds as `OVSFW_SOAK` says (`scripts/soak`: two minutes)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ovsfw.lab.topology import Lab
from tests.ovs.test_daemon import is_verified
from tests.ovs.test_daemon_streams import PORT, Streams, document, lab, policy, start, streams, write
from tests.running import PATIENCE, Process, until

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
SECONDS = float(os.environ.get("OVSFW_SOAK", "8"))
SEED = int(os.environ.get("OVSFW_SOAK_SEED", "1"))
# How long what was sent before a fault may be on its way: queued at a switch that the machine lets wait.
UNDER_WAY = 0.5
__all__ = ["lab", "policy"]


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


class Deed(NamedTuple):
    """What was done, between which times of time.monotonic()."""

    name: str
    began: float
    ended: float


class Soak:
    """The daemon, and what is done to it and around it; `deeds` is what was."""

    def __init__(self, made: Lab, document_file: Path, dice: random.Random) -> None:
        self.lab, self.policy, self.dice = made, document_file, dice
        self.deeds: list[Deed] = []
        self.gentle = (self.change, self.refuse, self.plug, self.unplug, self.meddle, self.reload)
        # While ovs-vswitchd is dead nothing passes.  While it has no ovsdb-server it speaks no OpenFlow, and one with
        # the userspace datapath forwards nothing; it asks again after up to 8 s (see docs/operations.md).
        self.stalling = (self.crash_database, self.crash_switch)
        self.harsh = (*self.gentle, self.restart, *self.stalling)
        self.daemon = Process(made.switch, document_file)
        self.daemon.in_sync()

    def change(self) -> None:
        write(self.policy, document(self.dice.randrange(60)))

    def refuse(self) -> None:
        right = self.policy.read_text()
        write(self.policy, "ports: 7")
        self.daemon.ask("reload")
        write(self.policy, right)

    def reload(self) -> None:
        self.daemon.process.send_signal(signal.SIGHUP)

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
        self.lab.switch.ofctl("show", "br-int")

    def crash_switch(self) -> None:
        before = self.daemon.connects()
        self.lab.switch.kill_vswitchd()
        self.lab.switch.start_vswitchd()
        until(lambda: self.daemon.connects() > before, "it has not connected again")

    def restart(self) -> None:
        self.daemon.end(self.dice.choice((signal.SIGTERM, signal.SIGKILL)))
        self.daemon = Process(self.lab.switch, self.policy)

    def go_on(self, deeds: tuple[Callable[[], None], ...], seconds: float) -> None:
        """Do something at random, wait until the daemon is well, and again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            deed, began = self.dice.choice(deeds), time.monotonic()
            deed()
            self.daemon.in_sync()
            self.deeds.append(Deed(deed.__name__, began, time.monotonic()))

    def judge(self, found: Streams) -> list[str]:
        """Losses that are not the switch's own fault, each with what was done then; all are printed."""
        stalls = [deed for deed in self.deeds if deed.name in {stall.__name__ for stall in self.stalling}]
        wrong = []
        for kind, numbers in found.items():
            for began, ended, packets in numbers["losses"]:
                near = [deed for deed in self.deeds if deed.began - UNDER_WAY <= ended and began <= deed.ended]
                told = ", ".join(f"{deed.name} {deed.began - began:+.2f}..{deed.ended - began:+.2f} s" for deed in near)
                line = f"{kind}: {packets} packets of {ended - began:.2f} s were lost; done then: {told or 'nothing'}"
                tell(line)
                if not any(stall.began - UNDER_WAY <= began and ended <= stall.ended for stall in stalls):
                    wrong.append(line)
        return wrong

    def held(self) -> tuple[int, int]:
        """Open files, and KiB of memory."""
        process = Path(f"/proc/{self.daemon.process.pid}")
        memory = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return len(list((process / "fd").iterdir())), int(memory.split()[1])


def test_soak(lab: Lab, policy: Path) -> None:
    soak = Soak(lab, policy, random.Random(SEED))  # noqa: S311 - the same again
    try:
        with streams(lab) as found:
            # The group of vm3 lets nothing out.
            stranger = start(lab, "vm3", "send", "udp", "10.9.0.3", "10.9.0.2", PORT)
            soak.go_on(soak.harsh, SECONDS / 2)
            before = soak.held()
            soak.go_on(soak.gentle, SECONDS / 2)
            after = soak.held()
            refused = stranger.communicate(timeout=PATIENCE)[0]
        tell(f"done: {dict(Counter(deed.name for deed in soak.deeds))}")
        for kind, numbers in found.items():
            tell(f"{kind}: {numbers['sent']} sent, {numbers['answered']} answered")
        assert soak.judge(found) == []
        assert found.keys() == {"udp", "tcp"}
        assert all(numbers["sent"] > SECONDS for numbers in found.values())
        assert '"answered": 0' in refused, "wrongly passed"
        until(lambda: is_verified(lab.switch, policy), "verify is clean")
        tell(f"open files and KiB of memory: {before}, and at the end {after}")
        assert after[0] <= before[0] + 3
        assert after[1] <= before[1] * 1.25 + 4096
        assert "Traceback" not in soak.daemon.log_file.read_text()
    finally:
        soak.daemon.end(signal.SIGKILL)
