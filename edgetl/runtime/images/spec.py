"""The preprocessing contract, version 1: what happens between decoding and the network.

Training's validation transform, the exported models, the predictor and the manifest all use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from edgetl.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray  # takes a millisecond at start

SPEC_VERSION = 1
_MAX_LENGTH = 65_536  # pixels of a side; more is surely a mistake

Resize = Literal["squash", "shorter_side"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class PreprocessSpec:
    """From a decoded RGB photo (uint8 [H, W, 3]) to the network's input (float32 [3, h, w]).

    resize         "squash": straight to ``size``, aspect ignored; "shorter_side": aspect kept
    size           (height, width) in pixels for "squash"; one number of pixels for "shorter_side"
    interpolation  "bilinear" or "bicubic" (a = -0.5), antialiased
    crop           centre crop (height, width) in pixels after the resize, or None
    mean, std      per channel R, G, B, for pixels scaled to 0..1

    Raises SpecError for a value that can't be used.
    """

    resize: Resize
    size: int | tuple[int, int]
    interpolation: Interpolation
    crop: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        _require_version(self.version)
        _require(self.resize in get_args(Resize), "resize", self.resize, "squash or shorter_side")
        known = self.interpolation in get_args(Interpolation)
        _require(known, "interpolation", self.interpolation, "bilinear or bicubic")
        pair = "(height, width) of whole numbers from 1 to 65,536"
        if self.resize == "squash":
            _require(_is_pair(self.size), "size", self.size, f"{pair} when resize is squash")
        else:
            number = "one whole number from 1 to 65,536 when resize is shorter_side"
            _require(_is_length(self.size), "size", self.size, number)
        if self.crop is not None:
            _require(_is_pair(self.crop), "crop", self.crop, f"{pair}, or none")
            height, width = self.size if isinstance(self.size, tuple) else (self.size, self.size)
            fits = self.crop[0] <= height and self.crop[1] <= width
            _require(fits, "crop", self.crop, "no larger than the smallest resized photo")
        _require(_is_triple(self.mean), "mean", self.mean, "three finite numbers")
        positive = _is_triple(self.std) and min(self.std) > 0
        _require(positive, "std", self.std, "three finite numbers above 0")

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a photo of ``height`` × ``width`` after the resize.

        The same as torchvision's.
        """
        if isinstance(self.size, tuple):
            return self.size
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size

    def crop_origin(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the centre crop in a resized photo of ``height`` × ``width``.

        Rounds half to even.
        """
        if self.crop is None:
            return 0, 0
        return round((height - self.crop[0]) / 2.0), round((width - self.crop[1]) / 2.0)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the network's input for a photo of ``height`` × ``width``."""
        return self.crop or self.resized_size(height, width)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's input if it is the same for every photo, else None."""
        return self.crop or (self.size if isinstance(self.size, tuple) else None)

    @property
    def input_size(self) -> tuple[int, int]:
        """``fixed_size``, of a spec that has one, as that of every backbone does."""
        assert self.fixed_size is not None
        return self.fixed_size

    @property
    def normalization(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(scale, bias), float32 [3] each: ``normalized = float32(pixel) * scale + bias``.

        That is (pixel / 255 − mean) / std, with the constants computed in double precision and the
        result rounded to float32 after each of the two operations.
        """
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``from_dict`` reads it back to an equal spec."""
        return {
            "version": self.version,
            "resize": self.resize,
            "size": list(self.size) if isinstance(self.size, tuple) else self.size,
            "interpolation": self.interpolation,
            "crop": list(self.crop) if self.crop else None,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessSpec:
        """Read what ``to_dict`` wrote.

        Raises SpecError for a missing, unknown or impossible value.
        """
        if not isinstance(values, Mapping):
            raise SpecError(
                f"A preprocessing description must be a JSON object, not {type(values).__name__}."
            )
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        _require_version(fields.get("version"))  # first: a later version may have other fields
        names = set(cls.__dataclass_fields__)
        if set(fields) != names:
            missing = sorted(names - set(fields)) or "nothing"
            unknown = sorted(set(fields) - names) or "nothing"
            raise SpecError(f"Preprocessing description: missing {missing}, unknown {unknown}.")
        return cls(**fields)

    def __str__(self) -> str:
        size = f"shorter side {self.size}"
        if isinstance(self.size, tuple):
            size = "×".join(map(str, self.size))
        crop = f", centre crop {self.crop[0]}×{self.crop[1]}" if self.crop else ""
        values = f"mean {list(self.mean)}, std {list(self.std)}"
        return f"{self.interpolation} resize to {size}{crop}, {values}"


def _require(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise SpecError(f"Preprocessing {name} is {value!r}; it must be {expected}.")


def _require_version(version: object) -> None:
    if version != SPEC_VERSION:
        raise SpecError(
            f"Preprocessing version {version!r} is not known; this edgetl reads version "
            f"{SPEC_VERSION}.",
            "Install a newer edgetl.",
        )


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_LENGTH


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_length, value))


def _is_triple(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e9 < value < 1e9
