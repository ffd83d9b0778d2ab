"""Writing a bundle: models, golden photos and manifest, verified first and put in place at once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import PIL
import torch

from edgetl.data.layout import content_digest
from edgetl.errors import ExportError
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.export_result import AccuracyComparison, ExportResult, Verification
from edgetl.exporting.formats.deployed_classifier import deployed
from edgetl.exporting.formats.mapped_network import MappedNetwork
from edgetl.exporting.formats.onnx_model import assemble, opset_of
from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.formats.torch_program import branch_free_classifier, build_program
from edgetl.exporting.formats.torchscript import build_torchscript
from edgetl.exporting.golden_photos import (
    answer_entry,
    golden_file,
    photo_references,
    synthetic_references,
    unknown_agreement,
)
from edgetl.exporting.precision.quantize import INT8_MIN_OPSET
from edgetl.exporting.precision.reduced_precision import (
    PrecisionSettings,
    convert_to_fp16,
    convert_to_int8,
)
from edgetl.exporting.verification import (
    MAX_PROBABILITY_DIFFERENCE,
    ExportedModel,
    has_same_bits,
    open_onnx,
    open_program,
    open_torchscript,
    verify,
    verify_evidence,
    verify_evidence_sums,
)
from edgetl.exporting.web_folder import WEB, read_ort, web_files
from edgetl.runtime.bundle.bundle_folder import (
    DEFAULT_FORMATS,
    DEFAULT_PRECISION,
    HELD_OUT,
    MANIFEST,
    ONNX_FILES,
    TRAINING_PHOTOS,
    file_entries,
    manifest_bytes,
    schema_entries,
)
from edgetl.runtime.bundle.embedded_checksum import embed_checksum
from edgetl.system.atomic_folder import replace_folder, require_writable
from edgetl.system.environment import package_versions
from edgetl.system.paths import real_path
from edgetl.system.progress import Progress, no_progress

TORCHSCRIPT_FILE, PROGRAM_FILE, HELD_OUT_FILE = "model.ts.pt", "model.pt2", "held_out.npz"


def export_bundle(
    deployment: Deployment,
    destination: str | Path,
    *,
    golden: Sequence[Path],
    opset: int | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    checkpoint: Path | None = None,
    checkpoint_sha256: str | None = None,
    training_photos: str = "",
    precisions: Sequence[str] = (DEFAULT_PRECISION,),
    precision_settings: PrecisionSettings | None = None,
    web: bool = False,
    ort: Path | None = None,
    progress: Progress = no_progress,
) -> ExportResult:
    """Write a bundle to ``destination``, replacing an earlier one.

    golden              photos to include, copied unchanged but for HEIC, which becomes PNG
    opset               None: the lowest that the network's operators allow
    formats             out of ``bundle_folder.FORMATS``
    checkpoint          file that the network came from, for the manifest
    checkpoint_sha256   hex digest of that file when it was read; None: of its present content
    training_photos     digests for the manifest, as ``photo_digests.pack`` writes them; "": none
    precisions          of the ONNX models, out of ONNX_FILES; any but fp32 needs
                        ``precision_settings``
    precision_settings  photos and limits for reduced precisions
    web                 add the folder for browsers and Node; needs the format ``onnx``
    ort                 where onnxruntime-web is for it; None: browsers take it from a CDN

    Raises ExportError if a golden photo can't be read, if a format can't be written or its answers
    are not the network's, if a reduced precision loses too much accuracy, if ``ort`` lacks what is
    needed, or if ``destination`` is anything but a bundle; ImageError for another photo that can't
    be read. ``destination`` is then unchanged.
    """
    destination = Path(destination)
    refuse_other_folders(destination)
    require_writable(destination)
    ort_files = None if ort is None else read_ort(ort)
    origin = _checkpoint_entry(checkpoint, checkpoint_sha256, destination)
    contents = _BundleContents(deployment, golden, progress)
    if "onnx" in formats:
        contents.add_onnx(opset, precisions, precision_settings)
    if "torchscript" in formats:
        contents.add_torchscript()
    if "pt2" in formats:
        contents.add_program()
    manifest = {
        "name": real_path(destination).name,
        "checkpoint": origin,
        **contents.manifest_entries(),
        **({TRAINING_PHOTOS: training_photos} if training_photos else {}),
    }
    if web:
        contents.add_web(manifest, ort_files)
    manifest["files"] = file_entries(contents.files)
    refuse_other_folders(destination)  # again: minutes have passed
    replace_folder(destination, {**contents.files, MANIFEST: manifest_bytes(manifest)})
    return ExportResult(
        folder=destination,
        files={name: len(content) for name, content in contents.files.items()},
        opsets=manifest["opset"],
        golden=len(golden),
        verification=contents.verification,
        precisions=contents.precisions,
    )


class _BundleContents:
    """The files of a bundle being written, and what its manifest says about them.

    files         name → content
    verification  format, or precision of an ONNX model → its differences from the network
    precisions    reduced precision → its accuracy
    """

    def __init__(self, deployment: Deployment, golden: Sequence[Path], progress: Progress) -> None:
        self._network, self._detector = deployment.network, deployment.detector
        self._mapped = MappedNetwork(self._network, deployment.maps) if deployment.maps else None
        self._card = deployment.card
        if self._mapped:
            self._card = replace(self._card, biases=self._mapped.biases)
        self._progress = progress
        progress("Running the trained network", 0, 0)
        classifier = deployed(self._network, self._card, self._detector)
        self._photos = photo_references(classifier, golden)
        self._references = [*self._photos, *synthetic_references(classifier)]
        files = [golden_file(*pair) for pair in zip(golden, self._photos, strict=True)]
        names = [f"golden/{number:03}{suffix}" for number, (suffix, _) in enumerate(files)]
        self.files = {name: content for name, (_, content) in zip(names, files, strict=True)}
        self.verification: dict[str, Verification] = {}
        self.precisions: dict[str, AccuracyComparison] = {}
        self._entries: dict[str, Any] = {
            "models": {},
            "torchscript": None,
            "pt2": None,
            "opset": {},
            "golden": [
                photo.manifest_entry(name) for photo, name in zip(self._photos, names, strict=True)
            ],
        }
        if deployment.held_out is not None:
            self._entries[HELD_OUT] = HELD_OUT_FILE
            self.files[HELD_OUT_FILE] = deployment.held_out.to_bytes()

    def manifest_entries(self) -> dict[str, Any]:
        """The manifest, but for its files, and what is known only of the bundle as a whole."""
        # A module knows its version whatever its distribution is called: onnxruntime may have been
        # installed as onnxruntime-gpu.
        modules = (torch, onnx, onnxruntime, numpy, PIL)
        return {
            **schema_entries(self._detector is not None or self._mapped is not None),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "card": self._card.to_dict(),
            "versions": package_versions()
            | {module.__name__: module.__version__ for module in modules},
            "verification": {name: asdict(found) for name, found in self.verification.items()},
            "precisions": {name: asdict(found) for name, found in self.precisions.items()},
            **self._entries,
        }

    def add_onnx(
        self,
        opset: int | None,
        precisions: Sequence[str],
        precision_settings: PrecisionSettings | None,
    ) -> None:
        """One ONNX model for each precision."""
        if opset is not None and opset < INT8_MIN_OPSET and "int8" in precisions:
            raise ExportError(f"int8 needs opset {INT8_MIN_OPSET} or later.", "Leave out --opset.")
        self._progress("Writing the network as ONNX", 0, 0)
        network = export_network(self._mapped or self._network, self._card.spec, opset)
        for precision in dict.fromkeys(precisions):  # without repetitions
            converted, max_difference = network, MAX_PROBABILITY_DIFFERENCE
            if precision != DEFAULT_PRECISION:
                converted, self.precisions[precision] = self._reduce(
                    precision, network, precision_settings
                )
                max_difference = math.inf  # its accuracy is the criterion
            self._progress(f"Verifying {precision} ONNX", 0, 0)
            model = assemble(converted, self._card, self._detector)
            run_model = open_onnx(model)
            self.verification[precision] = self._verify(
                f"{precision} ONNX", run_model, max_difference
            )
            if precision != DEFAULT_PRECISION:
                self._add_own_answers(precision, run_model)
                self._confirm_portable_bits(precision, model)
            elif self._mapped:
                verify_evidence(run_model, self._mapped, self._card.spec, self._references)
            self._entries["models"][precision] = ONNX_FILES[precision]
            self._entries["opset"][precision] = opset_of(model)
            self.files[ONNX_FILES[precision]] = embed_checksum(model.SerializeToString())

    def _add_own_answers(self, precision: str, model: ExportedModel) -> None:
        """A reduced model's answers for the golden photos, which are not the network's.

        The device's self-test compares with them.
        """
        golden = self._entries["golden"]
        for entry, photo in zip(golden, self._photos, strict=True):
            outputs = model(photo.pixels[None])
            if self._mapped:
                verify_evidence_sums(precision, outputs, self._card, photo)
            entry.setdefault("own_answers", {})[precision] = answer_entry(
                {name: rows[0] for name, rows in outputs.items()}
            )
        self.precisions[precision] = replace(
            self.precisions[precision],
            unknown_agreement=unknown_agreement(golden, precision, self._card),
        )

    def _confirm_portable_bits(self, precision: str, model: onnx.ModelProto) -> None:
        """Measure on this machine what is known from the structure of the network."""
        compared = self.precisions[precision]
        if compared.portable_bits and not has_same_bits(model, self._references):
            reason = "logits depend on the batch or on the number of threads"
            self.precisions[precision] = replace(
                compared, portable_bits=False, why_not_portable=reason
            )

    def _verify(
        self, name: str, model: ExportedModel, max_difference: float = MAX_PROBABILITY_DIFFERENCE
    ) -> Verification:
        limits = self._card.unknown
        sensitivity = 0.0 if limits is None else limits.sensitivity
        return verify(name, model, self._references, max_difference, sensitivity)

    def _reduce(
        self, precision: str, network: onnx.ModelProto, settings: PrecisionSettings | None
    ) -> tuple[onnx.ModelProto, AccuracyComparison]:
        if settings is None:
            raise ExportError(
                f"There are no photos to measure the {precision} model's accuracy on."
            )
        if precision == "int8" and opset_of(network) < INT8_MIN_OPSET:
            source = self._mapped or self._network
            network = export_network(source, self._card.spec, INT8_MIN_OPSET)
        convert = convert_to_fp16 if precision == "fp16" else convert_to_int8
        model, compared = convert(network, self._card, settings, self._progress)
        return model, replace(compared, trained_on=settings.trained_on)

    def add_torchscript(self) -> None:
        """The TorchScript file."""
        self._progress("Writing and verifying TorchScript", 0, 0)
        content = build_torchscript(self._network, self._card, self._detector)
        self.verification["torchscript"] = self._verify("TorchScript", open_torchscript(content))
        self._entries["torchscript"] = TORCHSCRIPT_FILE
        self.files[TORCHSCRIPT_FILE] = content

    def add_program(self) -> None:
        """The torch.export program."""
        self._progress("Writing and verifying the torch.export program", 0, 0)
        classifier = branch_free_classifier(self._network, self._card, self._detector)
        content = build_program(classifier)
        self.verification["pt2"] = self._verify("torch.export", open_program(content, classifier))
        self._entries["pt2"] = PROGRAM_FILE
        self.files[PROGRAM_FILE] = content

    def add_web(self, manifest: Mapping[str, Any], ort: Mapping[str, bytes] | None) -> None:
        """The folder for browsers and Node; ``manifest`` is the bundle's, without its files."""
        self._progress("Writing and verifying the models for browsers", 0, 0)
        pictures = [reference.pixels for reference in self._references]
        found = web_files(manifest, self.files, pictures, ort)
        self.files |= {f"{WEB}{name}": content for name, content in found.items()}


