"""Bugs planted into the compiler are caught: a few here, all of them by `scripts/mutants`."""

from __future__ import annotations

import pytest

from tests.mutants import MUTATIONS, ROOT, Fate, Mutation, judge, mutated, path_of

# The first two by law 2.
CHOSEN = ("port masks are twice as wide", "the source address is not asked for", "blocked connections pass")


def test_there_are_enough_and_each_is_another() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_can_still_be_made(mutation: Mutation) -> None:
    mutated(mutation, path_of(mutation, ROOT).read_text())


@pytest.mark.ovs
@pytest.mark.parametrize("name", CHOSEN)
def test_it_is_caught(name: str) -> None:
    (mutation,) = [each for each in MUTATIONS if each.name == name]
    outcome = judge(mutation)
    assert outcome.fate is Fate.CAUGHT, outcome


@pytest.mark.ovs
def test_what_is_no_bug_survives() -> None:
    """The tests of a mutant do not fail for another reason."""
    (blocked,) = [each for each in MUTATIONS if each.name == "blocked connections pass"]
    harmless = Mutation("harmless", "portrange", "PORT_BITS = 16", "PORT_BITS = 8 + 8", blocked.tests)
    assert judge(harmless).fate is Fate.SURVIVED
