"""One-shot work on a bridge: open the connections, look or change, close.  Wiring only.

Every function takes `db`, the address of the local OVSDB as `ovs-vsctl --db` has it, and the name of a bridge, and
raises SwitchError when Open vSwitch is away or refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ovsfw.compiler import Bindings, Compiler, Hook, Program
from ovsfw.compiler.hook import hook_of
from ovsfw.compiler.pipeline import HOOK, Priority
from ovsfw.compiler.recording import sent_by
from ovsfw.openflow.flow import Flow, FlowSet
from ovsfw.policy.model import Policy
from ovsfw.policy.paged import Paged
from ovsfw.reconciler import Change, Enforced, Installed, carry_out, change_between, enforce, read
from ovsfw.settling import NOTHING, Settling, Totals
from ovsfw.switch.channel import Channel
from ovsfw.switch.ovsdb import Ovsdb
from ovsfw.switch.rundir import management_socket, rundir_of


@dataclass(frozen=True, slots=True)
class Bridge:
    """An open bridge: its OpenFlow channel and where that is, and what was plugged into it when it was opened."""

    channel: Channel
    bindings: Bindings
    fail_mode: str
    path: Path


@asynccontextmanager
async def opened(db: str, bridge: str) -> AsyncIterator[Bridge]:
    """Open a bridge for a while."""
    ovsdb, channel = Ovsdb(), Channel()
    try:
        await ovsdb.connect(db)
        bindings = ovsdb.snapshot(bridge)
        path = management_socket(bridge, rundir_of(db))
        await channel.connect(path)
        yield Bridge(channel, bindings, ovsdb.fail_mode(bridge), path)
    finally:
        channel.close()
        ovsdb.close()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A bridge beside a policy: what would change, and what somebody else put in our way.

    `settled` is what was done to live connections, where something was done.
    """

    program: Program
    installed: Installed
    change: Change
    bindings: Bindings
    warnings: tuple[str, ...]
    hook: Hook
    settled: Totals = NOTHING

    @property
    def outranking(self) -> tuple[Flow, ...]:
        """Flows of others in the hook table that see packets before ours do; not those of who has let us in."""
        return () if self.hook.inside else tuple(flow for flow in self.installed.others if is_before_us(flow))


def is_before_us(flow: Flow) -> bool:
    """Whether a foreign flow takes packets away from the filter."""
    return flow.table == HOOK.number and flow.priority >= Priority.HOOK


async def compare(policy: Policy, db: str, bridge: str) -> Comparison:
    """Look, and change nothing."""
    async with opened(db, bridge) as held:
        return await compare_with(held, policy)


async def apply_once(policy: Policy, db: str, bridge: str) -> Comparison:
    """Make a bridge hold exactly a policy, in one atomic bundle, and its live connections follow."""
    async with opened(db, bridge) as held:
        comparison = await compare_with(held, policy)
        settling = Settling(held.channel)
        wanted = Enforced(policy, held.bindings, comparison.change)
        await enforce(held.channel, settling, wanted, is_new=True)
        return replace(comparison, settled=await settling.finish())


async def clear(db: str, bridge: str) -> Change:
    """Take every flow of ovsfw off a bridge, and put its endpoints back into flooding."""
    async with opened(db, bridge) as held:
        installed = await read(held.channel)
        nothing = compile_nothing(held.bindings)
        change = change_between(installed.ours, installed.settings, nothing)
        await carry_out(held.channel, change)
        return change


def compile_nothing(bindings: Bindings) -> Program:
    """The program of a bridge that ovsfw has left."""
    ofports = (bound.ofport for bound in bindings.endpoints)
    return Program(FlowSet({}), Paged(dict.fromkeys(ofports, False)), fragment_ports=False)


async def compare_with(held: Bridge, policy: Policy) -> Comparison:
    """Look at a bridge that is open."""
    installed = await read(held.channel)
    # A daemon may have hung the filter elsewhere, and left flows that send copies; whether they do is its business.
    hook = hook_of(installed.ours)
    program = Compiler(hook).compile(policy, held.bindings, sent_by(installed.ours))
    change = change_between(installed.ours, installed.settings, program)
    return Comparison(program, installed, change, held.bindings, tuple(_warnings(held, policy)), hook)


def _warnings(held: Bridge, policy: Policy) -> list[str]:
    found = []
    if held.fail_mode != "secure":
        found.append(
            "the bridge's fail_mode is not secure: when Open vSwitch restarts, packets pass unfiltered until the flows "
            "are back; run: ovs-vsctl set-fail-mode BRIDGE secure"
        )
    unknown = [bound.port_id for bound in held.bindings.endpoints if bound.port_id not in policy.ports]
    if unknown:
        listed = ", ".join(sorted(unknown)[:5])
        found.append(f"{len(unknown)} plugged ports are not in the policy and pass nothing: {listed}")
    return found
