from __future__ import annotations

import asyncio
import os
import socket
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
from ovsfw.openflow import wire
from ovsfw.openflow.diff import Diff, diff
from ovsfw.openflow.flow import Entry, Flow, FlowSet, flow
from ovsfw.openflow.text import format_flow, parse_flow
from ovsfw.switch.channel import Channel
from ovsfw.switch.connection import Connection
from ovsfw.switch.rundir import management_socket
from ovsfw.waiting import within
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


def shown(found: Iterable[Entry]) -> list[str]:
    """Text and bytes, sorted, so that a difference can be read."""
    return [f"{format_flow(Flow(*each))} {each[0].hex()} {each[1].hex()}" for each in sorted(found)]


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


def test_deletes_adds_and_changes_go_together(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, [ours(1), ours(2), ours(3, a.Output(1))])
            desired = [ours(2), ours(3, a.Output(2)), ours(4)]
            change = await reach(channel, desired)
            assert (len(change.deletes), len(change.adds), len(change.changes)) == (1, 1, 1)
            assert shown(await channel.dump_flows()) == shown(desired)

    asyncio.run(run())


def test_a_flow_that_somebody_else_put_there_is_not_deleted(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, [ours(1, cookie=7)])
            ovs.ofctl("add-flow", "br-int", format_flow(ours(1, cookie=9)))
            await channel.apply(Diff(deletes=(ours(1, cookie=7),)))
            assert await channel.dump_flows() == [ours(1, cookie=9)]

    asyncio.run(run())


def test_no_change_needs_no_switch() -> None:
    asyncio.run(Channel().apply(Diff()))
    with pytest.raises(SwitchError, match="not connected"):
        asyncio.run(Channel().apply(Diff(adds=(ours(1),))))


WRONG = flow(3, 100, (m.IPV4_SRC(1),), (), 7)


def test_a_refused_flow_is_shown_and_nothing_is_changed(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, [ours(1)])
            with pytest.raises(SwitchError) as raised:
                await channel.apply(Diff(deletes=(ours(1),), adds=(ours(2), WRONG, ours(3))))
            assert str(raised.value).endswith(
                "nothing was changed: the switch refused a flow (OFPBMC_BAD_PREREQ): "
                "cookie=0x7,table=3,priority=100,nw_src=0.0.0.1 actions=drop"
            )
            assert not channel.is_open
            await channel.connect(management_socket("br-int", ovs.rundir))
            assert await channel.dump_flows() == [ours(1)]

    asyncio.run(run())


def test_a_bundle_that_fails_only_at_its_commit_changes_nothing(ovs: PrivateSwitch) -> None:
    """The switch looks for overlaps when it commits, long after the barrier."""
    overlapping = flow(3, 100, (m.REGISTERS[2](5),), (), 7)
    checked = Flow(overlapping.key, overlapping.value[:12] + b"\0\2" + overlapping.value[14:])

    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, [ours(1)])
            with pytest.raises(SwitchError, match=r"a flow \(OFPFMFC_OVERLAP\): .*check_overlap,reg2=0x5"):
                await channel.apply(Diff(adds=(ours(2), checked)))
            await channel.connect(management_socket("br-int", ovs.rundir))
            assert await channel.dump_flows() == [ours(1)]

    asyncio.run(run())


def test_twenty_thousand_flows_and_as_many_refusals_do_not_jam(ovs: PrivateSwitch) -> None:
    many = [ours(number, a.Output(number % 99 + 1)) for number in range(20_000)]
    wrong = [flow(3, 100, (m.REGISTERS[1](number), m.IPV4_SRC(1)), (), 7) for number in range(20_000)]

    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, many)
            assert sorted(await channel.dump_flows()) == sorted(many)
            with pytest.raises(SwitchError, match="and 19999 more"):
                await channel.apply(Diff(adds=tuple(wrong)))

    asyncio.run(run())


