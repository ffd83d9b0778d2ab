"""Photos that look the same: found after every usual change, and not among photos that differ."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from edgetl.training import duplicates
from edgetl.training.duplicates import Fingerprint, connected, fingerprint, near_pairs


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Coarse coloured shapes with fine grain, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
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
    assert near_pairs([*others, copy]).tolist() == [[7, 40]]


def test_different_photos_are_not_near():
    assert len(near_pairs([fingerprint(scene(seed)) for seed in range(400)])) == 0


def test_like_hashes_of_unlike_thumbnails_are_refused():
    print_ = fingerprint(scene(1))
    other = fingerprint(scene(2))
    assert len(near_pairs([print_, Fingerprint(print_.hash, other.thumbnail)])) == 0
    assert len(near_pairs([print_, Fingerprint(other.hash, print_.thumbnail)])) == 0


def test_flat_photos_have_no_fingerprint():
    assert fingerprint(Image.new("RGB", (80, 80), (200, 10, 10))) is None
    assert fingerprint(scene(1, width=1, height=1)) is None


def bits_apart(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("block", [duplicates._BLOCK, 50])
def test_multi_index_hashing_finds_what_comparing_all_pairs_finds(monkeypatch, block):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**64, 300, np.uint64)]
    for number in range(300):  # copies with 0 to 11 bits flipped, anywhere
        flips = rng.choice(64, size=number % 12, replace=False)
        hashes.append(hashes[number] ^ sum(1 << int(bit) for bit in flips))
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if bits_apart(hashes[i], hashes[j]) <= duplicates.MAX_DISTANCE
    ]
    thumbnail = rng.integers(0, 256, (16, 16), np.uint8)
    assert len(expected) >= 200
    assert near_pairs([Fingerprint(value, thumbnail) for value in hashes]).tolist() == expected


def test_a_crowd_of_one_hash_stays_affordable(monkeypatch):
    monkeypatch.setattr(duplicates, "_MAX_PARTNERS", 10)
    print_ = fingerprint(scene(3))
    pairs = near_pairs([print_] * 200)
    assert len(pairs) < 200 * 10
    assert connected(200, pairs) == [list(range(200))]


def test_groups_follow_pairs_from_one_to_the_next():
    assert connected(8, np.array([[1, 4], [4, 6], [2, 3]])) == [[1, 4, 6], [2, 3]]
    assert connected(3, np.empty((0, 2), np.int64)) == []


@pytest.mark.parametrize("prints", [[], [fingerprint(scene(1))]])
def test_fewer_than_two_photos_have_no_pair(prints):
    assert near_pairs(prints).shape == (0, 2)
