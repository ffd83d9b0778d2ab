"""The layout of a drawn confusion matrix, for two classes or for hundreds."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.system.message_text import counted

MAX_DRAWN = 150  # classes; of more, only the _SELECTED with the most mistakes are drawn
_SELECTED = 60

# All in pixels. The cells share a square of this side, as long as each stays within the limits.
_SIDE, _NARROW_SIDE = 600.0, 230.0
_CELL_LIMITS = (8.0, 104.0)
_MIN_NUMBERED_CELL = 24.0  # smallest cell that a number fits into
_MIN_SLANTED_CELL = 20.0  # smaller columns have upright labels
_NARROW_WIDTH = 400.0  # of what still can be read when it is scaled to the screen of a phone
_MIN_LABEL, _MAX_LABEL = 8, 22  # letters
_GAP = 12.0  # around a label
_LETTER = 0.6  # mean width of a letter, in font sizes


@dataclass(frozen=True)
class Cell:
    """A number that is not 0. share: of the photos of the row's class, 0..1."""

    row: int
    column: int
    count: int
    share: float
    title: str

    @property
    def opacity(self) -> float:
        """Of its colour; rises fast, to make a few mistakes among hundreds of photos visible."""
        return float(0.18 + 0.82 * self.share**0.6)


@dataclass(frozen=True)
class Drawing:
    """A confusion matrix, in pixels at its natural size.

    cell       side of a cell
    left, top  room for the labels of rows and columns
    right      how far slanted column labels extend beyond the cells
    angle      of the column labels, degrees
    font       size of the labels
    labels     of the classes drawn, short enough to draw; ``names``: in full
    all        number of classes that there are
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
    def numbered(self) -> bool:
        """Whether numbers fit into the cells."""
        return self.cell >= _MIN_NUMBERED_CELL

    @property
    def fits_narrow_screen(self) -> bool:
        """Whether it can be read on a phone without scrolling sideways."""
        return self.left + self.side + self.right <= _NARROW_WIDTH


def draw(matrix: NDArray[np.int64], labels: Sequence[str], *, narrow: bool = False) -> Drawing:
    """Lay out ``matrix`` [C, C], row = true class, column = prediction; ``narrow``: for a phone."""
    selected = _select(matrix)
    names = tuple(labels[index] for index in selected)
    side = max(_NARROW_SIDE, _MIN_NUMBERED_CELL * len(selected)) if narrow else _SIDE
    cell = float(np.clip(side / len(selected), *_CELL_LIMITS))
    font = min(12.5, max(cell * 0.95, 7.5))
    most = _MAX_LABEL
    if narrow:  # what the cells leave
        room = int((_NARROW_WIDTH - cell * len(selected) - _GAP) / (font * _LETTER))
        most = min(most, max(room, _MIN_LABEL))
    short = tuple(_shorten(name, most) for name in names)
    text = max(map(_letters, short)) * font * _LETTER
    length = text + _GAP
    if text < cell:
        angle, top, right = 0, font * 2, 0.0
    elif cell > _MIN_SLANTED_CELL and not narrow:
        angle, top, right = -45, length * 0.72 + font, length * 0.72
    else:
        angle, top, right = -90, length, 0.0
    cells = tuple(_cells(matrix[np.ix_(selected, selected)], matrix.sum(1)[selected], names))
    return Drawing(cell, length, top, right, angle, font, short, names, cells, len(labels))


def _select(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the classes to draw."""
    if len(matrix) <= MAX_DRAWN:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(np.diag(matrix))
    return np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_SELECTED])


def _cells(
    matrix: NDArray[np.int64], photos: NDArray[np.int64], names: Sequence[str]
) -> list[Cell]:
    """The cells of ``matrix``. photos: int64 [C], of each row's class, in all columns."""
    cells = []
    for row, column in np.argwhere(matrix).tolist():
        count, of = int(matrix[row, column]), int(photos[row])
        share = f"{count:,} of {counted(of, 'photo')} ({100 * count / of:.1f} %)"
        title = f"{names[row]} → {names[column]}: {share}"
        cells.append(Cell(row, column, count, count / of, title))
    return cells


def _letters(text: str) -> int:
    """Width of ``text`` in letters; East Asian ones count twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _shorten(name: str, letters: int) -> str:
    """Leave out the middle of a long name; many class names differ only at their ends."""
    name = " ".join(name.split()) or "␣"
    if _letters(name) <= letters:
        return name
    while _letters(name) >= letters:  # the ellipsis takes one letter
        middle = len(name) // 2
        name = name[:middle] + name[middle + 1 :]
    middle = (len(name) + 1) // 2
    return f"{name[:middle]}…{name[middle:]}"
