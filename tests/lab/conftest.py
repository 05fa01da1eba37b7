"""A place for a lab, which is empty again afterwards, and the shop of three tiers."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsfw.lab.demo import POLICY
from ovsfw.lab.machines import Place
from ovsfw.lab.topology import down, make_place
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="ovsfw-"))
    found = make_place(f"t{os.getpid()}-{next(_NUMBERS)}", str(directory / "lab"))
    try:
        yield found
    finally:
        down(found)
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shop() -> Policy:
    return parse(POLICY.read_text(), str(POLICY))
