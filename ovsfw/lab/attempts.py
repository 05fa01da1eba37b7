"""What a machine may not send, each beside what it may: the attempts of `ovsfw lab selftest`.  Pure.

In every network one machine attacks, and tries to pass for the one it may talk to; the outside tries a few things as
well.  What the policy allows is asked of `verdict`, so the attempts fit any policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ovsfw.lab import frames as f
from ovsfw.lab.scenes import SOURCE_PORT, Actor, Scene
from ovsfw.lab.services import Service
from ovsfw.policy.addresses import Family, Prefix, link_local, parse_mac
from ovsfw.policy.verdict import (
    BROADCAST,
    DHCP_CLIENT,
    DHCP_SERVER,
    ICMPV6,
    MLD2_REPORT,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    TCP,
    UDP,
)

STRANGER = 0x0200000000AA  # a MAC that nobody has
UNUSED_VLAN = 4094
OVERRIDE = 1 << 29  # the flag of a neighbour advertisement
SYN, SYN_FIN, NO_FLAGS, XMAS, SYN_ACK, RST, FIN_ACK = 0x02, 0x03, 0x00, 0x29, 0x12, 0x04, 0x11
# LLDP, MPLS, PPPoE discovery, RARP.
OTHER_TYPES = {"LLDP": 0x88CC, "MPLS": 0x8847, "PPPoE": 0x8863, "RARP": 0x8035}
ALL_NODES, ALL_ROUTERS, ALL_REPORTS = map(Prefix.parse, ("ff02::1", "ff02::2", "ff02::16"))
DHCPV6_SERVERS = Prefix.parse("ff02::1:2")
NOWHERE = {Family.IPV4: Prefix.parse("0.0.0.0"), Family.IPV6: Prefix.parse("::")}  # noqa: S104 - an address in a packet
TO_ALL = Prefix(Family.IPV4, BROADCAST, 32)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One frame from one machine.

    A good one must reach all of `machines`, a bad one must reach none of them.  Without machines it is only the way to
    what comes next.  One that is `in_turn` waits until all before have been dealt with, and all after wait for it.
    """

    what: str
    sender: str
    frame: bytes
    good: bool
    machines: tuple[str, ...]
    in_turn: bool = False


def claim(actor: Actor) -> bytes:
    """It tells everybody its address."""
    mac, own = actor.mac, actor.address
    if own.family is Family.IPV4:
        return f.ethernet(f.EVERYBODY, mac, f.ARP_TYPE, f.arp(f.REQUEST, (mac, own.value), (0, own.value)))
    body = f.neighbour(own, f.option(f.TARGET_OPTION, mac), flags=OVERRIDE)
    told = f.ip(own, ALL_NODES, ICMPV6, f.icmpv6(own, ALL_NODES, (NEIGHBOUR_ADVERTISEMENT, 0), body))
    return f.ethernet(f.group_mac(ALL_NODES), mac, f.IP_TYPE[own.family], told)


def attempts(scene: Scene) -> Iterator[Attempt]:
    """Everything that is tried in a scene.

    The victim speaks first, so that a switch which only learns knows where it is, and what might make the switch
    believe that it is elsewhere comes last: else the one attempt could hide what the other shows.
    """
    cast = _Cast(scene)
    yield cast.victim_speaks()
    yield from sorted(cast.all(), key=lambda attempt: attempt.frame[6:12] == f.mac_bytes(scene.victim.mac))


