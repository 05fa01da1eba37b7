"""The house keeps its order."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "ovsfw").rglob("*.py"))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_imports_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 400


def test_only_the_lab_and_the_database_start_programs() -> None:
    """The lab starts everything that it needs; `ovsfw db start` a database server, and nothing else does."""
    starting = {path.relative_to(ROOT / "ovsfw").parts[0] for path in MODULES if "subprocess" in imports(path)}
    assert starting == {"lab", "store"}


def test_one_configuration_file() -> None:
    others = ("setup.cfg", "setup.py", "tox.ini", "pytest.ini", "mypy.ini", ".importlinter", "ruff.toml", ".coveragerc")
    assert not [name for name in others if (ROOT / name).exists()]
