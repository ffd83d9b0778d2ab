"""From settings to everything that the loop needs: classes, backbone, decoded photos."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgetl.data.image_folder import PUT_BACK, ImageFolders, Sample, find_unreadable
from edgetl.errors import DataError, TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.machine import cores
from edgetl.training.config.listener import Counter, Listener
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.evaluation.run_records import summary_writer
from edgetl.training.evaluation.validation import Validation
from edgetl.training.head.features import Features
from edgetl.training.head.head_solver import warm_head
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.resize_choice import choose_resize
from edgetl.training.input.augment import AugmentSettings, BatchAugmentation, Normalizer
from edgetl.training.input.decoded_photos import (
    DecodedPhotos,
    TrainingDecoder,
    decode_photos,
    gather_decoded,
)
from edgetl.training.input.file_loader import FileLoader
from edgetl.training.input.loader import BatchBuilder, CachedLoader, Loader
from edgetl.training.input.photo_shape import stored_size, typical_aspect
from edgetl.training.input.photo_storage import allocate
from edgetl.training.input.sampler import Sampler
from edgetl.training.models.backbones import Backbone, build, input_size, refusal
from edgetl.training.models.batch_norm import require_sync_batch_norm, sync_batch_norm
from edgetl.training.optim.optimizers import reduced_type
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.randomness import HEAD, torch_seed


def look_ahead(settings: TrainSettings, processes: Processes) -> None:
    """Raises the errors that would only be found after minutes, when an earlier run is gone."""
    reduced_type(settings.precision, processes.device)
    if settings.batch_size < processes.world_size and settings.optimizer != SOLVER:
        raise TrainingError(
            f"A batch of {settings.batch_size} can't be dealt out to {processes.world_size} processes.",
            "Use a larger --batch-size.",
        )
    if settings.tensorboard:
        summary_writer()


def readable(
    folders: ImageFolders, unreadable: dict[Path, str], listener: Listener
) -> ImageFolders:
    """``folders`` without what can't be decoded, told to ``listener``. Raises as ``without`` does."""
    left = folders.without(unreadable)
    for sentence in left.warnings[len(folders.warnings) :]:
        listener.note(sentence)
    return left


