"""Reading what `edgetl export` wrote: a bundle folder or a lone model.onnx. Nothing is believed unchecked."""

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

SCHEMA = 1
MANIFEST = "manifest.json"
METADATA_KEY = "edgetl"
"""Key of the ONNX file's metadata that holds ``{"schema": 1, "card": …}`` as JSON."""
DEFAULT_PRECISION = "fp32"
ONNX_FILES = {DEFAULT_PRECISION: "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""Precision → the name of its model's file. The keys are all precisions there are."""
FORMATS = ("onnx", "torchscript", "pt2")
"""What a bundle may hold; pt2 is a torch.export program."""
DEFAULT_FORMATS = FORMATS[:2]

_CHECKSUM = "sha256"  # of the manifest without this entry
_KEYS = frozenset(
    {"name", "created", "checkpoint", "versions", "opset"}
)  # besides those that ``Bundle.open`` reads
_MAX_MANIFEST_BYTES = 1 << 28  # a thousand labels and golden answers take a few megabytes

_REEXPORT = "Export it again with `edgetl export`, or copy the bundle again."

# Small records are named tuples here: writing one takes Python 0.2 ms at every start, a frozen dataclass 1.4.


class GoldenAnswer(NamedTuple):
    """Logits and probabilities, one float a class."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


class Golden(NamedTuple):
    """A photo that came with the model, and the trained model's answers for it.

    file            its name in the bundle
    source          where it came from
    decoded_sha256  of the decoded, upright RGB picture's bytes, uint8 [H, W, 3]
    resized_sha256  of the uint8 [h, w, 3] bytes after resize and crop
    answer          of the trained network
    own_answers     of the bundle's own models, by precision, where those are not meant to be the network's
    """

    file: str
    source: str
    decoded_sha256: str
    resized_sha256: str
    answer: GoldenAnswer
    own_answers: Mapping[str, GoldenAnswer]


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """What a golden photo's pixels, uint8 [H, W, 3], are told by: hex digits."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle folder whose manifest has been read and checked; its files are checked as they are read."""

    path: Path
    manifest: Mapping[str, Any]
    card: ModelCard
    golden: tuple[Golden, ...]

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read ``path``/manifest.json. Raises BundleError if it is missing, damaged, or of a later schema."""
        path = Path(path)
        file = path / MANIFEST
        with looking_at(path):
            if not is_there(file) and not file.is_symlink():
                is_run = (path / "best.safetensors").exists()
                export = f"It is a training run: edgetl export {shell_word(path)} -o {shell_word(f'exported/{path.name}')}"
                hint = export if is_run else "Name a folder that `edgetl export` wrote."
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
            raise BundleError(
                file, f"it is incomplete: {type(error).__name__}: {error}", _REEXPORT
            ) from error
        return cls(path, manifest, card, golden)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the ONNX models in the bundle, the default one first."""
        models = self.manifest["models"]
        return tuple(sorted(models, key=lambda name: (name != DEFAULT_PRECISION, name)))

    def model_name(self, precision: str | None = None) -> str:
        """File name of the ONNX model of ``precision`` (None: the default one). Raises BundleError."""
        if not self.precisions:
            raise NoSuchModelError(
                self.path, "it holds no ONNX model", "Export it with `--format onnx`."
            )
        precision = self.precisions[0] if precision is None else precision
        if precision not in self.precisions:
            raise NoSuchModelError(
                self.path,
                f"it holds no {precision or repr(precision)} model",
                f"It holds: {', '.join(self.precisions)}.",
            )
        return str(self.manifest["models"][precision])

    def file(self, name: str) -> Path:
        """Path of one of its files, which must be a regular file inside the folder. Raises BundleError."""
        path = self.path / name
        if name not in self.manifest["files"]:
            raise BundleError(path, f"{MANIFEST} does not name it", _REEXPORT)
        _check_regular(self.path, path)
        return path

    def open_file(self, name: str) -> BufferedReader:
        """One of its files, open for reading, not yet checked; for the caller to close. Raises BundleError."""
        return open_to_read(self.file(name))

    def check(self, name: str, content: Content) -> None:
        """Raises BundleError unless ``content`` is what the manifest says of its file ``name``."""
        self._compare(name, len(content), hashlib.sha256(content).hexdigest())

    def read(self, name: str) -> bytes:
        """Bytes of one of its files, checked against the manifest. Raises BundleError."""
        with self.open_file(name) as file:
            content = file.read()
        self.check(name, content)
        return content

    def damage(self) -> list[BundleError]:
        """One error for each file that is missing or not as the manifest says; empty if all are whole."""
        errors = []
        for name in self.manifest["files"]:
            try:
                with self.open_file(name) as file:
                    self._compare(
                        name,
                        os.fstat(file.fileno()).st_size,
                        hashlib.file_digest(file, "sha256").hexdigest(),
                    )
            except BundleError as error:
                errors.append(error)
        return errors

    def _compare(self, name: str, size: int, digest: str) -> None:
        path, expected = self.path / name, self.manifest["files"][name]
        if size != expected["bytes"]:
            raise BundleError(
                path, f"it has {size} bytes and should have {expected['bytes']}", _REEXPORT
            )
        if digest != expected["sha256"]:
            raise BundleError(path, "it is damaged: its SHA-256 is not the manifest's", _REEXPORT)


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The one way in which a manifest is written: same content, same bytes, its own checksum among them."""
    bare = {key: value for key, value in manifest.items() if key != _CHECKSUM}
    return _canonical({**bare, _CHECKSUM: hashlib.sha256(_canonical(bare)).hexdigest()})


def _canonical(values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(
        "utf-8", "backslashreplace"
    )  # a file's name that is no text becomes an escape, in JSON too


def card_metadata(card: ModelCard) -> str:
    """``card`` as the value of METADATA_KEY in an ONNX file's metadata."""
    return json.dumps(
        {"schema": SCHEMA, "card": card.to_dict()}, sort_keys=True, ensure_ascii=False
    )


def read_card(path: str | Path, metadata: Mapping[str, str]) -> ModelCard:
    """The card in an ONNX file's metadata. Raises BundleError naming ``path`` if it is not ours or of a later schema."""
    if METADATA_KEY not in metadata:
        raise BundleError(
            path,
            "it was not exported by edgetl: it has no labels and no preprocessing",
            "Export it with `edgetl export`.",
        )
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
        raise BundleError(path, "its metadata has no model description", _REEXPORT) from error


def check_schema(path: str | Path, values: object) -> None:
    """Raises BundleError unless ``values`` is an object of a schema that is read here."""
    schema = values.get("schema") if isinstance(values, Mapping) else None
    if schema != SCHEMA:
        later = isinstance(schema, int) and schema > SCHEMA
        raise BundleError(
            path,
            f"its schema is {schema!r}; this edgetl reads {SCHEMA}",
            "Install a newer edgetl." if later else _REEXPORT,
        )


def _read_manifest(file: Path) -> Mapping[str, Any]:
    with open_to_read(file) as stream:
        content = stream.read(min(os.fstat(stream.fileno()).st_size + 1, _MAX_MANIFEST_BYTES))
    try:
        manifest = json.loads(content)
        check_schema(file, manifest)
        unchanged = content == manifest_bytes(
            manifest
        )  # whatever byte of it changes, its checksum doesn't fit
    except (ValueError, RecursionError) as error:
        raise BundleError(
            file, f"it is damaged: not the JSON that was written ({error})", _REEXPORT
        ) from error
    if not unchanged:
        raise BundleError(file, "it was changed after the export", _REEXPORT)
    return dict(manifest)


def open_to_read(path: Path) -> BufferedReader:
    """Raises BundleError where it can't be opened."""
    with looking_at(path):
        return path.open("rb")


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Turns what the system says within into a BundleError: a closed folder, a name that is too long."""
    try:
        yield
    except OSError as error:
        raise BundleError(path, f"it can't be read ({error.strerror})") from error


def _check_files(manifest: Mapping[str, Any], golden: tuple[Golden, ...]) -> None:
    if missing := _KEYS - set(manifest):
        raise ValueError(f"it does not say {', '.join(sorted(missing))}")
    for name, entry in manifest["files"].items():
        _check_name(name)
        if not (isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)):
            raise ValueError(f"files: {name!r} has no checksum")
    if not all(isinstance(manifest["checkpoint"][key], str | None) for key in ("path", "sha256")):
        raise ValueError("checkpoint: neither a path nor nothing")
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
    answer = GoldenAnswer(
        tuple(map(float, entry["logits"])), tuple(map(float, entry["probabilities"]))
    )
    if not len(answer.logits) == len(answer.probabilities) == len(card.labels):
        raise ValueError("a golden photo does not have one answer a label")
    return answer


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    name.encode()  # UnicodeEncodeError is a ValueError, too
    if (
        not parts
        or name.startswith("/")
        or ".." in parts
        or "\\" in name
        or ":" in name
        or "\0" in name
    ):
        raise ValueError(f"files: {name!r} leads outside the folder")


def _check_regular(root: Path, path: Path) -> None:
    """A link could lead outside the folder, so none is followed below it."""
    step = path
    with looking_at(path):
        while step != root:
            if step.is_symlink():
                raise BundleError(
                    step,
                    "it is a link; a bundle holds plain files only",
                    "Copy the file itself in its place.",
                )
            step = step.parent
        if not is_there(path):
            raise BundleError(path, "it is missing", _REEXPORT)
        if not path.is_file():
            raise BundleError(path, "it is not a regular file", _REEXPORT)
