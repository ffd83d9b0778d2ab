"""``edgetl.export``: from a trained run to a bundle that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import ExportError
from edgetl.exporting.export_photos import OwnPhotos, choose_photos
from edgetl.exporting.export_result import MIN_AGREEMENT, MIN_UNKNOWN_AGREEMENT, ExportResult
from edgetl.runtime.bundle.bundle_folder import (
    DEFAULT_FORMATS,
    DEFAULT_PRECISION,
    FORMATS,
    ONNX_FILES,
)
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.system.missing_package import explain_missing_packages
from edgetl.system.paths import real_path, require_current_folder
from edgetl.system.progress import Progress, progress_callback
from edgetl.system.shell import shell_word
from edgetl.training.config.run_folder import (
    BEST,
    METRICS,
    REPORT,
    checkpoint_file,
    is_resumable,
    metrics_belong,
    refuse_photos_folder,
)

if TYPE_CHECKING:
    from edgetl.exporting.deployment import Deployment
    from edgetl.training.models.checkpoint import Trained

DEFAULT_GOLDEN = 8
DEFAULT_CALIBRATION = 100
DEFAULT_MAX_DROP = 0.5  # percentage points

# Parameters. One thread computes a smaller network nearly as fast as several do, and many times as
# fast on a busy machine.
SMALL_NETWORK = 30_000_000


@explain_missing_packages("Exporting")
def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    golden: int | str | os.PathLike[str] = DEFAULT_GOLDEN,
    opset: int | None = None,
    format: str | Sequence[str] = DEFAULT_FORMATS,
    precision: str | Sequence[str] = DEFAULT_PRECISION,
    calibration: int = DEFAULT_CALIBRATION,
    calibration_images: str | os.PathLike[str] | None = None,
    judge_images: str | os.PathLike[str] | None = None,
    max_accuracy_drop: float = DEFAULT_MAX_DROP,
    precision_at: float | Mapping[str | None, float] | None = None,
    digests: bool = True,
    keep_known: float | None = None,
    unknown: bool = True,
    maps: bool = False,
    web: bool = False,
    ort: str | os.PathLike[str] | None = None,
    triton: str | os.PathLike[str] | None = None,
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> ExportResult:
    """Write the model trained in ``run`` as a bundle; an earlier bundle in ``out`` is replaced.

    Every exported file must give the trained network's answers before anything is put in place;
    a reduced precision must keep its accuracy on all validation photos instead.

    run                run folder, or a ``.safetensors`` checkpoint
    out                folder to write the bundle to
    golden             number of validation photos to include for the device's self-test (0: none),
                       or a folder or list of photos to include
    opset              ONNX opset version; None: the lowest that the network's operators allow
    format             one or several of ``onnx``, ``torchscript`` and ``pt2`` (a torch.export
                       program); by default the first two
    precision          of the ONNX models: one or several of ``fp32``, ``fp16`` and ``int8``
    calibration        number of photos to calibrate int8 with
    calibration_images  folder or list of photos to calibrate int8 with; None: those that the run
                       was trained on
    judge_images       photos in folders named like the labels, or a list of photos with labels, to
                       judge reduced precisions on; None: those that the run was validated on
    max_accuracy_drop  percentage points of validation accuracy that a reduced precision may lose
    precision_at       share of right answers among the sure ones, above 0 and below 1, or such a
                       share by label, in which None stands for the labels that are not named: the
                       bundle then knows from which confidence on answers are sure
    digests            list short digests of the training photos, by which ``evaluate`` recognises
                       photos that were trained on
    keep_known         share of photos like the training photos that are not to count as unknown,
                       above 0, below 1; None: 0.95
    unknown            let the model tell photos unlike the training photos, and include answers for
                       held-out photos
    maps               let the ONNX models say which places of a photo speak for each class
    web                add the folder ``web/``: a page to host, and the module for browsers and Node
    ort                folder of the npm package onnxruntime-web, whose files are copied to
                       ``web/``; None: the page takes them from a CDN
    triton             model repository of NVIDIA Triton, to which the model is written as well
    columns, root      of these lists: their columns, such as ``{"path": "file"}``, where they have
                       other names, and the folder that their paths are relative to
    progress           called with the step, how much of it is done, and of how much; True shows a
                       bar

    Raises CheckpointError if the run can't be read or ``out`` is in its data folder; ExportError if
    ``out`` holds anything but a bundle, if photos are missing, if a precision of sure answers can't
    be promised, or if a format can't be written or fails its check; DataError if a folder of photos
    can't be read or lacks labels; ImageError for a validation photo that can't be read;
    MissingDependencyError if a package of the extra ``train`` is missing; ValueError for arguments
    that can't be used. ``out`` is then unchanged.
    """
    formats = (format,) if isinstance(format, str) else tuple(format)
    precisions = (precision,) if isinstance(precision, str) else tuple(precision)
    _check_formats(formats, precisions, web=web, ort=ort, triton=triton)
    _check_numbers(golden, calibration, max_accuracy_drop, keep_known)
    require_current_folder(ExportError)
    golden_count, own_golden = (golden, None) if isinstance(golden, int) else (0, golden)
    own = OwnPhotos.at(own_golden, calibration_images, judge_images, columns, root)
    progress = progress_callback(progress)
    run, out = Path(run), Path(out)
    file = checkpoint_file(run)
    progress("Loading PyTorch", 0, 0)
    from edgetl.exporting.bundle_writer import export_bundle
    from edgetl.exporting.triton_repository import refuse_other_models, write_triton_model
    from edgetl.training.models import checkpoint
    from edgetl.training.torch_env.torch_flags import one_thread

    if triton is not None:
        refuse_other_models(Path(triton) / real_path(out).name)
    progress(f"Reading {run}", 0, 0)
    trained = checkpoint.load(file)
    if photos := trained.settings.get("data") or trained.settings.get("images"):
        refuse_photos_folder(out, photos)
    warnings = list(_run_warnings(run, trained))
    with _added_to_errors(warnings):
        deployment = _deployment(run, trained, keep_known, unknown, maps, precision_at, warnings)
        reduced = {*precisions} - {DEFAULT_PRECISION} if "onnx" in formats else set()
        golden_files, precision_settings = choose_photos(
            trained, own, golden_count, reduced, calibration, max_accuracy_drop, warnings
        )
        parameters = sum(parameter.numel() for parameter in trained.network.parameters())
        with one_thread(parameters < SMALL_NETWORK):
            result = export_bundle(
                deployment,
                out,
                golden=golden_files,
                opset=opset,
                formats=formats,
                checkpoint=file,
                checkpoint_sha256=trained.sha256,
                training_photos=trained.photos if digests else "",
                precisions=precisions,
                precision_settings=precision_settings,
                web=web,
                ort=None if ort is None else Path(ort),
                progress=progress,
            )
        if triton is not None:
            write_triton_model(out, Path(triton))
    return replace(result, warnings=(*warnings, *_agreement_warnings(result)))


def _deployment(
    run: Path,
    trained: Trained,
    keep_known: float | None,
    unknown: bool,
    maps: bool,
    precision_at: float | Mapping[str | None, float] | None,
    warnings: list[str],
) -> Deployment:
    """What is exported. ``warnings`` gets those about its threshold."""
    from edgetl.exporting.deployment import deployment_of, deployment_warnings
    from edgetl.exporting.promised_card import with_promises

    deployment = deployment_of(
        trained, keep_known=keep_known or KEEP_KNOWN, unknown=unknown, maps=maps
    )
    warnings += deployment_warnings(deployment, run, asked=keep_known is not None)
    card = with_promises(deployment.card, trained.held_out, precision_at)
    return replace(deployment, card=card)


@contextmanager
def _added_to_errors(warnings: Iterable[str]) -> Iterator[None]:
    """Add ``warnings`` as notes to an ExportError: there is no result then that would hold them."""
    try:
        yield
    except ExportError as error:
        for warning in warnings:
            error.add_note(warning)
        raise


def _run_warnings(run: Path, trained: Trained) -> Iterator[str]:
    if "imported" in trained.settings or not run.is_dir():
        return
    card = trained.card
    cure = f" Finish it with: edgetl train --resume {shell_word(run)}" if is_resumable(run) else ""
    if not (run / METRICS).exists():
        uncalibrated = ", without a temperature" if card.temperature == 1 else ""
        yield f"{run} is not finished; these are its best weights so far{uncalibrated}.{cure}"
    elif not metrics_belong(run, card.to_dict()):
        yield (
            f"{METRICS} and {REPORT} in {run} are of other weights than {BEST}, which is what is "
            f"exported.{cure or ' Train again for figures that belong to it.'}"
        )


def _check_formats(
    formats: Sequence[str], precisions: Sequence[str], *, web: bool, ort: object, triton: object
) -> None:
    if unknown := sorted({*formats} - {*FORMATS} | {*precisions} - {*ONNX_FILES}):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join((*FORMATS, *ONNX_FILES))}")
    if (web or triton is not None) and "onnx" not in formats:
        raise ValueError("web and triton need the format onnx")
    if ort is not None and not web:
        raise ValueError("ort needs web")


def _check_numbers(
    golden: object, calibration: int, max_accuracy_drop: float, keep_known: float | None
) -> None:
    if isinstance(golden, int) and golden < 0:
        raise ValueError(f"golden is {golden}; give a number from 0 on, or a folder")
    if calibration < 1:
        raise ValueError(f"calibration is {calibration}; it must be at least 1")
    if not max_accuracy_drop <= 100:  # or NaN
        raise ValueError(f"max_accuracy_drop is {max_accuracy_drop}; it must be at most 100")
    if keep_known is not None and not 0 < keep_known < 1:
        raise ValueError(f"keep_known is {keep_known}; it must be above 0 and below 1")


def _agreement_warnings(result: ExportResult) -> Iterator[str]:
    for precision, compared in result.precisions.items():
        if compared.agreement < MIN_AGREEMENT:
            yield (
                f"{precision} gives another label than fp32 to {1 - compared.agreement:.1%} of the "
                "photos; that its accuracy holds may be chance. Compare them on more photos with "
                "edgetl check --against."
            )
        same = compared.unknown_agreement
        if same is not None and same < MIN_UNKNOWN_AGREEMENT:
            yield (
                f"{precision} judges {1 - same:.0%} of the golden photos otherwise than fp32 as "
                "known or unknown, and the threshold is that of fp32. Use fp32 where that matters, "
                "or export with --no-unknown."
            )
