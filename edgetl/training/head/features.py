"""Photos → the features that a frozen backbone computes for them, kept in a cache."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetl.data.image_folder import Sample
from edgetl.errors import ImageError
from edgetl.system.environment import package_versions
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map
from edgetl.system.progress import Progress, no_progress
from edgetl.training.config.run_context import RunContext
from edgetl.training.head.feature_cache import MOST_BYTES, FeatureCache, cache_folder, make_room
from edgetl.training.head.feature_extractor import FeatureExtractor, Seen, open_feature_extractor
from edgetl.training.input.decoded_photos import ValidationDecoder
from edgetl.training.models.backbone import Backbone, Level
from edgetl.training.models.tensor_hash import hash_tensors

SHARD = 512
"""Photos between two writes to the cache: what a killed run loses, a few seconds of work."""
_AHEAD = 8  # photos per thread in work or waiting, so that a huge one doesn't stall the others
_PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "timm"),
    *("Pillow", "pi-heif", "pillow-heif"),
)


@dataclass(frozen=True)
class Features:
    """Features of photos, found by the SHA-256 of the file.

    unreadable  photos that could not be decoded, with the reason
    runtime     what computed them ("onnxruntime 1.32.0"), or "the cache"
    cached      how many photos' features were in the cache
    notes       sentences for the user
    """

    unreadable: Mapping[Path, str]
    runtime: str
    cached: int
    notes: tuple[str, ...]
    _cache: FeatureCache
    _extractor: FeatureExtractor | None

    def readable(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those of ``samples`` that could be decoded."""
        return [sample for sample in samples if sample.path not in self.unreadable]

    def of(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Float32 [N, features], in the order of ``samples``. KeyError for an unreadable photo."""
        return np.stack([self._cache[sample.digest] for sample in samples])


def compute_features(
    context: RunContext,
    backbone: Backbone,
    samples: Iterable[Sample],
    *,
    step: str = "Computing features",
    known: Features | None = None,
    seen: Seen = "features",
    levels: tuple[Level, ...] = (),
    cached: bool = True,
) -> Features:
    """``extract_features`` for a run's photos, as its settings say.

    Mirror images and crops would cost time and improved nothing; see scripts/experiments.md.
    """
    return extract_features(
        backbone,
        samples,
        cache=cache_folder(context.settings.feature_cache) if cached else None,
        device=context.device,
        threads=context.settings.workers or None,
        step=step,
        progress=context.listener.progress,
        known=known,
        seen=seen,
        levels=levels,
    )


def extract_features(
    backbone: Backbone,
    samples: Iterable[Sample],
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
    step: str = "Computing features",
    progress: Progress = no_progress,
    known: Features | None = None,
    seen: Seen = "features",
    levels: tuple[Level, ...] = (),
) -> Features:
    """Compute the input of the classifier layer for every photo, or find it in ``cache``.

    cache    folder to keep features in, or None; the oldest are removed when it grows too large
    device   where the backbone runs (default: the CPU)
    threads  photos that are worked on at a time (default: one for each core)
    step     what ``progress`` is called with
    known    a result for other photos, in the same run: used if it is of the same backbone
    seen     what is computed; only features may be cached
    levels   earlier layers, whose means follow the features, for a backbone whose head uses none

    The photos are seen as the predictor sees them. On the CPU the result does not depend on
    ``threads``, on what was cached, or on where an earlier run was killed; when interrupted, what
    was computed is kept. Raises TrainingError for a backbone without a linear head.
    """
    device = device or torch.device("cpu")
    recipe, extractor = _recipe(backbone, device, levels), None
    if known is not None and known._cache.recipe == recipe:
        kept, extractor = known._cache, known._extractor
    else:
        kept = FeatureCache(cache, recipe)
    samples = list(samples)
    photos = {sample.digest: sample for sample in samples}  # copies of a photo are computed once
    missing = [photo for digest, photo in photos.items() if digest not in kept]
    cached, reasons, runtime, note = len(photos) - len(missing), {}, "the cache", None
    if missing:
        extractor = extractor or open_feature_extractor(backbone, device, seen, levels)
        runtime, note = extractor.name, extractor.note
        compute = _BatchedExtraction(backbone, extractor, threads or cores())
        reasons = _fill(kept, compute(missing), cached, len(photos), step, progress)
        if cache is not None:
            make_room(cache, kept.shards, MOST_BYTES)
    unreadable = {
        sample.path: reasons[sample.digest] for sample in samples if sample.digest in reasons
    }
    notes = tuple(sentence for sentence in (note, kept.problem) if sentence)
    return Features(unreadable, runtime, cached, notes, kept, extractor)


def weights_fingerprint(backbone: Backbone) -> str:
    """SHA-256 (hex) over the names, shapes and values of everything but the backbone's heads."""
    heads = tuple(f"{head}." for head in backbone.heads)
    state = backbone.module.state_dict().items()
    return hash_tensors({name: value for name, value in state if not name.startswith(heads)})


def _recipe(backbone: Backbone, device: torch.device, levels: tuple[Level, ...]) -> dict[str, Any]:
    """Everything but the photo that a feature depends on."""
    installed = package_versions(*_PACKAGES)
    return {
        "backbone": backbone.name,
        "weights": weights_fingerprint(backbone),
        "levels": backbone.levels or levels,
        "spec": backbone.spec.to_dict(),
        "device": device.type,
        "versions": {package: installed.get(package) for package in _PACKAGES},
    }


class _BatchedExtraction:
    """Decodes, resizes and, where the runtime allows it, runs the network in several threads."""

    def __init__(self, backbone: Backbone, extractor: FeatureExtractor, threads: int) -> None:
        self._decode = ValidationDecoder(backbone.spec)
        self._extractor, self._threads = extractor, threads

    def __call__(
        self, photos: Sequence[Sample]
    ) -> Generator[tuple[Sample, NDArray[Any] | ImageError], None, None]:
        """(photo, float32 [features] or why it can't be read) for every photo, in order."""
        work = self._features if self._extractor.concurrent else self._pixels
        size = self._extractor.batch
        with (
            ThreadPoolExecutor(self._threads) as pool,
            closing(ordered_map(pool, work, photos, self._threads * _AHEAD)) as results,
        ):
            for start in range(0, len(photos), size):
                batch = photos[start : start + size]
                found = [next(results) for _ in batch]
                if not self._extractor.concurrent:
                    found = self._run(found)
                yield from zip(batch, found, strict=True)

    def _pixels(self, photo: Sample) -> NDArray[Any] | ImageError:
        """Uint8 [h, w, 3]."""
        try:
            return self._decode(photo)[0]
        except ImageError as error:
            return error

    def _features(self, photo: Sample) -> NDArray[Any] | ImageError:
        """Float32 [features]."""
        pixels = self._pixels(photo)
        return pixels if isinstance(pixels, ImageError) else self._extractor(pixels[None])[0]

    def _run(self, found: Sequence[NDArray[Any] | ImageError]) -> list[NDArray[Any] | ImageError]:
        """The readable photos of one batch through the network."""
        batch = [pixels for pixels in found if not isinstance(pixels, ImageError)]
        rows = iter(self._extractor(np.stack(batch)) if batch else ())
        return [pixels if isinstance(pixels, ImageError) else next(rows) for pixels in found]


def _fill(
    kept: FeatureCache,
    results: Generator[tuple[Sample, NDArray[Any] | ImageError], None, None],
    cached: int,
    total: int,
    step: str,
    progress: Progress,
) -> dict[str, str]:
    """Add ``results`` shard by shard, also when interrupted.

    Returns the digests of photos that can't be read, with the reason.
    """
    unreadable: dict[str, str] = {}
    pending: dict[str, NDArray[np.float32]] = {}

    def flush() -> None:
        if pending:
            kept.add(list(pending), np.stack(list(pending.values())))
            pending.clear()

    try:
        for done, (photo, result) in enumerate(results, start=cached + 1):
            if isinstance(result, ImageError):
                unreadable[photo.digest] = result.reason
            else:
                pending[photo.digest] = result
            progress(step, done, total)
            if len(pending) >= SHARD:
                flush()
    finally:
        flush()
        results.close()  # ends the threads
    return unreadable
