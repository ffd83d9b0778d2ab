"""``unknown/`` beside ``train/`` and ``val/``: photos of nothing that the model is to know."""

from __future__ import annotations

from pathlib import Path

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.data.layout import UNKNOWN, content_digest
from edgetl.runtime.images.discovery import find_images

NO_CLASS = -1
"""The label of a photo of no class."""


def unknown_photos(folders: ImageFolders, data: Path) -> list[Sample] | None:
    """The distinct photos of the folder or store ``data``'s ``unknown/``; None without any there.

    It is a class where ``data`` is not split, as any other folder there, and left alone where one
    of the classes has its name. Photos that are trained or validated on are left out.
    """
    is_there = folders.unknown or (folders.has_val_folder and (data / UNKNOWN).is_dir())
    if not is_there or UNKNOWN in folders.classes:
        return None
    known = {sample.digest for sample in folders.train + folders.val}
    found: dict[str, Sample] = {}
    for path in folders.unknown or find_images(data / UNKNOWN):
        try:
            digest = content_digest(path)
        except OSError:  # it only judges: a photo less changes little
            continue
        if digest not in known:
            found.setdefault(digest, Sample(path, NO_CLASS, digest))
    return list(found.values())
