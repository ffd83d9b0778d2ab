"""The report as one HTML file that needs nothing else: the photos in it are thumbnails, the style is inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgetl.errors import MissingDependencyError
from edgetl.parity.reports.table_cells import figures, minor_figures, pixels
from edgetl.parity.results import AgainstResult, CheckResult, Comparison, RuntimeResult, StageResult
from edgetl.parity.stages import STAGES
from edgetl.runtime.images.thumbnail import thumbnail

_THUMBNAIL = 176  # pixels of the longer side: sharp enough to recognise a photo, 6 kB
_MOST_PHOTOS = 20


@dataclass(frozen=True)
class Card:
    """A photo in the report. ``lines`` are pairs of (who says so, what); ``note`` is what is remarkable about it."""

    photo: str
    thumbnail: str | None
    lines: tuple[tuple[str, str], ...]
    note: str
    bad: bool


def as_html(result: CheckResult | AgainstResult) -> str:
    """A whole HTML document. Raises MissingDependencyError without jinja2."""
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependencyError("jinja2", "The HTML report", "train") from error
    environment = Environment(
        loader=PackageLoader("edgetl.parity.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kind = "check" if isinstance(result, CheckResult) else "against"
    cards = _check_cards(result) if isinstance(result, CheckResult) else _against_cards(result)
    template = environment.get_template(f"{kind}.html.jinja")
    return (
        template.render(
            result=result,
            cards=cards,
            stages=STAGES,
            cell=stage_cell,
            figures=lambda run: (*minor_figures(run), figures(run)[-1]),
            percent=_percent,
        )
        + "\n"
    )


def stage_cell(run: RuntimeResult, stage: str) -> dict[str, Any] | None:
    """One stage of one runtime in the matrix: its text, whether it passed, and the whole story; None if not shown."""
    result = run.stage(stage)
    if result is None:
        return None
    return {"text": _short(result), "passed": result.passed, "title": str(result)}


def _short(result: StageResult) -> str:
    if result.worst.problem:
        return (
            "not a number"
            if "NaN" in result.worst.problem
            else result.worst.problem.partition("(")[0].strip()
        )
    if result.stage in ("decoded", "resized"):
        return pixels(result)
    return f"{result.worst.largest:.1e}" if result.differing else "equal"


def _check_cards(result: CheckResult) -> list[Card]:
    """The photos furthest from the reference, each with the runtime in which it is; what is beyond its limit comes first."""
    answers = [
        (_is_bad(run, answer), run, answer)
        for run in result.runtimes
        for answer in (run.decisions.worst if run.status != "shown" else ())
        if answer.distance > 0
    ]
    worst: dict[str, Card] = {}
    for bad, run, answer in sorted(answers, key=lambda one: (not one[0], -one[2].distance)):
        if len(worst) < _MOST_PHOTOS and answer.photo not in worst:
            worst[answer.photo] = _answer_card(result, run, answer, bad)
    return list(worst.values())


def _is_bad(run: RuntimeResult, answer: Comparison) -> bool:
    """By the runtime's own limit: in a check of int8, the float32 ones beside it have a narrower one."""
    probabilities = run.stage("probabilities")
    flipped = any(flip.photo == answer.photo for flip in run.decisions.real_flips)
    return flipped or probabilities is None or not answer.distance <= probabilities.worst.limit


def _answer_card(result: CheckResult, run: RuntimeResult, answer: Comparison, bad: bool) -> Card:
    return Card(
        photo=answer.photo,
        thumbnail=thumbnail(result.root / answer.photo, _THUMBNAIL, _THUMBNAIL),
        lines=(
            ("torch", f"{answer.expected} {_percent(answer.expected_confidence)}"),
            (run.name, f"{answer.found} {_percent(answer.found_confidence)}"),
        ),
        note=f"probability off by {answer.distance:.2g}",
        bad=bad,
    )


def _against_cards(result: AgainstResult) -> list[Card]:
    shown = sorted(
        result.disagreements, key=lambda one: -max(one.new_confidence, one.old_confidence)
    )
    return [
        Card(
            photo=one.photo,
            thumbnail=thumbnail(result.root / one.photo, _THUMBNAIL, _THUMBNAIL),
            lines=(
                ("old", f"{one.old} {_percent(one.old_confidence)}"),
                ("new", f"{one.new} {_percent(one.new_confidence)}"),
            ),
            note=f"in folder {one.truth}" if one.truth is not None else "",
            bad=one.truth is not None and one.old == one.truth,
        )
        for one in shown[:_MOST_PHOTOS]
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
