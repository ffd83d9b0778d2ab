"""Plots as SVG elements that take their colours from the page, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from edgetl.evaluation.metrics import CalibrationPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib knows no CSS: it draws in placeholder colours, which the page's variables replace.
_INK, _FAINT = "#010203", "#010204"
_SERIES = ("#010205", "#010206", "#010207", "#010208")
_VARIABLES = {
    _INK: "var(--ink-2)",
    _FAINT: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)},
}
_AXIS_TOP = 1.004  # of accuracies: 100 %, with room for the line
# Inches. The page scales plots to its width, so only the ratio to the 9-point text matters.
_SIZE, _SQUARE = (4.8, 3.1), (4.8, 4.1)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_DASHED = (0, (3, 3))

Points = tuple[Sequence[float], Sequence[float]]  # x, y


class Estimate(NamedTuple):
    """A share of 0..1 that was measured at ``x``, with its interval."""

    x: float
    share: float
    interval: tuple[float, float]


def line_plot(
    name: str,
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    marker: str = "",
    percent: bool = False,
    chosen: float | None = None,
) -> str:
    """Lines, as an SVG element.

    name     sets the element's ids apart from those of the page's other plots
    series   legend → points
    x, y     labels of the axes
    percent  y values of 0..1 are labelled 0 %..100 %
    chosen   x of a dashed vertical line
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    figure, axes = _figure(x, y, _SIZE)
    for (legend, (xs, ys)), colour in zip(series.items(), _SERIES, strict=False):
        single = "o" if len(xs) == 1 else marker  # a line through one point would be invisible
        axes.plot(xs, ys, color=colour, label=legend, linewidth=1.8, marker=single, markersize=4)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(_power_of_ten)  # matplotlib's takes as long as the plot
    elif all(float(value).is_integer() for xs, _ in series.values() for value in xs):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if percent:
        axes.set_ylim(top=min(axes.get_ylim()[1], _AXIS_TOP))
        axes.yaxis.set_major_formatter(_percent())
    if chosen is not None:
        axes.axvline(chosen, color=_INK, linewidth=1, linestyle=_DASHED)
    if len(series) > 1:
        _legend(figure, len(series))
    return _svg(figure, name)


def calibration_plot(name: str, curves: Mapping[str, Sequence[CalibrationPoint]]) -> str:
    """A reliability diagram, as an SVG element: accuracy against confidence, and the diagonal.

    The axes begin at the lowest point: good classifiers are rarely less confident than 50 %.
    """
    figure, axes = _figure("confidence", "accuracy", _SQUARE)
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=_DASHED)
    for (legend, points), colour in zip(curves.items(), _SERIES, strict=False):
        estimates = [Estimate(at.confidence, at.accuracy, at.interval) for at in points]
        _draw_estimates(axes, estimates, legend, colour)
    lows = [min(point.confidence, point.interval[0]) for line in curves.values() for point in line]
    start = math.floor(10 * min(lows)) / 10
    axes.set(xlim=(start, 1), ylim=(start, 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_percent())
    if len(curves) > 1:
        _legend(figure, len(curves))
    return _svg(figure, name)


def estimates_plot(
    name: str, series: Mapping[str, Sequence[Estimate]], *, x: str, y: str, chosen: float
) -> str:
    """Shares with their intervals, as an SVG element.

    series  legend → estimates
    x, y    labels of the axes
    chosen  x of a dashed vertical line
    """
    figure, axes = _figure(x, y, _SIZE)
    for (legend, points), colour in zip(series.items(), cycle(_SERIES), strict=False):
        _draw_estimates(axes, points, legend, colour)
    axes.axvline(chosen, color=_INK, linewidth=1, linestyle=_DASHED)
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(axes.get_ylim()[1], _AXIS_TOP))
    axes.yaxis.set_major_formatter(_percent())
    _legend(figure, len(series))
    return _svg(figure, name)


def _legend(figure: Figure, columns: int) -> None:
    """Above the axes, where it covers no line."""
    figure.legend(
        frameon=False, labelcolor=_INK, fontsize=9, loc="outside upper left", ncols=columns
    )


def _draw_estimates(axes: Axes, points: Sequence[Estimate], legend: str, colour: str) -> None:
    """Points with their intervals, and a line through them."""
    axes.errorbar(
        [point.x for point in points],
        [point.share for point in points],
        [
            [point.share - point.interval[0] for point in points],
            [point.interval[1] - point.share for point in points],
        ],
        color=colour,
        label=legend,
        linewidth=1.8,
        elinewidth=0.9,
        marker="o",
        markersize=4.5,
        clip_on=False,
    )


def _figure(x: str, y: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    # Not pyplot, which keeps figures and a backend for the whole program.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelcolor=_INK, length=0, labelsize=9, pad=6)
    axes.set_xlabel(x, color=_INK, fontsize=9.5)
    axes.set_ylabel(y, color=_INK, fontsize=9.5)
    return figure, axes


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")


def _power_of_ten(value: float, _: float) -> str:
    exponent = str(round(math.log10(value))).replace("-", "\N{SUPERSCRIPT MINUS}")
    return "10" + exponent.translate(_SUPERSCRIPTS)


def _svg(figure: Figure, name: str) -> str:
    """``figure`` as an element without a fixed size; ``name`` is put before its ids."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata=metadata)  # once; savefig draws twice
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\b(id=")', rf"\g<1>{name}-", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for attribute in ("width", "height"):  # of the first element; the page sets the size
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    return text
