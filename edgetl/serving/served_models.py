"""The models of a service: opened, tested on their golden photos, and replaced by newer ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import BundleError, EdgetlError, first_line
from edgetl.runtime.inference.predictor import GPU_BATCH, Predictor
from edgetl.runtime.inference.session import CPU
from edgetl.serving.photo_batches import PhotoBatches
from edgetl.serving.service_settings import ServiceSettings

_log = logging.getLogger(__name__)

# Of each file: path, device, inode, bytes, time of its last change.
_State = frozenset[tuple[str, int, int, int, int]]


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model under the name by which requests ask for it.

    batches  runs its photos together, on a GPU; None: on a CPU, where that gains nothing
    """

    name: str
    predictor: Predictor
    batches: PhotoBatches | None = None

    @property
    def version(self) -> str:
        """Identifies the model file, as ``Predictor.model_id``."""
        return self.predictor.model_id


class ServedModels:
    """The models of ``settings`` by name; a reader gets a whole one, the old or the new.

    Raises EdgetlError if one can't be opened, or answers its golden photos differently here.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._paths, self._options = settings.models, settings.predictor
        self._max_wait = settings.max_wait
        # What was last seen on disk, and the state of which was last tried. A bundle that is copied
        # into place file by file is not whole before its state stays the same.
        self._seen = {name: _state(path) for name, path in self._paths.items()}
        self._tried = dict(self._seen)
        self._models = {name: self._open(name) for name in self._paths}

    def __getitem__(self, name: str | None) -> ServedModel:
        """The model of that name; of None, the first one. Raises KeyError."""
        return self._models[next(iter(self._models)) if name is None else name]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def take_replaced(self) -> dict[str, bool]:
        """Look for models that were replaced on disk, and take those that pass their self-test.

        To be called from time to time, by one thread. Returns whether a model was taken, by name,
        for those that were tried.
        """
        tried = {}
        for name, path in self._paths.items():
            state = _state(path)
            if state == self._seen[name] != self._tried[name]:
                self._tried[name] = state
                taken = self._take(name)
                if taken is not None:
                    tried[name] = taken
            self._seen[name] = state
        return tried

    def _take(self, name: str) -> bool | None:
        """Whether the model on disk was taken; None if it is the same."""
        old = self._models[name]
        try:
            new = self._open(name)
        except EdgetlError as error:
            reason = first_line(error).removesuffix(".")
            _log.error("%s: %s. The model in use serves on.", name, reason)
            return False
        if new.version == old.version and new.predictor.card == old.predictor.card:
            return None
        self._models[name] = new
        _log.info("%s: took the new model %s in place of %s.", name, new.version, old.version)
        return True

    def _open(self, name: str) -> ServedModel:
        path = self._paths[name]
        # A predictor of its own for the test, which needs no limit on pixels, and may open the
        # model a second time.
        options = {key: value for key, value in self._options.items() if key != "max_pixels"}
        tested = Predictor(path, **options)
        if tested.bundle is not None and tested.bundle.golden:
            outcome = tested.selftest()
            if not outcome.passed:
                failed = next(result for result in outcome.results if result.stage is not None)
                raise BundleError(
                    path,
                    f"its self-test failed at {failed.stage}: {failed.file}: {failed.detail}",
                    "See `edgetl selftest`; export it again, or repair this machine.",
                )
        predictor, batches = Predictor(path, **self._options), None
        if predictor.provider != CPU:
            batches = PhotoBatches(predictor.predict_stack, GPU_BATCH, self._max_wait)
        model = ServedModel(name, predictor, batches)
        if model.version != tested.model_id:
            raise BundleError(path, "it was replaced while it was tested", "It is tried again.")
        return model


def _state(path: Path) -> _State:
    """What tells a model on disk from another one; nothing of it where it can't be read."""
    files = [path]
    if path.is_dir():
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    state = set()
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        state.add((str(file), *numbers))
    return frozenset(state)
