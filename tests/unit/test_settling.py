"""What is done to live connections, in which order, and when nothing is even read."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ovsfw.compiler import Binding, Bindings
from ovsfw.compiler import pipeline as p
from ovsfw.errors import SwitchError
from ovsfw.openflow.tracked import Tracked, Tuple
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Direction, Policy, Port, PortRange, RemoteGroup, Rule, SecurityGroup
from ovsfw.reconciler import Reconciler
from ovsfw.settling import Totals
from tests.fakes import FakeSwitch
from tests.strategies import mac

ZONE = 7
WEB = Rule("web", Direction.INGRESS, Family.IPV4, 6, PortRange(80, 80), remote=RemoteGroup("clients"))
OUT = Rule("out", Direction.EGRESS, Family.IPV4)
TWO = Bindings((Binding("vm1", 1, ZONE), Binding("vm2", 2, ZONE)))


def port(n: int, *groups: str) -> Port:
    return Port(f"vm{n}", mac(n), (Prefix.parse(f"10.0.0.{n}"),), (), groups)


def policy(*ports: Port, rules: tuple[Rule, ...] = (WEB,)) -> Policy:
    groups = [SecurityGroup("clients", rules=(OUT,)), SecurityGroup("talker", rules=(OUT,))]
    groups.append(SecurityGroup("server", rules=rules))
    return Policy({one.id: one for one in ports}, {group.id: group for group in groups})


OPEN = policy(port(1, "clients"), port(2, "server"))
CLOSED = policy(port(1, "talker"), port(2, "server"))


def entry(origin: int = 1, target: int = 2, protocol: int = 6) -> Tracked:
    sides = origin << p.ORIGIN.first | target << p.TARGET.first
    return Tracked(Tuple(protocol, "10.0.0.1", "10.0.0.2", 40000, 80), ZONE, sides | p.EGRESS_OK, 0)


class Host:
    """A switch in memory, and its reconciler in agreement with it."""

    def __init__(self, wanted: Policy = OPEN, bindings: Bindings = TWO) -> None:
        self.switch = FakeSwitch()
        self.reconciler = Reconciler(self.switch)
        self.change(wanted, bindings)

    def change(self, wanted: Policy, bindings: Bindings = TWO) -> list[str]:
        """A step, and all that follows from it; what was done, in order."""
        self.switch.log.clear()

        async def work() -> None:
            await self.reconciler.step(wanted, bindings)
            await self.reconciler.settling.finish()

        asyncio.run(work())
        assert self.reconciler.settling.is_settled
        return self.switch.log


def test_what_is_denied_is_blocked_after_the_bundle_and_looked_for_again_when_caches_have_followed() -> None:
    host = Host()
    host.switch.tracked = [entry()]
    assert host.change(CLOSED) == ["bundle", "block 1", "settled"]
    assert [one.mark & p.BLOCKED for one in host.switch.tracked] == [p.BLOCKED]
    assert host.reconciler.settling.totals == Totals(cut=1)
    assert host.change(CLOSED) == []
    assert host.change(OPEN) == ["bundle", "revive 1", "settled"]
    assert host.switch.tracked == [entry()]


def test_who_waits_for_a_look_finds_cut_what_is_denied() -> None:
    host = Host()
    host.switch.tracked = [entry()]

    async def work() -> list[int]:
        await host.reconciler.step(CLOSED, TWO)
        keeping = asyncio.create_task(host.reconciler.settling.run())
        await host.reconciler.settling.looked()
        keeping.cancel()
        return [one.mark & p.BLOCKED for one in host.switch.tracked]

    assert asyncio.run(work()) == [p.BLOCKED]


def test_what_begins_while_caches_follow_is_cut_too() -> None:
    host = Host()

    class Late(FakeSwitch):
        async def settled(self) -> None:
            self.tracked.append(entry())

    host.switch.__class__ = Late
    host.change(CLOSED)
    assert [one.mark & p.BLOCKED for one in host.switch.tracked] == [p.BLOCKED]


@pytest.mark.parametrize("more", [",helper=ftp", ",parent=(src=10.0.0.1,dst=10.0.0.2,sport=40000,dport=21)"])
def test_what_a_helper_is_concerned_with_is_also_forgotten(more: str) -> None:
    """Then it is blocked as one that conntrack does not know, which this switch makes nothing of."""
    host = Host()
    host.switch.tracked = [entry()._replace(more=more)]
    assert host.change(CLOSED) == ["bundle", "block 1", "forget 1 connections", "block 1", "settled"]
    assert host.switch.tracked == []


def test_what_cannot_be_marked_is_forgotten() -> None:
    host = Host()
    host.switch.tracked = [entry(protocol=132)]
    assert host.change(CLOSED) == ["bundle", "block 1", "forget 1 connections", "settled"]
    assert host.switch.tracked == []


def test_one_more_rule_or_member_reads_nothing_unless_something_is_blocked() -> None:
    host = Host(CLOSED)
    reads = host.switch.reads
    more = replace(WEB, id="more", ports=PortRange(81, 81))
    host.change(policy(port(1, "talker"), port(2, "server"), rules=(WEB, more)))
    host.change(policy(port(1, "talker"), port(2, "server"), port(9, "clients"), rules=(WEB, more)))
    assert host.switch.reads == reads
    host.change(CLOSED)
    assert host.switch.reads > reads


def test_an_endpoint_that_is_plugged_does_not_inherit_connections() -> None:
    """vm3 gets the ofport of vm1; by its own rules it may not what vm1 might."""
    host = Host()
    with_third = policy(port(1, "clients"), port(2, "server"), port(3))
    host.switch.tracked = [entry()]
    log = host.change(with_third, Bindings((Binding("vm3", 1, ZONE), Binding("vm2", 2, ZONE))))
    assert log[:2] == ["block 1", "bundle"]
    assert [one.mark & p.BLOCKED for one in host.switch.tracked] == [p.BLOCKED]


def test_an_address_that_moves_to_another_endpoint_takes_no_connections_along() -> None:
    host = Host()
    moved = policy(port(2, "server"), replace(port(3, "clients"), fixed_ips=(Prefix.parse("10.0.0.1"),)))
    host.switch.tracked = [entry()]
    log = host.change(moved, Bindings((Binding("vm2", 2, ZONE), Binding("vm3", 3, ZONE))))
    assert log.index("forget 1 connections") < log.index("bundle")
    assert host.switch.tracked == []


def test_where_there_is_no_way_to_mark_yet_it_is_forgotten_before_the_first_bundle() -> None:
    switch = FakeSwitch()
    switch.tracked = [entry()]
    asyncio.run(Reconciler(switch).step(CLOSED, TWO))
    assert switch.tracked == []
    assert switch.log.index("forget 1 connections") < switch.log.index("bundle")


def test_who_starts_anew_looks_at_everything_once() -> None:
    """The daemon was killed between the bundle and the cut."""
    host = Host()
    asyncio.run(host.reconciler.step(CLOSED, TWO))
    host.switch.tracked = [entry()]
    host.reconciler = Reconciler(host.switch)
    assert host.change(CLOSED) == ["block 1", "settled"]
    assert host.change(CLOSED) == []


def test_a_lost_answer_does_not_spare_a_connection() -> None:
    """The bundle was applied, but nobody knows; the next step finds nothing to change."""
    host = Host()
    host.switch.tracked = [entry()]
    host.switch.fail_next = "after"
    with pytest.raises(SwitchError, match="no answer"):
        host.change(CLOSED)
    assert host.change(CLOSED) == ["block 1", "settled"]


def test_only_the_last_policy_matters() -> None:
    """A change that comes before the work of the last is done replaces it."""
    host = Host()
    host.switch.tracked = [entry()]

    async def both() -> None:
        await host.reconciler.step(CLOSED, TWO)
        await host.reconciler.settling.settle()
        await host.reconciler.step(OPEN, TWO)
        await host.reconciler.settling.finish()

    asyncio.run(both())
    assert host.switch.tracked == [entry()]
    assert host.change(OPEN) == []


def test_the_work_goes_on_beside_the_steps_and_survives_a_failure() -> None:
    host = Host()
    host.switch.tracked = [entry()]

    async def live() -> None:
        task = asyncio.create_task(host.reconciler.settling.run())
        await host.reconciler.step(CLOSED, TWO)
        while not host.reconciler.settling.is_settled:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(live(), 20))
    assert [one.mark & p.BLOCKED for one in host.switch.tracked] == [p.BLOCKED]


def test_what_another_filter_let_in_is_taken_over_when_the_switch_is_read() -> None:
    """But not where the rules would not let it in; and what cannot be taken over is left to the rules."""
    switch = FakeSwitch()
    others = entry()._replace(mark=0), entry(protocol=132)._replace(mark=0)
    switch.tracked = list(others)
    reconciler = Reconciler(switch)
    anything = policy(port(1, "clients"), port(2, "server"), rules=(replace(WEB, protocol=None, ports=None),))

    async def work(wanted: Policy) -> None:
        reconciler.doubt()
        await reconciler.step(wanted, TWO)
        await reconciler.settling.finish()

    asyncio.run(work(CLOSED))
    assert switch.tracked == list(others)
    asyncio.run(work(anything))
    assert [one.mark for one in switch.tracked] == [entry().mark, 0]
    assert reconciler.settling.totals.forgotten == 0
