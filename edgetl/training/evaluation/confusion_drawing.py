"""Where the cells and labels of a confusion matrix go in a drawing, for two classes or for hundreds."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_DRAWN = 150  # classes; of more, only those with the most mistakes

_KEPT = 60  # classes drawn where there are more than MOST_DRAWN
_SIDE = 600.0  # pixels that the cells share, as long as each stays within:
_CELL = (8.0, 104.0)
_COUNTED_CELL = 24.0  # smallest cell that a number fits into
_LONGEST_LABEL = 22  # letters
_LETTER = 0.6  # mean width of a letter, in font sizes


@dataclass(frozen=True)
class Cell:
    """One number that is not 0. ``share``: of the photos that are of the row's class, 0..1."""

    row: int
    column: int
    count: int
    share: float
    title: str

    @property
    def opacity(self) -> float:
        """Of its colour; rises fast, so that a few mistakes among hundreds of photos can be seen."""
        return float(0.18 + 0.82 * self.share**0.6)


@dataclass(frozen=True)
class Drawing:
    """A confusion matrix, in pixels at its natural size.

    cell         side of a cell
    left, top    room for the labels of rows and columns; ``right``: what slanted column labels jut out
    angle        of the column labels, degrees
    font         size of the labels
    labels       short enough to draw; ``names``: in full
    drawn, all   number of classes drawn, and that there are
    """

    cell: float
    left: float
    top: float
    right: float
    angle: int
    font: float
    labels: tuple[str, ...]
    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    all: int

    @property
    def drawn(self) -> int:
        """Number of classes drawn."""
        return len(self.labels)

    @property
    def side(self) -> float:
        """Of the square of cells."""
        return self.cell * self.drawn

    @property
    def counted(self) -> bool:
        """Whether numbers fit into the cells."""
        return self.cell >= _COUNTED_CELL


def draw(matrix: NDArray[np.int64], labels: Sequence[str]) -> Drawing:
    """Lay out ``matrix`` [C, C], row = truth, column = prediction."""
    shown = _shown(matrix)
    names = tuple(labels[index] for index in shown)
    cell = float(np.clip(_SIDE / len(shown), *_CELL))
    font = min(12.5, max(cell * 0.95, 7.5))
    short = tuple(_shortened(name) for name in names)
    length = max(map(_width, short)) * font * _LETTER + 12
    angle = 0 if max(map(_width, short)) * font * _LETTER < cell else -45 if cell > 20 else -90
    top, right = {
        0: (font * 2, 0.0),
        -45: (length * 0.72 + font, length * 0.72),
        -90: (length, 0.0),
    }[angle]
    cells = tuple(_cells(matrix[np.ix_(shown, shown)], matrix.sum(1)[shown], names))
    return Drawing(cell, length, top, right, angle, font, short, names, cells, len(labels))


def _shown(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(matrix) <= MOST_DRAWN:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(np.diag(matrix))
    return np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_KEPT])


def _cells(
    matrix: NDArray[np.int64], photos: NDArray[np.int64], names: Sequence[str]
) -> list[Cell]:
    cells = []
    for row, column in np.argwhere(matrix).tolist():
        count, of = int(matrix[row, column]), int(photos[row])
        noun = "photo" if of == 1 else "photos"
        title = f"{names[row]} → {names[column]}: {count:,} of {of:,} {noun} ({count / of:.1%})"
        cells.append(Cell(row, column, count, count / of, title))
    return cells


def _width(text: str) -> int:
    """In letters; East Asian ones count twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _shortened(name: str) -> str:
    name = " ".join(name.split()) or "␣"
    while _width(name) > _LONGEST_LABEL:
        name = name[:-2] + "…"
    return name
