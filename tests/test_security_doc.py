"""docs/security.md cannot rot: the tests it names are there and run, and no packet test is left out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security.md"
PACKETS = "tests/ovs/packets"
_MODULE = re.compile(r"^Where no file is named: `(?P<path>[\w/]+\.py)`\.$")
_TEST = re.compile(r"`(?P<path>[\w/]*(?:\.py)?)::(?P<name>\w+)`")
WORDS = {"yes", "part", "no", "?", ""}


def named() -> set[str]:
    """Every test of the page, as pytest calls it; a table's tests without a file are of the file named above it."""
    found: set[str] = set()
    module = ""
    for line in PAGE.read_text().splitlines():
        if heading := _MODULE.match(line):
            module = heading["path"]
        found.update(f"{test['path'] or module}::{test['name']}" for test in _TEST.finditer(line))
    return found


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """What pytest would run of the files that are named, and of the packet suite."""
    files = sorted({test.partition("::")[0] for test in named()} | {PACKETS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


def test_every_test_that_is_named_runs(collected: set[str]) -> None:
    assert sorted(named() - collected) == []


def test_every_packet_test_is_named(collected: set[str]) -> None:
    assert sorted({test for test in collected if test.startswith(f"{PACKETS}/")} - named()) == []


def test_every_line_of_the_tables_is_whole() -> None:
    """A protection, at least one test, and a word for each of the others."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "proved by" not in line]
    for row in rows:
        what, tests, *others = (cell.strip() for cell in row.strip("|").split("|"))
        assert what
        assert _TEST.search(tests), row
        assert len(others) == 3
        assert set(others) <= WORDS, row
    assert len(rows) > 50
