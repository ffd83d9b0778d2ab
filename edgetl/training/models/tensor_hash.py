"""A checksum over named tensors, for checkpoints and for the cache of features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_tensors(tensors: Mapping[str, Tensor], header: str = "") -> str:
    """SHA-256 (hex) over ``header``, then the name, dtype, shape and bytes of every tensor."""
    digest = hashlib.sha256(header.encode())
    separator = "\n" if header else ""  # as in existing checkpoints, and as in existing caches
    for name, value in sorted(tensors.items()):
        digest.update(f"{separator}{name} {value.dtype} {list(value.shape)}\n".encode())
        if value.numel():  # an empty tensor can't be seen as bytes
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(content.numpy().data)
    return digest.hexdigest()
