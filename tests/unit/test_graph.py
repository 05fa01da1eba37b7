"""`ovsfw graph`: what is drawn, that names cannot do harm, and that the same policy makes the same picture."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings

from ovsfw.cli import main
from ovsfw.drawing.dot import dot
from ovsfw.drawing.layout import Layout, Size
from ovsfw.drawing.page import page
from ovsfw.drawing.scene import MANY, Scene, scene
from ovsfw.drawing.svg import svg
from ovsfw.drawing.text import size
from ovsfw.policy.document import parse
from ovsfw.policy.graph import Arrow, as_values, graph
from ovsfw.policy.model import Policy
from tests.strategies import policies
from tests.test_house import ROOT

EVIL = "\"]}<script>alert(1)</script>\\\" & 'x' -->"
SHOP = """
security_groups:
  - id: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 443, port_range_max: 443}
      - {direction: ingress, ethertype: IPv6, protocol: tcp, port_range_min: 443, port_range_max: 443}
      - {direction: ingress, ethertype: IPv6, protocol: ipv6-icmp}
      - {direction: egress, protocol: udp, port_range_min: 53, port_range_max: 53, remote_address_group_id: dns}
  - id: db
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 5432, port_range_max: 5432, remote_group_id: web}
      - {direction: ingress, protocol: tcp, port_range_min: 7000, port_range_max: 7001, remote_group_id: db}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_ip_prefix: 10.0.0.0/8}
      - {direction: egress, remote_ip_prefix: 0.0.0.0/0}
  - {id: a1, name: twin}
  - {id: a2, name: twin}
address_groups:
  - {id: dns, addresses: [192.0.2.53, 192.0.2.54]}
tiers:
  - {id: top, rules: [{direction: ingress, action: deny, protocol: tcp, port_range_min: 23, port_range_max: 23}]}
  - {id: pci, applies_to: [db], rules: [{direction: egress, action: reject, remote_group_id: web}]}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", security_groups: [web]}
