"""Curves as SVG that takes its colours from the page around it, so that they fit a light and a dark one."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetl.training.evaluation.metrics import CalibrationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib knows no CSS: it draws in colours that nothing else has, and the page's variables replace them.
_INK, _FAINT = "#010203", "#010204"
_SERIES = ("#010205", "#010206", "#010207", "#010208")
_VARIABLES = {
    _INK: "var(--ink-2)",
    _FAINT: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)},
}
_ALL = 1.004  # 100 %, with room for its line
_DOT, _ALL_PHOTOS = (
    6.0,
    200.0,
)  # square points: the area of the smallest dot, and of one that stands for all photos
_SIZE = (5.2, 3.3)  # inches; scales with the page, so only the ratio to the 9-point text matters

Points = tuple[Sequence[float], Sequence[float]]  # x, y


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
    """An SVG element.

    series   legend → points
    percent  y values of 0..1 are labelled 0 %..100 %
    chosen   x where a line marks what was taken
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    figure, axes = _figure(x, y)
    for (legend, (across, up)), colour in zip(series.items(), _SERIES, strict=False):
        only_one = len(across) == 1
        axes.plot(
            across,
            up,
            color=colour,
            label=legend,
            linewidth=1.8,
            marker="o" if only_one else marker,
            markersize=4,
        )
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    elif all(float(value).is_integer() for across, _ in series.values() for value in across):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if percent:
        axes.set_ylim(top=min(axes.get_ylim()[1], _ALL))
        axes.yaxis.set_major_formatter(_percent())
    if chosen is not None:
        axes.axvline(chosen, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return _svg(figure, name)


def calibration_plot(name: str, curves: Mapping[str, CalibrationCurve]) -> str:
    """An SVG element: accuracy against confidence, with the diagonal of a classifier that is as good as it says.

    A dot's area is the share of the photos that it stands for.
    """
    figure, axes = _figure("confidence", "accuracy", size=(4.2, 3.9))
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (3, 3)))
    for (legend, curve), colour in zip(curves.items(), _SERIES, strict=False):
        axes.plot(curve.confidence, curve.accuracy, color=colour, label=legend, linewidth=1.8)
        areas = _DOT + (_ALL_PHOTOS - _DOT) * curve.photos / curve.photos.sum()
        axes.scatter(
            curve.confidence,
            curve.accuracy,
            areas,
            color=colour,
            linewidths=0,
            zorder=3,
            clip_on=False,
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_percent())
    figure.legend(
        frameon=False, labelcolor=_INK, fontsize=9, loc="outside upper left", ncols=len(curves)
    )
    return _svg(figure, name)


def _figure(x: str, y: str, size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    from matplotlib.figure import (
        Figure,  # not pyplot, which keeps figures and a backend for the whole program
    )

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


def _svg(figure: Figure, name: str) -> str:
    """``figure`` as an element; ``name`` sets its ids apart from those of the page's other plots."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\b(id=")', rf"\g<1>{name}-", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )
