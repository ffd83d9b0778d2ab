"""What a model answers for photos that it was not fitted to: what its limits are measured on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import EdgetlError

if TYPE_CHECKING:
    from numpy.typing import NDArray


MOST_ANSWERS = 1000
"""That a file may hold answers for."""
_MOST_BYTES = 1 << 28  # unpacked: so many photos and tens of thousands of classes take less
_DTYPES = {"labels": np.int32, "logits": np.float32, "embedding": np.float16}
_DTYPES["ood_score"] = np.float32


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

    def some(self, rows: NDArray[np.int64]) -> HeldOut:
        """The answers for the photos with these indices, int64 [k]."""
        arrays = {name: of[rows] if len(of) else of for name, of in vars(self).items()}
        return HeldOut(**arrays)

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
            arrays = _read_arrays(content)
        except Exception as error:  # zipfile, its decompressors and numpy's reader raise many kinds
            raise EdgetlError(f"The held-out answers can't be read: {error}.") from error
        return cls(**arrays)


def _read_arrays(content: bytes) -> Mapping[str, NDArray[Any]]:
    """The arrays by name. Raises some exception unless they are as ``HeldOut`` describes them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
            raise ValueError("they are too large")
        arrays = {}
        for name in _DTYPES:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file)  # no pickles
    photos, classes = arrays["logits"].shape
    rows = len(arrays["ood_score"])
    shapes = (photos,), (photos, classes), (rows, arrays["embedding"].shape[-1]), (rows,)
    for (name, array), shape in zip(arrays.items(), shapes, strict=True):
        if array.dtype != _DTYPES[name] or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)} for {photos} photos")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
    if photos > MOST_ANSWERS or rows not in (0, photos):
        raise ValueError(f"they have {rows} scores for {photos} photos, of {MOST_ANSWERS} at most")
    if not ((arrays["labels"] >= 0) & (arrays["labels"] < classes)).all():
        raise ValueError(f"they have labels that are none of {classes} classes")
    return arrays
