"""The photos included in a bundle, and the trained network's own answers for them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ExportError, ImageError
from edgetl.exporting.formats.deployed_classifier import STAGE_TENSORS, DeployedClassifier
from edgetl.exporting.photo_selection import OTHER_GOLDEN
from edgetl.runtime.bundle.bundle_folder import pixels_sha256
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import (
    ANSWERS,
    EMBEDDING,
    NORMALIZED,
    OOD_SCORE,
    SCORES,
)
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.heif import is_heif

_EMBEDDING_DIGITS = 6
SYNTHETIC_SIZES = ((48, 64), (131, 70), (1, 9))  # height, width in pixels: wide, tall, tiny


@dataclass(frozen=True)
class GoldenReference:
    """One photo and its results in eager torch.

    source         how messages name it
    pixels         uint8 [H, W, 3]
    resized        uint8 [h, w, 3]
    logits, probabilities  float32 [classes]
    ood_score, embedding   float32 [] and [dimensions]; None where the model has no score
    """

    source: str
    pixels: NDArray[np.uint8]
    resized: NDArray[np.uint8]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    ood_score: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None

    def manifest_entry(self, file: str) -> dict[str, Any]:
        """The manifest's entry for this photo, which is ``file`` in the bundle."""
        return {
            "file": file,
            "source": self.source,
            "decoded_sha256": pixels_sha256(self.pixels),
            "resized_sha256": pixels_sha256(self.resized),
            **answer_entry(vars(self)),
        }


def answer_entry(values: Mapping[str, NDArray[Any] | None]) -> dict[str, Any]:
    """The manifest's values of one photo's outputs, of those that the model has."""
    entry = {}
    for name in (*ANSWERS, *SCORES):
        if (value := values.get(name)) is not None:
            entry[name] = value.astype(float).tolist()
    if EMBEDDING in entry:  # a hundredth of what may differ, and half of the file's size
        entry[EMBEDDING] = [round(value, _EMBEDDING_DIGITS) for value in entry[EMBEDDING]]
    return entry


def unknown_agreement(
    entries: Sequence[Mapping[str, Any]], precision: str, card: ModelCard
) -> float | None:
    """The share of photos that ``precision`` and the network both take for unknown, or both don't.

    entries  of the manifest, with the answers of ``precision``

    None without photos, or where the model can't tell.
    """
    if card.unknown is None or not entries:
        return None
    scores = [(entry[OOD_SCORE], entry["own_answers"][precision][OOD_SCORE]) for entry in entries]
    is_unknown = card.unknown.is_unknown(scores)
    return float((is_unknown[:, 0] == is_unknown[:, 1]).mean())


def photo_references(
    classifier: DeployedClassifier, photos: Sequence[Path]
) -> list[GoldenReference]:
    """One reference per photo, named by its folder and file.

    Raises ExportError for a photo that can't be read.
    """
    try:
        pictures = [np.asarray(read_image(path)) for path in photos]
    except ImageError as error:
        raise ExportError(f"A golden photo can't be used: {error.message}", OTHER_GOLDEN) from error
    return [
        _reference(classifier, f"{path.parent.name}/{path.name}", pixels)
        for path, pixels in zip(photos, pictures, strict=True)
    ]


def golden_file(path: Path, reference: GoldenReference) -> tuple[str, bytes]:
    """The suffix and the content of a photo's file in the bundle: ``path`` as it is.

    HEIC is stored as PNG, since the device may have no decoder for it.
    """
    content = path.read_bytes()
    if not is_heif(content):
        return path.suffix.lower(), content
    buffer = io.BytesIO()
    Image.fromarray(reference.pixels).save(buffer, "PNG")
    return ".png", buffer.getvalue()


def synthetic_references(classifier: DeployedClassifier) -> list[GoldenReference]:
    """References for pictures of noise, in sizes that photos seldom have."""
    rng = np.random.default_rng(0)
    references = []
    for height, width in SYNTHETIC_SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        references.append(_reference(classifier, f"noise {height}×{width}", pixels))
    return references


def _reference(
    classifier: DeployedClassifier, source: str, pixels: NDArray[np.uint8]
) -> GoldenReference:
    with torch.inference_mode():
        images = torch.from_numpy(pixels.copy())[None]
        stages = classifier.stages(images)  # with a score, there are two more
    values = {name: rows[0].numpy() for name, rows in zip(STAGE_TENSORS, stages, strict=False)}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise ExportError(
            f"The trained network's answer for {source} is not finite.",
            "Train again with a lower learning rate.",
        )
    del values[NORMALIZED]
    return GoldenReference(source, pixels, **values)
