"""What a trained model may promise, by its answers for held-out photos."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import measure_promises
from edgetl.runtime.bundle.promises import Promises
from edgetl.training.head.held_out_answers import HeldOutAnswers


def held_out_promises(
    held_out: HeldOutAnswers, labels: Sequence[str], temperature: float
) -> tuple[LabelledAnswers, Promises | None]:
    """(the answers at ``temperature``, what they show); without any, nothing is promised."""
    probabilities = held_out.unscored().probabilities(temperature)
    answers = LabelledAnswers(labels, probabilities, held_out.labels)
    if not len(held_out.labels):
        return answers, None
    basis = f"{len(held_out.val):,} validation photos"
    if len(held_out.train):
        basis += (
            f" and {len(held_out.train):,} training photos, answered by heads fitted without them"
        )
    return answers, measure_promises(answers, basis)
