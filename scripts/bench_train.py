#!/usr/bin/env python3
"""How fast training is, and whether it waits for its photos.

Prints, all from one run on this machine:

    synthetic   the training step alone, on one batch that stays on the device
    photos      the same step on photos decoded once into a cache, augmented in every epoch
    files       the same step on photos decoded in every epoch by worker processes (--cache off)
    plain       a usual loop for comparison: ImageFolder, DataLoader workers, torchvision
                transforms, the same network

Example:
  python3 scripts/bench_train.py --backbone resnet50 --batch-size 256 --compile
"""

# ruff: noqa: E402  how long threads spin is set before torch is imported
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.cli.process import spin_less

spin_less()  # as the program does, before it imports torch
import torch
import torch.nn.functional as F

from edgetl.data.image_folder import scan
from edgetl.system.machine import cores
from edgetl.training.config.listener import Listener, RecordingListener
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.engine.training_setup import TrainingSetup, prepare_training
from edgetl.training.head.head_preparation import KnownPhotos
from edgetl.training.input.loader import Batch
from edgetl.training.input.sampler import BatchShard
from edgetl.training.optim.optimizers import reduced_type
from edgetl.training.torch_env.distributed import Processes, describe, join
from edgetl.training.torch_env.malloc import keep_freed_memory
from edgetl.training.torch_env.torch_flags import reproducible

PHOTO_SIZE = (400, 530)  # height, width of the made-up photos
WARM_UP = 5  # steps before the clock starts: allocation, choice of kernels, compilation
WARM_UP_PHOTOS = 32  # decoded before the clock starts
Batches = Generator[Batch, None, None]
EPOCHS = 12  # over which decoding once is spread in the last line


def main() -> None:
    options = parse()
    with (
        join(options.device) as processes,
        reproducible(processes.device),
        tempfile.TemporaryDirectory() as folder,
    ):
        device = processes.device
        data = options.data or make_photos(Path(folder) / "photos", options.photos)
        settings = settings_of(options, data, device)
        print(
            f"{describe(processes)}, torch {torch.__version__}, {cores()} cores; "
            f"{settings.backbone}, batch {settings.batch_size}, "
            f"{reduced_type(settings.precision, device) or torch.float32}, "
            f"compile {settings.compile}"
        )
        folders = scan(settings.data, val_fraction=0.05)
        print(f"{len(folders.train):,} photos of {len(folders.classes)} classes in {settings.data}")
        few = replace(folders, train=folders.train[:WARM_UP_PHOTOS], val=folders.val[:1])
        listener, started = RecordingListener(Listener()), time.monotonic()
        context = RunContext(settings, Path(folder), processes, listener, started)
        # A GPU and its decoder take seconds to start.
        backbone = build_backbone(settings, folders.classes)
        prepare_training(context, few, backbone, KnownPhotos(few))
        backbone = build_backbone(settings, folders.classes)
        started = time.monotonic()
        setup = prepare_training(context, folders, backbone, KnownPhotos(folders))
        synchronize(device)
        decoding = time.monotonic() - started
        photos = len(folders.train) + len(folders.val)
        print(f"decoded once       {photos / decoding:10,.1f} photos/s  ({decoding:.1f} s)")
        plain = 0.0
        if not options.only_cached:  # first, before the memory allocator is set up
            plain = plain_rate(settings, setup, Path(settings.data), processes, options.steps)
        with keep_freed_memory(device):
            noise, decoded = one_batch(settings, setup, device), loaded(settings, setup)
            synthetic = report("synthetic", step_rate(noise, setup, context, options.steps))
            stored = report("photos", step_rate(decoded, setup, context, options.steps), synthetic)
            epochs = EPOCHS * len(folders.train)
            whole = epochs / (decoding + epochs / stored)
            report("  with decoding", whole, synthetic, f"over {EPOCHS} epochs")
            if not options.only_cached:
                off = replace(context, settings=replace(settings, cache="off"))
                backbone = build_backbone(settings, folders.classes)
                again = prepare_training(off, folders, backbone, KnownPhotos(folders))
                files = loaded(settings, again)
                report("files", step_rate(files, again, off, options.steps), synthetic)
        if plain:
            report("plain", plain, synthetic)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder of class folders; by default photos are made up"
    )
    parser.add_argument(
        "--photos", type=int, default=2000, help="how many to make up (%(default)s)"
    )
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=50, help="timed steps of each kind (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument(
        "--precision", default="auto", help="auto, float32, bf16 or fp16 (%(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="decoding threads or processes; 0: one for each core"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--only-cached", action="store_true", help="leave out the two slow kinds")
    return parser.parse_args()


