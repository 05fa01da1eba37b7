"""Tiers: the operator's rules before and after the groups, each side by itself, for every kind of packet."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw

from ovsfw.compiler.pipeline import EGRESS_VERDICT, INGRESS_VERDICT, Reason
from ovsfw.policy.tiers import MAX_LOOKUPS
from tests.ovs.packets.bench import OPEN, Bench, Json, address, egress, ingress, policy_of, tier, vm
from tests.ovs.packets.frames import (
    BROADCAST,
    advertise,
    arp,
    cut,
    dhcp_discover,
    dhcp_offer,
    ping,
    pong,
    solicit,
    tcp,
    udp,
)

pytestmark = pytest.mark.ovs

METADATA = {4: "169.254.169.254", 6: "fd00:ec2::254"}
BOTH = (4, 6)


def does(action: str, *rules: Json) -> list[Json]:
    """Rules of a tier."""
    return [{**rule, "action": action} for rule in rules]


def enforce(bench: Bench, *tiers: Json, stateless: bool = False) -> None:
    """vm1 and vm2 may do anything as far as their groups go, vm3 may do nothing, vm4 has no groups."""
    ports = (vm(1, "mine"), vm(2, "open"), vm(3, "nothing"), vm(4))
    groups = {"mine": OPEN}
    bench.enforce_policy(policy_of(ports, groups, ("mine", "open") if stateless else (), tiers=tiers))


# --- The first last word counts -------------------------------------------------------------------------------------


def test_nobody_reaches_it_but_some(bench: Bench, family: int) -> None:
    bench.enforce_policy(
        policy_of(
            [vm(1, "agents"), vm(2, "open"), vm(3, "agents", "open")],
            {"agents": [egress(family, "tcp", 80)]},
            tiers=[
                tier("some", *does("pass", egress(family, remote_ip_prefix=METADATA[family])), applies_to=["agents"]),
                tier("none", *does("deny", egress(family, remote_ip_prefix=METADATA[family]))),
            ],
        )
    )
    for sender, dport, passes in (("vm1", 80, True), ("vm1", 81, False), ("vm2", 80, False), ("vm3", 81, True)):
        said = bench.sends(sender, tcp(family, sender, "uplink", dport=dport, dst=METADATA[family]))
        if passes:
            said.reaches("uplink")
        else:
            why = Reason.DENIED if sender == "vm1" else Reason.REFUSED
            said.stopped(by=why, table=EGRESS_VERDICT)
    bench.sends("vm2", tcp(family, "vm2", "uplink")).reaches("uplink")


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_a_tier_denies_what_the_groups_allow(bench: Bench, family: int, *, stateless: bool) -> None:
    enforce(bench, tier("t", *does("deny", ingress(family, "tcp", (80, 83)))), stateless=stateless)
    for dport in (79, 80, 83, 84):
        said = bench.sends("vm1", tcp(family, "vm1", "vm2", dport=dport))
        if 80 <= dport <= 83:
            said.stopped(by=Reason.REFUSED, table=INGRESS_VERDICT)
        else:
            said.reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    bench.sends("vm1", tcp(family, "vm1", "uplink", dport=80)).reaches("uplink")


def test_a_tier_allows_what_the_groups_do_not(bench: Bench, family: int) -> None:
    """Also to a port without groups; and the connection names the tier's rule."""
    rule = {**ingress(family, "tcp", 80), "id": "monitoring"}
    enforce(bench, tier("t", *does("allow", rule)))
    for receiver in ("vm3", "vm4"):
        bench.sends("vm1", tcp(family, "vm1", receiver, dport=80)).reaches(receiver)
        bench.sends("vm1", tcp(family, "vm1", receiver, dport=81)).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)
        answer = tcp(family, receiver, "vm1", dport=30000, sport=80)
        answer[TCP].flags = "SA"
        bench.sends(receiver, answer).reaches("vm1")
    assert {bench.rules_named(entry.label)[1] for entry in bench.connections()} == {"monitoring"}


def test_a_rejected_packet_is_counted_apart(bench: Bench, family: int) -> None:
    enforce(bench, tier("t", *does("reject", egress(family, "udp", 53))))
    bench.sends("vm1", udp(family, "vm1", "vm2")).stopped(by=Reason.REJECTED, table=EGRESS_VERDICT)


