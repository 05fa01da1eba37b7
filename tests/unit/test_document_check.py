"""`ovsfw check`, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovsfw.cli import main

DOCUMENTS = Path(__file__).parent / "documents"
GOOD = """
security_groups:
  - {id: web, rules: [{direction: ingress, protocol: tcp}, {direction: egress, protocol: ip}]}
  - {id: other}
ports:
  - {id: vm1, mac_address: 52:54:00:00:00:01}
"""
WARNING = (
    "rule web/egress-ipv4-hopopt is for IP protocol 0 (hop-by-hop options); leave protocol out to mean any protocol"
)


def test_a_good_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert main(["check", "--policy", str(path)]) == 0
    out, err = capsys.readouterr()
    counts = "1 port, 2 security groups, 2 rules, 0 address groups, 0 tiers, 0 assertions"
    assert out == f"{path}: {counts}\n{path}: warning: {WARNING}\n"
    assert not err


def test_a_good_document_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert main(["check", "--policy", str(path), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "policy": str(path),
        "problems": [],
        "warnings": [WARNING],
        "ports": 1,
        "security_groups": 2,
        "rules": 2,
        "address_groups": 0,
        "tiers": 0,
        "assertions": 0,
    }
    assert not err


def test_a_bad_document_has_its_problems_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    path = DOCUMENTS / "bad" / "references.yaml"
    assert main(["check", "--policy", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    expected = path.with_name("references.yaml.errors").read_text()
    assert err.replace(f"{path.parent}/", "") == expected


def test_a_bad_document_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    path = DOCUMENTS / "bad" / "two.yaml"
    assert main(["check", "--policy", str(path), "--format", "json"]) == 1
    out, err = capsys.readouterr()
    message = "a second YAML document; a policy is one document"
    problem = {"message": message, "path": "", "source": str(path), "line": 2, "column": 1}
    assert json.loads(out) == {"policy": str(path), "problems": [problem]}
    assert not err


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--policy", "/no/such/file"]) == 1
    assert capsys.readouterr().err == "/no/such/file: cannot be read: No such file or directory\n"
