"""The JSON Schema for editors is current, takes what ovsfw takes, and refuses what a schema can refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ovsfw.lab.demo import POLICY
from ovsfw.policy.published import json_schema
from tests.test_house import ROOT

DOCUMENTS = ROOT / "tests" / "unit" / "documents"
GOOD = [*DOCUMENTS.glob("good/*"), *(ROOT / "tests" / "golden").glob("*.yaml"), Path(POLICY)]
# A key that is there twice: whoever loads it sees one.
NOT_BAD_ENOUGH = {"duplicate.json"}
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=yaml.CSafeLoader)


def readable(path: Path) -> bool:
    try:
        json.dumps(load(path))
    except (ValueError, yaml.YAMLError, RecursionError, TypeError):
        return False
    return True


BAD = sorted(path for path in DOCUMENTS.glob("bad/*") if path.suffix != ".errors" and readable(path))


def test_it_is_a_schema_and_the_published_one_is_current() -> None:
    VALIDATOR.check_schema(json_schema())
    published = (ROOT / "docs" / "policy.schema.json").read_text()
    assert json.loads(published) == json_schema(), "run scripts/regen-docs"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_a_good_document(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(load(path))] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_a_bad_document(path: Path) -> None:
    assert VALIDATOR.is_valid(load(path)) == (path.name in NOT_BAD_ENOUGH)


def test_a_key_that_nobody_knows_is_found() -> None:
    (error,) = VALIDATOR.iter_errors({"security_groups": [{"id": "web", "rulez": []}]})
    assert "'rulez' was unexpected" in error.message
