"""Photos that are there twice, among hundreds of thousands: pictures that look the same without sharing a byte.

1. Each photo gets a 64-bit perceptual hash, the DCT hash of C. Zauner, "Implementation and Benchmarking of
   Perceptual Image Hash Functions" (2010): the 8×8 lowest frequencies of a 32×32 grayscale copy, each bit telling
   whether one lies above their median. Re-encoding, resizing and brightness move a few bits of it.
2. Hashes at most ``MAX_DISTANCE`` bits apart are found without comparing all pairs, by multi-index hashing
   (M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012): of four
   16-bit parts of two such hashes, one differs in at most one bit.
3. What is found is checked by the correlation of 16×16 thumbnails, because photos of like composition (a white
   product on a white ground) come near in 64 bits.
4. Mirrored copies and those turned by quarters are found by the same search among thumbnails that are brought into a
   position of their own first: the signs and order of the two lowest frequencies tell the eight positions apart.

Not found: copies turned by other angles, crops of more than about 3 % a side, large captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE = 7  # bits; four parts with at most one bit each would allow no more
MIN_CORRELATION = (
    0.97  # of two thumbnails; re-encoded, resized and brightened copies lie above, cf. tests
)
MIN_CONTRAST = (
    2.0  # standard deviation in levels of 0..255; flatter photos have no structure to compare
)

_DOUBTFUL = 0.03  # of all frequencies but the mean: a lesser one may change its sign in a copy, so both are tried
_HASHED_SIDE = 32  # pixels of the copy whose frequencies are hashed
_LOWEST = 8  # frequencies a side: 8 × 8 = 64 bits
_THUMBNAIL_SIDE = 16
_PART_BITS = 16
_FEW_PARTNERS, _MAX_PARTNERS = (
    32,
    1024,
)  # of one bucket that a photo is compared with, at first and in a crowd
_ASKED = 64  # photos of a group
_BLOCK = 1 << 17  # candidate pairs held at a time

_ONES: NDArray[np.uint8] = np.array(
    [value.bit_count() for value in range(1 << _PART_BITS)], np.uint8
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is compared of a photo: ``hash`` (64 bits) and ``thumbnail`` (uint8 [16, 16], luminance)."""

    hash: int
    thumbnail: NDArray[np.uint8]


