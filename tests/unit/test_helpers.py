"""Rules with a helper: what a document may say of them, and what they mean for data connections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovsfw.errors import PolicyError
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.document import parse, warnings
from ovsfw.policy.helpers import MAX_HELPED
from ovsfw.policy.model import Helper, Policy
from ovsfw.policy.verdict import TCP, Connection, verdict
from ovsfw.policy.wording import service_text
from ovsfw.policy.writing import as_document

P = Prefix.parse
FTP = "{direction: ingress, protocol: tcp, port_range_min: 21, port_range_max: 21, helper: ftp}"
STATELESS = "its security group is stateless, and without connection tracking there are no helpers"
PORTS = """
ports:
  - {id: vm1, mac_address: 52:54:00:00:00:01, fixed_ips: [{ip_address: 10.0.0.1}], security_groups: [g]}
"""


def policy(*rules: str, more: str = "", tiers: str = "") -> Policy:
    return parse(f"security_groups: [{{id: g, {more} rules: [{', '.join(rules)}]}}]\n{tiers}{PORTS}", "test")


def test_a_rule_with_a_helper() -> None:
    wanted = policy(FTP)
    [rule] = wanted.rules
    assert (rule.id, rule.helper) == ("g/ingress-ipv4-tcp-21-with-ftp", Helper.FTP)
    assert service_text(rule) == "tcp/21 with its data connections"
    assert as_document(wanted)["security_groups"][0]["rules"][0]["helper"] == "ftp"
    assert warnings(wanted) == []


def test_elsewhere_than_usual_it_is_warned_of() -> None:
    text = FTP.replace("21", "2121")
    said = "with the userspace datapath, ftp is helped on port 21 alone; elsewhere it has no data"
    assert warnings(policy(text)) == [f"rule g/ingress-ipv4-tcp-2121-with-ftp: {said}"]


@pytest.mark.parametrize(
    ("rule", "more", "said"),
    [
        (FTP.replace("helper: ftp", "helper: irc"), "", "'irc' is not a helper of conntrack; use ftp or tftp"),
        (FTP.replace("tcp", "udp"), "", "ftp needs the protocol tcp"),
        (FTP.replace("helper: ftp", "helper: tftp"), "", "tftp needs the protocol udp"),
        (
            FTP.replace("port_range_max: 21", "port_range_max: 22"),
            "",
            "ftp needs exactly one port, as port_range_min and port_range_max (by convention 21)",
        ),
        (FTP, "stateful: false,", STATELESS),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(rule: str, more: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(rule, more=more)
    [problem] = caught.value.problems
    assert (problem.path, problem.message) == ("security_groups[0].rules[0].helper", said)


def test_a_tier_has_no_helpers() -> None:
    with pytest.raises(PolicyError, match="a rule of a tier has no helper"):
        policy(FTP, tiers=f"tiers: [{{id: t, rules: [{FTP.replace('{', '{action: allow, ')}]}}]\n")


def test_more_than_a_port_may_have_are_refused() -> None:
    rules = [f"{FTP[:-1]}, id: r{number}}}" for number in range(MAX_HELPED + 1)]
    assert policy(*rules[1:])
    with pytest.raises(PolicyError, match="port vm1 has 65 rules with a helper; 64 are allowed"):
        policy(*rules)


# --- What they mean -------------------------------------------------------------------------------------------------

CLIENT, HERE = P("192.0.2.9"), P("10.0.0.1")
CONTROL = Connection(None, "vm1", CLIENT, HERE, TCP, 40000, 21)
PASSIVE = Connection(None, "vm1", CLIENT, HERE, TCP, 40001, 50000, control=CONTROL)
ACTIVE = Connection("vm1", None, HERE, CLIENT, TCP, 20, 50000, control=CONTROL)


def allowed(wanted: Policy, data: Connection) -> bool:
    return verdict(wanted, data).allowed


@pytest.mark.parametrize("data", [PASSIVE, ACTIVE], ids=["passive", "active"])
def test_data_is_allowed_by_the_rule_of_its_control_connection(data: Connection) -> None:
    wanted = policy(FTP)
    said = verdict(wanted, data)
    assert said.allowed
    assert [rule.id for rule in (*said.egress.rules, *said.ingress.rules)] == ["g/ingress-ipv4-tcp-21-with-ftp"]
    assert not allowed(wanted, replace(data, control=None))
    assert not allowed(policy(FTP.replace(", helper: ftp", "")), data)
    assert not allowed(policy(FTP.replace("helper", "remote_ip_prefix: 198.51.100.0/24, helper")), data)
    assert allowed(policy(FTP.replace("helper", "remote_ip_prefix: 192.0.2.0/24, helper")), data)


@pytest.mark.parametrize("data", [PASSIVE, ACTIVE], ids=["passive", "active"])
@pytest.mark.parametrize("port", [21, 50000])
def test_a_tier_that_denies_the_one_or_the_other_wins(data: Connection, port: int) -> None:
    for direction in ("ingress", "egress"):
        rule = (
            f"{{action: deny, direction: {direction}, protocol: tcp, port_range_min: {port}, port_range_max: {port}}}"
        )
        wanted = policy(FTP, tiers=f"tiers: [{{id: t, rules: [{rule}]}}]\n")
        # The control connection comes in; data goes either way.
        concerned = "ingress" if port == 21 or data is PASSIVE else "egress"
        assert allowed(wanted, data) is (direction != concerned)