def settings_of(options: argparse.Namespace, data: Path, device: torch.device) -> TrainSettings:
    names = ("backbone", "batch_size", "precision", "workers", "compile", "device")
    given = {name: getattr(options, name) for name in names}
    fixed = {"weights": "none", "strategy": "full", "warm_head": False, "norm_statistics": False}
    return resolve(data, {**given, **fixed}, cuda=device.type == "cuda")


def make_photos(folder: Path, count: int) -> Path:
    """JPEGs with the detail, and so about the file size, of real photos."""
    rng = np.random.default_rng(0)
    height, width = PHOTO_SIZE
    for number in range(count):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.integers(-12, 13, (height, width, 1), np.int16)
        path = folder / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (np.asarray(smooth, np.int16) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return folder


def report(name: str, rate: float, whole: float | None = None, remark: str = "") -> float:
    share = f"{rate / whole:7.1%} of synthetic" if whole else ""
    print(f"{name:<18} {rate:10,.1f} photos/s  {share}  {remark}".rstrip(), flush=True)
    return rate


def timed(
    step: Callable[[int], object], batch_size: int, steps: int, device: torch.device
) -> float:
    """Photos a second of ``step``, called with the step's number, after a warm-up."""
    for number in range(WARM_UP):
        step(number)
    synchronize(device)
    started = time.monotonic()
    for number in range(WARM_UP, WARM_UP + steps):
        step(number)
    synchronize(device)
    return steps * batch_size / (time.monotonic() - started)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def one_batch(settings: TrainSettings, setup: TrainingSetup, device: torch.device) -> Batches:
    """Without end the same batch of noise, on the device."""
    height, width = setup.backbone.size
    size = settings.batch_size
    images = torch.randn(size, height, width, 3, device=device).permute(0, 3, 1, 2)
    labels = torch.randint(len(setup.folders.classes), (size,), device=device)
    places = np.arange(size)
    while True:
        yield Batch(images, labels, BatchShard(0, 0, places, places))


def loaded(settings: TrainSettings, setup: TrainingSetup) -> Batches:
    """Without end the full batches of the training photos."""
    whole = len(setup.folders.train) // settings.batch_size
    places = (divmod(number, whole) for number in count())
    yield from setup.loader.batches(setup.sampler.shard(*place, 0) for place in places)


def step_rate(batches: Batches, setup: TrainingSetup, context: RunContext, steps: int) -> float:
    settings, processes = context.settings, context.processes
    learner = Learner(setup.backbone, settings, None, setup.sampler.batches, processes)
    learner.train_mode()
    size = settings.batch_size
    with closing(batches):
        return timed(
            lambda number: learner.step(0, number, batches, 1, size), size, steps, processes.device
        )


def plain_rate(
    settings: TrainSettings, setup: TrainingSetup, data: Path, processes: Processes, steps: int
) -> float:
    """A tutorial's loop, with the same network, kind of augmentation, and precision."""
    from torchvision import datasets, transforms

    device, spec = processes.device, setup.backbone.spec
    view = transforms.Compose(
        [
            transforms.RandomRotation(settings.rotation),
            transforms.RandomHorizontalFlip(),
            transforms.RandomResizedCrop(spec.input_size, settings.scale, settings.ratio),
            transforms.ColorJitter(settings.colour, settings.colour, settings.colour),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    folder = data / "train" if (data / "train").is_dir() else data
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), view),
        settings.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=settings.workers or cores(),
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )
    network = setup.backbone.module.requires_grad_(True).train()
    model = torch.compile(network) if settings.compile else network
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr)
    reduced = reduced_type(settings.precision, device)

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = endless()

    def step(_: int) -> None:
        images, labels = (part.to(device, non_blocking=True) for part in next(batches))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, reduced, enabled=reduced is not None):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return timed(step, settings.batch_size, steps, device)


if __name__ == "__main__":
    main()