def fingerprint(photo: Image.Image) -> Fingerprint | None:
    """Of a decoded photo of any size; None for one so flat that it looks like every other flat one."""
    small = photo.convert("L").resize(
        (_HASHED_SIDE, _HASHED_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    pixels = np.asarray(small, np.float32)
    if pixels.std() < MIN_CONTRAST:
        return None
    side = _HASHED_SIDE // _THUMBNAIL_SIDE
    means = pixels.reshape(_THUMBNAIL_SIDE, side, _THUMBNAIL_SIDE, side).mean((1, 3))
    return Fingerprint(_hashes(pixels[None])[0], np.round(means).astype(np.uint8))


def _frequencies(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """[N, side, side] → its DCT, of the same shape."""
    from scipy.fft import dctn

    return np.asarray(dctn(pixels.astype(np.float32), norm="ortho", axes=(1, 2)))


def _hashes(pixels: NDArray[np.generic]) -> list[int]:
    lowest = _frequencies(pixels)[:, :_LOWEST, :_LOWEST].reshape(len(pixels), -1)
    bits = np.packbits(lowest > np.median(lowest, axis=1, keepdims=True), axis=1)
    return [int.from_bytes(row.tobytes(), "big") for row in bits]


def near_groups(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """The groups of two or more photos that look the same, each like another one of its group; positions, in order.

    Complete unless more than 1,024 photos of other groups share a quarter of a photo's hash.
    """
    count = len(fingerprints)
    if count < 2:
        return []
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    thumbnails = np.stack([item.thumbnail.ravel() for item in fingerprints])
    names = np.arange(count)  # of groups
    # Photos of a fixed camera are all near each other: a few partners tie nearly all of them together, and only what is
    # still in different groups need then be compared with more.
    for crowds in (False, True):
        for part in range(64 // _PART_BITS):
            for pairs in _near_hashes(hashes, names, part, crowds=crowds):
                apart = pairs[names[pairs[:, 0]] != names[pairs[:, 1]]]
                if len(near := apart[_correlations(thumbnails, apart) >= MIN_CORRELATION]):
                    names = _tied(names, near)
    return _gathered(names)


def turned_groups(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """As ``near_groups``, whether photos are mirrored or turned by quarters or not."""
    if len(fingerprints) < 2:
        return []
    thumbnails = np.stack([item.thumbnail for item in fingerprints])
    owners = np.arange(len(thumbnails))
    frequencies = _frequencies(thumbnails)
    across, down = frequencies[:, 0, 1], frequencies[:, 1, 0]
    doubtful = _DOUBTFUL * np.linalg.norm(frequencies.reshape(len(frequencies), -1)[:, 1:], axis=1)
    for rightness, turn in (
        (across, partial(np.flip, axis=2)),
        (down, partial(np.flip, axis=1)),
        (abs(across) - abs(down), partial(np.swapaxes, axis1=1, axis2=2)),
    ):
        wrong = rightness[owners] < 0
        thumbnails[wrong] = turn(thumbnails[wrong])
        either = abs(rightness) < doubtful
        thumbnails = np.concatenate([thumbnails, turn(thumbnails[either[owners]])])
        owners = np.concatenate([owners, owners[either[owners]]])
    groups = near_groups(
        [Fingerprint(*pair) for pair in zip(_hashes(thumbnails), thumbnails, strict=True)]
    )
    pairs = [owners[[group[0], other]] for group in groups for other in group[1:]]
    return _gathered(_tied(np.arange(len(fingerprints)), np.array(pairs))) if pairs else []


def upright_alike(groups: Sequence[Sequence[Fingerprint]]) -> bool:
    """Whether all of ``near_groups`` are tied together by thumbnails that look the same as they are, not mirrored or turned.

    Asked of the first photos of each.
    """
    some = [group[:_ASKED] for group in groups]
    thumbnails = _standardized(
        np.stack([item.thumbnail.ravel() for group in some for item in group])
    )
    names = np.repeat(np.arange(len(some)), [len(group) for group in some])
    pairs = np.argwhere(thumbnails @ thumbnails.T >= MIN_CORRELATION)
    return len(np.unique(_tied(names, pairs))) == 1


def _gathered(names: NDArray[np.int64]) -> list[list[int]]:
    """The positions of each name that is there more than once."""
    members: dict[int, list[int]] = {}
    for position, name in enumerate(names.tolist()):
        members.setdefault(name, []).append(position)
    return [group for group in members.values() if len(group) > 1]


def _tied(names: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Names of groups [N] after the groups of ``pairs`` [M, 2] became one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = names[pairs].astype(np.int32)  # scipy before 1.12 finds its way by these alone
    edges = coo_array(
        (np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names))
    )
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)[names]


def _near_hashes(
    hashes: NDArray[np.uint64], names: NDArray[np.int64], part: int, *, crowds: bool
) -> Iterator[NDArray[np.int64]]:
    """Pairs [M, 2] at most MAX_DISTANCE bits apart whose 16-bit ``part`` differs in at most one bit, in blocks.

    crowds  only those of photos that have more than _FEW_PARTNERS, and only with photos of other groups; else with the
            first of them
    """
    keys = ((hashes >> np.uint64(_PART_BITS * part)) & np.uint64(0xFFFF)).astype(np.int64)
    order = np.lexsort(
        (hashes, names, keys) if crowds else (hashes, keys)
    )  # groups, or equal hashes, side by side
    hashes, keys, names = hashes[order], keys[order], names[order]
    for flipped in (0, *(1 << bit for bit in range(_PART_BITS))):
        asking = np.flatnonzero(
            keys & flipped == 0
        )  # so that each pair is met from one of its sides
        wanted = keys[asking] ^ flipped
        first = np.searchsorted(keys, wanted, "left") if flipped else asking + 1
        last = np.searchsorted(keys, wanted, "right")
        ranges = [(asking, first, np.minimum(last, first + _FEW_PARTNERS))]
        if crowds:
            many = last - np.searchsorted(keys, wanted, "left") > _FEW_PARTNERS
            asking, wanted, first, last = asking[many], wanted[many], first[many], last[many]
            places, mine = keys * len(names) + names, wanted * len(names) + names[asking]
            begin, end = (
                np.searchsorted(places, mine, side) for side in ("left", "right")
            )  # of its own group
            ranges = [(asking, end, np.minimum(last, end + _MAX_PARTNERS))]
            if flipped:
                ranges.append((asking, first, np.minimum(begin, first + _MAX_PARTNERS)))
        for left, right in (pairs for some in ranges for pairs in _expand(*some)):
            near = _distances(hashes[left], hashes[right]) <= MAX_DISTANCE
            yield np.stack([order[left[near]], order[right[near]]], axis=1)


def _expand(
    asking: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each of ``asking`` beside every position in its range first..last-1, about _BLOCK pairs at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(_BLOCK, counts.sum(), _BLOCK))
    for start, stop in pairwise(np.unique([0, *cuts, len(asking)]).tolist()):
        repeats = counts[start:stop]
        offsets = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        yield (
            np.repeat(asking[start:stop], repeats),
            np.repeat(first[start:stop], repeats) + offsets,
        )


def _distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int64]:
    parts = (left ^ right).view(np.uint16).reshape(-1, 64 // _PART_BITS)
    return np.asarray(_ONES[parts].sum(1), np.int64)


def _correlations(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    left, right = (_standardized(thumbnails[pairs[:, side]]) for side in (0, 1))
    return np.asarray(np.einsum("ij,ij->i", left, right), np.float32)


def _standardized(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = thumbnails.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-6), np.float32)
