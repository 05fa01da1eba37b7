"""Which live connections a policy still allows; entries are written by hand, as conntrack would hold them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler import Binding, Bindings
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.ids import hint_numbers
from ovsfw.connections import Fate, Judge, due
from ovsfw.openflow.tracked import Tracked, Tuple
from ovsfw.policy.addresses import AddressSet, Family, Prefix
from ovsfw.policy.model import (
    Claim,
    Direction,
    Helper,
    Policy,
    Port,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)
from tests.strategies import mac, policies

ZONE = 7


def host(number: int) -> Prefix:
    return Prefix.parse(f"10.0.0.{number}")


def group(name: str, *rules: Rule, stateful: bool = True) -> SecurityGroup:
    return SecurityGroup(name, name, stateful, rules)


OUT = Rule("out", Direction.EGRESS, Family.IPV4)
DATA_IN = Rule("data", Direction.INGRESS, Family.IPV4, 6, PortRange(50000, 50000))
WEB = Rule("web", Direction.INGRESS, Family.IPV4, 6, PortRange(80, 80))
FTP = Rule("ftp", Direction.INGRESS, Family.IPV4, 6, PortRange(21, 21), helper=Helper.FTP)
CLOSED, CLIENT, SERVER = group("closed"), group("client", OUT, DATA_IN), group("server", WEB)
OPEN, FILES = group("open", OUT, replace(OUT, id="in", direction=Direction.INGRESS)), group("ftp", FTP)
BINDINGS = Bindings(tuple(Binding(f"vm{n}", n, ZONE) for n in (1, 2, 3)))


def policy(client: str = "client", server: str = "server", **more: Port) -> Policy:
    """vm1 asks, vm2 answers."""
    groups = (CLOSED, CLIENT, SERVER, OPEN, FILES, group("stateless", stateful=False))
    ports = {
        "vm1": Port("vm1", mac(1), (host(1),), (), (client,)),
        "vm2": Port("vm2", mac(2), (host(2),), (), (server,)),
        **more,
    }
    return Policy(ports, {each.id: each for each in groups})


def mark(origin: int = 0, target: int = 0, *, blocked: bool = False) -> int:
    sides = origin << p.ORIGIN.first | target << p.TARGET.first
    return sides | (p.EGRESS_OK if origin else 0) | (p.BLOCKED if blocked else 0)


def entry(bits: int, source: int = 1, destination: int = 2, protocol: int = 6, zone: int = ZONE) -> Tracked:
    key = Tuple(protocol, f"10.0.0.{source}", f"10.0.0.{destination}", 40000, 80)
    return Tracked(key, zone, bits, 0)


def fate(found: Tracked, wanted: Policy, bindings: Bindings = BINDINGS) -> Fate:
    return Judge(wanted, bindings).judge(found).fate


BOTH = mark(1, 2)
BARRED = entry(p.BLOCKED)._replace(label=1 << p.BARRED.first)
BARRED_BACK = entry(p.BLOCKED, 2, 1)._replace(label=1 << p.BARRED.first)
# vm1 asks vm2 for files; the mark of a data connection is that of its control connection.
CONTROL = ",parent=(src=10.0.0.1,dst=10.0.0.2,sport=40000,dport=21)"
DATA = Tracked(Tuple(6, "10.0.0.1", "10.0.0.2", 40001, 50000), ZONE, BOTH, 0, more=CONTROL)
BACK = DATA._replace(key=Tuple(6, "10.0.0.2", "10.0.0.1", 20, 50000))
CASES = [
    ("allowed by both", entry(BOTH), policy(), Fate.LIVE),
    ("the sender's rules no longer allow it", entry(BOTH), policy(client="closed"), Fate.CUT),
    ("the receiver's rules no longer allow it", entry(BOTH), policy(server="closed"), Fate.CUT),
    ("denied, and marked already", entry(mark(1, 2, blocked=True)), policy(server="closed"), Fate.BLOCKED),
    ("allowed again", entry(mark(1, 2, blocked=True)), policy(), Fate.REVIVE),
    ("it left the host: only the sender is asked", entry(mark(1)), policy(server="closed"), Fate.LIVE),
    ("it left the host, and may no more", entry(mark(1)), policy(client="closed"), Fate.CUT),
    ("it came from outside: only the receiver is asked", entry(mark(0, 2), 77), policy(client="closed"), Fate.LIVE),
    ("it came from outside, and may no more", entry(mark(0, 2), 77), policy(server="closed"), Fate.CUT),
    ("its source is nobody's any more: the spoof guard", entry(BOTH, source=8), policy(), Fate.CUT),
    ("its destination is nobody's: its receiver's rules", entry(BOTH, destination=8), policy(), Fate.LIVE),
    ("its source is another's now", entry(mark(3, 2)), policy(), Fate.FORGET),
    ("its destination is another's now", entry(mark(1, 3)), policy(), Fate.FORGET),
    ("stale, and blocked", entry(mark(3, 2, blocked=True)), policy(), Fate.FORGET),
    ("stale ICMP cannot be forgotten", entry(mark(3, 2), protocol=1), policy(), Fate.CUT),
    ("an ofport that is not remembered", entry(p.EGRESS_OK), policy(), Fate.LIVE),
    ("an ofport that is not remembered, denied", entry(p.EGRESS_OK), policy(client="closed"), Fate.CUT),
    ("nobody has the ofports: it sleeps", entry(mark(88, 89), 77, 78), policy(server="closed"), Fate.LIVE),
    ("a stateless side is asked for every packet anyway", entry(BOTH), policy(client="stateless"), Fate.LIVE),
    ("another's, and denied", entry(0), policy(server="closed"), Fate.FOREIGN),
    ("another has cut it, and it is denied", entry(p.BLOCKED), policy(server="closed"), Fate.BLOCKED),
    ("another has cut it, its answers are allowed", entry(p.BLOCKED, 77), policy(server="client"), Fate.BLOCKED),
    ("another has cut it, and it is allowed", entry(p.BLOCKED), policy(), Fate.ADOPT),
    ("another has cut what was agreed in it", entry(p.BLOCKED)._replace(more=CONTROL), policy(), Fate.FOREIGN),
    ("what stands for another, backwards, that is denied", BARRED, policy(server="closed"), Fate.BLOCKED),
    ("what stands for another, backwards, that is allowed", BARRED_BACK, policy(server="open"), Fate.FORGET),
    ("no network of ours", entry(BOTH, zone=8), policy(server="closed"), Fate.FOREIGN),
    ("translated", entry(BOTH)._replace(plain=False), policy(server="closed"), Fate.FOREIGN),
    ("of another that is not told", entry(BOTH)._replace(more=",parent=(src=...)"), policy(), Fate.FOREIGN),
    ("data that was agreed", DATA, policy(server="ftp"), Fate.LIVE),
    ("data that goes the other way", BACK, policy(server="ftp"), Fate.LIVE),
    ("data of a rule that is gone", DATA, policy(), Fate.CUT),
    ("data that goes the other way, of a rule that is gone", BACK, policy(server="closed"), Fate.CUT),
    ("data whose other end may not send it", DATA, policy(client="closed", server="ftp"), Fate.CUT),
    ("data whose end is another now", DATA._replace(mark=mark(3, 2)), policy(server="ftp"), Fate.FORGET),
]


@pytest.mark.parametrize(("found", "wanted", "what"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_must_happen(found: Tracked, wanted: Policy, what: Fate) -> None:
    third = Port("vm3", mac(3), (host(3),), (), ("client",))
    assert fate(found, replace(wanted, ports={**wanted.ports, "vm3": third})) is what


def test_another_port_with_the_same_ofport_is_judged_by_its_own_rules() -> None:
    """vm1 was unplugged; vm3 has its ofport, and its address or another."""
    bindings = Bindings((Binding("vm3", 1, ZONE), Binding("vm2", 2, ZONE)))
    with_its_address = Port("vm3", mac(3), (host(1),), (), ("closed",))
    assert fate(entry(BOTH), policy(vm3=with_its_address), bindings) is Fate.CUT
    with_another = replace(with_its_address, fixed_ips=(host(3),), security_groups=("client",))
    assert fate(entry(BOTH), policy(vm3=with_another), bindings) is Fate.CUT


def test_a_port_without_port_security_agrees_to_everything() -> None:
    open_port = Port("vm1", mac(1), (host(1),), port_security=False)
    assert fate(entry(BOTH), policy(vm1=open_port)) is Fate.LIVE
    assert fate(entry(BOTH), policy(vm1=open_port, server="closed")) is Fate.CUT


def test_an_address_pair_is_its_own_and_the_whole_world_is_nobody_s() -> None:
    world = Claim(mac(3), Prefix.parse("0.0.0.0/0"))
    router = Port("vm3", mac(3), (host(3),), (world, Claim(mac(3), Prefix.parse("10.0.0.8/30"))), ("client",))
    assert fate(entry(mark(3), source=8), policy(vm3=router)) is Fate.LIVE
    assert fate(entry(mark(1), source=9), policy(vm3=router)) is Fate.FORGET
    assert fate(entry(mark(1), source=77), policy(vm3=router)) is Fate.CUT


def test_what_is_due_is_sorted_and_told() -> None:
    judge = Judge(policy(), BINDINGS)
    cut, revive, live = entry(mark(1), source=9), entry(mark(1, 2, blocked=True)), entry(BOTH)
    found = due(judge.all([cut, live, revive]))
    assert (found.cut, found.revive, found.forget) == ((cut,), (revive,), ())
    assert found
    assert str(found) == "connections: 1 cut, 1 revived"
    assert not due(judge.all([live]))
    assert str(due([])) == "connections: 0 changed"


def test_rules_with_source_ports_tell_clients_apart() -> None:
    by_client = replace(WEB, source_ports=PortRange(40000, 40000))
    wanted = replace(policy(), security_groups={**policy().security_groups, "server": group("server", by_client)})
    judge = Judge(wanted, BINDINGS)
    other = entry(BOTH)._replace(key=entry(BOTH).key._replace(source_port=40001))
    assert [judge.judge(each).fate for each in (entry(BOTH), other)] == [Fate.LIVE, Fate.CUT]


def test_the_connection_is_told_with_the_endpoints_that_are_asked() -> None:
    found = Judge(policy(), BINDINGS).judge(entry(mark(0, 2), source=77))
    assert found.connection is not None
    assert (found.connection.sender, found.connection.receiver) == (None, "vm2")
    assert found.verdict is not None
    assert found.verdict.ingress.rules == (WEB,)


@given(policies(), st.data())
def test_a_member_is_whoever_is_in_one_of_the_members(drawn: Policy, data: st.DataObject) -> None:
    prefixes = [prefix for port in drawn.ports.values() for _, prefix in port.claims]
    prefixes += [prefix for group in drawn.address_groups.values() for prefix in group.prefixes]
    address = data.draw(st.sampled_from([*prefixes, host(1), Prefix.parse("192.0.2.7"), Prefix.parse("2001:db8::9")]))
    remotes: list[RemoteGroup | RemoteAddressGroup] = [*map(RemoteGroup, drawn.security_groups)]
    remotes += map(RemoteAddressGroup, drawn.address_groups)
    for remote in remotes:
        naive = any(member.contains(address) for member in drawn.members(remote))
        assert drawn.has_member(remote, address) == naive


def test_an_address_set_looks_at_every_length() -> None:
    found = AddressSet(map(Prefix.parse, ("10.0.0.0/8", "192.0.2.4", "2001:db8::/32")))
    assert found.contains(Prefix.parse("10.255.0.1"))
    assert found.contains(Prefix.parse("2001:db8::/64"))
    assert not found.contains(Prefix.parse("0.0.0.0/0"))
    assert not found.contains(Prefix.parse("192.0.2.5"))


def test_what_another_filter_let_in_is_taken_over_where_both_ends_allow_it() -> None:
    judge = Judge(policy(), BINDINGS)
    found = judge.judge(entry(0))
    assert (found.fate, found.entry.mark) == (Fate.ADOPT, BOTH)
    hints = hint_numbers(policy())
    assert found.entry.label == hints["out"] << p.EGRESS_LABEL.first | hints["web"] << p.INGRESS_LABEL.first
    from_outside, to_outside = judge.judge(entry(0, source=77)), judge.judge(entry(0, destination=77))
    assert (from_outside.fate, from_outside.entry.mark) == (Fate.ADOPT, mark(0, 2))
    assert (to_outside.fate, to_outside.entry.mark) == (Fate.ADOPT, mark(1))
    half = Judge(policy(client="stateless"), BINDINGS).judge(entry(0))
    assert (half.fate, half.entry.mark) == (Fate.ADOPT, mark(0, 2))
    assert fate(entry(0), policy(client="closed")) is Fate.FOREIGN
    assert fate(entry(0, source=77, destination=78), policy()) is Fate.FOREIGN
    assert judge.judge(entry(p.BLOCKED)).entry == found.entry
    assert due(judge.all([BARRED, entry(p.BLOCKED)])).adopt == (found.entry,)
