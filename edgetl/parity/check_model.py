"""``edgetl.check``: compare an exported model with the trained network, or with another export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from edgetl.errors import BundleError, CheckpointError, NoSuchModelError, ParityError
from edgetl.parity.results import AgainstResult, CheckResult, Finding, error_text
from edgetl.runtime.images.photo_list import Columns, refuse_list_options
from edgetl.system.missing_package import explain_missing_packages
from edgetl.system.paths import real_path, require_current_folder
from edgetl.system.progress import Progress, progress_callback
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    from edgetl.training.models.checkpoint import Trained

_NAME_THE_RUN = "Name the run that it was exported from with --checkpoint RUN."


@overload
def check(
    model: str | Path,
    images: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    runtime: str | Sequence[str] = (),
    precision: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    columns: str | Mapping[str, str] | None = None,
    root: str | Path | None = None,
    against: None = None,
    max_accuracy_drop: None = None,
    progress: Progress | bool | None = None,
) -> CheckResult: ...


@overload
def check(
    model: str | Path,
    images: str | Path | None = None,
    *,
    precision: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    columns: str | Mapping[str, str] | None = None,
    root: str | Path | None = None,
    against: str | Path,
    max_accuracy_drop: float | None = None,
    progress: Progress | bool | None = None,
) -> AgainstResult: ...


@explain_missing_packages("Comparing with the trained network")
def check(
    model: str | Path,
    images: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    runtime: str | Sequence[str] = (),
    precision: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    columns: str | Mapping[str, str] | None = None,
    root: str | Path | None = None,
    against: str | Path | None = None,
    max_accuracy_drop: float | None = None,
    progress: Progress | bool | None = None,
) -> CheckResult | AgainstResult:
    """Compare an exported model with the network that it was exported from, stage by stage.

    The network runs in torch, the model in every runtime that is installed. With ``against``, two
    exported models are compared by their predictions instead, which needs no torch.

    >>> result = edgetl.check("exported/pets", "photos/")
    >>> result.passed, result.failures
    (True, [])

    model              a bundle folder or a lone .onnx file
    images             a folder or a list of photos, or one photo; None: the bundle's golden photos
    checkpoint         the trained run; None: the one that the bundle names
    runtime            one or several runtimes, each of which must run; none: all that can
    precision          "fp32", "fp16" or "int8": the bundle's model to check; of a lone file,
                       its precision
    tolerance          largest difference of a probability, 0..1; None: by precision, and no limit
                       with ``against``
    limit              compare only so many photos, evenly spread
    columns, root      of a list: its columns, such as ``{"path": "file"}``, where they have other
                       names, and the folder that its paths are relative to
    against            a bundle or .onnx file to compare with; excludes checkpoint and runtime
    max_accuracy_drop  with ``against``: percentage points of accuracy that ``model`` may lose, on
                       photos that a list or a folder's name gives a label; None: no limit
    progress           called with the step, how many photos are done, and of how many; True shows
                       a bar

    A model that differs or is damaged is a result that has not passed, not an exception. Raises
    ParityError, DataError, CheckpointError, MissingDependencyError, or BundleError for a model that
    does not exist, if nothing could be compared; TypeError and ValueError for wrong arguments.
    """
    runtimes = (runtime,) if isinstance(runtime, str) else tuple(runtime)
    if against is not None and (runtimes or checkpoint is not None):
        raise ValueError("against compares two bundles: it takes no runtime and no checkpoint")
    if max_accuracy_drop is not None and (against is None or not max_accuracy_drop <= 100):
        raise ValueError("max_accuracy_drop takes at most 100 points, and only with against")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be within 0..1, not {tolerance}")
    require_current_folder(ParityError)
    model = Path(model)
    folder, progress = model, progress_callback(progress)
    try:
        folder, photos, labels = _photos(model, images, columns, root)
        if limit is not None and limit < len(photos):
            photos = [photos[i * len(photos) // limit] for i in range(limit)]
        if against is not None:
            from edgetl.parity.comparison.bundle_comparison import compare_bundles
            from edgetl.runtime.inference.predictor import Predictor

            compared = compare_bundles(
                Predictor(model, precision=precision if model.is_dir() else None),
                Predictor(Path(against)),
                photos,
                folder,
                given_labels=labels,
                max_accuracy_drop=max_accuracy_drop,
                tolerance=tolerance,
                progress=progress,
            )
            # As given, since a CI system knows a test suite by its name wherever it runs.
            return replace(compared, new=str(model), old=str(Path(against)))
        from edgetl.parity.comparison.runtime_comparison import compare_runtimes, threads_each
        from edgetl.parity.runtimes import Subject

        trained = _load_trained(model, checkpoint)
        subject = Subject.of_run(model, trained, precision=precision, threads=threads_each())
        return compare_runtimes(
            subject, photos, folder, runtimes=runtimes, tolerance=tolerance, progress=progress
        )
    except NoSuchModelError:
        raise
    except BundleError as error:
        damage = (Finding("bundle", False, error_text(error)),)
        if against is not None:
            return AgainstResult(new=str(model), old=str(against), root=folder, gates=damage)
        return CheckResult(bundle=str(model), root=folder, findings=damage)


def _photos(
    model: Path, images: str | Path | None, columns: Columns, root: str | Path | None
) -> tuple[Path, list[Path], dict[Path, str]]:
    """(folder that their names are relative to, photos, the labels of those that have one)."""
    from edgetl.parity.check_photos import find_photos
    from edgetl.runtime.bundle.bundle_folder import Bundle

    if images is not None:
        folder, found = find_photos(images, columns=columns, root=root)
        labels = {photo.path: photo.label for photo in found if photo.label}
        return folder, [photo.path for photo in found], labels
    refuse_list_options(None, columns, root)
    bundle = None if model.is_file() else Bundle.open(model)
    if bundle is None or not bundle.golden:
        raise ParityError(f"{model} holds no golden photos.", "Name a folder of photos to compare.")
    return model, [bundle.file(photo.file) for photo in bundle.golden], {}


def _load_trained(model: Path, checkpoint: str | Path | None) -> Trained:
    """The trained network: ``checkpoint``, or the one that the manifest records, if unchanged."""
    from edgetl.runtime.bundle.bundle_folder import Bundle
    from edgetl.training.models.checkpoint import load

    recorded = None if model.is_file() else Bundle.open(model).manifest["checkpoint"]
    if checkpoint is None:
        if not recorded or not recorded["path"]:
            raise CheckpointError(
                f"{model} does not say which checkpoint it was exported from.", _NAME_THE_RUN
            )
        # The recorded path is relative to the real folder, and could not be followed from a link.
        checkpoint = real_path(real_path(model) / recorded["path"])
        if not checkpoint.is_file():
            raise CheckpointError(
                f"The checkpoint that was exported is gone: {checkpoint}.", _NAME_THE_RUN
            )
    else:
        recorded = None
    try:
        trained = load(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(error.message, error.hint or _NAME_THE_RUN) from error
    if recorded and recorded["sha256"] != trained.sha256:
        raise CheckpointError(
            f"{checkpoint} is no longer the checkpoint that was exported (trained again?).",
            "Export it again, or compare with it all the same "
            f"with --checkpoint {shell_word(checkpoint)}",
        )
    return trained
