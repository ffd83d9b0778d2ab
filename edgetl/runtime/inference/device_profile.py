"""What untrained models take on one device: the figures that ``train --budget`` chooses by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgetl.errors import EdgetlError
from edgetl.runtime.bundle.bundle_folder import SCHEMA
from edgetl.runtime.bundle.candidates_file import CLASSES, CandidateModel
from edgetl.runtime.inference.benchmark import fresh_process, machine, time_stages
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.progress import Progress, no_progress, track
from edgetl.system.temporary_folder import scratch_folder

_PHOTO = (640, 480)  # width, height of the photo that is measured with where none is given
_MOST = 1e15  # of any figure
_HINT = "Write it again on the device: edgetl bench CANDIDATES --profile FILE"


@dataclass(frozen=True)
class MeasuredModel:
    """An untrained model on one device.

    backbone, image_size, precision  which one; the size is the side of its input, pixels
    total_ms  median milliseconds from the photo's file to the label
    model_ms  of these, in the network
    memory    peak resident memory of a process that classifies one photo, bytes; None: unknown
    bytes     size of its file with ``CLASSES`` classes
    class_bytes  what one class more adds to it
    """

    backbone: str
    image_size: int
    precision: str
    total_ms: float
    model_ms: float
    memory: int | None
    bytes: int
    class_bytes: int

    def size(self, classes: int) -> int:
        """Bytes of its file for so many classes."""
        return self.bytes + (classes - CLASSES) * self.class_bytes

    @property
    def name(self) -> str:
        """``efficientnet_lite0@256 fp32``."""
        return f"{self.backbone}@{self.image_size} {self.precision}"


@dataclass(frozen=True)
class DeviceProfile:
    """Models measured on one device.

    machine  processor, system and software, name → value
    threads  inside one run of a model; None: one for each core
    photos   what was measured with, in words
    """

    machine: Mapping[str, Any]
    threads: int | None
    photos: str
    models: tuple[MeasuredModel, ...]

    def to_json(self) -> str:
        """The content of a profile's file; ``read_profile`` reads it."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def read_profile(path: str | Path) -> DeviceProfile:
    """Read what ``DeviceProfile.to_json`` returned. Raises EdgetlError for another file."""
    try:
        values = json.loads(Path(path).read_bytes())
        if values["schema"] != SCHEMA:
            raise ValueError(f"its schema is {values['schema']!r}; this edgetl reads {SCHEMA}")
        models = tuple(_measured(entry) for entry in values["models"])
        if not models:
            raise ValueError("it has no models")
        machine = dict(values["machine"])
        if "processor" not in machine:
            raise ValueError("it names no processor")
        return DeviceProfile(machine, values["threads"], values["photos"], models)
    except OSError as error:
        raise EdgetlError(f"{path} can't be read: {error.strerror or error}.", _HINT) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise EdgetlError(f"{path} is not the profile of a device ({reason}).", _HINT) from error


def _measured(entry: Mapping[str, Any]) -> MeasuredModel:
    model = MeasuredModel(**entry)
    if not (isinstance(model.backbone, str) and isinstance(model.precision, str)):
        raise ValueError("a model's name is not text")
    whole = model.image_size, model.bytes, model.class_bytes, model.memory or 0
    if not all(isinstance(number, int) and 0 <= number < _MOST for number in whole):
        raise ValueError(f"{model.name} has a figure that is not a whole number")
    above_0 = model.image_size, model.bytes, model.total_ms, model.model_ms
    if not all(0 < number < _MOST for number in above_0):
        raise ValueError(f"{model.name} has a figure that is not above 0")
    return model


def measure(
    candidates: Sequence[CandidateModel],
    photos: Sequence[Path] = (),
    *,
    runs: int,
    options: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> DeviceProfile:
    """Measure each model ``runs`` times on this device; at least one model.

    photos   to measure with; none: a made-up one of 640 × 480
    options  keyword arguments of ``Predictor``

    Raises ImageError for a photo that can't be read, RuntimeUnavailableError if a fresh process
    fails, BundleError for a model that can't be loaded.
    """
    models = []
    with scratch_folder("edgetl-bench") as folder:
        described = f"{len(photos)} of your own" if photos else "640 × 480, made up"
        photos = photos or [_made_up_photo(folder / "photo.jpg")]
        for candidate in track(candidates, len(candidates), "Measuring", progress):
            file = folder / "model.onnx"
            file.write_bytes(candidate.model())
            predictor = Predictor(file, **(options or {}))
            stages = time_stages(predictor, photos, runs)
            models.append(
                MeasuredModel(
                    candidate.backbone,
                    candidate.image_size,
                    candidate.precision,
                    stages["total"].p50,
                    stages["model"].p50,
                    fresh_process(predictor, photos[0])[1],
                    file.stat().st_size,
                    candidate.class_bytes,
                )
            )
    return DeviceProfile(machine(predictor), predictor.threads, described, tuple(models))


def _made_up_photo(path: Path) -> Path:
    """A JPEG with smooth parts and some noise, which takes as long to decode as a photo does."""
    rng = np.random.default_rng(0)
    width, height = _PHOTO
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
    smooth = np.asarray(coarse.resize(_PHOTO, Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, 6, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path
