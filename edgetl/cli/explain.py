"""``edgetl explain``: where a model looked in a photo."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from edgetl.cli.options.output_options import output_option
from edgetl.errors import EdgetlError
from edgetl.system.atomic_write import atomic_write
from edgetl.system.message_text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetl.runtime.images.spec import PreprocessSpec
    from edgetl.runtime.inference.prediction import Prediction

_EXACT = "class activation map, exact"
_MAX_LABELS = 20  # named in an error


@click.command(short_help="Show where a model looked in a photo.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output_option("Picture to write, a PNG file.")
@click.option("--label", metavar="NAME", help="Explain this label.  [default: the model's answer]")
def command(model: Path, photo: Path, out: Path, label: str | None) -> None:
    """Show which parts of PHOTO speak for the answer of MODEL, or for another label.

    MODEL is a bundle that was exported with --maps, which needs no torch, or a run folder or
    checkpoint, which needs torch, and captum where the network has no maps of its own. The method
    is printed.

    The picture shows the upright photo and what the network sees of it. Bright places speak for the
    label rather than for others, with a white line around what is at least half of the most; dark
    blue ones say nothing, or speak against it.

    \b
    Example:
      edgetl explain exported/pets photo.jpg -o map.png
      edgetl explain runs/pets photo.jpg -o map.png --label dog
    """
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"-o {out}: the picture is a PNG file; name it {out.stem}.png")
    from edgetl.runtime.images.decode import read_image
    from edgetl.runtime.images.heat_map import explanation

    is_run = model.suffix == ".safetensors" or (model / "best.safetensors").is_file()
    explained = (_of_run if is_run else _of_bundle)(model, photo, label)
    caption = f"{printable(explained.label)} {explained.confidence:.1%}, {explained.method}"
    picture = explanation(read_image(photo), explained.evidence, explained.spec, caption)
    try:
        atomic_write(out, lambda file: picture.save(file, "PNG"))
    except OSError as error:
        raise EdgetlError(f"{out} can't be written: {error.strerror or error}.") from error
    click.echo(f"{out}: {caption}")


class _Explained(NamedTuple):
    """What speaks for a label: ``evidence`` float32 [y, x]; ``confidence`` is its probability."""

    label: str
    confidence: float
    evidence: NDArray[np.float32]
    spec: PreprocessSpec
    method: str


def _of_bundle(model: Path, photo: Path, label: str | None) -> _Explained:
    from edgetl.runtime.inference.predictor import Predictor

    predictor = Predictor(model)
    _require_known(label, predictor.labels)
    prediction = predictor.explain(photo)
    label, confidence = _chosen(prediction, label)
    evidence = prediction.evidence_for(label)
    return _Explained(label, confidence, evidence, predictor.card.spec, _EXACT)


def _of_run(model: Path, photo: Path, label: str | None) -> _Explained:
    from edgetl.training.evaluation.explainer import Explainer
    from edgetl.training.models import checkpoint

    trained = checkpoint.load(model)
    _require_known(label, trained.card.labels)
    explainer, method = Explainer(trained), _EXACT
    prediction = explainer(photo)
    label, confidence = _chosen(prediction, label)
    if explainer.is_exact:
        evidence = prediction.evidence_for(label)
    else:
        evidence = explainer.by_occlusion(photo, trained.card.labels.index(label))
        method = "occlusion, by captum"
    return _Explained(label, confidence, evidence, trained.card.spec, method)


def _require_known(label: str | None, labels: Sequence[str]) -> None:
    if label is None or label in labels:
        return
    close = get_close_matches(label, labels, 1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Labels: {', '.join(labels[:_MAX_LABELS])}."
    raise click.UsageError(f"--label {label}: the model has no such label. {printable(hint)}")


def _chosen(prediction: Prediction, label: str | None) -> tuple[str, float]:
    """The label to explain, by default the answer, and its probability."""
    label = prediction.label if label is None else label
    return label, float(prediction.probabilities[prediction.labels.index(label)])
