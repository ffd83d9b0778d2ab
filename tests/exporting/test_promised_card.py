"""What an export promises of sure answers, and what it refuses to promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_bundle
from helpers.random_answers import random_answers

from edgetl.errors import ExportError
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import check_statement, measure_promises
from edgetl.exporting.promised_card import with_promises
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.unknown_limits import UnknownLimits

TEMPERATURE = 2.0


def card_and_answers(known: LabelledAnswers) -> tuple[ModelCard, HeldOut]:
    card = tiny_bundle.card(labels=tuple(known.labels), temperature=TEMPERATURE)
    card = replace(card, promises=measure_promises(known, "some photos"))
    logits = (TEMPERATURE * np.log(known.probabilities)).astype(np.float32)
    empty = np.empty((0, 0), np.float16), np.empty(0, np.float32)
    return card, HeldOut(known.targets.astype(np.int32), logits, *empty)


def test_sure_answers_for_other_photos_are_right_as_often_as_was_asked() -> None:
    known, new = (random_answers(n, sharpness=5, seed=n) for n in (2000, 4000))
    card, held_out = card_and_answers(known)
    promises = with_promises(card, held_out, {None: 0.95, "class 3": 0.9}).promises
    assert promises is not None and [rule.label for rule in promises.sure_answers] == [
        None,
        "class 3",
    ]
    checks = check_statement(promises, new)
    found = {(check.found.label, check.found.figure): check.found for check in checks}
    assert found[None, "precision"].share > 0.95 and found["class 3", "precision"].share > 0.9
    assert found[None, "answered"].share > 0.5 and all(check.holds for check in checks)


def test_one_number_is_about_all_labels() -> None:
    card, held_out = card_and_answers(random_answers(600))
    one, other = (with_promises(card, held_out, wanted) for wanted in (0.9, {None: 0.9}))
    assert one == other != card


def test_the_statement_says_how_many_known_photos_are_kept() -> None:
    known = random_answers(200)
    card, held_out = card_and_answers(known)
    held_out = replace(held_out, ood_score=np.arange(200, dtype=np.float32))
    assert with_promises(card, held_out) == card
    card = replace(card, unknown=UnknownLimits(189.5, 0.95, 1.0))
    promises = with_promises(card, held_out).promises
    assert promises is not None
    kept = next(share for share in promises.statement if share.figure == "known")
    assert (kept.count, kept.photos) == (190, 200)
    most_refused = replace(known, is_unknown=np.arange(200) > 100)
    assert not next(
        check for check in check_statement(promises, most_refused) if check.found.figure == "known"
    ).holds


@pytest.mark.parametrize(("keep_known", "stated"), [(0.95, True), (0.9, False)])
def test_the_statement_says_how_many_unknown_photos_are_noticed(
    keep_known: float, stated: bool
) -> None:
    card, held_out = card_and_answers(random_answers(200))
    figures = {"left_out_classes": {"photos": 80, "let_in": 0.25}}
    card = replace(card, unknown=UnknownLimits(189.5, keep_known, 1.0, figures))
    promises = with_promises(card, held_out).promises
    assert promises is not None
    noticed = [share for share in promises.statement if share.figure == "unknown"]
    assert [(share.count, share.photos) for share in noticed] == [(60, 80)] * stated


@pytest.mark.parametrize(
    ("answers", "wanted", "message", "hint"),
    [
        (random_answers(50), 0.99, "50 held-out ones, and it takes 299, all right", "Validate on"),
        (
            random_answers(600, sharpness=9),
            0.99,
            "the most confident ones among 600 are wrong",
            "can be",
        ),
        (random_answers(600), {"wasp": 0.9}, "no label 'wasp'", "class 0"),
        (random_answers(100), {"class 1": 0.95}, "it takes 59, all right", "Validate on"),
    ],
)
def test_what_the_answers_do_not_show_is_not_promised(
    answers: LabelledAnswers, wanted: object, message: str, hint: str
) -> None:
    wrong = answers.targets.copy()
    wrong[np.argsort(-answers.confidences)[:2]] = -1  # the most confident ones are wrong
    card, held_out = card_and_answers(answers)
    with pytest.raises(ExportError, match=message) as caught:
        with_promises(card, replace(held_out, labels=wrong.astype(np.int32)), wanted)  # type: ignore[arg-type]
    assert hint in (caught.value.hint or "")


def test_a_share_that_is_none_is_refused() -> None:
    card, held_out = card_and_answers(random_answers(10))
    for wanted in (0.0, 1.0, 99, {"class 1": 1.5}):
        with pytest.raises(ValueError, match="precision_at is"):
            with_promises(card, held_out, wanted)
