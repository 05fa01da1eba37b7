"""Numbers for names: what they are depends on which names there are, and on nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler import ids
from ovsfw.compiler.pipeline import HINT_BIT
from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Direction, Policy, Rule, SecurityGroup

NAMES = [f"name-{number}" for number in range(24)]
FEW = 32


def naive(names: set[str], below: int) -> dict[str, int]:
    """Counting on in sorted order."""
    numbers, taken = {}, {0}
    for name in sorted(names):
        value = ids.digests([name], below)[name]
        while value in taken:
            value = (value + 1) % below
        taken.add(value)
        numbers[name] = value
    return numbers


@given(st.sets(st.sampled_from(NAMES)))
def test_those_that_are_alike_count_on_in_sorted_order(names: set[str]) -> None:
    assert ids.number(names, FEW) == naive(names, FEW)
    assert list(ids.number(sorted(names), FEW)) == sorted(names)


histories = st.lists(st.lists(st.sets(st.sampled_from(NAMES), max_size=8), max_size=4), min_size=1, max_size=4)


@given(histories)
def test_hints_follow_any_history(history: list[list[set[str]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "HINTS", FEW)
        hints = ids.Hints()
        for groups in history:
            policy = _policy(groups)
            hints_of = hints.follow(policy)
            found = {name: hint for group in policy.security_groups.values() for name, hint in hints_of(group).items()}
            assert found == ids.hint_numbers(policy)
            assert found == {name: value | HINT_BIT for name, value in naive(set().union(*groups), FEW).items()}


def test_what_has_not_changed_has_the_same_answer() -> None:
    hints = ids.Hints()
    policy = _policy([{"a", "b"}, {"c"}])
    kept = policy.security_groups["group-0"]
    before = hints.follow(policy)(kept)
    after = hints.follow(Policy({}, {"group-0": kept, "group-1": _policy([{"d"}]).security_groups["group-0"]}))(kept)
    assert before is after


def test_what_ended_in_an_error_is_as_if_it_had_not_been_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "HINTS", FEW)
    hints, policy = ids.Hints(), _policy([{"a", "b"}, {"c", "d", "e"}])
    hints.follow(_policy([{"a", "b"}]))
    with monkeypatch.context() as broken:
        broken.setattr(ids, "told_apart", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hints.follow(policy)
    hints_of = hints.follow(policy)
    found = {name: hint for group in policy.security_groups.values() for name, hint in hints_of(group).items()}
    assert found == ids.hint_numbers(policy)


def _policy(groups: list[set[str]]) -> Policy:
    """Groups of rules with these ids; one id may be in several."""
    return Policy(
        {},
        {
            f"group-{number}": SecurityGroup(
                f"group-{number}", rules=tuple(Rule(name, Direction.INGRESS, Family.IPV4) for name in sorted(names))
            )
            for number, names in enumerate(groups)
        },
    )
