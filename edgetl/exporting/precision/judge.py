"""What a smaller model costs: its accuracy on every validation photo beside that of the float one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.precision.photo_inputs import Pictures
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import LOGITS, NORMALIZED
from edgetl.runtime.inference.session import open_session
from edgetl.system.progress import Progress, no_progress, track

LEAST_AGREEMENT = 0.95  # share of photos; below it, an accuracy that is kept may be an accident


@dataclass(frozen=True)
class Judgement:
    """One model against the float32 one on the same photos. Shares are 0..1, drops are in percentage points.

    agreement     share of photos to which both give the same label
    drop          what is lost of the accuracy; below 0: gained
    class_drops   the same for each class that has validation photos
    float_layers  layers that stayed in float
    """

    photos: int
    accuracy: float
    fp32_accuracy: float
    agreement: float
    drop: float
    class_drops: Mapping[str, float]
    float_layers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "float_layers": list(self.float_layers)}


class Judge:
    """Compares networks (``normalized`` → ``logits``) with ``network`` on labelled photos.

    validation  paths and the indices of their labels; all of them count
    working     told of each photo

    Raises ExportError without photos, ImageError for one that can't be read.
    """

    def __init__(
        self,
        network: onnx.ModelProto,
        card: ModelCard,
        validation: Sequence[tuple[Path, int]],
        working: Progress = no_progress,
    ) -> None:
        if not validation:
            raise ExportError("There are no validation photos to judge the smaller model by.")
        self._labels = card.labels
        self._pictures = Pictures([path for path, _ in validation], card.spec)
        self._truth = np.array([label for _, label in validation])
        self._working = working
        self._expected = self._answers(network, "Judging fp32")

    def judge(
        self, network: onnx.ModelProto, name: str, float_layers: Sequence[str] = ()
    ) -> Judgement:
        """Run ``network``, called ``name`` where it is spoken of, on every photo and compare."""
        answers = self._answers(network, f"Judging {name}")
        right, right_before = answers == self._truth, self._expected == self._truth
        drops = {
            label: _points_lost(right_before[self._truth == index], right[self._truth == index])
            for index, label in enumerate(self._labels)
            if (self._truth == index).any()
        }
        return Judgement(
            photos=len(answers),
            accuracy=float(right.mean()),
            fp32_accuracy=float(right_before.mean()),
            agreement=float((answers == self._expected).mean()),
            drop=_points_lost(right_before, right),
            class_drops=drops,
            float_layers=tuple(float_layers),
        )

    def _answers(self, network: onnx.ModelProto, what: str) -> NDArray[np.int64]:
        """Index of the highest logit of each photo; -1, which is no label, where they are not finite."""
        logits = run_network(
            network, track(self._pictures, len(self._pictures), what, self._working)
        )
        return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)


def run_network(
    network: onnx.ModelProto, photos: Iterable[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Logits float32 [N, classes] of normalized photos [1, 3, h, w]."""
    session = open_session(network.SerializeToString(), providers="cpu")
    return np.concatenate([session.run([LOGITS], {NORMALIZED: photo})[0] for photo in photos])


def _points_lost(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """Of accuracy, in hundredths. 1 of 200 photos is 0.5, not a hair more, as it would be between two rounded shares."""
    return 100 * int(before.sum() - after.sum(dtype=np.int64)) / len(after)
