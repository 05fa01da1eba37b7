"""Packets for connections, by scapy."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet, Raw

from ovsfw.policy import verdict as v
from ovsfw.policy.addresses import Family, format_mac
from ovsfw.policy.verdict import Connection

ECHO_REPLIES = (0, 129)
GRE_PROTOCOL = 47
ROUTER = 0x525400FFFFFE


def packet(
    connection: Connection, macs: tuple[int, int], vlan: int = 0, *, answer: bool = False, first: bool = True
) -> bytes:
    """The first packet of a connection, or its first answer; `macs` are of sender and receiver."""
    ether = Ether(src=format_mac(macs[0]), dst=format_mac(macs[1]))
    if vlan:
        ether /= Dot1Q(vlan=vlan)
    network = (
        IP(src=str(connection.source), dst=str(connection.destination))
        if connection.family is Family.IPV4
        else IPv6(src=str(connection.source), dst=str(connection.destination))
    )
    return bytes(ether / network / _transport(connection, answer=answer, first=first))


def _transport(connection: Connection, *, answer: bool, first: bool) -> Packet:
    ports = {"sport": connection.source_port, "dport": connection.destination_port}
    protocol = connection.protocol
    if protocol == v.TCP:
        flags = ("SA" if answer else "S") if first else "A"
        return TCP(**ports, flags=flags, seq=2000 if answer else 1000, ack=1001 if answer else 0)
    if protocol == v.UDP:
        return UDP(**ports) / Raw(b"payload")
    if protocol == v.SCTP:
        return SCTP(**ports) / (SCTPChunkInitAck() if answer else SCTPChunkInit())
    if protocol == v.ICMP:
        return ICMP(type=connection.icmp_type, code=connection.icmp_code, id=7) / Raw(b"payload")
    if protocol == v.ICMPV6:
        return _icmpv6(connection)
    assert protocol == GRE_PROTOCOL
    return GRE() / IP() / UDP()


def _icmpv6(connection: Connection) -> Packet:
    if connection.icmp_type == v.ROUTER_ADVERTISEMENT:
        return ICMPv6ND_RA()
    kind = ICMPv6EchoReply if connection.icmp_type in ECHO_REPLIES else ICMPv6EchoRequest
    return kind(code=connection.icmp_code, id=7, data=b"payload")
