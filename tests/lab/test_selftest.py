"""The self-test finds nothing on a filter that holds, and finds what is broken, on real labs."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ovsfw.cli import main
from ovsfw.compiler.pipeline import COMMIT, EGRESS_VERDICT, FORWARD, INGRESS_DATA, INGRESS_VERDICT, SPOOF_GUARD, Table
from ovsfw.errors import ConfigError, SwitchError
from ovsfw.lab.demo import POLICY
from ovsfw.lab.helped import talks
from ovsfw.lab.machines import BRIDGE, Place
from ovsfw.lab.plan import make_plan
from ovsfw.lab.scenes import scenes
from ovsfw.lab.selftest import Outcome, as_text, selftest
from ovsfw.lab.topology import Lab, down, up
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy

pytestmark = [pytest.mark.ovs, pytest.mark.packets]

# Two networks with the same machines; in red nothing is allowed, blue is stateless.
TWO_NETWORKS = """
security_groups:
  - {id: closed}
  - id: loose
    stateful: false
    rules:
      - {direction: egress, protocol: udp}
      - {direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53}
ports:
  - {id: a, mac_address: "52:54:00:00:00:01", security_groups: [closed], network_id: red,
     fixed_ips: [{ip_address: 10.8.0.1}, {ip_address: "2001:db8:8::1"}]}
  - {id: b, mac_address: "52:54:00:00:00:02", security_groups: [closed], network_id: red,
     fixed_ips: [{ip_address: 10.8.0.2}, {ip_address: "2001:db8:8::2"}]}
  - {id: c, mac_address: "52:54:00:00:00:01", security_groups: [loose], network_id: blue,
     fixed_ips: [{ip_address: 10.8.0.1}]}
  - {id: d, mac_address: "52:54:00:00:00:02", security_groups: [loose], network_id: blue,
     fixed_ips: [{ip_address: 10.8.0.2}]}
"""

# FTP and TFTP between two machines that have a helper for each, and one that is closed; all are stateful.
HELPED = """
security_groups:
  - {id: closed}
  - id: server
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 21, port_range_max: 21, helper: ftp}
      - {direction: ingress, protocol: udp, port_range_min: 69, port_range_max: 69, helper: tftp}
      - {direction: ingress, ethertype: IPv6, protocol: tcp, port_range_min: 21, port_range_max: 21, helper: ftp}
  - id: client
    rules:
      - {direction: egress, protocol: tcp, port_range_min: 21, port_range_max: 21, helper: ftp}
      - {direction: egress, protocol: udp, port_range_min: 69, port_range_max: 69, helper: tftp}
      - {direction: egress, ethertype: IPv6, protocol: tcp, port_range_min: 21, port_range_max: 21, helper: ftp}
ports:
  - {id: files, mac_address: "52:54:00:00:00:01", security_groups: [server],
     fixed_ips: [{ip_address: 10.8.0.1}, {ip_address: "2001:db8:8::1"}]}
  - {id: reader, mac_address: "52:54:00:00:00:02", security_groups: [client],
     fixed_ips: [{ip_address: 10.8.0.2}, {ip_address: "2001:db8:8::2"}]}
  - {id: third, mac_address: "52:54:00:00:00:03", security_groups: [closed],
     fixed_ips: [{ip_address: 10.8.0.3}, {ip_address: "2001:db8:8::3"}]}
