"""What the training loop works with: a backbone on its device, decoded photos, their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgetl.data.image_folder import PUT_BACK, ImageFolders, find_unreadable
from edgetl.errors import DataError, TrainingError
from edgetl.system.machine import cores
from edgetl.system.progress import ProgressCounter
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.frozen_part import with_activations
from edgetl.training.engine.run_photos import note_warnings
from edgetl.training.evaluation.validation import Validation
from edgetl.training.head.head_preparation import KnownPhotos
from edgetl.training.head.label_issues import LabelIssue
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
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.network_split import NetworkSplit
from edgetl.training.optim.losses import class_weights
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.distributed import Processes


@dataclass(frozen=True)
class TrainingSetup:
    """What a training loop works with.

    folders        without the photos that can't be read
    backbone       on its device
    class_weights  [classes], or None where every photo weighs the same
    split          where the batches hold activations: the network's cut; else None
    label_issues   training photos whose labels are likely wrong; their rows in the folders
    fitted_head    whether training starts from a head fitted to frozen features
    """

    folders: ImageFolders
    backbone: Backbone
    validation: Validation
    loader: Loader
    sampler: Sampler
    split: NetworkSplit | None
    class_weights: Sequence[float] | None
    label_issues: list[LabelIssue]
    fitted_head: bool


def prepare_training(
    context: RunContext,
    folders: ImageFolders,
    backbone: Backbone,
    known: KnownPhotos,
    *,
    resumed: bool = False,
) -> TrainingSetup:
    """Move the backbone to its device, and decode the photos, if there is room for them.

    folders  with the photos that can't be read

    Raises DataError for photos that must be readable (see ``ImageFolders.without``), and, in a
    resumed run, for training photos that were readable when it began.
    """
    settings, processes = context.settings, context.processes
    channels_last(backbone.module, processes.device)
    decode = TrainingDecoder(
        backbone.spec, stored_size(backbone.size, typical_aspect(folders.train))
    )
    validation = Validation(
        folders.val,
        backbone.spec,
        processes,
        context.folder,
        threads=_threads(context),
        progress=context.listener.progress,
    )
    stored = _store_training(context, known.folders, decode)
    found = stored.unreadable if stored else _find_unreadable(context, known.folders)
    if found and resumed:
        path = min(found)
        raise DataError(f"{path}: {found[path]}.", PUT_BACK)
    readable = folders.without({**known.unreadable, **found, **validation.unreadable})
    context.listener.photos_read(readable)
    if not resumed:
        note_warnings(readable, context.listener)
    if len(readable.train) < 2 * processes.world_size:
        raise TrainingError(
            f"{len(readable.train)} training photos are too few for "
            f"{processes.world_size} processes."
        )
    loader = _loader(context, known.folders, readable, decode, stored)
    loader, split = with_activations(context, readable, backbone, loader, validation)
    return TrainingSetup(
        readable,
        backbone,
        validation,
        loader,
        _sampler(readable, settings, processes),
        split,
        class_weights(settings, readable),
        _label_issues(known, readable),
        settings.warm_head and backbone.has_linear_head,
    )


def _label_issues(known: KnownPhotos, readable: ImageFolders) -> list[LabelIssue]:
    """Those of the fitted head, as rows of the photos that are left."""
    rows = {sample.path: row for row, sample in enumerate(readable.train)}
    photos = known.folders.train
    return [
        issue._replace(photo=rows[photos[issue.photo].path])
        for issue in known.label_issues
        if photos[issue.photo].path in rows
    ]


def _sampler(folders: ImageFolders, settings: TrainSettings, processes: Processes) -> Sampler:
    return Sampler(
        [sample.label for sample in folders.train],
        settings.batch_size,
        settings.seed,
        accumulate=settings.accumulate,
        balanced=settings.balanced,
        processes=processes.world_size,
        mixed=settings.mixup > 0 or settings.cutmix > 0,
        # Several processes measure batch norm together, one alone needs two photos to do so.
        min_per_process=2 if settings.norm_statistics and processes.world_size == 1 else 1,
    )


def _threads(context: RunContext) -> int:
    """Threads that decode photos: as asked for, or this process's share of the cores."""
    return context.settings.workers or max(1, cores() // context.processes.local_world_size)


def _store_training(
    context: RunContext, folders: ImageFolders, decode: TrainingDecoder
) -> DecodedPhotos | None:
    """Decode the training photos once; None if they are not to be kept, or don't fit anywhere."""
    settings, processes, samples = context.settings, context.processes, folders.train
    if settings.cache == "off":
        return None
    room = allocate((len(samples), *decode.size, 3), settings.cache, context.folder, processes)
    if room is None:
        context.listener.note(
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
        threads=_threads(context),
        step="Decoding training photos",
        progress=context.listener.progress,
    )
    return gather_decoded(mine, processes)


def _find_unreadable(context: RunContext, folders: ImageFolders) -> Mapping[Path, str]:
    processes = context.processes
    mine = folders.train[processes.rank :: processes.world_size]
    done = ProgressCounter(context.listener.progress, "Checking training photos", len(mine))
    found = find_unreadable(mine, threads=_threads(context), done=done)
    return {path: why for part in processes.all_gather(found) for path, why in part.items()}


def _loader(
    context: RunContext,
    stored_folders: ImageFolders,
    readable: ImageFolders,
    decode: TrainingDecoder,
    stored: DecodedPhotos | None,
) -> Loader:
    labels = np.array([sample.label for sample in readable.train], np.int64)
    augment = AugmentSettings.from_settings(context.settings, decode.spec)
    augmentation = BatchAugmentation(augment, context.settings.seed, len(labels))
    builder = BatchBuilder(labels, augmentation, Normalizer(decode.spec, context.device))
    if stored is None:
        return FileLoader(readable.train, decode, builder, context.device, _threads(context))
    paths = {sample.path for sample in readable.train}
    rows = [row for row, sample in enumerate(stored_folders.train) if sample.path in paths]
    return CachedLoader(stored, np.array(rows, np.int64), builder, context.device)
