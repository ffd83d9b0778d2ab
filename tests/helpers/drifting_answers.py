"""Answers for photos that never were: points around the centre of their class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.bundle.bundle_folder import HELD_OUT, Bundle
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.runtime.drift.photo_answers import PhotoAnswers
from helpers import tiny_bundle

DIMENSIONS = 24
LIMITS = UnknownLimits(1.8, 0.95, 1.0)  # scores spread by about 1.1 around 0.3
_LOGITS = np.array([4.0, 2.0, 1.0, 0.5, 0.3])  # of the photo's own class: sure or not


def points(
    counts: Sequence[int], seed: int, shift: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(classes [N], logits [N, C], embeddings [N, 24], scores [N]).

    counts  photos of each class
    shift   of every photo in the same direction, in standard deviations
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[rng.permutation(len(labels))]
    embedding = rng.normal(0, 1, (len(labels), DIMENSIONS)) + shift
    score = embedding.mean(1) + rng.normal(0, 1, len(labels))
    embedding[np.arange(len(labels)), labels % DIMENSIONS] += 8
    logits = rng.normal(0, 0.1, (len(labels), len(counts)))
    logits[np.arange(len(labels)), labels] += rng.choice(_LOGITS, len(labels))
    return labels, *(each.astype(np.float32) for each in (logits, embedding, score))


def held_out(counts: Sequence[int], seed: int = 0) -> HeldOut:
    labels, logits, embedding, score = points(counts, seed)
    return HeldOut(labels.astype(np.int32), logits, embedding.astype(np.float16), score)


def answers(counts: Sequence[int], seed: int = 1, shift: float = 0.0) -> PhotoAnswers:
    """Of a model with a temperature of 1."""
    labels, logits, embedding, score = points(counts, seed, shift)
    powers = np.exp(logits)
    names = tuple(f"{number}.jpg" for number in range(len(labels)))
    shares, is_unknown = powers / powers.sum(1, keepdims=True), LIMITS.is_unknown(score)
    return PhotoAnswers(names, shares, embedding, score, is_unknown, {})


def write_bundle(folder: Path, counts: Sequence[int]) -> Path:
    """A bundle with held-out answers; returns ``folder``."""
    labels = ("ant", "bee", "cicada", "dragonfly", "earwig")[: len(counts)]
    card = replace(tiny_bundle.card(labels=labels, temperature=1.0), unknown=LIMITS)
    tiny_bundle.write(folder, card)
    files = {
        "model.onnx": (folder / "model.onnx").read_bytes(),
        "held_out.npz": held_out(counts).to_bytes(),
    }
    (folder / "held_out.npz").write_bytes(files["held_out.npz"])
    tiny_bundle.write_manifest(folder, card, files, [], **{HELD_OUT: "held_out.npz"})
    return folder


def write_answers(file: Path, bundle: Path, found: PhotoAnswers) -> Path:
    """``found`` as JSON lines of the bundle's model; returns ``file``."""
    opened = Bundle.open(bundle)
    model = opened.manifest["files"]["model.onnx"]["sha256"][:16]
    rows = [
        {
            "source": name,
            "model": model,
            "label": opened.card.labels[int(shares.argmax())],
            "confidence": float(shares.max()),
            "probabilities": dict(zip(opened.card.labels, shares.tolist(), strict=True)),
            "ood_score": float(score),
            "unknown": bool(is_unknown),
            "embedding": embedding.tolist(),
        }
        for name, shares, score, is_unknown, embedding in zip(
            found.names,
            found.probabilities,
            found.ood_score,
            found.is_unknown,
            found.embedding,
            strict=True,
        )
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
