"""Each usual mistake is named; values that are right or match no mistake have no explanation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, softmax

from edgetl.parity.comparison.diagnosis import explain
from edgetl.parity.stages import Stages
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.probability_tolerances import logits_limit
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.runtime.images.spec import PreprocessSpec

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5, 0.45, 0.4), (0.25, 0.22, 0.3))
CARD = ModelCard(("a", "b", "c", "d"), SPEC, "none", temperature=1.5)
RNG = np.random.default_rng(5)
PIXELS = np.array(
    Image.fromarray(RNG.integers(0, 256, (9, 11, 3), np.uint8)).resize(
        (90, 70), Image.Resampling.BICUBIC
    )
)
PIXELS = (PIXELS + RNG.integers(-20, 20, PIXELS.shape)).clip(0, 255).astype(np.uint8)
RESIZED = resize_image(Image.fromarray(PIXELS), SPEC)
LOGITS = np.array([2.0, -1.0, 0.5, 3.0], np.float32)
REFERENCE = Stages(
    decoded=PIXELS,
    resized=RESIZED,
    normalized=normalize(RESIZED[None], SPEC)[0],
    logits=LOGITS,
    probabilities=softmax(LOGITS / 1.5).astype(np.float32),
)


def test_the_right_normalization_is_no_mistake():
    noise = np.random.default_rng(0).uniform(-7e-5, 7e-5, REFERENCE.normalized.shape)
    assert "mean" not in explanation(
        "normalized", (REFERENCE.normalized + noise).astype(np.float32)
    )


def explanation(stage: str, values: np.ndarray) -> str:
    return explain(stage, REFERENCE, replace(REFERENCE, **{stage: values}), CARD)


@pytest.mark.parametrize(
    ("stage", "values", "words"),
    [
        ("decoded", PIXELS[::-1, ::-1], "EXIF"),
        ("decoded", PIXELS.transpose(1, 0, 2), "EXIF"),
        ("decoded", PIXELS[:, :, ::-1], "BGR"),
        ("resized", RESIZED[:, :, ::-1], "BGR"),
        (
            "resized",
            resize_image(Image.fromarray(PIXELS), replace(SPEC, interpolation="bicubic")),
            "bicubic instead",
        ),
        ("resized", RESIZED ^ 1, "rounds differently"),
        (
            "normalized",
            normalize(RESIZED[None], replace(SPEC, mean=(0, 0, 0), std=(1, 1, 1)))[0],
            "std [1, 1, 1]",
        ),
        ("normalized", normalize(RESIZED[None, :, :, ::-1], SPEC)[0], "BGR"),
        (
            "normalized",
            RESIZED.transpose(2, 0, 1).astype(np.float32),
            "std [0.003922, 0.003922, 0.003922]",
        ),
        ("logits", LOGITS[[1, 0, 2, 3]], "another order"),
        ("logits", LOGITS + 1, "weights"),
        ("probabilities", softmax(softmax(LOGITS / 1.5)), "twice"),
        ("probabilities", LOGITS, "left out"),
        ("probabilities", expit(LOGITS), "sigmoid"),
        ("probabilities", softmax(LOGITS), "temperature is 1 instead of 1.5"),
    ],
)
def test_a_usual_mistake_is_named(stage: str, values: np.ndarray, words: str) -> None:
    assert words in explanation(stage, values)


def test_the_direction_of_a_moved_crop_is_named() -> None:
    whole = resize_image(Image.fromarray(PIXELS), replace(SPEC, crop=None))
    top, left = SPEC.crop_origin(*whole.shape[:2])
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = whole[top + down : top + down + 32, left + right : left + right + 32]
            found = explanation("resized", moved)
            assert found == (
                f"the crop starts {down:+d} pixel down and {right:+d} to the right"
                if down or right
                else ""
            ), found


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ("decoded", RNG.integers(0, 256, PIXELS.shape, np.uint8)),
        ("resized", RNG.integers(0, 256, RESIZED.shape, np.uint8)),
        ("resized", RESIZED[:-1]),
        ("normalized", RNG.normal(0, 1, (3, 32, 32)).astype(np.float32)),
        ("normalized", np.zeros((3, 30, 30), np.float32)),
        ("probabilities", np.array([0.1, 0.2, 0.3, 0.4], np.float32)),
        ("logits", np.array([np.nan, 0, 0, 0], np.float32)),
    ],
)
def test_values_that_fit_no_mistake_have_no_explanation(stage: str, values: np.ndarray) -> None:
    assert explanation(stage, values) == ""


def test_mean_and_std_cant_be_found_in_a_gray_photo() -> None:
    flat = replace(REFERENCE, resized=np.full((32, 32, 3), 9, np.uint8))
    assert explain("normalized", flat, replace(flat, normalized=flat.normalized + 1), CARD) == ""


def test_rounding_is_not_mistaken_for_another_order() -> None:
    assert explanation(
        "logits", LOGITS + np.float32(3e-6) * np.array([1, -1, 1, -1], np.float32)
    ).startswith("rounding")
    assert explanation("logits", LOGITS[[1, 0, 2, 3]]) == "the outputs are in another order"


def test_a_difference_beyond_the_usual_tolerance_is_not_rounding() -> None:
    limit = logits_limit(1e-4, 1.5, LOGITS)
    assert explanation("logits", LOGITS + np.float32(0.9 * limit)).startswith("rounding")
    assert "weights" in explanation("logits", LOGITS + np.float32(1.1 * limit))
