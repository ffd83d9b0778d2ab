"""Photos that are there twice, among hundreds of thousands: pictures that look the same without sharing a byte.

1. Each photo gets a 64-bit perceptual hash, the DCT hash of C. Zauner, "Implementation and Benchmarking of
   Perceptual Image Hash Functions" (2010): the 8×8 lowest frequencies of a 32×32 grayscale copy, each bit telling
   whether one lies above their median. Re-encoding, resizing and brightness move a few bits of it.
2. Hashes at most ``MAX_DISTANCE`` bits apart are found without comparing all pairs, by multi-index hashing
   (M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012): of four
   16-bit parts of two such hashes, one differs in at most one bit.
3. What is found is checked by the correlation of 16×16 thumbnails, because photos of like composition (a white
   product on a white ground) come near in 64 bits.

Not found: mirrored and rotated copies, crops of more than about 3 % a side, large captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE = 7  # bits; four parts with at most one bit each would allow no more
MIN_CORRELATION = 0.97  # of two thumbnails; re-encoded, resized and brightened copies lie above, cf. tests
MIN_CONTRAST = 2.0  # standard deviation in levels of 0..255; flatter photos have no structure to compare

_HASHED_SIDE = 32  # pixels of the copy whose frequencies are hashed
_LOWEST = 8  # frequencies a side: 8 × 8 = 64 bits
_THUMBNAIL_SIDE = 16
_PART_BITS = 16
_MAX_PARTNERS = 1024  # a photo is compared with this many of one bucket: bounds the work on near-constant data
_BLOCK = 1 << 17  # candidate pairs held at a time

_ONES: NDArray[np.uint8] = np.array([value.bit_count() for value in range(1 << _PART_BITS)], np.uint8)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is compared of a photo: ``hash`` (64 bits) and ``thumbnail`` (uint8 [16, 16], luminance)."""

    hash: int
    thumbnail: NDArray[np.uint8]


def fingerprint(photo: Image.Image) -> Fingerprint | None:
    """Of a decoded photo of any size; None for one so flat that it looks like every other flat one."""
    from scipy.fft import dctn

    small = photo.convert("L").resize((_HASHED_SIDE, _HASHED_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.asarray(small, np.float32)
    if pixels.std() < MIN_CONTRAST:
        return None
    lowest = dctn(pixels, norm="ortho")[:_LOWEST, :_LOWEST].ravel()
    bits = np.packbits(lowest > np.median(lowest))
    side = _HASHED_SIDE // _THUMBNAIL_SIDE
    means = pixels.reshape(_THUMBNAIL_SIDE, side, _THUMBNAIL_SIDE, side).mean((1, 3))
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), np.round(means).astype(np.uint8))


def near_pairs(fingerprints: Sequence[Fingerprint]) -> NDArray[np.int64]:
    """Positions [M, 2] of the photos that look the same, each pair once with the smaller first, sorted.

    Complete unless more than 1,024 photos share a quarter of their hash: of such a crowd each is compared with 1,024.
    """
    if len(fingerprints) < 2:
        return np.empty((0, 2), np.int64)
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    thumbnails = np.stack([item.thumbnail.ravel() for item in fingerprints])
    found = [
        pairs[_correlations(thumbnails, pairs) >= MIN_CORRELATION]
        for part in range(64 // _PART_BITS)
        for pairs in _near_hashes(hashes, part)
    ]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def connected(count: int, pairs: NDArray[np.int64]) -> list[list[int]]:
    """The groups of two or more among positions 0..count-1 that ``pairs`` [M, 2] tie together, in order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, names = connected_components(edges, directed=False)
    members: dict[int, list[int]] = {}
    for position in np.unique(pairs).tolist():  # every other position is a group of one
        members.setdefault(int(names[position]), []).append(position)
    return list(members.values())


def _near_hashes(hashes: NDArray[np.uint64], part: int) -> Iterator[NDArray[np.int64]]:
    """Pairs [M, 2] at most MAX_DISTANCE bits apart whose 16-bit ``part`` differs in at most one bit, in blocks."""
    keys = ((hashes >> np.uint64(_PART_BITS * part)) & np.uint64(0xFFFF)).astype(np.int64)
    order = np.lexsort((hashes, keys))  # equal hashes side by side
    hashes, keys = hashes[order], keys[order]
    for flipped in (0, *(1 << bit for bit in range(_PART_BITS))):
        asking = np.flatnonzero(keys & flipped == 0)  # so that each pair is met from one of its sides
        wanted = keys[asking] ^ flipped
        first = np.searchsorted(keys, wanted, "left") if flipped else asking + 1
        last = np.minimum(np.searchsorted(keys, wanted, "right"), first + _MAX_PARTNERS)
        for left, right in _expand(asking, first, last):
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
        yield np.repeat(asking[start:stop], repeats), np.repeat(first[start:stop], repeats) + offsets


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
