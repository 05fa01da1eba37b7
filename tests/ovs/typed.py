"""Commands as a user types them, in this process."""

from __future__ import annotations

import pytest

from ovsfw.cli import main


class Typed:
    """A command of ovsfw with the options that it always has: exit status, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], name: str, *options: str) -> None:
        """What was printed before is not its."""
        capsys.readouterr()
        self._capsys, self._name, self._options = capsys, name, options

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """With some more words."""
        status = main([self._name, *words, *self._options])
        return status, *self._capsys.readouterr()
