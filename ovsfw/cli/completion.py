"""`completion`: what a shell needs to complete commands and options; made from the parser, so never behind it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

from ovsfw.cli import parser

_SHELLS = ("bash", "zsh")
_COMPLETE = {"FILE": shtab.FILE, "SOURCE": shtab.FILE, "DIR": shtab.DIRECTORY}
_EPILOG = """
For yourself, in bash or zsh:
  source <(ovsfw completion bash)
For everybody, as root:
  ovsfw completion bash > /usr/share/bash-completion/completions/ovsfw
  ovsfw completion zsh > /usr/share/zsh/vendor-completions/_ovsfw
"""


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.epilog = _EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=" or ".join(_SHELLS))
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    top = parser()
    for _, command in walk(top):
        for action in command._actions:  # noqa: SLF001 - argparse has no other way
            if action.metavar in _COMPLETE:
                action.complete = _COMPLETE[str(action.metavar)]  # type: ignore[attr-defined]
    print(shtab.complete(top, shell=args.shell))
    return 0


def walk(command: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all below it, each once and with its words (`ovsfw db group add`), in the order of the help."""
    yield command.prog, command
    for action in command._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                yield from walk(below)