"""


@pytest.fixture(scope="module")
def shop_lab(place: Place, shop: Policy) -> Iterator[Lab]:
    lab = up(shop, place, str(POLICY))
    yield lab
    down(place)


def apply(lab: Lab, policy: str = str(POLICY)) -> None:
    """Make it whole again, and let the switch forget what it has learned while it was not."""
    lab.switch.ofctl("del-flows", BRIDGE)
    assert main(["apply", "--policy", policy, "--db", lab.switch.db]) == 0
    lab.switch.appctl("fdb/flush", BRIDGE)


def add_flow(lab: Lab, flow: str) -> None:
    """Add a flow, and let no cached decision outlive it."""
    lab.switch.ofctl("add-flow", BRIDGE, flow)
    lab.switch.appctl("revalidator/purge")


def command(lab: Lab, *more: str) -> list[str]:
    return ["lab", "selftest", "--name", lab.place.name, "--directory", str(lab.place.directory), *more]


def wrong(outcomes: tuple[Outcome, ...]) -> set[str]:
    return {f"{outcome.attempt.what}: {outcome.words}" for outcome in outcomes if not outcome.is_right}


def test_a_filter_that_holds(shop_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    apply(shop_lab)
    capsys.readouterr()
    assert main(command(shop_lab)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "app against db, IPv4:"
    assert "  bad   ARP reply: the victim's address is at my MAC                stopped" in lines
    assert "  good  an allowed packet (tcp/5432)                                passed" in lines
    assert lines[-1] == "selftest: 83 of 83 bad frames were stopped, 17 of 17 good ones passed"


@contextmanager
def stuttering(lab: Lab) -> Iterator[None]:
    """Time and again the switch stops for a while, and then takes what has come to each of its ports, port by port."""
    over, pid = threading.Event(), lab.switch.pid()
    assert pid

    def stutter() -> None:
        while not over.wait(0.02):
            os.kill(pid, signal.SIGSTOP)
            over.wait(0.1)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_flow_that_lets_everything_through(shop_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Also through a switch that takes the frames of different machines in another order than they were sent."""
    apply(shop_lab)
    add_flow(shop_lab, "table=0,priority=65535,actions=NORMAL")
    capsys.readouterr()
    with stuttering(shop_lab):
        assert main(command(shop_lab, "--format", "json")) == 1
    found = json.loads(capsys.readouterr().out)
    through = {attempt["attempt"] for attempt in found["attempts"] if not attempt["right"]}
    bad = {attempt["attempt"] for attempt in found["attempts"] if not attempt["good"]}
    assert bad - through == {
        # NORMAL does not flood into endpoints, because their ports are still out of flooding ...
        "... in a broadcast frame",
        "from outside: MPLS to everybody",
        "from outside: a tag of another VLAN",
        # ... sends nothing back to where it believes the receiver to be ...
        "the victim's source MAC",
        # ... and no bridge forwards this.
        "spanning tree",
    }


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("table=spoof_guard,priority=450,arp", "ARP in the victim's name"),
        ("table=spoof_guard,priority=600,ipv6,icmp6,icmp_type=134", "router advertisement"),
        ("table=spoof_guard,priority=600,udp,tp_src=67", "DHCP offer"),
    ],
)
def test_one_protection_that_is_broken(shop_lab: Lab, shop: Policy, flow: str, expected: str) -> None:
    """What the flow lets through, and nothing else, is reported."""
    apply(shop_lab)
    match = flow.replace("spoof_guard", str(SPOOF_GUARD.number))
    add_flow(shop_lab, f"{match},actions=resubmit(,{FORWARD.number})")
    found = wrong(selftest(shop_lab, shop))
    apply(shop_lab)
    assert any(text.startswith(f"{expected}: GOT THROUGH to ") for text in found)
    assert all("ARP" in text for text in found) == ("arp" in flow)
    assert wrong(selftest(shop_lab, shop)) == set()


def test_good_twins_that_are_lost(shop_lab: Lab, shop: Policy) -> None:
    apply(shop_lab)
    add_flow(shop_lab, "table=0,priority=65535,arp,actions=drop")
    found = wrong(selftest(shop_lab, shop))
    assert any(text.startswith("ARP request of its own: LOST on the way to bastion, db") for text in found)
    assert all("ARP" in text for text in found)


def test_no_flows_at_all(shop_lab: Lab, shop: Policy) -> None:
    shop_lab.switch.ofctl("del-flows", BRIDGE)
    outcomes = selftest(shop_lab, shop)
    assert list(as_text(outcomes))[-1] == (
        "selftest: 83 of 83 bad frames were stopped, 0 of 17 good ones passed; "
        "nothing passes at all: has the policy been applied (ovsfw apply)?"
    )


