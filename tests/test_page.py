"""The page of `ovsfw graph` in a real browser, without a display: what it shows after its own script has filtered."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from ovsfw.drawing.page import page
from ovsfw.policy.graph import graph
from tests.unit.test_graph import EVIL, SHOP, evil, read, star

pytestmark = pytest.mark.browser

CHROMIUM = "chromium"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom")


class Seen(NamedTuple):
    """What the page shows: ids of nodes, ends of arrows, what is counted, and the rules that it lists."""

    nodes: set[str]
    arrows: set[tuple[str, str]]
    counted: str
    rules: list[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("page")) / "shop.html"
    path.write_text(page(graph(read(SHOP)), "shop"))
    return path


def opened(path: Path, fragment: str = "") -> str:
    """The document, once the script has run."""
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *OPTIONS, profile, f"{path.as_uri()}{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def seen(document: str) -> Seen:
    elements = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<g ([^>]*)>", document)]
    shown = [element for element in elements if "off" not in element.get("class", "").split()]
    return Seen(
        {element["data-node"] for element in shown if "data-node" in element},
        {(element["data-from"], element["data-to"]) for element in shown if "data-arrow" in element},
        re.findall(r'<span id="count">([^<]*)', document)[0],
        re.findall(r"<li>([^<]*)", document),
    )


def test_all_of_it_without_a_filter(shop: Path) -> None:
    found = seen(opened(shop))
    assert found.counted == "8 of 8 nodes, 8 of 8 arrows"
    assert (len(found.nodes), len(found.arrows), len(found.rules)) == (8, 8, 10)


FILTERS: dict[str, tuple[set[str], set[tuple[str, str]]]] = {
    "#q=twin": ({"group:a1", "group:a2"}, set()),
    "#q=WEB&direction=egress": (
        {"group:web", "addresses:dns", "group:db"},
        {("group:web", "addresses:dns"), ("group:db", "group:web")},
    ),
    # Also by a range, and by a rule for anything.
    "#service=tcp/7001&action=allow": (
        {"group:db", "anywhere"},
        {("group:db", "group:db"), ("group:db", "anywhere")},
    ),
    "#node=addresses:dns": ({"addresses:dns", "group:web"}, {("group:web", "addresses:dns")}),
}


@pytest.mark.parametrize("fragment", FILTERS)
def test_a_filter_leaves_what_it_asks_for(shop: Path, fragment: str) -> None:
    found, (nodes, arrows) = seen(opened(shop, fragment)), FILTERS[fragment]
    assert (found.nodes, found.arrows) == (nodes, arrows)
    assert found.counted == f"{len(nodes)} of 8 nodes, {len(arrows)} of 8 arrows"


def test_a_click_leaves_a_node_and_its_neighbours(shop: Path) -> None:
    """The page's own policy forbids any other script: only without it can a test click."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", shop.read_text())
    click = "document.querySelector('[data-node=\"group:web\"]').dispatchEvent(new MouseEvent('click'))"
    other = shop.parent / "clicked.html"
    other.write_text(text.replace("</body>", f"<script>{click}</script></body>"))
    found = seen(opened(other))
    assert found.nodes == {"group:web", "group:db", "anywhere", "addresses:dns"}
    assert len(found.arrows) == 4


def test_fifty_groups_are_not_made_small_and_one_is_found_among_them(tmp_path: Path) -> None:
    """All of them together do not fit into a window and are shown as large as they are, to be scrolled."""
    path = tmp_path / "fifty.html"
    path.write_text(page(graph(star(49)), "fifty"))
    document = opened(path)
    assert re.search(r'<div id="picture"( class="")?>', document)
    assert seen(document).counted == "50 of 50 nodes, 96 of 96 arrows"
    document = opened(path, "#node=group:g7")
    assert '<div id="picture" class="fit">' in document
    found = seen(document)
    assert found.nodes == {"group:g6", "group:g7", "group:g8", "group:hub"}
    assert found.rules == [
        "g7: tcp from group g6 (IPv4), rule g7/ingress-ipv4-tcp-from-g6",
        "g8: tcp from group g7 (IPv4), rule g8/ingress-ipv4-tcp-from-g7",
        "g7: tcp from group hub (IPv4), rule g7/ingress-ipv4-tcp-from-hub",
    ]


def test_scripts_in_names_do_not_run_and_no_other_script_could(tmp_path: Path) -> None:
    path = tmp_path / "evil.html"
    text = page(graph(evil()), EVIL)
    # Even where something is not escaped.
    path.write_text(text.replace("</header>", "</header><script>document.title = 'taken'</script>"))
    document = opened(path, "#q=script")
    assert "<title>taken" not in document
    assert seen(document).counted == "2 of 2 nodes, 1 of 1 arrows"
    assert document.count("<script") == 2
