"""Photos decoded on the GPU and the cores together; torchvision stands in for nvJPEG."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.photo_samples import sample_of
from PIL import Image

from edgetl.data.image_folder import find_unreadable
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.input import gpu_decode
from edgetl.training.input.decoded_photos import TrainingDecoder, decode_photos
from edgetl.training.input.gpu_decode import decode_photos_on_gpu, plain_jpeg

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_gpu_and_cores_give_nearly_the_same_pixels_and_the_same_unreadable_photos(
    photos, patient, tmp_path, interpolation
):
    """torchvision decodes the same list on the CPU, so all but nvJPEG itself is run here."""
    fine = np.random.default_rng(0).integers(
        0, 256, (200, 300, 3), np.uint8
    )  # on which filters differ
    Image.fromarray(fine).save(tmp_path / "7.jpg", quality=95)
    photos = [sample_of(tmp_path / "7.jpg"), *photos]  # first, where the GPU begins
    rooms = [np.zeros((8, 64, 64, 3), np.uint8) for _ in range(2)]
    decode = TrainingDecoder(replace(SPEC, interpolation=interpolation), (64, 64))
    one = decode_photos(photos, decode, rooms[0], threads=2)
    other = decode_photos_on_gpu(
        photos, patient(decode), rooms[1], torch.device("cpu"), interpolation, threads=1
    )
    assert one.unreadable == other.unreadable
    assert np.array_equal(one.aspects, other.aspects)
    assert np.abs(rooms[0].astype(int) - rooms[1]).max() <= 4


@pytest.mark.parametrize("limits", [{"_BATCH": 2}, {"_BATCH_PIXELS": 60 * 90 * 2}, {"_AHEAD": 1}])
@pytest.mark.parametrize("part", [(0, 1), (1, 2)])
def test_batches_of_any_size_put_every_photo_into_its_row(
    photos, patient, tmp_path, monkeypatch, limits, part
):
    for name, value in limits.items():
        monkeypatch.setattr(gpu_decode, name, value)
    Image.open(photos[0].path).resize((70, 40)).save(tmp_path / "7.jpg", quality=95)
    photos = [*photos, sample_of(tmp_path / "7.jpg"), photos[0], photos[4]]
    reports = []
    rooms = [np.zeros((len(photos), 64, 64, 3), np.uint8) for _ in range(2)]
    one = decode_photos(photos, TrainingDecoder(SPEC, (64, 64)), rooms[0], part=part, threads=2)
    decode = patient(TrainingDecoder(SPEC, (64, 64)))
    other = decode_photos_on_gpu(
        photos,
        decode,
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        part=part,
        threads=1,
        progress=lambda *report: reports.append(report),
    )
    assert one.unreadable == other.unreadable
    assert np.array_equal(one.aspects, other.aspects)
    assert np.abs(rooms[0].astype(int) - rooms[1]).max() <= 4
    assert [done for _, done, _ in reports] == list(range(len(photos[part[0] :: part[1]]) + 1))


def test_cores_decode_the_rest_while_the_gpu_is_slow(photos, monkeypatch):
    photos, reports = photos * 10, []

    def slow(jpegs, *rest):
        while reports[-1][1] < len(photos) - 2 * gpu_decode._BATCH and not waited.wait(0.01):
            pass
        return original(jpegs, *rest)

    original, waited = gpu_decode._decode_batch, threading.Event()
    monkeypatch.setattr(gpu_decode, "_decode_batch", slow)
    monkeypatch.setattr(gpu_decode, "_BATCH", 4)
    monkeypatch.setattr(gpu_decode, "_AHEAD", 4)
    rooms = [np.zeros((len(photos), 64, 64, 3), np.uint8) for _ in range(2)]
    one = decode_photos(photos, TrainingDecoder(SPEC, (64, 64)), rooms[0], threads=2)
    deadline = threading.Timer(60, waited.set)
    deadline.start()
    decode = TrainingDecoder(SPEC, (64, 64))
    other = decode_photos_on_gpu(
        photos,
        decode,
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        threads=2,
        progress=lambda *report: reports.append(report),
    )
    deadline.cancel()
    assert not waited.is_set()
    assert one.unreadable == other.unreadable and np.array_equal(one.aspects, other.aspects)
    assert np.array_equal(rooms[0][8:], rooms[1][8:])
    assert reports[-1] == ("Decoding photos", len(photos), len(photos))


def test_cores_decode_what_nvjpeg_refuses(photos, patient, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(gpu_decode, "decode_jpeg", refuse)
    rooms = [np.zeros((7, 64, 64, 3), np.uint8) for _ in range(2)]
    one = decode_photos(photos, TrainingDecoder(SPEC, (64, 64)), rooms[0], threads=2)
    other = decode_photos_on_gpu(
        photos,
        patient(TrainingDecoder(SPEC, (64, 64))),
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        threads=1,
    )
    assert one.unreadable == other.unreadable and np.array_equal(one.aspects, other.aspects)
    assert np.array_equal(*rooms)


def test_a_failing_gpu_ends_the_other_decoders_too(photos, monkeypatch):
    monkeypatch.setattr(gpu_decode, "_decode_batch", lambda *_: 1 / 0)
    begun = []
    decode = TrainingDecoder(SPEC, (64, 64))

    def counted(sample):
        begun.append(sample)
        time.sleep(0.01)
        return decode(sample)

    photos = photos * 100
    with pytest.raises(ZeroDivisionError):
        decode_photos_on_gpu(
            photos,
            counted,
            np.zeros((len(photos), 64, 64, 3), np.uint8),
            torch.device("cpu"),
            SPEC.interpolation,
            threads=1,
        )
    assert len(begun) < len(photos) / 2


def test_only_whole_upright_rgb_or_grey_jpegs_go_to_the_gpu(photos):
    assert [plain_jpeg(sample) is not None for sample in photos] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_progressive_jpegs_are_left_to_the_cores(photos, tmp_path):
    path = tmp_path / "progressive.jpg"
    Image.open(photos[0].path).save(path, progressive=True)
    assert plain_jpeg(sample_of(path)) is None
    Image.open(photos[0].path).save(path)
    assert plain_jpeg(sample_of(path)) is not None


def test_cores_decode_while_the_gpu_warms_up(photos, monkeypatch):
    """A GPU that takes long to begin gets what is left then, if anything."""
    begun, plain = threading.Event(), gpu_decode._warm_up

    def slow(device):
        plain(device)
        assert begun.wait(10)
        time.sleep(0.5)

    def decode(sample):
        begun.set()
        return TrainingDecoder(SPEC, (64, 64))(sample)

    seen = []
    monkeypatch.setattr(gpu_decode, "_warm_up", slow)
    monkeypatch.setattr(gpu_decode, "plain_jpeg", lambda sample: seen.append(sample))
    room = np.zeros((len(photos), 64, 64, 3), np.uint8)
    decode_photos_on_gpu(photos, decode, room, torch.device("cpu"), SPEC.interpolation, threads=1)
    assert not seen


def test_photos_changed_since_the_scan_are_unreadable(photos, patient):
    for row, other in ((0, 4), (3, 2)):
        photos[row].path.write_bytes(photos[other].path.read_bytes())
    rooms = [np.zeros((7, 64, 64, 3), np.uint8) for _ in range(2)]
    one = decode_photos(photos, TrainingDecoder(SPEC, (64, 64)), rooms[0], threads=2)
    other = decode_photos_on_gpu(
        photos,
        patient(TrainingDecoder(SPEC, (64, 64))),
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        threads=1,
    )
    assert (
        one.unreadable == other.unreadable
        and not rooms[0][[0, 3]].any()
        and not rooms[1][[0, 3]].any()
    )
    changed = {
        path.name for path, why in one.unreadable.items() if why == "it changed while it was read"
    }
    assert changed == {"0.jpg", "3.png"}
    assert find_unreadable(photos, threads=2) == one.unreadable


@pytest.fixture
def patient(monkeypatch):
    """Makes a ``decode`` that waits until the GPU has been given all that it can get."""
    over = threading.Event()

    def batches(found):
        yield from original(found)
        over.set()

    def made(decode):
        return lambda sample: (over.wait(60), decode(sample))[1]

    original = gpu_decode._batches
    monkeypatch.setattr(gpu_decode, "_batches", batches)
    return made
