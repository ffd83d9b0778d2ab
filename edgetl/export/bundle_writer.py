"""Writes a bundle: the models, the golden photos and the manifest, verified first and put in place at once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import PIL
import torch
from torch import nn

import edgetl
from edgetl.errors import ExportError
from edgetl.export.atomic_folder import replace_folder
from edgetl.export.classifier import DeployedClassifier
from edgetl.export.golden import photo_references, synthetic_references
from edgetl.export.onnx_model import build_onnx, opset_of
from edgetl.export.torchscript import build_torchscript
from edgetl.export.verification import run_onnx, run_torchscript, verify
from edgetl.runtime.bundle import DEFAULT_PRECISION, MANIFEST, SCHEMA, manifest_bytes
from edgetl.runtime.card import ModelCard

FORMATS = ("onnx", "torchscript")
ONNX_FILE, TORCHSCRIPT_FILE = "model.onnx", "model.ts.pt"
EXPORTERS: tuple[Any, ...] = (edgetl, torch, onnx, onnxruntime, numpy, PIL)


def export_bundle(
    network: nn.Module,
    card: ModelCard,
    destination: str | Path,
    *,
    golden: Sequence[Path],
    opset: int | None = None,
    formats: Sequence[str] = FORMATS,
    checkpoint: Path | None = None,
) -> Path:
    """Write ``destination``, replacing an earlier bundle there → its path.

    network      in eval mode, on the CPU: normalized float32 [N, 3, h, w] → logits float32 [N, classes]
    golden       photos to go along, copied as they are; empty: none
    opset        None: the lowest that the network's operators allow
    checkpoint   where the network came from, for the manifest

    Raises ExportError if a format can't be written, if its answers are not the network's, or if ``destination`` is
    something else than a bundle; ImageError for a golden photo that can't be read. Nothing is changed then.
    """
    destination = Path(destination)
    refuse_other_folders(destination)
    classifier = DeployedClassifier(network, card)
    references = photo_references(classifier, golden)
    judged = [*references, *synthetic_references(classifier)]
    files: dict[str, bytes] = {}
    details: dict[str, Any] = {"models": {}, "torchscript": None, "opset": None, "verification": {}}
    if "onnx" in formats:
        model = build_onnx(network, card, opset)
        details["verification"]["onnx"] = verify("ONNX", run_onnx(model), judged).to_dict()
        details |= {"models": {DEFAULT_PRECISION: ONNX_FILE}, "opset": opset_of(model)}
        files[ONNX_FILE] = model.SerializeToString()
    if "torchscript" in formats:
        files[TORCHSCRIPT_FILE] = build_torchscript(network, card)
        run = run_torchscript(files[TORCHSCRIPT_FILE])
        details["verification"]["torchscript"] = verify("TorchScript", run, judged).to_dict()
        details["torchscript"] = TORCHSCRIPT_FILE
    names = [f"golden/{number:03}{path.suffix.lower()}" for number, path in enumerate(golden)]
    files |= {name: path.read_bytes() for name, path in zip(names, golden, strict=True)}
    entries = [reference.manifest_entry(name) for reference, name in zip(references, names, strict=True)]
    manifest = {
        "schema": SCHEMA,
        "name": destination.resolve().name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": card.to_dict(),
        "checkpoint": _checkpoint_entry(checkpoint, destination),
        "versions": _versions(),
        "files": {name: {"sha256": _sha256(content), "bytes": len(content)} for name, content in files.items()},
        "golden": entries,
        **details,
    }
    replace_folder(destination, {**files, MANIFEST: manifest_bytes(manifest)})
    return destination


def refuse_other_folders(destination: Path) -> None:
    """Raises ExportError unless ``destination`` is free, or holds a bundle and nothing else: that may be replaced."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    try:
        manifest = json.loads((destination / MANIFEST).read_bytes())
        known = {MANIFEST, *manifest["files"]} if {"schema", "card", "golden"} <= set(manifest) else None
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    hint = "Choose another place with -o, or move it away."
    if known is None:
        raise ExportError(f"{destination} exists and is not a bundle.", hint)
    present = {path.relative_to(destination).as_posix() for path in destination.rglob("*") if not path.is_dir()}
    if foreign := sorted(present - known):
        raise ExportError(f"{destination} holds {foreign[0]!r}, which is not of the bundle and would be lost.", hint)


def _checkpoint_entry(checkpoint: Path | None, destination: Path) -> Mapping[str, str | None]:
    if checkpoint is None:
        return {"path": None, "sha256": None}
    relative = os.path.relpath(checkpoint.resolve(), destination.resolve())
    return {"path": Path(relative).as_posix(), "sha256": _sha256(checkpoint.read_bytes())}


def _versions() -> Mapping[str, str]:
    # A module knows its version whatever its distribution is called: onnxruntime may have come as onnxruntime-gpu.
    return {module.__name__: module.__version__ for module in EXPORTERS} | {"python": platform.python_version()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
