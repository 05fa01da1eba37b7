"""Runs the commands of a page, in order, in a shell of their own: network, /run, /var/lib and processes are private.

    python -m tests.replay docs/first-steps.md      prints the page's commands with what they print now

A page shows a command behind `$ ` in a block of the kind `console`, and below it what the command prints; a line `...`
stands for any lines.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_SET_UP = """
set -e
for place in /run /var/lib; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/netns /usr/local/bin
ip link set lo up
cd "$1"
exec bash --noprofile --norc
"""
# Times differ from run to run, and how many flows a whole policy takes with every change of the pipeline.
_CHANGING = ((re.compile(r"\d+(\.\d+)? (ms|s)\b"), "N s"), (re.compile(r"\+\d{3,}"), "+NNN"))
# Counters and ages do, and with them the widths of columns.
_COUNTED = ((re.compile(r"\d+ (ms|s|min|h)\b"), "N s"), (re.compile(r"\d+"), "N"), (re.compile(r" {2,}"), "  "))


@dataclass(frozen=True)
class Step:
    """A command, and what the page says that it prints."""

    command: str
    shown: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """The commands of a page, in order."""
    found: list[Step] = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.rstrip().splitlines()
            found.append(Step(command, tuple(shown)))
    return found


def blocks(page: str) -> list[list[str]]:
    """The lines of every block of a page that has no kind: commands, mostly, without their output."""
    return [block.splitlines() for kind, block in _ANY_BLOCK.findall(page) if not kind]


def _plain(line: str, *, loosely: bool) -> str:
    for pattern, word in _COUNTED if loosely else _CHANGING:
        line = pattern.sub(word, line)
    return line.rstrip()


def fits(shown: tuple[str, ...], printed: list[str], *, loosely: bool = False) -> bool:
    """Whether a page's lines describe what was printed; `loosely`: whatever the numbers are."""
    wanted = [line if line == "..." else _plain(line, loosely=loosely) for line in shown]
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{_plain(line, loosely=loosely)}\n" for line in printed)) is not None


class Shell:
    """A bash that is asked one command after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.status = 0

    def run(self, command: str) -> list[str]:
        """What a command prints, errors as well; then `status` is its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{{ {command}\n}} 2>&1 < /dev/null; status=$?; echo; echo THE-STATUS-IS $status\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith("THE-STATUS-IS "):
                self.status = int(line.split()[1])
                return lines[:-1] if lines and not lines[-1] else lines
            lines.append(line.removesuffix("\n"))
        raise AssertionError(f"the shell has ended: {lines}")

    def must(self, command: str) -> list[str]:
        """The same; it must not fail."""
        printed = self.run(command)
        assert self.status == 0, "\n".join([command, *printed])
        return printed


@contextmanager
def shell() -> Iterator[Shell]:
    """In an empty directory, where `ovsfw` is the command and ovsfw/ the package of this repository."""
    with tempfile.TemporaryDirectory(prefix="ovsfw-") as directory:
        place = Path(directory)
        (place / "ovsfw").symlink_to(ROOT / "ovsfw")
        command = place / ".build" / "venv" / "bin" / "ovsfw"
        command.parent.mkdir(parents=True)
        python = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"
        command.write_text(f'#!/bin/sh\n{python} -m ovsfw "$@"\n')
        command.chmod(0o755)
        words = ["unshare", *_NAMESPACES, "sh", "-c", _SET_UP, "sh", directory]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Shell(process)
            finally:
                process.kill()


def main() -> None:
    """Print a page's commands with their output of today."""
    with shell() as found:
        for step in steps(Path(sys.argv[1]).read_text()):
            sys.stdout.write(f"$ {step.command}\n")
            sys.stdout.writelines(f"{line}\n" for line in found.run(step.command))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
