"""Views of training photos: the batch warp against plain cropping, and the same view for the same place in the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms import v2

from edgetl.data.image_folder import Sample
from edgetl.data.layout import content_digest
from edgetl.runtime.images.resize import normalize
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.recipes import resolve
from edgetl.training.input.augment import BatchView, Normalizer, View
from edgetl.training.input.decoded_photos import Decoder, stored_size, typical_aspect
from edgetl.training.input.mixing import Mixing
from edgetl.training.input.sampler import Sampler
from edgetl.training.optim.weight_average import WeightAverage

STILL = View((32, 32), flip=False, rotation=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), colour=0.0)
PLACES = np.arange(200)


def ramp(height: int, width: int) -> torch.Tensor:
    """A photo whose red is the column and green the row, in shares of 255. uint8 [1, h, w, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x + 0.5) / width * 255, (y + 0.5) / height * 255, np.zeros_like(x)], -1)
    return torch.from_numpy(pixels.round().astype(np.uint8))[None]


def viewed(view: View, pixels: torch.Tensor, aspect: float, epoch: int = 0) -> torch.Tensor:
    """float32 [200, h, w, 3]: 200 views of one photo."""
    batch = BatchView(view, 0, len(PLACES))
    chances = batch.chances(epoch, PLACES, torch.full((len(PLACES),), aspect))
    return batch(pixels.expand(len(PLACES), -1, -1, -1), *chances)


def test_nothing_asked_for_is_a_plain_resize_of_a_square_photo():
    pixels = ramp(64, 64)
    plain = v2.functional.resize(
        pixels.permute(0, 3, 1, 2).float(), [32, 32], antialias=False
    ).permute(0, 2, 3, 1)
    assert (viewed(STILL, pixels, 1.0) - plain).abs().max() < 0.01


def corners(views: torch.Tensor) -> np.ndarray:
    """[N, 4]: left, top, right, bottom of the part of the ramp that each view shows, in 0..1; edges of pixels."""
    numbers = views.double().numpy() / 255
    step_x, step_y = (
        (numbers[:, 0, -1, 0] - numbers[:, 0, 0, 0]) / 31,
        (numbers[:, -1, 0, 1] - numbers[:, 0, 0, 1]) / 31,
    )
    left, top = numbers[:, 0, 0, 0] - step_x / 2, numbers[:, 0, 0, 1] - step_y / 2
    return np.stack([left, top, left + 32 * step_x, top + 32 * step_y], 1)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.7])
def test_cut_outs_have_the_area_and_aspect_asked_for_in_the_photo_as_it_was(aspect):
    view = replace(STILL, scale=(0.2, 0.4), ratio=(0.8, 1.25))
    left, top, right, bottom = corners(viewed(view, ramp(64, 64), aspect)).T
    area, ratio = (right - left) * (bottom - top), (right - left) * aspect / (bottom - top)
    assert left.min() > -0.01 and top.min() > -0.01 and right.max() < 1.01 and bottom.max() < 1.01
    assert 0.19 < area.min() < 0.23 and 0.37 < area.max() < 0.41
    assert 0.78 < ratio.min() < 0.88 and 1.14 < ratio.max() < 1.28
    assert np.ptp(left) > 0.3 and np.ptp(top) > 0.3


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.7])
def test_cut_outs_keep_the_photos_shape_where_validation_sees_all_of_it(aspect):
    view = replace(STILL, scale=(0.2, 0.4), ratio=(0.8, 1.25), whole=True)
    left, top, right, bottom = corners(viewed(view, ramp(64, 64), aspect)).T
    change = (right - left) / (bottom - top)
    assert left.min() > -0.01 and top.min() > -0.01 and right.max() < 1.01 and bottom.max() < 1.01
    assert 0.78 < change.min() < 0.88 and 1.14 < change.max() < 1.28
    everything = corners(
        viewed(replace(view, scale=(1.0, 1.0)), ramp(64, 64), aspect)
    )  # no other shape is as large
    np.testing.assert_allclose(everything, np.tile([0, 0, 1, 1], (200, 1)), atol=0.01)


def test_who_asks_for_squares_gets_torchvisions_cut_outs_of_them():
    square = PreprocessSpec("squash", (64, 64), "bicubic", None, (0.5,) * 3, (0.5,) * 3)
    cropped = PreprocessSpec("shorter_side", 64, "bicubic", (64, 64), (0.5,) * 3, (0.5,) * 3)
    asked, chosen = (resolve("d", given, cuda=True) for given in ({"resize": "squash"}, {}))
    assert [
        View.of(asked, square).whole,
        View.of(chosen, square).whole,
        View.of(chosen, cropped).whole,
    ] == [False, True, False]


