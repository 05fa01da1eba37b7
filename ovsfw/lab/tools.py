"""An Open vSwitch that somebody runs, and its tools."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.lab.netns import COMMAND_TIMEOUT
from ovsfw.switch.rundir import default_rundir

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Switch:
    """The Open vSwitch of a run directory, by default the machine's own.

    `db` is the database's address in the form of ovs-vsctl's `--db`, `rundir` is what OVS_RUNDIR must be for the tools.
    """

    def __init__(self, rundir: Path | None = None) -> None:
        """Nothing is asked of it yet."""
        self.rundir = rundir or default_rundir()
        self.db = f"unix:{self.rundir}/db.sock"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the tools of Open vSwitch find this switch by default."""
        directory = str(self.rundir)
        path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
        return {**os.environ, "PATH": path, **dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), directory)}

    def vsctl(self, *args: str) -> str:
        """What `ovs-vsctl` prints.  Raises SwitchError with its complaint."""
        return self.run("ovs-vsctl", f"--timeout={COMMAND_TIMEOUT:.0f}", *args)

    def ofctl(self, *args: str, stdin: str = "") -> str:
        """What `ovs-ofctl -O OpenFlow14` prints, with `stdin` to read from the file `-`."""
        return self.run("ovs-ofctl", "-O", "OpenFlow14", *args, stdin=stdin)

    def appctl(self, *args: str) -> str:
        """What `ovs-appctl` prints; it talks to ovs-vswitchd unless told otherwise."""
        return self.run("ovs-appctl", *args)

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a tool with this switch as its default.  Raises SwitchError with its complaint."""
        return _run(command, self.environment, stdin)


def not_installed(what: str) -> str:
    """What to do about a part of Open vSwitch that is not there."""
    return f"{what} not found: install Open vSwitch (apt-get install openvswitch-switch)"


def _run(command: Sequence[str], environment: dict[str, str], stdin: str) -> str:
    try:
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT
        )
    except FileNotFoundError:
        raise SwitchError(not_installed(command[0])) from None
    except subprocess.TimeoutExpired:
        raise SwitchError(f"{' '.join(command)}: no answer within {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise SwitchError(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