def test_requests_wait_their_turn(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            changes = [channel.apply(Diff(adds=(ours(number),))) for number in range(50)]
            dumps = [channel.dump_flows() for _ in range(5)]
            await asyncio.gather(*changes, *dumps)
            assert len(await channel.dump_flows()) == 50

    asyncio.run(run())


def test_counters(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            await reach(channel, [flow(0, 5, (m.ETH_TYPE(0x88CC),), (), 1), flow(0, 1, (), (), 2)])
            packet = "ffffffffffff0200000000 01 88cc".replace(" ", "") + "00" * 46
            for _ in range(3):
                ovs.ofctl("packet-out", "br-int", f"in_port=LOCAL packet={packet} actions=table")
            found = {each.flow.cookie: (each.packets, each.bytes) for each in await channel.dump_counters()}
            assert found == {1: (3, 180), 2: (0, 0)}

    asyncio.run(run())


def test_ports_and_their_no_flood_flag(ovs: PrivateSwitch) -> None:
    for number in (1, 2):
        ovs.vsctl("add-port", "br-int", f"p{number}", "--", "set", "interface", f"p{number}", "type=internal",
                  f"ofport_request={number}")  # fmt: skip

    def flags() -> list[str]:
        lines = ovs.run("ovs-ofctl", "-O", "OpenFlow10", "dump-ports-desc", "br-int").splitlines()
        names = [line.split("(")[1].split(")")[0] for line in lines if "addr:" in line]
        configs = [line for line in lines if "config:" in line]
        return [name for name, config in zip(names, configs, strict=True) if "NO_FLOOD" in config]

    async def run() -> None:
        async with connected(ovs) as channel:
            ports = await channel.ports()
            assert {number: port.name for number, port in ports.items()} == {1: "p1", 2: "p2", 0xFFFFFFFE: "br-int"}
            await channel.set_no_flood([1, 2, 77], on=True)
            assert flags() == ["p1", "p2"]
            await channel.set_no_flood([1], on=False)
            assert flags() == ["p2"]
            assert [number for number, port in (await channel.ports()).items() if port.no_flood] == [2]
            # What others do since the ports were read is not in the way.
            ovs.run("ovs-ofctl", "-O", "OpenFlow10", "mod-port", "br-int", "p1", "no-flood")
            assert flags() == ["p1", "p2"]
            await channel.set_no_flood([1], on=False)
            assert flags() == ["p2"]
            ovs.vsctl("set", "interface", "p1", 'mac="52:54:00:00:00:77"')
            await channel.set_no_flood([1], on=True)
            assert flags() == ["p1", "p2"]

    asyncio.run(run())


@pytest.mark.parametrize("which", [0, 1])
def test_both_connections_fall_together(ovs: PrivateSwitch, which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Connection] = []
    real = Connection.open

    async def noted(path: Path, version: int = wire.VERSION) -> Connection:
        opened.append(await real(path, version))
        return opened[-1]

    monkeypatch.setattr(Connection, "open", noted)

    async def run() -> None:
        async with connected(ovs) as channel:
            await channel.watch_ports(lambda: None)
            lost = asyncio.create_task(channel.lost())
            opened[which].close()
            await within(lost, 5)
            assert not channel.is_open
            assert all(connection.broken for connection in opened)
            with pytest.raises(SwitchError, match="closed"):
                await channel.ports()
            await channel.connect(management_socket("br-int", ovs.rundir))
            assert 0xFFFFFFFE in await channel.ports()
            assert len(opened) == 4

    asyncio.run(run())


async def fails(path: Path) -> str:
    with pytest.raises(SwitchError) as raised:
        await Channel(5).connect(path)
    return str(raised.value)


def test_no_switch_at_all(tmp_path: Path) -> None:
    said = asyncio.run(fails(tmp_path / "br-int.mgmt"))
    assert said.startswith(f"ovs-vswitchd is not running in {tmp_path}; start Open vSwitch (systemctl start")


def test_a_missing_bridge(ovs: PrivateSwitch) -> None:
    said = asyncio.run(fails(management_socket("br-x", ovs.rundir)))
    assert said == "no bridge br-x (there are br-int); choose another, or add it with: ovs-vsctl add-br br-x"


def test_a_switch_that_is_starting(ovs: PrivateSwitch) -> None:
    path = management_socket("br-late", ovs.rundir)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and does not listen, as when ovs-vswitchd was killed
        assert asyncio.run(fails(path)) == f"{path}: ovs-vswitchd is there, but does not listen; it may be starting"
    path.unlink()


def test_no_permission(ovs: PrivateSwitch) -> None:
    os.seteuid(65534)
    try:
        said = asyncio.run(fails(management_socket("br-int", ovs.rundir)))
    finally:
        os.seteuid(0)
    assert "permission denied; run this as root" in said


@pytest.mark.parametrize(("allowed", "missing"), [("OpenFlow13", "OpenFlow14"), ("OpenFlow14", "OpenFlow10")])
def test_what_is_said_about_a_missing_protocol_helps(ovs: PrivateSwitch, allowed: str, missing: str) -> None:
    ovs.vsctl("set", "bridge", "br-int", f"protocols={allowed}")

    async def use() -> None:
        async with connected(ovs) as channel:
            await channel.ports()

    with pytest.raises(SwitchError, match=f"br-int does not speak {missing}; allow it with: ") as raised:
        asyncio.run(use())
    command = str(raised.value).split("allow it with: ")[1].split()
    ovs.run(*command)
    ovs.run(*command[:-1], "OpenFlow10")
    assert allowed in ovs.vsctl("get", "bridge", "br-int", "protocols")
    asyncio.run(use())


def test_a_switch_that_dies_is_noticed(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as channel:
            lost = asyncio.create_task(channel.lost())
            await asyncio.sleep(0)
            ovs.kill_vswitchd()
            assert "Open vSwitch closed the connection" in await asyncio.wait_for(lost, 10)
            assert not channel.is_open
            with pytest.raises(SwitchError, match="closed the connection"):
                await channel.dump_flows()
            said = await fails(management_socket("br-int", ovs.rundir))
            assert said.startswith("ovs-vswitchd is not running")

    try:
        asyncio.run(run())
    finally:
        ovs.start_vswitchd()
