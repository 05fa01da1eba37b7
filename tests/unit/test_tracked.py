"""What conntrack prints, read; and packets made of it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, IPv6
from scapy.layers.l2 import Ether

from ovsfw.openflow.packet import answer_of
from ovsfw.openflow.tracked import Counters, Tuple, parse

# As Open vSwitch 3.1 prints them, with -m and -s, for both datapaths.
USERSPACE = (
    "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=33108,dport=80),reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=33108),"
    "id=0,zone=7,status=0,timeout=86400,mark=131078,labels=0x9c4a862cd534bda8,protoinfo=(state_orig=FIN_WAIT_2,"
    "state_reply=CLOSING,wscale_orig=10,wscale_reply=10,flags_orig=WINDOW_SCALE,flags_reply=WINDOW_SCALE)"
)
KERNEL = (
    "udp,orig=(src=2001:db8::1,dst=2001:db8::2,sport=5000,dport=53,packets=3,bytes=270),"
    "reply=(src=2001:db8::2,dst=2001:db8::1,sport=53,dport=5000,packets=1,bytes=90),start=2026-11-25T18:00:00.123,"
    "id=3334,zone=4096,status=SEEN_REPLY|CONFIRMED,timeout=29,mark=2"
)
PING = (
    "icmpv6,orig=(src=fe80::1,dst=fe80::2,id=23265,type=128,code=0),"
    "reply=(src=fe80::2,dst=fe80::1,id=23265,type=129,code=0),mark=2"
)
OTHER = "47,orig=(src=10.0.0.1,dst=10.0.0.2,sport=0,dport=0),reply=(src=10.0.0.2,dst=10.0.0.1,sport=0,dport=0),zone=1"


def test_both_datapaths_are_read() -> None:
    first, second, third, fourth = parse(f"{USERSPACE}\n{KERNEL}\nnonsense\n{PING}\n{OTHER}")
    assert first[:6] == (Tuple(6, "10.0.0.1", "10.0.0.2", 33108, 80), 7, 131078, 0x9C4A862CD534BDA8, True, 86400)
    assert first.state == "FIN_WAIT_2/CLOSING"
    assert second[:5] == (Tuple(17, "2001:db8::1", "2001:db8::2", 5000, 53), 4096, 2, 0, True)
    assert second[5:9] == (29, "2026-11-25T18:00:00.123", Counters(3, 270), Counters(1, 90))
    assert second.state == ""
    assert third[:5] == (Tuple(58, "fe80::1", "fe80::2", 23265, 0, (128, 0), (129, 0)), 0, 2, 0, True)
    assert third.timeout is None
    assert fourth[:5] == (Tuple(47, "10.0.0.1", "10.0.0.2"), 1, 0, 0, True)


def test_what_is_alike_but_for_the_client_s_port_is_told_apart() -> None:
    """Each line says the same alone as among others of its kind, of which only the first is taken apart."""
    kernel = KERNEL.replace(",packets=3,bytes=270", "").replace(",packets=1,bytes=90", "")
    lines = [
        line.replace(port, f"{port}{more}").replace("id=3334", f"id=3334{more}")
        for more in ("", "1", "2")
        for line, port in ((USERSPACE, "33108"), (kernel, "5000"), (PING, "23265"), (OTHER, "zone=1"))
    ]
    lines += [USERSPACE.replace(*change) for change in (("mark=131078", "mark=6"), ("sport=80", "sport=81"))]
    together = list(parse("\n".join(lines)))
    assert together == [entry for line in lines for entry in parse(line)]
    assert [entry.key.source_port for entry in together if entry.key.protocol == 6] == [
        33108, 331081, 331082, 33108, 33108,
    ]  # fmt: skip
    assert [entry.plain for entry in together] == [True] * 13 + [False]


@pytest.mark.parametrize("was", ["src=10.0.0.2", "dst=10.0.0.1", "sport=80", "dport=33108"])
def test_what_is_translated_is_not_plain(was: str) -> None:
    head, reply = USERSPACE.split("reply=", maxsplit=1)
    [entry] = parse(f"{head}reply={reply.replace(was, f'{was}9', 1)}")
    assert not entry.plain


def test_a_connection_of_another_names_it() -> None:
    [entry] = parse(f"{USERSPACE},parent=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=21)")
    assert entry.is_derived
    assert entry.is_helped
    assert entry.control == Tuple(entry.key.protocol, "10.0.0.1", "10.0.0.2", 1, 21)
    [control] = parse(f"{USERSPACE},helper=ftp")
    assert (control.is_helped, control.is_derived, control.control) == (True, False, None)
    [plain] = parse(USERSPACE)
    assert not plain.is_helped


def key(protocol: int, source: str, destination: str, *ports: int, echo: bool = False) -> Tuple:
    source_port, destination_port = (*ports, 0, 0)[:2]
    asked = 8 if protocol == 1 else 128
    icmp = ((asked, 0), (0 if protocol == 1 else 129, 0)) if echo else ()
    return Tuple(protocol, source, destination, source_port, destination_port, *icmp)


SAMPLES = [
    (key(6, "10.0.0.1", "10.0.0.2", 40000, 80), IP, TCP),
    (key(6, "2001:db8::1", "2001:db8::2", 40000, 80), IPv6, TCP),
    (key(17, "10.0.0.1", "10.0.0.2", 40000, 53), IP, UDP),
    (key(17, "2001:db8::1", "2001:db8::2", 40000, 53), IPv6, UDP),
    (key(1, "10.0.0.1", "10.0.0.2", 77, echo=True), IP, ICMP),
    (key(58, "2001:db8::1", "2001:db8::2", 77, echo=True), IPv6, ICMPv6EchoReply),
]


@pytest.mark.parametrize(("tuple_", "network", "transport"), SAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_packet_is_of_its_connection_and_every_checksum_is_right(
    tuple_: Tuple, network: type, transport: type
) -> None:
    data = answer_of(tuple_)
    assert data is not None
    frame = Ether(data)
    assert (frame[network].src, frame[network].dst) == (tuple_.destination, tuple_.source)
    inner = frame[transport]
    if transport in (TCP, UDP):
        assert (inner.sport, inner.dport) == (tuple_.destination_port, tuple_.source_port)
    else:
        assert (inner.type, inner.code, inner.id) == (*tuple_.answer, tuple_.source_port)
    for layer, name in ((frame[network], "chksum"), (inner, "chksum"), (inner, "cksum")):
        if name in layer.fields:
            delattr(layer, name)
    assert bytes(frame) == data


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    """RFC 768: zero would say that there is none, which IPv6 does not allow."""
    for source_port in range(65536):
        data = answer_of(key(17, "10.0.0.1", "10.0.0.2", source_port, 53))
        assert data is not None
        if data[-2:] == b"\xff\xff":
            return
    pytest.fail("no port gave a checksum of zero")


def test_no_packet_is_made_up_where_that_cannot_be() -> None:
    assert answer_of(key(132, "10.0.0.1", "10.0.0.2", 1, 2)) is None
    assert answer_of(key(47, "10.0.0.1", "10.0.0.2")) is None
