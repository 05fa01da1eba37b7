"""Conversations between network namespaces that go on and on, one packet every 10 ms, and note what arrives."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
PERIOD = 0.01
_LIBC = ctypes.CDLL(None, use_errno=True)


def inside(netns: str, work: Callable[[], T]) -> T:
    """Do something in a namespace, in a thread that ends there; a socket made so belongs to it for good."""

    def enter() -> T:
        with open(f"/run/netns/{netns}") as handle:  # noqa: PTH123
            if _LIBC.setns(handle.fileno(), 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


class Stream:
    """`arrived` is when each packet came; numbers of datagrams are kept in `numbers`."""

    def __init__(self, name: str, sender: socket.socket, receiver: socket.socket) -> None:
        self.name = name
        self.arrived: list[float] = []
        self.numbers: list[int] = []
        self._sender, self._receiver = sender, receiver
        self._sent = itertools.count()
        self._ends = threading.Event()
        receiver.settimeout(0.1)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ends.wait(PERIOD):
            with contextlib.suppress(OSError):
                self._sender.send(self._packet(next(self._sent)))

    def _packet(self, number: int) -> bytes:
        return struct.pack("!I", number)

    def _number(self, data: bytes) -> int:
        return int(struct.unpack("!I", data[:4])[0])

    def _receive(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(OSError):
                data = self._receiver.recv(4096)
                self.arrived.append(time.monotonic())
                self.numbers.append(self._number(data))

    def goes_on(self, patience: float = 15.0) -> bool:
        """Whether something arrives that was not there yet."""
        before, deadline = len(self.arrived), time.monotonic() + patience
        while time.monotonic() < deadline:
            if len(self.arrived) > before + 2:
                return True
            time.sleep(PERIOD)
        return False

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()


class Ping(Stream):
    """Echo requests; what arrives are the replies."""

    def _packet(self, number: int) -> bytes:
        body = struct.pack("!HHI", 4242, number & 0xFFFF, number)
        total = sum(struct.unpack("!6H", struct.pack("!BBH", 8, 0, 0) + body))
        total = (total & 0xFFFF) + (total >> 16)
        return struct.pack("!BBH", 8, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + body

    def _number(self, data: bytes) -> int:
        return int(struct.unpack("!I", data[28:32])[0])


def upload(client: str, server: str, to: tuple[str, int]) -> Stream:
    """A TCP connection on which only the client sends."""
    near, far = _connected(client, server, to)
    return Stream("upload", near, far)


def download(client: str, server: str, to: tuple[str, int]) -> Stream:
    """A TCP connection on which only the server sends."""
    near, far = _connected(client, server, to)
    return Stream("download", far, near)


def _connected(client: str, server: str, to: tuple[str, int]) -> tuple[socket.socket, socket.socket]:
    def listen() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(to)
        made.listen()
        return made

    with inside(server, listen) as listener:
        near = inside(client, lambda: socket.create_connection(to, 10))
        listener.settimeout(10)
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.settimeout(0.1)
    far.settimeout(0.1)
    return near, far


def datagrams(client: str, server: str, to: tuple[str, int], *, down: bool) -> Stream:
    """UDP in one direction: from the client, or after one request from the server."""

    def bind() -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(to)
        return made

    def connect() -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.connect(to)
        return made

    far, near = inside(server, bind), inside(client, connect)
    far.settimeout(10)
    near.send(b"\0\0\0\0")
    _, back = far.recvfrom(100)
    far.connect(back)
    return Stream("udp down", far, near) if down else Stream("udp up", near, far)


def echoes(client: str, to: str) -> Stream:
    """Ping."""

    def connect() -> socket.socket:
        made = socket.socket(type=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP)
        made.connect((to, 0))
        return made

    near = inside(client, connect)
    return Ping("icmp", near, near)
