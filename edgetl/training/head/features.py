"""Photos → the features that a frozen backbone gives them: computed once, kept, found again."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from edgetl.data.image_folder import Sample, read_sample
from edgetl.errors import ImageError
from edgetl.runtime.images.resize import resize_image
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map
from edgetl.training.head.feature_cache import MOST_BYTES, FeatureCache, make_room
from edgetl.training.head.feature_extractor import FeatureExtractor, open_feature_extractor
from edgetl.training.models.backbones import Backbone

_SHARD = 512  # photos between two writes to the cache: what a killed run loses, a few seconds' work
_AHEAD = (
    8  # photos in work or waiting for each thread, so that one huge photo doesn't stall the others
)

_Answer: TypeAlias = "NDArray[np.float32] | ImageError"


@dataclass(frozen=True)
class Features:
    """Features of photos, found by the SHA-256 of the file.

    unreadable  photos that could not be decoded, with the reason
    runtime     what computed them ("onnxruntime 1.32.0"), or "the cache"
    cached      photos whose features were in the cache
    notes       sentences for the user
    """

    unreadable: Mapping[Path, str]
    runtime: str
    cached: int
    notes: tuple[str, ...]
    _cache: FeatureCache
    _trunk: FeatureExtractor | None

    def of(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """float32 [N, features], in the order of ``samples``. KeyError for a photo that was not decoded."""
        return np.stack([self._cache[sample.digest] for sample in samples])


class Progress(Protocol):
    """Told how many photos are done, of how many."""

    def __call__(self, done: int, total: int) -> None: ...


def extract_features(
    backbone: Backbone,
    samples: Iterable[Sample],
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    known: Features | None = None,
) -> Features:
    """Compute, or find in ``cache``, the input of the classifier layer for every photo, as the predictor sees it.

    cache    folder to keep features in, or None; what grows too large there goes, oldest first
    device   where the backbone runs (default: the CPU)
    threads  photos worked on at a time (default: one for each core)
    known    what this gave for other photos by the same backbone, in the same run

    On the CPU the result does not depend on ``threads``, on what was cached, or on where an earlier run was killed.
    What was computed is kept when this is interrupted. Raises TrainingError for a backbone without a linear head.
    """
    device = device or torch.device("cpu")
    kept = known._cache if known else FeatureCache(cache, _recipe(backbone, device))
    trunk = known._trunk if known else None
    samples = list(samples)
    photos = list(
        {sample.digest: sample for sample in samples}.values()
    )  # copies of a photo are computed once
    missing = [photo for photo in photos if photo.digest not in kept]
    cached = len(photos) - len(missing)
    if not missing:
        return Features({}, "the cache", cached, _notes(None, kept), kept, trunk)
    trunk = trunk or open_feature_extractor(backbone, device)
    batches = [
        missing[start : start + trunk.batch] for start in range(0, len(missing), trunk.batch)
    ]
    workers = _Workers(backbone, trunk, threads or cores())
    reasons = _fill(kept, workers, batches, len(photos), progress)
    unreadable = {
        sample.path: reasons[sample.digest] for sample in samples if sample.digest in reasons
    }
    if cache is not None:
        make_room(cache, kept.shards, MOST_BYTES)
    return Features(unreadable, trunk.name, cached, _notes(trunk.note, kept), kept, trunk)


def weights_fingerprint(backbone: Backbone) -> str:
    """SHA-256 (hex) over the names, shapes and values of everything in the backbone but its heads."""
    heads = tuple(f"{head}." for head in backbone.heads)
    digest = hashlib.sha256()
    for name, value in sorted(backbone.module.state_dict().items()):
        if not name.startswith(heads):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _recipe(backbone: Backbone, device: torch.device) -> dict[str, Any]:
    """Everything but the photo that a feature depends on."""
    packages = ("onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "timm", "Pillow")
    return {
        "backbone": backbone.name,
        "weights": weights_fingerprint(backbone),
        "levels": backbone.levels,
        "spec": backbone.spec.to_dict(),
        "device": device.type,
        "versions": {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _notes(slower: str | None, kept: FeatureCache) -> tuple[str, ...]:
    return tuple(note for note in (slower, kept.problem) if note)


class _Workers:
    """The threads that decode, resize and, where the runtime lets them, run the network."""

    def __init__(self, backbone: Backbone, trunk: FeatureExtractor, threads: int) -> None:
        self._spec = backbone.spec
        self._trunk = trunk
        self._threads = threads

    def compute(
        self, batches: Sequence[Sequence[Sample]]
    ) -> Generator[tuple[Sample, _Answer], None, None]:
        """(photo, float32 [features] or why it can't be read) for every photo, in order, batch by batch."""
        work = self._features if self._trunk.concurrent else self._pixels
        photos = (photo for batch in batches for photo in batch)
        with (
            ThreadPoolExecutor(self._threads) as pool,
            closing(ordered_map(pool, work, photos, self._threads * _AHEAD)) as results,
        ):
            for batch in batches:
                answers = [next(results) for _ in batch]
                yield from zip(
                    batch, answers if self._trunk.concurrent else self._run(answers), strict=True
                )

    def _pixels(self, photo: Sample) -> NDArray[Any] | ImageError:
        """uint8 [h, w, 3]."""
        try:
            return resize_image(read_sample(photo), self._spec)
        except ImageError as error:
            return error

    def _features(self, photo: Sample) -> NDArray[Any] | ImageError:
        """float32 [features]."""
        pixels = self._pixels(photo)
        return pixels if isinstance(pixels, ImageError) else self._trunk(pixels[None])[0]

    def _run(self, answers: Sequence[NDArray[Any] | ImageError]) -> list[NDArray[Any] | ImageError]:
        """The photos of one batch through the network."""
        batch = [pixels for pixels in answers if not isinstance(pixels, ImageError)]
        rows = iter(self._trunk(np.stack(batch)) if batch else ())
        return [answer if isinstance(answer, ImageError) else next(rows) for answer in answers]


def _fill(
    kept: FeatureCache,
    workers: _Workers,
    batches: Sequence[Sequence[Sample]],
    total: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Compute what is missing and add it shard by shard, also when interrupted → digests of what can't be read, and why."""
    unreadable: dict[str, str] = {}
    pending: list[tuple[str, NDArray[np.float32]]] = []
    results = workers.compute(batches)
    try:
        for done, (photo, result) in enumerate(results, start=total + 1 - sum(map(len, batches))):
            if isinstance(result, ImageError):
                unreadable[photo.digest] = result.reason
            else:
                pending.append((photo.digest, result))
            if progress is not None:
                progress(done, total)
            if len(pending) >= _SHARD:
                _flush(kept, pending)
    finally:
        _flush(kept, pending)
        results.close()
    return unreadable


def _flush(kept: FeatureCache, pending: list[tuple[str, NDArray[np.float32]]]) -> None:
    if pending:
        kept.add([digest for digest, _ in pending], np.stack([row for _, row in pending]))
    pending.clear()
