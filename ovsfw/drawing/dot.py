"""A graph in the language of Graphviz (https://graphviz.org/doc/info/lang.html), for those who draw it themselves."""

from __future__ import annotations

from ovsfw.drawing.scene import services_text
from ovsfw.drawing.text import clean
from ovsfw.policy.graph import Graph, Kind
from ovsfw.policy.model import Action, Direction

SHAPES = {Kind.GROUP: "box", Kind.ADDRESSES: "folder", Kind.PREFIX: "oval", Kind.ANYWHERE: "doublecircle"}
COLOURS = {Direction.INGRESS: "#1c5fa8", Direction.EGRESS: "#a8480a"}


def dot(graph: Graph, title: str) -> str:
    """The picture's source."""
    lines = [f"digraph {quoted(title)} {{", "  rankdir=LR;"]
    for node in graph.nodes:
        label = f"{node.label}\n{node.about}" if node.kind is Kind.GROUP else node.label
        lines.append(f"  {quoted(node.id)} [label={quoted(label)}, shape={SHAPES.get(node.kind, 'octagon')}];")
    for arrow in graph.arrows:
        colour = COLOURS[arrow.direction] if arrow.action is Action.ALLOW else "#c02020"
        attributes = f'label={quoted(services_text(arrow))}, color="{colour}", fontcolor="{colour}"'
        lines.append(f"  {quoted(arrow.source)} -> {quoted(arrow.target)} [{attributes}];")
    return "\n".join([*lines, "}"])


def quoted(text: str) -> str:
    r"""A quoted string; Graphviz has escapes of its own in labels, which names must not have.

    >>> print(quoted('a "b" \\N'))
    "a \"b\" \\N"
    """
    lines = (clean(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'
