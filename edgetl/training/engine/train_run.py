"""The public function ``edgetl.train``: what the command ``edgetl train`` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgetl.data.image_folder import ImageFolders
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import TrainingError
from edgetl.system.missing_package import explain_missing_packages
from edgetl.system.paths import require_current_folder
from edgetl.system.progress import Progress, progress_callback
from edgetl.training.config.earlier_run import read_earlier_run, require_common_class
from edgetl.training.config.listener import Listener, ProgressListener
from edgetl.training.config.option import flag
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import require_free, require_resumable
from edgetl.training.config.settings import OPTIONS, TrainSettings
from edgetl.training.engine.run_photos import find_photos, refuse_among_photos
from edgetl.training.engine.train_result import TrainResult

RESUMED_WITH = frozenset({"device", "root"})
"""The options that a run may be continued with: machines differ, and photos move."""


@explain_missing_packages("Training")
def train(
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    since: str | Path | None = None,
    progress: Progress | Listener | bool | None = None,
    **options: Any,
) -> TrainResult:
    """Train a classifier on labelled photos, and write a run folder.

    >>> result = edgetl.train("photos", "runs/pets", strategy="full", epochs=20)
    >>> result.metrics["accuracy"]
    0.97

    data       a folder with ``train/CLASS/`` and ``val/CLASS/``, or ``CLASS/`` folders to split; or
               a list, .csv, .tsv, .jsonl or .parquet, with a path and a label for each photo, and
               perhaps the part, train or val
    out        the run folder to write
    resume     the folder of an interrupted run to continue, in place of ``out``; then ``data`` says
               where its photos are now, if they were moved, and only ``device`` and ``root`` may be
               among the options
    overwrite  replace an earlier run in ``out``
    since      the folder of an earlier run: the result, the report and since.json say what changed
    progress   called with (step, done, total); True shows a bar; an object of a class derived from
               ``edgetl.training.config.listener.Listener`` also receives notes and epochs
    options    the command's options, with underscores: ``epochs=20``, ``class_weights=True``,
               ``scale=(0.5, 1.0)``, ``columns={"path": "file"}``. None means not given

    Raises TypeError for an unknown option and for arguments that don't belong together;
    TrainingError for a value that can't be used, or options that have no effect; DataError for
    photos that can't be trained on; CheckpointError for a run folder that can't be used;
    RuntimeUnavailableError for a device that is not there, or can't do what was asked of it;
    MissingDependencyError if torch or another package of the extra ``train`` is missing.
    """
    started = time.monotonic()
    given = {name: _plain(value) for name, value in options.items() if value is not None}
    for name in given:
        if name not in OPTIONS:
            close = get_close_matches(name, OPTIONS, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"train() got an unexpected option {name!r}.{hint}")
    listener = as_listener(progress)
    if resume is not None:
        others = sorted(given.keys() - RESUMED_WITH)
        others += [name for name, value in (("out", out), ("overwrite", overwrite)) if value]
        if others:
            raise TypeError(
                f"resume continues with the run's own settings; leave out {', '.join(others)}."
            )
        require_current_folder(TrainingError)
        require_resumable(Path(resume))
        earlier = read_earlier_run(since, resume)
        from edgetl.training.engine import resumed_run

        return resumed_run.resume(
            Path(resume),
            data=data,
            root=given.get("root"),
            device=given.get("device"),
            listener=listener,
            since=earlier,
        )
    if data is None or out is None:
        raise TypeError("train() needs data and out, or resume.")
    earlier = read_earlier_run(since, out)
    settings, folders = resolve_run(data, Path(out), given, listener, overwrite=overwrite)
    if earlier is not None:
        require_common_class(earlier, folders.classes)
    from edgetl.training.engine import new_run

    return new_run.train(
        settings,
        Path(out),
        folders,
        started=started,
        overwrite=overwrite,
        listener=listener,
        since=earlier,
    )


def _plain(value: Any) -> Any:
    """A path and the columns as text, and a pair as a tuple, as the command's options are."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return ",".join(f"{role}={column}" for role, column in value.items())
    return tuple(value) if isinstance(value, list) else value


def as_listener(progress: Progress | Listener | bool | None) -> Listener:
    """A listener that reports to ``progress``, or ``progress`` itself if it is one."""
    if isinstance(progress, Listener):
        return progress
    return ProgressListener(progress_callback(progress))


def resolve_run(
    data: str | Path,
    out: Path,
    given: Mapping[str, Any],
    listener: Listener,
    *,
    overwrite: bool = False,
    keeps_run: bool = False,
) -> tuple[TrainSettings, ImageFolders]:
    """The settings of a new run, and its photos.

    Whatever can be wrong with the call is reported before torch is imported, which takes seconds.

    given      option → value, without the options that were not given
    keeps_run  a run in ``out`` may stay there: it is not written over

    Raises as ``train``.
    """
    require_current_folder(TrainingError)
    accepted, refused = _resolve_on_devices(data, given)
    possible = list(accepted.values())
    source = possible[0].source
    refuse_among_photos(out, possible[0])
    if not keeps_run:
        require_free(out, overwrite, [settings.to_dict() for settings in possible])
    # What is in shards and stores is read once, when the photos are listed.
    if "val_fraction" in given and not source.is_stored and source.is_split:
        raise _useless_val_fraction(source)
    if refused is not None:
        _choose_by_device(accepted, refused)
    folders = find_photos(possible[0], listener)
    if "val_fraction" in given and folders.has_val_folder:
        raise _useless_val_fraction(source)
    return _choose_by_device(accepted, refused), folders


def _resolve_on_devices(
    data: str | Path, given: Mapping[str, Any]
) -> tuple[dict[bool, TrainSettings], TrainingError | None]:
    """(whether on a GPU → the settings there, why they are refused on the other device).

    On both, if torch has to be asked which it will be. Raises TrainingError if both are refused.
    """
    device = str(given.get("device", "auto"))
    accepted: dict[bool, TrainSettings] = {}
    refused = None
    for cuda in (True, False) if device == "auto" else (device.startswith("cuda"),):
        try:
            accepted[cuda] = resolve(data, given, cuda=cuda)
        except TrainingError as error:
            refused = error
    if refused is not None and not accepted:
        raise refused
    return accepted, refused


def _choose_by_device(
    accepted: Mapping[bool, TrainSettings], refused: TrainingError | None
) -> TrainSettings:
    """The settings on this machine. Raises ``refused`` if there are none on its device."""
    if len(accepted) == 1 and refused is None:
        return next(iter(accepted.values()))
    from edgetl.training.torch_env.distributed import choose_device

    cuda = choose_device("auto").type == "cuda"
    if refused is not None and cuda not in accepted:
        raise refused
    return accepted[cuda]


def _useless_val_fraction(source: PhotoSource) -> TrainingError:
    """The error for a share to validate on where the data say what to validate on."""
    own = "there is a folder val/"
    if source.is_list:
        kind = "shards or the store mark" if source.is_stored else "list marks"
        own = f"the {kind} what to validate on"
    return TrainingError(f"{flag('val_fraction')}: no effect where {own}.", "Leave it out.")
