"""The one object with memory: it makes the switch hold what the policy says.

Its whole memory is what it last saw agreed with the switch.  None means in doubt, and doubt costs one dump.  Whatever
goes wrong on the way leaves it in doubt: a commit that timed out may have been applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from ovsfw.compiler import STANDALONE, Bindings, Compiler, Hook, Program, Sends
from ovsfw.compiler.hook import HOOK_COOKIE
from ovsfw.compiler.pipeline import CLASSIFY, FORWARD, OWN_TABLES, UNTAGGED, is_ours
from ovsfw.connections import Judge
from ovsfw.openflow.diff import Diff, corrected, diff
from ovsfw.openflow.flow import Entry, Flow, FlowSet, Key, Value
from ovsfw.openflow.monitor import Event, EventKind
from ovsfw.openflow.port import SwitchPort
from ovsfw.openflow.tracked import Tracked
from ovsfw.policy.model import Policy
from ovsfw.settling import Settling

# Seconds until a question is on its way.
_ASKED = 0.001


class Switch(Protocol):
    """What the reconciler needs of a switch; each raises SwitchError when it cannot be done."""

    async def dump_flows(self) -> Iterable[Entry]:
        """Every flow on the bridge, whoever made it."""

    async def ports(self) -> Mapping[int, SwitchPort]:
        """The ports of the bridge by their OpenFlow number."""

    async def apply(self, change: Diff) -> None:
        """All of it or nothing, in one atomic bundle."""

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        """Set or clear the flag on some ports."""

    async def forget_macs(self) -> None:
        """Let the switch's own forwarding forget which MAC addresses it has seen where."""

    async def shows_fragment_ports(self) -> bool:
        """Whether flows see the ports of first fragments."""

    async def show_fragment_ports(self, *, on: bool) -> None:
        """Let them, or not."""

    async def connection_limits(self) -> Mapping[int, int]:
        """How many connections the conntrack zones that have a limit may have."""

    async def limit_connections(self, limits: Mapping[int, int | None]) -> None:
        """Set the limits of some zones, or lift them (None)."""

    async def connections(self, zones: Collection[int]) -> Sequence[Tracked]:
        """Every connection in some zones."""

    async def remark(self, entries: Collection[Tracked], *, blocked: bool) -> None:
        """Block connections, or let them live again."""

    async def take_over(self, entries: Collection[Tracked]) -> None:
        """Write the mark and label of each into the connection, unless it has a mark by now."""

    async def forget_connections(self, entries: Collection[Tracked]) -> None:
        """Forget connections, one by one."""

    async def settled(self) -> None:
        """Wait until no packet is dealt with by flows that are gone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What must hold on a switch beside the flows; it is lost when ovs-vswitchd restarts."""

    no_flood: frozenset[int]
    fragment_ports: bool
    connection_limits: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What one step changes: flows, ports to take out of flooding or to put back, fragments, limits of connections.

    `fragment_ports` is None when it stays as it is; `limits` has the zones whose limit changes, None to lift it.
    """

    flows: Diff = field(default_factory=Diff)
    close: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()
    fragment_ports: bool | None = None
    limits: Mapping[int, int | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.flows or self.close or self.open or self.fragment_ports is not None or self.limits)

    def __str__(self) -> str:
        """`+12 -3 ~1 flows, 2 ports taken out of flooding`."""
        parts = [str(self.flows)]
        if self.close:
            parts.append(f"{len(self.close)} ports taken out of flooding")
        if self.open:
            parts.append(f"{len(self.open)} ports put back into flooding")
        if self.fragment_ports is not None:
            parts.append(f"ports of fragments {'shown' if self.fragment_ports else 'hidden'}")
        if self.limits:
            parts.append(f"{len(self.limits)} limits of connections")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Installed:
    """What the switch holds: our flows, the flows of others, and its settings."""

    ours: FlowSet
    others: tuple[Flow, ...]
    settings: Settings


def change_between(ours: FlowSet, settings: Settings, desired: Program) -> Change:
    """What must happen; ports that the program does not speak of keep their flag."""
    present = settings.no_flood
    flags = ((ofport, ofport in present, on) for ofport, on in desired.no_flood.items())
    return _change(ours, settings, desired, flags)


def _change_since(agreed: Program, desired: Program) -> Change:
    """The same, where all that was agreed holds: it costs no look at every port."""
    return _change(agreed.flows, agreed, desired, desired.no_flood.differences(agreed.no_flood))


def _change(
    ours: FlowSet, before: Settings | Program, desired: Program, flags: Iterable[tuple[int, bool | None, bool | None]]
) -> Change:
    """`flags` are ports with their flag before, and as it is desired: None where nobody speaks of it."""
    turned = [(ofport, bool(on)) for ofport, was, on in flags if on is not None and bool(was) != on]
    return Change(
        diff(ours, desired.flows),
        close=frozenset(ofport for ofport, on in turned if on),
        open=frozenset(ofport for ofport, on in turned if not on),
        fragment_ports=None if before.fragment_ports == desired.fragment_ports else desired.fragment_ports,
        limits=_limits_between(before.connection_limits, desired.connection_limits),
    )


def _limits_between(present: Mapping[int, int], wanted: Mapping[int, int]) -> dict[int, int | None]:
    """The zones of networks are ovsfw's; limits of other zones are somebody else's."""
    differing = {zone for zone in present.keys() | wanted.keys() if present.get(zone) != wanted.get(zone)}
    return {zone: wanted.get(zone) for zone in sorted(differing) if 1 <= zone <= UNTAGGED}


class Reconciler:
    """Keeps one bridge in step with a policy.

    A step changes flows; `settling` then brings live connections in line: let its `run` go on beside, or call `finish`.
    `others` are the flows of others, as they were when the switch was read last.

    `sends`, which copies flows send, may be set at any time.
    """

    def __init__(self, switch: Switch, hook: Hook = STANDALONE) -> None:
        """Start in doubt."""
        self._switch = switch
        self._compiler = Compiler(hook)
        self._agreed: Program | None = None
        self._doubts = 0
        self._is_new = True
        self.settling = Settling(switch)
        self.sends = Sends()
        self._compiled: tuple[tuple[Policy, Bindings, Sends], Program] | None = None
        # What others have made of our flows since: a value, or None for a flow that is gone.
        self._drift: dict[Key, Value | None] = {}
        self._sending = Diff()
        self.others: tuple[Flow, ...] = ()

    @property
    def in_doubt(self) -> bool:
        """Whether the next step must read the switch."""
        return self._agreed is None

    @property
    def flows(self) -> FlowSet:
        """What the switch holds of us, as far as is known."""
        return FlowSet({}) if self._agreed is None else self._agreed.flows

    async def step(
        self, policy: Policy | None, bindings: Bindings | None, *, settings_hold: bool = False
    ) -> Change | None:
        """One turn.  None when policy or bindings are not known yet: then nothing is touched.

        Ports are taken out of flooding before the flows change, and put back after, so that at no moment a packet
        reaches an endpoint past its rules.  `settings_hold`: no port has come or gone since the last turn, so the
        switch need not be asked for its settings.
        """
        if policy is None or bindings is None:
            return None
        doubts = self._doubts
        desired, change = await self._compare(policy, bindings, settings_hold=settings_hold)
        self._agreed = None
        # A change may have been made though its answer was lost, so the next step must not count on knowing of it.
        is_new, self._is_new = self._is_new, True
        self._sending = change.flows
        await enforce(self._switch, self.settling, Enforced(policy, bindings, change), is_new=is_new)
        self._is_new, self._sending = False, Diff()
        if doubts == self._doubts:
            self._agreed = desired
        return change

    def _compile(self, policy: Policy, bindings: Bindings) -> Program:
        """What was compiled last, when it was from the same."""
        last, program = self._compiled or (None, None)
        if program is None or last is None or last[0] is not policy or last[1:] != (bindings, self.sends):
            program = self._compiler.compile(policy, bindings, self.sends)
            self._compiled = (policy, bindings, self.sends), program
        return program

    async def _compare(self, policy: Policy, bindings: Bindings, *, settings_hold: bool) -> tuple[Program, Change]:
        """What is wanted, and how it differs from what there is.

        Settings are asked for unless they hold: a port that was unplugged and plugged again has lost its flag.

        What others do while the switch is read may be in what is read or not, but what is told last is so.
        """
        if self._agreed is not None:
            agreed = self._agreed
            if settings_hold:
                desired = self._compile(policy, bindings)
                change = _change_since(agreed, desired)
            else:
                settings, desired = await asyncio.gather(
                    _settings(self._switch, agreed.connection_limits), self._compile_meanwhile(policy, bindings)
                )
                change = change_between(agreed.flows, settings, desired)
        else:
            self._drift = {}
            installed, desired = await asyncio.gather(read(self._switch), self._compile_meanwhile(policy, bindings))
            self.others = installed.others
            change = change_between(installed.ours, installed.settings, desired)
        drift, self._drift = self._drift, {}
        return desired, replace(change, flows=corrected(change.flows, drift, desired.flows))

    async def _compile_meanwhile(self, policy: Policy, bindings: Bindings) -> Program:
        """Compile when what has to be asked is asked: then the switch gathers its flows at the same time."""
        await asyncio.sleep(_ASKED)
        return self._compile(policy, bindings)

    def observe(self, events: Iterable[Event]) -> bool:
        """What a flow monitor tells, on the connection that carries out our changes; whether to step because of it."""
        heard = False
        for kind, flow in events:
            if kind is EventKind.OWN:
                # What was told before of flows that we have changed now is of the past.
                for mine in _touched(self._sending):
                    self._drift.pop(mine.key, None)
            elif flow is None:
                heard = True
                if kind is EventKind.GAP:
                    self.doubt()
            elif flow.table in OWN_TABLES or is_ours(flow) or self._agreed is None or flow.key in self._agreed.flows:
                heard = True
                self._drift[flow.key] = flow.value if kind is EventKind.PRESENT and is_ours(flow) else None
        return heard

    def doubt(self) -> None:
        """Somebody changed the switch, or it was restarted: look before the next step, whatever this one finds."""
        self._agreed = None
        self._doubts += 1


async def read(switch: Switch) -> Installed:
    """What a switch holds now."""
    ours: list[Entry] = []
    others: list[Flow] = []
    for entry in await switch.dump_flows():
        if entry[0][0] in OWN_TABLES or is_ours(Flow(*entry)):
            ours.append(entry)
        else:
            others.append(Flow(*entry))
    return Installed(FlowSet.of(ours), tuple(others), await _settings(switch))


async def _settings(switch: Switch, agreed: Mapping[int, int] | None = None) -> Settings:
    """`agreed` are the limits that there should be; where there should be none, none is looked for.

    Nearly nobody has limits, and the switch takes longer to tell them than everything else; the next dump finds one.
    """
    asked = (switch.ports(), switch.shows_fragment_ports())
    if agreed is not None and not agreed:
        (ports, fragment_ports), limits = await asyncio.gather(*asked), agreed
    else:
        ports, fragment_ports, limits = await asyncio.gather(*asked, switch.connection_limits())
    no_flood = frozenset(ofport for ofport, port in ports.items() if port.no_flood)
    return Settings(no_flood, fragment_ports, limits)


class Enforced(NamedTuple):
    """A policy on a host, and what must change there for it."""

    policy: Policy
    bindings: Bindings
    change: Change


async def enforce(switch: Switch, settling: Settling, wanted: Enforced, *, is_new: bool) -> None:
    """Carry out a change, and leave it to `settling` to bring live connections in line.

    `is_new` says that nobody knows what was done before: then every connection is looked at.
    """
    policy, bindings, change = wanted
    judge = Judge(policy, bindings)
    await _both(settling.prepare(judge, change.flows), _close(switch, change.close))
    await carry_out(switch, replace(change, close=frozenset()))
    settling.begin(policy, judge, change.flows, in_doubt=is_new)


async def _both(*works: Awaitable[None]) -> None:
    """At once, to the end of both.  Raises what went wrong first: the other may have failed for it."""
    failed: list[Exception] = []

    async def noted(work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it is raised again
            failed.append(error)

    await asyncio.gather(*map(noted, works))
    if failed:
        raise failed[0]


async def _close(switch: Switch, ofports: frozenset[int]) -> None:
    if ofports:
        await switch.set_no_flood(ofports, on=True)


async def carry_out(switch: Switch, change: Change) -> None:
    """Do it: close, flows, open.

    Where a MAC address no longer leads to an endpoint by our flows, the switch's own forwarding must not lead there
    either, by what it has learned.
    """
    await _close(switch, change.close)
    if change.fragment_ports is not None:
        await switch.show_fragment_ports(on=change.fragment_ports)
    if change.limits:
        await switch.limit_connections(change.limits)
    if change.flows:
        await switch.apply(change.flows)
        if _may_have_learned(change.flows):
            await switch.forget_macs()
    if change.open:
        await switch.set_no_flood(change.open, on=False)


def _touched(change: Diff) -> Iterator[Flow]:
    """What a bundle touches; a key is all that counts."""
    yield from change.deletes
    yield from change.adds
    for _, new in change.changes:
        yield new


def _may_have_learned(change: Diff) -> bool:
    """Whether the switch's own forwarding may know a MAC address at a port that it must no longer lead to.

    It may where a MAC has left an endpoint, where a port has come under the filter that was outside it, and where there
    was no filter until now (the first flows on this bridge, or all of them lost).
    """
    gone = (*change.deletes, *(old for old, _ in change.changes))
    return any(flow.table in (CLASSIFY.number, FORWARD.number) for flow in gone) or any(
        flow.cookie == HOOK_COOKIE for flow in change.adds
    )