class _Cast:
    """The people of a scene, and how they speak."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.family = scene.attacker.address.family
        self.me, self.victim = scene.attacker, scene.victim
        self.source, self.target = scene.attacker.address, scene.victim.address
        self.spoken = "ARP" if self.family is Family.IPV4 else "neighbour advertisement"
        self.service = scene.service or scene.closed or Service(UDP, 4443)

    def all(self) -> Iterator[Attempt]:
        """What the attacker tries, and the outside."""
        yield from self.arp() if self.family is Family.IPV4 else self.discovery()
        yield from self.addresses()
        yield from self.kinds()
        yield from self.servers()
        yield from self.rules()
        yield from self.outside()

    def victim_speaks(self) -> Attempt:
        """It tells everybody its address, so that a switch that only learns has learned it before all else."""
        machines = (self.me.name, *(name for name in self.scene.others if name != self.victim.name))
        what, frame = f"the victim's own {self.spoken}", claim(self.victim)
        return Attempt(what, self.victim.name, frame, good=True, machines=machines, in_turn=True)

    def bad(self, what: str, frame: bytes) -> Attempt:
        """What the attacker sends and nobody must get."""
        return Attempt(what, self.me.name, frame, good=False, machines=self.scene.others)

    def denied(self, what: str, frame: bytes) -> Attempt:
        """What the attacker may send, and the victim must not get."""
        return Attempt(what, self.me.name, frame, good=False, machines=(self.victim.name,))

    def good(self, what: str, frame: bytes, *names: str) -> Attempt:
        """What the attacker sends and these must get; by default everybody."""
        return Attempt(what, self.me.name, frame, good=True, machines=names or self.scene.others)

    def talk(self, service: Service | None = None, flags: int = SYN, **over: Prefix) -> bytes:
        """The transport and IP of a first packet to the victim."""
        chosen = service or self.service
        source, target = over.get("source", self.source), over.get("target", self.target)
        ports = (SOURCE_PORT, chosen.port)
        if chosen.protocol == TCP:
            return f.ip(source, target, TCP, f.tcp(source, target, ports, flags))
        return f.ip(source, target, UDP, f.udp(source, target, ports, b"selftest"))

    def frame(self, body: bytes, sender: int | None = None, receiver: int | None = None) -> bytes:
        """An IP packet to the victim."""
        kind = f.IP_TYPE[self.family]
        return f.ethernet(receiver or self.victim.mac, self.me.mac if sender is None else sender, kind, body)

    def arp(self) -> Iterator[Attempt]:
        """ARP, true and false."""
        mac, own, other = self.me.mac, self.source.value, self.target.value

        def said(operation: int, sha: int, spa: int, tpa: int, sender: int = mac) -> bytes:
            return f.ethernet(f.EVERYBODY, sender, f.ARP_TYPE, f.arp(operation, (sha, spa), (0, tpa)))

        yield self.good("ARP request of its own", said(f.REQUEST, mac, own, other))
        yield self.good("gratuitous ARP of its own", said(f.REPLY, mac, own, own))
        yield self.good("ARP probe for its own address", said(f.REQUEST, mac, 0, own))
        yield self.bad("ARP request from the victim's address", said(f.REQUEST, mac, other, own))
        yield self.bad("ARP reply: the victim's address is at my MAC", said(f.REPLY, mac, other, own))
        yield self.bad("gratuitous ARP for the victim's address", said(f.REQUEST, mac, other, other))
        yield self.bad("ARP with the victim's MAC inside", said(f.REPLY, self.victim.mac, own, other))
        yield self.bad("ARP in the victim's name", said(f.REPLY, self.victim.mac, other, own, self.victim.mac))
        yield self.bad("ARP probe for the victim's address", said(f.REQUEST, mac, 0, other))
        yield self.bad("ARP with a priority tag", f.tagged(said(f.REQUEST, mac, other, own), 0))
        yield self.bad("ARP in SNAP, from the victim's address", f.snap(said(f.REPLY, mac, other, own)))

    def said6(self, kind: tuple[int, int], body: bytes, source: Prefix, to: Prefix = ALL_NODES) -> bytes:
        """ICMPv6 to a multicast group."""
        inside = f.icmpv6(source, to, kind, body)
        return self.frame(f.ip(source, to, ICMPV6, inside), receiver=f.group_mac(to))

    def discovery(self) -> Iterator[Attempt]:
        """Neighbour discovery, true and false."""
        mine, theirs = self.me.mac, self.victim.mac
        own, other, local = self.source, self.target, link_local(self.me.mac)
        ask, tell = (NEIGHBOUR_SOLICITATION, 0), (NEIGHBOUR_ADVERTISEMENT, 0)

        def asked(target: Prefix, source: Prefix, *macs: int, kind: tuple[int, int] = ask) -> bytes:
            options = (f.option(f.SOURCE_OPTION, mac) for mac in macs)
            return self.said6(kind, f.neighbour(target, *options), source)

        def told(target: Prefix, source: Prefix, *macs: int, kind: tuple[int, int] = tell) -> bytes:
            options = (f.option(f.TARGET_OPTION, mac) for mac in macs)
            return self.said6(kind, f.neighbour(target, *options, flags=OVERRIDE), source)

        yield self.good("neighbour solicitation of its own", asked(other, own, mine))
        yield self.good("neighbour advertisement of its own", told(own, own, mine))
        yield self.good("duplicate address detection of its own", asked(own, NOWHERE[Family.IPV6]))
        yield self.good("from its link-local address", asked(other, local, mine))
        yield self.bad("advertisement: the victim's address is at my MAC", told(other, own, mine))
        yield self.bad("the same without an option", told(other, own))
        yield self.bad("advertisement with the victim's MAC", told(own, own, theirs))
        yield self.bad("solicitation with the victim's MAC", asked(other, own, theirs))
        yield self.bad("solicitation with two MACs", asked(other, own, theirs, mine))
        yield self.bad("solicitation from the victim's address", asked(own, other, mine))
        yield self.bad("duplicate address detection for the victim's address", asked(other, NOWHERE[Family.IPV6]))
        yield self.bad("advertisement with a code (CVE-2023-5366)", told(other, own, mine, kind=(tell[0], 1)))
        yield self.bad("from the victim's link-local address", told(link_local(theirs), link_local(theirs), mine))

    def addresses(self) -> Iterator[Attempt]:
        """An allowed packet from wrong addresses."""
        yield from self.allowed("an allowed packet", self.frame(self.talk()))
        nobody = {Family.IPV4: "192.0.2.250", Family.IPV6: "2001:db8:ffff::250"}[self.family]
        for name, mac in (("the victim's", self.victim.mac), ("a foreign", STRANGER), ("a multicast", 0x01005E000001)):
            yield self.bad(f"{name} source MAC", self.frame(self.talk(), mac))
        for name, source in (
            ("the victim's", self.target),
            ("a foreign", Prefix.parse(nobody)),
            ("no", NOWHERE[self.family]),
        ):
            yield self.bad(f"{name} source address", self.frame(self.talk(source=source)))

    def allowed(self, what: str, frame: bytes) -> Iterator[Attempt]:
        """The good twin of what rules decide, if the policy allows anything at all."""
        if self.scene.service:
            yield self.good(f"{what} ({self.scene.service})", frame, self.victim.name)

    def kinds(self) -> Iterator[Attempt]:
        """Frames of other kinds, with an allowed packet inside where there is an inside."""
        plain = self.frame(self.talk())
        own_vlan = self.me.machine.vlan or 1
        yield self.bad("a priority tag (VLAN 0)", f.tagged(plain, 0))
        yield self.bad(f"a tag of VLAN {own_vlan}", f.tagged(plain, own_vlan))
        yield self.bad("two tags", f.tagged(f.tagged(plain, 0), 0))
        yield self.bad("an 802.1ad tag", f.tagged(plain, 0, f.SERVICE_VLAN_TYPE))
        yield self.bad("SNAP with the victim's address inside", f.snap(self.frame(self.talk(source=self.target))))
        yield self.bad("spanning tree", f.llc(self.frame(b"", receiver=0x0180C2000000), f.BRIDGE_MESSAGE))
        for name, kind in OTHER_TYPES.items():
            yield self.bad(name, f.ethernet(f.EVERYBODY, self.me.mac, kind, bytes(46)))

    def servers(self) -> Iterator[Attempt]:
        """Passing for a router or a DHCP server; being a client."""
        if self.family is Family.IPV6:
            yield from self.routers()
        client, server = DHCP_CLIENT[self.family], DHCP_SERVER[self.family]
        nowhere, to_all = (NOWHERE[Family.IPV4], TO_ALL)
        receiver = f.EVERYBODY
        if self.family is Family.IPV6:
            nowhere, to_all, receiver = link_local(self.me.mac), DHCPV6_SERVERS, f.group_mac(DHCPV6_SERVERS)
        asked = f.ip(nowhere, to_all, UDP, f.udp(nowhere, to_all, client, bytes(240)))
        yield self.good("DHCP request of a client", self.frame(asked, receiver=receiver), self.scene.outside.name)
        offer = f.ip(self.source, self.target, UDP, f.udp(self.source, self.target, server, bytes(240)))
        yield self.bad("DHCP offer", self.frame(offer))

    def routers(self) -> Iterator[Attempt]:
        """Router advertisements, plain and hidden, and redirects."""
        local, kind = link_local(self.me.mac), (ROUTER_ADVERTISEMENT, 0)
        body = bytes((64, 0, 7, 8)) + bytes(8)
        asked = self.said6((ROUTER_SOLICITATION, 0), bytes(4), local, ALL_ROUTERS)
        yield self.good("router solicitation", asked, self.scene.outside.name)
        report = self.said6((MLD2_REPORT, 0), bytes(4), local, ALL_REPORTS)
        yield self.good("multicast listener report", report, self.scene.outside.name)
        yield self.bad("router advertisement", self.said6(kind, body, local))
        yield self.bad("router advertisement with a code", self.said6((kind[0], 1), body, local))
        inside = f.icmpv6(local, ALL_NODES, kind, body)
        for name, header in (("hop-by-hop", f.HOP_BY_HOP), ("destination", f.DESTINATION_OPTIONS)):
            hidden = f.ip(local, ALL_NODES, header, f.extended(ICMPV6, inside))
            frame = self.frame(hidden, receiver=f.group_mac(ALL_NODES))
            yield self.bad(f"router advertisement behind {name} options", frame)
        yield self.bad("redirect", self.said6((REDIRECT, 0), f.neighbour(self.target, bytes(16)), local))

    def rules(self) -> Iterator[Attempt]:
        """Past the rules."""
        closed, open_ = self.scene.closed, self.scene.service
        if closed:
            yield self.denied(f"a denied packet ({closed})", self.frame(self.talk(closed)))
            yield self.denied("... in SNAP", f.snap(self.frame(self.talk(closed))))
            yield self.denied("... in a broadcast frame", self.frame(self.talk(closed), receiver=f.EVERYBODY))
            if self.family is Family.IPV6:
                behind = f.extended(closed.protocol, self.talk(closed)[40:])
                frame = self.frame(f.ip(self.source, self.target, f.DESTINATION_OPTIONS, behind))
                yield self.denied("... behind destination options", frame)
        if open_ and open_.protocol == TCP and self.scene.stateful:
            for name, flags in (("SYN and FIN", SYN_FIN), ("no flags", NO_FLAGS), ("FIN, PSH and URG", XMAS)):
                yield self.bad(f"TCP with {name} to an allowed port", self.frame(self.talk(flags=flags)))
            for name, flags in (("RST", RST), ("FIN and ACK", FIN_ACK)):
                # From a port of its own, so that it ends no connection of the other attempts.
                segment = f.tcp(self.source, self.target, (SOURCE_PORT + 1, open_.port), flags)
                frame = self.frame(f.ip(self.source, self.target, TCP, segment))
                yield self.bad(f"TCP with {name} of no connection to an allowed port", frame)

    def outside(self) -> Iterator[Attempt]:
        """From beyond the switch: what no endpoint must get."""
        mac = parse_mac(self.scene.outside.mac)
        yield self.outsider(mac)
        plain = self.frame(self.talk(), mac)
        tries = {
            "unknown unicast": f.mac_bytes(STRANGER) + plain[6:],
            "LLDP to an endpoint": f.ethernet(self.victim.mac, mac, OTHER_TYPES["LLDP"], bytes(46)),
            "MPLS to everybody": f.ethernet(f.EVERYBODY, mac, OTHER_TYPES["MPLS"], bytes(46)),
            "a tag of another VLAN": f.tagged(plain, UNUSED_VLAN),
        }
        if self.scene.stateful:
            answer = self.talk(Service(TCP, 4443), SYN_ACK, source=Prefix.parse(_FAR[self.family]))
            tries["an answer to nobody's question"] = self.frame(answer, mac)
        for what, frame in tries.items():
            yield Attempt(
                f"from outside: {what}", self.scene.outside.name, frame, good=False, machines=self.scene.guarded
            )

    def outsider(self, mac: int) -> Attempt:
        """The good twin: who is outside looks for the victim."""
        what, target = "ARP", self.target.value
        if self.family is Family.IPV4:
            said = f.arp(f.REQUEST, (mac, Prefix.parse(_FAR[self.family]).value), (0, target))
            frame = f.ethernet(f.EVERYBODY, mac, f.ARP_TYPE, said)
        else:
            what, local = "neighbour discovery", link_local(mac)
            body = f.neighbour(self.target, f.option(f.SOURCE_OPTION, mac))
            asked = f.icmpv6(local, ALL_NODES, (NEIGHBOUR_SOLICITATION, 0), body)
            frame = self.frame(f.ip(local, ALL_NODES, ICMPV6, asked), mac, f.group_mac(ALL_NODES))
        name, machines = self.scene.outside.name, self.scene.guarded
        return Attempt(f"from outside: {what}", name, frame, good=True, machines=machines, in_turn=True)


_FAR = {Family.IPV4: "192.0.2.250", Family.IPV6: "2001:db8:ffff::250"}
