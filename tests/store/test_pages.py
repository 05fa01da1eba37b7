"""The commands that pages about the policy database show are run as they stand there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.replay import ROOT, Shell, blocks, shell

pytestmark = pytest.mark.ovs
POLICY = """
security_groups: [{id: web}, {id: monitored}]
address_groups: [{id: office, addresses: [198.51.100.0/24]}]
ports: [{id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}]
"""
# On another machine, as far as its files go.
ELSEWHERE = "unshare --mount sh -c 'mount -t tmpfs tmpfs /var/lib && {}'"


@pytest.fixture
def terminal() -> Iterator[Shell]:
    with shell() as found:
        for command in (
            "export PATH=$PWD/.build/venv/bin:$PATH",
            f"cat > policy.yaml << 'END'\n{POLICY}\nEND",
            "for last in 1 2 3; do ip address add 10.0.0.$last/32 dev lo; done",
        ):
            found.must(command)
        yield found


def lines(page: str, number: int) -> list[str]:
    """The commands of a block of a page, without their comments."""
    return [line.partition("  #")[0].strip() for line in blocks((ROOT / "docs" / page).read_text())[number]]


def test_the_page_of_the_database(terminal: Shell) -> None:
    *commands, daemon = lines("database.md", 0)
    assert daemon.startswith("ovsfw run ")
    for command in commands:
        printed = terminal.must(command)
    document = "\n".join(printed)
    assert document.startswith("security_groups:")
    for change in ("443", "monitored", "203.0.113.7"):
        assert change in document


def test_three_servers_and_a_backup(terminal: Shell) -> None:
    number = next(n for n in range(9) if lines("operations.md", n)[0].startswith("ovsfw db start --cluster"))
    first, *others = lines("operations.md", number)
    assert len(others) == 2
    terminal.must(first)
    terminal.must("ovsfw db import policy.yaml")
    for other in others:
        terminal.must(ELSEWHERE.format(other))
    for command in lines("operations.md", number + 1):
        terminal.must(command)
    terminal.must("grep -q vm1 ovsfw.backup")
    assert "- {id: web}" in terminal.must("ovsfw db export")
    asked = "ovs-appctl -t /var/lib/ovsfw/ovsdb-server.ctl cluster/status OVSFW"
    terminal.must(f"until {asked} | grep -q 10.0.0.3; do sleep 0.1; done")


def test_certificates_and_a_server_that_wants_them(terminal: Shell) -> None:
    number = next(n for n in range(9) if lines("operations.md", n)[0].startswith("ovsfw db pki"))
    (authority,) = lines("operations.md", number)
    terminal.must(authority)
    terminal.must("cd pki")
    server, daemon = lines("operations.md", number + 1)
    assert daemon.startswith("ovsfw run ")
    terminal.must(server)
    files = daemon.partition("ssl:10.0.0.1:6641")[2].replace("compute-1", "db1")
    assert terminal.must(f"ovsfw db status --store ssl:127.0.0.1:6642 {files}")
    terminal.run("ovsfw db status --store tcp:127.0.0.1:6642")
    assert terminal.status != 0
