"""Which Linux bridge a network device is in (netdevice(7); linux/sockios.h: SIOCBRADDIF and SIOCBRDELIF)."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from ovsfw.errors import SwitchError

_DEVICES = Path("/sys/class/net")
_ADD, _DELETE = 0x89A2, 0x89A3
# The name of the bridge, and the number of the device.
_REQUEST = struct.Struct("16si20x")


def master_of(device: str) -> str:
    """The bridge that a device is in, "" for none.  Raises SwitchError when there is no such device."""
    place = _DEVICES / device
    if not place.exists():
        raise SwitchError(f"there is no network device {device}")
    master = place / "master"
    return master.resolve().name if master.exists() else ""


def enter(device: str, bridge: str) -> None:
    """Put a device into a bridge.  Raises SwitchError."""
    _ask(_ADD, device, bridge, "be put into")


def leave(device: str, bridge: str) -> None:
    """Take a device out of its bridge.  Raises SwitchError."""
    _ask(_DELETE, device, bridge, "be taken out of")


def _ask(command: int, device: str, bridge: str, what: str) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            fcntl.ioctl(asking, command, _REQUEST.pack(bridge.encode(), socket.if_nametoindex(device)))
    except OSError as error:
        raise SwitchError(f"{device} cannot {what} {bridge}: {error.strerror or error}") from None
