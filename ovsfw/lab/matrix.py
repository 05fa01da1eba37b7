"""The truth table of a lab: what the policy says about every probe, beside what real packets do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovsfw.compiler.ids import rule_hints
from ovsfw.errors import ConfigError
from ovsfw.lab.admissions import Hints, Notes, admitted, wrong_admission
from ovsfw.lab.probe import GREAT, Answer, listen, noted, send
from ovsfw.lab.services import Expectation, Probe, Service, expect, probes, services
from ovsfw.lab.topology import Lab
from ovsfw.policy.model import Policy, Rule
from ovsfw.policy.verdict import UDP

WORDS = {True: "allowed", False: "denied"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One probe: expected, and seen.

    `hints` are what the switch noted about the connection, None when it noted nothing (denied, or not tracked) or has
    forgotten it.
    `problems` say how the two differ; none: they agree.
    """

    probe: Probe
    expected: Expectation
    answer: Answer
    hints: Hints | None = None
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there was an answer."""
        return self.answer.passed(self.probe.receiver.machine)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All probes of a policy.  `rules` are the rules behind the hints."""

    policy: Policy
    services: tuple[Service, ...]
    outcomes: tuple[Outcome, ...]
    rules: Mapping[int, Rule]

    @property
    def differences(self) -> tuple[Outcome, ...]:
        """The probes where the packets did not do what the policy says."""
        return tuple(outcome for outcome in self.outcomes if outcome.problems)

    @property
    def summary(self) -> str:
        """One line."""
        total, differ = len(self.outcomes), len(self.differences)
        noted = sum(outcome.hints is not None for outcome in self.outcomes)
        by_rule = f"; the switch named the rules of {noted} connections" if noted else ""
        return f"matrix: {total} probes, {total - differ} agree, {differ} differ{by_rule}"


async def measure(lab: Lab, policy: Policy, chosen: tuple[Service, ...] = ()) -> Matrix:
    """Probe everything, and ask the switch which rule let each connection in.

    `chosen` are the services to try, by default those that show what the policy means.
    Raises ConfigError when there is nothing to probe, SwitchError when the switch or an agent does not answer.
    """
    chosen = chosen or services(policy)
    planned = probes(policy, lab.plan, chosen)
    if not planned:
        raise ConfigError("nothing to probe: no port of this policy with an address is in the lab")
    await listen(lab, chosen)
    answers = await send(lab, planned)
    notes = await noted(lab)  # at once, before conntrack forgets
    failed, before = _unanswered(policy, planned, answers), 0
    while failed and len(failed) != before:
        for number, answer in zip(failed, await send(lab, [planned[each] for each in failed], GREAT), strict=True):
            answers[number] = answer
        notes += await noted(lab)
        failed, before = _unanswered(policy, planned, answers), len(failed)
    rules = rule_hints(policy)
    judged = (_judge(policy, probe, answer, notes, rules) for probe, answer in zip(planned, answers, strict=True))
    return Matrix(policy, chosen, tuple(judged), rules)


def _unanswered(policy: Policy, planned: Sequence[Probe], answers: Sequence[Answer]) -> list[int]:
    """The numbers of the probes that should have been answered and were not: the machine may just be slow.

    They get more time before they count, and go a few at a time, again and again as long as that helps some.
    """
    return [
        number
        for number, (probe, answer) in enumerate(zip(planned, answers, strict=True))
        if not answer.passed(probe.receiver.machine) and expect(policy, probe.connection(answer.source_port)).answered
    ]


def _judge(policy: Policy, probe: Probe, answer: Answer, notes: Sequence[Notes], rules: Mapping[int, Rule]) -> Outcome:
    connection = probe.connection(answer.source_port)
    expected = expect(policy, connection)
    passed = answer.passed(probe.receiver.machine)
    hints = admitted(probe, answer.source_port, notes) if passed else None
    problems = []
    if passed != expected.answered:
        said, done = WORDS[expected.answered], WORDS[passed]
        problems.append(f"the policy says {said}, the packets say {done} ({_seen(answer)})")
    elif probe.service.protocol == UDP and answer.heard and not expected.arrives:
        problems.append("the policy says denied, but the packet arrived")
    if hints is not None and passed == expected.answered:
        problems += [
            f"{side}: {wrong}"
            for side, judgement in (("egress", expected.verdict.egress), ("ingress", expected.verdict.ingress))
            if (wrong := wrong_admission(judgement, getattr(hints, side), rules))
        ]
    return Outcome(probe, expected, answer, hints, tuple(problems))


def _seen(answer: Answer) -> str:
    return f"answered by {answer.answered_by}" if answer.answered_by else answer.how
