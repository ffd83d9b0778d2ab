"""A bundle of a few kilobytes whose network is one matrix, made with onnx.helper, without torch.

Every pixel of the network's input has its own weight, so that an image that is shifted or resized
differently gives different outputs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgetl.runtime.bundle.bundle_folder import METADATA_KEY, SCHEMA, card_metadata, manifest_bytes
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from helpers import resize_oracle

ODD_LABELS = ("two words", 'a,"b"', "line\nbreak", "花", "plain")

CROPPED = PreprocessSpec("shorter_side", 12, "bicubic", (8, 8), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
SQUASHED = PreprocessSpec("squash", (8, 10), "bilinear", None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def card(
    spec: PreprocessSpec = CROPPED, labels: tuple[str, ...] = ODD_LABELS, temperature: float = 1.5
) -> ModelCard:
    return ModelCard(
        labels, spec, "one matrix", temperature, {"accuracy": 0.5}, {"train": 10}, {"maker": "1.0"}
    )


def weights(described: ModelCard, seed: int = 0) -> np.ndarray:
    """float32 [h * w * 3, classes]"""
    height, width = described.spec.output_size(100, 100)
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (height * width * 3, len(described.labels))) / 4).astype(np.float32)


def onnx_bytes(
    described: ModelCard, *, seed: int = 0, metadata: dict[str, str] | None = None
) -> bytes:
    """An ONNX file for images that the predictor has already resized; it only crops them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = described.spec
    height, width = spec.resized_size(100, 100)  # square, as resize_for_graph makes every shape
    top, left = spec.crop_origin(height, width)
    out_height, out_width = spec.output_size(100, 100)
    scale = 1.0 / (255.0 * np.asarray(spec.std))
    constants = {
        "starts": np.array([top, left]),
        "ends": np.array([top + out_height, left + out_width]),
        "axes": np.array([1, 2]),
        "flat": np.array([-1, out_height * out_width * 3]),
        "scale": scale.astype(np.float32),
        "bias": (-np.asarray(spec.mean) / np.asarray(spec.std)).astype(np.float32),
        "weights": weights(described, seed),
        "temperature": np.float32(described.temperature),
    }
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["resized"]),
        helper.make_node("Cast", ["resized"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["tempered"]),
        helper.make_node("Softmax", ["tempered"], ["probabilities"], axis=1),
    ]
    classes = len(described.labels)
    graph = helper.make_graph(
        nodes,
        "one matrix",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes])
            for name in ("logits", "probabilities")
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if metadata is None:
        metadata = {METADATA_KEY: card_metadata(described)}
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def answer(
    pixels: np.ndarray, described: ModelCard, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The expected outputs for an RGB image uint8 [H, W, 3], in double precision.

    Returns (logits, probabilities), [classes] each.
    """
    spec = described.spec
    resized = resize_oracle.resize(pixels, spec)
    normalized = (resized / 255.0 - np.asarray(spec.mean)) / np.asarray(spec.std)
    logits = normalized.reshape(-1) @ weights(described, seed).astype(np.float64)
    powers = np.exp((logits - logits.max()) / described.temperature)
    return logits, powers / powers.sum()


def write(
    folder: Path, described: ModelCard | None = None, *, photos: tuple[Image.Image, ...] = ()
) -> Path:
    """Write a bundle with ``photos`` as its golden photos; returns ``folder``."""
    described = described or card()
    files = {"model.onnx": onnx_bytes(described)}
    golden = []
    (folder / "golden").mkdir(parents=True)
    for number, picture in enumerate(photos):
        name = f"golden/{number:03}.png"
        picture.save(folder / name)
        files[name] = (folder / name).read_bytes()
        golden.append(golden_entry(name, np.asarray(picture), described))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, described, files, golden)
    return folder


def golden_entry(name: str, pixels: np.ndarray, described: ModelCard) -> dict[str, Any]:
    logits, probabilities = answer(pixels, described)
    resized = resize_oracle.resize(pixels, described.spec)
    return {
        "file": name,
        "source": f"cat/{name}",
        "decoded_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "resized_sha256": hashlib.sha256(resized.tobytes()).hexdigest(),
        "logits": logits.tolist(),
        "probabilities": probabilities.tolist(),
    }


def write_manifest(
    folder: Path,
    described: ModelCard,
    files: dict[str, bytes],
    golden: list[dict[str, Any]],
    **changes: Any,
) -> None:
    manifest = {
        "schema": SCHEMA,
        "name": folder.name,
        "created": "2025-01-01T00:00:00+00:00",
        "card": described.to_dict(),
        "checkpoint": {"path": None, "sha256": "0" * 64},
        "models": {"fp32": "model.onnx"},
        "torchscript": None,
        "opset": {"fp32": 13},
        "versions": {"maker": "1.0"},
        "files": {
            n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in files.items()
        },
        "golden": golden,
    }
    (folder / "manifest.json").write_bytes(manifest_bytes({**manifest, **changes}))
