"""Where the sockets of Open vSwitch are, and why one cannot be reached.

Open vSwitch keeps them in its run directory: `db.sock`, `<bridge>.mgmt`, and `<daemon>.<pid>.ctl`, which is found by
the pid file (ovs-appctl(8), ovs-vsctl(8)).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from ovsfw.errors import SwitchError

DEFAULT = "/var/run/openvswitch"
SWITCH, DATABASE = "ovs-vswitchd", "ovsdb-server"


def default_rundir() -> Path:
    """`$OVS_RUNDIR`, as all tools of Open vSwitch have it, or where packages put it."""
    return Path(os.environ.get("OVS_RUNDIR") or DEFAULT)


def default_database() -> str:
    """The local database, in the form of ovs-vsctl's `--db`."""
    return f"unix:{default_rundir()}/db.sock"


def rundir_of(db: str) -> Path:
    """The run directory that a local OVSDB address points into; the default one for an address without a path."""
    kind, _, path = db.partition(":")
    return Path(path).parent if kind == "unix" else default_rundir()


def management_socket(bridge: str, rundir: Path | None = None) -> Path:
    """Where a bridge takes OpenFlow connections."""
    return (rundir or default_rundir()) / f"{bridge}.mgmt"


def control_socket(daemon: str = SWITCH, rundir: Path | None = None) -> Path:
    """Where a running daemon takes ovs-appctl's commands.  Raises SwitchError when it is not running."""
    directory = rundir or default_rundir()
    found = find_control_socket(daemon, directory)
    if found is None:
        raise SwitchError(not_running(daemon, directory))
    return found


def bridges_in(rundir: Path) -> list[str]:
    """The bridges that a running switch has there, sorted."""
    return sorted(path.stem for path in rundir.glob("*.mgmt"))


def unreachable(path: Path, error: OSError) -> SwitchError:
    """Say why a socket in a run directory cannot be connected to, and what to do."""
    if isinstance(error, PermissionError):
        return SwitchError(f"{path}: permission denied; run this as root, or as the user that runs Open vSwitch")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        if path.suffix == ".mgmt" and find_control_socket(SWITCH, path.parent):
            others = bridges_in(path.parent)
            if path.stem in others:  # the socket of a switch that was killed; the one that runs has not come to it yet
                return SwitchError(f"{path}: ovs-vswitchd is there, but does not listen; it may be starting")
            return no_bridge(path.stem, others)
        return SwitchError(not_running(DATABASE if path.name == "db.sock" else SWITCH, path.parent))
    return SwitchError(f"{path}: {error.strerror or error}")


def no_bridge(bridge: str, others: list[str]) -> SwitchError:
    """Say that a bridge is missing, which there are, and how to add it."""
    have = f"there are {', '.join(others)}" if others else "there is none"
    return SwitchError(f"no bridge {bridge} ({have}); choose another, or add it with: ovs-vsctl add-br {bridge}")


def not_running(daemon: str, rundir: Path) -> str:
    """Say that a daemon is away and how to start it."""
    return (
        f"{daemon} is not running in {rundir}; start Open vSwitch (systemctl start openvswitch-switch), "
        "or set OVS_RUNDIR to its run directory"
    )


def find_control_socket(daemon: str, rundir: Path) -> Path | None:
    """The same, or None when it is not running."""
    candidates = [rundir / f"{daemon}.ctl"]
    with contextlib.suppress(OSError):
        candidates.insert(0, rundir / f"{daemon}.{(rundir / f'{daemon}.pid').read_text().strip()}.ctl")
    return next((path for path in candidates if _is_alive(path)), None)


def _is_alive(path: Path) -> bool:
    """Whether somebody listens on a socket; a pid would say nothing to a container with its own."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