def test_networks_and_stateless_groups(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("policy") / "two.yaml"
    file.write_text(TWO_NETWORKS)
    policy = parse(TWO_NETWORKS, "two.yaml")
    elsewhere = Place(f"{place.name}-two", place.directory.with_name("two"))
    lab = up(policy, elsewhere, str(file))
    try:
        apply(lab, str(file))
        outcomes = selftest(lab, policy)
        assert wrong(outcomes) == set()
        titles = list(dict.fromkeys(outcome.scene for outcome in outcomes))
        assert titles == ["c against d, IPv4", "a against b, IPv4", "a against b, IPv6"]
        allowed = [outcome.scene for outcome in outcomes if outcome.attempt.what == "an allowed packet (udp/53)"]
        assert allowed == ["c against d, IPv4"]
        assert not [outcome for outcome in outcomes if "TCP with" in outcome.attempt.what]
    finally:
        down(elsewhere)


@pytest.fixture(scope="module")
def helped_lab(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("policy") / "helped.yaml"
    file.write_text(HELPED)
    elsewhere = Place(f"{place.name}-ftp", place.directory.with_name("ftp"))
    yield up(parse(HELPED, "helped.yaml"), elsewhere, str(file))
    down(elsewhere)


def data(outcomes: tuple[Outcome, ...]) -> list[Outcome]:
    """What was tried of FTP and TFTP."""
    return [outcome for outcome in outcomes if outcome.scene.startswith(("ftp", "tftp"))]


def test_data_that_nobody_agreed_to(helped_lab: Lab) -> None:
    """Again and again: what was agreed the last time is forgotten or on other ports."""
    policy = parse(HELPED, "helped.yaml")
    apply(helped_lab, helped_lab.policy_file)
    for _ in range(2):
        outcomes = selftest(helped_lab, policy)
        assert wrong(outcomes) == set()
        found = data(outcomes)
        assert list(dict.fromkeys(outcome.scene for outcome in found)) == [
            "ftp of reader with files, active, IPv4",
            "ftp of reader with files, passive, IPv4",
            "tftp of reader with files, IPv4",
            "ftp of reader with files, active, IPv6",
            "ftp of reader with files, passive, IPv6",
        ]
        passed = [outcome.scene for outcome in found if outcome.attempt.what == "the data that was agreed"]
        assert len(passed) == 5
        third = [outcome.scene for outcome in found if outcome.attempt.what == "a third machine is named"]
        assert len(third) == 3
    assert "        a third machine is named                                    sent" in as_text(outcomes)


def tried(policy: Policy) -> list[str]:
    return [talk.title for talk in talks(policy, make_plan(policy), 0)]


def test_data_is_tried_where_a_helper_makes_the_difference() -> None:
    """A client that may send everything needs none for passive data; it gets no active data, but the outside does."""
    from_client = HELPED[HELPED.index("      - {direction: egress") : HELPED.index("ports:")]
    freely = "      - {direction: egress}\n      - {direction: egress, ethertype: IPv6}\n"
    assert tried(parse(HELPED.replace(from_client, freely), "helped.yaml")) == [
        "ftp of outside with files, active, IPv4",
        "ftp of reader with files, passive, IPv4",
        "tftp of outside with files, IPv4",
        "ftp of outside with files, active, IPv6",
        "ftp of reader with files, passive, IPv6",
    ]
    assert tried(parse(HELPED.replace(", helper: ftp", "").replace(", helper: tftp", ""), "helped.yaml")) == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # What no rule accepts is delivered all the same.
        (
            INGRESS_VERDICT,
            {
                "data before any is agreed",
                "data to a port that nobody named",
                "data from a third machine",
                "data to the third machine that was named",
            },
        ),
        # What a helper expects is delivered to whoever it is sent to.
        (INGRESS_DATA, {"data to the MAC of a third machine"}),
    ],
    ids=["rules", "expected"],
)
def test_data_that_gets_through(helped_lab: Lab, table: Table, expected: set[str]) -> None:
    apply(helped_lab, helped_lab.policy_file)
    add_flow(helped_lab, f"table={EGRESS_VERDICT.number},priority=600,ip,actions=resubmit(,{FORWARD.number})")
    add_flow(helped_lab, f"table={table.number},priority=600,ip,actions=resubmit(,{COMMIT.number})")
    found = [outcome for outcome in data(selftest(helped_lab, parse(HELPED, "helped.yaml"))) if not outcome.is_right]
    assert {outcome.attempt.what for outcome in found} == expected
    assert all("GOT THROUGH" in outcome.words for outcome in found)


def test_nobody_to_attack(shop_lab: Lab) -> None:
    empty = Policy()
    assert list(scenes(empty, shop_lab.plan)) == []
    with pytest.raises(ConfigError, match="nothing to try"):
        selftest(shop_lab, empty)


def test_a_machine_that_is_gone(place: Place, shop: Policy, shop_lab: Lab) -> None:
    with pytest.raises(SwitchError, match="machine app: No such file or directory; take the lab down and up again"):
        selftest(shop_lab._replace(place=Place("nowhere", place.directory)), shop)
