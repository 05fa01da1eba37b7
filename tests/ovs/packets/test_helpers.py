"""FTP and TFTP: data connections agreed in a control connection that a rule with a helper lets in, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import INGRESS_DATA, INGRESS_VERDICT, Reason
from ovsfw.connections import Judge
from ovsfw.openflow.diff import Diff
from ovsfw.settling import Settling, Totals
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import management_socket
from tests.conftest import WITH_VETHS
from tests.dummy import BRIDGE
from tests.ovs.packets.bench import Bench, Outcome, address, egress, ingress, mac, policy_of, tier, vm
from tests.ovs.packets.frames import ROUTER_MAC, address_of, cut, ip, tcp, udp

pytestmark = pytest.mark.ovs

CONTROL = 40000
DATA = 50000
FTP = [ingress(family, "tcp", 21, helper="ftp") for family in (4, 6)]
TFTP = [ingress(family, "udp", 69, helper="tftp") for family in (4, 6)]
TO_FTP = [egress(family, "tcp", 21, helper="ftp") for family in (4, 6)]
TO_TFTP = [egress(family, "udp", 69, helper="tftp") for family in (4, 6)]
CONTROL_PORTS = (("tcp", 21), ("udp", 69))
PLAIN = [ingress(family, *service) for family in (4, 6) for service in CONTROL_PORTS]
TO_PLAIN = [egress(family, *service) for family in (4, 6) for service in CONTROL_PORTS]
BACKWARDS = [write(family, "tcp", port) for write in (ingress, egress) for family in (4, 6) for port in (20, CONTROL)]
# What is left of a data connection that was cut: in userspace it is remembered; the kernel forgets it with its control
# connection, and takes no answer for a beginning.
CUT = (Reason.INVALID, Reason.BLOCKED) if WITH_VETHS else (Reason.BLOCKED,)
MACHINES = (vm(1, "server"), vm(2, "client"), vm(3, "open"), vm(4, "server"), vm(5, "nothing"))


def request(family: int) -> Packet:
    """Of TFTP, to read a file (RFC 1350): the kernel's helper looks at its code, that of userspace at nothing."""
    return ip(family, "vm2", "vm1") / UDP(sport=CONTROL, dport=69) / Raw(b"\0\1file\0octet\0")


def place(name: str) -> str:
    return name if name.startswith("vm") else "uplink"


@dataclass
class Ftp:
    """A control connection, segment by segment; who is not a machine is behind the uplink.

    Both have said something before a data connection is agreed, as RFC 959 has it (section 5.4): the kernel's helper
    reads a line only where it has seen the one before end.
    """

    bench: Bench
    family: int
    client: str
    server: str
    _next: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._next = {self.client: 1000, self.server: 5000}
        for sender, flags in ((self.client, "S"), (self.server, "SA"), (self.client, "A")):
            self.says(sender, flags).reaches(place(self.peer(sender)))
        for sender, text in ((self.server, "220 ready\r\n"), (self.client, "USER anonymous\r\n")):
            self.says(sender, text=text).reaches(place(self.peer(sender)))

    def peer(self, name: str) -> str:
        return self.server if name == self.client else self.client

    def says(self, sender: str, flags: str = "PA", text: str = "") -> Outcome:
        """One segment."""
        receiver = self.peer(sender)
        ports = (CONTROL, 21) if sender == self.client else (21, CONTROL)
        seq, ack = self._next[sender], self._next[receiver] if "A" in flags else 0
        segment = tcp(self.family, sender, receiver, sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack)
        self._next[sender] += len(text) + ("S" in flags)
        return self.bench.sends(place(sender), segment / Raw(text.encode()))

    def listens(self, sender: str, where: str, port: int = DATA) -> Outcome:
        """One end says where it listens: the client for active FTP, the server for passive."""
        numbers = f"{where.replace('.', ',')},{port >> 8},{port & 255}"
        active = sender == self.client
        if self.family == 4:
            return self.says(sender, text=f"PORT {numbers}\r\n" if active else f"227 Entering ({numbers}).\r\n")
        passive = f"229 Entering Extended Passive Mode (|||{port}|)\r\n"
        return self.says(sender, text=f"EPRT |2|{where}|{port}|\r\n" if active else passive)

    def agrees(self, mode: str) -> tuple[str, str]:
        """On a data connection; who begins it, and with whom."""
        begins, accepts = self.ends(mode)
        self.listens(accepts, address_of(self.family, accepts)).reaches(place(begins))
        return begins, accepts

    def ends(self, mode: str) -> tuple[str, str]:
        return (self.server, self.client) if mode == "active" else (self.client, self.server)


