"""Photos for an export, chosen from the data that its run was trained on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.errors import DataError, ExportError, ImageError
from edgetl.runtime.images.decode import read_image

if TYPE_CHECKING:
    from edgetl.data.image_folder import ImageFolders
    from edgetl.runtime.bundle.model_card import ModelCard

OTHER_GOLDEN = "Give other photos with --golden DIR, or leave them out with --golden 0."


def run_data(settings: Mapping[str, Any], card: ModelCard, purpose: str, hint: str) -> ImageFolders:
    """The data of a run, scanned again, without validation photos that the run left out.

    That of an imported network is the one that its accuracy was measured on, if any.

    purpose  what needs it, in the plural, for messages

    Raises ExportError, with ``hint``, if the settings don't name its data, if they are gone, or
    if they now have other classes than ``card``.
    """
    from edgetl.data.image_folder import ImageFolders, find_unreadable, scan
    from edgetl.data.photo_source import PhotoSource
    from edgetl.evaluation.true_labels import labelled_samples

    options = settings.get("columns"), settings.get("root")
    try:
        if images := settings.get("images"):  # of an imported network: all there is
            val = labelled_samples(images, card.labels, *options)
            root = PhotoSource.at(images, *options).folder
            return ImageFolders(root, card.labels, (), val)
        source = PhotoSource.at(settings["data"], *options)
        data = scan(source, val_fraction=settings["val_fraction"])
    except KeyError as error:
        raise ExportError(
            f"The run does not name the data it was trained on, which {purpose} need.", hint
        ) from error
    except DataError as error:
        raise ExportError(
            f"{purpose[0].upper()}{purpose[1:]} need the run's data: {error.message}", hint
        ) from error
    if data.classes != card.labels:  # then their indices are not those of the network's outputs
        raise ExportError(
            f"{data.root} has other classes than the run was trained on, "
            f"so {purpose} can't use it.",
            hint,
        )
    if not data.has_val_folder and "columns" not in settings:  # a run of before there were lists
        data = _split_as_before(data, settings["val_fraction"])
    if not data.has_val_folder and data.fingerprint != card.data.get("fingerprint"):
        unreadable = find_unreadable(data.val)
        val = tuple(sample for sample in data.val if sample.path not in unreadable)
        data = replace(data, val=val)
    return data


def _split_as_before(data: ImageFolders, val_fraction: float) -> ImageFolders:
    """``data``, split as runs did before the split by rank.

    They validated on the photos whose digest is below the share, and moved the nearest one of a
    class that would have had none in a part.
    """
    photos = sorted(data.train + data.val, key=lambda sample: (sample.label, sample.path))
    classes: list[set[str]] = [set() for _ in data.classes]
    for sample in photos:
        classes[sample.label].add(sample.digest)
    limit = val_fraction * 2**64
    val = {digest for digest in chain(*classes) if int(digest[:16], 16) < limit}
    for digests in classes:
        if digests <= val:
            val.remove(max(digests))
    for digests in classes:
        if len(digests) > 1 and val.isdisjoint(digests):
            movable = (
                digest
                for digest in sorted(digests)
                if all(other - val - {digest} for other in classes if digest in other)
            )
            val.update(islice(movable, 1))
    train, validated = (
        tuple(sample for sample in photos if (sample.digest in val) == chosen)
        for chosen in (False, True)
    )
    return replace(data, train=train, val=validated)


def golden_photos(data: ImageFolders, count: int) -> list[Path]:
    """``count`` validation photos: the first of each class, then the second of each, and so on."""
    by_class: list[list[Path]] = [[] for _ in data.classes]
    for sample in data.val:
        by_class[sample.label].append(sample.path)
    ranked = sorted(
        (rank, label, path)
        for label, paths in enumerate(by_class)
        for rank, path in enumerate(paths)
    )
    return [path for _, _, path in ranked[:count]]


def calibration_photos(photos: Sequence[Path], count: int) -> list[Path]:
    """``count`` readable ``photos``, drawn uniformly at random, always the same ones."""
    paths = list(photos)
    random.Random(0).shuffle(paths)
    return list(islice((path for path in paths if why_unreadable(path) is None), count))


def why_unreadable(path: Path) -> str | None:
    """Why a photo can't be decoded, or None if it can."""
    try:
        read_image(path)
    except ImageError as error:
        return error.reason
    return None
