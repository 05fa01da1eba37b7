"""Small changes of a large policy, a restart with nothing changed, and the repair of what somebody has deleted."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator

from ovsfw.compiler import Binding, Bindings
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Direction, Policy, Port, PortRange, Rule
from ovsfw.reconciler import Reconciler
from tests.benchmarks.world import Row, bindings, bridge, milliseconds, policy

TCP = 6
LIMIT = 0.005

Change = Callable[[Policy, Bindings, int], tuple[Policy, Bindings]]


async def rows(switch: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    """Each change is made `times` times, each a little different, on a policy that is in the switch already."""
    for name, flow_mods, change in (
        ("one member joins a set of 10,000 (one address per family)", "<= 2", _member_joins),
        ("one member leaves it", "<= 2", _member_leaves),
        ("one rule is added to a group", "1", _rule_added),
        ("one rule is removed", "1 and what cuts its connections", _rule_removed),
    ):
        async for row in _changes(switch, name, flow_mods, change, times):
            yield row
    yield await _restart(switch)


async def _changes(switch: PrivateSwitch, name: str, flow_mods: str, change: Change, times: int) -> AsyncIterator[Row]:
    base = policy("large")
    here = bindings(base)
    async with bridge(switch) as channel:
        reconciler = Reconciler(channel)
        await reconciler.step(base, here)
        took, sent = [], []
        for number in range(times * 4):
            changed, plugged = change(base, here, number)
            began = time.perf_counter()
            done = await reconciler.step(changed, plugged)
            took.append(time.perf_counter() - began)
            sent.append(len(done.flows) if done else 0)
            await reconciler.step(base, here)
    median = statistics.median(took)
    yield Row(f"large: {name}: flow mods", flow_mods, str(max(sent)), None)
    yield Row(f"large: {name}: from event to commit reply", "<= 5 ms", milliseconds(median), median <= LIMIT)


def _stranger(base: Policy, number: int) -> Port:
    member = next(port for name, port in base.ports.items() if name.startswith("remote-"))
    addresses = (
        Prefix(Family.IPV4, 0x0AFE0000 | number, 32),
        Prefix(Family.IPV6, 0x20010DB800FE << 80 | number, 128),
    )
    return dataclasses.replace(member, id=f"stranger-{number}", mac=0x5254FE000000 | number, fixed_ips=addresses)


def _member_joins(base: Policy, here: Bindings, number: int) -> tuple[Policy, Bindings]:
    port = _stranger(base, number)
    return dataclasses.replace(base, ports={**base.ports, port.id: port}), here


def _member_leaves(base: Policy, here: Bindings, number: int) -> tuple[Policy, Bindings]:
    gone = f"remote-{600 + number}"
    return dataclasses.replace(base, ports={name: port for name, port in base.ports.items() if name != gone}), here


def _rule_added(base: Policy, here: Bindings, number: int) -> tuple[Policy, Bindings]:
    group = base.security_groups["group-0"]
    rule = Rule(f"added-{number}", Direction.INGRESS, Family.IPV4, TCP, PortRange(40000 + number, 40000 + number))
    changed = dataclasses.replace(group, rules=(*group.rules, rule))
    return dataclasses.replace(base, security_groups={**base.security_groups, group.id: changed}), here


def _rule_removed(base: Policy, here: Bindings, number: int) -> tuple[Policy, Bindings]:
    group = base.security_groups[f"group-{number}"]
    changed = dataclasses.replace(group, rules=group.rules[1:])
    return dataclasses.replace(base, security_groups={**base.security_groups, group.id: changed}), here


async def _restart(switch: PrivateSwitch) -> Row:
    """About 100,000 flows: `large` with more addresses."""
    base = policy("large")
    more = {port.id: port for port in _many(base, 32000)}
    grown = dataclasses.replace(base, ports={**base.ports, **more})
    here = bindings(base)
    async with bridge(switch) as channel:
        await Reconciler(channel).step(grown, here)
        took = []
        for _ in range(3):
            again = Reconciler(channel)
            began = time.perf_counter()
            change = await again.step(grown, here)
            took.append(time.perf_counter() - began)
    median = statistics.median(took)
    sent = len(change.flows) if change else 0
    return Row(
        "restart, nothing changed, 100k flows: flow mods; time",
        "0; <= 1 s",
        f"{sent}; {milliseconds(median)}",
        sent == 0 and median <= 1,
    )


def _many(base: Policy, count: int) -> Iterator[Port]:
    for number in range(count):
        yield _stranger(base, number)


def plugged(here: Bindings, port_id: str, ofport: int) -> Bindings:
    """With one more port."""
    return dataclasses.replace(here, endpoints=(*here.endpoints, Binding(port_id, ofport)))
