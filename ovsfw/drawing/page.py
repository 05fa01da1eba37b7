"""A graph as one HTML page that needs nothing else: the SVG, and a script that filters and searches it.

The page allows no script and no style but its own, by their hashes, and no access to anything: so even a name that got
through unescaped could not do anything.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from ovsfw.drawing.svg import STYLE, svg
from ovsfw.drawing.text import escaped
from ovsfw.policy.graph import Graph

FORM = """<form role="search">
<label>Name <input id="q" type="search" size="14" placeholder="part of a name"></label>
<label>Service <input id="service" type="search" size="10" placeholder="tcp/443"></label>
<label>Direction <select id="direction"><option value="">both</option><option>ingress</option><option>egress</option>
</select></label>
<label>Action <select id="action"><option value="">any</option><option>allow</option><option>deny</option>
<option>reject</option><option>pass</option></select></label>
<button id="all" type="button">Show all</button>
</form>"""


def page(graph: Graph, title: str) -> str:
    """The page; `title` is what it is called.  Reads its own script and style, which are files beside this one."""
    script, style = _own("page.js"), _own("page.css")
    allowed = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)} {_hash(STYLE)}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{allowed}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>",
            f"<style>{style}</style></head><body>",
            f'<header><h1>{escaped(title)}</h1>{FORM}<span id="count"></span></header>',
            f'<main><div id="picture">{svg(graph, title)}</div>',
            '<aside><h2 id="name"></h2><p id="about"></p><ul id="rules"></ul></aside></main>',
            f"<script>{script}</script></body></html>",
        )
    )


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text()


def _hash(text: str) -> str:
    """How a content security policy names what it allows (https://www.w3.org/TR/CSP3/)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
