"""The answer to a rejected packet, read by scapy: what it says, its checksums, and where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ovsfw.openflow.reject import answer

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("2001:db8::1", "2001:db8::2")}


def packet(family: int, inside: Packet, **over: str) -> Packet:
    source, destination = ENDS[family]
    fields = {"src": source, "dst": destination, **over}
    return Ether(src=A, dst=B) / (IP(**fields) if family == 4 else IPv6(**fields)) / inside


def answered(frame: Packet) -> Packet:
    """The answer; it goes back where the frame came from, and its checksums are right."""
    data = answer(bytes(frame))
    assert data is not None
    found = Ether(data)
    layer = IP if IP in frame else IPv6
    assert (found.src, found.dst) == (frame.dst, frame.src)
    assert (found[layer].src, found[layer].dst) == (frame[layer].dst, frame[layer].src)
    again = Ether(data)
    for part in (IP, TCP, ICMP, ICMPv6DestUnreach):
        if part in again:
            again[part].delfieldval("cksum" if part is ICMPv6DestUnreach else "chksum")
            if part is not IP:
                break
    assert bytes(again) == data
    return found


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def test_a_connection_is_reset(family: int) -> None:
    tcp = answered(packet(family, TCP(sport=4000, dport=80, seq=1000, flags="S")))[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags) == (80, 4000, 0, 1001, "RA")


def test_sequence_numbers_wrap(family: int) -> None:
    tcp = answered(packet(family, TCP(seq=0xFFFFFFFF, flags="S") / Raw(b"12")))[TCP]
    assert (tcp.seq, tcp.ack) == (0, 2)


def test_what_acknowledges_is_reset_from_there(family: int) -> None:
    tcp = answered(packet(family, TCP(seq=1000, ack=7777, flags="PA") / Raw(b"12345")))[TCP]
    assert (tcp.seq, tcp.ack, tcp.flags) == (7777, 0, "R")


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_other_protocols_are_told(family: int, size: int) -> None:
    sent = packet(family, UDP(sport=5, dport=53) / Raw(bytes(size)))
    found = answered(sent)
    kind = found[ICMP] if family == 4 else found[ICMPv6DestUnreach]
    assert (kind.type, kind.code) == ((3, 13) if family == 4 else (1, 1))
    quoted = bytes(kind.payload)
    assert bytes(sent.payload).startswith(quoted)
    assert len(quoted) >= min(len(sent.payload), 28)
    assert len(found.payload) <= (576 if family == 4 else 1280)


def test_requests_of_icmp_are_told() -> None:
    assert ICMPerror in answered(packet(4, ICMP(type=8)))
    assert ICMPv6DestUnreach in answered(packet(6, ICMPv6EchoRequest()))


def test_a_tag_goes_back(family: int) -> None:
    plain = packet(family, TCP(flags="S"))
    tagged = Ether(src=A, dst=B) / Dot1Q(vlan=5, prio=3) / plain.payload
    said, again = answer(bytes(plain)), answer(bytes(tagged))
    assert said is not None
    assert again == said[:12] + bytes(tagged)[12:16] + said[12:]


SILENT = {
    "a reset": packet(4, TCP(flags="R")),
    "a reset in IPv6": packet(6, TCP(flags="RA")),
    "an ICMP error": packet(4, ICMP(type=3, code=13)),
    "an ICMPv6 error": packet(6, ICMPv6DestUnreach()),
    "an answer": packet(4, ICMP(type=0)),
    "an answer in IPv6": packet(6, ICMPv6EchoReply()),
    "a later fragment": Ether(src=A, dst=B) / IP(src=ENDS[4][0], dst=ENDS[4][1], frag=5) / Raw(bytes(40)),
    "a fragment in IPv6": packet(6, IPv6ExtHdrFragment(nh=17) / Raw(bytes(40))),
    "broadcast": Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / IP(src=ENDS[4][0], dst="10.0.0.255") / UDP(),
    "multicast in a unicast frame": packet(4, UDP(), dst="224.0.0.5"),
    "multicast in IPv6": packet(6, UDP(), dst="ff02::1"),
    "broadcast in a unicast frame": packet(4, UDP(), dst="255.255.255.255"),
    "from nobody": packet(4, UDP(), src="0.0.0.0"),
    "from nobody in IPv6": packet(6, UDP(), src="::"),
    "from a multicast address": packet(4, UDP(), src="224.0.0.5"),
    "ARP": Ether(src=A, dst=B) / ARP(),
    "two tags": Ether(src=A, dst=B) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP(src=ENDS[4][0], dst=ENDS[4][1]) / UDP(),
    "a tag and nothing": Ether(src=A, dst=B) / Dot1Q(vlan=5),
    "a header cut short": Ether(src=A, dst=B) / IP(src=ENDS[4][0], dst=ENDS[4][1], proto=6) / Raw(bytes(8)),
}


@pytest.mark.parametrize("what", SILENT)
def test_there_is_no_answer_to(what: str) -> None:
    assert answer(bytes(SILENT[what])) is None


@given(st.sampled_from([bytes(packet(family, TCP(flags="S"))) for family in (4, 6)]), st.data())
def test_answers_are_never_answered(frame: bytes, data: st.DataObject) -> None:
    """Whatever comes in, nothing breaks, and two who reject everything do not talk for ever."""
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(12, len(changed) - 1))] = data.draw(st.integers(0, 255))
    said = answer(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
    assert said is None or answer(said) is None
