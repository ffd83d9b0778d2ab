"""Augmentation of training photos: the batch warp against plain crops, and its random numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from edgetl.data.image_folder import Sample
from edgetl.data.layout import content_digest
from edgetl.runtime.images.resize import normalize
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.recipes import resolve
from edgetl.training.input.augment import AugmentSettings, BatchAugmentation, Normalizer
from edgetl.training.input.decoded_photos import TrainingDecoder
from edgetl.training.input.mixing import Mixing
from edgetl.training.input.photo_shape import stored_size, typical_aspect
from edgetl.training.input.sampler import Sampler
from edgetl.training.torch_env.vision_libraries import v2

UNCHANGED = AugmentSettings(
    (32, 32), flip=False, rotation=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), colour=0.0
)
POSITIONS = np.arange(200)


def ramp(height: int, width: int) -> torch.Tensor:
    """A photo whose red is the column and green the row, in shares of 255. uint8 [1, h, w, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x + 0.5) / width * 255, (y + 0.5) / height * 255, np.zeros_like(x)], -1)
    return torch.from_numpy(pixels.round().astype(np.uint8))[None]


def augmented(
    settings: AugmentSettings, pixels: torch.Tensor, aspect: float, epoch: int = 0
) -> torch.Tensor:
    """float32 [200, h, w, 3]: one photo, augmented 200 times."""
    batch = BatchAugmentation(settings, 0, len(POSITIONS))
    transforms = batch.draw(epoch, POSITIONS, torch.full((len(POSITIONS),), aspect))
    return batch(pixels.expand(len(POSITIONS), -1, -1, -1), *transforms)


def test_without_augmentation_a_square_photo_is_resized():
    pixels = ramp(64, 64)
    plain = v2.functional.resize(
        pixels.permute(0, 3, 1, 2).float(), [32, 32], antialias=False
    ).permute(0, 2, 3, 1)
    assert (augmented(UNCHANGED, pixels, 1.0) - plain).abs().max() < 0.01


def corners(images: torch.Tensor) -> np.ndarray:
    """[N, 4]: left, top, right, bottom of what each crop shows of the ramp, 0..1, pixel edges."""
    numbers = images.double().numpy() / 255
    step_x, step_y = (
        (numbers[:, 0, -1, 0] - numbers[:, 0, 0, 0]) / 31,
        (numbers[:, -1, 0, 1] - numbers[:, 0, 0, 1]) / 31,
    )
    left, top = numbers[:, 0, 0, 0] - step_x / 2, numbers[:, 0, 0, 1] - step_y / 2
    return np.stack([left, top, left + 32 * step_x, top + 32 * step_y], 1)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.7])
def test_crops_have_the_scale_and_ratio_of_the_settings_in_the_original_photo(aspect):
    settings = replace(UNCHANGED, scale=(0.2, 0.4), ratio=(0.8, 1.25))
    left, top, right, bottom = corners(augmented(settings, ramp(64, 64), aspect)).T
    area, ratio = (right - left) * (bottom - top), (right - left) * aspect / (bottom - top)
    assert left.min() > -0.01 and top.min() > -0.01 and right.max() < 1.01 and bottom.max() < 1.01
    assert 0.19 < area.min() < 0.23 and 0.37 < area.max() < 0.41
    assert 0.78 < ratio.min() < 0.88 and 1.14 < ratio.max() < 1.28
    assert np.ptp(left) > 0.3 and np.ptp(top) > 0.3


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.7])
def test_crops_keep_the_photos_aspect_where_validation_squashes_it_whole(aspect):
    settings = replace(UNCHANGED, scale=(0.2, 0.4), ratio=(0.8, 1.25), keep_aspect=True)
    left, top, right, bottom = corners(augmented(settings, ramp(64, 64), aspect)).T
    change = (right - left) / (bottom - top)
    assert left.min() > -0.01 and top.min() > -0.01 and right.max() < 1.01 and bottom.max() < 1.01
    assert 0.78 < change.min() < 0.88 and 1.14 < change.max() < 1.28
    everything = corners(
        augmented(replace(settings, scale=(1.0, 1.0)), ramp(64, 64), aspect)
    )  # only the whole photo is as large
    np.testing.assert_allclose(everything, np.tile([0, 0, 1, 1], (200, 1)), atol=0.01)