# Who has a rule with a helper: the server on this host, the client, or both.
SERVER_ALONE = partial(Ftp, client="outside", server="vm1")
CLIENT_ALONE = partial(Ftp, client="vm2", server="outside")
BOTH_HERE = partial(Ftp, client="vm2", server="vm1")
Dial = Callable[[Bench, int], Ftp]
dials = pytest.mark.parametrize("dial", [SERVER_ALONE, CLIENT_ALONE, BOTH_HERE], ids=["server", "client", "both"])
modes = pytest.mark.parametrize("mode", ["active", "passive"])


def first(family: int, begins: str, accepts: str, dport: int = DATA, **over: Any) -> Packet:
    """What begins a data connection."""
    return tcp(family, begins, accepts, **{"sport": 20, "dport": dport, **over})


def answer(family: int, begins: str, accepts: str, sport: int = DATA) -> Packet:
    return tcp(family, accepts, begins, sport=sport, dport=20, flags="SA", seq=2000, ack=1001)


def more(family: int, begins: str, accepts: str) -> Packet:
    return first(family, begins, accepts, flags="A", seq=1001, ack=2001)


@pytest.fixture
def helped(bench: Bench) -> Bench:
    bench.enforce(*MACHINES, server=[*FTP, *TFTP], client=[*TO_FTP, *TO_TFTP])
    return bench


def opened(ftp: Ftp, mode: str) -> tuple[str, str]:
    """A data connection that lives."""
    begins, accepts = ftp.agrees(mode)
    for sender, receiver, packet in conversation(ftp.family, begins, accepts):
        ftp.bench.sends(place(sender), packet).reaches(place(receiver))
    return begins, accepts


def conversation(family: int, begins: str, accepts: str) -> list[tuple[str, str, Packet]]:
    return [
        (begins, accepts, first(family, begins, accepts)),
        (accepts, begins, answer(family, begins, accepts)),
        (begins, accepts, more(family, begins, accepts)),
    ]


def settled(bench: Bench) -> Totals:
    """What a daemon does about live connections after a change."""

    async def run() -> Totals:
        channel = Channel()
        await channel.connect(management_socket(BRIDGE, bench.switch.switch.rundir))
        try:
            settling = Settling(channel)
            settling.begin(bench.policy, Judge(bench.policy, bench.bindings), Diff(), in_doubt=True)
            return await settling.finish()
        finally:
            channel.close()

    return asyncio.run(run())


# --- FTP ------------------------------------------------------------------------------------------------------------


@dials
@modes
def test_data_of_ftp(helped: Bench, family: int, dial: Dial, mode: str) -> None:
    """It passes in both directions once it is agreed, and not before."""
    ftp = dial(helped, family)
    begins, accepts = ftp.ends(mode)
    helped.sends(place(begins), first(family, begins, accepts)).stopped(by=Reason.DENIED)
    opened(ftp, mode)
    opened(ftp, mode)
    assert settled(helped) == Totals()
    helped.sends(place(begins), more(family, begins, accepts)).reaches(place(accepts))


@dials
@modes
def test_without_a_helper_there_is_no_data(bench: Bench, family: int, dial: Dial, mode: str) -> None:
    bench.enforce(*MACHINES, server=PLAIN, client=TO_PLAIN)
    begins, accepts = dial(bench, family).agrees(mode)
    bench.sends(place(begins), first(family, begins, accepts)).stopped(by=Reason.DENIED)


@dials
@modes
def test_data_is_for_nobody_and_nothing_else(helped: Bench, family: int, dial: Dial, mode: str) -> None:
    """Another port, another machine on either end, another protocol, the other direction."""
    ftp = dial(helped, family)
    begins, accepts = ftp.agrees(mode)
    wrong = [
        (begins, first(family, begins, accepts, DATA + 1)),
        (begins, udp(family, begins, accepts, DATA, 20)),
        (accepts, first(family, accepts, begins)),
        ("vm5", first(family, "vm5", accepts)),
        (begins, first(family, begins, "vm4")),
    ]
    for sender, packet in wrong:
        helped.sends(place(sender), packet).stopped(by=Reason.DENIED)
    if accepts.startswith("vm"):
        # To the right address, at another machine.
        misled = first(family, begins, accepts, to=mac(3))
        helped.sends(place(begins), misled).stopped(by=Reason.UNEXPECTED, table=INGRESS_DATA)
    helped.sends(place(begins), first(family, begins, accepts)).reaches(place(accepts))


@modes
def test_where_the_other_end_listens_cannot_be_a_third(helped: Bench, family: int, mode: str) -> None:
    """The bounce attack (RFC 2577): neither end makes the other's way to somebody else.

    The answer to EPSV names no address.
    """
    ftp = BOTH_HERE(helped, family)
    begins, accepts = ftp.ends(mode)
    ftp.listens(accepts, address(family, 3))
    helped.sends(begins, first(family, begins, "vm3")).stopped(by=Reason.DENIED)
    if (family, mode) != (6, "passive"):
        helped.sends(begins, first(family, begins, accepts)).stopped(by=Reason.DENIED)


