"""What an export reports: the files it wrote, and how they compare with the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetl.system.notebook import NotebookResult

MIN_AGREEMENT = 0.95  # share of photos; below it, an accuracy that holds may be chance
MIN_UNKNOWN_AGREEMENT = 0.8  # of the golden photos: few, and some of them near the threshold


@dataclass(frozen=True)
class Verification:
    """Largest absolute differences of an exported model from the trained network.

    photos         number of pictures compared
    probabilities  0..1
    embedding, ood_score  None where the model has no score
    """

    photos: int
    logits: float
    probabilities: float
    embedding: float | None = None
    ood_score: float | None = None


@dataclass(frozen=True)
class AccuracyComparison:
    """A reduced-precision model against the float32 one on the same labelled photos.

    photos                   number of photos compared
    accuracy, fp32_accuracy  0..1
    agreement                share of photos to which both give the same label, 0..1
    drop                     accuracy lost, in percentage points; negative if gained
    class_drops              the same for each class that has photos
    float_layers             names of the layers kept in float
    sure_agreement           share of photos to which both give the same sure answer, or both none,
                             0..1; None where the export asked for no precision of sure answers
    unknown_agreement        share of the golden photos that both take for unknown, or both don't,
                             0..1; None without a score, or without such photos
    trained_on               number of these photos that the network was trained on, on which both
                             accuracies look better than they are
    portable_bits            whether the logits are the same bits on every processor
    why_not_portable         what keeps int8 from that; "" if nothing does, and for fp16
    """

    photos: int
    accuracy: float
    fp32_accuracy: float
    agreement: float
    drop: float
    class_drops: Mapping[str, float]
    float_layers: tuple[str, ...] = ()
    sure_agreement: float | None = None
    unknown_agreement: float | None = None
    trained_on: int = 0
    portable_bits: bool = False
    why_not_portable: str = ""


@dataclass(frozen=True)
class ExportResult(NotebookResult):
    """What ``edgetl.export`` wrote.

    folder        the bundle
    files         file name in the bundle → bytes, for all but the manifest
    opsets        precision → ONNX opset of its model
    golden        number of golden photos in the bundle
    verification  format, or precision of an ONNX model → its differences from the trained network
    precisions    fp16 or int8 → its accuracy
    warnings      what the user should know; one sentence or two each
    """

    folder: Path
    files: Mapping[str, int]
    opsets: Mapping[str, int]
    golden: int
    verification: Mapping[str, Verification]
    precisions: Mapping[str, AccuracyComparison]
    warnings: tuple[str, ...] = ()

    _page = "edgetl.exporting.export_report:as_html"
