"""The module's resize is the contract's, as the slow reference has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers import resize_oracle, tiny_bundle
from helpers.web_folder import Node

from edgetl.runtime.images.spec import PreprocessSpec

UNCROPPED = replace(tiny_bundle.CROPPED, size=9, interpolation="bilinear", crop=None)
WIDE = replace(tiny_bundle.CROPPED, size=(40, 56), resize="squash", crop=(31, 48))
SPECS = (tiny_bundle.CROPPED, tiny_bundle.SQUASHED, UNCROPPED, WIDE)
SHAPES = ((30, 40), (61, 30), (12, 12), (8, 10), (1, 7), (7, 1), (3, 200), (150, 151), (40, 56))


def request(folder: Path, pixels: np.ndarray, spec: PreprocessSpec, **more: Any) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    file = folder / f"{height}x{width}"
    file.write_bytes(pixels.tobytes())
    size = {"height": height, "width": width}
    return {"do": "resize", "file": str(file), **size, "spec": spec.to_dict(), **more}


def test_resized_pixels_are_the_contracts(node: Node, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    # Extremes overshoot between bicubic's negative weights, and are clipped.
    pictures.append(
        np.kron(rng.integers(0, 2, (15, 20, 3)), np.full((3, 3, 1), 255)).astype(np.uint8)
    )
    cases = [(pixels, spec) for spec in SPECS for pixels in pictures]
    found = node(*(request(tmp_path, *case) for case in cases))
    for (pixels, spec), got in zip(cases, found, strict=True):
        expected = resize_oracle.resize(pixels, spec)
        assert (got["height"], got["width"]) == expected.shape[:2]
        different = np.count_nonzero(np.reshape(got["data"], expected.shape) != expected)
        assert different == 0, (pixels.shape, spec)


def test_long_thin_photos_are_refused(node: Node, tmp_path: Path) -> None:
    thin = np.zeros((1, 5000, 3), np.uint8)
    refused, taken = node(
        request(tmp_path, thin, tiny_bundle.CROPPED, maxPixels=719_999),
        request(tmp_path, thin, tiny_bundle.CROPPED, maxPixels=720_000),
    )
    assert "resizing 5000×1 takes 720000 pixels; the limit is 719999" in refused["error"]["message"]
    assert (taken["height"], taken["width"]) == (8, 8)
