"""What is asked, in words and as a captured packet."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import wrpcap, wrpcapng

from ovsfw.errors import ConfigError
from ovsfw.explain import capture
from ovsfw.explain.frame import read_frame
from ovsfw.explain.question import Service, connection_of, find_end, find_ends, read_service, split_words
from ovsfw.policy.addresses import Family
from ovsfw.policy.document import parse

POLICY = parse(
    """
ports:
  - {id: vm1, name: web, mac_address: "52:54:00:00:00:01", network_id: a, fixed_ips: [{ip_address: 10.9.0.1}]}
  - {id: vm2, name: web, mac_address: "52:54:00:00:00:02", network_id: b, fixed_ips: [{ip_address: 10.9.0.1}]}
  - {id: vm3, name: db, mac_address: "52:54:00:00:00:03", network_id: a,
     fixed_ips: [{ip_address: 10.9.0.3}, {ip_address: "2001:db8::3"}]}
""",
    "test",
)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["vm1", "->", "vm2", "tcp/80"], ("vm1", "vm2", "tcp/80")),
        (["vm1 to vm2 tcp/80"], ("vm1", "vm2", "tcp/80")),
        (["vm1", "vm2", "tcp/80"], ("vm1", "vm2", "tcp/80")),
        (["vm1", "vm2"], ("vm1", "vm2", "icmp")),
        (["my vm", "to", "vm2", "icmp"], ("my vm", "vm2", "icmp")),
        (["vm1", "to"], ("vm1", "to", "icmp")),
    ],
)
def test_words(words: list[str], found: tuple[str, str, str]) -> None:
    assert split_words(words) == found


@pytest.mark.parametrize(("words", "said"), [(["vm1", "-", "icmp"], "quotes"), (["vm1"], "ask:"), ([*"abcd"], "ask:")])
def test_what_is_no_question(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_words(words)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("tcp/443", Service(6, 443)),
        ("UDP/53", Service(17, 53)),
        ("sctp/9", Service(132, 9)),
        ("icmp", Service(1)),
        ("icmp/3/1", Service(1, 0, 3, 1)),
        ("icmpv6/128", Service(58, 0, 128)),
        ("proto/47", Service(47)),
        ("gre", Service(47)),
        ("proto/6/80", Service(6, 80)),
    ],
)
def test_services(text: str, service: Service) -> None:
    assert read_service(text) == service


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp", "it needs a port"),
        ("tcp/http", "it needs a port"),
        ("tcp/70000", "from 0 to 65535"),
        ("icmp/300", "from 0 to 255"),
        ("tpc/80", "did you mean tcp"),
        ("gre/80", "has no ports"),
        ("any", "one protocol"),
    ],
)
def test_what_is_no_service(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_service(text)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("web", r"2 ports are meant by that; name one by its id: vm1 \(52:54:00:00:00:01\), vm2"),
        ("10.9.0.1", "2 ports are meant"),
        ("wbe", "did you mean web"),
        ("239.1.1.1", "many machines"),
    ],
)
def test_what_is_no_end(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_end(POLICY, word)


def test_the_network_of_one_end_tells_the_other() -> None:
    sender, receiver = find_ends(POLICY, "10.9.0.1", "db")
    assert (sender.port, receiver.port) == (POLICY.ports["vm1"], POLICY.ports["vm3"])
    with pytest.raises(ConfigError, match="the same port"):
        find_ends(POLICY, "db", "vm3")
    with pytest.raises(ConfigError, match=r"neither 8\.8\.8\.8 nor"):
        find_ends(POLICY, "8.8.8.8", "9.9.9.9")


def test_the_ip_version_is_one_that_both_have() -> None:
    outside = find_ends(POLICY, "2001:db8::9", "vm3")
    connection = connection_of(outside, read_service("icmp"), 1, None)
    assert (connection.family, connection.protocol, connection.icmp_type) == (Family.IPV6, 58, 128)
    inside = find_ends(POLICY, "vm1", "vm3")
    assert connection_of(inside, read_service("icmp"), 1, None).icmp_type == 8
    with pytest.raises(ConfigError, match=r"port web \(vm1\) has no IPv6 address"):
        connection_of(inside, read_service("icmp"), 1, Family.IPV6)
    with pytest.raises(ConfigError, match="not a protocol of IPv4"):
        connection_of(inside, read_service("icmpv6"), 1, Family.IPV4)


ETHER = Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (ETHER / V4 / TCP(sport=1, dport=2), "tcp 10.0.0.1:1 -> 10.0.0.2:2"),
        (ETHER / Dot1Q(vlan=7) / V4 / UDP(sport=1, dport=2), "udp 10.0.0.1:1 -> 10.0.0.2:2"),
        (ETHER / V4 / ICMP(type=8), "icmp/8/0 10.0.0.1 -> 10.0.0.2"),
        (ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=4, proto=17), "udp fragment 10.0.0.1 -> 10.0.0.2"),
        (ETHER / V6 / ICMPv6EchoRequest(), "icmp/128/0 2001:db8::1 -> 2001:db8::2"),
        (ETHER / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2), "udp [2001:db8::1]:1 ->"),
        (ETHER / V6 / IPv6ExtHdrFragment(offset=4, nh=17), "udp fragment 2001:db8::1 -> 2001:db8::2"),
        (ETHER / ARP(psrc="10.0.0.1", pdst="10.0.0.2"), "arp 10.0.0.1 -> 10.0.0.2"),
        (Ether(src="52:54:00:00:00:01", dst="01:80:c2:00:00:0e", type=0x88CC), "type 0x88cc 52:54:00:00:00:01 -> 01"),
    ],
)
def test_frames(packet: Packet, said: str) -> None:
    data = bytes(packet)
    assert str(read_frame(data)).startswith(said)
    for size in range(18, len(data)):
        str(read_frame(data[:size]))  # cut off anywhere, it is still read


def test_what_is_no_frame() -> None:
    with pytest.raises(ValueError, match="13 bytes are no Ethernet frame"):
        read_frame(bytes(13))


@pytest.mark.parametrize("write", [wrpcap, wrpcapng], ids=["pcap", "pcapng"])
def test_captures(tmp_path: Path, write: object) -> None:
    path = tmp_path / "x"
    sent = [ETHER / V4 / TCP(dport=number) for number in (1, 2, 3)]
    assert callable(write)
    write(str(path), sent)
    assert capture.from_file(path, 2) == bytes(sent[1])
    with pytest.raises(ConfigError, match="there is no packet 4; the file has 3"):
        capture.from_file(path, 4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither pcap nor pcapng"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113), "capture on one interface"),
        (struct.pack("<IHHiI", 0xA1B2C3D4, 2, 4, 0, 0), "no capture"),
        (bytes.fromhex("0a0d0d0a00000000") + bytes(8), "without byte order"),
        (bytes.fromhex("0a0d0d0a000000041a2b3c4d") + bytes(8), "a block of 4 bytes"),
    ],
)
def test_what_is_no_capture(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        capture.from_file(path, 1)


def test_hex() -> None:
    assert capture.from_hex("0x52:54 00") == bytes.fromhex("525400")
    with pytest.raises(ConfigError, match="hexadecimal"):
        capture.from_hex("52z")
    with pytest.raises(ConfigError, match="cannot be read"):
        capture.from_file(Path("/nowhere"), 1)
