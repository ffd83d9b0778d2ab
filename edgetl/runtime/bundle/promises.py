"""What a model promises of its answers, as measured on photos that fitted nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgetl.runtime.bundle.abstention import SureAnswers
from edgetl.runtime.bundle.prediction_sets import PredictionSets
from edgetl.runtime.bundle.statement import StatedShare


@dataclass(frozen=True)
class Promises:
    """Of answers for photos like those that it was measured on.

    basis            what these photos were, in words
    prediction_sets  how large a set must be to hold the right label often enough
    statement        how good the answers were, and the sets
    sure_answers     from which confidence on answers are right as often as the export asked for;
                     () if it did not ask
    """

    basis: str
    prediction_sets: PredictionSets
    statement: tuple[StatedShare, ...]
    sure_answers: tuple[SureAnswers, ...] = ()

    def about(self, label: str) -> SureAnswers | None:
        """From which confidence on answers with ``label`` are sure; None if that is not known."""
        found = {entry.label: entry for entry in self.sure_answers}
        return found.get(label) or found.get(None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: with lists, not tuples."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Promises:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        return cls(
            str(values["basis"]),
            PredictionSets.from_dict(values["prediction_sets"]),
            tuple(map(StatedShare.from_dict, values["statement"])),
            tuple(map(SureAnswers.from_dict, values["sure_answers"])),
        )
