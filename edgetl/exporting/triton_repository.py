"""A bundle as a model of NVIDIA Triton's model repository, for its onnxruntime backend.

Triton runs the graph as it is, so that clients send decoded photos, uint8 [N, H, W, 3] RGB.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgetl.errors import ExportError
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import EMBEDDING, IMAGES, LOGITS, OOD_SCORE, PROBABILITIES
from edgetl.system.atomic_folder import replace_folder

CONFIG, LABELS = "config.pbtxt", "labels.txt"
_MOST_PHOTOS = 32  # in a run of the model, as in the predictor's on a GPU


def write_triton_model(bundle: Path, repository: Path) -> Path:
    """Write the first model of ``bundle`` to ``repository``, under the bundle's name.

    An earlier one of that name is replaced in one step. Returns the model's folder.
    Raises ExportError if something else is there, or if it can't be written; BundleError.
    """
    opened = Bundle.open(bundle)
    folder = repository / str(opened.manifest["name"])
    refuse_other_models(folder)
    model = opened.read(opened.model_name())
    embedding = len(opened.golden[0].answer.embedding) if opened.golden else 0
    # One a line: Triton's list has no escapes.
    labels = [label.replace("\n", " ") + "\n" for label in opened.card.labels]
    files = {
        CONFIG: model_config(folder.name, opened.card, embedding).encode(),
        LABELS: "".join(labels).encode(),
        "1/model.onnx": model,
    }
    replace_folder(folder, files)
    return folder


def refuse_other_models(folder: Path) -> None:
    """Raises ExportError if there is anything but a model that this module wrote."""
    known = {CONFIG, LABELS, "1"}
    if folder.exists() and not (
        folder.is_dir() and {path.name for path in folder.iterdir()} <= known
    ):
        raise ExportError(
            f"{folder} holds other files than such an export writes.",
            "Name another model repository with --triton.",
        )


def model_config(name: str, card: ModelCard, embedding: int) -> str:
    """The text of config.pbtxt.

    embedding  its length, which Triton compares with the model's; 0: leave it out
    """
    classes = len(card.labels)
    outputs = [
        _tensor(PROBABILITIES, "TYPE_FP32", str(classes), f"label_filename: {_quoted(LABELS)}"),
        _tensor(LOGITS, "TYPE_FP32", str(classes), f"label_filename: {_quoted(LABELS)}"),
    ]
    if card.unknown is not None:
        # One number a photo: the model's output has no second dimension.
        outputs.append(_tensor(OOD_SCORE, "TYPE_FP32", "1", "reshape: { shape: [ ] }"))
        if embedding:
            outputs.append(_tensor(EMBEDDING, "TYPE_FP32", str(embedding)))
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {_MOST_PHOTOS}",
        f"input [\n{_tensor(IMAGES, 'TYPE_UINT8', '-1, -1, 3')}\n]",
        "output [\n" + ",\n".join(outputs) + "\n]",
        "dynamic_batching { }",
    ]
    return "\n".join(lines) + "\n"


def _tensor(name: str, kind: str, dims: str, *more: str) -> str:
    lines = [f"name: {_quoted(name)}", f"data_type: {kind}", f"dims: [ {dims} ]", *more]
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
