"""A slow, plain implementation of the preprocessing contract, version 1: the tests' reference.

Weights are Python floats (IEEE doubles), computed one at a time; sums are integers. Nothing here is
shared with edgetl, so that a mistake there can't hide in its own test.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FRACTION_BITS = 22


def bilinear(x: float) -> float:
    x = abs(x)
    return 1.0 - x if x < 1.0 else 0.0


def bicubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


FILTERS = {"bilinear": (bilinear, 1.0), "bicubic": (bicubic, 2.0)}


def taps(length: int, target: int, position: int, interpolation: str) -> tuple[int, list[int]]:
    """(first source index, integer weights from there) of one output, ``length`` → ``target``."""
    kernel, support = FILTERS[interpolation]
    scale = length / target
    filter_scale = max(scale, 1.0)
    support *= filter_scale
    centre = (position + 0.5) * scale
    first = max(int(centre - support + 0.5), 0)
    end = min(int(centre + support + 0.5), length)
    weights = [kernel((x - centre + 0.5) * (1.0 / filter_scale)) for x in range(first, end)]
    total = 0.0
    for weight in weights:
        total += weight
    fixed = []
    for weight in weights:
        scaled = weight / total * 2**FRACTION_BITS
        fixed.append(int(scaled + 0.5) if scaled >= 0 else int(scaled - 0.5))  # int() truncates
    return first, fixed


def resize_rows(pixels: np.ndarray, target: int, interpolation: str) -> np.ndarray:
    """uint8 [n, ...] → uint8 [target, ...] along the first axis; unchanged if n is ``target``."""
    if len(pixels) == target:
        return pixels
    found = [taps(len(pixels), target, position, interpolation) for position in range(target)]
    firsts = np.array([first for first, _ in found])
    weights = np.zeros((target, max(len(its) for _, its in found)), np.int64)
    for position, (_, its) in enumerate(found):
        weights[position, : len(its)] = its  # and 0 after its last tap
    rows = pixels.astype(np.int64)
    total = np.full((target, *rows.shape[1:]), 2 ** (FRACTION_BITS - 1), np.int64)
    for offset in range(weights.shape[1]):
        weight = weights[:, offset].reshape(-1, *[1] * (rows.ndim - 1))
        total += rows[np.minimum(firsts + offset, len(rows) - 1)] * weight
    return np.clip(total >> FRACTION_BITS, 0, 255).astype(np.uint8)


def target_size(spec: Any, height: int, width: int) -> tuple[int, int]:
    """(height, width) after the resize and before the crop."""
    if spec.resize == "squash":
        return spec.size[0], spec.size[1]
    short, long = min(height, width), max(height, width)
    longer = int(spec.size * long / short)
    return (spec.size, longer) if height <= width else (longer, spec.size)


def resize(pixels: np.ndarray, spec: Any) -> np.ndarray:
    """uint8 [H, W, 3] → uint8 [h, w, 3]: horizontal, then vertical, then the centre crop."""
    height, width = target_size(spec, pixels.shape[0], pixels.shape[1])
    across = resize_rows(pixels.swapaxes(0, 1), width, spec.interpolation).swapaxes(0, 1)
    down = resize_rows(across, height, spec.interpolation)
    if spec.crop is None:
        return np.ascontiguousarray(down)
    crop_height, crop_width = spec.crop
    top, left = int(round((height - crop_height) / 2.0)), int(round((width - crop_width) / 2.0))  # noqa: RUF046
    return np.ascontiguousarray(down[top : top + crop_height, left : left + crop_width])
