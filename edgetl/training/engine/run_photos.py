"""The photos of a run, before any is decoded.

Imports nothing heavy: these errors are raised before torch is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.data.image_folder import ImageFolders, require_readable_val, scan
from edgetl.data.layout import UNEVEN_RATIO
from edgetl.errors import DataError, TrainingError
from edgetl.training.config.listener import Listener
from edgetl.training.config.option import flag
from edgetl.training.config.run_folder import refuse_photos_folder
from edgetl.training.config.settings import TrainSettings
from edgetl.training.head.feature_cache import cache_folder

if TYPE_CHECKING:
    from edgetl.training.torch_env.distributed import Processes


def refuse_among_photos(folder: Path, settings: TrainSettings) -> None:
    """Raise CheckpointError if the run folder or the feature cache is inside the photos' folder."""
    refuse_photos_folder(folder, settings.data)
    if (cache := cache_folder(settings.feature_cache)) is not None:
        refuse_photos_folder(cache, settings.data, flag("feature_cache"))


def find_photos(settings: TrainSettings, listener: Listener) -> ImageFolders:
    """Scan the data folder or list. Raises DataError for one that can't be trained on."""
    folders = scan(settings.source, val_fraction=settings.val_fraction)
    require_readable_val(folders)
    listener.photos_found(folders)
    return folders


def require_same_photos(folders: ImageFolders, processes: Processes) -> None:
    """Raise DataError if processes see different photos: they would wait for batches of others."""
    if len(set(processes.all_gather(folders.fingerprint))) > 1:
        raise DataError(
            f"The processes do not see the same photos in {folders.root}.",
            "Give each machine the same folder, or a complete copy.",
        )


def require_unchanged_photos(fingerprint: str, folders: ImageFolders) -> None:
    """Raise TrainingError if the photos are not those with which the run began."""
    if folders.fingerprint != fingerprint:
        raise TrainingError(
            f"The photos in {folders.root} have changed since the run began.",
            "Put them back, or start again with --overwrite.",
        )


def note_warnings(folders: ImageFolders, listener: Listener) -> None:
    """Note what is odd about the photos. A run's listener passes each sentence on once."""
    for sentence in folders.warnings:
        listener.note(sentence)


def warn_about(folders: ImageFolders, settings: TrainSettings, listener: Listener) -> None:
    """``note_warnings``, and that the classes are uneven where no option makes up for it."""
    note_warnings(folders, listener)
    counts = folders.train_counts
    if max(counts) >= UNEVEN_RATIO * min(counts) and not (
        settings.class_weights or settings.balanced
    ):
        few, many = (folders.classes[counts.index(pick(counts))] for pick in (min, max))
        times = max(counts) / min(counts)
        listener.note(
            f"Classes are uneven: {times:,.{0 if times >= 10 else 1}f} times as many photos of "
            f"{many} as of {few}. --class-weights (or --balanced, where the network is trained) "
            "makes rare classes count as much."
        )