def test_with_resize_squash_crops_are_torchvisions():
    square = PreprocessSpec("squash", (64, 64), "bicubic", None, (0.5,) * 3, (0.5,) * 3)
    cropped = PreprocessSpec("shorter_side", 64, "bicubic", (64, 64), (0.5,) * 3, (0.5,) * 3)
    asked, chosen = (resolve("d", given, cuda=True) for given in ({"resize": "squash"}, {}))
    assert [
        AugmentSettings.from_settings(asked, square).keep_aspect,
        AugmentSettings.from_settings(chosen, square).keep_aspect,
        AugmentSettings.from_settings(chosen, cropped).keep_aspect,
    ] == [False, True, False]


def test_crops_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    image = Image.new("RGB", (300, 200))
    theirs = np.array([box(image) for _ in range(2000)])
    settings = replace(UNCHANGED, scale=(0.3, 1.0), ratio=(0.75, 4 / 3))
    batch = BatchAugmentation(settings, 1, 2000)
    warps, _ = batch.draw(0, np.arange(2000), torch.full((2000,), 1.5))
    mine = warps.diagonal(
        dim1=1, dim2=2
    ).numpy()  # without rotation: the sides, as shares of the photo's
    assert (
        np.abs(
            np.quantile(mine, [0.1, 0.5, 0.9], axis=0)
            - np.quantile(theirs, [0.1, 0.5, 0.9], axis=0)
        ).max()
        < 0.03
    )


def box(image: Image.Image) -> tuple[float, float]:
    """(width, height) of one of torchvision's random crops, as shares of the photo."""
    from torchvision.transforms import RandomResizedCrop

    _, _, height, width = RandomResizedCrop.get_params(image, [0.3, 1.0], [0.75, 4 / 3])
    return width / image.width, height / image.height


def test_half_of_the_photos_are_flipped():
    images = augmented(replace(UNCHANGED, flip=True), ramp(64, 64), 1.0)
    mirrored = (images[:, 0, 0, 0] > images[:, 0, -1, 0]).float().mean()
    assert 0.35 < mirrored < 0.65


def test_rotation_keeps_right_angles_of_a_squashed_photo():
    """A square drawn into a 2:1 photo is a square again after augmentation, rotated."""
    settings = replace(UNCHANGED, rotation=30.0)
    images = augmented(settings, ramp(128, 128), 2.0).double().numpy() / 255
    centre = slice(8, 24)  # away from the mirrored border
    right = np.diff(images[:, centre, centre, :2], axis=2).mean((1, 2)) * [2.0, 1.0]
    down = np.diff(images[:, centre, centre, :2], axis=1).mean((1, 2)) * [2.0, 1.0]
    angles = np.degrees(np.arctan2(right[:, 1], right[:, 0]))
    assert np.abs((right * down).sum(1)).max() < 1e-4
    assert angles.min() < -20 and angles.max() > 20 and np.abs(angles).max() < 30.5


def test_colours_vary_within_their_range_and_shapes_stay():
    images = augmented(
        replace(UNCHANGED, colour=0.3), torch.full((1, 64, 64, 3), 100, dtype=torch.uint8), 1.0
    )
    assert 69.9 < images.min() < 75 and 125 < images.max() < 130.1
    assert (
        augmented(
            replace(UNCHANGED, colour=0.0), torch.full((1, 64, 64, 3), 100, dtype=torch.uint8), 1.0
        )
        .eq(100)
        .all()
    )


