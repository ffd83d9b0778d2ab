"""What every worker of a job is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClusterJob:
    """One run of one model over many photos, as its workers see it.

    destination    where the parts go
    run            what the manifest there says, as long as this run writes it
    model          path of the bundle or lone model where the command was given, for messages
    model_id       ``Predictor.model_id``
    options        keyword arguments of ``Predictor``
    columns        of the table
    embeddings     with each photo's embedding
    unknown_as     label of unknown photos; None: the nearest of the model's
    label_folders  of ``label_folders``
    folder         the current one, which relative paths start at
    places         local files and folders among the photos, which every worker must see
    workers        photos that a worker classifies at the same time
    """

    destination: str
    run: str
    model: str
    model_id: str
    options: Mapping[str, Any]
    columns: tuple[str, ...]
    embeddings: bool = False
    unknown_as: str | None = None
    label_folders: tuple[str, ...] = ()
    folder: str = "."
    places: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class PartSummary:
    """What became of a unit.

    part        the file's name
    photos      rows in it
    failed      rows with an error
    new         rows that this run wrote
    classified  new rows with an answer
    labelled    classified photos whose true label is known
    correct     those of them whose answer is right
    failure     (message, hint) of what ends the run, or None
    """

    part: str
    photos: int = 0
    failed: int = 0
    new: int = 0
    classified: int = 0
    labelled: int = 0
    correct: int = 0
    failure: tuple[str, str | None] | None = None
