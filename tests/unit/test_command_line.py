"""Completion and manual pages: they have every command, and bash, zsh and man take them."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ovsfw.cli import main, parser
from ovsfw.cli.completion import walk
from ovsfw.cli.manual import pages
from tests.running import PATIENCE
from tests.test_house import ROOT

COMMANDS = [(words, command) for words, command in walk(parser()) if command.get_default("run")]
OPTIONS = [
    (words, option)
    for words, command in COMMANDS
    for action in command._actions  # noqa: SLF001 - argparse has no other way
    for option in action.option_strings
    if action.help != argparse.SUPPRESS
]


def ran(*words: str | Path, stdin: str = "") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed_by_bash(script: str, line: str) -> set[str]:
    """What bash offers at the end of a line."""
    words = line.split() + ([""] if line.endswith(" ") else [])
    asked = f"{script}\nCOMP_WORDS=({shlex.join(words)})\n"
    asked += (
        f"COMP_CWORD={len(words) - 1}\n$(complete -p ovsfw | grep -o '_shtab[a-z_]*')\necho \"${{COMPREPLY[@]}}\"\n"
    )
    return set(ran("bash", "--norc", "-s", stdin=asked).split())


POLICY = str(ROOT / "ovsfw" / "lab" / "three-tier.yaml")
SWITCH = {"eventlet", "ovs", "os_ken", "ryu", "ovsfw.openflow", "ovsfw.compiler"}
DOCUMENT = {"pydantic", "yaml", "netaddr", "ovsfw.policy"}
ASYNCIO = {"asyncio"}
# What a command is wanted quickly without; importing all of it takes a second.
WITHOUT = {
    ("--version",): SWITCH | DOCUMENT | ASYNCIO,
    ("--help",): SWITCH | DOCUMENT | ASYNCIO,
    ("status", "--rundir", "/nowhere"): SWITCH | DOCUMENT,
    ("drops", "--rundir", "/nowhere"): SWITCH | DOCUMENT,
    ("check", "--policy", POLICY): SWITCH,
    ("verify", "--policy", POLICY, "--db", "unix:/nowhere/db.sock"): {"eventlet"},
}
TELLING = """
import atexit, sys
from ovsfw.cli import main
atexit.register(lambda: print("imported:", *sys.modules))
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", WITHOUT, ids=lambda words: words[0])
def test_a_command_imports_what_it_needs_and_no_more(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELLING, *words], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "Traceback" not in done.stderr
    imported = set(done.stdout.rpartition("imported:")[2].split())
    assert "ovsfw.cli" in imported
    assert imported & WITHOUT[words] == set()


def test_there_are_commands_to_look_for() -> None:
    assert len(COMMANDS) > 40
    assert len(OPTIONS) > 200


def test_bash_offers_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    script = completion("bash", capsys)
    offered = {
        family: completed_by_bash(script, f"{family} ") for family in {w.rpartition(" ")[0] for w, _ in COMMANDS}
    }
    missing = [words for words, _ in COMMANDS if words.rpartition(" ")[2] not in offered[words.rpartition(" ")[0]]]
    assert missing == []


def test_bash_offers_options_choices_and_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = completion("bash", capsys)
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").touch()
    assert "--record-drops" in completed_by_bash(script, "ovsfw run --")
    assert completed_by_bash(script, "ovsfw diff --format ") == {"text", "json"}
    assert completed_by_bash(script, "ovsfw run --policy ") == {"policy.yaml"}


def test_zsh_takes_it_and_it_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    script = completion("zsh", capsys)
    assert script.startswith("#compdef ovsfw\n")
    ran("zsh", "--no-rcs", "-n", "-s", stdin=script)
    offered = set(re.findall(r"(?<=[\"{,*])-[\w-]+(?=[\[,}])", script))
    assert {option for _, option in OPTIONS} <= offered


def test_a_shell_that_we_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "fish"])
    assert "argument SHELL: invalid choice: 'fish'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """The manual pages as people see them, in one line each."""
    as_text = ("groff", "-man", "-Tascii", "-ww", "-P-cbou", "-rHY=0", "-rLL=900n")
    return {name: " ".join(ran(*as_text, stdin=page).split()) for name, page in pages().items()}


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_every_command_and_option_is_in_the_manual(
    words: str, command: argparse.ArgumentParser, shown: dict[str, str]
) -> None:
    page = shown["-".join(words.split()[:2]) + ".1"]
    assert f" {words} " in page
    options = [option for of, option in OPTIONS if of == words]
    assert options
    assert [option for option in options if option not in page] == []
    assert " ".join((command.description or "").split()) in page
    assert f" ovsfw {words.split()[1]} " in shown["ovsfw.1"]


def test_the_pages_are_written(tmp_path: Path) -> None:
    ran(sys.executable, "-m", "ovsfw.cli.manual", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict(pages())
