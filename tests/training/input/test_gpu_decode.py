"""Photos decoded on the GPU and the cores together; torchvision on the CPU stands in for nvJPEG."""

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
from edgetl.training.input.decoded_photos import DecodedPhotos, TrainingDecoder, decode_photos
from edgetl.training.input.gpu_decode import decode_photos_on_gpu, plain_jpeg

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)
DECODE = TrainingDecoder(SPEC, (64, 64))


def on_gpu(photos, decode=DECODE, *, threads=1, **options) -> DecodedPhotos:
    out = np.zeros((len(photos), 64, 64, 3), np.uint8)
    device = torch.device("cpu")
    return decode_photos_on_gpu(
        photos, decode, out, device, SPEC.interpolation, threads=threads, **options
    )


def on_cores(photos, decode=DECODE, **options) -> DecodedPhotos:
    out = np.zeros((len(photos), 64, 64, 3), np.uint8)
    return decode_photos(photos, decode, out, threads=2, **options)


def assert_alike(one: DecodedPhotos, other: DecodedPhotos, tolerance: int) -> None:
    assert one.unreadable == other.unreadable
    assert np.array_equal(one.aspects, other.aspects)
    assert np.abs(one.pixels.astype(int) - other.pixels).max() <= tolerance


@pytest.fixture
def after_gpu(monkeypatch):
    """Makes a decoder wait until the GPU has been given all photos that it can take."""
    over = threading.Event()

    def batches(found):
        yield from original(found)
        over.set()

    def waiting(decode):
        return lambda sample: (over.wait(60), decode(sample))[1]

    original = gpu_decode._batches
    monkeypatch.setattr(gpu_decode, "_batches", batches)
    return waiting


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_gpu_and_cores_give_nearly_the_same_pixels_and_the_same_unreadable_photos(
    photos, after_gpu, tmp_path, interpolation
):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "7.jpg", quality=95)  # on which filters differ
    photos = [sample_of(tmp_path / "7.jpg"), *photos]  # first, where the GPU begins
    decode = TrainingDecoder(replace(SPEC, interpolation=interpolation), (64, 64))
    out = np.zeros((8, 64, 64, 3), np.uint8)
    device = torch.device("cpu")
    other = decode_photos_on_gpu(photos, after_gpu(decode), out, device, interpolation, threads=1)
    assert_alike(on_cores(photos, decode), other, 4)


@pytest.mark.parametrize("limits", [{"_BATCH": 2}, {"_BATCH_PIXELS": 60 * 90 * 2}, {"_AHEAD": 1}])
@pytest.mark.parametrize("part", [(0, 1), (1, 2)])
def test_batches_of_any_size_put_every_photo_into_its_row(
    photos, after_gpu, tmp_path, monkeypatch, limits, part
):
    for name, value in limits.items():
        monkeypatch.setattr(gpu_decode, name, value)
    Image.open(photos[0].path).resize((70, 40)).save(tmp_path / "7.jpg", quality=95)
    photos = [*photos, sample_of(tmp_path / "7.jpg"), photos[0], photos[4]]
    reports = []
    other = on_gpu(
        photos,
        after_gpu(DECODE),
        part=part,
        progress=lambda *report: reports.append(report),
    )
    assert_alike(on_cores(photos, part=part), other, 4)
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
    deadline = threading.Timer(60, waited.set)
    deadline.start()
    other = on_gpu(photos, threads=2, progress=lambda *report: reports.append(report))
    deadline.cancel()
    assert not waited.is_set()
    one = on_cores(photos)
    assert one.unreadable == other.unreadable and np.array_equal(one.aspects, other.aspects)
    assert np.array_equal(one.pixels[8:], other.pixels[8:])
    assert reports[-1] == ("Decoding photos", len(photos), len(photos))


def test_cores_decode_what_nvjpeg_refuses(photos, after_gpu, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(gpu_decode, "decode_jpeg", refuse)
    assert_alike(on_cores(photos), on_gpu(photos, after_gpu(DECODE)), 0)


def test_a_failing_gpu_ends_the_other_decoders_too(photos, monkeypatch):
    monkeypatch.setattr(gpu_decode, "_decode_batch", lambda *_: 1 / 0)
    begun = []

    def slow(sample):
        begun.append(sample)
        time.sleep(0.01)
        return DECODE(sample)

    photos = photos * 100
    with pytest.raises(ZeroDivisionError):
        on_gpu(photos, slow)
    assert len(begun) < len(photos) / 2


def test_only_whole_upright_rgb_or_grey_jpegs_go_to_the_gpu(photos):
    plain = [sample.path.name for sample in photos if plain_jpeg(sample) is not None]
    assert plain == ["0.jpg", "4.jpg"]


def test_progressive_jpegs_are_left_to_the_cores(photos, tmp_path):
    path = tmp_path / "progressive.jpg"
    Image.open(photos[0].path).save(path, progressive=True)
    assert plain_jpeg(sample_of(path)) is None
    Image.open(photos[0].path).save(path)
    assert plain_jpeg(sample_of(path)) is not None


def test_cores_decode_while_the_gpu_warms_up(photos, monkeypatch):
    """A GPU that takes long to start gets what is left then, if anything."""
    begun, warm_up = threading.Event(), gpu_decode._warm_up

    def slow(device):
        warm_up(device)
        assert begun.wait(10)
        time.sleep(0.5)

    def decode(sample):
        begun.set()
        return DECODE(sample)

    read = []
    monkeypatch.setattr(gpu_decode, "_warm_up", slow)
    monkeypatch.setattr(gpu_decode, "plain_jpeg", lambda sample: read.append(sample))
    on_gpu(photos, decode)
    assert not read


def test_photos_changed_since_the_scan_are_unreadable(photos, after_gpu):
    for row, other in ((0, 4), (3, 2)):
        photos[row].path.write_bytes(photos[other].path.read_bytes())
    one, other = on_cores(photos), on_gpu(photos, after_gpu(DECODE))
    assert one.unreadable == other.unreadable == find_unreadable(photos, threads=2)
    assert not one.pixels[[0, 3]].any() and not other.pixels[[0, 3]].any()
    reasons = {path.name: reason for path, reason in one.unreadable.items()}
    assert reasons["0.jpg"] == reasons["3.png"] == "it changed while it was read"
    assert sum(reason == "it changed while it was read" for reason in reasons.values()) == 2