@modes
def test_each_side_has_its_own_word(bench: Bench, family: int, mode: str) -> None:
    """A client that may send everything needs no helper for passive data, and gets no active data without one."""
    bench.enforce(vm(1, "server"), vm(2, "talker"), server=FTP)
    begins, accepts = BOTH_HERE(bench, family).agrees(mode)
    if mode == "passive":
        for sender, receiver, packet in conversation(family, begins, accepts):
            bench.sends(sender, packet).reaches(receiver)
    else:
        bench.sends(begins, first(family, begins, accepts)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    assert settled(bench) == Totals()


@pytest.mark.parametrize("kind", ["egress", "ingress"])
@modes
def test_a_tier_that_denies_wins(bench: Bench, family: int, mode: str, kind: str) -> None:
    groups = {"server": FTP, "client": TO_FTP}
    write = {"egress": egress, "ingress": ingress}[kind]
    no = tier("no", write(family, "tcp", DATA, action="deny"))
    bench.enforce_policy(policy_of(MACHINES, groups, tiers=[no]))
    ftp = BOTH_HERE(bench, family)
    begins, accepts = ftp.agrees(mode)
    bench.sends(begins, first(family, begins, accepts)).stopped(by=Reason.REFUSED)
    ftp.listens(accepts, address(family, int(accepts[2:])), DATA + 1)
    bench.sends(begins, first(family, begins, accepts, DATA + 1)).reaches(accepts)


# --- Who lies -------------------------------------------------------------------------------------------------------


def test_who_sends_with_the_address_of_an_end_begins_no_data(helped: Bench, family: int) -> None:
    """vm2 asks for data; somebody behind the uplink sends it as vm1, from port 22.  vm2 may not "answer" to that."""
    BOTH_HERE(helped, family).agrees("active")
    forged = first(family, "vm1", "vm2", sport=22)
    for target in (mac(2), mac(1), mac(3)):
        forged.dst = target
        helped.sends("uplink", forged).stopped(by=Reason.UNEXPECTED)
    reply = tcp(family, "vm2", "vm1", sport=DATA, dport=22, flags="SA", seq=2000, ack=1001)
    helped.sends("vm2", reply).stopped(by=(Reason.DENIED, Reason.INVALID))
    helped.sends("vm2", tcp(family, "vm2", "vm1", sport=DATA, dport=22)).stopped(by=Reason.DENIED)


def test_who_is_an_end_does_not_speak_for_the_other(helped: Bench, family: int) -> None:
    """The same by the client itself, who is behind the uplink."""
    SERVER_ALONE(helped, family).agrees("active")
    forged = first(family, "vm1", "outside", sport=22, mac=ROUTER_MAC)
    for target in (mac(1), mac(3)):
        forged.dst = target
        helped.sends("uplink", forged).stopped(by=Reason.UNEXPECTED, table=INGRESS_DATA)
    reply = tcp(family, "outside", "vm1", sport=DATA, dport=22, flags="SA", seq=2000, ack=1001)
    helped.sends("uplink", reply).stopped(by=(Reason.DENIED, Reason.INVALID))


def test_data_that_is_sent_astray_is_not_remembered(helped: Bench, family: int) -> None:
    """Else its other end could answer though it has not been asked."""
    begins, accepts = BOTH_HERE(helped, family).agrees("passive")
    for astray in (ROUTER_MAC, "ff:ff:ff:ff:ff:ff"):
        helped.sends(begins, first(family, begins, accepts, to=astray)).spares(accepts, "uplink")
    back = tcp(family, accepts, begins, sport=DATA, dport=20, flags="A", seq=2000, ack=1001)
    helped.sends(accepts, back).stopped(by=Reason.DENIED)


# --- After a change -------------------------------------------------------------------------------------------------


@dials
@modes
def test_data_goes_when_its_rule_goes(helped: Bench, family: int, dial: Dial, mode: str) -> None:
    """What lives is cut in both directions, and so is the control connection; nothing new begins."""
    ftp = dial(helped, family)
    begins, accepts = opened(ftp, mode)
    ftp.listens(accepts, address_of(family, accepts), DATA + 1)
    # Whoever answered may begin the same connections backwards: that must not bring them back.
    helped.change(*MACHINES, server=BACKWARDS, client=BACKWARDS)
    later = first(family, begins, accepts, DATA + 1)
    gone = (Reason.DENIED, *CUT, Reason.UNEXPECTED)
    helped.sends(place(begins), later).stopped(by=gone)
    assert settled(helped).cut == 2
    for sender, _, packet in [*conversation(family, begins, accepts)[1:], (begins, accepts, later)]:
        helped.sends(place(sender), packet).stopped(by=gone)
    for end in (ftp.client, ftp.server):
        ftp.says(end).stopped(by=Reason.BLOCKED)


def test_a_control_connection_that_was_cut_lives_again(helped: Bench, family: int) -> None:
    """Its rule comes back: it goes on, and expects data."""
    ftp = BOTH_HERE(helped, family)
    policy = helped.policy
    helped.change(*MACHINES, server=BACKWARDS, client=BACKWARDS)
    settled(helped)
    helped.policy = policy
    helped.install()
    assert settled(helped).forgotten == 1
    ftp.says("vm2", text="NOOP\r\n").reaches("vm1")
    ftp.says("vm1", text="200 fine\r\n").reaches("vm2")
    opened(ftp, "passive")
    assert settled(helped) == Totals()


@modes
def test_data_of_a_rule_with_another_remote_is_cut(bench: Bench, family: int, mode: str) -> None:
    """A rule keeps its id and is for somebody else now: what was agreed before is not expected any more."""
    rules = [[ingress(family, "tcp", 21, helper="ftp", id="r", remote_ip_prefix=address(family, n))] for n in (2, 3)]
    bench.enforce(*MACHINES, server=rules[0], client=TO_FTP)
    ftp = BOTH_HERE(bench, family)
    begins, accepts = opened(ftp, mode)
    ftp.listens(accepts, address_of(family, accepts), DATA + 1)
    bench.change(*MACHINES, server=rules[1], client=TO_FTP)
    later = first(family, begins, accepts, DATA + 1)
    bench.sends(begins, later).stopped(by=Reason.DENIED)
    assert settled(bench).cut == 2
    bench.sends(begins, later).stopped(by=Reason.DENIED)
    bench.sends(begins, more(family, begins, accepts)).stopped(by=Reason.BLOCKED)


def test_a_tier_that_comes_to_deny_cuts(helped: Bench, family: int) -> None:
    begins, accepts = opened(BOTH_HERE(helped, family), "passive")
    helped.policy = policy_of(
        MACHINES,
        {"server": [*FTP, *TFTP], "client": [*TO_FTP, *TO_TFTP]},
        tiers=[tier("no", ingress(family, "tcp", DATA, action="deny"))],
    )
    helped.install()
    assert settled(helped).cut == 1
    for sender, _, packet in conversation(family, begins, accepts)[1:]:
        helped.sends(sender, packet).stopped(by=CUT)


# --- TFTP -----------------------------------------------------------------------------------------------------------


def test_data_of_tftp(helped: Bench, family: int) -> None:
    """The server answers from another port, later also in fragments."""
    begin = udp(family, "vm1", "vm2", sport=2000, dport=CONTROL)
    helped.sends("vm1", begin).stopped(by=Reason.DENIED)
    helped.sends("vm2", request(family)).reaches("vm1")
    large = ip(family, "vm1", "vm2") / UDP(sport=2000, dport=CONTROL) / Raw(bytes(4000))
    helped.sends("vm1", begin).reaches("vm2")
    helped.sends("vm2", udp(family, "vm2", "vm1", sport=CONTROL, dport=2000)).reaches("vm1")
    passed = [helped.sends("vm1", fragment).out for fragment in cut(large, 1280, 2560)]
    assert [len(out.get("vm2", [])) for out in passed] == [0, 0, 3]
    for wrong in (udp(family, "vm2", "vm1", sport=CONTROL, dport=2001), udp(family, "vm2", "vm1", sport=1, dport=2000)):
        helped.sends("vm2", wrong).stopped(by=Reason.DENIED)
    assert settled(helped) == Totals()


def test_data_does_not_begin_in_fragments(helped: Bench, family: int) -> None:
    """But in the kernel, whose conntrack puts the datagram together."""
    helped.sends("vm2", request(family)).reaches("vm1")
    large = ip(family, "vm1", "vm2") / UDP(sport=2000, dport=CONTROL) / Raw(bytes(4000))
    passed = [len(helped.sends("vm1", fragment).out.get("vm2", [])) for fragment in cut(large, 1280, 2560)]
    assert passed == ([0, 0, 3] if WITH_VETHS else [0, 0, 0])
    helped.sends("vm1", udp(family, "vm1", "vm2", sport=2000, dport=CONTROL)).reaches("vm2")


def test_without_a_helper_tftp_has_no_data(bench: Bench, family: int) -> None:
    bench.enforce(*MACHINES, server=PLAIN, client=TO_PLAIN)
    bench.sends("vm2", request(family)).reaches("vm1")
    bench.sends("vm1", udp(family, "vm1", "vm2", sport=2000, dport=CONTROL)).stopped(by=Reason.DENIED)
