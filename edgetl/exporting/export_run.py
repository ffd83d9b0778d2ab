"""``edgetl.export``: from a trained run to a bundle that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.data.photo_digests import short_digest, unpack
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import ExportError
from edgetl.exporting.export_result import MIN_AGREEMENT, MIN_UNKNOWN_AGREEMENT, ExportResult
from edgetl.exporting.photo_selection import (
    OTHER_GOLDEN,
    calibration_photos,
    golden_photos,
    run_data,
    why_unreadable,
)
from edgetl.runtime.bundle.bundle_folder import (
    DEFAULT_FORMATS,
    DEFAULT_PRECISION,
    FORMATS,
    ONNX_FILES,
)
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.runtime.images.photo_list import is_photo_list, refuse_list_options
from edgetl.runtime.images.photo_places import is_stored
from edgetl.system.missing_package import explain_missing_packages
from edgetl.system.paths import real_path, require_current_folder
from edgetl.system.progress import Progress, progress_callback
from edgetl.system.shell import shell_word
from edgetl.training.config.run_folder import (
    BEST,
    METRICS,
    REPORT,
    is_resumable,
    metrics_belong,
    refuse_photos_folder,
)

if TYPE_CHECKING:
    from edgetl.data.image_folder import ImageFolders, Sample
    from edgetl.exporting.precision.reduced_precision import PrecisionSettings
    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.training.models.checkpoint import Trained

DEFAULT_GOLDEN = 8
DEFAULT_CALIBRATION = 100
DEFAULT_MAX_DROP = 0.5  # percentage points

# Parameters. One thread computes a smaller network nearly as fast as several do, and many times as
# fast on a busy machine.
SMALL_NETWORK = 30_000_000

_FP32_ALONE = (
    "Put the data back where it was, name photos with --judge-images and --calibration-images, or "
    "export with --precision fp32 alone."
)


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
    _check_arguments(golden, formats, precisions, calibration, max_accuracy_drop, keep_known)
    if (web or triton is not None) and "onnx" not in formats:
        raise ValueError("web and triton need the format onnx")
    if ort is not None and not web:
        raise ValueError("ort needs web")
    require_current_folder(ExportError)
    golden_count, own_golden = (golden, None) if isinstance(golden, int) else (0, golden)
    own = _own_photos((own_golden, calibration_images, judge_images), columns, root)
    progress = progress_callback(progress)
    progress("Loading PyTorch", 0, 0)
    from edgetl.exporting.bundle_writer import export_bundle
    from edgetl.exporting.deployment import deployment_of, deployment_warnings
    from edgetl.exporting.promised_card import with_promises
    from edgetl.exporting.triton_repository import refuse_other_models, write_triton_model
    from edgetl.training.models import checkpoint
    from edgetl.training.torch_env.torch_flags import one_thread

    run, out = Path(run), Path(out)
    if triton is not None:
        refuse_other_models(Path(triton) / real_path(out).name)
    progress(f"Reading {run}", 0, 0)
    trained = checkpoint.load(run)
    if photos := trained.settings.get("data") or trained.settings.get("images"):
        refuse_photos_folder(out, photos)
    warnings = list(_run_warnings(run, trained))
    try:
        deployment = deployment_of(
            trained, keep_known=keep_known or KEEP_KNOWN, unknown=unknown, maps=maps
        )
        warnings += deployment_warnings(deployment, run, asked=keep_known is not None)
        card = with_promises(deployment.card, trained.held_out, precision_at)
        reduced = {*precisions} - {DEFAULT_PRECISION} if "onnx" in formats else set()
        golden_files, precision_settings = _choose_photos(
            trained, own, golden_count, reduced, calibration, max_accuracy_drop, warnings
        )
        parameters = sum(parameter.numel() for parameter in trained.network.parameters())
        with one_thread(parameters < SMALL_NETWORK):
            result = export_bundle(
                replace(deployment, card=card),
                out,
                golden=golden_files,
                opset=opset,
                formats=formats,
                checkpoint=run / BEST if run.is_dir() else run,
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
    except ExportError as error:
        for warning in warnings:
            error.add_note(warning)
        raise
    return replace(result, warnings=(*warnings, *_agreement_warnings(result)))


def _choose_photos(
    trained: Trained,
    own: Sequence[PhotoSource | None],
    golden: int,
    reduced: Set[str],
    calibration: int,
    max_accuracy_drop: float,
    warnings: list[str],
) -> tuple[list[Path], PrecisionSettings | None]:
    """(the golden photos, what reduced precisions need), from the run's data where needed.

    own       where golden photos, those to calibrate and those to judge with are, if named
    golden    how many of the run's photos are golden ones
    reduced   the precisions but fp32
    warnings  gets a sentence about each photo that is left out or missing
    """
    from edgetl.exporting.precision.reduced_precision import PrecisionSettings

    own_golden, own_calibration, own_judge = own
    settings, card, data = trained.settings, trained.card, None
    if golden:
        data = run_data(settings, card, "golden photos", OTHER_GOLDEN)
    elif ("int8" in reduced and own_calibration is None) or (reduced and own_judge is None):
        data = run_data(settings, card, "reduced precisions", _FP32_ALONE)
    if own_golden is not None:
        golden_files, left_out = _golden_photos(own_golden)
        warnings += left_out
    else:
        golden_files = golden_photos(data, golden) if data else []
    if not reduced:
        return golden_files, None
    judged, known = _judge_photos(own_judge, data, card, warnings), unpack(trained.photos)
    return golden_files, PrecisionSettings(
        calibration=_calibration_photos(own_calibration, data, calibration),
        validation=[(sample.path, sample.label) for sample in judged],
        max_accuracy_drop=max_accuracy_drop,
        trained_on=sum(short_digest(sample.digest) in known for sample in judged),
    )


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


def _check_arguments(
    golden: int | str | os.PathLike[str],
    formats: Sequence[str],
    precisions: Sequence[str],
    calibration: int,
    max_accuracy_drop: float,
    keep_known: float | None,
) -> None:
    if unknown := sorted({*formats} - {*FORMATS} | {*precisions} - {*ONNX_FILES}):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join((*FORMATS, *ONNX_FILES))}")
    if isinstance(golden, int) and golden < 0:
        raise ValueError(f"golden is {golden}; give a number from 0 on, or a folder")
    if calibration < 1:
        raise ValueError(f"calibration is {calibration}; it must be at least 1")
    if not max_accuracy_drop <= 100:  # or NaN
        raise ValueError(f"max_accuracy_drop is {max_accuracy_drop}; it must be at most 100")
    if keep_known is not None and not 0 < keep_known < 1:
        raise ValueError(f"keep_known is {keep_known}; it must be above 0 and below 1")


def _own_photos(
    places: Iterable[str | os.PathLike[str] | None],
    columns: str | Mapping[str, str] | None,
    root: str | os.PathLike[str] | None,
) -> list[PhotoSource | None]:
    """Where named photos are. ``columns`` and ``root`` are for the lists among folders."""
    places = list(places)
    is_list = [place is not None and (is_photo_list(place) or is_stored(place)) for place in places]
    if not any(is_list):
        refuse_list_options(None, columns, root)
    return [
        place if place is None else PhotoSource.at(place, *((columns, root) if listed else ()))
        for place, listed in zip(places, is_list, strict=True)
    ]


def _golden_photos(source: PhotoSource) -> tuple[list[Path], list[str]]:
    """The photos of a folder or list that can be read, and a warning for each other one."""
    found = {photo.path: why_unreadable(photo.path) for photo in source.photos()}
    photos = [path for path, reason in found.items() if reason is None]
    warnings = [f"{path} is left out: {reason}." for path, reason in found.items() if reason]
    if not photos:
        problem = "can be read:" if found else "was found."
        raise ExportError(
            "\n".join([f"No photo in {source.path} {problem}", *warnings]), OTHER_GOLDEN
        )
    return photos, warnings


def _calibration_photos(
    source: PhotoSource | None, data: ImageFolders | None, count: int
) -> Sequence[Path]:
    if source is not None:
        return calibration_photos([photo.path for photo in source.photos()], count)
    return calibration_photos([sample.path for sample in data.train], count) if data else ()


def _judge_photos(
    source: PhotoSource | None,
    data: ImageFolders | None,
    card: ModelCard,
    warnings: list[str],
) -> Sequence[Sample]:
    if source is not None:
        from edgetl.evaluation.true_labels import labelled_samples

        samples = labelled_samples(source.path, card.labels, source.columns, source.root)
    else:
        assert data is not None
        samples = data.val
        expected = card.data.get("val", len(samples))
        if len(samples) != expected:
            warnings.append(
                f"{data.root} has {len(samples):,} validation photos; the run had {expected:,}."
            )
    return samples


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
