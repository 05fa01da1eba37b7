"""What live connections may still do is changed one by one, and never for another than is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product
from typing import TypeVar

import pytest
from scapy.packet import Packet

from ovsfw.compiler import pipeline as p
from ovsfw.connections import Fate, Judge
from ovsfw.openflow.tracked import Tracked
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import management_socket
from tests.dummy import BRIDGE
from tests.ovs.packets.bench import Bench, ingress, vm
from tests.ovs.packets.frames import ping, pong, tcp, udp

pytestmark = pytest.mark.ovs
T = TypeVar("T")
BACK = {"sport": 80, "dport": 30000}


def with_channel(bench: Bench, work: Callable[[Channel], Awaitable[T]]) -> T:
    async def run() -> T:
        channel = Channel()
        await channel.connect(management_socket(BRIDGE, bench.switch.switch.rundir))
        try:
            return await work(channel)
        finally:
            channel.close()

    return asyncio.run(run())


def live(bench: Bench, zones: tuple[int, ...] = (p.UNTAGGED,)) -> list[Tracked]:
    return with_channel(bench, lambda channel: channel.connections(zones))


def remark(bench: Bench, entries: list[Tracked], *, blocked: bool) -> None:
    with_channel(bench, lambda channel: channel.remark(entries, blocked=blocked))


def conversation(kind: str, family: int) -> tuple[list[tuple[str, Packet]], list[tuple[str, Packet]]]:
    """How it begins, and what goes on in each direction; vm1 asks vm2."""
    if kind == "tcp":
        begin = [
            ("vm1", tcp(family, "vm1", "vm2", dport=80, sport=30000, flags="S", seq=99)),
            ("vm2", tcp(family, "vm2", "vm1", **BACK, flags="SA", seq=999, ack=100)),
            ("vm1", tcp(family, "vm1", "vm2", dport=80, sport=30000, flags="A", seq=100, ack=1000)),
        ]
        return begin, [
            ("vm1", tcp(family, "vm1", "vm2", dport=80, sport=30000, flags="PA", seq=100, ack=1000)),
            ("vm2", tcp(family, "vm2", "vm1", **BACK, flags="PA", seq=1000, ack=107)),
        ]
    if kind == "udp":
        both = [("vm1", udp(family, "vm1", "vm2", 80)), ("vm2", udp(family, "vm2", "vm1", **BACK))]
    else:
        both = [("vm1", ping(family, "vm1", "vm2")), ("vm2", pong(family, "vm2", "vm1"))]
    return both, both


def begun(bench: Bench, kind: str, family: int) -> list[tuple[str, Packet]]:
    """vm1 and vm2 may do anything, and talk; how they go on."""
    bench.enforce(vm(1, "open"), vm(2, "open"))
    begin, go_on = conversation(kind, family)
    for sender, frame in begin:
        bench.sends(sender, frame)
    return go_on


@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_a_connection_is_blocked_in_both_directions_and_lives_again(bench: Bench, family: int, kind: str) -> None:
    go_on = begun(bench, kind, family)
    other = {"vm1": "vm2", "vm2": "vm1"}
    before = live(bench)
    assert [entry.mark & p.BLOCKED for entry in before] == [0]
    for _ in range(2):
        remark(bench, before, blocked=True)
        for sender, frame in go_on:
            bench.sends(sender, frame).stopped(by=p.Reason.BLOCKED)
        remark(bench, live(bench), blocked=False)
        for sender, frame in go_on:
            bench.sends(sender, frame).reaches(other[sender])
    assert [(entry.key, entry.mark, entry.label) for entry in live(bench)] == [
        (entry.key, entry.mark, entry.label) for entry in before
    ]


def test_a_connection_that_is_still_being_opened_is_blocked(bench: Bench, family: int) -> None:
    bench.enforce(vm(1, "open"), vm(2, "open"))
    first = tcp(family, "vm1", "vm2", dport=80, sport=30000, flags="S", seq=99)
    bench.sends("vm1", first)
    assert [entry.state for entry in live(bench)] == ["SYN_SENT/CLOSED"]
    remark(bench, live(bench), blocked=True)
    bench.sends("vm1", first).stopped(by=p.Reason.BLOCKED)


@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_what_nobody_has_answered_yet_is_blocked(bench: Bench, family: int, kind: str) -> None:
    """Conntrack calls it new as long."""
    bench.enforce(vm(1, "open"), vm(2, "open"))
    (sender, frame), _ = conversation(kind, family)[0]
    bench.sends(sender, frame)
    remark(bench, live(bench), blocked=True)
    bench.sends(sender, frame).stopped(by=p.Reason.BLOCKED)


@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_nothing_is_made_of_a_connection_that_is_gone(bench: Bench, family: int, kind: str) -> None:
    begun(bench, kind, family)
    gone = live(bench)
    bench.switch.forget()
    remark(bench, gone, blocked=True)
    assert live(bench) == []


@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_what_another_filter_let_in_goes_on_when_it_is_taken_over(bench: Bench, family: int, kind: str) -> None:
    """Before that, an answer is nothing that the rules of the one who asked know of."""
    web = [ingress(family, protocol) for protocol in ("tcp", "udp", "icmp" if family == 4 else "ipv6-icmp")]
    bench.enforce(vm(1, "talker"), vm(2, "web"), web=web)
    begin, go_on = conversation(kind, family)
    for sender, frame in begin:
        bench.sends(sender, frame)
    [ours] = live(bench)
    bench.switch.forget()
    switch = bench.switch.switch
    for here, there in ((1, 2), (2, 1)):
        other = f"in_port={here},actions=ct(commit,zone={p.UNTAGGED}),output:{there}"
        switch.ofctl("add-flows", BRIDGE, "-", stdin=f"priority=2000,ip,{other}\npriority=2000,ipv6,{other}\n")
    for sender, frame in begin:
        bench.sends(sender, frame)
    for here, kind_of_ip in product((1, 2), ("ip", "ipv6")):
        switch.ofctl("--strict", "del-flows", BRIDGE, f"table=0,priority=2000,{kind_of_ip},in_port={here}")
    answer = go_on[1]
    bench.sends(*answer).stopped(by=p.Reason.DENIED)
    judged = [Judge(bench.policy, bench.bindings).judge(entry) for entry in live(bench)]
    assert [one.fate for one in judged] == [Fate.ADOPT]
    with_channel(bench, lambda channel: channel.take_over([one.entry for one in judged]))
    assert [(entry.key, entry.mark, entry.label) for entry in live(bench)] == [(ours.key, ours.mark, ours.label)]
    bench.sends(*answer).reaches("vm1")
    # Who has a mark keeps it.
    with_channel(bench, lambda channel: channel.take_over([ours._replace(mark=p.BLOCKED)]))
    assert [entry.mark for entry in live(bench)] == [ours.mark]


def test_exactly_the_one_that_is_meant(bench: Bench) -> None:
    """Same addresses, another port; same tuple, another network."""
    bench.enforce(vm(1, "open"), vm(2, "open"))
    frames = [udp(4, "vm1", "vm2", 80, sport) for sport in (30000, 30001)]
    for frame in frames:
        bench.sends("vm1", frame)
    [meant] = [entry for entry in live(bench) if entry.key.source_port == 30000]
    remark(bench, [meant, meant._replace(zone=7)], blocked=True)
    bench.sends("vm1", frames[0]).stopped(by=p.Reason.BLOCKED)
    bench.sends("vm1", frames[1]).reaches("vm2")
    assert live(bench, (7,)) == []
    with_channel(bench, lambda channel: channel.forget_connections([meant]))
    assert [entry.key.source_port for entry in live(bench)] == [30001]


@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_forgetting_what_is_gone_is_fine_and_icmp_stays(bench: Bench, family: int, kind: str) -> None:
    begun(bench, kind, family)
    entries = live(bench)
    for _ in range(2):
        with_channel(bench, lambda channel: channel.forget_connections(entries))
        assert live(bench) == (entries if kind == "icmp" else [])


def test_zones_that_are_not_asked_for_are_not_told(bench: Bench) -> None:
    bench.enforce(vm(1, "open"), vm(2, "open"))
    bench.sends("vm1", udp(4, "vm1", "vm2", 80))
    assert live(bench, ()) == []
    assert live(bench, (7,)) == live(bench, (7, 8)) == []
    assert live(bench, (p.UNTAGGED,)) == live(bench, (p.UNTAGGED, 7))
