"""Line charts as SVG, side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 270, 180, 60, 40, 90
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # told apart by the colour-blind too


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: its label, and a value for each tick."""

    label: str
    values: Sequence[float]


def write_svg(
    path: Path, ticks: Sequence[str], axis: str, charts: Mapping[str, Sequence[Series]]
) -> None:
    """Write charts that share their ticks, each with an axis of its own from 0."""
    parts = []
    for number, (title, lines) in enumerate(charts.items()):
        parts += _chart(LEFT + number * (WIDTH + GAP), title, ticks, axis, lines)
    width = LEFT + len(charts) * (WIDTH + GAP)
    most = max(len(lines) for lines in charts.values())
    height = TOP + HEIGHT + 60 + 18 * most
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    # A ground of its own, so that it can be read in dark themes.
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    path.write_text("\n".join([head, ground, *parts, "</svg>", ""]), "utf-8")


def _chart(
    left: int, title: str, ticks: Sequence[str], axis: str, lines: Sequence[Series]
) -> list[str]:
    step = _step(max(max(line.values) for line in lines))
    top = step * math.ceil(max(max(line.values) for line in lines) / step)
    bottom = TOP + HEIGHT
    middle = left + WIDTH / 2
    across = [left + WIDTH * n / (len(ticks) - 1) for n in range(len(ticks))]
    parts = [_text(middle, TOP - 16, title, "middle", bold=True)]
    for number in range(round(top / step) + 1):
        y = bottom - HEIGHT * number * step / top
        parts.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="#ccc"/>'
        )
        parts.append(_text(left - 6, y + 4, f"{number * step:,.10g}", "end"))
    for x, tick in zip(across, ticks, strict=True):
        parts.append(_text(x, bottom + 18, tick, "middle"))
    parts.append(_text(middle, bottom + 36, axis, "middle"))
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = [
            (x, bottom - HEIGHT * value / top)
            for x, value in zip(across, line.values, strict=True)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
        )
        for x, y in points:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        y = bottom + 58 + 18 * number
        parts.append(f'<rect x="{left}" y="{y - 9}" width="18" height="3" '
                     f'fill="{colour}" transform="translate(0 4)"/>')  # fmt: skip
        parts.append(_text(left + 26, y, line.label, "start"))
    return parts


def _step(most: float) -> float:
    """The distance of at most 6 lines: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * f for f in (0.1, 0.2, 0.5, 1, 2) if most <= 5 * power * f)


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{text}</text>'
