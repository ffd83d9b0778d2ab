"""A file of two candidates of a few kilobytes; see ``tiny_bundle``."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgetl.exporting.candidates import without_weights
from edgetl.runtime.bundle.candidates_file import CandidateModel, write_candidates_file
from helpers import tiny_bundle


def candidates() -> list[CandidateModel]:
    """The model of ``tiny_bundle`` as if it were of two sizes."""
    model = onnx.load_from_string(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    rest, weights = without_weights(model)
    return [CandidateModel("tiny", size, "fp32", 4 * 192, rest, weights) for size in (8, 16)]


def write(path: Path) -> Path:
    write_candidates_file(path, candidates())
    return path
