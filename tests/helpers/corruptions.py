"""Photos as a worse camera would take them: corruptions of ImageNet-C, at severity 3 of 5.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", 2019. The strengths are theirs for photos of 224 pixels; lengths scale with the
photo's shorter side. Darkness is not among theirs: it is their brightness, with the other sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 224  # pixels of the photos that the strengths are meant for


def _gaussian_noise(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(photo) / 255
    return _image(values + rng.normal(0, 0.18, values.shape))


def _shot_noise(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _image(rng.poisson(np.asarray(photo) / 255 * 12) / 12)


def _defocus_blur(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    radius = 6 * min(photo.size) / _SIDE
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _image(_convolve(photo, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)))


def _motion_blur(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale, angle = min(photo.size) / _SIDE, rng.uniform(-np.pi / 4, np.pi / 4)
    reach = int(np.ceil(15 * scale)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-((along / (8 * scale)) ** 2) / 2) * np.clip(1 - np.abs(beside), 0, 1)
    return _image(_convolve(photo, kernel * (along >= 0)))


def _brightness(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    return _with_value(photo, 0.3)


def _darkness(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    return _with_value(photo, -0.3)


def _contrast(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    values = np.asarray(photo) / 255
    mean = values.mean((0, 1), keepdims=True)
    return _image((values - mean) * 0.2 + mean)


def _jpeg(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    file = BytesIO()
    photo.save(file, "JPEG", quality=15)
    return Image.open(file).convert("RGB")


def _pixelate(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    small = [max(1, int(side * 0.4)) for side in photo.size]
    return photo.resize((small[0], small[1]), Image.Resampling.BOX).resize(
        photo.size, Image.Resampling.BOX
    )


CORRUPTIONS: Mapping[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "defocus blur": _defocus_blur,
    "motion blur": _motion_blur,
    "brightness": _brightness,
    "darkness": _darkness,
    "contrast": _contrast,
    "JPEG": _jpeg,
    "pixelate": _pixelate,
}
"""Name → a function of an RGB photo and a source of chance."""


def _with_value(photo: Image.Image, change: float) -> Image.Image:
    """Add to the value of HSV, 0..1: the largest of a pixel's channels; hue and saturation stay."""
    values = np.asarray(photo) / 255
    largest = values.max(2, keepdims=True)
    wanted = np.clip(largest + change, 0, 1)
    return _image(np.where(largest > 0, values / np.maximum(largest, 1e-9) * wanted, wanted))


def _convolve(photo: Image.Image, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """``photo`` in 0..1, convolved with a square ``kernel`` of odd size; edges are repeated."""
    reach = len(kernel) // 2
    values = np.pad(np.asarray(photo) / 255, ((reach, reach), (reach, reach), (0, 0)), "edge")
    shape = values.shape[:2]
    spectrum = np.fft.rfft2(values, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel / kernel.sum(), shape)[..., np.newaxis]
    return np.fft.irfft2(spectrum, shape, axes=(0, 1))[2 * reach :, 2 * reach :]


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
