"""The same as tests/dummy.py on the kernel datapath: ports are veths, and a test holds their other ends.

Nothing says when the kernel has dealt with a packet (its first one goes up to ovs-vswitchd and comes back), so `send`
waits until nothing has come out for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from tests.conftest import WITH_VETHS
from tests.dummy import BRIDGE, DummySwitch

# Seconds.  An emulated machine is ten times slower.
QUIET = float(os.environ.get("OVSFW_QUIET", "0.05"))
PATIENCE = 5.0
_EVERYTHING = 0x0003  # ETH_P_ALL
_CLONE_NEWNET = 0x40000000
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
_LARGEST = 1 << 16
# The ends stay silent (no addresses, no neighbour discovery of their own) and leave VLAN tags in the packets.
_SET_UP = """
set -e
ip link del "$1" 2> /dev/null || true # of a bridge that is gone
ip link add "$1" mtu 9000 type veth peer name "$2" mtu 9000
for name in "$@"; do
    echo 1 > "/proc/sys/net/ipv6/conf/$name/disable_ipv6"
    ethtool -K "$name" tx off rxvlan off txvlan off gro off > /dev/null
    ip link set "$name" arp off up
done
"""


class VethSwitch(DummySwitch):
    """A bridge of the kernel datapath with veths, by OpenFlow number."""

    DATAPATH = os.environ.get("OVSFW_DATAPATH", "system")

    def _plug(self, ofport: int) -> list[str]:
        ours, theirs = f"q{ofport}", f"p{ofport}"
        inside = self.switch.netns
        netns.inside(inside, "sh", "-c", _SET_UP, "sh", ours, theirs)
        self._read[ofport] = 0
        self._sockets = getattr(self, "_sockets", {})
        self._sockets[ofport] = _packet_socket(inside, ours)
        return []

    def send(self, ofport: int, *packets: bytes) -> dict[int, list[bytes]]:
        """Let packets come in by a port; what came out, by port."""
        for packet in packets:
            self._sockets[ofport].send(packet)
        found: dict[int, list[bytes]] = {}
        ports = {sock: number for number, sock in self._sockets.items()}
        deadline = time.monotonic() + PATIENCE
        while ready := select.select(list(ports), [], [], QUIET)[0]:
            for sock in ready:
                found.setdefault(ports[sock], []).append(_receive(sock))
            assert time.monotonic() < deadline, "packets come without end"
        return found


def make_switch(ovs: PrivateSwitch, ofports: Iterable[int], bridge: str = BRIDGE) -> DummySwitch:
    """With dummies, or with veths where OVSFW_DATAPATH is set."""
    return (VethSwitch if WITH_VETHS else DummySwitch)(ovs, ofports, bridge)


def _receive(sock: socket.socket) -> bytes:
    """One frame, as it was on the wire: the kernel takes the outer VLAN tag off and says so beside it."""
    data, notes, _, _ = sock.recvmsg(_LARGEST, socket.CMSG_SPACE(_AUXDATA.size))
    for level, kind, value in notes:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tag, tpid = _AUXDATA.unpack(value[: _AUXDATA.size])
            if status & _VLAN_VALID:
                ethertype = tpid if status & _TPID_VALID else 0x8100
                return data[:12] + struct.pack("!HH", ethertype, tag) + data[12:]
    return data


def _packet_socket(namespace: str, device: str) -> socket.socket:
    """A raw socket on a device of another network namespace; it does not see what it sends (packet(7))."""
    with _inside(namespace):
        # Protocol 0 gets nothing until it is bound.
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.bind((device, _EVERYTHING))
    return sock


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """This thread is in another network namespace for a while (setns(2); os.setns is new in Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, (netns.NAMES / namespace).open() as there:
        _set(libc, there.fileno())
        try:
            yield
        finally:
            _set(libc, home.fileno())


def _set(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
