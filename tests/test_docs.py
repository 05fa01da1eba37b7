"""What README and docs/ show is real: generated parts, flows, numbers, commands, links, tests."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from ovsfw.cli import parser
from ovsfw.cli.compile import assume
from ovsfw.compiler import compile_policy
from ovsfw.compiler.pipeline import TABLE_NAMES, TABLES
from ovsfw.compiler.reference import UnknownPartError, descriptions, fill
from ovsfw.compiler.stats import stats
from ovsfw.lab.shapes import SHAPES, shape
from ovsfw.openflow.match import REGISTERS
from ovsfw.openflow.text import format_flow
from ovsfw.policy.document import parse
from tests.mutants import table
from tests.test_house import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "vagrant" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
README = (ROOT / "README.md").read_text()
PIPELINE_PAGE = (ROOT / "docs" / "pipeline.md").read_text()
PIPELINE = (ROOT / "ovsfw" / "compiler" / "pipeline.py").read_text()

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`(ovsfw [^`]+)`")
# A family of commands with several verbs in one cell: `ovsfw lab up`, `matrix`, ...
VERBS = re.compile(r"^\| `ovsfw lab up`(?:, `[a-z]+`)+", re.MULTILINE)
MENTIONED = {"ovsfw lab", "ovsfw db"}


def commands(text: str) -> list[str]:
    """Every command line of ovsfw in code spans and blocks."""
    lines = [line.strip().removeprefix("$ ") for _, block in BLOCK.findall(text) for line in block.splitlines()]
    found = {line.partition(" #")[0].strip() for line in lines if line.startswith("ovsfw ")}
    found.update(SPAN.findall(BLOCK.sub("", text)))
    for row in VERBS.findall(text):
        found.update(f"ovsfw lab {verb}" for verb in re.findall(r"`([a-z]+)`", row))
    return sorted(found - MENTIONED)


COMMANDS = sorted({(page.name, command) for page in PAGES for command in commands(page.read_text())})
# Arguments that a mention in running text leaves out.
LEFT_OUT: tuple[list[str], ...] = (["--policy", "FILE"], ["small"], ["web1"], ["FILE"], ["ID"], [])


# Commands in blocks, by their beginning: which test runs them, or why none does.  The modules named test_pages take
# them from the page, others have policies and addresses of their own.
BY_TEST = {
    "first-steps.md": {"": "tests/lab/test_pages.py"},
    "database.md": {"ovsfw run ": "tests/store/test_source.py", "": "tests/store/test_pages.py"},
    "operations.md": {"ovsfw run ": "tests/store/test_tls.py", "": "tests/store/test_pages.py"},
    "neutron.md": {
        "ovsfw db start": "tests/store/test_pages.py",
        "ovsfw migrate ": "tests/ovs/test_migrate.py",
        "ovsfw run --hook neutron": "tests/neutron/policy_lab.py",
        "ovsfw-neutron-sync": "tests/neutron/published.py",
    },
    "troubleshooting.md": {"": "tests/lab/test_pages.py"},
}
NOT_RUN = {
    "sudo scripts/demo": "installs packages; tests/lab/test_pages.py runs what it shows",
    "sudo scripts/test": "it is what runs the tests",
    "pip install 'ovsfw[neutron]'": "scripts/test-neutron installs OpenStack's packages, which takes minutes",
    "ovsdb-server --remote=ptcp:6641 relay:": "needs an Open vSwitch with relays, at the addresses of three servers",
    "ovs-vsctl add-": "shows what Neutron's agent does for a trunk; tests/ovs/test_trunk.py makes one",
    "cd vagrant": "scripts/test-vagrant real",
    "vagrant ": "scripts/test-vagrant real",
    "ovsfw lab up --host": "tests/lab/test_two_hosts.py, with addresses of its own",
    "ovsfw lab matrix": "tests/lab/test_two_hosts.py",
}
PROGRAMS = re.compile(r"^(ovsfw|ovs-\w+|ovsdb-\w+|openssl|pip|sudo|scripts/|vagrant|cd|systemctl|apt|export|source) ?")


def in_blocks(page: Path) -> list[str]:
    """The command lines in blocks of a page."""
    kinds = ("", "console", "sh", "bash", "shell")
    texts = [block for kind, block in BLOCK.findall(page.read_text()) if kind in kinds]
    lines = [line.removeprefix("$ ") for text in texts for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if PROGRAMS.match(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_block_is_run_by_a_test_or_it_is_said_why_not(page: Path) -> None:
    known = (*BY_TEST.get(page.name, {}), *NOT_RUN)
    assert [line for line in in_blocks(page) if not line.startswith(known)] == []


def test_what_is_said_of_commands_in_blocks_is_no_more_than_they_are() -> None:
    lines = {str(page): in_blocks(page) for page in PAGES}
    everything = [line for found in lines.values() for line in found]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in everything)] == []
    for page, tests in BY_TEST.items():
        assert [
            start for start in tests if not any(line.startswith(start) for line in lines[str(ROOT / "docs" / page)])
        ] == []
        assert [test for test in tests.values() if not (ROOT / test).exists()] == []


def is_understood(words: list[str]) -> bool:
    try:
        parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0  # --version
    return True


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_is_understood(page: str, command: str) -> None:
    words = shlex.split(command.partition(" | ")[0])[1:]
    words = [{"NAME": "small", "SHELL": "bash"}.get(word, word) for word in words]
    assert any(is_understood([*words, *more]) for more in LEFT_OUT), f"{page}: {command}"


def test_every_command_is_in_the_readme() -> None:
    """What `ovsfw --help` lists is in the table."""
    listed = re.findall(r"^    (\w+) ", parser().format_help(), re.MULTILINE)
    assert len(listed) >= 7
    assert [name for name in listed if f"| `ovsfw {name}" not in README] == []


def test_the_readme_leads_to_every_page() -> None:
    pages = [str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"]({page})" not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:ovsfw|tests|scripts|docs)/[\w./*-]*\w/?)(?:`|::)", page.read_text())
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/")))] == []


def functions_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    assert [f"{path}::{name}" for path, name in named if name not in functions_in(ROOT / path)] == []
    assert named or page.name != "security.md"


def test_every_packet_test_is_in_the_table_of_protections() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    for module in ("test_spoof_guard", "test_filter", "test_state"):
        tests = {name for name in functions_in(ROOT / f"tests/ovs/{module}.py") if name.startswith("test_")}
        # These prove that labels are written and ICMP works at all: no protection.
        others = {"test_a_connection_carries_its_rules", "test_an_echo_reply_needs_its_request"}
        assert {name for name in tests if f"::{name}`" not in text} <= others


def test_the_generated_parts_of_the_pipeline_page_are_current() -> None:
    assert fill(PIPELINE_PAGE, PIPELINE).splitlines() == PIPELINE_PAGE.splitlines(), "run scripts/regen-docs"


def test_the_table_of_mutants_is_current() -> None:
    assert (ROOT / "docs" / "mutants.md").read_text().endswith(f"\n\n{table()}"), "run scripts/regen-docs"


def test_the_pipeline_page_tells_of_every_table() -> None:
    headings = " ".join(re.findall(r"^### (.*)$", PIPELINE_PAGE, re.MULTILINE)).replace(",", " ").split()
    assert [table.name for table in TABLES if table.name not in headings] == []


def test_every_register_of_the_pipeline_is_described() -> None:
    used = set(re.findall(r"REGISTERS\[(\d+)\]", PIPELINE))
    rows = set(re.findall(r"^\| `reg(\d+)` \| `[A-Z_]+` \| \w", fill(PIPELINE_PAGE, PIPELINE), re.MULTILINE))
    assert used == rows
    assert len(used) <= len(REGISTERS)


def test_a_part_that_nobody_makes_is_refused() -> None:
    with pytest.raises(UnknownPartError, match="no part is named 'weather'"):
        fill("<!-- generated: weather -->\n<!-- end -->", PIPELINE)
    with pytest.raises(UnknownPartError, match="no flow of the example is in table egress and has snow"):
        fill("<!-- flows: egress snow -->\n<!-- end -->", PIPELINE)


def test_descriptions_are_the_strings_below_assignments() -> None:
    source = 'A = 1\n"""of\nA"""\nB = 2\nC = 3\n"""of C"""\ndef f(): pass\n"of nothing"\n'
    assert descriptions(source) == {"A": "of A", "C": "of C"}
    assert "GROUP" in descriptions(PIPELINE)


def test_the_policy_of_the_readme_becomes_the_flows_of_the_readme() -> None:
    (text,) = [block for kind, block in BLOCK.findall(README) if kind == "yaml"]
    policy = parse(text.encode(), "README.md")
    flows = compile_policy(policy, assume(policy)).flows.flows()
    made = [format_flow(flow, TABLE_NAMES).partition(",")[2] for flow in flows]
    rules = [line for line in made if line.startswith("table=ingress_rules_v4,") and "actions=drop" not in line]
    (shown,) = [block for _, block in BLOCK.findall(README) if block.startswith("table=")]
    assert shown.splitlines() == rules


@pytest.mark.parametrize("name", SHAPES)
def test_the_numbers_of_the_readme_are_counted(name: str) -> None:
    row = re.search(rf"^\| {name} \|(.*)\|$", README, re.MULTILINE)
    assert row is not None
    shown = [int(cell.replace(",", "")) for cell in row[1].split("|")]
    document = shape(name)
    policy = parse(json.dumps(document).encode(), name)
    bindings = assume(policy, "local-*")
    found = stats(policy, bindings, compile_policy(policy, bindings))
    about = shown.pop(3)
    assert shown == [found.endpoints, found.rule_masks, found.addresses, found.multiplied]
    assert about == pytest.approx(found.flows, rel=0.02)
