"""What a model promises of its answers, and on which photos that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Promises:
    """Each as JSON values; empty where there were too few photos.

    prediction_sets  quantiles for ``Prediction.prediction_set``
    abstention       confidences below which the model abstains
    statement        accuracy with its interval, share answered, share of unknown photos refused,
                     coverage
    """

    prediction_sets: Mapping[str, Any] = field(default_factory=dict)
    abstention: Mapping[str, Any] = field(default_factory=dict)
    statement: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Promises:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        return cls(**{entry.name: dict(values[entry.name]) for entry in fields(cls)})
