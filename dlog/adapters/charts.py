"""Charts in a file: lines with marks over one axis, linear or logarithmic.

The one file that imports matplotlib, which comes with the extra `plot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dlog.errors import Error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".svg", ".png", ".pdf")
_WIDTH_INCHES: Final = 7.0
_HEIGHT_INCHES: Final = 4.4
_COLOURS: Final = ("#1f6feb", "#d1495b", "#2e8b57", "#8a63d2", "#b8860b")


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


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]


def check_drawable(path: Path) -> None:
    """Raise `Error` if the suffix is none that can be drawn, or if matplotlib is not installed."""
    if path.suffix not in SUFFIXES:
        raise Error(f"{path}: a chart is drawn into a file named {', '.join(SUFFIXES)}")
    _figure(1)


def draw(charts: Sequence[Chart], path: Path) -> None:
    """Draw them, one below the other, in the format that the suffix names. Raises `Error`."""
    check_drawable(path)
    figure = _figure(len(charts))
    for chart, axes in zip(charts, figure.subplots(len(charts), squeeze=False)[:, 0], strict=True):
        _draw(chart, axes)
    try:
        figure.savefig(path)
    except OSError as error:
        raise Error(f"{path}: {error.strerror}") from error


def _figure(charts: int) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Error(
            "a chart needs matplotlib, which is not installed: pip install 'dlog-daq[plot]'"
        ) from error
    return Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES * charts), layout="constrained")


def _draw(chart: Chart, axes: Axes) -> None:
    from matplotlib.ticker import LogLocator

    for line, colour in zip(chart.lines, cycle(_COLOURS), strict=False):
        across, up = [x for x, _ in line.points], [y for _, y in line.points]
        marks = {"linestyle": "--"} if line.dashed else {"marker": "o", "markersize": 4}
        axes.plot(across, up, color=colour, label=line.name, **marks)
    axes.set_title(chart.title, loc="left", fontweight="bold", pad=28)
    axes.set(xlabel=chart.x.label, ylabel=chart.y.label)
    has_points = any(line.points for line in chart.lines)
    for axis, side in ((chart.x, axes.xaxis), (chart.y, axes.yaxis)):
        if axis.log and has_points:
            axes.set(**{f"{side.axis_name}scale": "log"})
            side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            side.set_major_formatter("{x:g}")
        if axis.ticks:
            side.set_ticks(*zip(*axis.ticks, strict=True))
    if not chart.y.log:
        axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.grid(color="#dddddd")
    # In one row above the lines, where none of them crosses it.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(chart.lines), frameon=False)