"""


def read(text: str) -> Policy:
    return parse(text.encode(), "policy")


def star(groups: int) -> Policy:
    """Everybody is reached by the hub, and by the one before."""
    rules = [
        [{"direction": "ingress", "protocol": "tcp", "remote_group_id": name} for name in {"hub", f"g{number - 1}"}]
        for number in range(1, groups)
    ]
    chain = [{"id": f"g{number}", "rules": found} for number, found in enumerate(rules, 1)]
    return read(json.dumps({"security_groups": [{"id": "hub"}, {"id": "g0"}, *chain]}))


def arrows(policy: Policy) -> dict[tuple[str, str, str, str], Arrow]:
    return {
        (arrow.source, arrow.target, arrow.direction.value, arrow.action.value): arrow for arrow in graph(policy).arrows
    }


def test_arrows_are_merged_rules() -> None:
    assert {ends: arrow.services for ends, arrow in arrows(read(SHOP)).items()} == {
        ("anywhere", "group:web", "ingress", "allow"): ("tcp/443", "icmp (IPv6)"),
        ("group:web", "addresses:dns", "egress", "allow"): ("udp/53",),
        ("group:web", "group:db", "ingress", "allow"): ("tcp/5432",),
        ("group:db", "group:db", "ingress", "allow"): ("tcp/7000-7001",),
        ("prefix:10.0.0.0/8", "group:db", "ingress", "allow"): ("tcp/22",),
        ("group:db", "anywhere", "egress", "allow"): ("anything",),
        ("anywhere", "ports", "ingress", "deny"): ("tcp/23",),
        ("group:db", "group:web", "egress", "reject"): ("anything",),
    }


def test_every_rule_is_in_an_arrow_that_says_whose_it_is() -> None:
    policy = read(SHOP)
    found = arrows(policy)
    assert {rule for arrow in found.values() for rule in arrow.rules} == {rule.id for rule in policy.rules}
    (text,) = found["group:web", "group:db", "ingress", "allow"].texts
    assert text == "db: tcp/5432 from group web (IPv4), rule db/ingress-ipv4-tcp-5432-from-web"
    (text,) = found["anywhere", "ports", "ingress", "deny"].texts
    assert text.startswith("tier top: deny tcp/23 from anywhere (IPv4), rule ")


def test_nodes_are_groups_and_what_rules_name() -> None:
    nodes = {node.id: node for node in graph(read(SHOP)).nodes}
    assert set(nodes) == {
        "addresses:dns", "anywhere", "group:a1", "group:a2", "group:db", "group:web", "ports", "prefix:10.0.0.0/8"
    }  # fmt: skip
    assert (nodes["group:web"].about, nodes["group:db"].about) == ("security group, 1 port", "security group, 0 ports")
    assert nodes["addresses:dns"].about == "address group, 2 prefixes"
    # Two of a name are told apart.
    assert (nodes["group:a1"].label, nodes["group:a2"].label) == ("twin (a1)", "twin (a2)")


def test_arrows_of_a_node_with_many_are_rows_in_the_boxes_of_the_others() -> None:
    few, many = scene(graph(star(MANY))), scene(graph(star(MANY + 9)))
    assert not few.boxes["group:hub"].elsewhere
    assert many.boxes["group:hub"].elsewhere == MANY + 8
    assert [row.text for row in many.boxes["group:g3"].rows] == ["← hub: tcp"]
    assert len(many.lines) == MANY + 8


def rectangles(drawn: Scene) -> list[tuple[float, float, Size]]:
    placed: Layout = drawn.layout
    boxes = [(*placed.boxes[name], box.size) for name, box in drawn.boxes.items()]
    for name, line in drawn.lines.items():
        room = size([line.text])
        x, y = placed.labels[name]
        boxes.append((x - room.width / 2, y - room.height / 2, room))
    return boxes


@given(policies())
@settings(max_examples=25)
def test_no_box_and_no_label_covers_another_and_all_are_inside(policy: Policy) -> None:
    drawn = scene(graph(policy))
    found = rectangles(drawn)
    for (x, y, room), (left, top, other) in combinations(found, 2):
        beside = x + room.width <= left + 0.01 or left + other.width <= x + 0.01
        assert beside or y + room.height <= top + 0.01 or top + other.height <= y + 0.01
    for x, y, room in found:
        assert 0 <= x <= drawn.layout.width - room.width
        assert 0 <= y <= drawn.layout.height - room.height
    assert set(drawn.layout.routes) == set(drawn.lines)


def test_a_circle_of_groups_and_no_groups_at_all_can_be_drawn() -> None:
    circle = [{"id": f"g{n}", "rules": [{"direction": "ingress", "remote_group_id": f"g{n - 1}"}]} for n in range(1, 4)]
    circle.append({"id": "g0", "rules": [{"direction": "ingress", "remote_group_id": "g3"}]})
    for groups in (circle, circle[:0]):
        policy = read(json.dumps({"security_groups": groups}))
        assert ET.fromstring(svg(graph(policy), "picture")).tag.endswith("svg")  # noqa: S314 - our own


@given(policies())
@settings(max_examples=10)
def test_the_same_policy_makes_the_same_picture(policy: Policy) -> None:
    assert page(graph(policy), "picture") == page(graph(policy), "picture")


def test_the_order_of_the_document_makes_no_difference() -> None:
    groups = [
        {"id": name, "rules": [{"direction": "ingress", "protocol": "tcp", "remote_group_id": far}]}
        for name, far in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    made = [svg(graph(read(json.dumps({"security_groups": each}))), "x") for each in (groups, groups[::-1])]
    assert made[0] == made[1]


def evil() -> Policy:
    groups = [
        {"id": EVIL, "rules": [{"direction": "ingress", "remote_group_id": "victim", "id": f"{EVIL} rule"}]},
        {"id": "victim", "name": "\u0001line\nbreak\u202eesrever"},
    ]
    return read(json.dumps({"security_groups": groups}))


def test_names_cannot_break_out_of_svg_and_html() -> None:
    root = ET.fromstring(svg(graph(evil()), EVIL))  # noqa: S314 - our own; fails where it is no XML
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert EVIL in {element.get("data-name") for element in root.iter()}
    text = page(graph(evil()), EVIL)
    assert text.count("<script") == text.count("</script") == 1
    assert "\u202e" not in text
    assert not re.search(r"""(src|href)=|url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)""", text)


def test_names_cannot_break_out_of_dot() -> None:
    lines = dot(graph(evil()), EVIL).splitlines()
    string = r'"(?:[^"\\]|\\.)*"'
    attributes = rf"\[\w+={string}(, \w+=({string}|\w+))*\];"
    assert re.fullmatch(rf"digraph {string} {{", lines[0])
    assert (lines[1], lines[-1]) == ("  rankdir=LR;", "}")
    assert len(lines) == 6
    for line in lines[2:-1]:
        assert re.fullmatch(rf"  {string}( -> {string})? {attributes}", line), line


def test_json_has_the_whole_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(SHOP)
    assert main(["graph", "--policy", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_values(graph(read(SHOP)))


def test_the_name_of_the_file_says_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(SHOP)
    begins = {"x.html": "<!DOCTYPE html>", "x.svg": "<svg ", "x.dot": "digraph ", "x.json": "{", "x": "<svg "}
    for name, start in begins.items():
        assert main(["graph", "--policy", str(path), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    assert main(["graph", "--policy", str(path), "--output", str(tmp_path / "no" / "x.svg")]) == 1
    assert capsys.readouterr().err.endswith("x.svg: cannot be written: No such file or directory\n")


def test_the_picture_of_the_documentation_is_current() -> None:
    """`ovsfw graph --policy ovsfw/lab/three-tier.yaml --output docs/three-tier.svg` makes it anew."""
    policy = parse((ROOT / "ovsfw" / "lab" / "three-tier.yaml").read_bytes(), "three-tier.yaml")
    made = svg(graph(policy), "three-tier.yaml: who may talk to whom") + "\n"
    assert (ROOT / "docs" / "three-tier.svg").read_text() == made
