"""What the pages for newcomers show is what they get."""

from __future__ import annotations

import re
from collections.abc import Iterator

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


def test_troubleshooting_is_as_the_page_says() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    with shell() as terminal:
        for command in prepared(page):
            terminal.must(command)
        for step in steps(page):
            printed = terminal.run(step.command)
            assert fits(step.shown, printed, loosely=True), "\n".join([step.command, *printed])


def prepared(page: str) -> Iterator[str]:
    """A lab with the page's policy and a daemon; then some packets."""
    (policy,) = re.findall(r"^```yaml\n(security_groups:.*?)^```$", page, re.MULTILINE | re.DOTALL)
    yield f"export PATH=$PWD/.build/venv/bin:$PATH OVS_RUNDIR=/run/ovsfw-lab; cat > policy.yaml << 'END'\n{policy}END"
    yield "ovsfw lab up --policy policy.yaml"
    yield "ovsfw run --policy policy.yaml --record-drops > log 2>&1 &"
    yield "until ovsfw status; do sleep 0.1; done"
    for port in (80, 22, 23):
        yield f"ovsfw lab exec vm2 timeout 1 bash -c '< /dev/tcp/10.9.0.1/{port}' || true"
    frame = "52540000000152540000000208004500001c0001000040110000" + "0a0900090a090001" + "00350035000800000000"
    send = "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); "
    yield f"ovsfw lab exec vm2 python3 -c \"{send}s.send(bytes.fromhex('{frame}'))\""


def test_the_demo_of_the_readme() -> None:
    (step,) = steps((ROOT / "README.md").read_text())
    assert step.command == "sudo scripts/demo"
    with shell() as terminal:
        printed = terminal.run(".build/venv/bin/ovsfw lab demo")
    assert fits(step.shown, printed), "\n".join(printed)


def test_a_command_that_fails_is_noticed() -> None:
    with shell() as terminal:
        assert terminal.run("echo one; echo two >&2; false") == ["one", "two"]
        assert terminal.status == 1
        with pytest.raises(AssertionError, match="nobody"):
            terminal.must("echo nobody; false")


def test_a_page_that_shows_something_else_is_noticed() -> None:
    assert fits(("one", "...", "took N s"), ["one", "two", "three", "took 0.3 s"])
    assert fits(("one", "..."), ["one"])
    assert not fits(("one", "..."), ["two"])
    assert not fits(("one",), ["one", "two"])
    assert not fits(("1 flow",), ["2 flows"])
