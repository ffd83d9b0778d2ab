"""A folder as ``edgetl export --web`` writes it, of a model that is one matrix; without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgetl.runtime.bundle.model_card import ModelCard
from helpers import tiny_bundle
from helpers.pictures import photo

Request = dict[str, Any]
Node = Callable[..., list[Any]]
"""Requests of tests/web/driver.mjs → their results."""

MODULE = Path(__file__).parents[2] / "edgetl/web"
GOLDEN = (photo(1, 40, 30), photo(2, 30, 50), photo(3, 12, 12))


def cut_model(content: bytes) -> bytes:
    """The model of ``tiny_bundle`` from ``resized`` on, with a value ``normalized``."""
    model = onnx.load_model_from_string(content)
    assert model.graph.node[0].op_type == "Slice"
    del model.graph.node[0], model.graph.input[:], model.graph.initializer[:3]
    names = {"shifted": "normalized"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    sizes = ["N", "h", "w", 3]
    model.graph.input.append(helper.make_tensor_value_info("resized", TensorProto.UINT8, sizes))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write(folder: Path, node_modules: Path, described: ModelCard | None = None) -> Path:
    """Write the folder, which takes onnxruntime-web from ``node_modules``; returns ``folder``."""
    described = described or tiny_bundle.card()
    tiny_bundle.write(folder, described, photos=GOLDEN)
    model = folder / "model.onnx"
    model.write_bytes(cut_model(model.read_bytes()))
    shutil.copytree(MODULE, folder, dirs_exist_ok=True)
    ort = json.loads((folder / "ort.json").read_bytes())
    ort["wasm"]["base"] = (node_modules / ort["package"] / "dist").as_uri() + "/"
    (folder / "ort.json").write_text(json.dumps(ort))
    return sign(folder, described)


def load(folder: Path, **options: Any) -> Request:
    """The request to load ``folder``, which the requests after it use."""
    return {"do": "load", "folder": str(folder), "options": options}


def sign(folder: Path, described: ModelCard | None = None, **changes: Any) -> Path:
    """Write the manifest of what is in ``folder`` now, with ``changes``."""
    described = described or tiny_bundle.card()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    golden = changes.pop("golden", manifest["golden"])
    tiny_bundle.write_manifest(folder, described, files, golden, **changes)
    return folder
