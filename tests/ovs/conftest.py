"""Fixtures of the tests that give commands to a switch."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def policy_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The POLICY of a module, in a file."""
    path: Path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(request.module.POLICY)
    return path
