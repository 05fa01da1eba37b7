"""Frames of the self-test that carry a mark: right in every byte, and the mark is not behind the packet but in it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ovsfw.lab import frames as f
from ovsfw.policy import verdict
from ovsfw.policy.addresses import Family, Prefix

MARK = bytes(range(16))
ENDS = {
    Family.IPV4: (Prefix.parse("10.0.0.1"), Prefix.parse("10.0.0.2")),
    Family.IPV6: (Prefix.parse("2001:db8::1"), Prefix.parse("2001:db8::2")),
}


def body(family: Family, protocol: int) -> bytes:
    source, destination = ENDS[family]
    if protocol == verdict.TCP:
        return f.tcp(source, destination, (30000, 80), 0x02)
    return f.udp(source, destination, (30000, 53), b"selftest")


def framed(family: Family, protocol: int, data: bytes) -> bytes:
    return f.ethernet(2, 1, f.IP_TYPE[family], f.ip(*ENDS[family], protocol, data))


def inside(frame: bytes) -> bytes:
    """What is left when the frame is cut to the length that IP says."""
    packet = Ether(frame)[1]
    return frame[: 14 + (packet.len if IP in packet else 40 + packet.plen)]


def rebuilt(frame: bytes) -> bytes:
    """The same with lengths and checksums as scapy works them out."""
    packet: Packet = Ether(frame)
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if layer in packet:
            for field in fields:
                packet[layer].delfieldval(field)
    return bytes(packet)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("protocol", [verdict.TCP, verdict.UDP])
def test_the_mark_is_data(family: Family, protocol: int) -> None:
    frame = f.marked(framed(family, protocol, body(family, protocol)), MARK)
    assert frame.endswith(MARK)
    assert inside(frame) == frame
    assert rebuilt(frame) == frame


def test_it_is_data_behind_extension_headers_too() -> None:
    hidden = f.extended(verdict.TCP, body(Family.IPV6, verdict.TCP))
    frame = f.marked(framed(Family.IPV6, f.DESTINATION_OPTIONS, hidden), MARK)
    assert frame.endswith(MARK)
    assert inside(frame) == frame
    assert rebuilt(frame) == frame


@pytest.mark.parametrize("family", Family)
def test_of_other_packets_it_is_behind(family: Family) -> None:
    frame = framed(family, 47, b"something")
    assert f.marked(frame, MARK) == frame + MARK
    assert inside(f.marked(frame, MARK)) == frame
    assert f.marked(b"\xff" * 14 + b"arp", MARK) == b"\xff" * 14 + b"arp" + MARK


def test_a_fragment_keeps_its_length() -> None:
    frame = bytearray(framed(Family.IPV4, verdict.UDP, body(Family.IPV4, verdict.UDP)))
    frame[20] |= 0x20  # more fragments
    assert f.marked(bytes(frame), MARK) == bytes(frame) + MARK
