"""Packets that somebody has captured: a file of tcpdump or Wireshark, or hex.

Sources: pcap (draft-ietf-opsawg-pcap), pcapng (draft-ietf-opsawg-pcapng).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ovsfw.errors import ConfigError

_PCAP = {b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">", b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<"}
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6
_SECTION_ORDER = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_ETHERNET = 1
_LINK_TYPE_BITS = 0xFFFF
_SMALLEST_BLOCK = 12
MAX_BYTES = 256 * 1024 * 1024


def from_hex(text: str) -> bytes:
    """The bytes in `52 54 00 ...`, with or without spaces, colons and 0x.  Raises ConfigError."""
    try:
        return bytes.fromhex(text.lower().removeprefix("0x").replace(":", " "))
    except ValueError:
        raise ConfigError("--hex: that is not a frame in hexadecimal (an even number of the digits 0-9 a-f)") from None


def from_file(path: Path, number: int) -> bytes:
    """The packet of a capture by its number, from 1.  Raises ConfigError that says what is wrong with the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = list(islice(packets(data), number))
    except (struct.error, ValueError) as error:
        raise ConfigError(f"{path}: no capture that can be read: {error}") from None
    if not 1 <= number <= len(found):
        raise ConfigError(f"{path}: there is no packet {number}; the file has {len(found)}")
    return found[number - 1]


def packets(data: bytes) -> Iterator[bytes]:
    """The frames in a file; what follows a cut is left out.  Raises ValueError when it is no capture of Ethernet."""
    if data[:4] in _PCAP:
        return _pcap(data, _PCAP[data[:4]])
    if data[:4] == _SECTION.to_bytes(4, "big"):
        return _pcapng(data)
    raise ValueError("it is neither pcap nor pcapng")


def _refuse(link_type: int) -> None:
    if link_type != _ETHERNET:
        raise ValueError(f"link type {link_type} is not Ethernet; capture on one interface, not on 'any'")


def _pcap(data: bytes, order: str) -> Iterator[bytes]:
    _refuse(struct.unpack_from(f"{order}I", data, 20)[0] & _LINK_TYPE_BITS)
    at = 24
    while at + 16 <= len(data):
        (size,) = struct.unpack_from(f"{order}I", data, at + 8)
        yield data[at + 16 : at + 16 + size]
        at += 16 + size


def _pcapng(data: bytes) -> Iterator[bytes]:
    """Block after block; each says its length, interfaces say their kind, and each section its byte order."""
    at, order, link_types = 0, ">", list[int]()
    while at + _SMALLEST_BLOCK <= len(data):
        if data[at : at + 4] == _SECTION.to_bytes(4, "big"):
            order, link_types = _SECTION_ORDER.get(data[at + 8 : at + 12], ""), []
            if not order:
                raise ValueError("a section without byte order")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if size < _SMALLEST_BLOCK:
            raise ValueError(f"a block of {size} bytes cannot be")
        body = data[at + 8 : at + size - 4]
        if kind == _INTERFACE:
            link_types.append(struct.unpack_from(f"{order}H", body)[0])
        elif kind == _ENHANCED:
            interface, _, _, captured, _ = struct.unpack_from(f"{order}5I", body)
            _refuse(link_types[interface] if interface < len(link_types) else -1)
            yield body[20 : 20 + captured]
        elif kind == _SIMPLE:
            _refuse(link_types[0] if link_types else -1)
            yield body[4 : 4 + struct.unpack_from(f"{order}I", body)[0]]
        at += size