def test_shapes_are_spread_as_torchvisions():
    torch.manual_seed(0)
    image = Image.new("RGB", (300, 200))
    theirs = np.array([box(image) for _ in range(2000)])
    view = replace(STILL, scale=(0.3, 1.0), ratio=(0.75, 4 / 3))
    batch = BatchView(view, 1, 2000)
    warps, _ = batch.chances(0, np.arange(2000), torch.full((2000,), 1.5))
    mine = warps.diagonal(
        dim1=1, dim2=2
    ).numpy()  # nothing is turned, so these are the sides' shares of the photo's
    assert (
        np.abs(
            np.quantile(mine, [0.1, 0.5, 0.9], axis=0)
            - np.quantile(theirs, [0.1, 0.5, 0.9], axis=0)
        ).max()
        < 0.03
    )


def box(image: Image.Image) -> tuple[float, float]:
    """(width, height) of one of torchvision's random cut-outs, in shares of the photo."""
    from torchvision.transforms import RandomResizedCrop

    _, _, height, width = RandomResizedCrop.get_params(image, [0.3, 1.0], [0.75, 4 / 3])
    return width / image.width, height / image.height


def test_half_are_mirrored():
    views = viewed(replace(STILL, flip=True), ramp(64, 64), 1.0)
    mirrored = (views[:, 0, 0, 0] > views[:, 0, -1, 0]).float().mean()
    assert 0.35 < mirrored < 0.65


def test_turning_keeps_right_angles_of_a_squashed_photo():
    """A square drawn into a 2:1 photo is a square again in the view, turned."""
    view = replace(STILL, rotation=30.0)
    views = viewed(view, ramp(128, 128), 2.0).double().numpy() / 255
    centre = slice(8, 24)  # away from the mirrored border
    right = np.diff(views[:, centre, centre, :2], axis=2).mean((1, 2)) * [2.0, 1.0]
    down = np.diff(views[:, centre, centre, :2], axis=1).mean((1, 2)) * [2.0, 1.0]
    angles = np.degrees(np.arctan2(right[:, 1], right[:, 0]))
    assert np.abs((right * down).sum(1)).max() < 1e-4
    assert angles.min() < -20 and angles.max() > 20 and np.abs(angles).max() < 30.5


def test_colours_vary_within_their_range_and_shapes_stay():
    views = viewed(
        replace(STILL, colour=0.3), torch.full((1, 64, 64, 3), 100, dtype=torch.uint8), 1.0
    )
    assert 69.9 < views.min() < 75 and 125 < views.max() < 130.1
    assert (
        viewed(replace(STILL, colour=0.0), torch.full((1, 64, 64, 3), 100, dtype=torch.uint8), 1.0)
        .eq(100)
        .all()
    )


def test_a_view_depends_on_seed_epoch_and_place_alone():
    view = replace(STILL, scale=(0.2, 1.0), flip=True)

    def chances(epoch: int, seed: int = 0, places: np.ndarray = PLACES) -> torch.Tensor:
        warps, colours = BatchView(view, seed, 200).chances(epoch, places, torch.ones(len(places)))
        return torch.cat([warps.flatten(1), colours], 1)

    parts = BatchView(view, 0, 200).chances(3, PLACES, torch.ones(200))
    assert all(
        part.is_contiguous() for part in parts
    )  # else copying them to a GPU would wait for it
    assert torch.equal(chances(3)[7], chances(3, places=np.array([7]))[0])
    assert not torch.isclose(chances(3), chances(4)).all(1).any()
    assert not torch.isclose(chances(3), chances(3, seed=1)).all(1).any()


