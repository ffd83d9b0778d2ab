"""Perceptual fingerprints, which find near duplicates among hundreds of thousands of photos.

1. Each photo gets a 64-bit perceptual hash, the DCT hash of C. Zauner, "Implementation and
   Benchmarking of Perceptual Image Hash Functions" (2010): the 8×8 lowest frequencies of a 32×32
   grayscale copy, each bit telling whether one lies above their median. Re-encoding, resizing and
   brightness change a few bits of it.
2. Hashes at most ``MAX_DISTANCE`` bits apart are found without comparing all pairs, by multi-index
   hashing (M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index
   Hashing", CVPR 2012): of four 16-bit parts of two such hashes, one differs in at most one bit.
3. What is found is checked by the correlation of 16×16 thumbnails, because photos of similar
   composition (a white product on a white background) have similar hashes.
4. Mirrored copies, and those rotated by 90, 180 or 270 degrees, are found by the same search, after
   each thumbnail is brought into a canonical orientation: the signs and the order of the two lowest
   frequencies tell the eight orientations apart.

Not found: copies rotated by other angles, crops of more than about 3 % a side, large captions.
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
MIN_CORRELATION = 0.97  # of thumbnails; re-encoded, resized and brightened copies lie above
MIN_CONTRAST = 2.0  # standard deviation, levels of 0..255; flatter photos have no structure

# Share of the norm of all frequencies but the mean. A smaller frequency may change its sign in a
# copy, so both orientations are tried.
_AMBIGUOUS = 0.03
_HASHED_SIDE = 32  # pixels of the copy whose frequencies are hashed
_LOWEST = 8  # frequencies per side: 8 × 8 = 64 bits
_THUMBNAIL_SIDE = 16
_PART_BITS = 16
# Photos of one bucket that a photo is compared with: at first, and then in crowded buckets.
_FEW_PARTNERS, _MAX_PARTNERS = 32, 1024
_COMPARED = 64  # photos of a group, to tell whether its photos are rotated
_BLOCK = 1 << 17  # candidate pairs held at a time

_ONES: NDArray[np.uint8] = np.array(
    [value.bit_count() for value in range(1 << _PART_BITS)], np.uint8
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is compared of a photo: ``hash`` (64 bits) and ``thumbnail`` (uint8 [16, 16], gray)."""

    hash: int
    thumbnail: NDArray[np.uint8]


