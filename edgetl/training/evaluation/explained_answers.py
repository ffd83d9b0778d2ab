"""Where a trained network looked in the validation photos, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import Sample
from edgetl.evaluation.report_page import EvidenceMaps
from edgetl.system.shell import shell_word
from edgetl.training.config.run_context import RunContext
from edgetl.training.evaluation.edge_evidence import (
    EdgeEvidence,
    edge_evidence,
    photos_to_explain,
    suspected,
)
from edgetl.training.evaluation.explainer import Explainer
from edgetl.training.models.checkpoint import Trained


def explain_answers(
    context: RunContext,
    trained: Trained,
    photos: Sequence[Sample],
    probabilities: NDArray[np.float32],
) -> EvidenceMaps | None:
    """The maps for the report; None for a network whose maps are not exact.

    photos         those that it was validated on
    probabilities  float32 [N, classes] of them

    A note names each class whose photos seem to bear a mark.
    """
    explainer = Explainer(trained)
    if not explainer.is_exact:
        return None
    targets = np.array([photo.label for photo in photos], np.int64)
    rows = photos_to_explain(probabilities, targets)
    found: dict[int, NDArray[np.float32]] = {}
    # Most networks have learned no mark: half of the photos show that in half the time.
    for some in (rows[::2], rows[1::2]):
        evidence = explainer.evidence_for(
            [(photos[row].path, trained.card.labels[targets[row]]) for row in some]
        )
        found |= {row: of for row, of in zip(some, evidence, strict=True) if of is not None}
        own = targets[[*found]]
        if not found or not any(suspected(np.stack([*found.values()]), own)):
            break
    else:
        for at in edge_evidence(np.stack([*found.values()]), own):
            context.listener.note(_sentence(at, trained.card.labels[at.label], context.folder))
    return EvidenceMaps(explainer.evidence_for, trained.card.spec)


def _sentence(found: EdgeEvidence, label: str, run: Path) -> str:
    return (
        f"What speaks for {label!r} lies at the {found.place} of its photos: {found.share:.0%} of "
        f"it, and {found.others:.0%} of what speaks for other classes on theirs. If that is a "
        "mark, such as a logo or a date, and not the subject, then the model has learned the mark. "
        f"See where it looks: edgetl explain {shell_word(run)} PHOTO -o map.png"
    )