def test_training_normalizes_as_the_predictor():
    spec = PreprocessSpec(
        "squash", (8, 8), "bilinear", None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    ours = Normalizer(spec, torch.device("cpu"))(torch.from_numpy(pixels))
    assert np.array_equal(ours.numpy(), normalize(pixels, spec))


def test_stored_photos_are_somewhat_larger_than_the_network_wants(tmp_path):
    assert stored_size((224, 224), 1.0) == (288, 288)
    Image.fromarray(ramp(60, 120)[0].numpy()).save(tmp_path / "a.png")
    spec = PreprocessSpec("shorter_side", 40, "bicubic", (32, 32), (0.5,) * 3, (0.5,) * 3)
    pixels, aspect = Decoder(spec, (64, 64))(
        Sample(tmp_path / "a.png", 0, content_digest(tmp_path / "a.png"))
    )
    assert pixels.shape == (64, 64, 3) and aspect == 2.0
    assert np.abs(pixels.astype(int) - ramp(64, 64)[0].numpy()).max() <= 2


def test_long_photos_are_stored_as_dense_along_both_sides(tmp_path):
    names = {
        "wide.png": ((80, 60), None),
        "turned.jpg": ((60, 80), 6),
        "wider.webp": ((90, 60), None),
        "tall.jpg": ((60, 80), None),
    }
    for name, (size, orientation) in names.items():
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        Image.new("RGB", size).save(tmp_path / name, exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    samples = [
        Sample(tmp_path / name, 0, str(number))
        for number, name in enumerate([*names, "broken.jpg", "missing.jpg"])
    ]
    assert typical_aspect(samples) == pytest.approx(4 / 3)  # the median of 3:2, 4:3 twice, and 3:4
    assert typical_aspect(samples[4:]) == 1.0
    assert stored_size((256, 256), 4 / 3) == (288, 384)
    assert stored_size((256, 256), 3 / 4) == (384, 288)
    assert stored_size((256, 256), 9.0) == stored_size((256, 256), 2.0)
    assert stored_size((192, 256), 4 / 3) == (256, 320)


def test_asking_for_an_aspect_decodes_nothing(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "c.webp"):
        Image.new("RGB", (90, 60)).save(tmp_path / name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: 1 / 0)
    assert typical_aspect([Sample(path, 0, path.name) for path in tmp_path.iterdir()]) == 1.5


def test_mixing_blends_photos_and_targets_alike():
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    share = Sampler(range(12), 6, 0).share(2, 1, 0)
    off, same = Mixing(resolve("d", {"strategy": "full"}, cuda=False), 3)(images, labels, share)
    assert off is images and same is labels
    mixing = Mixing(resolve("d", {"strategy": "full", "mixup": 0.5}, cuda=False), 3)
    mixed, targets = mixing(images, labels, share)
    assert targets.shape == (6, 3) and torch.allclose(targets.sum(1), torch.ones(6))
    assert not torch.equal(mixed, images)
    assert torch.equal(mixing(images, labels, share)[0], mixed)
    assert not torch.equal(mixing(images, labels, replace(share, epoch=3))[0], mixed)


@pytest.mark.parametrize("kinds", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 0.3}])
def test_processes_mix_their_shares_as_one_does_the_batch(kinds):
    mixing = Mixing(resolve("d", {"strategy": "full", **kinds}, cuda=False), 5)
    images, labels = torch.rand(23, 3, 8, 8), torch.arange(23) % 5
    one = Sampler(labels.tolist(), 8, 0)
    three = Sampler(labels.tolist(), 8, 0, processes=3, mixed=True)
    for batch in range(one.batches):
        whole = one.share(1, batch, 0)
        expected = mixing(images[whole.photos], labels[whole.photos], whole)
        shares = [three.share(1, batch, rank) for rank in range(3)]
        parts = [mixing(images[share.photos], labels[share.photos], share) for share in shares]
        assert np.array_equal(
            np.concatenate([share.positions[1:] for share in shares]), whole.positions
        )
        for mixed, joined in zip(expected, zip(*parts, strict=True), strict=True):
            assert torch.equal(mixed, torch.cat(joined))


def test_the_average_follows_trained_weights_and_statistics_and_leaves_the_frozen_alone():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    network[0].bias.requires_grad_(False)
    average = WeightAverage(network, 0.9)
    start = {key: value.clone() for key, value in average.network.state_dict().items()}
    expected = start["0.weight"].double()
    for step in range(1, 200):
        with torch.no_grad():
            network[0].weight.add_(0.1)
            network[1].running_mean.add_(1.0)
            network[1].num_batches_tracked.add_(1)
        average.update()
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * network[0].weight.detach().double()
        torch.testing.assert_close(
            average.network[0].weight.double(), expected, rtol=1e-5, atol=1e-5
        )
    state = average.network.state_dict()
    assert torch.equal(state["0.bias"], start["0.bias"])
    assert state["1.num_batches_tracked"] == 199
    assert 180 < state["1.running_mean"].min() < 199