def test_augmentation_depends_on_seed_epoch_and_position_alone():
    settings = replace(UNCHANGED, scale=(0.2, 1.0), flip=True)

    def draw_all(epoch: int, seed: int = 0, positions: np.ndarray = POSITIONS) -> torch.Tensor:
        warps, colours = BatchAugmentation(settings, seed, 200).draw(
            epoch, positions, torch.ones(len(positions))
        )
        return torch.cat([warps.flatten(1), colours], 1)

    parts = BatchAugmentation(settings, 0, 200).draw(3, POSITIONS, torch.ones(200))
    assert all(
        part.is_contiguous() for part in parts
    )  # else copying them to a GPU would wait for it
    assert torch.equal(draw_all(3)[7], draw_all(3, positions=np.array([7]))[0])
    assert not torch.isclose(draw_all(3), draw_all(4)).all(1).any()
    assert not torch.isclose(draw_all(3), draw_all(3, seed=1)).all(1).any()


def test_training_normalizes_as_the_predictor_does():
    spec = PreprocessSpec(
        "squash", (8, 8), "bilinear", None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    ours = Normalizer(spec, torch.device("cpu"))(torch.from_numpy(pixels))
    assert np.array_equal(ours.numpy(), normalize(pixels, spec))


def test_stored_photos_are_somewhat_larger_than_the_networks_input(tmp_path):
    assert stored_size((224, 224), 1.0) == (288, 288)
    Image.fromarray(ramp(60, 120)[0].numpy()).save(tmp_path / "a.png")
    spec = PreprocessSpec("shorter_side", 40, "bicubic", (32, 32), (0.5,) * 3, (0.5,) * 3)
    pixels, aspect = TrainingDecoder(spec, (64, 64))(
        Sample(tmp_path / "a.png", 0, content_digest(tmp_path / "a.png"))
    )
    assert pixels.shape == (64, 64, 3) and aspect == 2.0
    assert np.abs(pixels.astype(int) - ramp(64, 64)[0].numpy()).max() <= 2


def test_long_photos_are_stored_at_the_same_density_along_both_sides(tmp_path):
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


def test_finding_the_aspect_decodes_nothing(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "c.webp"):
        Image.new("RGB", (90, 60)).save(tmp_path / name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: 1 / 0)
    assert typical_aspect([Sample(path, 0, path.name) for path in tmp_path.iterdir()]) == 1.5


def test_mixing_blends_photos_and_targets():
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    shard = Sampler(range(12), 6, 0).shard(2, 1, 0)
    off, same = Mixing(resolve("d", {"strategy": "full"}, cuda=False), 3)(images, labels, shard)
    assert off is images and same is labels
    mixing = Mixing(resolve("d", {"strategy": "full", "mixup": 0.5}, cuda=False), 3)
    mixed, targets = mixing(images, labels, shard)
    assert targets.shape == (6, 3) and torch.allclose(targets.sum(1), torch.ones(6))
    assert not torch.equal(mixed, images)
    assert torch.equal(mixing(images, labels, shard)[0], mixed)
    assert not torch.equal(mixing(images, labels, replace(shard, epoch=3))[0], mixed)


@pytest.mark.parametrize("kinds", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 0.3}])
def test_processes_mix_their_shards_as_one_process_does_the_batch(kinds):
    mixing = Mixing(resolve("d", {"strategy": "full", **kinds}, cuda=False), 5)
    images, labels = torch.rand(23, 3, 8, 8), torch.arange(23) % 5
    one = Sampler(labels.tolist(), 8, 0)
    three = Sampler(labels.tolist(), 8, 0, processes=3, mixed=True)
    for batch in range(one.batches):
        whole = one.shard(1, batch, 0)
        expected = mixing(images[whole.indices], labels[whole.indices], whole)
        shards = [three.shard(1, batch, rank) for rank in range(3)]
        parts = [mixing(images[shard.indices], labels[shard.indices], shard) for shard in shards]
        assert np.array_equal(
            np.concatenate([shard.positions[1:] for shard in shards]), whole.positions
        )
        for mixed, joined in zip(expected, zip(*parts, strict=True), strict=True):
            assert torch.equal(mixed, torch.cat(joined))
