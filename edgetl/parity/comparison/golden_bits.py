"""The bundle's own int8 answers, which every CPU must give to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.parity.check_photos import Photo
from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.runtimes import Runtime, Subject
from edgetl.parity.stages import LeftOut, Refusal, Stages
from edgetl.runtime.bundle.probability_tolerances import SAME_MODEL_TOLERANCES, score_limit
from edgetl.runtime.images.decode import read_image


@dataclass(frozen=True, eq=False)
class GoldenBits:
    """Golden photos and what the export recorded for them.

    logits  float32 [classes] each
    scores  float32 [] each; empty where the model has none
    limit   largest difference of a score: it is computed in float32 from equal features
    """

    photos: Sequence[Photo]
    logits: Sequence[NDArray[np.float32]]
    scores: Sequence[NDArray[np.float32]]
    limit: float

    @classmethod
    def of(cls, subject: Subject) -> GoldenBits | None:
        """None unless the bundle says that its logits are the same everywhere."""
        bundle, precision = subject.bundle, subject.precision
        if bundle is None or not bundle.has_portable_bits(precision):
            return None
        golden = [one for one in bundle.golden if precision in one.own_answers]
        answers = [one.own_answers[precision] for one in golden]
        limits = subject.card.unknown
        files = [(one.file, bundle.path / one.file) for one in golden]
        return cls(
            [Photo(path, name, read_image(path)) for name, path in files],
            [np.array(answer.logits, np.float32) for answer in answers],
            [np.array(answer.ood_score, np.float32) for answer in answers] if limits else [],
            score_limit(SAME_MODEL_TOLERANCES["fp32"], limits.sensitivity) if limits else 0.0,
        )

    def run(self, runtime: Runtime) -> Sequence[Stages | Refusal | LeftOut]:
        """The runtime's answers, one a photo; none from a runtime that computes int8 in float."""
        return runtime.run(self.photos) if runtime.exact_integers else ()

    def compare(self, found: Sequence[Stages | Refusal | LeftOut], tally: RuntimeTally) -> None:
        """Add what ``run`` gave to the runtime's tally."""
        for index, stages in enumerate(found):
            name = self.photos[index].name
            if isinstance(stages, Refusal):
                tally.add_refusal(name, f"refused ({stages.reason}), though it is a golden photo")
            if not isinstance(stages, Stages) or stages.logits is None:
                continue
            tally.add_own("logits", name, self.logits[index], stages.logits, 0.0)
            if self.scores and stages.ood_score is not None:
                tally.add_own("ood_score", name, self.scores[index], stages.ood_score, self.limit)
