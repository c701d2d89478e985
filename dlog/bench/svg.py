"""Charts as SVG text: lines with marks over one axis, linear or logarithmic. It writes no file.

No dependency is worth two charts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_COLOURS: Final = ("#1f6feb", "#d1495b", "#2e8b57", "#8a63d2", "#b8860b")
_INK: Final = "#333333"
_FAINT: Final = "#dddddd"
_LEFT: Final = 70
_RIGHT: Final = 24
_TOP: Final = 66
_BOTTOM: Final = 56


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """label with its unit. log: of base 10. ticks: values that are named; none for a choice."""

    label: str
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()


def chart(
    title: str, x: Axis, y: Axis, lines: Sequence[Line], *, width: int = 640, height: int = 400
) -> str:
    """One chart as a `<g>` of that size, for `document`."""
    points = [p for line in lines for p in line.points]
    across = _Scale(x, [p[0] for p in points], _LEFT, width - _RIGHT)
    up = _Scale(y, [p[1] for p in points], height - _BOTTOM, _TOP)
    parts = [
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold" fill="{_INK}">'
        f"{escape(title)}</text>"
    ]
    for value, name in across.ticks:
        at = across(value)
        parts.append(_rule(at, _TOP, at, height - _BOTTOM))
        parts.append(_text(at, height - _BOTTOM + 18, name, "middle"))
    for value, name in up.ticks:
        at = up(value)
        parts.append(_rule(_LEFT, at, width - _RIGHT, at))
        parts.append(_text(_LEFT - 8, at + 4, name, "end"))
    parts.append(_text((_LEFT + width - _RIGHT) / 2, height - 14, x.label, "middle"))
    parts.append(
        f'<text transform="translate(16 {(_TOP + height - _BOTTOM) / 2:.1f}) rotate(-90)" '
        f'font-size="12" text-anchor="middle" fill="{_INK}">{escape(y.label)}</text>'
    )
    for i, line in enumerate(lines):
        parts += _drawn(line, _COLOURS[i % len(_COLOURS)], across, up)
    parts += _legend(lines)
    return f"<g>{''.join(parts)}</g>"


def document(charts: Sequence[str], *, width: int = 640, height: int = 400) -> str:
    """The charts, one below the other."""
    moved = "".join(
        f'<g transform="translate(0 {i * height})">{each}</g>' for i, each in enumerate(charts)
    )
    total = height * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
        f'viewBox="0 0 {width} {total}" font-family="sans-serif">'
        f'<rect width="{width}" height="{total}" fill="white"/>{moved}</svg>\n'
    )


class _Scale:
    """From values to the picture's points."""

    def __init__(self, axis: Axis, values: Sequence[float], begin: float, end: float) -> None:
        self._log = axis.log
        self._begin, self._end = begin, end
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        named = [value for value, _ in axis.ticks]
        if axis.log:
            low, high = max(low, 1e-9), max(high, 1e-9)
            if not named:
                low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
            high = high if high > low else 10 * low
        else:
            low, high = 0.0, high * 1.05 or 1.0
        self._low, self._high = self._of(low), self._of(high)
        self.ticks = list(axis.ticks) or (_decades(low, high) if axis.log else _steps(high))

    def __call__(self, value: float) -> float:
        part = (self._of(value) - self._low) / (self._high - self._low)
        return self._begin + part * (self._end - self._begin)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self._log else value


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return [(10.0**n, f"{10.0**n:g}") for n in range(first, last + 1)]


def _steps(high: float) -> list[tuple[float, str]]:
    raw = high / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw)
    return [(i * step, f"{i * step:g}") for i in range(int(high / step) + 1)]


def _drawn(line: Line, colour: str, across: _Scale, up: _Scale) -> list[str]:
    at = [(across(x), up(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    if not line.dashed:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in at]
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    """In one row below the title, where no line can cross it."""
    parts = []
    x, y = float(_LEFT), _TOP - 18
    for i, line in enumerate(lines):
        colour = _COLOURS[i % len(_COLOURS)]
        dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(
            f'<line x1="{x:.0f}" y1="{y - 4}" x2="{x + 24:.0f}" y2="{y - 4}" '
            f'stroke="{colour}" stroke-width="2"{dashes}/>'
        )
        parts.append(_text(x + 30, y, line.name, "start"))
        x += 48 + 6.6 * len(line.name)
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_FAINT}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" fill="{_INK}">'
        f"{escape(text)}</text>"
    )
