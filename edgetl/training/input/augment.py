"""Random views of training photos: whole batches on the device in one warp."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetl.runtime.images.resize import normalization
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.settings import TrainSettings
from edgetl.training.models.backbones import input_size
from edgetl.training.torch_env.randomness import WARP, numpy_generator

_TRIES = 10  # shapes drawn until one fits into the photo, as torchvision does
_ANGLE, _FLIP, _LEFT, _TOP, _COLOUR, _SHAPES = 0, 1, 2, 3, 4, 7  # columns of the random numbers
_COLUMNS = _SHAPES + 2 * _TRIES
_GREY = (0.299, 0.587, 0.114)  # what the eye makes of R, G, B


@dataclass(frozen=True)
class View:
    """What may be done to a training photo; see the options of the same names.

    whole  cut-outs have the photo's aspect, but for ``ratio``, as validation squashes it whole; else a square's
    """

    size: tuple[int, int]
    flip: bool
    rotation: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    colour: float
    whole: bool = False

    @classmethod
    def of(cls, settings: TrainSettings, spec: PreprocessSpec) -> View:
        """What ``settings`` ask for, at the size that ``spec`` gives to the network."""
        whole = (
            spec.resize == "squash" and settings.resize != "squash"
        )  # who asks for squares gets torchvision's cut-outs
        size = input_size(spec)
        return cls(
            size,
            settings.flip,
            settings.rotation,
            settings.scale,
            settings.ratio,
            settings.colour,
            whole,
        )


class Normalizer:
    """uint8 or float [N, h, w, 3], 0..255 → float32 [N, 3, h, w], channels last in memory, on ``device``."""

    def __init__(self, spec: PreprocessSpec, device: torch.device) -> None:
        self._scale, self._bias = (
            torch.from_numpy(values).to(device) for values in normalization(spec)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        planes = (pixels.float() * self._scale + self._bias).permute(0, 3, 1, 2)
        return planes.contiguous(memory_format=torch.channels_last)


class BatchView:
    """Whole batches on a device: turn, mirror, cut out and resize in one affine warp, then colour."""

    def __init__(self, view: View, seed: int, photos: int) -> None:
        self._view = view
        self._seed = seed
        self._photos = photos
        self._numbers = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> NDArray[np.float32]:
        return numpy_generator(self._seed, WARP, epoch).random((self._photos, _COLUMNS), np.float32)

    def chances(
        self, epoch: int, positions: NDArray[np.int64], aspects: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What happens to these photos in this epoch, for ``__call__``: (warps, colours), float32 [n, 2, 3] and [n, 3].

        aspects  float32 [n], width / height that the photos had before they were squashed
        """
        numbers = torch.from_numpy(self._numbers(epoch)[positions])
        # Here, in the processor's memory, since a GPU would be given a hundred tiny things to do.
        return _affine(self._view, aspects, numbers), numbers[:, _COLOUR : _COLOUR + 3].contiguous()

    def __call__(self, pixels: Tensor, warps: Tensor, colours: Tensor) -> Tensor:
        """Cut views out of photos.

        pixels   uint8 [N, S, S', 3], photos squashed to one size
        warps    float32 [N, 2, 3] from ``chances``, on the same device
        colours  float32 [N, 3], likewise
        → float32 [N, h, w, 3], 0..255
        """
        view = self._view
        grid = F.affine_grid(warps, [len(pixels), 3, *view.size], align_corners=False)
        images = pixels.permute(0, 3, 1, 2).float()
        # Beyond the edge the photo is mirrored: black corners would be something to learn.
        images = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
        if view.colour:
            images = _coloured(images, view.colour, colours)
        return images.permute(0, 2, 3, 1)


def _affine(view: View, aspects: Tensor, numbers: Tensor) -> Tensor:
    """float32 [N, 2, 3]: from a place in the view to the place in the squashed photo, both in −1..1.

    In between, lengths are in units of the photo's height, so that turning keeps right angles.
    """
    width, height = _crop(view, aspects, numbers[:, _SHAPES:])
    left = (aspects - width) * (numbers[:, _LEFT] - 0.5)
    top = (1.0 - height) * (numbers[:, _TOP] - 0.5)
    angle = torch.deg2rad((2.0 * numbers[:, _ANGLE] - 1.0) * view.rotation)
    mirror = torch.where(numbers[:, _FLIP] < 0.5, -1.0, 1.0) if view.flip else torch.ones_like(left)
    cos, sin, half, zero = torch.cos(angle), torch.sin(angle), width / 2, torch.zeros_like(left)
    in_photo = torch.stack(
        [
            torch.stack([mirror * half, zero, mirror * left], 1),
            torch.stack([zero, height / 2, top], 1),
        ],
        1,
    )
    turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1) @ in_photo
    return turned * 2.0 / torch.stack([aspects, torch.ones_like(aspects)], 1)[:, :, None]


def _crop(view: View, aspects: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(width, height) of each cut-out, in units of the photo's height: the first shape drawn that fits.

    Where none fits, the largest with an allowed aspect: torchvision's rule.
    """
    area = view.scale[0] + (view.scale[1] - view.scale[0]) * numbers[:, :_TRIES]
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    usual = aspects if view.whole else torch.ones_like(aspects)
    ratio = torch.exp(low + (high - low) * numbers[:, _TRIES:]) * usual[:, None]
    width, height = (
        torch.sqrt(area * aspects[:, None] * ratio),
        torch.sqrt(area * aspects[:, None] / ratio),
    )
    fallback = (aspects / usual).clamp(*view.ratio) * usual
    width = torch.cat([width, torch.minimum(aspects, fallback)[:, None]], 1)
    height = torch.cat(
        [height, torch.minimum(torch.ones_like(aspects), aspects / fallback)[:, None]], 1
    )
    fits = (width <= aspects[:, None]) & (height <= 1.0)
    fits[:, -1] = True
    first = fits.int().argmax(1, keepdim=True)
    return width.gather(1, first)[:, 0], height.gather(1, first)[:, 0]


def _coloured(images: Tensor, strength: float, numbers: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation, each by a factor of 1 ± strength. float32 [N, 3, h, w], 0..255."""
    brightness, contrast, saturation = ((1.0 + strength * (2.0 * numbers - 1.0)).T)[
        :, :, None, None, None
    ]
    images = (images * brightness).clamp(0, 255)
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """[N, 3, h, w] → [N, 1, h, w]. By plain numbers: a tensor of weights would have the GPU waited for."""
    red, green, blue = _GREY
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]