def refuse_other_folders(destination: Path) -> None:
    """Raises ExportError unless ``destination`` is free, or is a bundle that holds nothing else."""
    hint = "Choose another place with -o, or move it away."
    if destination.exists() and destination.samefile(os.curdir):
        raise ExportError(
            f"{destination} is the current folder, which an export would replace.", hint
        )
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    try:
        manifest = json.loads((destination / MANIFEST).read_bytes())
        if not {"schema", "card", "golden"} <= set(manifest):
            raise KeyError
        known = {MANIFEST, *manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{destination} exists and is not a bundle.", hint) from error
    present = {
        path.relative_to(destination).as_posix()
        for path in destination.rglob("*")
        if not path.is_dir()
    }
    if foreign := sorted(present - known):
        raise ExportError(
            f"{destination} holds {foreign[0]!r}, which is not part of the bundle "
            "and would be lost.",
            hint,
        )


def _checkpoint_entry(
    checkpoint: Path | None, sha256: str | None, destination: Path
) -> Mapping[str, str | None]:
    if checkpoint is None:
        return {"path": None, "sha256": None}
    origin = real_path(checkpoint)
    with suppress(ValueError):  # on Windows, it may be on another drive
        origin = Path(os.path.relpath(origin, real_path(destination)))
    return {"path": origin.as_posix(), "sha256": sha256 or content_digest(checkpoint)}
