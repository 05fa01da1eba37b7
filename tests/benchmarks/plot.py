"""Curves over doubling sizes, both axes logarithmic, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 230, 40, 50
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700", "#57606a")
_TEXT = 'font-family="sans-serif" font-size="13" fill="#24292f"'


class Curve(NamedTuple):
    """A value for each size."""

    name: str
    values: Sequence[float]


def plot(title: str, sizes: Sequence[int], curves: Sequence[Curve]) -> str:
    """The curves, with a dashed line for what grows as the size does."""
    low = min(1.0, *(value for curve in curves for value in curve.values))
    high = max(sizes[-1] / sizes[0], *(value for curve in curves for value in curve.values))
    ticks = [2.0**power for power in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" {_TEXT}>{escape(title)}</text>',
    ]
    for size in sizes:
        parts.append(_line([(x(size), TOP), (x(size), HEIGHT - BOTTOM)], "#d0d7de"))
        parts.append(f'<text x="{x(size):.0f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" {_TEXT}>{size}x</text>')
    for tick in ticks:
        parts.append(_line([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], "#d0d7de"))
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.0f}" text-anchor="end" {_TEXT}>{tick:g}</text>')
    linear = [(x(size), y(size / sizes[0])) for size in sizes]
    parts.append(_line(linear, "#57606a", 'stroke-dasharray="4 4"'))
    named = sorted((curve.values[-1], curve, colour) for curve, colour in zip(curves, COLOURS, strict=False))
    label = math.inf
    for value, curve, colour in named:
        parts.append(_line([(x(size), y(each)) for size, each in zip(sizes, curve.values, strict=True)], colour))
        # Names must not lie on each other.
        label = min(y(value), label - 18)
        text = _TEXT.replace("#24292f", colour)
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{label + 4:.0f}" {text}>{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="1.5" {more}/>'
