"""Reading what ``edgetl export`` wrote: a bundle folder or a lone model.onnx.

Nothing in them is trusted unchecked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from edgetl.errors import BundleError, EdgetlError, NoSuchModelError
from edgetl.runtime.bundle.memory_copy import Content
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.paths import is_there
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetl.runtime.bundle.held_out import HeldOut

SCHEMA = 1
"""Of bundles and models that give logits and probabilities alone."""
OUTPUTS_SCHEMA = 2
"""Of those whose graph has further outputs, which a reader of schema 1 refuses."""
_REQUIRES = "requires_edgetl"  # from schema 2 on: the first version of edgetl that reads it
_FIRST_READER = "0.2.0"
MANIFEST = "manifest.json"
METADATA_KEY = "edgetl"
"""Key of the ONNX file's metadata that holds ``{"schema": 1, "card": …}`` as JSON."""
TRAINING_PHOTOS = "training_photos"
"""Key of the manifest for short digests of the training photos; it may be missing."""
HELD_OUT = "held_out"
"""Key of the manifest for the file of answers for held-out photos; it may be missing."""
DEFAULT_PRECISION = "fp32"
ONNX_FILES = {DEFAULT_PRECISION: "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""Precision → name of its model file, for every precision."""
FORMATS = ("onnx", "torchscript", "pt2")
"""Model formats in a bundle; pt2 is a torch.export program."""
DEFAULT_FORMATS = FORMATS[:2]

_CHECKSUM = "sha256"  # of the manifest without this entry
# Required besides those that ``Bundle.open`` reads.
_KEYS = frozenset({"name", "created", "checkpoint", "versions", "opset"})
_MAX_MANIFEST_BYTES = 1 << 28  # a thousand labels and golden answers take a few megabytes

_NAME_A_BUNDLE = "Name a folder that `edgetl export` wrote."
_REEXPORT = "Export it again with `edgetl export`, or copy the bundle again."

# Small records are named tuples here: defining one takes 0.2 ms of every start, a frozen dataclass
# 1.4 ms.


class GoldenAnswer(NamedTuple):
    """Logits and probabilities, one float per class.

    ood_score, embedding  None and empty where the model has no score
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    ood_score: float | None = None
    embedding: tuple[float, ...] = ()


class Golden(NamedTuple):
    """A photo in the bundle, and the trained model's answers for it.

    file            its name in the bundle
    source          where it came from
    decoded_sha256  of the decoded, upright RGB image's bytes, uint8 [H, W, 3]
    resized_sha256  of the uint8 [h, w, 3] bytes after resize and crop
    answer          of the trained network
    own_answers     by precision, of those models in the bundle that answer differently by design
    """

    file: str
    source: str
    decoded_sha256: str
    resized_sha256: str
    answer: GoldenAnswer
    own_answers: Mapping[str, GoldenAnswer]


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's pixels, uint8 [H, W, 3], as hex digits."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle folder whose manifest was verified; its files are verified when they are read."""

    path: Path
    manifest: Mapping[str, Any]
    card: ModelCard
    golden: tuple[Golden, ...]

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read ``path``/manifest.json.

        Raises BundleError if it is missing, damaged, or has a later schema.
        """
        path = Path(path)
        file = path / MANIFEST
        with os_errors_as_bundle_error(path):
            require_model(path)
            if not is_there(file) and not file.is_symlink():
                hint = _NAME_A_BUNDLE
                if (path / "best.safetensors").exists():
                    run, out = shell_word(path), shell_word(f"exported/{path.name}")
                    hint = f"It is a training run: edgetl export {run} -o {out}"
                raise NoSuchModelError(path, f"it is not a bundle: it has no {MANIFEST}", hint)
        _check_regular(path, file)
        manifest = _read_manifest(file)
        try:
            card = ModelCard.from_dict(manifest["card"])
            golden = tuple(_read_golden(entry, card) for entry in manifest["golden"])
            _check_files(manifest, golden)
        except EdgetlError as error:
            raise BundleError(file, error.message, error.hint) from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"it is incomplete: {type(error).__name__}: {error}"
            raise BundleError(file, reason, _REEXPORT) from error
        return cls(path, manifest, card, golden)

    @property
    def run(self) -> Path | None:
        """The run folder that it was exported from; None if that is not known or gone."""
        checkpoint = self.manifest["checkpoint"]["path"]
        run = Path(os.path.relpath(self.path / checkpoint)).parent if checkpoint else None
        return run if run is not None and is_there(run) else None

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the ONNX models in the bundle, the default first."""
        models = self.manifest["models"]
        return tuple(sorted(models, key=lambda name: (name != DEFAULT_PRECISION, name)))

    def model_name(self, precision: str | None = None) -> str:
        """File name of the ONNX model of ``precision`` (None: the default). Raises BundleError."""
        if not self.precisions:
            hint = "Export it with `--format onnx`."
            raise NoSuchModelError(self.path, "it holds no ONNX model", hint)
        precision = self.precisions[0] if precision is None else precision
        if precision not in self.precisions:
            reason = f"it holds no {precision or repr(precision)} model"
            raise NoSuchModelError(self.path, reason, f"It holds: {', '.join(self.precisions)}.")
        return str(self.manifest["models"][precision])

    def has_portable_bits(self, precision: str) -> bool:
        """Whether its ``own_answers`` have the logits that every CPU gives, to the bit."""
        found = self.manifest.get("precisions", {})
        return isinstance(found, dict) and (found.get(precision) or {}).get("portable_bits") is True

    def file(self, name: str) -> Path:
        """Path of one of its files.

        Raises BundleError unless it is a regular file inside the folder.
        """
        path = self.path / name
        if name not in self.manifest["files"]:
            raise BundleError(path, f"{MANIFEST} does not name it", _REEXPORT)
        _check_regular(self.path, path)
        return path

    def open_file(self, name: str) -> BufferedReader:
        """Open one of its files for reading, without verifying its content. Raises BundleError."""
        return open_to_read(self.file(name))

    def check(self, name: str, content: Content) -> None:
        """Raises BundleError unless ``content`` is that of its file ``name``."""
        self._compare(name, len(content), hashlib.sha256(content).hexdigest())

    def read(self, name: str) -> bytes:
        """Content of one of its files, verified against the manifest. Raises BundleError."""
        with self.open_file(name) as file:
            content = file.read()
        self.check(name, content)
        return content

    def held_out(self) -> HeldOut | None:
        """Answers for photos that fitted nothing; None if it has none. Raises BundleError."""
        if (name := self.manifest.get(HELD_OUT)) is None:
            return None
        from edgetl.runtime.bundle.held_out import HeldOut

        content, path = self.read(str(name)), self.path / str(name)
        try:
            found = HeldOut.from_bytes(content)
        except EdgetlError as error:
            raise BundleError(path, error.message, _REEXPORT) from error
        if (classes := found.logits.shape[1]) != len(self.card.labels):
            reason = f"it has logits of {classes} labels; the model has {len(self.card.labels)}"
            raise BundleError(path, reason, _REEXPORT)
        return found

    def damage(self) -> list[BundleError]:
        """One error for each file that is missing or differs from the manifest's."""
        errors = []
        for name in self.manifest["files"]:
            try:
                with self.open_file(name) as file:
                    size = os.fstat(file.fileno()).st_size
                    self._compare(name, size, hashlib.file_digest(file, "sha256").hexdigest())
            except BundleError as error:
                errors.append(error)
        return errors

    def _compare(self, name: str, size: int, digest: str) -> None:
        path, expected = self.path / name, self.manifest["files"][name]
        if size != expected["bytes"]:
            reason = f"it has {size} bytes and should have {expected['bytes']}"
            raise BundleError(path, reason, _REEXPORT)
        if digest != expected["sha256"]:
            raise BundleError(path, "it is damaged: its SHA-256 is not the manifest's", _REEXPORT)


def file_entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The manifest's entry for each of ``files`` (name → content)."""
    return {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
    }


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest file's content with its own checksum; the same values give the same bytes."""
    bare = {key: value for key, value in manifest.items() if key != _CHECKSUM}
    return _canonical({**bare, _CHECKSUM: hashlib.sha256(_canonical(bare)).hexdigest()})


def _canonical(values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not Unicode becomes an escape, which is valid JSON.
    return text.encode("utf-8", "backslashreplace")


def schema_entries(more_outputs: bool) -> dict[str, Any]:
    """What a manifest, and a model's metadata, say of their schema.

    more_outputs  the graph has others than logits and probabilities
    """
    if not more_outputs:
        return {"schema": SCHEMA}
    return {"schema": OUTPUTS_SCHEMA, _REQUIRES: _FIRST_READER}


def card_metadata(card: ModelCard, schema: Mapping[str, Any] | None = None) -> str:
    """``card`` as the value of METADATA_KEY in an ONNX file's metadata.

    schema  of ``schema_entries``; None: that of a graph with logits and probabilities alone
    """
    values = {**(schema or schema_entries(False)), "card": card.to_dict()}
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def read_card(path: str | Path, metadata: Mapping[str, str]) -> ModelCard:
    """The model card in an ONNX file's metadata.

    Raises BundleError naming ``path`` if there is none, or if it has a later schema.
    """
    if METADATA_KEY not in metadata:
        reason = "it was not exported by edgetl: it has no labels and no preprocessing"
        raise BundleError(path, reason, "Export it with `edgetl export`.")
    try:
        values = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise BundleError(path, f"its metadata is damaged ({error})", _REEXPORT) from error
    check_schema(path, values)
    try:
        return ModelCard.from_dict(values["card"])
    except EdgetlError as error:
        raise BundleError(path, error.message, error.hint) from error
    except KeyError as error:
        raise BundleError(path, "its metadata has no model card", _REEXPORT) from error


def check_schema(path: str | Path, values: object) -> None:
    """Raises BundleError unless ``values`` is an object with a schema that this version reads."""
    values = values if isinstance(values, Mapping) else {}
    schema = values.get("schema")
    if schema not in (SCHEMA, OUTPUTS_SCHEMA):
        hint = _REEXPORT
        if isinstance(schema, int) and schema > OUTPUTS_SCHEMA:
            required = values.get(_REQUIRES)
            hint = f"Install edgetl {required} or newer." if required else "Install a newer edgetl."
        reason = f"its schema is {schema!r}; this edgetl reads {SCHEMA} and {OUTPUTS_SCHEMA}"
        raise BundleError(path, reason, hint)


def _read_manifest(file: Path) -> Mapping[str, Any]:
    with open_to_read(file) as stream:
        content = stream.read(min(os.fstat(stream.fileno()).st_size + 1, _MAX_MANIFEST_BYTES))
    try:
        manifest = json.loads(content)
        check_schema(file, manifest)
        unchanged = content == manifest_bytes(manifest)  # if any byte differs, its checksum does
    except (ValueError, RecursionError) as error:
        reason = f"it is damaged: not the JSON that was written ({error})"
        raise BundleError(file, reason, _REEXPORT) from error
    if not unchanged:
        raise BundleError(file, "it was changed after the export", _REEXPORT)
    return dict(manifest)


def open_to_read(path: Path) -> BufferedReader:
    """Open a file for reading. Raises BundleError if that fails."""
    with os_errors_as_bundle_error(path):
        return path.open("rb")


@contextmanager
def os_errors_as_bundle_error(path: Path) -> Iterator[None]:
    """Turn an OSError into a BundleError, such as for a folder that may not be read."""
    try:
        yield
    except OSError as error:
        raise BundleError(path, f"it can't be read ({error.strerror})") from error


def _check_files(manifest: Mapping[str, Any], golden: tuple[Golden, ...]) -> None:
    if missing := _KEYS - set(manifest):
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name, entry in manifest["files"].items():
        _check_name(name)
        if not (isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)):
            raise ValueError(f"files: {name!r} has no checksum")
    if not all(isinstance(manifest["checkpoint"][key], str | None) for key in ("path", "sha256")):
        raise ValueError("checkpoint: path and sha256 must be strings or null")
    for name in (*manifest["models"].values(), *(photo.file for photo in golden)):
        if name not in manifest["files"]:
            raise ValueError(f"{name!r} is not among its files")


def _read_golden(entry: Mapping[str, Any], card: ModelCard) -> Golden:
    return Golden(
        file=str(entry["file"]),
        source=str(entry["source"]),
        decoded_sha256=str(entry["decoded_sha256"]),
        resized_sha256=str(entry["resized_sha256"]),
        answer=_read_answer(entry, card),
        own_answers={
            precision: _read_answer(answer, card)
            for precision, answer in entry.get("own_answers", {}).items()
        },
    )


def _read_answer(entry: Mapping[str, Any], card: ModelCard) -> GoldenAnswer:
    logits, probabilities = (tuple(map(float, entry[key])) for key in ("logits", "probabilities"))
    if not len(logits) == len(probabilities) == len(card.labels):
        raise ValueError("a golden photo does not have one answer for each label")
    if card.unknown is None:
        return GoldenAnswer(logits, probabilities)
    embedding = tuple(map(float, entry["embedding"]))
    return GoldenAnswer(logits, probabilities, float(entry["ood_score"]), embedding)


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    name.encode()  # UnicodeEncodeError is a ValueError, too
    if not parts or ".." in parts or name.startswith("/") or any(c in name for c in "\\:\0"):
        raise ValueError(f"files: {name!r} leads outside the folder")


def require_model(path: Path) -> None:
    """Raises NoSuchModelError if there is nothing at ``path``, OSError if that can't be seen."""
    if not is_there(path):
        raise NoSuchModelError(path, "there is no such bundle or model", _NAME_A_BUNDLE)


def _check_regular(root: Path, path: Path) -> None:
    """Raises BundleError for a link below ``root``, which could lead outside of it."""
    step = path
    with os_errors_as_bundle_error(path):
        while step != root:
            if step.is_symlink():
                reason = "it is a link; a bundle holds plain files only"
                raise BundleError(step, reason, "Copy the file itself in its place.")
            step = step.parent
        if not is_there(path):
            raise BundleError(path, "it is missing", _REEXPORT)
        if not path.is_file():
            raise BundleError(path, "it is not a regular file", _REEXPORT)