def build_backbone(
    settings: TrainSettings, classes: Sequence[str], *, weights: str | None = None
) -> Backbone:
    """The backbone of ``settings`` with a head for ``classes``, random but the same each time, and the spec that they ask for.

    Raises TrainingError if it can't be had, or not with these settings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed, HEAD))
        given = settings.weights if weights is None else weights
        backbone = build(settings.backbone, len(classes), weights=given, labels=classes)
    if settings.strategy == "last-blocks" and settings.blocks > len(backbone.blocks):
        there = len(backbone.blocks)
        raise TrainingError(
            f"{backbone.name} has {there} blocks, not {settings.blocks}.",
            "Give a smaller --blocks.",
        )
    spec = wanted_spec(settings, backbone.spec)
    resized = replace(backbone, spec=spec)
    if resized.size != backbone.size:
        _require_size(resized, usual=backbone.size)
    return resized


def wanted_spec(settings: TrainSettings, published: PreprocessSpec) -> PreprocessSpec:
    """The published preprocessing, changed as ``settings`` say; all sizes keep their proportions. See ``framing``, too."""
    height, width = input_size(published)
    side = (settings.image_size, settings.image_size) if settings.image_size else (height, width)
    if settings.resize == "squash":
        return replace(published, resize="squash", size=side, crop=None)
    if side == (height, width):
        return published
    factor = settings.image_size / min(height, width)
    if not isinstance(published.size, tuple):
        return replace(published, size=round(published.size * factor), crop=side)
    if published.crop is None:
        return replace(published, size=side)
    return replace(
        published,
        size=(round(published.size[0] * factor), round(published.size[1] * factor)),
        crop=side,
    )


def class_weights(settings: TrainSettings, folders: ImageFolders) -> torch.Tensor | None:
    """float32 [classes] with a mean of 1 over the training photos, or None if they are not asked for."""
    if not settings.class_weights:
        return None
    counts = torch.tensor(folders.train_counts, dtype=torch.float32)
    return counts.sum() / (len(counts) * counts)


@dataclass(frozen=True)
class TrainingSetup:
    """What the loop works with: a backbone on its device, photos without the unreadable ones.

    class_weights  float32 [classes], or None where every photo weighs the same
    doubts         training photos that the head was in doubt of when it was solved for
    """

    folders: ImageFolders
    backbone: Backbone
    validation: Validation
    loader: Loader
    sampler: Sampler
    class_weights: torch.Tensor | None
    doubts: list[LabelIssue]


def prepare_training(
    settings: TrainSettings,
    folders: ImageFolders,
    backbone: Backbone,
    processes: Processes,
    folder: Path,
    listener: Listener,
    *,
    left_out: Collection[str] | None,
) -> TrainingSetup:
    """Decode every photo once and set up what trains on them. Raises DataError for photos that must be read and can't be (see
    ``ImageFolders.without``), and, where a run goes on, for training photos that could be read when it began.

    folder    where decoded photos go that don't fit into memory
    left_out  None where a run begins. Where it goes on, no head is solved for, and these (digests of training photos) are
              left out again, also where they can be read now: on a GPU, chance decides who decodes a photo, and decoders
              differ in what they can
    """
    measured_together = settings.norm_statistics and processes.world_size > 1
    if measured_together:
        require_sync_batch_norm(backbone, processes.device)
    channels_last(backbone.module, processes.device)
    known = None
    if settings.warm_head and left_out is None:
        backbone, known = _framed(settings, folders, backbone, processes, listener)
    decode = TrainingDecoder(
        backbone.spec, stored_size(input_size(backbone.spec), typical_aspect(folders.train))
    )
    validation, stored = _decoded(settings, folders, decode, processes, folder, listener)
    unreadable = (
        dict(stored.unreadable)
        if stored
        else _unreadable(settings, folders.train, processes, listener)
    )
    if left_out is not None:
        again = {sample.path for sample in folders.train if sample.digest in left_out}
        for path in sorted(unreadable.keys() - again):
            raise DataError(f"{path}: {unreadable[path]}.", PUT_BACK)
        unreadable = {path: unreadable.get(path, "left out before") for path in again}
    unreadable |= validation.unreadable
    left = (
        readable(folders, unreadable, listener) if left_out is None else folders.without(unreadable)
    )
    if len(left.train) < 2 * processes.world_size:
        raise TrainingError(
            f"{len(left.train)} training photos are too few for {processes.world_size} processes."
        )
    weights = class_weights(settings, left)
    if measured_together and processes.device.type == "cuda":
        backbone = sync_batch_norm(backbone)
    doubts: list[LabelIssue] = []
    if settings.warm_head and left_out is None:
        backbone, doubts = warm_head(
            backbone, left.train, weights, processes, settings, listener, known
        )
    labels = [sample.label for sample in left.train]
    mixed = settings.mixup > 0 or settings.cutmix > 0
    sampler = Sampler(
        labels,
        settings.batch_size,
        settings.seed,
        accumulate=settings.accumulate,
        balanced=settings.balanced,
        processes=processes.world_size,
        mixed=mixed,
        least=2
        if settings.norm_statistics and processes.world_size == 1
        else 1,  # which several measure together
    )
    rows = [row for row, sample in enumerate(folders.train) if sample.path not in unreadable]
    loader = _loader(settings, left, decode, stored, rows, processes)
    return TrainingSetup(left, backbone, validation, loader, sampler, weights, doubts)


def _framed(
    settings: TrainSettings,
    folders: ImageFolders,
    backbone: Backbone,
    processes: Processes,
    listener: Listener,
) -> tuple[Backbone, Features | None]:
    """What ``choose_resize`` gives, in the leading process; the others are given the spec."""
    known = None
    if processes.is_main:
        weights = class_weights(settings, folders)
        backbone, known = choose_resize(
            backbone, folders.train, weights, processes.device, settings, listener
        )
    return replace(backbone, spec=processes.all_gather(backbone.spec)[0]), known


def _threads(settings: TrainSettings, processes: Processes) -> int:
    """For work on photos: those asked for, or this process's share of the cores."""
    return settings.workers or max(1, cores() // processes.local_world_size)


def _decoded(
    settings: TrainSettings,
    folders: ImageFolders,
    decode: TrainingDecoder,
    processes: Processes,
    folder: Path,
    listener: Listener,
) -> tuple[Validation, DecodedPhotos | None]:
    validation = Validation(
        folders.val,
        decode.spec,
        processes,
        folder,
        threads=_threads(settings, processes),
        progress=listener.working,
    )
    return validation, _store_training(settings, folders.train, decode, processes, folder, listener)


def _loader(
    settings: TrainSettings,
    folders: ImageFolders,
    decode: TrainingDecoder,
    stored: DecodedPhotos | None,
    rows: list[int],
    processes: Processes,
) -> Loader:
    labels = np.array([sample.label for sample in folders.train], np.int64)
    augment = AugmentSettings.from_settings(settings, decode.spec)
    augmentation = BatchAugmentation(augment, settings.seed, len(labels))
    builder = BatchBuilder(labels, augmentation, Normalizer(decode.spec, processes.device))
    if stored is None:
        return FileLoader(
            folders.train, decode, builder, processes.device, _threads(settings, processes)
        )
    return CachedLoader(stored, np.array(rows, np.int64), builder, processes.device)


def _store_training(
    settings: TrainSettings,
    samples: tuple[Sample, ...],
    decode: TrainingDecoder,
    processes: Processes,
    folder: Path,
    listener: Listener,
) -> DecodedPhotos | None:
    """Training photos, decoded and squashed; None if they are not to be kept, or there is no room."""
    if settings.cache == "off":
        return None
    room = allocate((len(samples), *decode.size, 3), settings.cache, folder, processes)
    if room is None:
        listener.note(
            "Training photos are decoded in every epoch: there is no room to keep them decoded."
        )
        return None
    decode_all: Callable[..., DecodedPhotos] = decode_photos
    if processes.device.type == "cuda":
        from edgetl.training.input.gpu_decode import decode_photos_on_gpu

        decode_all = partial(
            decode_photos_on_gpu,
            device=processes.device,
            interpolation=decode.spec.interpolation,
        )
    mine = decode_all(
        samples,
        decode,
        room,
        part=(processes.local_rank, processes.local_world_size),
        threads=_threads(settings, processes),
        step="Decoding training photos",
        progress=listener.working,
    )
    return gather_decoded(mine, processes)


def _unreadable(
    settings: TrainSettings, samples: tuple[Sample, ...], processes: Processes, listener: Listener
) -> dict[Path, str]:
    mine = samples[processes.rank :: processes.world_size]
    done = Counter(listener, "Checking training photos", len(mine))
    found = processes.all_gather(
        find_unreadable(mine, threads=_threads(settings, processes), done=done)
    )
    return {path: why for part in found for path, why in part.items()}


def _require_size(backbone: Backbone, usual: tuple[int, int]) -> None:
    refused = refusal(backbone)
    if refused is not None:
        height, width = backbone.size
        taken = "×".join(map(str, usual))
        raise TrainingError(
            f"{backbone.name} can't take photos of {height}×{width} pixels.",
            f"Leave out --image-size; it takes {taken}.",
        ) from refused
