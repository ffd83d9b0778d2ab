"""Names the likely cause of a difference: makes the usual mistakes, and compares their values.

A mistake is named only where it explains a runtime's values much better than the reference does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.parity.stages import Stages
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.probability_tolerances import PROBABILITY_TOLERANCES, logits_limit
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec

Suspect = tuple[str, NDArray[Any]]
"""(a mistake in words, the values that it gives)"""

_EXPLAINS = 0.25  # an explanation leaves at most this share of the mean difference
_ANOTHER_SHAPE = 4.0  # mean difference, in gray levels, that stands for a wrong shape
_SAME_NORMALIZED = 1e-4
_SAME_LOGITS = 1e-3


def explain(stage: str, reference: Stages, found: Stages, card: ModelCard) -> str:
    """The likely cause of a difference that starts at ``stage``, for one photo; empty if none fits.

    card  the model card of the reference
    """
    expected, got = reference.at(stage), found.at(stage)
    if expected is None or got is None or not np.isfinite(got).all():
        return ""
    if stage == "decoded":
        return _best(_wrong_decodings(expected), expected, got)
    if stage == "resized":
        return _resized(reference, got, card.spec)
    if expected.shape != got.shape:
        return ""
    if stage == "normalized":
        return _normalized(reference, got, card.spec)
    if stage == "logits":
        return _logits(expected, got, card)
    if stage == "embedding":
        return "the answers agree, so the score's mean or projection differs"
    if stage == "ood_score":
        return "the embedding agrees, so the score's centres, means or spreads differ"
    if stage == "evidence":
        return "the logits agree, so the evidence has other weights, or other places"
    return _probabilities(reference, found, got, card.temperature)


def _best(suspects: Iterator[Suspect], expected: NDArray[Any], got: NDArray[Any]) -> str:
    """The mistake whose values are closest to ``got``, if they are close enough."""
    fitting = (suspect for suspect in suspects if suspect[1].shape == got.shape)
    distances = [(_mean_distance(values, got), mistake) for mistake, values in fitting]
    distance, mistake = min(distances, default=(np.inf, ""))
    same_shape = expected.shape == got.shape
    unexplained = _mean_distance(expected, got) if same_shape else _ANOTHER_SHAPE
    return mistake if distance <= _EXPLAINS * unexplained else ""


def _mean_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())


def _wrong_decodings(pixels: NDArray[Any]) -> Iterator[Suspect]:
    orientation = "the photo is turned or mirrored (EXIF orientation not applied, or applied twice)"
    for picture in (pixels, pixels.transpose(1, 0, 2)):
        for view in (picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1]):
            yield orientation, view
    yield "red and blue are swapped (BGR)", pixels[:, :, ::-1]


def _resized(reference: Stages, got: NDArray[Any], spec: PreprocessSpec) -> str:
    if reference.decoded is None or reference.resized is None:
        return ""
    suspects = _wrong_resizes(reference.decoded, reference.resized, spec)
    mistake = _best(suspects, reference.resized, got)
    if mistake or got.shape != reference.resized.shape:
        return mistake
    if int(np.abs(got.astype(np.int16) - reference.resized).max()) == 1:
        return "the resize rounds differently: it runs in floating point or in reduced precision"
    return ""


def _wrong_resizes(
    pixels: NDArray[Any], resized: NDArray[Any], spec: PreprocessSpec
) -> Iterator[Suspect]:
    image = Image.fromarray(pixels)
    yield "red and blue are swapped (BGR)", resized[:, :, ::-1]
    bilinear = spec.interpolation == "bilinear"
    other = replace(spec, interpolation="bicubic" if bilinear else "bilinear")
    mistake = f"it was resized {other.interpolation} instead of {spec.interpolation}"
    yield mistake, resize_image(image, other)
    mistake = "the vertical pass of the resize ran before the horizontal one"
    yield mistake, _vertical_first(image, spec)
    yield "it was resized without antialiasing", _without_antialias(pixels, spec)
    yield from _moved_crops(image, spec)


def _vertical_first(image: Image.Image, spec: PreprocessSpec) -> NDArray[Any]:
    """Resize the transposed picture, and transpose the result."""
    size = spec.size[::-1] if isinstance(spec.size, tuple) else spec.size
    transposed = replace(spec, size=size, crop=spec.crop[::-1] if spec.crop else None)
    return resize_image(image.transpose(Image.Transpose.TRANSPOSE), transposed).transpose(1, 0, 2)


def _without_antialias(pixels: NDArray[Any], spec: PreprocessSpec) -> NDArray[Any]:
    """Interpolate between the four nearest pixels, even where the picture shrinks a lot."""
    height, width = pixels.shape[:2]
    target = spec.resized_size(height, width)
    values = pixels.astype(np.float64)
    for axis, (length, wanted) in enumerate(zip((height, width), target, strict=True)):
        centres = ((np.arange(wanted) + 0.5) * length / wanted - 0.5).clip(0, length - 1)
        low = np.floor(centres).astype(int)
        share = (centres - low).reshape(-1, *[1] * (2 - axis))
        upper = np.take(values, np.minimum(low + 1, length - 1), axis)
        values = np.take(values, low, axis) * (1 - share) + upper * share
    top, left = spec.crop_origin(*target)
    crop_height, crop_width = spec.output_size(height, width)
    return np.round(values[top : top + crop_height, left : left + crop_width])


def _moved_crops(image: Image.Image, spec: PreprocessSpec) -> Iterator[Suspect]:
    if spec.crop is None:
        return
    whole = resize_image(image, replace(spec, crop=None))
    top, left = spec.crop_origin(*whole.shape[:2])
    height, width = spec.crop
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1)):
        if top + down >= 0 and left + right >= 0:
            moved = whole[top + down : top + down + height, left + right : left + right + width]
            yield f"the crop starts {down:+d} pixel down and {right:+d} to the right", moved


def _normalized(reference: Stages, got: NDArray[Any], spec: PreprocessSpec) -> str:
    """Normalizing is linear in each channel, so that mean and std can be fitted to the values."""
    if reference.resized is None:
        return ""
    pixels = reference.resized.transpose(2, 0, 1).reshape(3, -1).astype(np.float64)
    values = got.reshape(3, -1).astype(np.float64)
    for order, swapped in (([0, 1, 2], ""), ([2, 1, 0], "red and blue are swapped (BGR), and ")):
        lines = _fit_lines(pixels[order], values)
        if lines is None:
            continue
        std = 1.0 / (255.0 * lines[:, 0])
        mean = -lines[:, 1] * std
        fitted, expected = np.array([mean, std]), np.array([spec.mean, spec.std])
        if not swapped and np.allclose(fitted, expected, atol=1e-4):
            return ""  # mean and std are right; what differs is rounding
        means, stds = (", ".join(f"{value:.4g}" for value in numbers) for numbers in fitted)
        return f"{swapped}it was normalized with mean [{means}] and std [{stds}] for pixels of 0..1"
    return ""


def _fit_lines(pixels: NDArray[Any], values: NDArray[Any]) -> NDArray[Any] | None:
    """(slope, intercept) of each row of ``values`` over ``pixels``, [3, 2]; None if not linear."""
    if pixels.std(axis=1).min() < 1:
        return None
    lines = np.array([np.polyfit(x, y, 1) for x, y in zip(pixels, values, strict=True)])
    off = np.abs(pixels * lines[:, :1] + lines[:, 1:] - values).max()
    return lines if off < _SAME_NORMALIZED and np.abs(lines[:, 0]).min() > 0 else None


def _logits(expected: NDArray[Any], got: NDArray[Any], card: ModelCard) -> str:
    off = float(np.abs(expected - got).max())
    if off <= logits_limit(PROBABILITY_TOLERANCES["fp32"], card.temperature, expected):
        return "rounding: sums in another order; the tolerance is tighter than float32 allows"
    if np.abs(np.sort(expected) - np.sort(got)).max() <= min(_SAME_LOGITS, _EXPLAINS * off):
        return "the outputs are in another order"
    return "the network sees the same input, so its weights or its operators differ"


def _probabilities(reference: Stages, found: Stages, got: NDArray[Any], temperature: float) -> str:
    logits = found.logits if found.logits is not None else reference.logits
    if logits is None or reference.probabilities is None:
        return ""
    right = _softmax(logits / temperature)
    suspects: list[Suspect] = [
        ("softmax was applied twice", _softmax(right)),
        ("softmax was left out", logits),
        ("softmax was left out, the temperature was not", logits / temperature),
        ("sigmoid was applied in place of softmax", 1 / (1 + np.exp(-np.clip(logits, -80, 80)))),
    ]
    mistake = _best(iter(suspects), reference.probabilities, got)
    if mistake or got.min() <= 0:
        return mistake
    slope, intercept = np.polyfit(logits.astype(np.float64), np.log(got.astype(np.float64)), 1)
    off = np.abs(slope * logits + intercept - np.log(got)).max()
    fits = off < _SAME_LOGITS and slope > 0
    return f"the temperature is {1 / slope:.4g} instead of {temperature:.4g}" if fits else ""


def _softmax(values: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
