"""The documents name things that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ovsfw.cli import parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text())
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(ROOT / path)]
    assert not missing
    assert named or document.name != "security.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    paths = re.findall(r"`((?:tests|docs|scripts|ovsfw)/[\w./-]*\w)(?:`|::)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_every_packet_test_is_in_the_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    for module in ("test_spoof_guard", "test_filter", "test_state"):
        tests = {name for name in names_in(ROOT / f"tests/ovs/{module}.py") if name.startswith("test_")}
        unnamed = {name for name in tests if f"::{name}`" not in text}
        # These prove that labels are written and ICMP works at all: no protection.
        assert unnamed <= {"test_a_connection_carries_its_rules", "test_an_echo_reply_needs_its_request"}


COMMAND = re.compile(r"(?:`|\$ |ovsfw-lab/)(?:sudo )?ovsfw ((?:lab )?[a-z]+(?: --?[\w-]+(?: [\w.'*-]+)?)*)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_can_be_typed(document: Path) -> None:
    for line in COMMAND.findall(document.read_text()):
        words = [word.strip("'") for word in line.split()]
        if "--policy" not in words and words[0] in ("check", "compile", "diff", "apply", "verify"):
            words += ["--policy", "FILE"]
        if words != ["lab"]:
            parser().parse_args([*words, *{"exec": ["vm1"], "shape": ["small"]}.get(words[-1], [])])
