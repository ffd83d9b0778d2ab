"""A bundle in the layout of Triton's model repository, read by Triton's own schema."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient
from google.protobuf import text_format
from helpers import tiny_bundle as bundles

from edgetl.errors import ExportError
from edgetl.exporting.triton_repository import model_config, write_triton_model
from edgetl.runtime.bundle.unknown_limits import UnknownLimits


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's schema of a model's configuration; its package would import grpc as well."""
    file = Path(tritonclient.__path__[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_bundle_becomes_a_model_of_the_repository(
    schema: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = write_triton_model(tiny_bundle, tmp_path / "models")
    assert folder.parent == tmp_path / "models"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {"config.pbtxt", "labels.txt", "1/model.onnx"}
    assert (folder / "1/model.onnx").read_bytes() == (tiny_bundle / "model.onnx").read_bytes()
    labels = (folder / "labels.txt").read_text("utf-8").splitlines()
    assert labels == ["two words", 'a,"b"', "line break", "花", "plain"]
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())
    assert (config.name, config.backend) == (folder.name, "onnxruntime")
    assert config.max_batch_size > 1 and config.HasField("dynamic_batching")
    (images,) = config.input
    assert (images.name, list(images.dims)) == ("images", [-1, -1, 3])
    assert images.data_type == schema.TYPE_UINT8
    assert {(each.name, tuple(each.dims), each.label_filename) for each in config.output} == {
        ("probabilities", (5,), "labels.txt"),
        ("logits", (5,), "labels.txt"),
    }


def test_a_score_is_one_number_a_photo(schema: ModuleType) -> None:
    card = replace(bundles.card(), unknown=UnknownLimits(1.0, 0.95, 1.0, {}))
    config = text_format.Parse(model_config('a "name"', card, 128), schema.ModelConfig())
    assert config.name == 'a "name"'
    score, embedding = config.output[2:]
    assert (score.name, list(score.dims), list(score.reshape.shape)) == ("ood_score", [1], [])
    assert score.HasField("reshape")
    assert (embedding.name, list(embedding.dims)) == ("embedding", [128])
    config = text_format.Parse(model_config("a", card, 0), schema.ModelConfig())
    assert [each.name for each in config.output] == ["probabilities", "logits", "ood_score"]


def test_an_earlier_model_is_replaced_and_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = write_triton_model(tiny_bundle, tmp_path)
    (folder / "labels.txt").write_text("old")
    write_triton_model(tiny_bundle, tmp_path)
    assert (folder / "labels.txt").read_text("utf-8") != "old"
    (folder / "2").mkdir()
    before = sorted(folder.rglob("*"))
    with pytest.raises(ExportError, match="holds other files"):
        write_triton_model(tiny_bundle, tmp_path)
    assert sorted(folder.rglob("*")) == before
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(ExportError, match="holds other files"):
        write_triton_model(tiny_bundle, tmp_path)
