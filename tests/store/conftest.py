"""A policy database on a real ovsdb-server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ovsfw.store import setup
from ovsfw.store.client import Remote
from ovsfw.store.server import Server


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """A running server whose database is set up and has no policy yet."""
    made = Server(directory)
    made.create()
    made.start()
    try:
        asyncio.run(setup.initialise(Remote.parse(made.address)))
        yield made
    finally:
        asyncio.run(made.stop())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def remote(server: Server) -> Remote:
    return Remote.parse(server.address)
