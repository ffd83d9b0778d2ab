"""The photos behind a run: what its settings say it was trained and judged on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.errors import DataError, ExportError, ImageError
from edgetl.runtime.images.decode import read_image

if TYPE_CHECKING:
    from edgetl.data.image_folder import ImageFolders
    from edgetl.runtime.bundle.model_card import ModelCard


def run_data(
    settings: Mapping[str, Any], card: ModelCard, needed_for: str, hint: str
) -> ImageFolders:
    """The data folder of a run, read again, without validation photos that the run had to leave out, too.

    Raises ExportError, with ``hint``, if it is gone, was never named, or has other classes than ``card`` by now.
    """
    from edgetl.data.image_folder import find_unreadable, scan

    try:
        data = scan(settings["data"], val_fraction=settings["val_fraction"])
    except KeyError as error:
        raise ExportError(
            f"The run does not say what it was trained on, which {needed_for} need.", hint
        ) from error
    except DataError as error:
        raise ExportError(
            f"{needed_for[0].upper()}{needed_for[1:]} need the run's data: {error.message}", hint
        ) from error
    if data.classes != card.labels:  # then a class has another number than in the network's outputs
        raise ExportError(
            f"{data.root} has other classes than the run was trained on, so {needed_for} can't use it.",
            hint,
        )
    if not data.has_val_folder and data.fingerprint != card.data.get("fingerprint"):
        unreadable = find_unreadable(data.val)
        data = replace(
            data, val=tuple(sample for sample in data.val if sample.path not in unreadable)
        )
    return data


def golden_photos(data: ImageFolders, count: int) -> list[Path]:
    """``count`` validation photos, one class after the other in turn."""
    by_class: list[list[Path]] = [[] for _ in data.classes]
    for sample in data.val:
        by_class[sample.label].append(sample.path)
    turns = sorted(
        (turn, label, path)
        for label, paths in enumerate(by_class)
        for turn, path in enumerate(paths)
    )
    return [path for _, _, path in turns[:count]]


def calibration_photos(data: ImageFolders, count: int) -> list[Path]:
    """``count`` training photos drawn evenly at random, the same ones each time; training left out the unreadable ones, too."""
    paths = [sample.path for sample in data.train]
    random.Random(0).shuffle(paths)
    return list(islice((path for path in paths if _is_readable(path)), count))


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageError:
        return False
    return True
