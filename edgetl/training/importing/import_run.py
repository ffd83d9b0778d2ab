"""``edgetl.import_network``: a network that was trained elsewhere becomes a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.errors import TrainingError
from edgetl.runtime.images.photo_list import refuse_list_options
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.environment import package_versions
from edgetl.system.missing_package import explain_missing_packages
from edgetl.system.paths import require_current_folder
from edgetl.system.progress import Progress, progress_callback
from edgetl.training.config.run_files import make_folder
from edgetl.training.config.run_folder import (
    BEST,
    candidate_name,
    clear,
    promote_candidate,
    refuse_photos_folder,
    require_free,
)
from edgetl.training.config.run_lock import lock_run_folder
from edgetl.training.importing.description import as_published, complete_spec, read_labels
from edgetl.training.importing.import_result import ImportResult

if TYPE_CHECKING:
    from torch import nn

    from edgetl.training.importing.foreign_file import ForeignNetwork
    from edgetl.training.models.checkpoint import Trained

_CANDIDATE = "import"


@explain_missing_packages("Importing a network")
def import_network(
    network: str | os.PathLike[str] | nn.Module,
    labels: str | os.PathLike[str] | Sequence[str],
    spec: PreprocessSpec | Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    backbone: str | None = None,
    images: str | os.PathLike[str] | None = None,
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> ImportResult:
    """Make a network that was trained elsewhere into a run that ``export`` takes.

    >>> edgetl.import_network("ants.pth", ["ant", "bee"], backbone="resnet50", out="runs/ants")
    >>> edgetl.import_network(module, ["ant", "bee"], spec, out="runs/ants")

    network    a state dict (``.pth``, ``.safetensors``) of ``backbone``, a TorchScript file, or a
               module: normalized float32 [N, 3, h, w] → logits or probabilities float32
               [N, classes]. A module is not changed
    labels     class names in the order of the outputs; or a text with commas between them, or a
               text file with one a line
    spec       the preprocessing that it was trained with; or only some of its fields, a crop or
               size of one number being a square, beside which that of ``backbone``'s own weights
               holds
    out        the run folder to write
    backbone   the architecture: a torchvision name, or "timm/<name>"
    images     a folder of photos in folders named like the labels, or a list of photos with labels:
               they are classified, the result says how well, and ``export`` finds golden photos
               there
    columns, root  of a list: its columns, such as ``{"path": "file"}``, where they have other
               names, and the folder that its paths are relative to
    overwrite  replace an earlier run in ``out``
    progress   called with the step, how much of it is done, and of how much; True shows a bar

    Raises TrainingError for a file or module that can't be used, weights of another architecture,
    or a wrong number of labels; SpecError for a preprocessing that can't be; DataError for
    photos without a label; CheckpointError for a run folder that can't be used; TypeError for a
    field that a PreprocessSpec lacks; MissingDependencyError if a package of the extra ``train`` is
    missing.
    """
    folder, progress = Path(out), progress_callback(progress)
    require_current_folder(TrainingError)
    names = read_labels(labels)
    require_free(folder, overwrite)
    if images is not None:
        refuse_photos_folder(folder, Path(images))
    else:
        refuse_list_options(None, columns, root)
    progress("Loading PyTorch", 0, 0)
    from edgetl.data.photo_source import PhotoSource
    from edgetl.evaluation.true_labels import labelled_samples
    from edgetl.training.importing import network_check
    from edgetl.training.importing.labelled_photos import measure
    from edgetl.training.models.torchscript_program import PROGRAM

    photos = PhotoSource.at(images, columns, root) if images is not None else None
    samples = labelled_samples(photos.path, names, columns, root) if photos is not None else ()
    found, source = _find(network, backbone, len(names), progress)
    complete = complete_spec(spec, found.published)
    progress("Trying the network", 0, 0)
    checked, notes = network_check.with_logits(found.network, complete, len(names), source)
    architecture = found.backbone
    if not architecture or checked is not found.network:
        checked = network_check.as_program(checked, complete, source)
        architecture = f"{PROGRAM}/{class_name(found.network)}"
    make_folder(folder)
    metrics: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    if samples:
        metrics, warnings = measure(checked, complete, names, samples, progress)
    settings: dict[str, Any] = {"imported": Path(source).name, "images": None}
    if photos is not None:  # how ``export`` finds them again
        place = {"images": str(photos.path), "columns": photos.columns, "root": photos.root}
        settings |= place
    trained = _trained(checked, architecture, names, complete, metrics, settings)
    _write_run(trained, metrics, folder, overwrite)
    return ImportResult(
        folder=folder,
        backbone=trained.card.backbone,
        labels=names,
        spec=complete,
        metrics=metrics,
        notes=(*as_published(complete, spec, found.published), *found.notes, *notes),
        warnings=warnings,
    )


def _find(
    network: str | os.PathLike[str] | nn.Module,
    backbone: str | None,
    classes: int,
    progress: Progress,
) -> tuple[ForeignNetwork, str]:
    """(the network as it was found, how messages name it)."""
    from torch import nn

    from edgetl.training.importing import foreign_file, network_check

    if isinstance(network, nn.Module):
        published = foreign_file.published_spec(backbone)
        own = network_check.own_copy(network)
        return foreign_file.ForeignNetwork(own, "", published), class_name(network)
    if isinstance(network, Mapping):
        raise TypeError("network is a module or a file: load the state dict into its module")
    source = os.fspath(network)
    progress(f"Reading {source}", 0, 0)
    return foreign_file.read_network(Path(network), backbone, classes), source


def class_name(network: nn.Module) -> str:
    """The name of its class, also of what was TorchScript when it was read."""
    return str(getattr(network, "original_name", type(network).__name__))


def _trained(
    network: nn.Module,
    backbone: str,
    labels: tuple[str, ...],
    spec: PreprocessSpec,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Trained:
    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.training.models.checkpoint import Trained

    card = ModelCard(
        labels=labels,
        spec=spec,
        backbone=backbone,
        metrics={name: value for name, value in metrics.items() if name != "classes"},
        data={"val": metrics["photos"]} if metrics else {},
        versions=package_versions("torch", "torchvision", "timm"),
    )
    return Trained(network, card, settings)


def _write_run(trained: Trained, metrics: Mapping[str, Any], folder: Path, overwrite: bool) -> None:
    from edgetl.training.evaluation.run_records import write_metrics
    from edgetl.training.models import checkpoint

    with lock_run_folder(folder):
        require_free(folder, overwrite)  # again: another run may have begun meanwhile
        checkpoint.save(trained, folder / candidate_name(_CANDIDATE))
        clear(folder, but=BEST)  # what belongs to the weights of an earlier run goes before them
        promote_candidate(folder, _CANDIDATE)
        if metrics:
            write_metrics(folder, metrics)
