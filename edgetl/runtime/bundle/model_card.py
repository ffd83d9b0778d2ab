"""The description of a trained classifier, which goes with its weights everywhere.

The checkpoint, the ONNX file's metadata and the bundle's manifest contain the same card as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgetl.errors import EdgetlError, SpecError
from edgetl.runtime.bundle.promises import Promises
from edgetl.runtime.bundle.tensor_names import ANSWERS, SCORES
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.runtime.images.spec import PreprocessSpec


@dataclass(frozen=True)
class ModelCard:
    """A trained classifier's description.

    labels       class names, exact strings, in the order of the outputs
    spec         the preprocessing contract
    backbone     "efficientnet_lite0", a torchvision name, or "timm/<name>"
    temperature  probabilities = softmax(logits / temperature); above 0
    metrics      validation results of the weights, as JSON values ("accuracy" in 0..1, "loss", …)
    data         what it was trained on: "fingerprint" (sha256 of the names and contents of all
                 photos), numbers of photos
    versions     packages that it was trained with, name → version
    unknown      from which ``ood_score`` on a photo counts as unknown; None: the graph has no score
    promises     what was measured on photos that fitted nothing; None: nothing was
    biases       of the logits, by label: a logit is its bias and the sum of its ``evidence`` over
                 all places; None: the ONNX models give no evidence
    """

    labels: tuple[str, ...]
    spec: PreprocessSpec
    backbone: str
    temperature: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    unknown: UnknownLimits | None = None
    promises: Promises | None = None
    biases: tuple[float, ...] | None = None

    @property
    def has_sure_answers(self) -> bool:
        """Whether the model tells sure answers from others."""
        return bool(self.promises and self.promises.sure_answers)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of every model's outputs; programs of torch return them in this order.

        ONNX models give ``evidence``, too, where there are ``biases``.
        """
        return ANSWERS if self.unknown is None else (*ANSWERS, *SCORES)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without what is None; ``from_dict`` reads it back to an equal card."""
        values = {
            **asdict(self),
            "labels": list(self.labels),
            "spec": self.spec.to_dict(),
            "promises": self.promises and self.promises.to_dict(),
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read what ``to_dict`` wrote. Raises SpecError or EdgetlError for invalid values."""
        try:
            labels, spec = values["labels"], PreprocessSpec.from_dict(values["spec"])
            for name in ("metrics", "data", "versions"):
                if not isinstance(values[name], Mapping):
                    raise TypeError(f"{name} is not an object")
            card = cls(
                labels=tuple(labels),
                spec=spec,
                backbone=values["backbone"],
                temperature=float(values["temperature"]),
                metrics=dict(values["metrics"]),
                data=dict(values["data"]),
                versions=dict(values["versions"]),
                unknown=UnknownLimits.from_dict(values["unknown"]) if "unknown" in values else None,
                promises=Promises.from_dict(values["promises"]) if "promises" in values else None,
                biases=tuple(map(float, values["biases"])) if "biases" in values else None,
            )
        except SpecError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise EdgetlError(f"The model's description is incomplete: {error!r}.") from error
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise EdgetlError("The model's labels are not a list of strings.")
        if not isinstance(values["backbone"], str):
            raise EdgetlError("The model's backbone is not a string.")
        if any("\ud800" <= letter <= "\udfff" for text in labels for letter in text):
            raise EdgetlError("The model has a label that is not valid Unicode.")
        if len(set(labels)) != len(labels) or not labels:
            raise EdgetlError("The model has no labels, or the same one twice.")
        if card.biases is not None and (
            len(card.biases) != len(labels) or not all(map(math.isfinite, card.biases))
        ):
            raise EdgetlError("The model does not have one finite bias for each label.")
        if not 0 < card.temperature < math.inf:
            raise EdgetlError(
                f"The model's temperature is {card.temperature}; it must be above 0 and finite."
            )
        return card
