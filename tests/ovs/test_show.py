"""`ovsfw show` on a real switch: what is counted is what was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from ovsfw.cli import main
from ovsfw.explain.usage import Unused, Usage, unused
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.ages import LONGEST_IDLE, parse_ages
from ovsfw.openflow.wire import Message, WireError
from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Direction, Rule
from tests.dummy import DummySwitch
from tests.ovs.typed import Typed

pytestmark = pytest.mark.ovs

POLICY = """
security_groups:
  - id: web
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 82}
      - {id: ssh, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: talker}
      - {id: dns, direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53}
  - id: talker
    rules:
      - {id: out, direction: egress}
  - {id: nobody, rules: [{id: idle, direction: ingress}]}
ports:
  - {id: vm1, name: web1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [talker]}
  - {id: vm9, mac_address: "52:54:00:00:00:09", fixed_ips: [{ip_address: 10.9.0.9}]}
"""


def tables(show: Typed, *words: str) -> list[dict[str, Any]]:
    """What it shows, as rows and notes."""
    status, out, _ = show(*words, "--format", "json")
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def switch(dummy_ovs: PrivateSwitch, policy_file: Path) -> DummySwitch:
    """Three connections by http, two by ssh, five packets to a port that no rule opens."""
    made = DummySwitch(dummy_ovs, (1, 2, 3, 99))
    for ofport, name in ((1, "vm1"), (2, "vm2"), (3, "stray")):
        dummy_ovs.vsctl("set", "interface", f"p{ofport}", f"external_ids:iface-id={name}")
    assert main(["apply", "--db", dummy_ovs.db, "--policy", str(policy_file)]) == 0
    for port, count in ((80, 1), (82, 2), (22, 2), (23, 5)):
        for number in range(count):
            reached = made.send(2, bytes(segment(4000 + number, port)))
            assert (1 in reached) == (port != 23)
    # The same connection again is no new one.
    made.send(2, bytes(segment(4000, 80, "A")))
    made.call("revalidator/purge")
    return made


def segment(source: int, port: int, flags: str = "S") -> Ether:
    ether = Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01")
    return ether / IP(src="10.9.0.2", dst="10.9.0.1") / TCP(sport=source, dport=port, flags=flags)


@pytest.fixture
def show(switch: DummySwitch, policy_file: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys, "show", "--db", switch.switch.db, "--policy", str(policy_file))


def test_rules_count_new_connections(show: Typed) -> None:
    (table,) = tables(show, "rules")
    assert {row["rule"]: row["hits"] for row in table["rows"]} == {"http": 3, "ssh": 2, "dns": 0, "out": 10}
    ages = {row["rule"]: row["last_hit"] for row in table["rows"]}
    assert ages["dns"] == "never"
    assert ages["ssh"].endswith(" s ago")
    assert table["notes"] == ["1 more rules have no flows here: no endpoint has them, or another rule says the same"]


def test_endpoints_groups_and_one_port(show: Typed) -> None:
    (endpoints,) = tables(show)
    assert [(row["port"], row["ofport"], row["groups"]) for row in endpoints["rows"]] == [
        ("vm1", 1, "web"),
        ("vm2", 2, "talker"),
        ("stray", 3, "not in the policy: passes nothing"),
    ]
    (groups,) = tables(show, "groups")
    assert {row["group"]: (row["rules"], row["here"], row["hits"]) for row in groups["rows"]} == {
        "web": (3, 1, 5),
        "talker": (1, 1, 10),
        "nobody": (1, 0, 0),
    }
    port, rules = tables(show, "port", "web1")
    assert [row["port"] for row in port["rows"]] == ["vm1"]
    assert [row["rule"] for row in rules["rows"]] == ["dns", "http", "ssh"]
    (away,) = tables(show, "port", "vm9")
    assert away["notes"] == ["port vm9 is not plugged into this bridge"]


def test_drops_have_a_side_and_a_reason(show: Typed) -> None:
    (table,) = tables(show, "drops")
    found = {(row["table"], row["side"], row["reason"]): row["packets"] for row in table["rows"]}
    assert found["ingress_verdict", "ingress", "no rule accepted it"] == 5


def test_unused_is_honest(show: Typed) -> None:
    """Seconds after the start nobody can say what was not used for 30 days."""
    (table,) = tables(show, "rules", "--unused", "30d")
    assert table["rows"] == []
    assert any("dns" in note and "younger" in note for note in table["notes"])
    (table,) = tables(show, "rules", "--unused", "0s")
    assert "dns" in {row["rule"] for row in table["rows"]}


RULE = Rule("r", Direction.INGRESS, Family.IPV4)
DAY = 86400


@pytest.mark.parametrize(
    ("usage", "verdict"),
    [
        (Usage(RULE), Unused.NOT_HERE),
        (Usage(RULE, since=40 * DAY, flows=1), Unused.UNUSED),
        (Usage(RULE, since=29 * DAY, flows=1), Unused.TOO_YOUNG),
        (Usage(RULE, hits=1, since=40 * DAY, idle=5, flows=1), Unused.USED),
        (Usage(RULE, hits=1, since=40 * DAY, idle=LONGEST_IDLE, flows=1), Unused.NOT_KNOWN),
        (Usage(RULE, hits=1, since=40 * DAY, idle=None, flows=1), Unused.NOT_KNOWN),
    ],
)
def test_what_30_days_unused_means(usage: Usage, verdict: Unused) -> None:
    assert unused(usage, 30 * DAY) is verdict


def test_an_hour_unused_is_within_memory() -> None:
    assert unused(Usage(RULE, hits=1, since=DAY, idle=4000, flows=1), 3600) is Unused.UNUSED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("port",), "ovsfw show port PORT"),
        (("rules", "vm1"), "ovsfw show port PORT"),
        (("groups", "--unused", "1d"), "ovsfw show rules --unused"),
        (("port", "wbe1"), "did you mean web1"),
    ],
)
def test_errors(show: Typed, words: tuple[str, ...], said: str) -> None:
    status, out, err = show(*words)
    assert (status, out) == (1, "")
    assert said in err


def test_text_has_columns(show: Typed) -> None:
    status, out, _ = show("rules")
    assert status == 0
    assert out.splitlines()[0].split() == ["rule", "says", "hits", "bytes", "last", "hit", "counted", "since"]


def test_nonsense_is_refused() -> None:
    with pytest.raises(WireError):
        list(parse_ages(Message(1, 17, 1, bytes(16) + b"\0\1" + bytes(60))))
    with pytest.raises(WireError):
        list(parse_ages(Message(1, 17, 1, bytes(20))))


def test_the_audit_of_a_host_finds_what_is_unused_and_what_could_be_narrower(
    switch: DummySwitch, policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--policy", str(policy_file), "--db", switch.switch.db, "--format", "json"]
    assert main(["audit", *options, "--bridge", "br-int", "--unused", "0s"]) == 0
    found = {each["id"]: each["message"] for each in json.loads(capsys.readouterr().out)}
    live = {name: text for name, text in found.items() if name.startswith(("unused-rule", "wider-than-used"))}
    assert live == {
        # For no time at all, all are; what has no flows here is not.
        **{
            f"unused-rule:{name}": "was not hit for 0s by any endpoint of this host"
            for name in ("dns", "http", "out", "ssh")
        },
        "wider-than-used:http": (
            "allows tcp/80-82 from anywhere, but its 3 live connections need only tcp/80-82 from group talker"
        ),
        "wider-than-used:out": (
            "allows anything to anywhere, but its 5 live connections need only tcp/22-82 to group web"
        ),
    }
    # Nothing is that old.
    assert main(["audit", *options, "--bridge", "br-int"]) == 0
    assert "unused-rule" not in capsys.readouterr().out
    assert main(["audit", *options]) == 0
    assert "wider-than-used" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["audit", *options, "--bridge", "br-int", "--unused", "soon"])
    assert "'soon' is no time" in capsys.readouterr().err