def test_rules_are_asked_in_their_order(bench: Bench, family: int) -> None:
    """Whatever kind of remote they have: an earlier conjunction comes before a later plain rule."""
    rules = [
        *does("allow", ingress(family, "tcp", 80, remote_group_id="mine")),
        *does("deny", ingress(family, "tcp", (80, 81))),
        *does("allow", ingress(family, "tcp", 81, remote_ip_prefix=address(family, 1))),
        *does("deny", ingress(family, remote_address_group_id="all")),
        *does("allow", ingress(family)),
    ]
    ports = [vm(1, "mine", "open"), vm(2, "open"), vm(3, "nothing")]
    everything = {"all": [f"{address(family, 0)}/{32 if family == 4 else 128}", address(family, 2)]}
    bench.enforce_policy(policy_of(ports, {"mine": []}, (), everything, tiers=[tier("t", *rules)]))
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=80)).reaches("vm3")
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=81)).stopped(by=Reason.REFUSED)
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=82)).reaches("vm3")
    for dport in (80, 81, 82):
        bench.sends("vm2", tcp(family, "vm2", "vm3", dport=dport)).stopped(by=Reason.REFUSED)
    bench.sends("uplink", tcp(family, "outside", "vm3", dport=82)).reaches("vm3")


def test_tiers_are_asked_in_their_order(bench: Bench, family: int) -> None:
    enforce(
        bench,
        tier("one", *does("allow", ingress(family, "tcp", 80)), *does("pass", ingress(family, "tcp", 81))),
        tier("two", *does("deny", ingress(family, "tcp", (80, 82)))),
    )
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=80)).reaches("vm3")
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=81)).reaches("vm2")
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=81)).stopped(by=Reason.DENIED)
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=82)).stopped(by=Reason.REFUSED)


def test_after_the_groups(bench: Bench, family: int) -> None:
    """What the groups allow, a tier after them does not take away; a pass before them leads there."""
    enforce(
        bench,
        tier("before", *does("pass", ingress(family, "tcp", 85))),
        tier("skip", *does("pass", ingress(family, "tcp", 81)), position="after"),
        tier("after", *does("allow", ingress(family, "tcp", (80, 85))), position="after"),
        tier("last", *does("deny", ingress(family)), position="after"),
    )
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=80)).reaches("vm2")
    for dport in (80, 81, 85):
        bench.sends("vm1", tcp(family, "vm1", "vm3", dport=dport)).reaches("vm3")
    bench.sends("vm1", tcp(family, "vm1", "vm3", dport=86)).stopped(by=Reason.REFUSED, table=INGRESS_VERDICT)


def test_an_allow_on_one_side_says_nothing_about_the_other(bench: Bench, family: int) -> None:
    enforce(bench, tier("t", *does("allow", egress(family))))
    bench.sends("vm3", tcp(family, "vm3", "vm2")).reaches("vm2")
    bench.sends("vm3", tcp(family, "vm3", "vm4")).stopped(by=Reason.DENIED, table=INGRESS_VERDICT)


def test_a_pass_on_one_side_says_nothing_about_the_other(bench: Bench, family: int) -> None:
    enforce(bench, tier("out", *does("pass", egress(family))), tier("in", *does("deny", ingress(family))))
    bench.sends("vm1", udp(family, "vm1", "vm2")).stopped(by=Reason.REFUSED, table=INGRESS_VERDICT)


# --- What a network needs, and the spoof guard ----------------------------------------------------------------------


def test_tiers_take_nothing_away_that_a_network_needs(bench: Bench) -> None:
    everything = [rule(family) for rule in (ingress, egress) for family in BOTH]
    enforce(bench, tier("t", *does("deny", *everything)))
    bench.sends("vm1", arp("vm1", "vm2")).reaches("vm2", "vm3", "vm4", "uplink")
    bench.sends("vm1", solicit("vm1", address(6, 2))).reaches("vm2", "vm3", "vm4", "uplink")
    bench.sends("vm1", advertise("vm1", address(6, 1))).reaches("vm2", "vm3", "vm4", "uplink")
    bench.sends("vm1", dhcp_discover("vm1")).reaches("uplink")
    bench.sends("uplink", dhcp_offer("outside", "vm1")).reaches("vm1")
    bench.sends("vm1", ping(4, "vm1", "vm2")).stopped(by=Reason.REFUSED)


def test_tiers_do_not_open_the_spoof_guard(bench: Bench, family: int) -> None:
    enforce(bench, tier("t", *does("allow", ingress(family), egress(family))))
    bench.sends("vm1", udp(family, "vm1", "vm2", src=address(family, 3))).stopped(by=Reason.SPOOF)
    bench.sends("vm1", dhcp_offer("vm1", "vm2")).stopped(by=Reason.NO_SERVER)


# --- Connections ----------------------------------------------------------------------------------------------------


