"""The folder ``web/`` of a bundle: a page, the module that it uses, and models for both.

A server hosts the folder as it is; npm takes it for a package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.formats.resized_network import cut_at_resized
from edgetl.exporting.verification import open_onnx
from edgetl.runtime.bundle.bundle_folder import (
    HELD_OUT,
    MANIFEST,
    TRAINING_PHOTOS,
    file_entries,
    manifest_bytes,
)
from edgetl.runtime.bundle.tensor_names import RESIZED
from edgetl.runtime.inference.session import open_session

WEB = "web/"
_SOURCE = Path(__file__).parent.parent / "web"
_ORT, _ORT_LICENCE = "ort.json", "ort-licence.txt"
_WORKER = "service-worker.js"
_WORKER_VERSION = 'const VERSION = "";'
# Entries of the bundle's manifest that say nothing about the models, or are nobody else's business.
_LEFT_OUT = frozenset(
    {"checkpoint", "torchscript", "pt2", "verification", HELD_OUT, TRAINING_PHOTOS, "files"}
)


def read_ort(folder: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web that the page needs, for its own folder.

    folder  the npm package, or its ``dist``

    Raises ExportError unless they are there, and exactly those of the pinned version.
    """
    pinned = _pinned_ort()
    package, version = pinned["package"], pinned["version"]
    hint = f"Get it with: {ort_command()}"
    dist = folder / "dist" if (folder / "dist").is_dir() else folder
    files = {}
    for name in (pinned["wasm"]["module"], pinned["wasm"]["binary"]):
        try:
            content = (dist / name).read_bytes()
        except OSError as error:
            reason = f"{dist / name} can't be read ({error.strerror})."
            raise ExportError(f"{folder} is not the package {package}: {reason}", hint) from error
        if _integrity(content) != pinned["integrity"][name]:
            raise ExportError(
                f"{dist / name} is not that of {package} {version}{_other_version(dist)}.", hint
            )
        files[name] = content
    return {**files, "LICENSE": (_SOURCE / _ORT_LICENCE).read_bytes()}


def ort_command() -> str:
    """What a user enters to get onnxruntime-web into ``node_modules``, in the pinned version."""
    pinned = _pinned_ort()
    return f"npm install --ignore-scripts {pinned['package']}@{pinned['version']}"


def web_files(
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    pictures: Sequence[NDArray[np.uint8]],
    ort: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The content of ``web/``, by file name in it.

    manifest, files  of the bundle
    pictures         uint8 [H, W, 3], on which the models must give the bundle's answers, bit by bit
    ort              of ``read_ort``; None: the page takes onnxruntime-web from a CDN

    Raises ExportError if a model gives other answers than the bundle's.
    """
    web = {
        path.relative_to(_SOURCE).as_posix(): path.read_bytes()
        for path in sorted(_SOURCE.rglob("*"))
        if path.is_file() and path.name != _ORT_LICENCE
    }
    for precision, name in manifest["models"].items():
        web[name] = _web_model(precision, files[name], pictures)
    web |= {photo["file"]: files[photo["file"]] for photo in manifest["golden"]}
    pinned = _pinned_ort()
    if ort is not None:
        web |= {f"ort/{name}": content for name, content in ort.items()}
        pinned["wasm"]["base"] = "ort/"
    web[_ORT] = _json(pinned)
    # It names the version, the checksum of all others, so that browsers see another worker.
    worker = web.pop(_WORKER).decode()
    assert _WORKER_VERSION in worker
    web["package.json"] = _json(_package(manifest, pinned))
    described = {key: value for key, value in manifest.items() if key not in _LEFT_OUT}
    web[MANIFEST] = manifest_bytes({**described, "files": file_entries(web)})
    version = hashlib.sha256(web[MANIFEST]).hexdigest()
    worker = worker.replace(_WORKER_VERSION, f'const VERSION = "{version}";')
    return {**web, _WORKER: worker.encode()}


def _web_model(precision: str, content: bytes, pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """The model that starts at ``resized``, which gives the same answers for ``pictures``."""
    model = onnx.load_model_from_string(content)
    cut = cut_at_resized(model).SerializeToString()
    run = open_onnx(model)
    session = open_session(cut, providers="cpu", name=f"the {precision} model for browsers")
    names = [value.name for value in session.get_outputs()]
    for pixels in pictures:
        expected = run(pixels[None])
        found = session.run(names, {RESIZED: expected[RESIZED]})
        for name, values in zip(names, found, strict=True):
            if not np.array_equal(values, expected[name]):
                raise ExportError(
                    f"Without its resize, the {precision} model gives other {name}.",
                    "Nothing was written. Leave out --web.",
                )
    return bytes(cut)


def _package(manifest: Mapping[str, Any], pinned: Mapping[str, Any]) -> dict[str, Any]:
    """The description by which npm takes the folder for a package."""
    created = datetime.fromisoformat(manifest["created"])
    labels = ", ".join(manifest["card"]["labels"][:10])
    entry = {"types": "./edgetl.d.ts", "default": "./edgetl.js"}
    return {
        "name": re.sub(r"[^a-z0-9._-]+", "-", manifest["name"].lower()).strip("-._") or "model",
        # Rises with every export.
        "version": f"{created:%Y}.{int(f'{created:%m%d}')}.{int(f'{created:%H%M%S}')}",
        "description": f"Image classifier: {labels}",
        "type": "module",
        "exports": {".": entry, "./*": "./*"},
        "engines": {"node": ">=20"},
        "peerDependencies": {pinned["package"]: pinned["version"]},
    }


def _pinned_ort() -> dict[str, Any]:
    pinned: dict[str, Any] = json.loads((_SOURCE / _ORT).read_bytes())
    return pinned


def _integrity(content: bytes) -> str:
    """Subresource integrity, as browsers take it."""
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def _other_version(dist: Path) -> str:
    """What the package's own description says, for the error message."""
    try:
        version = json.loads((dist.parent / "package.json").read_bytes())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f", but of {version}"


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
