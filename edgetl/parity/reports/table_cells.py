"""How figures read in a table; the terminal and the HTML report share it."""

from __future__ import annotations

from edgetl.parity.results import RuntimeResult, StageResult


def figures(run: RuntimeResult) -> tuple[str, ...]:
    """One cell each: resized, normalized, logits, probabilities, flips."""
    resized = run.stage("resized")
    distances = (_largest(run.stage(stage)) for stage in ("normalized", "logits", "probabilities"))
    return (pixels(resized) if resized else "", *distances, _flips(run))


def minor_figures(run: RuntimeResult) -> tuple[str, str]:
    """99.9th percentile of the probabilities' differences, and the largest KL divergence."""
    answers = run.stage("probabilities")
    p999 = short(answers.p999) if answers and answers.p999 is not None else ""
    return p999, short(run.decisions.kl_max) if run.decisions.compared else ""


def short(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def pixels(resized: StageResult) -> str:
    """How many pixel values differ, and by how many levels at most."""
    if resized.worst.problem:
        return "wrong shape"
    return f"{resized.differing:,} (≤{resized.worst.largest:.0f})" if resized.differing else "equal"


def _largest(stage: StageResult | None) -> str:
    if stage is None:
        return ""
    return "equal" if stage.differing == 0 else f"{stage.worst.largest:.1e}"


def _flips(run: RuntimeResult) -> str:
    if not run.decisions.compared:
        return ""
    ties = f" + {run.decisions.ties} ties" if run.decisions.ties else ""
    return f"{len(run.decisions.real_flips)}{ties}"
