"""What a model answers for photos that it was not fitted to: what its limits are measured on."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import EdgetlError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers for M photos that are like the training photos, in no order.

    labels     int32 [M], the true classes
    logits     float32 [M, classes], of heads fitted without the photo; probabilities are
               softmax(logits / temperature of the model card)
    embedding  float16 [M, dimensions], the graph's output of that name, by its own projection, so
               that it can be compared with that of other photos; no rows if it has none
    ood_score  float32 [M], of detectors fitted without the photo; no rows if the graph has none
    """

    labels: NDArray[np.int32]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float16]
    ood_score: NDArray[np.float32]

    def probabilities(self, temperature: float) -> NDArray[np.float32]:
        """float32 [M, classes]"""
        scaled = self.logits.astype(np.float64) / temperature
        weights = np.exp(scaled - scaled.max(1, keepdims=True))
        found: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        return found

    def to_bytes(self) -> bytes:
        """As an npz file; the same values give the same bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in fields(self):
                content = io.BytesIO()
                np.save(content, getattr(self, entry.name))
                archive.writestr(zipfile.ZipInfo(f"{entry.name}.npy"), content.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> HeldOut:
        """Read what ``to_bytes`` wrote. Raises EdgetlError if it is anything else."""
        try:
            with np.load(io.BytesIO(content)) as archive:
                arrays = {entry.name: archive[entry.name] for entry in fields(cls)}
            if shapes := _wrong_shapes(**arrays):
                raise ValueError(shapes)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise EdgetlError(f"The held-out answers can't be read: {error}.") from error
        return cls(**arrays)


def _wrong_shapes(**arrays: NDArray[Any]) -> str:
    """What is wrong with arrays of these names; empty if nothing is."""
    dimensions = {"labels": 1, "logits": 2, "embedding": 2, "ood_score": 1}
    photos = len(arrays["labels"]) if arrays["labels"].ndim else 0
    for name, array in arrays.items():
        rows = (photos,) if name in ("labels", "logits") else (0, photos)
        if array.dtype.kind not in "fi" or array.ndim != dimensions[name] or len(array) not in rows:
            return f"{name} is {array.dtype} {list(array.shape)} for {photos} labels"
    return ""
