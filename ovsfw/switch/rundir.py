"""Where the sockets of Open vSwitch are, and why one cannot be reached.

Open vSwitch keeps them in its run directory: `db.sock`, `<bridge>.mgmt`, and `<daemon>.<pid>.ctl`, which is found by
the pid file (ovs-appctl(8), ovs-vsctl(8)).
"""

from __future__ import annotations

import os
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


def management_socket(bridge: str, rundir: Path | None = None) -> Path:
    """Where a bridge takes OpenFlow connections."""
    return (rundir or default_rundir()) / f"{bridge}.mgmt"


def control_socket(daemon: str = SWITCH, rundir: Path | None = None) -> Path:
    """Where a running daemon takes ovs-appctl's commands.  Raises SwitchError when it is not running."""
    directory = rundir or default_rundir()
    pid = _living(daemon, directory)
    with_pid, without = directory / f"{daemon}.{pid}.ctl", directory / f"{daemon}.ctl"
    if pid and with_pid.exists():
        return with_pid
    if without.exists():
        return without
    raise SwitchError(not_running(daemon, directory))


def bridges_in(rundir: Path) -> list[str]:
    """The bridges that a running switch has there, sorted."""
    return sorted(path.stem for path in rundir.glob("*.mgmt"))


def unreachable(path: Path, error: OSError) -> SwitchError:
    """Say why a socket in a run directory cannot be connected to, and what to do."""
    if isinstance(error, PermissionError):
        return SwitchError(f"{path}: permission denied; run this as root, or as the user that runs Open vSwitch")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        daemon = DATABASE if path.name == "db.sock" else SWITCH
        if path.suffix == ".mgmt" and _living(SWITCH, path.parent):
            return no_bridge(path.stem, bridges_in(path.parent))
        return SwitchError(not_running(daemon, path.parent))
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


def _living(daemon: str, rundir: Path) -> int:
    """The pid of a daemon by its pid file, 0 when it is not alive."""
    try:
        pid = int((rundir / f"{daemon}.pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if Path(f"/proc/{pid}").exists() else 0
