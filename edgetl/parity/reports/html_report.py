"""The report as one self-contained HTML file, with its style and with thumbnails of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgetl.errors import MissingDependencyError
from edgetl.parity.reports.table_cells import LEFT_OUT, figures, minor_figures, pixels
from edgetl.parity.results import AgainstResult, CheckResult, Comparison, RuntimeResult
from edgetl.parity.stages import SOME_STAGES, STAGES
from edgetl.runtime.images.thumbnail import thumbnail

_THUMBNAIL = 176  # pixels of the longer side: sharp enough to recognise a photo, 6 kB
_MAX_PHOTOS = 20


@dataclass(frozen=True)
class PhotoCard:
    """A photo in the report.

    answers  (model, its label, its probability as text)
    bad      it is highlighted
    """

    photo: str
    thumbnail: str | None
    answers: tuple[tuple[str, str, str], ...]
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
    is_check = isinstance(result, CheckResult)
    template = environment.get_template(f"{'check' if is_check else 'against'}.html.jinja")
    page = template.render(
        result=result,
        cards=check_cards(result) if isinstance(result, CheckResult) else _against_cards(result),
        stages=_shown_stages(result),
        cell=_stage_cell,
        figures=lambda run: zip(
            ("99.9 %", "KL", "flips"), (*minor_figures(run), figures(run)[-1]), strict=True
        ),
        percent=_percent,
        left_out=LEFT_OUT,
    )
    return page + "\n"


def _shown_stages(result: CheckResult | AgainstResult) -> list[str]:
    """Those that every model has, and those that some runtime shows."""
    runs = result.runtimes if isinstance(result, CheckResult) else ()
    shown = {stage.stage for run in runs for stage in run.stages}
    return [stage for stage in STAGES if stage not in SOME_STAGES or stage in shown]


def _stage_cell(run: RuntimeResult, stage: str) -> dict[str, Any] | None:
    """One stage of one runtime in the table; None if the runtime doesn't show it."""
    result = run.stage(stage)
    if result is None:
        return None
    problem = result.worst.problem
    if problem:
        text = "not a number" if "NaN" in problem else problem.partition("(")[0].strip()
    elif stage in ("decoded", "resized"):
        text = pixels(result)
    else:
        text = f"{result.worst.largest:.1e}" if result.differing else "equal"
    return {"text": text, "passed": result.passed, "title": str(result)}


def check_cards(result: CheckResult) -> list[PhotoCard]:
    """The photos furthest from the reference, each with the runtime where it is furthest.

    Those beyond their limit come first.
    """
    comparisons = [
        (_is_beyond(run, comparison), run, comparison)
        for run in result.runtimes
        if run.status != "shown"
        for comparison in run.decisions.worst
        if comparison.distance > 0
    ]
    cards: dict[str, PhotoCard] = {}
    for bad, run, one in sorted(comparisons, key=lambda row: (not row[0], -row[2].distance)):
        if len(cards) < _MAX_PHOTOS and one.photo not in cards:
            cards[one.photo] = PhotoCard(
                photo=one.photo,
                thumbnail=thumbnail(result.root / one.photo, _THUMBNAIL, _THUMBNAIL),
                answers=(
                    ("torch", one.expected, _percent(one.expected_confidence)),
                    (run.name, one.found, _percent(one.found_confidence)),
                ),
                note=f"probability off by {one.distance:.2g}",
                bad=bad,
            )
    return list(cards.values())


def _is_beyond(run: RuntimeResult, comparison: Comparison) -> bool:
    """By the runtime's own limit: beside an int8 model, the float32 ones have a narrower one."""
    probabilities = run.stage("probabilities")
    flipped = any(flip.photo == comparison.photo for flip in run.decisions.real_flips)
    return flipped or probabilities is None or not comparison.distance <= probabilities.worst.limit


def _against_cards(result: AgainstResult) -> list[PhotoCard]:
    """The photos with different labels, the most confident answers first."""
    ranked = sorted(
        result.disagreements, key=lambda one: -max(one.new_confidence, one.old_confidence)
    )
    return [
        PhotoCard(
            photo=one.photo,
            thumbnail=thumbnail(result.root / one.photo, _THUMBNAIL, _THUMBNAIL),
            answers=(
                ("old", one.old, _percent(one.old_confidence)),
                ("new", one.new, _percent(one.new_confidence)),
            ),
            note=f"labelled {one.truth}" if one.truth is not None else "",
            bad=one.truth is not None and one.old == one.truth,
        )
        for one in ranked[:_MAX_PHOTOS]
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
