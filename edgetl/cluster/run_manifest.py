"""The file beside the parts that says whose answers they are, and whether all are there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from edgetl._version import __version__
from edgetl.cluster.destination import Destination
from edgetl.errors import ResultsError
from edgetl.runtime.results.parquet_rows import RUN_MANIFEST

_SCHEMA = 1
_MODEL, _LABELS, _OPTIONS, _RUN = "model", "labels", "options", "run"


class RunManifest:
    """The manifest of a destination, for one model and options.

    model    ``Predictor.model_id``
    labels   in the order of the outputs
    options  those that change what rows say

    Raises ResultsError for a destination that holds anything else; nothing is changed there.
    """

    def __init__(
        self,
        destination: Destination,
        model: str,
        labels: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        self._destination = destination
        self._known = {_MODEL: model, _LABELS: list(labels), _OPTIONS: dict(options)}
        self.run = uuid.uuid4().hex
        self.files = destination.files(patient=False)
        if self.files:
            self._require_own(destination.read(RUN_MANIFEST))

    def begin(self) -> None:
        """Say that parts are being written."""
        self._write(complete=False)

    def complete(self, counts: Mapping[str, int]) -> None:
        """Say that all parts are there, and what they hold. Raises ResultsError."""
        require_run(self._destination, self.run)
        self._write(complete=True, **counts)

    def _write(self, **values: Any) -> None:
        known = {"schema": _SCHEMA, "edgetl": __version__, _RUN: self.run, **self._known, **values}
        text = json.dumps(known, indent=1, ensure_ascii=False) + "\n"
        self._destination.write(RUN_MANIFEST, text.encode("utf-8", "backslashreplace"))

    def _require_own(self, content: bytes | None) -> None:
        found = _parsed(content)
        if found.get("schema") != _SCHEMA:
            raise ResultsError(
                f"{self._destination} holds something else than answers of edgetl predict --ray.",
                "Name a new folder with --out.",
            )
        if found.get(_MODEL) != self._known[_MODEL]:
            raise ResultsError(
                f"{self._destination} holds answers of another model ({found.get(_MODEL)}; "
                f"this one is {self._known[_MODEL]}).",
                "Name another place with --out, or remove this one.",
            )
        before, now = (_flat(values) for values in (found, self._known))
        if changed := [name for name in now if before.get(name) != now[name]]:
            values = ", ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in changed)
            raise ResultsError(
                f"{self._destination} was begun with other options: {values}.",
                "Give the same options, or name another place with --out.",
            )


def require_run(destination: Destination, run: str) -> None:
    """Raise ResultsError unless ``destination`` is where that run writes, seen from here."""
    found = _parsed(destination.read(RUN_MANIFEST))
    if not found:
        raise ResultsError(
            f"{destination} is not the same folder on every machine of the cluster.",
            "Name an address in a store with --out, or a folder on a disk that all of them share.",
        )
    if found.get(_RUN) != run:
        raise ResultsError(
            f"Another run writes to {destination}, too.",
            "Wait for it, and give the same command again.",
        )


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, and options as they are called in a command."""
    options = manifest.get(_OPTIONS)
    named = options.items() if isinstance(options, dict) else ()
    values = {f"--{name.replace('_', '-')}": value for name, value in named}
    return {_LABELS: manifest.get(_LABELS), **values}


def _parsed(content: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
