"""What an export promises: sure answers as precise as was asked for, and a statement of it all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgetl.errors import ExportError
from edgetl.evaluation.exact_tests import clopper_pearson
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import restated
from edgetl.evaluation.sure_threshold import SURE_CONFIDENCE, TARGETS, SureThreshold, find_threshold
from edgetl.runtime.bundle.abstention import SureAnswers
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.statement import StatedShare
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN, MEASURED, UnknownLimits
from edgetl.system.message_text import enumerated


def with_promises(
    card: ModelCard,
    held_out: HeldOut | None,
    wanted: float | Mapping[str | None, float] | None = None,
) -> ModelCard:
    """``card`` with the confidences from which on answers are right as often as ``wanted``.

    The statement is measured again, with these answers and with the card's threshold of unknown
    photos.

    wanted  share of right answers, above 0 and below 1; or label → share, in which None stands for
            the labels that are not named, all together; None: no answers are sure or not

    Raises ExportError if the held-out answers don't show that, or if there are none, and for a
    label that the model does not know; ValueError for another share.
    """
    precisions: dict[str | None, float] = (
        {None: wanted} if isinstance(wanted, (float, int)) else dict(wanted or {})
    )
    for precision in precisions.values():
        if not 0 < precision < 1:
            raise ValueError(f"precision_at is {precision}; it must be above 0 and below 1")
    if unknown := sorted({*precisions} - {None, *card.labels}, key=str):
        raise ExportError(
            f"--precision-at: the model has no label {unknown[0]!r}.",
            f"Its labels: {enumerated(card.labels)}.",
        )
    if held_out is None or card.promises is None:
        if not precisions:
            return card
        raise ExportError(
            "How often sure answers are right can't be promised: the run kept no answers for "
            "photos that fitted nothing.",
            "Train again: runs of earlier versions and imported networks have none.",
        )
    is_unknown = None
    if card.unknown is not None and len(held_out.ood_score):
        is_unknown = card.unknown.is_unknown(held_out.ood_score)
    probabilities = held_out.probabilities(card.temperature)
    answers = LabelledAnswers(card.labels, probabilities, held_out.labels, is_unknown)
    rules = tuple(_rules(answers, precisions))
    promises = restated(replace(card.promises, sure_answers=rules), answers)
    statement = (*promises.statement, *_unknown_noticed(card.unknown))
    return replace(card, promises=replace(promises, statement=statement))


def _unknown_noticed(limits: UnknownLimits | None) -> Iterator[StatedShare]:
    """The share of unknown photos that training measured, if it was with this threshold.

    Of the photos in ``unknown/``, if there are some, else of classes that were left out.
    """
    figures = limits.figures if limits else {}
    found = next((figures[kind] for kind in MEASURED if kind in figures), None)
    if limits and found and limits.keep_known == KEEP_KNOWN:
        photos = int(found["photos"])
        count = round((1 - found["let_in"]) * photos)
        yield StatedShare("unknown", count, photos, clopper_pearson(count, photos))


def _rules(
    answers: LabelledAnswers, precisions: Mapping[str | None, float]
) -> Iterator[SureAnswers]:
    for label, precision in precisions.items():
        others = [name for name in answers.labels if name not in precisions]
        about = answers.about(others if label is None else [label])
        some = LabelledAnswers(answers.labels, answers.probabilities[about], answers.targets[about])
        found = find_threshold(some, precision)
        if found.threshold is None:
            raise _too_few(label, found, some)
        yield SureAnswers(label, precision, SURE_CONFIDENCE, found.threshold)


def _too_few(label: str | None, found: SureThreshold, answers: LabelledAnswers) -> ExportError:
    """Says how many answers it would take, and what these show."""
    whose = "answers" if label is None else f"answers {label!r}"
    less = [target for target in reversed(TARGETS) if target < found.precision]
    best = next((target for target in less if find_threshold(answers, target).sure), None)
    reason = f"there are {found.photos:,} held-out ones, and it takes {found.needed:,}, all right"
    if found.photos >= found.needed:
        reason = f"too many of the most confident ones among {found.photos:,} are wrong"
    return ExportError(
        f"That {found.precision:.4g} of the {whose} are right can't be promised: {reason}.",
        "Validate on more photos"
        + (f", or ask for {best:g}, which can be." if best else ", or leave --precision-at out."),
    )
