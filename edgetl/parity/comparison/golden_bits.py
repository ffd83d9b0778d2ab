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
from edgetl.runtime.images.decode import read_image


@dataclass(frozen=True, eq=False)
class GoldenBits:
    """Golden photos and the logits, float32 [classes] each, that the export recorded for them."""

    photos: Sequence[Photo]
    logits: Sequence[NDArray[np.float32]]

    @classmethod
    def of(cls, subject: Subject) -> GoldenBits | None:
        """None unless the bundle says that its logits are the same everywhere."""
        bundle, precision = subject.bundle, subject.precision
        if bundle is None or not bundle.has_portable_bits(precision):
            return None
        golden = [one for one in bundle.golden if precision in one.own_answers]
        paths = [bundle.path / one.file for one in golden]
        return cls(
            [
                Photo(path, one.file, read_image(path))
                for path, one in zip(paths, golden, strict=True)
            ],
            [np.array(one.own_answers[precision].logits, np.float32) for one in golden],
        )

    def run(self, runtime: Runtime) -> Sequence[Stages | Refusal | LeftOut]:
        """The runtime's answers, one a photo; none from a runtime that computes int8 in float."""
        return runtime.run(self.photos) if runtime.exact_integers else ()

    def compare(self, found: Sequence[Stages | Refusal | LeftOut], tally: RuntimeTally) -> None:
        """Add what ``run`` gave to the runtime's tally."""
        for photo, expected, stages in zip(self.photos, self.logits, found, strict=bool(found)):
            if isinstance(stages, Stages) and stages.logits is not None:
                tally.add_exact(photo.name, expected, stages.logits)
