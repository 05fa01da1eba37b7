"""Entries of conntrack, in the form in which Open vSwitch prints them (`ovs-appctl dpctl/dump-conntrack`).

Text in, values out.  The userspace and the kernel datapath print alike (ct_dpif_format_entry() in Open vSwitch's
lib/ct-dpif.c); only the kernel counts packets and knows when a connection began, and both only when it is told to
(net.netfilter.nf_conntrack_acct, _timestamp).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_NUMBERS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "sctp": 132, "udplite": 136}

_TUPLE = r"\(src=([^,)]+),dst=([^,)]+)(?:,sport=(\d+),dport=(\d+)|,id=(\d+),type=(\d+),code=(\d+))?([^)]*)\)"
_ENTRY = re.compile(
    rf"^(\w+),orig={_TUPLE},reply={_TUPLE}"
    r"(?:,start=([^,]*))?(?:,stop=[^,]*)?(?:,id=\d+)?(?:,zone=(\d+))?(?:,status=[^,]*)?(?:,timeout=(\d+))?"
    r"(?:,mark=(\d+))?(?:,labels=0x([0-9a-f]+))?(.*)$"
)
# What differs between the connections of two machines to one service: the client's port, and in the kernel a number.
_ENDS = r"\(src=[^,]*,dst=[^,]*"
_CLIENT = re.compile(
    rf"(\w+,orig={_ENDS},sport=)(\d+)(,dport=\d+\),reply={_ENDS},sport=\d+,dport=)\2\)((?:,start=[^,]*)?)(?:,id=\d+)?(.*)"
)
_PARENT = re.compile(r",parent=\(src=([^,)]+),dst=([^,)]+),sport=(\d+),dport=(\d+)")
_COUNTED = re.compile(r",packets=(\d+),bytes=(\d+)")
_STATE = re.compile(r"state(?:_orig)?=(\w+)(?:,state_reply=(\w+))?")


class Counters(NamedTuple):
    """What went in one direction."""

    packets: int
    bytes: int


class Tuple(NamedTuple):
    """What identifies a connection: its first packet.

    Addresses are as printed.  For ICMP `source_port` is the identifier, `icmp` type and code, `answer` those of the
    reply.
    """

    protocol: int
    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0
    icmp: tuple[int, int] = (0, 0)
    answer: tuple[int, int] = (0, 0)


class Tracked(NamedTuple):
    """One entry.

    `plain` says that its replies are the mirror of its first packet: neither address nor port is translated.
    `timeout` is in seconds, and None where it was not asked for; `began` is as the kernel says it, "" when it does not;
    `sent` and `answered` are None where nobody counts; `more` is the rest of the line.
    """

    key: Tuple
    zone: int
    mark: int
    label: int
    plain: bool = True
    timeout: int | None = None
    began: str = ""
    sent: Counters | None = None
    answered: Counters | None = None
    more: str = ""

    @property
    def state(self) -> str:
        """The state of a TCP connection, that of the two ends where they differ: `ESTABLISHED`, `FIN_WAIT_1/CLOSING`.

        "" for anything else.
        """
        found = _STATE.search(self.more)
        if not found:
            return ""
        ours, theirs = found.groups()
        return ours if theirs in (None, ours) else f"{ours}/{theirs}"

    @property
    def is_helped(self) -> bool:
        """Whether a helper reads it, or expected it."""
        return ",helper=" in self.more or self.is_derived

    @property
    def is_derived(self) -> bool:
        """Whether a helper expected it: it is the data of another connection."""
        return ",parent=(" in self.more

    @property
    def control(self) -> Tuple | None:
        """The connection in which this one was agreed, of the same protocol; None where there is none to be read."""
        found = _PARENT.search(self.more) if self.is_derived else None
        if not found:
            return None
        source, destination, sport, dport = found.groups()
        return Tuple(self.key.protocol, source, destination, int(sport), int(dport))


def parse(text: str) -> Iterator[Tracked]:
    """Every entry of a dump; lines that are none are skipped.

    There may be a hundred thousand, most of them alike but for the client's port: each kind is taken apart once.
    """
    kinds: dict[tuple[str, ...], Tracked | None] = {}
    for line in text.splitlines():
        found = _CLIENT.match(line)
        if found is None:
            alone = _entry(line)
            if alone is not None:
                yield alone
            continue
        start, port, middle, began, end = found.groups()
        kind = (start, middle, began, end)
        if kind not in kinds:
            kinds[kind] = _entry(line)
        like = kinds[kind]
        if like is not None:
            key = like.key
            yield Tracked(Tuple(*key[:3], int(port), *key[4:]), *like[1:])


def _entry(line: str) -> Tracked | None:
    found = _ENTRY.match(line)
    if found is None:
        return None
    (
        name, source, destination, sport, dport, ident, kind, code, sent,
        back_from, back_to, back_sport, back_dport, _, back_kind, back_code, answered,
        began, zone, timeout, mark, label, more,
    ) = found.groups()  # fmt: skip
    protocol = _NUMBERS.get(name) or (int(name) if name.isdigit() else 0)
    icmp, answer = (int(kind or 0), int(code or 0)), (int(back_kind or 0), int(back_code or 0))
    key = Tuple(protocol, source, destination, int(sport or ident or 0), int(dport or 0), icmp, answer)
    plain = (source, destination, sport, dport) == (back_to, back_from, back_dport, back_sport)
    return Tracked(
        key, int(zone or 0), int(mark or 0), int(label or "0", 16), plain,
        int(timeout) if timeout else None, began or "", _counted(sent), _counted(answered), more,
    )  # fmt: skip


def _counted(text: str) -> Counters | None:
    found = _COUNTED.search(text) if text else None
    return Counters(int(found[1]), int(found[2])) if found else None
