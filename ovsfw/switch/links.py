"""Which Linux bridge a network device is in; ip-link(8)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ovsfw.errors import SwitchError

_DEVICES = Path("/sys/class/net")


def master_of(device: str) -> str:
    """The bridge that a device is in, "" for none.  Raises SwitchError when there is no such device."""
    place = _DEVICES / device
    if not place.exists():
        raise SwitchError(f"there is no network device {device}")
    master = place / "master"
    return master.resolve().name if master.exists() else ""


def set_master(device: str, bridge: str) -> None:
    """Put a device into a bridge, or with "" out of the one it is in.  Raises SwitchError."""
    program = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip"
    where = ["master", bridge] if bridge else ["nomaster"]
    done = subprocess.run(  # noqa: S603 - names of devices
        [program, "link", "set", "dev", device, *where], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SwitchError(f"{device} cannot be put into {bridge or 'no bridge'}: {done.stderr.strip()}")
