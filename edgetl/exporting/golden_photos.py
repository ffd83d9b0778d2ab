"""The photos included in a bundle, and the trained network's own answers for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ExportError, ImageError
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.photo_selection import OTHER_GOLDEN
from edgetl.runtime.bundle.bundle_folder import pixels_sha256
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.heif import is_heif

SYNTHETIC_SIZES = ((48, 64), (131, 70), (1, 9))  # height, width in pixels: wide, tall, tiny


@dataclass(frozen=True)
class GoldenReference:
    """One photo and its results in eager torch.

    source         how messages name it
    pixels         uint8 [H, W, 3]
    resized        uint8 [h, w, 3]
    logits, probabilities  float32 [classes]
    """

    source: str
    pixels: NDArray[np.uint8]
    resized: NDArray[np.uint8]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def manifest_entry(self, file: str) -> dict[str, Any]:
        """The manifest's entry for this photo, which is ``file`` in the bundle."""
        return {
            "file": file,
            "source": self.source,
            "decoded_sha256": pixels_sha256(self.pixels),
            "resized_sha256": pixels_sha256(self.resized),
            "logits": self.logits.astype(float).tolist(),
            "probabilities": self.probabilities.astype(float).tolist(),
        }


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
        resized, _, logits, probabilities = classifier.stages(torch.from_numpy(pixels.copy())[None])
    if not torch.isfinite(logits).all():
        raise ExportError(
            f"The trained network's answer for {source} is not finite.",
            "Train again with a lower learning rate.",
        )
    return GoldenReference(
        source, pixels, resized[0].numpy(), logits[0].numpy(), probabilities[0].numpy()
    )
