"""What the pages for newcomers show is what they get."""

from __future__ import annotations

import pytest

from tests.replay import ROOT, fits, shell, steps

pytestmark = [pytest.mark.ovs, pytest.mark.packets]


def test_the_first_steps_are_as_the_page_says() -> None:
    found = steps((ROOT / "docs" / "first-steps.md").read_text())
    assert len(found) > 15
    with shell() as terminal:
        for step in found:
            printed = terminal.run(step.command)
            assert fits(step.shown, printed), "\n".join([step.command, *printed])


def test_the_demo_of_the_readme() -> None:
    (step,) = steps((ROOT / "README.md").read_text())
    assert step.command == "sudo scripts/demo"
    with shell() as terminal:
        printed = terminal.run(".build/venv/bin/ovsfw lab demo")
    assert fits(step.shown, printed), "\n".join(printed)


def test_a_page_that_shows_something_else_is_noticed() -> None:
    assert fits(("one", "...", "took N s"), ["one", "two", "three", "took 0.3 s"])
    assert fits(("one", "..."), ["one"])
    assert not fits(("one", "..."), ["two"])
    assert not fits(("one",), ["one", "two"])
    assert not fits(("1 flow",), ["2 flows"])
