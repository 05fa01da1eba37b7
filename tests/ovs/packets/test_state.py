"""What conntrack adds: replies and errors of what was accepted pass, and nothing else does for looking like them.

vm1 may send everything and accepts nothing; vm2 accepts TCP and UDP port 80 and ping, and may send nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPerror6,
)
from scapy.layers.sctp import SCTP, SCTPChunkInitAck
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import (
    EGRESS_STATE,
    INGRESS_STATE,
    INGRESS_VERDICT,
    UNTAGGED,
    Reason,
)
from tests.ovs.packets.bench import NUMBERS, Bench, Json, egress, ingress, mac, policy_of, vm
from tests.ovs.packets.frames import (
    address_of,
    arp,
    dhcp_discover,
    dhcp_offer,
    ip,
    ping,
    pong,
    sctp,
    solicit,
    tcp,
    udp,
)

pytestmark = pytest.mark.ovs

SERVER = [
    rule
    for family in (4, 6)
    for rule in (
        ingress(family, "tcp", 80),
        ingress(family, "udp", 80),
        ingress(family, "sctp", 80),
        ingress(family, "icmp", {4: 8, 6: 128}[family]),
    )
]
BACK: Json = {"sport": 80, "dport": 30000}
# Who talks to whom: two on this host, one to the outside, and one from there.
PAIRS = [("vm1", "vm2"), ("vm1", "outside"), ("outside", "vm2")]


@pytest.fixture
def served(bench: Bench) -> Bench:
    bench.enforce(vm(1, "talker"), vm(2, "server"), vm(3, "open"), server=SERVER)
    return bench


def port_of(name: str) -> str:
    return "uplink" if name == "outside" else name


def answer_to(name: str, family: int, client: str, server: str) -> tuple[Packet, Packet]:
    """A question and its answer."""
    there, back = (client, server), (server, client)
    if name == "tcp":
        return tcp(family, *there), tcp(family, *back, **BACK, flags="SA", seq=2000, ack=1001)
    if name == "udp":
        return udp(family, *there, dport=80), udp(family, *back, **BACK)
    if name == "sctp":
        return sctp(family, *there), ip(family, *back) / SCTP(sport=80, dport=30000) / SCTPChunkInitAck()
    return ping(family, *there), pong(family, *back)


# --- Replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "ping"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_replies_pass_without_rules(served: Bench, family: int, protocol: str, client: str, server: str) -> None:
    question, answer = answer_to(protocol, family, client, server)
    served.sends(port_of(client), question).reaches(port_of(server))
    served.sends(port_of(server), answer).reaches(port_of(client))


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "ping"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_unsolicited_replies(served: Bench, family: int, protocol: str, client: str, server: str) -> None:
    """From a server that may not send, and to a client that accepts nothing."""
    _, answer = answer_to(protocol, family, client, server)
    served.sends(port_of(server), answer).stopped(by=(Reason.DENIED, Reason.INVALID))


def test_a_reply_to_somebody_else(served: Bench, family: int) -> None:
    """Each end, port and protocol of an accepted connection must fit."""
    served.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    for wrong in (
        udp(family, "vm2", "vm1", sport=81, dport=30000),
        udp(family, "vm2", "vm1", sport=80, dport=30001),
        udp(family, "vm2", "vm3", **BACK),
        udp(family, "vm2", "outside", **BACK),
        tcp(family, "vm2", "vm1", **BACK),
    ):
        served.sends("vm2", wrong).stopped(by=Reason.DENIED)
    served.sends("uplink", udp(family, "outside", "vm1", **BACK)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    served.sends("vm3", udp(family, "vm3", "vm1", **BACK)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    served.sends("vm2", udp(family, "vm2", "vm1", **BACK)).reaches("vm1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_large_packets(served: Bench, family: int, protocol: str, client: str, server: str) -> None:
    """Of 8,000 bytes and not in fragments: a question, its answer, and what no rule accepts."""
    ports = [f"p{NUMBERS[port_of(name)]}" for name in (client, server)]
    served.switch.switch.vsctl(
        *(word for port in ports for word in ("--", "set", "interface", port, "mtu_request=9000"))
    )
    question, answer = answer_to(protocol, family, client, server)
    if protocol == "tcp":
        served.sends(port_of(client), question).reaches(port_of(server))
        served.sends(port_of(server), answer).reaches(port_of(client))
        question = tcp(family, client, server, flags="A", seq=1001, ack=2001)
        answer = tcp(family, server, client, **BACK, flags="A", seq=2001, ack=9001)
    jumbo = Raw(b"x" * 8000)
    served.sends(port_of(client), question / jumbo).reaches(port_of(server))
    served.sends(port_of(server), answer / jumbo).reaches(port_of(client))
    if server != "outside":
        served.sends(port_of(client), udp(family, client, server, dport=81) / jumbo).stopped(by=Reason.DENIED)


def test_a_whole_tcp_connection(served: Bench, family: int) -> None:
    there: Json = {"dport": 80}
    served.sends("vm1", tcp(family, "vm1", "vm2", flags="S", seq=1000)).reaches("vm2")
    served.sends("vm2", tcp(family, "vm2", "vm1", **BACK, flags="SA", seq=2000, ack=1001)).reaches("vm1")
    served.sends("vm1", tcp(family, "vm1", "vm2", **there, flags="A", seq=1001, ack=2001)).reaches("vm2")
    served.sends("vm1", tcp(family, "vm1", "vm2", **there, flags="PA", seq=1001, ack=2001) / Raw(b"hi")).reaches("vm2")
    served.sends("vm2", tcp(family, "vm2", "vm1", **BACK, flags="A", seq=2001, ack=1003)).reaches("vm1")
    served.sends("vm1", tcp(family, "vm1", "vm2", **there, flags="FA", seq=1003, ack=2001)).reaches("vm2")
    served.sends("vm2", tcp(family, "vm2", "vm1", **BACK, flags="FA", seq=2001, ack=1004)).reaches("vm1")
    served.sends("vm1", tcp(family, "vm1", "vm2", **there, flags="A", seq=1004, ack=2002)).reaches("vm2")
    served.sends("vm2", tcp(family, "vm2", "vm1", **BACK, flags="S")).stopped(by=(Reason.DENIED, Reason.INVALID))


def test_a_refusal_passes(served: Bench, family: int) -> None:
    served.sends("vm1", tcp(family, "vm1", "vm2")).reaches("vm2")
    served.sends("vm2", tcp(family, "vm2", "vm1", **BACK, flags="RA", ack=1001)).reaches("vm1")


# --- Related errors -------------------------------------------------------------------------------------------------


def quoted(packet: Packet, family: int) -> Packet:
    """What an error quotes: the packet from its IP header on."""
    inner = packet.payload
    outer = (IPerror if family == 4 else IPerror6)(bytes(inner))
    assert UDPerror in outer or TCPerror in outer
    return outer


ERRORS: dict[int, dict[str, Packet]] = {
    4: {
        "port-unreachable": ICMP(type=3, code=3),
        "fragmentation-needed": ICMP(type=3, code=4, nexthopmtu=1400),
        "time-exceeded": ICMP(type=11),
        "parameter-problem": ICMP(type=12),
    },
    6: {
        "port-unreachable": ICMPv6DestUnreach(code=4),
        "packet-too-big": ICMPv6PacketTooBig(mtu=1400),
        "time-exceeded": ICMPv6TimeExceeded(),
        "parameter-problem": ICMPv6ParamProblem(),
    },
}
ALL_ERRORS = [(family, name) for family, errors in ERRORS.items() for name in errors]


def error(family: int, name: str, sender: str, receiver: str, about: Packet, **over: Any) -> Packet:
    return ip(family, sender, receiver, **over) / ERRORS[family][name] / quoted(about, family)


@pytest.mark.parametrize(("version", "name"), ALL_ERRORS)
@pytest.mark.parametrize("ends", PAIRS)
@pytest.mark.parametrize("make", [udp, tcp])
def test_related_errors(served: Bench, version: int, name: str, ends: tuple[str, str], make: Any) -> None:
    """From the server, which may not send: about a connection that lives they pass, about any other they do not."""
    client, server = ends
    question = make(version, client, server, dport=80)
    unknown = make(version, client, server, dport=80, sport=30001)
    served.sends(port_of(client), question).reaches(port_of(server))
    served.sends(port_of(server), error(version, name, server, client, question)).reaches(port_of(client))
    outcome = served.sends(port_of(server), error(version, name, server, client, unknown))
    outcome.stopped(by=(Reason.INVALID, Reason.DENIED))


@pytest.mark.parametrize(("version", "name"), ALL_ERRORS)
def test_related_errors_from_the_client(served: Bench, version: int, name: str) -> None:
    """The other way: vm3 cannot use the answer; vm2 accepts no such ICMP."""
    question = udp(version, "vm3", "vm2", dport=80)
    answer = udp(version, "vm2", "vm3", **BACK)
    served.sends("vm3", question).reaches("vm2")
    served.sends("vm2", answer).reaches("vm3")
    served.sends("vm3", error(version, name, "vm3", "vm2", answer)).reaches("vm2")
    stranger = udp(version, "vm2", "vm3", sport=80, dport=30001)
    served.sends("vm3", error(version, name, "vm3", "vm2", stranger)).stopped(by=(Reason.INVALID, Reason.DENIED))


@pytest.mark.parametrize(("version", "name"), ALL_ERRORS)
def test_related_errors_from_a_router(served: Bench, version: int, name: str) -> None:
    """A router on the way says it, with its own address; so path MTU discovery works."""
    question = udp(version, "vm1", "outside", dport=80)
    router = {4: "10.0.0.254", 6: "2001:db8::fffe"}[version]
    early = served.sends("uplink", error(version, name, "outside", "vm1", question, src=router))
    early.stopped(by=(Reason.INVALID, Reason.DENIED))
    served.sends("vm1", question).reaches("uplink")
    served.sends("uplink", error(version, name, "outside", "vm1", question, src=router)).reaches("vm1")


def test_an_error_that_a_rule_accepts_opens_no_connection(bench: Bench, family: int) -> None:
    """vm1 accepts ICMP from all.  An error about somebody else's connection makes that none of vm1's."""
    bench.enforce(vm(1, "pinged"), vm(2, "web"), pinged=[ingress(family, "icmp")], web=[ingress(family, "tcp", 80)])
    question, answer = tcp(family, "outside", "vm2", dport=80), tcp(family, "vm2", "outside", flags="SA", **BACK)
    bench.sends("uplink", question).reaches("vm2")
    bench.sends("vm2", answer).reaches("uplink")
    lie = error(family, "port-unreachable", "outside", "vm2", answer)
    lie.dst = mac(1)
    bench.sends("uplink", lie)
    assert [entry.sides for entry in bench.connections()] == [(0, 2)]
    more = tcp(family, "outside", "vm2", dport=80, flags="A")
    more.dst = mac(1)
    bench.sends("uplink", more).stopped(by=(Reason.DENIED, Reason.INVALID))


def test_an_error_about_a_denied_packet(served: Bench, family: int) -> None:
    """A packet that was dropped left no connection for errors to belong to."""
    name = "port-unreachable"
    denied = udp(family, "vm1", "vm2", dport=81)
    served.sends("vm1", denied).stopped(by=Reason.DENIED)
    served.sends("vm2", error(family, name, "vm2", "vm1", denied)).stopped(by=(Reason.INVALID, Reason.DENIED))


def test_an_error_is_guarded_like_all_else(served: Bench, family: int) -> None:
    question = udp(family, "vm1", "vm3", dport=80)
    served.sends("vm1", question).reaches("vm3")
    lie = error(family, "port-unreachable", "vm2", "vm1", question, src=address_of(family, "vm3"))
    served.sends("vm2", lie).stopped(by=Reason.SPOOF)


# --- TCP flags ------------------------------------------------------------------------------------------------------

NONSENSE = {
    "none": "",
    "fin": "F",
    "psh": "P",
    "urg": "U",
    "syn-fin": "SF",
    "syn-rst": "SR",
    "syn-fin-ack": "SFA",
    "syn-rst-ack": "SRA",
    "xmas": "FPU",
    "syn-xmas": "SFPU",
    "all": "SFPURA",
}


@pytest.mark.parametrize("flags", NONSENSE)
def test_tcp_flags_that_make_no_sense(served: Bench, family: int, flags: str) -> None:
    """Even to a machine that accepts everything, in both stages: from an endpoint and from outside."""
    frame = tcp(family, "vm1", "vm3", flags=NONSENSE[flags])
    served.sends("vm1", frame).stopped(by=Reason.INVALID, table=EGRESS_STATE)
    frame = tcp(family, "outside", "vm3", flags=NONSENSE[flags])
    served.sends("uplink", frame).stopped(by=Reason.INVALID, table=INGRESS_STATE)
    served.sends("vm1", tcp(family, "vm1", "vm3", flags="S")).reaches("vm3")


def test_an_unsolicited_syn_ack(served: Bench, family: int) -> None:
    served.sends("uplink", tcp(family, "outside", "vm3", flags="SA")).stopped(by=Reason.INVALID)
    served.sends("vm1", tcp(family, "vm1", "vm3", flags="SA")).stopped(by=Reason.INVALID)


@pytest.mark.parametrize("flags", ["R", "RA", "FA", "FPA", "FRA"])
def test_the_end_of_a_connection_that_nobody_knows(served: Bench, family: int, flags: str) -> None:
    """What ends a connection begins none, even to a machine that accepts everything; known ones it ends."""
    served.sends("vm1", tcp(family, "vm1", "vm3", flags=flags)).stopped(by=Reason.INVALID, table=EGRESS_STATE)
    served.sends("uplink", tcp(family, "outside", "vm3", flags=flags)).stopped(by=Reason.INVALID, table=INGRESS_STATE)
    assert served.connections() == []
    served.sends("vm1", tcp(family, "vm1", "vm3")).reaches("vm3")
    served.sends("vm3", tcp(family, "vm3", "vm1", **BACK, flags="SA", seq=5000, ack=1001)).reaches("vm1")
    served.sends("vm1", tcp(family, "vm1", "vm3", flags=flags, seq=1001, ack=5001)).reaches("vm3")


def test_flags_of_live_connections_cost_no_megaflows(served: Bench, family: int) -> None:
    """Only the datapath's flows for first packets look at them."""
    served.sends("vm1", tcp(family, "vm1", "vm3")).reaches("vm3")
    served.sends("vm3", tcp(family, "vm3", "vm1", **BACK, flags="SA", seq=5000, ack=1001)).reaches("vm1")
    served.switch.send(1, bytes(tcp(family, "vm1", "vm3", flags="A", seq=1001, ack=5001)))
    flows = served.switch.call("dpctl/dump-flows").splitlines()
    live = [line for line in flows if "-new" in line.partition("ct_state(")[2].partition(")")[0]]
    assert live
    assert not [line for line in live if "tcp_flags" in line]


