"""What a foreign file does not say: the labels, and the preprocessing that it was trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetl.errors import TrainingError
from edgetl.runtime.images.spec import SPEC_VERSION, PreprocessSpec

_NEEDED = ("size", "mean", "std")
_IMAGENET = "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"


def read_labels(labels: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Class names, in the order of the network's outputs.

    labels  the names, a text that separates them by commas, or a text file with one a line

    Raises TrainingError for a file that can't be read, and for names that are empty or repeated;
    TypeError for names that are not strings.
    """
    if isinstance(labels, (str, os.PathLike)):
        labels = [label.strip() for label in _split(labels)]
    names = tuple(labels)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("labels must be strings")
    if not names or (empty := [place for place, name in enumerate(names) if not name.strip()]):
        raise TrainingError(
            f"Label {empty[0]} is empty." if names else "There are no labels.",
            "Name every class, in the order of the network's outputs.",
        )
    if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
        raise TrainingError(
            f"The label {repeated[0]!r} is given twice.", "Each class is named once."
        )
    return names


def _split(labels: str | os.PathLike[str]) -> list[str]:
    path = Path(labels)
    # No file is looked for by a text with commas: it may be longer than a name can be.
    is_text = isinstance(labels, str) and path.suffix != ".txt"
    if is_text and ("," in os.fspath(labels) or not path.is_file()):
        return os.fspath(labels).split(",")
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise TrainingError(
            f"The labels in {path} can't be read: {reason}.",
            "Give a text file with one label a line, or the labels separated by commas.",
        ) from error


def complete_spec(
    given: PreprocessSpec | Mapping[str, Any] | None, published: PreprocessSpec | None
) -> PreprocessSpec:
    """The preprocessing that the network was trained with.

    given      all of it; or some fields of a PreprocessSpec, where a size or a crop may be one
               number for a square; the others are as published
    published  that of the architecture's own weights; None if the architecture is not named

    Raises TrainingError if something is missing, or if photos would differ in size; SpecError for a
    value that can't be used; TypeError for an unknown field.
    """
    spec = given if isinstance(given, PreprocessSpec) else _completed(dict(given or {}), published)
    if spec.fixed_size is None:
        raise TrainingError(
            "This preprocessing gives pictures of different sizes.", "Add a crop: --crop 224."
        )
    return spec


def as_published(
    spec: PreprocessSpec,
    given: PreprocessSpec | Mapping[str, Any] | None,
    published: PreprocessSpec | None,
) -> tuple[str, ...]:
    """A note about the fields of ``spec`` that were not given but are as ``published``."""
    if published is None or isinstance(given, PreprocessSpec):
        return ()
    fields, known = asdict(spec), asdict(published)
    same = (name for name in fields.keys() - (given or {}) if fields[name] == known[name])
    names = sorted({*same} - {"version"}, key=list(fields).index)
    return (f"Not given, so as published with its weights: {', '.join(names)}.",) if names else ()


def _completed(fields: dict[str, Any], published: PreprocessSpec | None) -> PreprocessSpec:
    unknown = fields.keys() - PreprocessSpec.__dataclass_fields__.keys()
    if unknown:
        raise TypeError(f"PreprocessSpec has no field {min(unknown)!r}.")
    if published is None:
        if missing := [name for name in _NEEDED if name not in fields]:
            raise TrainingError(
                f"The preprocessing is not known: its {', '.join(missing)}.",
                "Give those of the network's training, which are often --size 256 --crop 224 "
                f"{_IMAGENET}; or name an architecture with the same ones: --backbone NAME.",
            )
        resize = "shorter_side" if fields.get("crop") else "squash"
        base: dict[str, Any] = {"resize": resize, "interpolation": "bilinear", "crop": None}
    else:
        base, side = asdict(published), published.fixed_size
        if fields.get("resize", published.resize) != published.resize:  # sizes mean something else
            is_squash = fields["resize"] == "squash"
            base["size"] = fields.get("crop") or side if is_squash else min(side or ())
            base["crop"] = None if is_squash else side
    values = {"version": SPEC_VERSION, **base, **fields}
    if values["resize"] == "squash":
        values["size"] = _pair(values["size"])
    return PreprocessSpec.from_dict({**values, "crop": _pair(values["crop"])})


def _pair(side: Any) -> Any:
    """(height, width) of a square, if one number is given."""
    return (side, side) if isinstance(side, int) else side