def fingerprint(photo: Image.Image) -> Fingerprint | None:
    """Of a decoded photo of any size; None for a flat one, which looks like any other flat one."""
    small = photo.convert("L").resize(
        (_HASHED_SIDE, _HASHED_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    pixels = np.asarray(small, np.float32)
    if pixels.std() < MIN_CONTRAST:
        return None
    side = _HASHED_SIDE // _THUMBNAIL_SIDE
    means = pixels.reshape(_THUMBNAIL_SIDE, side, _THUMBNAIL_SIDE, side).mean((1, 3))
    return Fingerprint(_hashes(pixels[None])[0], np.round(means).astype(np.uint8))


def near_duplicate_groups(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """The groups of two or more near duplicates, as indices in order.

    Each photo of a group looks like at least one other of it. Complete unless more than 1,024
    photos of other groups share a quarter of a photo's hash.
    """
    count = len(fingerprints)
    if count < 2:
        return []
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    thumbnails = np.stack([item.thumbnail.ravel() for item in fingerprints])
    groups = np.arange(count)  # the group of each photo
    # Photos of a fixed camera are all near each other. A few partners connect nearly all of them;
    # only those still in different groups need then be compared with more.
    for crowded in (False, True):
        for part in range(64 // _PART_BITS):
            for pairs in _near_hashes(hashes, groups, part, crowded=crowded):
                apart = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
                if len(near := apart[_correlations(thumbnails, apart) >= MIN_CORRELATION]):
                    groups = _connected(groups, near)
    return _members(groups)


def rotated_duplicate_groups(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """As ``near_duplicate_groups``, also of mirrored photos and those rotated by quarter turns."""
    if len(fingerprints) < 2:
        return []
    thumbnails = np.stack([item.thumbnail for item in fingerprints])
    owners = np.arange(len(thumbnails))
    frequencies = _frequencies(thumbnails)
    across, down = frequencies[:, 0, 1], frequencies[:, 1, 0]
    norms = np.linalg.norm(frequencies.reshape(len(frequencies), -1)[:, 1:], axis=1)
    # The canonical orientation: both frequencies are positive, the horizontal one is the larger.
    for sign, transform in (
        (across, partial(np.flip, axis=2)),
        (down, partial(np.flip, axis=1)),
        (abs(across) - abs(down), partial(np.swapaxes, axis1=1, axis2=2)),
    ):
        wrong = sign[owners] < 0
        thumbnails[wrong] = transform(thumbnails[wrong])
        ambiguous = (abs(sign) < _AMBIGUOUS * norms)[owners]
        thumbnails = np.concatenate([thumbnails, transform(thumbnails[ambiguous])])
        owners = np.concatenate([owners, owners[ambiguous]])
    groups = near_duplicate_groups(
        [Fingerprint(*pair) for pair in zip(_hashes(thumbnails), thumbnails, strict=True)]
    )
    pairs = [owners[[group[0], other]] for group in groups for other in group[1:]]
    return _members(_connected(np.arange(len(fingerprints)), np.array(pairs))) if pairs else []


def are_unrotated(groups: Sequence[Sequence[Fingerprint]]) -> bool:
    """Whether the photos of a group of rotated duplicates look the same without being rotated.

    groups  the photos by orientation; the first 64 of each are compared
    """
    compared = [group[:_COMPARED] for group in groups]
    thumbnails = _standardized(
        np.stack([item.thumbnail.ravel() for group in compared for item in group])
    )
    numbers = np.repeat(np.arange(len(compared)), [len(group) for group in compared])
    pairs = np.argwhere(thumbnails @ thumbnails.T >= MIN_CORRELATION)
    return len(np.unique(_connected(numbers, pairs))) == 1


def _frequencies(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """[N, side, side] → its DCT, of the same shape."""
    from scipy.fft import dctn

    return np.asarray(dctn(pixels.astype(np.float32), norm="ortho", axes=(1, 2)))


def _hashes(pixels: NDArray[np.generic]) -> list[int]:
    lowest = _frequencies(pixels)[:, :_LOWEST, :_LOWEST].reshape(len(pixels), -1)
    bits = np.packbits(lowest > np.median(lowest, axis=1, keepdims=True), axis=1)
    return [int.from_bytes(row.tobytes(), "big") for row in bits]


def _members(groups: NDArray[np.int64]) -> list[list[int]]:
    """The indices [N] of each group that has more than one."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _connected(groups: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each photo [N], after those of ``pairs`` [M, 2] are merged."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = groups[pairs].astype(np.int32)  # csgraph of scipy before 1.12 takes no other indices
    edges = coo_array(
        (np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(groups), len(groups))
    )
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)[groups]


def _near_hashes(
    hashes: NDArray[np.uint64], groups: NDArray[np.int64], part: int, *, crowded: bool
) -> Iterator[NDArray[np.int64]]:
    """Pairs [M, 2] at most MAX_DISTANCE bits apart, in blocks.

    part     the 16-bit part of the hash that may differ in at most one bit
    crowded  False: each photo with the first _FEW_PARTNERS of its bucket. True: only photos that
             have more than these, with those of other groups
    """
    keys = ((hashes >> np.uint64(_PART_BITS * part)) & np.uint64(0xFFFF)).astype(np.int64)
    # Within a bucket, photos of one group, or of equal hashes, are side by side.
    order = np.lexsort((hashes, groups, keys) if crowded else (hashes, keys))
    hashes, keys, groups = hashes[order], keys[order], groups[order]
    for flipped in (0, *(1 << bit for bit in range(_PART_BITS))):
        asking = np.flatnonzero(keys & flipped == 0)  # each pair is met from one side only
        wanted = keys[asking] ^ flipped
        first = np.searchsorted(keys, wanted, "left") if flipped else asking + 1
        last = np.searchsorted(keys, wanted, "right")
        ranges = [(asking, first, np.minimum(last, first + _FEW_PARTNERS))]
        if crowded:
            many = last - np.searchsorted(keys, wanted, "left") > _FEW_PARTNERS
            asking, wanted, first, last = asking[many], wanted[many], first[many], last[many]
            places, own = keys * len(groups) + groups, wanted * len(groups) + groups[asking]
            own_first, own_last = (np.searchsorted(places, own, side) for side in ("left", "right"))
            ranges = [(asking, own_last, np.minimum(last, own_last + _MAX_PARTNERS))]
            if flipped:
                ranges.append((asking, first, np.minimum(own_first, first + _MAX_PARTNERS)))
        for left, right in (pairs for some in ranges for pairs in _expand(*some)):
            near = _distances(hashes[left], hashes[right]) <= MAX_DISTANCE
            if near.any():
                yield np.stack([order[left[near]], order[right[near]]], axis=1)


def _expand(
    asking: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each of ``asking`` paired with each index in its range first..last-1, in blocks of _BLOCK."""
    counts = last - first
    if not counts.any():
        return
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
