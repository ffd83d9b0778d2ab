"""How figures are written in a table, on the terminal and in the HTML report."""

from __future__ import annotations

from edgetl.parity.results import RuntimeResult, StageResult

# After a runtime's name.
LEFT_OUT = "photos left out, of formats that it does not decode: {}"


def figures(run: RuntimeResult) -> tuple[str, ...]:
    """One cell each: resized, normalized, logits, probabilities, flips."""
    resized, decisions = run.stage("resized"), run.decisions
    largest = (_largest(run.stage(stage)) for stage in ("normalized", "logits", "probabilities"))
    flips = ""
    if decisions.compared:
        ties = f" + {decisions.ties} ties" if decisions.ties else ""
        flips = f"{len(decisions.real_flips)}{ties}"
    return (pixels(resized) if resized else "", *largest, flips)


def score(run: RuntimeResult) -> str:
    """The largest difference of a score, or of an embedding if that is beyond its limit."""
    embedding = run.stage("embedding")
    if embedding is not None and not embedding.passed:
        return _largest(embedding)
    return _largest(run.stage("ood_score"))


def evidence(run: RuntimeResult) -> str:
    """The largest difference of a place's evidence."""
    return _largest(run.stage("evidence"))


def minor_figures(run: RuntimeResult) -> tuple[str, str]:
    """99.9th percentile of the probabilities' differences, and the largest KL divergence."""
    probabilities = run.stage("probabilities")
    p999 = probabilities.p999 if probabilities else None
    return (
        "" if p999 is None else _short(p999),
        _short(run.decisions.kl_max) if run.decisions.compared else "",
    )


def pixels(stage: StageResult) -> str:
    """How many pixel values differ, and by how many gray levels at most."""
    if stage.worst.problem:
        return "wrong shape"
    return f"{stage.differing:,} (≤{stage.worst.largest:.0f})" if stage.differing else "equal"


def _largest(stage: StageResult | None) -> str:
    if stage is None:
        return ""
    return f"{stage.worst.largest:.1e}" if stage.differing else "equal"


def _short(value: float) -> str:
    return f"{value:.1e}" if value else "0"