def test_a_new_tier_is_for_new_connections(bench: Bench, family: int) -> None:
    enforce(bench)
    bench.sends("vm1", ping(family, "vm1", "vm2")).reaches("vm2")
    bench.sends("vm2", pong(family, "vm2", "vm1")).reaches("vm1")
    ports = (vm(1, "mine"), vm(2, "open"), vm(3, "nothing"), vm(4))
    bench.policy = policy_of(ports, {"mine": OPEN}, tiers=[tier("t", *does("deny", ingress(family)))])
    bench.install()
    bench.sends("vm1", ping(family, "vm1", "vm2")).reaches("vm2")
    bench.sends("vm1", udp(family, "vm1", "vm2")).stopped(by=Reason.REFUSED)


def test_without_conntrack_every_packet_is_asked_about(bench: Bench, family: int) -> None:
    enforce(bench, tier("t", *does("deny", egress(family, "tcp", 80))), stateless=True)
    bench.sends("vm1", tcp(family, "vm1", "vm2", dport=81)).reaches("vm2")
    answer = tcp(family, "vm2", "vm1", dport=80, sport=81)
    answer[TCP].flags = "SA"
    bench.sends("vm2", answer).stopped(by=Reason.REFUSED, table=EGRESS_VERDICT)


# --- Broadcast ------------------------------------------------------------------------------------------------------


def shout(family: int, dport: int) -> Packet:
    target = {4: "255.255.255.255", 6: "ff02::fb"}[family]
    return udp(family, "vm1", "vm2", dport=dport, to=BROADCAST if family == 4 else "33:33:00:00:00:fb", dst=target)


def test_a_broadcast_is_judged_by_the_tiers_of_each(bench: Bench, family: int) -> None:
    """What one class is refused, the next is not; what one is given, the next is not."""
    bench.enforce_policy(
        policy_of(
            [vm(1, "talker"), vm(2, "open"), vm(3, "special", "open"), vm(4, "nothing"), vm(5), vm(6, "special")],
            {"special": []},
            tiers=[
                tier("special", *does("deny", ingress(family, "udp", 53)), applies_to=["special"]),
                tier("all", *does("allow", ingress(family, "udp", (53, 54))), applies_to=["nothing", "special"]),
                tier("rest", *does("allow", ingress(family, "udp", 55)), position="after"),
            ],
        )
    )
    bench.sends("vm1", shout(family, 53)).reaches("vm2", "vm4", "uplink")
    bench.sends("vm1", shout(family, 54)).reaches("vm2", "vm3", "vm4", "vm6", "uplink")
    bench.sends("vm1", shout(family, 55)).reaches("vm2", "vm3", "vm4", "vm5", "vm6", "uplink")
    bench.sends("vm1", shout(family, 56)).reaches("vm2", "vm3", "uplink")


# --- Fragments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_a_denied_datagram_does_not_come_in_fragments(bench: Bench, family: int, *, stateless: bool) -> None:
    enforce(bench, tier("t", *does("deny", ingress(family, "udp", 53))), stateless=stateless)
    for dport, arrives in ((53, False), (54, True)):
        pieces = cut(udp(family, "vm1", "vm2", dport=dport) / Raw(bytes(3000)), 1400, 2800)
        got = [packet for piece in pieces for packet in bench.sends("vm1", piece).out.get("vm2", [])]
        assert len(got) == (len(pieces) if arrives else 0)


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_no_first_fragment_is_so_small_that_it_hides_its_port(bench: Bench, family: int, *, stateless: bool) -> None:
    """Open vSwitch shows no ports of a header that is not whole, and a rule that denies them would not see it."""
    enforce(bench, tier("t", *does("deny", ingress(family, "tcp", 80))), stateless=stateless)
    packet = tcp(family, "vm1", "vm2", dport=80) / Raw(bytes(1000))
    first, second = cut(packet, 8)
    bench.sends("vm1", first).stopped(by=Reason.NO_PORTS if stateless else (Reason.NO_PORTS, Reason.INVALID))
    bench.sends("vm1", second).spares("vm2")


# --- What it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_as_many_rules_as_there_may_be(bench: Bench, family: int, *, stateless: bool) -> None:
    """The last of them is asked on both sides, for unicast and for broadcast."""
    most = MAX_LOOKUPS - 2 - 1
    nothing = [does("pass", ingress(family, "tcp", at), egress(family, "tcp", at)) for at in range(1, most)]
    last = does("allow", ingress(family, "udp", 53), egress(family, "udp", 53))
    rules = [rule for pair in (*nothing, last) for rule in pair]
    ports, tiers = [vm(1, "nothing"), vm(2, "nothing")], [tier("t", *rules, position="after")]
    bench.enforce_policy(policy_of(ports, {}, ("nothing",) if stateless else (), tiers=tiers))
    bench.sends("vm1", udp(family, "vm1", "vm2")).reaches("vm2")
    bench.sends("vm1", shout(family, 53)).reaches("vm2", "uplink")
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=54)).stopped(by=Reason.DENIED, table=EGRESS_VERDICT)
