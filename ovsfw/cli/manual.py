"""Manual pages made from the parser: ovsfw(1), and one for each of its commands, as ovsfw-db(1).

`python -m ovsfw.cli.manual DIRECTORY` writes them.  Their language is that of man(7).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ovsfw import __version__
from ovsfw.cli import parser
from ovsfw.cli.completion import walk

_ONE_LINE = 10_000  # columns; man breaks lines by itself
Command = tuple[str, argparse.ArgumentParser]


def pages() -> Mapping[str, str]:
    """File names and what is in them."""
    (top, *rest) = walk(parser())
    made = {"ovsfw.1": [top]}
    for words, command in rest:
        made.setdefault("-".join(words.split()[:2]) + ".1", []).append((words, command))
    return {name: "\n".join(_page(name.removesuffix(".1"), commands)) + "\n" for name, commands in made.items()}


def _page(name: str, commands: list[Command]) -> Iterator[str]:
    """A page; what is below its first command are sections of it."""
    ((_, first), *below) = commands
    description = first.description or ""
    yield f'.TH {_text(name.upper())} 1 "" "ovsfw {__version__}" "Security groups on Open vSwitch"'
    yield ".SH NAME"
    yield _text(f"{name} - {description.partition('. ')[0].rstrip('.')}")
    yield ".SH SYNOPSIS"
    for words, command in commands:
        if command.get_default("run") or not below:
            yield from _synopsis(words, command)
    yield ".SH DESCRIPTION"
    yield _text(description)
    yield from _arguments(first)
    for words, command in below:
        yield f'.SS "{_text(words)}"'
        yield _text(command.description or "")
        yield from _arguments(command)
    if first.epilog:
        yield from (".SH NOTES", ".nf", *map(_text, first.epilog.strip().splitlines()), ".fi")
    yield ".SH SEE ALSO"
    yield ".BR ovs\\-vswitchd (8)" if name == "ovsfw" else ".BR ovsfw (1)"


def _synopsis(words: str, command: argparse.ArgumentParser) -> Iterator[str]:
    formatter = argparse.HelpFormatter(words, width=_ONE_LINE)
    formatter.add_usage(None, _shown(command), command._mutually_exclusive_groups, prefix="")  # noqa: SLF001
    rest = formatter.format_help().strip().removeprefix(words)
    yield from (".TP", f".B {_text(words)}", _text(rest.strip()) or "\\&")


def _arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    """Options and positional arguments; a family's commands with the page that they are on."""
    for action in _shown(command):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for choice in action._choices_actions:  # noqa: SLF001
                yield from (".TP", f"\\fB{_text(f'{command.prog} {choice.dest}')}\\fR", _text(choice.help or ""))
            continue
        names = ", ".join(f"\\fB{_text(option)}\\fR" for option in action.option_strings)
        value = action.metavar or "" if action.nargs != 0 else ""
        if action.choices and action.option_strings:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        words = [*([names] if names else []), *([f"\\fI{_text(str(value))}\\fR"] if value else [])]
        yield from (".TP", " ".join(words), _text(_help(command, action)))


def _shown(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if action.help != argparse.SUPPRESS]  # noqa: SLF001


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    return command._get_formatter()._expand_help(action) if action.help else ""  # noqa: SLF001


def _text(text: str) -> str:
    """Text that means itself in man(7)."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write(directory: Path) -> Iterable[Path]:
    """Write every page; returns where they are."""
    for name, page in pages().items():
        path = directory / name
        path.write_text(page)
        yield path


if __name__ == "__main__":
    (_, where) = sys.argv
    for written in write(Path(where)):
        print(written)
