"""packaging/Containerfile: what can be said of it without building it, which `scripts/test-container` does."""

from __future__ import annotations

import json
import re

from ovsfw.cli import parser
from tests.test_house import ROOT

FILE = ROOT / "packaging" / "Containerfile"
LINES = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
INSTRUCTIONS = [(word, rest) for word, _, rest in (line.partition(" ") for line in LINES)]


def test_it_starts_from_a_release_that_is_named_in_full() -> None:
    (image,) = [rest for word, rest in INSTRUCTIONS if word == "FROM"]
    name, _, tag = image.rpartition(":")
    assert re.fullmatch(r"docker\.io/library/python", name)
    assert re.fullmatch(r"3\.\d+-slim", tag)


def test_the_command_is_one_that_ovsfw_understands() -> None:
    """In the form without a shell: the daemon must be the first process, which gets the signals."""
    (entry,) = [json.loads(rest) for word, rest in INSTRUCTIONS if word == "ENTRYPOINT"]
    (words,) = [json.loads(rest) for word, rest in INSTRUCTIONS if word == "CMD"]
    assert entry == ["ovsfw"]
    assert parser().parse_args(words).policy == "/etc/ovsfw/policy.yaml"


def test_nothing_is_kept_of_what_it_was_built_from() -> None:
    (run,) = [rest for word, rest in INSTRUCTIONS if word == "RUN"]
    assert "--no-cache-dir" in run
    assert run.endswith("rm -r /src")
    assert {".git", ".build"} <= set((ROOT / ".containerignore").read_text().split())