@pytest.mark.parametrize("flags", ["A", "PA"])
def test_the_middle_of_a_connection_that_nobody_knows(served: Bench, family: int, flags: str) -> None:
    """Conntrack takes up connections in the middle (so that a restart of the switch cuts none): the rules decide."""
    served.sends("uplink", tcp(family, "outside", "vm1", flags=flags)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    served.sends("uplink", tcp(family, "outside", "vm2", dport=81, flags=flags)).stopped(by=Reason.DENIED)
    served.sends("uplink", tcp(family, "outside", "vm2", dport=80, flags=flags)).reaches("vm2")


# --- What is remembered ---------------------------------------------------------------------------------------------


def test_marks_and_labels_of_two_endpoints(served: Bench, family: int) -> None:
    served.sends("vm1", tcp(family, "vm1", "vm2")).reaches("vm2")
    (entry,) = served.connections()
    assert (entry.zone, entry.sides) == (UNTAGGED, (1, 2))
    assert served.rules_named(entry.label) == (f"talker/egress-ipv{family}-any", f"server/ingress-ipv{family}-tcp-80")


def test_marks_and_labels_of_one_endpoint(served: Bench, family: int) -> None:
    served.sends("vm1", udp(family, "vm1", "outside", dport=80)).reaches("uplink")
    (entry,) = served.connections()
    assert entry.sides == (1, 0)
    assert served.rules_named(entry.label) == (f"talker/egress-ipv{family}-any", "")
    served.switch.forget()
    served.sends("uplink", udp(family, "outside", "vm2", dport=80)).reaches("vm2")
    (entry,) = served.connections()
    assert entry.sides == (0, 2)
    assert served.rules_named(entry.label) == ("", f"server/ingress-ipv{family}-udp-80")


def test_replies_change_nothing_of_it(served: Bench, family: int) -> None:
    served.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    (before,) = served.connections()
    served.sends("vm2", udp(family, "vm2", "vm1", **BACK)).reaches("vm1")
    served.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    (after,) = served.connections()
    assert (after.mark, after.label, after.zone) == (before.mark, before.label, before.zone)


@pytest.mark.parametrize("receiver", ["vm1", "vm2"])
def test_what_is_denied_is_not_remembered(served: Bench, family: int, receiver: str) -> None:
    """At the sender or at the receiver: no entry, and no reply."""
    sender = "vm3" if receiver == "vm1" else "vm1"
    for make in (tcp, udp):
        served.sends(sender, make(family, sender, receiver, dport=81)).stopped(by=Reason.DENIED)
    served.sends("vm2", udp(family, "vm2", "vm3", dport=81)).stopped(by=Reason.DENIED)
    served.sends("uplink", udp(family, "outside", receiver, dport=81)).stopped(by=Reason.DENIED)
    assert served.connections() == []
    served.sends("vm2", udp(family, "vm2", "vm1", sport=81, dport=30000)).stopped(by=Reason.DENIED)


def test_what_needs_no_rule_is_not_remembered(served: Bench) -> None:
    served.sends("vm1", arp("vm1", "vm2"))
    served.sends("vm1", dhcp_discover("vm1"))
    served.sends("uplink", dhcp_offer("outside", "vm1"))
    served.sends("vm1", solicit("vm1", "2001:db8::2"))
    assert served.connections() == []


def test_an_endpoint_plugged_later_is_asked(bench: Bench, family: int) -> None:
    """vm1 talked to vm2 where that was on another host; now vm2 is here, and has rules of its own."""
    machines = [vm(1, "talker"), vm(2, "server"), vm(3, "talker")]
    policy = policy_of(machines, {"server": SERVER})
    bench.enforce_policy(policy, away={"vm2"})
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("uplink")
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=81)).reaches("uplink")
    for sport in (80, 81):
        bench.sends("uplink", udp(family, "vm2", "vm1", sport=sport, dport=30000)).reaches("vm1")
    bench.plug("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=81)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    bench.sends("vm2", udp(family, "vm2", "vm1", sport=80, dport=30000)).reaches("vm1")


def test_a_sender_plugged_later_is_asked(bench: Bench, family: int) -> None:
    """The same for what it sends: vm3 may send nothing here, whatever it sent elsewhere."""
    policy = policy_of([vm(1, "server"), vm(3, "nothing")], {"server": SERVER})
    bench.enforce_policy(policy, away={"vm3"})
    bench.sends("uplink", udp(family, "vm3", "vm1", dport=80)).reaches("vm1")
    bench.sends("vm1", udp(family, "vm1", "vm3", **BACK)).reaches("uplink")
    bench.plug("vm3")
    bench.sends("vm3", udp(family, "vm3", "vm1", dport=80)).stopped(by=Reason.DENIED)


# --- Stateless groups -----------------------------------------------------------------------------------------------


@pytest.fixture
def stateless(bench: Bench) -> Bench:
    """vm1 may ask port 80; vm2 accepts that, and may answer to port 30000 only.  vm1 accepts from port range 30000."""
    client = [rule for f in (4, 6) for rule in (egress(f, "udp", 80), ingress(f, "udp", (30000, 30009)))]
    server = [rule for f in (4, 6) for rule in (ingress(f, "udp", 80), egress(f, "udp", 30000))]
    client += [rule for f in (4, 6) for rule in (egress(f, "tcp", 80), ingress(f, "tcp", 30000))]
    server += [rule for f in (4, 6) for rule in (ingress(f, "tcp", 80), egress(f, "tcp", 30000))]
    bench.enforce(vm(1, "client"), vm(2, "server"), client=client, server=server, stateless=["client", "server"])
    return bench


def test_stateless_replies_need_rules(stateless: Bench, family: int) -> None:
    stateless.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    stateless.sends("vm2", udp(family, "vm2", "vm1", **BACK)).reaches("vm1")
    stateless.sends("vm1", udp(family, "vm1", "vm2", dport=80, sport=30001)).reaches("vm2")
    stateless.sends("vm2", udp(family, "vm2", "vm1", sport=80, dport=30001)).stopped(by=Reason.DENIED)
    stateless.sends("vm1", udp(family, "vm1", "outside", dport=80, sport=9)).reaches("uplink")
    stateless.sends("uplink", udp(family, "outside", "vm1", sport=80, dport=9)).stopped(by=Reason.DENIED)


def test_stateless_replies_need_no_question(stateless: Bench, family: int) -> None:
    stateless.sends("vm2", udp(family, "vm2", "vm1", **BACK)).reaches("vm1")
    stateless.sends("uplink", udp(family, "outside", "vm1", **BACK)).reaches("vm1")


def test_stateless_leaves_nothing_in_conntrack(stateless: Bench, family: int) -> None:
    for sender, receiver, ports in (
        ("vm1", "vm2", {"dport": 80}),
        ("vm2", "vm1", BACK),
        ("vm1", "outside", {"dport": 80}),
    ):
        stateless.sends(sender, udp(family, sender, receiver, **ports)).reaches(port_of(receiver))
    stateless.sends("uplink", udp(family, "outside", "vm2", dport=80)).reaches("vm2")
    assert stateless.connections() == []


@pytest.mark.parametrize("flags", ["SA", "A", "SF", ""])
def test_stateless_looks_at_no_flags(stateless: Bench, family: int, flags: str) -> None:
    """It is what it says: a rule for a port lets every packet to that port in."""
    stateless.sends("vm1", tcp(family, "vm1", "vm2", flags=flags)).reaches("vm2")
    stateless.sends("vm1", tcp(family, "vm1", "vm2", dport=81, flags=flags)).stopped(by=Reason.DENIED)


def test_stateless_knows_no_related_errors(stateless: Bench, family: int) -> None:
    question = udp(family, "vm1", "vm2", dport=80)
    stateless.sends("vm1", question).reaches("vm2")
    answer = error(family, "port-unreachable", "vm2", "vm1", question)
    stateless.sends("vm2", answer).stopped(by=Reason.DENIED)


def test_stateless_is_guarded_like_all_else(stateless: Bench, family: int) -> None:
    lie = udp(family, "vm1", "vm2", dport=80, src=address_of(family, "vm3"))
    stateless.sends("vm1", lie).stopped(by=Reason.SPOOF)


def test_stateless_and_stateful_neighbours(bench: Bench, family: int) -> None:
    """Each side by its own kind: vm2 tracks and answers without a rule, vm1 does not track and needs one."""
    client = [egress(family, "udp", 80), ingress(family, "udp", 30000)]
    bench.enforce(vm(1, "client"), vm(2, "server"), client=client, server=SERVER, stateless=["client"])
    for sport, expected in ((30000, True), (30001, False)):
        bench.sends("vm1", udp(family, "vm1", "vm2", dport=80, sport=sport)).reaches("vm2")
        outcome = bench.sends("vm2", udp(family, "vm2", "vm1", sport=80, dport=sport))
        if expected:
            outcome.reaches("vm1")
        else:
            outcome.stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
    assert {entry.sides for entry in bench.connections()} == {(1, 2)}


# --- Nothing but what conntrack says --------------------------------------------------------------------------------


def test_wrong_checksums(served: Bench) -> None:
    """A wrong checksum is invalid to conntrack; machines must send right ones (no offload into the switch)."""
    frame = udp(4, "vm1", "vm3")
    frame[UDP].chksum = 0x1234
    served.sends("vm1", frame).stopped(by=Reason.INVALID)
    segment = tcp(6, "vm1", "vm3")
    segment[TCP].chksum = 0x1234
    served.sends("vm1", segment).stopped(by=Reason.INVALID)
