"""The hash of tensors: what the feature cache and checkpoints have always been written with."""

from __future__ import annotations

import hashlib

import torch

from edgetl.training.models.tensor_hash import hash_tensors

TENSORS = {"b": torch.tensor([1, 2]), "a": torch.tensor([[0.5]], dtype=torch.float16)}


def content(name: str) -> bytes:
    value = TENSORS[name]
    described = f"{name} {value.dtype} {list(value.shape)}\n".encode()
    return described + value.numpy().tobytes()


def test_caches_and_checkpoints_of_earlier_versions_stay_valid() -> None:
    """Without a header, as in a feature cache's key; with one, as in a checkpoint."""
    plain = hashlib.sha256(content("a") + content("b")).hexdigest()
    assert hash_tensors(TENSORS) == plain
    headed = hashlib.sha256(b"card\n" + content("a") + b"\n" + content("b")).hexdigest()
    assert hash_tensors(TENSORS, "card") == headed
