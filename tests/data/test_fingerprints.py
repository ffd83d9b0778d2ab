"""Near duplicates: found after every usual change, and not among photos that differ.

Private names are used to reach all code paths of the search with few photos, and to count its work.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from edgetl.data import fingerprints
from edgetl.data.fingerprints import (
    Fingerprint,
    fingerprint,
    near_duplicate_groups,
    rotated_duplicate_groups,
)


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Coarse coloured shapes with fine grain, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def reencoded(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=35)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "re-encoded": reencoded,
    "halved": lambda image: image.resize((image.width // 2, image.height // 2)),
    "squashed": lambda image: image.resize((224, 224)),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.75),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "trimmed": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_photos(change):
    others = [fingerprint(scene(seed)) for seed in range(40)]
    copy = fingerprint(CHANGES[change](scene(7)))
    assert near_duplicate_groups([*others, copy]) == [[7, 40]]


@pytest.mark.parametrize("find", [near_duplicate_groups, rotated_duplicate_groups])
def test_different_photos_are_not_near(find):
    assert find([fingerprint(scene(seed)) for seed in range(400)]) == []


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
def test_a_copy_is_found_in_each_of_the_eight_orientations(turn):
    photos = [scene(seed) for seed in range(40)]
    copies = [reencoded(photo if turn is None else photo.transpose(turn)) for photo in photos]
    prints = [fingerprint(photo) for photo in (*photos, *copies)]
    assert rotated_duplicate_groups(prints) == [[number, number + 40] for number in range(40)]
    assert near_duplicate_groups(prints) == (
        [] if turn is not None else rotated_duplicate_groups(prints)
    )


def test_similar_hashes_of_different_thumbnails_are_refused():
    print_ = fingerprint(scene(1))
    other = fingerprint(scene(2))
    assert near_duplicate_groups([print_, Fingerprint(print_.hash, other.thumbnail)]) == []
    assert near_duplicate_groups([print_, Fingerprint(other.hash, print_.thumbnail)]) == []


def test_flat_photos_have_no_fingerprint():
    assert fingerprint(Image.new("RGB", (80, 80), (200, 10, 10))) is None
    assert fingerprint(scene(1, width=1, height=1)) is None


def bits_apart(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("partners", [fingerprints._FEW_PARTNERS, 0])
@pytest.mark.parametrize("block", [fingerprints._BLOCK, 50])
def test_multi_index_hashing_finds_what_comparing_all_pairs_finds(monkeypatch, block, partners):
    monkeypatch.setattr(fingerprints, "_BLOCK", block)
    monkeypatch.setattr(fingerprints, "_FEW_PARTNERS", partners)
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**64, 300, np.uint64)]
    for number in range(300):  # copies with 0 to 11 bits flipped, anywhere
        flips = rng.choice(64, size=number % 12, replace=False)
        hashes.append(hashes[number] ^ sum(1 << int(bit) for bit in flips))
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if bits_apart(hashes[i], hashes[j]) <= fingerprints.MAX_DISTANCE
    ]
    thumbnail = rng.integers(0, 256, (16, 16), np.uint8)
    assert len(expected) >= 200
    assert near_duplicate_groups([Fingerprint(value, thumbnail) for value in hashes]) == expected


def test_photos_of_fixed_cameras_are_grouped_without_comparing_all_pairs(monkeypatch):
    """1,000 photos of one camera, and 1,000 of another."""
    compared = []
    distances = fingerprints._distances
    monkeypatch.setattr(
        fingerprints,
        "_distances",
        lambda left, right: compared.append(len(left)) or distances(left, right),
    )
    rng = np.random.default_rng(0)
    prints = []
    for seed in (1, 2):
        print_ = fingerprint(scene(seed))
        for _ in range(1000):
            flipped = sum(1 << int(bit) for bit in rng.choice(64, 2, replace=False))
            prints.append(Fingerprint(print_.hash ^ flipped, print_.thumbnail))
    order = rng.permutation(len(prints))
    groups = near_duplicate_groups([prints[place] for place in order])
    assert groups == sorted(
        (np.flatnonzero(order // 1000 == camera).tolist() for camera in (0, 1)), key=min
    )
    assert sum(compared) < 64 * fingerprints._FEW_PARTNERS * len(prints) / 2


def test_a_crowded_bucket_does_not_hide_a_copy():
    """In buckets of many different photos, all are compared: these two share only such a bucket."""
    rng = np.random.default_rng(0)
    for place in range(60):
        thumbnails = rng.integers(0, 256, (60, 16, 16), np.uint8)
        prints = [
            Fingerprint(int(rng.integers(1 << 48)) << 16 | 0xABCD, thumbnail)
            for thumbnail in thumbnails
        ]
        changed = sum(0b11 << 16 * part for part in (1, 2, 3))
        prints.insert(place, Fingerprint(prints[-1].hash ^ changed, thumbnails[-1]))
        assert near_duplicate_groups(prints) == [[place, 60]]


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_grouped_as_by_comparing_all_pairs(seed):
    rng = np.random.default_rng(seed)
    centres = [int(rng.integers(1 << 63)) for _ in range(rng.integers(1, 5))]
    thumbnails = rng.integers(0, 256, (3, 16, 16), np.uint8)
    hashes, looks = [], []
    for _ in range(rng.integers(50, 400)):
        flips = rng.choice(64, rng.integers(0, 9), replace=False)
        hashes.append(centres[rng.integers(len(centres))] ^ sum(1 << int(bit) for bit in flips))
        looks.append(int(rng.integers(3)))
    prints = [
        Fingerprint(value, thumbnails[look]) for value, look in zip(hashes, looks, strict=True)
    ]
    near = [
        [bits_apart(one, other) <= fingerprints.MAX_DISTANCE for other in hashes] for one in hashes
    ]
    same = np.array(near) & (np.array(looks)[:, None] == np.array(looks))
    _, names = connected_components(csr_array(same), directed=False)
    groups = [np.flatnonzero(names == name).tolist() for name in dict.fromkeys(names.tolist())]
    assert near_duplicate_groups(prints) == [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("prints", [[], [fingerprint(scene(1))]])
def test_fewer_than_two_photos_have_no_group(prints):
    assert near_duplicate_groups(prints) == rotated_duplicate_groups(prints) == []
