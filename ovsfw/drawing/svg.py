"""A graph as SVG: one file that any viewer shows, and that the HTML page has in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ovsfw.drawing.layout import Point
from ovsfw.drawing.scene import Box, Line, Row, Scene, scene
from ovsfw.drawing.text import CHARACTER, LINE, PADDING, escaped, size
from ovsfw.policy.graph import Arrow, Graph, Kind
from ovsfw.policy.model import Action, Direction

LEGEND = 30  # its height
STYLE = """
svg { font: 12px system-ui, "DejaVu Sans", Verdana, sans-serif; background: #fff; }
.node > rect { stroke: #7b8794; fill: #f5f7fa; }
.node.group > rect { stroke: #2c5282; fill: #ebf4ff; }
.node.addresses > rect, .node.prefix > rect { stroke: #276749; fill: #e6f6ec; }
.node.ports > rect { stroke: #6b46c1; fill: #f3ebff; }
.node > text.name { font-weight: 600; fill: #1a202c; }
.node > text { fill: #616e7c; }
path { fill: none; stroke: currentColor; stroke-width: 1.4; }
marker path { fill: currentColor; stroke: none; }
.arrow text { fill: currentColor; }
.arrow rect { fill: #fff; fill-opacity: .9; }
.ingress { color: #1c5fa8; }
.egress { color: #a8480a; }
.deny, .reject { color: #c02020; }
.deny path, .reject path { stroke-dasharray: 5 3; }
.pass { color: #616e7c; }
.pass path { stroke-dasharray: 2 3; }
"""
# A marker has the colour of where it is defined, so there is one for each kind of arrow.
KINDS = (*(direction.value for direction in Direction), "deny", "pass")
SAID = {
    "ingress": "the target lets in (ingress)",
    "egress": "the source lets out (egress)",
    "deny": "a tier denies or rejects",
    "pass": "a tier passes on",
}


def svg(graph: Graph, title: str) -> str:
    """The picture; `title` is what it is called."""
    drawn = scene(graph)
    width, height = max(drawn.layout.width, 760), drawn.layout.height + LEGEND
    room = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {room}>',
            f"<title>{escaped(title)}</title>",
            f"<style>{STYLE}</style>",
            f"<defs>{''.join(map(_marker, KINDS))}</defs>",
            *(_line(drawn, line) for line in drawn.lines.values()),
            *(_box(box, drawn.layout.boxes[name]) for name, box in drawn.boxes.items()),
            _legend(drawn.layout.height),
            "</svg>",
        )
    )


def _marker(kind: str) -> str:
    return (
        f'<marker id="head-{kind}" class="{kind}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
    )


def _kind(arrow: Arrow) -> str:
    if arrow.action is Action.ALLOW:
        return arrow.direction.value
    return "pass" if arrow.action is Action.PASS else "deny"


def _opening(arrow: Arrow) -> str:
    """The element of an arrow, with what the page asks for; all of it is in the title for people."""
    attributes = {
        "class": f"arrow {arrow.direction.value} {arrow.action.value}",
        "data-arrow": arrow.id,
        "data-from": arrow.source,
        "data-to": arrow.target,
        "data-direction": arrow.direction.value,
        "data-services": "|".join(arrow.services),
    }
    listed = " ".join(f'{name}="{escaped(value)}"' for name, value in attributes.items())
    return f"<g {listed}><title>{escaped_lines(arrow.texts)}</title>"


def escaped_lines(texts: tuple[str, ...]) -> str:
    """Lines of text."""
    return "\n".join(map(escaped, texts))


def _line(drawn: Scene, line: Line) -> str:
    arrow = line.arrow
    x, y = drawn.layout.labels[arrow.id]
    room = size([line.text])
    return (
        f'{_opening(arrow)}<path d="{_path(drawn.layout.routes[arrow.id])}" marker-end="url(#head-{_kind(arrow)})"/>'
        f'<rect x="{x - room.width / 2:.1f}" y="{y - LINE / 2:.1f}" width="{room.width:.1f}" height="{LINE}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escaped(line.text)}</text></g>'
    )


def _path(points: tuple[Point, ...]) -> str:
    """Through all points, horizontally at each."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (there, level) in pairwise(points):
        if (x, y) != (there, level):
            middle = (x + there) / 2
            text += f"C{middle:.1f} {y:.1f} {middle:.1f} {level:.1f} {there:.1f} {level:.1f}"
    return text


def _box(box: Box, place: Point) -> str:
    x, y = place
    room, node = box.size, box.node
    title = f"{node.label}: {node.about}" if node.kind is not Kind.ANYWHERE else node.about
    return (
        f'<g class="node {node.kind.value}" data-node="{escaped(node.id)}" data-name="{escaped(node.label)}">'
        f"<title>{escaped(title)}</title>"
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{room.width:.1f}" height="{room.height:.1f}" rx="5"/>'
        f"{''.join(_texts(box, x + PADDING, y + LINE))}</g>"
    )


def _texts(box: Box, x: float, y: float) -> Iterator[str]:
    for number, text in enumerate(box.texts):
        kind = ' class="name"' if number == 0 else ""
        yield f'<text{kind} x="{x:.1f}" y="{y + number * LINE - 1:.1f}">{escaped(text)}</text>'
    top = y + len(box.texts) * LINE - 1
    for number, row in enumerate(box.rows):
        yield _row(row, x, top + number * LINE)


def _row(row: Row, x: float, y: float) -> str:
    return f'{_opening(row.arrow)}<text x="{x:.1f}" y="{y:.1f}">{escaped(row.text)}</text></g>'


def _legend(top: float) -> str:
    parts, x = [], 16.0
    for kind, said in SAID.items():
        parts.append(
            f'<g class="{kind}"><path d="M{x:.0f} {top + 14:.0f}h34" marker-end="url(#head-{kind})"/>'
            f'<text x="{x + 40:.0f}" y="{top + 18:.0f}" fill="currentColor">{said}</text></g>'
        )
        x += 60 + len(said) * CHARACTER
    return "".join(parts)
