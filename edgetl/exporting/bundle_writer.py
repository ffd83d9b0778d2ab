"""Writes a bundle: the models, the golden photos and the manifest, verified first and put in place at once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import PIL
import torch
from torch import nn

from edgetl._version import __version__
from edgetl.errors import ExportError
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.formats.onnx_model import assemble, opset_of
from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.formats.torch_program import build_program, straight_classifier
from edgetl.exporting.formats.torchscript import build_torchscript
from edgetl.exporting.golden_photos import photo_references, synthetic_references
from edgetl.exporting.precision.judge import Judgement
from edgetl.exporting.precision.quantize import MIN_OPSET as INT8_MIN_OPSET
from edgetl.exporting.precision.reduced_precision import JudgedBy, to_half, to_int8
from edgetl.exporting.verification import (
    MAX_PROBABILITY_DIFFERENCE,
    Run,
    run_onnx,
    run_program,
    run_torchscript,
    verify,
)
from edgetl.runtime.bundle.bundle_folder import (
    DEFAULT_FORMATS,
    DEFAULT_PRECISION,
    FORMATS,
    MANIFEST,
    ONNX_FILES,
    SCHEMA,
    manifest_bytes,
)
from edgetl.runtime.bundle.embedded_checksum import embed_checksum
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.atomic_folder import replace_folder, require_writable
from edgetl.system.paths import real_path
from edgetl.system.progress import Progress, no_progress

TORCHSCRIPT_FILE, PROGRAM_FILE = "model.ts.pt", "model.pt2"
_VERSIONED: tuple[Any, ...] = (torch, onnx, onnxruntime, numpy, PIL)


def export_bundle(
    network: nn.Module,
    card: ModelCard,
    destination: str | Path,
    *,
    golden: Sequence[Path],
    opset: int | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    checkpoint: Path | None = None,
    checkpoint_sha256: str | None = None,
    precisions: Sequence[str] = (DEFAULT_PRECISION,),
    judged_by: JudgedBy | None = None,
    working: Progress = no_progress,
) -> Path:
    """Write ``destination``, replacing an earlier bundle there → its path.

    network      in eval mode, on the CPU: normalized float32 [N, 3, h, w] → logits float32 [N, classes]
    card         its labels, preprocessing and temperature
    golden       photos to go along, copied as they are; empty: none
    opset        None: the lowest that the network's operators allow
    formats      out of FORMATS
    checkpoint   where the network came from, for the manifest
    checkpoint_sha256  of that file when the network was read (hex), since a run may go on; None: of what is there now
    precisions   of the ONNX models, out of ONNX_FILES; any but fp32 needs ``judged_by``
    judged_by    photos that smaller precisions are fitted to and judged by, and what they may lose
    working      told what is being done

    Raises ValueError for an unknown format or precision, ExportError if a format can't be written, if its answers are
    not the network's, if a smaller model loses too much accuracy, or if ``destination`` is something else than a bundle;
    ImageError for a photo that can't be read. Nothing is changed then.
    """
    if unknown := sorted({*formats} - {*FORMATS} | {*precisions} - {*ONNX_FILES}):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join((*FORMATS, *ONNX_FILES))}")
    destination = Path(destination)
    refuse_other_folders(destination)
    require_writable(destination)
    origin = _checkpoint_entry(checkpoint, checkpoint_sha256, destination)
    writing = _Writing(network, card, golden, working)
    if "onnx" in formats:
        writing.add_onnx(opset, precisions, judged_by)
    if "torchscript" in formats:
        writing.add_torchscript()
    if "pt2" in formats:
        writing.add_program()
    manifest = {
        "schema": SCHEMA,
        "name": real_path(destination).name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": card.to_dict(),
        "checkpoint": origin,
        "versions": _versions(),
        "files": {
            name: {"sha256": _sha256(content), "bytes": len(content)}
            for name, content in writing.files.items()
        },
        **writing.manifest,
    }
    refuse_other_folders(destination)  # again: minutes have passed
    replace_folder(destination, {**writing.files, MANIFEST: manifest_bytes(manifest)})
    return destination


class _Writing:
    """A bundle that grows: ``files`` (name → content) and the part of the manifest that speaks of them."""

    def __init__(
        self, network: nn.Module, card: ModelCard, golden: Sequence[Path], working: Progress
    ) -> None:
        self._network, self._card, self._working = network, card, working
        classifier = DeployedClassifier(network, card)
        working("Asking the trained network", 0, 0)
        self._photos = photo_references(classifier, golden)
        self._references = [*self._photos, *synthetic_references(classifier)]
        names = [f"golden/{number:03}{path.suffix.lower()}" for number, path in enumerate(golden)]
        self.files = {name: path.read_bytes() for name, path in zip(names, golden, strict=True)}
        self._golden = [
            photo.manifest_entry(name) for photo, name in zip(self._photos, names, strict=True)
        ]
        self.manifest: dict[str, Any] = {
            "models": {},
            "torchscript": None,
            "pt2": None,
            "opset": {},
            "precisions": {},
            "verification": {},
            "golden": self._golden,
        }

    def add_onnx(
        self, opset: int | None, precisions: Sequence[str], judged_by: JudgedBy | None
    ) -> None:
        """One ONNX model a precision."""
        if opset is not None and opset < INT8_MIN_OPSET and "int8" in precisions:
            raise ExportError(f"int8 needs opset {INT8_MIN_OPSET} or later.", "Leave out --opset.")
        self._working("Writing the network as ONNX", 0, 0)
        network = export_network(self._network, self._card.spec, opset)
        for precision in dict.fromkeys(precisions):  # given twice, it is still one
            judgement, limit = None, MAX_PROBABILITY_DIFFERENCE
            smaller = network
            if precision != DEFAULT_PRECISION:
                smaller, judgement = self._smaller(precision, network, judged_by)
                limit = math.inf  # it is held to its accuracy instead
            self._working(f"Verifying {precision} ONNX", 0, 0)
            model = assemble(smaller, self._card)
            run = run_onnx(model)
            self.manifest["verification"][precision] = verify(
                f"{precision} ONNX", run, self._references, limit
            ).to_dict()
            if judgement is not None:
                self.manifest["precisions"][precision] = judgement.to_dict()
                self._keep_own_answers(precision, run)
            self.manifest["models"][precision] = ONNX_FILES[precision]
            self.manifest["opset"][precision] = opset_of(model)
            self.files[ONNX_FILES[precision]] = embed_checksum(model.SerializeToString())

    def add_torchscript(self) -> None:
        """The TorchScript file."""
        self._working("Writing and verifying TorchScript", 0, 0)
        content = build_torchscript(self._network, self._card)
        figures = verify("TorchScript", run_torchscript(content), self._references)
        self.manifest["verification"]["torchscript"] = figures.to_dict()
        self.manifest["torchscript"] = TORCHSCRIPT_FILE
        self.files[TORCHSCRIPT_FILE] = content

    def add_program(self) -> None:
        """The torch.export program."""
        self._working("Writing and verifying the torch.export program", 0, 0)
        classifier = straight_classifier(self._network, self._card)
        content = build_program(classifier)
        figures = verify("torch.export", run_program(content, classifier), self._references)
        self.manifest["verification"]["pt2"] = figures.to_dict()
        self.manifest["pt2"] = PROGRAM_FILE
        self.files[PROGRAM_FILE] = content

    def _smaller(
        self, precision: str, network: onnx.ModelProto, judged_by: JudgedBy | None
    ) -> tuple[onnx.ModelProto, Judgement]:
        if judged_by is None:
            raise ExportError(f"There are no photos to judge the {precision} model by.")
        if precision == "fp16":
            return to_half(network, self._card, judged_by, self._working)
        if opset_of(network) < INT8_MIN_OPSET:
            network = export_network(self._network, self._card.spec, INT8_MIN_OPSET)
        return to_int8(network, self._card, judged_by, self._working)

    def _keep_own_answers(self, precision: str, run: Run) -> None:
        """A device's self-test holds a smaller model to its own answers, since they are not the network's."""
        for entry, photo in zip(self._golden, self._photos, strict=True):
            _, logits, probabilities = run(photo.pixels[None])
            answer = {
                "logits": logits[0].astype(float).tolist(),
                "probabilities": probabilities[0].astype(float).tolist(),
            }
            entry.setdefault("own_answers", {})[precision] = answer


def refuse_other_folders(destination: Path) -> None:
    """Raises ExportError unless ``destination`` is free, or holds a bundle and nothing else: that may be replaced."""
    hint = "Choose another place with -o, or move it away."
    if destination.exists() and destination.samefile(os.curdir):
        raise ExportError(
            f"{destination} is the current folder, and would be replaced under your feet.", hint
        )
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    try:
        manifest = json.loads((destination / MANIFEST).read_bytes())
        known = (
            {MANIFEST, *manifest["files"]}
            if {"schema", "card", "golden"} <= set(manifest)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise ExportError(f"{destination} exists and is not a bundle.", hint)
    present = {
        path.relative_to(destination).as_posix()
        for path in destination.rglob("*")
        if not path.is_dir()
    }
    if foreign := sorted(present - known):
        raise ExportError(
            f"{destination} holds {foreign[0]!r}, which is not of the bundle and would be lost.",
            hint,
        )


def _checkpoint_entry(
    checkpoint: Path | None, sha256: str | None, destination: Path
) -> Mapping[str, str | None]:
    if checkpoint is None:
        return {"path": None, "sha256": None}
    origin = real_path(checkpoint)
    with suppress(ValueError):  # on Windows, it may lie on another disk
        origin = Path(os.path.relpath(origin, real_path(destination)))
    return {"path": origin.as_posix(), "sha256": sha256 or _sha256(checkpoint.read_bytes())}


def _versions() -> Mapping[str, str]:
    # A module knows its version whatever its distribution is called: onnxruntime may have come as onnxruntime-gpu.
    own = {"edgetl": __version__, "python": platform.python_version()}
    return own | {module.__name__: module.__version__ for module in _VERSIONED}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
