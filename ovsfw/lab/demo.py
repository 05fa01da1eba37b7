"""The lab in a minute: a policy on real packets, and one rule taken away while traffic flows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from ovsfw.apply import apply_once
from ovsfw.lab.machines import BRIDGE, Place
from ovsfw.lab.matrix import Matrix, measure
from ovsfw.lab.services import Service
from ovsfw.lab.show import as_text
from ovsfw.lab.topology import USERSPACE, Lab, down, up
from ovsfw.policy.model import Direction, Policy, Rule
from ovsfw.policy.wording import rule_text

POLICY = Path(__file__).with_name("three-tier.yaml")


def show_demo(policy: Policy, place: Place, out: TextIO, datapath: str = USERSPACE) -> bool:
    """Build a lab, apply the policy, probe everything, take a rule away, probe again; whether all was as it should be.

    Takes the lab down, whatever happens.
    """
    colour = out.isatty()
    started = time.monotonic()
    say = _Speaker(out)
    try:
        lab = up(policy, place, str(POLICY), datapath)
        say.step(f"{len(policy.ports)} machines on a private Open vSwitch (ovsfw lab up)")
        first = asyncio.run(enforce_and_measure(lab, policy, say))
        say.lines(as_text(first, colour=colour))
        second = asyncio.run(_without_a_rule(lab, first, say, colour=colour))
    finally:
        down(place)
    say.step("everything is taken down (ovsfw lab down)")
    agree = not first.differences and not second.differences
    say.line(f"demo: {'all is as the policy says' if agree else 'DIFFERENCES'}, {time.monotonic() - started:.1f} s")
    return agree


class _Speaker:
    """Prints what is going on."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def lines(self, texts: Iterator[str]) -> None:
        for text in texts:
            self.line(text)
        self._last = time.monotonic()

    def step(self, text: str) -> None:
        """What has been done, and how long it took."""
        now = time.monotonic()
        self.line(f"\n== {text}: {now - self._last:.1f} s")
        self._last = now


async def enforce(lab: Lab, policy: Policy) -> str:
    """Make the lab's switch hold a policy; what that took.  Raises SwitchError."""
    comparison = await apply_once(policy, lab.ovs.db, BRIDGE)
    return str(comparison.change)


async def enforce_and_measure(lab: Lab, policy: Policy, say: _Speaker, chosen: tuple[Service, ...] = ()) -> Matrix:
    """Apply a policy and probe everything, or only the chosen services."""
    change = await enforce(lab, policy)
    say.step(f"the policy is applied in one atomic bundle (ovsfw apply): {change}")
    matrix = await measure(lab, policy, chosen)
    say.step(f"{len(matrix.outcomes)} probes with real packets (ovsfw lab matrix)")
    return matrix


async def _without_a_rule(lab: Lab, before: Matrix, say: _Speaker, *, colour: bool) -> Matrix:
    """Take the most interesting rule away, live."""
    rule = _most_selective(before)
    say.line(f"\nNow one rule goes:  {rule_text(before.policy, rule)}")
    policy = without(before.policy, rule)
    after = await enforce_and_measure(lab, policy, say, before.services)
    passed_before = {str(outcome.probe) for outcome in before.outcomes if outcome.passed}
    passed_after = {str(outcome.probe) for outcome in after.outcomes if outcome.passed}
    for probe in sorted(passed_before - passed_after):
        say.line(f"  no longer passes: {probe}")
    for probe in sorted(passed_after - passed_before):
        say.line(f"  passes now: {probe}")
    for line in list(as_text(after, colour=colour))[-1 - len(after.differences) :]:
        say.line(line)
    return after


def _most_selective(matrix: Matrix) -> Rule:
    """The ingress rule of the last group of the chain that let somebody in: nothing else must change when it goes."""
    used = [rule for outcome in matrix.outcomes if outcome.passed for rule in outcome.expected.verdict.ingress.rules]
    rules = [rule for group in matrix.policy.security_groups.values() for rule in group.rules]
    candidates = [rule for rule in rules if rule.direction is Direction.INGRESS and rule in used]
    return min(candidates, key=lambda rule: (used.count(rule), -rules.index(rule)))


def without(policy: Policy, gone: Rule) -> Policy:
    """A policy without one of its rules."""
    groups = {
        name: replace(group, rules=tuple(rule for rule in group.rules if rule != gone))
        for name, group in policy.security_groups.items()
    }
    return replace(policy, security_groups=groups)
