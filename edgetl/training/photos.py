"""The photos of a run, before anything is decoded. Imports nothing heavy: what is wrong with them is said at once."""

from __future__ import annotations

from edgetl.training.dataset import ImageFolders, scan
from edgetl.training.layout import UNEVEN_RATIO
from edgetl.training.progress import Listener
from edgetl.training.settings import TrainSettings


def find_photos(settings: TrainSettings, listener: Listener) -> ImageFolders:
    """The data folder, told to ``listener``. Raises DataError for one that can't be trained on."""
    folders = scan(settings.data, val_fraction=settings.val_fraction)
    listener.found(folders)
    return folders


def warn_about(folders: ImageFolders, settings: TrainSettings, listener: Listener) -> None:
    """Tell ``listener`` what is odd about the photos."""
    for sentence in folders.warnings:
        listener.note(sentence)
    counts = folders.train_counts
    if max(counts) >= UNEVEN_RATIO * min(counts) and not (settings.class_weights or settings.balanced):
        few, many = (folders.classes[counts.index(pick(counts))] for pick in (min, max))
        listener.note(
            f"Classes are uneven: {max(counts) / min(counts):.2g} times as many photos of {many} as of {few}. "
            "--class-weights (or --balanced, where the network is trained) makes rare classes count as much."
        )
