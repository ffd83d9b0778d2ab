"""Sets of labels and sure answers, as the predictor gives them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_bundle
from helpers.pictures import photo

from edgetl import Prediction, Predictor
from edgetl.errors import EdgetlError
from edgetl.runtime.bundle.abstention import SureAnswers
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.prediction_sets import PredictionSets
from edgetl.runtime.bundle.promises import Promises
from edgetl.runtime.bundle.statement import StatedShare

LABELS = ("ant", "bee", "cicada")
SETS = PredictionSets((0.8, 0.9), (0.4, 0.6), 50, {"cicada": (0.85, 1.0)}, (0.0, 0.6))
PROMISES = Promises(
    "50 photos",
    SETS,
    (StatedShare("accuracy", 40, 50, (0.66, 0.9)), StatedShare("coverage", 46, 50, (0.8, 1), 0.9)),
    (SureAnswers("bee", 0.9, 0.95, 0.6), SureAnswers(None, 0.8, 0.95, 0.4)),
)


def prediction(*probabilities: float, promises: Promises | None = PROMISES) -> Prediction:
    values = np.float32(probabilities)
    return Prediction("x", LABELS, np.log(values), values, promises)


def test_a_set_has_the_most_probable_labels_first() -> None:
    found = prediction(0.3, 0.5, 0.2)
    assert found.prediction_set(0.8) == ("bee",)
    assert found.prediction_set(0.9) == ("bee", "ant")
    assert found.prediction_set(0.85) == ("bee", "ant")
    assert found.prediction_set(0.91) == ("bee", "ant", "cicada")
    assert found.prediction_set(0.8, by_class=True) == ("bee", "cicada")


@pytest.mark.parametrize("level", [0, 1, 95, float("nan")])
def test_a_level_that_is_no_probability_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        prediction(0.3, 0.5, 0.2).prediction_set(level)


def test_a_model_without_promises_says_so() -> None:
    found = prediction(0.3, 0.5, 0.2, promises=None)
    assert found.is_sure is None
    assert "sure" not in found.to_dict()
    with pytest.raises(EdgetlError, match="no prediction sets"):
        found.prediction_set(0.9)


def test_each_label_is_sure_from_its_own_threshold_on() -> None:
    assert prediction(0.2, 0.7, 0.1).is_sure is True
    assert prediction(0.3, 0.5, 0.2).is_sure is False
    assert prediction(0.5, 0.3, 0.2).is_sure is True
    only = replace(PROMISES, sure_answers=PROMISES.sure_answers[:1])
    assert prediction(0.5, 0.3, 0.2, promises=only).is_sure is None


def test_json_values_have_what_was_asked_for() -> None:
    values = prediction(0.3, 0.5, 0.2).to_dict(1, level=0.9)
    assert list(values) == [
        "source", "label", "confidence", "sure", "prediction_set", "probabilities"
    ]  # fmt: skip
    assert (values["sure"], values["prediction_set"]) == (False, ["bee", "ant"])


def test_promises_travel_in_the_bundle(tmp_path: Path) -> None:
    card = replace(tiny_bundle.card(labels=LABELS), promises=PROMISES)
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    bundle = tiny_bundle.write(tmp_path / "bundle", card)
    for model in (bundle, bundle / "model.onnx"):
        assert Predictor(model)(photo(1)).promises == PROMISES


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [0.9, 0.8]},
        {"levels": [0.8, 1.0]},
        {"limits": [0.4]},
        {"class_limits": {"cicada": [0.8]}},
        {"limits": ["x", 1]},
        {"limits": [float("nan"), 1]},
        {"class_limits": []},
    ],
)
def test_sets_that_make_no_sense_are_refused(change: dict) -> None:
    values = replace(tiny_bundle.card(labels=LABELS), promises=PROMISES).to_dict()
    values["promises"]["prediction_sets"] |= change
    with pytest.raises(EdgetlError, match="description is incomplete"):
        ModelCard.from_dict(values)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("statement", {"figure": "luck"}),
        ("statement", {"count": 51}),
        ("statement", {"photos": 10**12}),
        ("statement", {"interval": [float("nan"), 1]}),
        ("sure_answers", {"threshold": 2}),
        ("sure_answers", {"label": 3}),
    ],
)
def test_figures_that_make_no_sense_are_refused(part: str, change: dict) -> None:
    values = json.loads(json.dumps(replace(tiny_bundle.card(), promises=PROMISES).to_dict()))
    values["promises"][part][0] |= change
    with pytest.raises(EdgetlError, match="description is incomplete"):
        ModelCard.from_dict(values)
