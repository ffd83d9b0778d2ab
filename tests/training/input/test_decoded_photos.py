"""Decoded photos: where they are kept, and that every way of decoding them finds the same ones unreadable."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgetl.data.image_folder import Sample, find_unreadable
from edgetl.data.layout import content_digest
from edgetl.errors import TrainingError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.evaluation.validation import Scores, Validation, scores
from edgetl.training.input import gpu_decode, loader
from edgetl.training.input import photo_storage as storage
from edgetl.training.input.decoded_photos import Decoder, store
from edgetl.training.input.gpu_decode import plain_jpeg, store_on_gpu
from edgetl.training.input.loader import prefetched
from edgetl.training.input.photo_storage import allocate
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.oom_retry import halve_on_oom

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)
CPU = Processes(torch.device("cpu"))


@pytest.fixture
def photos(tmp_path: Path) -> list[Sample]:
    """A plain JPEG, a turned one, CMYK, PNG, grey, one cut short, one that is no photo."""
    y, x = np.mgrid[0:60, 0:90]
    image = Image.fromarray(np.stack([x * 2, y * 4, x + y], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "0.jpg", quality=95)
    image.save(tmp_path / "1.jpg", exif=exif, quality=95)
    image.convert("CMYK").save(tmp_path / "2.jpg")
    image.save(tmp_path / "3.png")
    image.convert("L").save(tmp_path / "4.jpg", quality=95)
    (tmp_path / "5.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:-300])
    (tmp_path / "6.jpg").write_bytes(b"text")
    return [sample_of(path) for path in sorted(tmp_path.iterdir())]


def sample_of(path: Path) -> Sample:
    return Sample(path, 0, content_digest(path))


def test_photos_are_stored_with_their_aspect_and_the_unreadable_ones_named(photos):
    room = np.zeros((7, 64, 64, 3), np.uint8)
    calls = []
    stored = store(photos, Decoder(SPEC, (64, 64)), room, threads=3, done=lambda: calls.append(1))
    assert stored.aspects[:5].tolist() == pytest.approx([1.5, 60 / 90, 1.5, 1.5, 1.5])
    assert sorted(path.name for path in stored.unreadable) == ["5.jpg", "6.jpg"]
    assert len(calls) == 7
    assert all(room[row].any() for row in range(5)) and not room[5:].any()


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_gpus_way_gives_nearly_the_same_pixels_and_the_same_unreadable_photos(
    photos, patient, tmp_path, interpolation
):
    """torchvision decodes the same list on the CPU, so all but nvJPEG itself is run here."""
    fine = np.random.default_rng(0).integers(
        0, 256, (200, 300, 3), np.uint8
    )  # on which filters differ
    Image.fromarray(fine).save(tmp_path / "7.jpg", quality=95)
    photos = [sample_of(tmp_path / "7.jpg"), *photos]  # first, where the GPU begins
    rooms = [np.zeros((8, 64, 64, 3), np.uint8) for _ in range(2)]
    decode = Decoder(replace(SPEC, interpolation=interpolation), (64, 64))
    one = store(photos, decode, rooms[0], threads=2)
    other = store_on_gpu(
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
    calls = []
    rooms = [np.zeros((len(photos), 64, 64, 3), np.uint8) for _ in range(2)]
    one = store(photos, Decoder(SPEC, (64, 64)), rooms[0], part=part, threads=2)
    decode, done = patient(Decoder(SPEC, (64, 64))), lambda: calls.append(1)
    other = store_on_gpu(
        photos,
        decode,
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        part=part,
        threads=1,
        done=done,
    )
    assert one.unreadable == other.unreadable
    assert np.array_equal(one.aspects, other.aspects)
    assert np.abs(rooms[0].astype(int) - rooms[1]).max() <= 4
    assert len(calls) == len(photos[part[0] :: part[1]])


def test_cores_do_the_rest_while_the_gpu_is_slow(photos, monkeypatch):
    photos, calls = photos * 10, []

    def slow(jpegs, *rest):
        while len(calls) < len(photos) - 2 * gpu_decode._BATCH and not waited.wait(0.01):
            pass
        return original(jpegs, *rest)

    original, waited = gpu_decode._decoded, threading.Event()
    monkeypatch.setattr(gpu_decode, "_decoded", slow)
    monkeypatch.setattr(gpu_decode, "_BATCH", 4)
    monkeypatch.setattr(gpu_decode, "_AHEAD", 4)
    rooms = [np.zeros((len(photos), 64, 64, 3), np.uint8) for _ in range(2)]
    one = store(photos, Decoder(SPEC, (64, 64)), rooms[0], threads=2)
    deadline = threading.Timer(60, waited.set)
    deadline.start()
    decode, done = Decoder(SPEC, (64, 64)), lambda: calls.append(1)
    other = store_on_gpu(
        photos, decode, rooms[1], torch.device("cpu"), SPEC.interpolation, threads=2, done=done
    )
    deadline.cancel()
    assert not waited.is_set()
    assert one.unreadable == other.unreadable and np.array_equal(one.aspects, other.aspects)
    assert np.array_equal(rooms[0][8:], rooms[1][8:])
    assert len(calls) == len(photos)


def test_what_nvjpeg_refuses_goes_the_ordinary_way(photos, patient, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(gpu_decode, "decode_jpeg", refuse)
    rooms = [np.zeros((7, 64, 64, 3), np.uint8) for _ in range(2)]
    one = store(photos, Decoder(SPEC, (64, 64)), rooms[0], threads=2)
    other = store_on_gpu(
        photos,
        patient(Decoder(SPEC, (64, 64))),
        rooms[1],
        torch.device("cpu"),
        SPEC.interpolation,
        threads=1,
    )
    assert one.unreadable == other.unreadable and np.array_equal(one.aspects, other.aspects)
    assert np.array_equal(*rooms)


def test_a_failing_gpu_ends_the_other_decoders_too(photos, monkeypatch):
    monkeypatch.setattr(gpu_decode, "_decoded", lambda *_: 1 / 0)
    begun = []
    decode = Decoder(SPEC, (64, 64))

    def counted(sample):
        begun.append(sample)
        time.sleep(0.01)
        return decode(sample)

    photos = photos * 100
    with pytest.raises(ZeroDivisionError):
        store_on_gpu(
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


def test_while_the_gpu_wakes_up_cores_decode(photos, monkeypatch):
    """A GPU that takes long to begin gets what is left then, if anything."""
    begun, plain = threading.Event(), gpu_decode._wake

    def slow(device):
        plain(device)
        assert begun.wait(10)
        time.sleep(0.5)

    def decode(sample):
        begun.set()
        return Decoder(SPEC, (64, 64))(sample)

    seen = []
    monkeypatch.setattr(gpu_decode, "_wake", slow)
    monkeypatch.setattr(gpu_decode, "plain_jpeg", lambda sample: seen.append(sample))
    room = np.zeros((len(photos), 64, 64, 3), np.uint8)
    store_on_gpu(photos, decode, room, torch.device("cpu"), SPEC.interpolation, threads=1)
    assert not seen


def test_photos_that_are_no_longer_what_was_scanned_are_not_trained_on(photos, patient):
    for row, other in ((0, 4), (3, 2)):
        photos[row].path.write_bytes(photos[other].path.read_bytes())
    rooms = [np.zeros((7, 64, 64, 3), np.uint8) for _ in range(2)]
    one = store(photos, Decoder(SPEC, (64, 64)), rooms[0], threads=2)
    other = store_on_gpu(
        photos,
        patient(Decoder(SPEC, (64, 64))),
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


def test_a_part_of_the_photos_fills_its_rows_alone(photos):
    room = np.zeros((7, 64, 64, 3), np.uint8)
    store(photos, Decoder(SPEC, (64, 64)), room, part=(1, 2), threads=2)
    assert [bool(pixels.any()) for pixels in room] == [
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("where", ["memory", "disk", "auto"])
def test_room_is_empty_writable_and_leaves_no_file(tmp_path, where):
    room = allocate((5, 4, 4, 3), where, tmp_path)
    room[3] = 7
    assert room.sum() == 7 * 48 and room.shape == (5, 4, 4, 3)
    assert list(tmp_path.iterdir()) == []


def test_without_memory_photos_go_to_disk_and_without_disk_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "available_memory", lambda: 100)
    with pytest.raises(TrainingError, match="too much memory"):
        allocate((1000, 3), "memory", tmp_path)
    assert allocate((1000, 3), "auto", tmp_path).base is not None
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 100)
    assert allocate((1000, 3), "auto", tmp_path) is None
    with pytest.raises(TrainingError, match="no room"):
        allocate((1 << 50,), "disk", tmp_path)


def test_files_that_a_container_has_read_do_not_count_as_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_GROUP", tmp_path)
    for limit, used, stats, free in [
        ("1000", "900", "anon 300\ninactive_file 600", 700),
        ("1000", "900", "anon 900", 100),
    ]:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"{stats}\n")
        assert storage.available_memory() == free
    (tmp_path / "memory.max").write_text("max\n")
    assert storage.available_memory() > 1000


def test_validation_sees_what_the_predictor_sees_with_room_and_without(
    photos, tmp_path, monkeypatch
):
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, ::97]

    exact = [resize_image(read_image(sample.path), SPEC) for sample in photos[:5]]
    expected = torch.from_numpy(np.stack(exact)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with_room = Validation(photos[:5], SPEC, CPU, tmp_path, threads=1)
    monkeypatch.setattr("edgetl.training.evaluation.validation.allocate", lambda *_: None)
    without = Validation(photos[:5], SPEC, CPU, tmp_path, threads=2)
    for validation in (with_room, without):
        assert np.abs(validation.logits(Mean()) - expected.flatten(1)[:, ::97].numpy()).max() < 1e-6
    assert sorted(
        path.name for path in Validation(photos, SPEC, CPU, tmp_path, threads=2).unreadable
    ) == ["5.jpg", "6.jpg"]


def test_scores_are_torchs():
    logits = torch.randn(50, 4) * 30
    labels = torch.arange(50) % 4
    result = scores(logits.numpy(), labels.numpy())
    assert result.loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5
    )
    assert result.accuracy == (logits.argmax(1) == labels).double().mean().item()


def test_accuracy_decides_then_loss():
    assert Scores(0.9, 1.0, 1.0).better_than(Scores(0.8, 0.1, 0.1))
    assert Scores(0.9, 0.7, 0.5).better_than(Scores(0.9, 0.6, 0.6))
    assert not Scores(0.9, 0.5, 0.6).better_than(Scores(0.9, 0.6, 0.6))
    assert Scores(0.0, 9.0, 9.0).better_than(None)


def test_how_sure_logits_are_does_not_make_them_better():
    logits, labels = np.array([[2.0, 0.0], [0.5, 1.0], [1.0, 0.2]], np.float32), np.array([0, 1, 1])
    sure, unsure = scores(4 * logits, labels), scores(logits / 4, labels)
    assert sure.loss != pytest.approx(unsure.loss)
    assert sure.tempered == pytest.approx(unsure.tempered)
    assert sure.tempered <= min(sure.loss, unsure.loss)


def test_prefetched_items_come_in_order_and_errors_after_them():
    def items():
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in prefetched(items(), 2):
            seen.append(item)
    assert seen == list(range(5))


def test_prefetching_ends_with_who_asks():
    def endless():
        while True:
            yield 1

    stream = prefetched(endless(), 2)
    assert next(stream) == 1
    stream.close()


def test_what_the_memory_is_too_small_for_is_done_by_halves(monkeypatch):
    most, sizes = 3, []

    def compute(pixels: np.ndarray) -> torch.Tensor:
        if len(pixels) > most:
            raise torch.OutOfMemoryError
        sizes.append(len(pixels))
        return torch.from_numpy(pixels) * 2

    pixels = np.arange(11, dtype=np.uint8)
    assert halve_on_oom(compute, pixels).tolist() == (pixels * 2).tolist()
    assert max(sizes) <= most and sum(sizes) == 11
    most = 0
    with pytest.raises(TrainingError, match="too small for one photo"):
        halve_on_oom(compute, pixels)


@pytest.mark.parametrize(
    ("said", "halved"), [("FIND was unable to find an engine", True), ("shapes do not fit", False)]
)
def test_only_errors_for_want_of_memory_are_done_again_by_halves(said, halved):
    def compute(pixels: np.ndarray) -> torch.Tensor:
        if len(pixels) > 2:
            raise RuntimeError(said)
        return torch.from_numpy(pixels)

    with nullcontext() if halved else pytest.raises(RuntimeError, match=said):
        assert halve_on_oom(compute, np.arange(4, dtype=np.uint8)).tolist() == [0, 1, 2, 3]


def test_processes_that_are_not_forked_can_decode_too(photos):
    given = loader._Photos(photos, Decoder(SPEC, (64, 64)))
    there = pickle.loads(pickle.dumps(given))
    assert np.array_equal(there[3][0], given[3][0]) and there[3][1] == 1.5
    assert "5.jpg" in there[5]


@pytest.mark.parametrize(
    ("room", "kind"), [(1 << 30, torch.Tensor), (100, np.ndarray), (0, np.ndarray)]
)
def test_worker_processes_hand_on_pixels_in_shared_memory_where_there_is_room(
    monkeypatch, room, kind
):
    monkeypatch.setattr(loader, "free_bytes", lambda folder: room)
    photos = [(np.full((4, 4, 3), value, np.uint8), 0.5 + value) for value in range(2)]
    pixels, aspects = loader._stacked(photos)
    assert isinstance(pixels, kind) and aspects.tolist() == [0.5, 1.5]
    assert np.array_equal(np.asarray(pixels), np.stack([pixels for pixels, _ in photos]))


def test_networks_with_filters_of_three_dimensions_are_moved_too():
    """As lambda networks have; torch's own way of laying filters out for a device refuses them."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1), nn.Conv3d(1, 2, 3)
    )
    before = [parameter.clone() for parameter in network.parameters()]
    moved = channels_last(network, torch.device("cpu"))
    assert moved is network and all(map(torch.equal, network.parameters(), before))
    usual = copy.deepcopy(network[:3]).to(memory_format=torch.channels_last)
    assert [p.stride() for p in network[:3].parameters()] == [
        p.stride() for p in usual.parameters()
    ]
    assert network[1].weight.stride() == (
        9,
        1,
        3,
        1,
    )  # of one channel: either layout, but for what gradients come in
