from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ovsfw.errors import SwitchError
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow import action as a
from ovsfw.openflow import match as m
from ovsfw.openflow.diff import Diff, diff
from ovsfw.openflow.flow import Flow, FlowSet, flow
from ovsfw.openflow.text import format_flow, parse_flow
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import management_socket
from tests.flow_samples import flows

pytestmark = [pytest.mark.ovs, pytest.mark.usefixtures("bridge")]
# One bridge serves all examples of a test: each begins by emptying it.
on_a_switch = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
flow_sets = st.lists(flows(), min_size=1, max_size=30, unique_by=lambda each: each.key)


@asynccontextmanager
async def connected(ovs: PrivateSwitch, timeout: float = 20.0) -> AsyncIterator[Channel]:
    channel = Channel(timeout)
    await channel.connect(management_socket("br-int", ovs.rundir))
    try:
        yield channel
    finally:
        channel.close()


async def reach(channel: Channel, desired: Iterable[Flow]) -> Diff:
    change = diff(FlowSet.of(await channel.dump_flows()), FlowSet.of(desired))
    await channel.apply(change)
    return change


def shown(found: Iterable[Flow]) -> list[str]:
    """Text and bytes, sorted, so that a difference can be read."""
    return [f"{format_flow(each)} {each.key.hex()} {each.value.hex()}" for each in sorted(found)]


def ours(number: int, *actions: a.Action, cookie: int = 7) -> Flow:
    return flow(3, 100, (m.REGISTERS[1](number),), actions, cookie)


@on_a_switch
@given(flow_sets)
def test_what_was_sent_is_dumped_byte_for_byte(ovs: PrivateSwitch, desired: list[Flow]) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, desired)
            assert shown(await channel.dump_flows()) == shown(desired)

    asyncio.run(run())


@on_a_switch
@given(flow_sets)
def test_ovs_ofctl_loads_the_text_and_prints_what_we_read(ovs: PrivateSwitch, desired: list[Flow]) -> None:
    ovs.ofctl("del-flows", "br-int")
    ovs.ofctl("--bundle", "add-flows", "br-int", "-", stdin="\n".join(map(format_flow, desired)))

    async def run() -> None:
        async with connected(ovs) as channel:
            assert shown(await channel.dump_flows()) == shown(desired)

    asyncio.run(run())
    printed = ovs.ofctl("--no-stats", "--no-names", "dump-flows", "br-int").splitlines()
    assert shown(parse_flow(line) for line in printed if "actions=" in line) == shown(desired)
