"""Random augmentation of training photos: whole batches on the device, in one affine warp."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.settings import TrainSettings
from edgetl.training.torch_env.randomness import WARP, numpy_generator

_TRIES = 10  # crops drawn until one fits into the photo, as torchvision does
# Columns of the random numbers; colour takes three, crops take area and ratio of each try.
_ANGLE, _FLIP, _LEFT, _TOP, _COLOUR, _CROPS = 0, 1, 2, 3, 4, 7
_COLUMNS = _CROPS + 2 * _TRIES
_GREY = (0.299, 0.587, 0.114)  # luma of R, G, B (ITU-R BT.601)


@dataclass(frozen=True)
class AugmentSettings:
    """How training photos are augmented; see the options of the same names.

    size         (height, width) of the result
    keep_aspect  ``ratio`` is relative to the photo's aspect, since validation squashes photos
                 whole; else to a square
    """

    size: tuple[int, int]
    flip: bool
    rotation: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    colour: float
    keep_aspect: bool = False

    @classmethod
    def from_settings(cls, settings: TrainSettings, spec: PreprocessSpec) -> AugmentSettings:
        """What ``settings`` ask for, at the size that ``spec`` gives to the network."""
        return cls(
            size=spec.input_size,
            flip=settings.flip,
            rotation=settings.rotation,
            scale=settings.scale,
            ratio=settings.ratio,
            colour=settings.colour,
            # With --resize squash, the user gets torchvision's crops.
            keep_aspect=spec.resize == "squash" and settings.resize != "squash",
        )


class Normalizer:
    """uint8 or float [N, h, w, 3], 0..255 → float32 [N, 3, h, w], channels last, on ``device``."""

    def __init__(self, spec: PreprocessSpec, device: torch.device) -> None:
        self._scale, self._bias = (
            torch.from_numpy(values).to(device) for values in spec.normalization
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        planes = (pixels.float() * self._scale + self._bias).permute(0, 3, 1, 2)
        return planes.contiguous(memory_format=torch.channels_last)


class BatchAugmentation:
    """Rotates, flips, crops and resizes a batch in one affine warp, then changes its colours.

    Random numbers depend on the seed, the epoch, and the photo's position in the epoch's order.
    """

    def __init__(self, settings: AugmentSettings, seed: int, photos: int) -> None:
        """photos: number of training photos."""
        self._settings = settings
        self._seed = seed
        self._photos = photos
        self._numbers = lru_cache(maxsize=2)(self._draw_epoch)

    def _draw_epoch(self, epoch: int) -> NDArray[np.float32]:
        return numpy_generator(self._seed, WARP, epoch).random((self._photos, _COLUMNS), np.float32)

    def draw(
        self, epoch: int, positions: NDArray[np.int64], aspects: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The random transforms of some photos, to be given to ``__call__``.

        positions  int64 [n], in the epoch's order
        aspects    float32 [n], width / height of the original photos
        → (warps float32 [n, 2, 3], colours float32 [n, 3]), on the CPU, which is faster than
          launching a hundred tiny kernels on a GPU
        """
        numbers = torch.from_numpy(self._numbers(epoch)[positions])
        colours = numbers[:, _COLOUR : _COLOUR + 3].contiguous()
        return _affine(self._settings, aspects, numbers), colours

    def __call__(self, pixels: Tensor, warps: Tensor, colours: Tensor) -> Tensor:
        """Augment photos.

        pixels   uint8 [N, S, S', 3], photos squashed to one size
        warps    float32 [N, 2, 3] from ``draw``, on the same device
        colours  float32 [N, 3], likewise
        → float32 [N, h, w, 3], 0..255
        """
        settings = self._settings
        grid = F.affine_grid(warps, [len(pixels), 3, *settings.size], align_corners=False)
        images = pixels.permute(0, 3, 1, 2).float()
        # Beyond its edge the photo is reflected: the network would learn from black corners.
        images = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
        if settings.colour:
            images = _jitter_colour(images, settings.colour, colours)
        return images.permute(0, 2, 3, 1)


def _affine(settings: AugmentSettings, aspects: Tensor, numbers: Tensor) -> Tensor:
    """float32 [N, 2, 3]: from coordinates in the result to those in the squashed photo, −1..1.

    In between, lengths are in units of the photo's height, so that rotation keeps right angles.
    """
    width, height = _crop(settings, aspects, numbers[:, _CROPS:])
    left = (aspects - width) * (numbers[:, _LEFT] - 0.5)
    top = (1.0 - height) * (numbers[:, _TOP] - 0.5)
    angle = torch.deg2rad((2.0 * numbers[:, _ANGLE] - 1.0) * settings.rotation)
    mirror = torch.ones_like(left)
    if settings.flip:
        mirror = torch.where(numbers[:, _FLIP] < 0.5, -1.0, 1.0)
    cos, sin, half, zero = torch.cos(angle), torch.sin(angle), width / 2, torch.zeros_like(left)
    across = torch.stack([mirror * half, zero, mirror * left], 1)
    down = torch.stack([zero, height / 2, top], 1)
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    rotated = rotation @ torch.stack([across, down], 1)
    return rotated * 2.0 / torch.stack([aspects, torch.ones_like(aspects)], 1)[:, :, None]


def _crop(settings: AugmentSettings, aspects: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(width, height) of each crop, in units of the photo's height: the first one drawn that fits.

    Where none fits, the largest with an allowed aspect. This is torchvision's RandomResizedCrop.
    """
    (smallest, largest), (low, high) = settings.scale, map(math.log, settings.ratio)
    area = smallest + (largest - smallest) * numbers[:, :_TRIES]
    base = aspects if settings.keep_aspect else torch.ones_like(aspects)
    ratio = torch.exp(low + (high - low) * numbers[:, _TRIES:]) * base[:, None]
    width = torch.sqrt(area * aspects[:, None] * ratio)
    height = torch.sqrt(area * aspects[:, None] / ratio)
    fallback = (aspects / base).clamp(*settings.ratio) * base
    fallback_height = torch.minimum(torch.ones_like(aspects), aspects / fallback)
    width = torch.cat([width, torch.minimum(aspects, fallback)[:, None]], 1)
    height = torch.cat([height, fallback_height[:, None]], 1)
    fits = (width <= aspects[:, None]) & (height <= 1.0)
    fits[:, -1] = True
    first = fits.int().argmax(1, keepdim=True)
    return width.gather(1, first)[:, 0], height.gather(1, first)[:, 0]


def _jitter_colour(images: Tensor, strength: float, numbers: Tensor) -> Tensor:
    """Change brightness, contrast, saturation, in this order, each by a factor of 1 ± strength.

    images   float32 [N, 3, h, w], 0..255
    numbers  float32 [N, 3], 0..1
    """
    factors = 1.0 + strength * (2.0 * numbers - 1.0)
    brightness, contrast, saturation = factors.T[:, :, None, None, None]
    images = (images * brightness).clamp(0, 255)
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """[N, 3, h, w] → [N, 1, h, w]. With Python floats: a tensor of weights would sync the GPU."""
    red, green, blue = _GREY
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]
