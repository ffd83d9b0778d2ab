"""The edits that let a session start at ``resized``, and models that are loaded whole instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import tiny_bundle
from helpers.pictures import photo
from onnx import TensorProto, helper

from edgetl import Predictor
from edgetl.errors import BundleError
from edgetl.runtime.inference import protobuf_edits
from edgetl.runtime.inference.protobuf_edits import apply_edits, edits_to_start_at_resized

CARD = tiny_bundle.card()


def exported() -> onnx.ModelProto:
    """The tiny model with a description of its value ``resized``, as in an export."""
    model = onnx.load_model_from_string(tiny_bundle.onnx_bytes(CARD))
    height, width = CARD.spec.output_size(100, 100)
    model.graph.value_info.append(
        helper.make_tensor_value_info("resized", TensorProto.UINT8, ["N", height, width, 3])
    )
    return model


def start_at_resized(content: bytes) -> bytes | None:
    edits = edits_to_start_at_resized(content)
    if edits is None:
        return None
    part = bytearray(content)
    apply_edits(part, edits)
    return bytes(part)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_edited_file_is_a_valid_model_that_starts_at_resized(tmp_path: Path) -> None:
    whole = exported()
    content = start_at_resized(whole.SerializeToString())
    assert content is not None
    part = onnx.load_model_from_string(content)
    onnx.checker.check_model(part, full_check=True)
    assert [node.op_type for node in part.graph.node] == [
        node.op_type for node in whole.graph.node[1:]
    ]
    assert list(part.graph.input) == list(whole.graph.value_info)
    assert list(part.graph.output) == list(whole.graph.output)
    assert list(part.graph.initializer) == list(whole.graph.initializer)
    assert (part.metadata_props, part.opset_import) == (whole.metadata_props, whole.opset_import)


def test_it_gives_the_same_outputs_as_the_whole_model(tmp_path: Path) -> None:
    part, whole = (Predictor(save(exported(), tmp_path)) for _ in range(2))
    whole = Predictor(tiny_bundle.write(tmp_path / "bundle", CARD))
    assert part._sessions.get(None).get_inputs()[0].name == "resized"
    assert whole._sessions.get(None).get_inputs()[0].name == "images"
    for width, height in [(40, 30), (30, 40), (12, 12), (3, 200)]:
        picture = photo(5, width, height)
        np.testing.assert_array_equal(part(picture).logits, whole(picture).logits)
        assert part.resize(picture).shape == (8, 8, 3)
        assert whole.resize(picture).shape == (12, 12, 3)


def test_it_works_without_memfd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(exported(), tmp_path)
    expected = Predictor(path)(photo(1)).logits
    monkeypatch.delattr("os.memfd_create")
    predictor = Predictor(path)
    assert predictor._sessions.get(None).get_inputs()[0].name == "resized"
    np.testing.assert_array_equal(predictor(photo(1)).logits, expected)


def reordered(model: onnx.ModelProto) -> None:
    """The network needs a value that is computed before ``resized``, which would be removed."""
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    model.graph.node.insert(0, helper.make_node("Identity", [scale.name], ["its copy"]))
    model.graph.node[3].input[1] = "its copy"


def undescribed(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]


def unnamed(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "smaller"


def with_default(model: onnx.ModelProto) -> None:
    """The input has a default value, which would remain."""
    model.graph.initializer.append(
        helper.make_tensor("images", TensorProto.UINT8, [1, 12, 12, 3], bytes(432), raw=True)
    )


def with_sparse_default(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("images", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))


def test_a_model_whose_input_has_a_default_is_not_edited(tmp_path: Path) -> None:
    for change in (with_sparse_default, with_default):
        model = exported()
        change(model)
        assert start_at_resized(model.SerializeToString()) is None
    with pytest.raises(BundleError):  # to onnxruntime, a value with a default is not an input
        Predictor(save(model, tmp_path))


def test_a_second_graph_with_an_overlong_field_number_is_not_edited(tmp_path: Path) -> None:
    whole = exported().SerializeToString()
    hidden = onnx.GraphProto(
        initializer=[helper.make_tensor("images", TensorProto.UINT8, [0], b"", raw=True)]
    )
    content = hidden.SerializeToString()
    # The graph's tag with one more bit above the 32 that count.
    tag = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10])
    assert start_at_resized(whole + tag + bytes([len(content)]) + content) is None


def test_the_number_of_fields_read_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protobuf_edits, "_MAX_FIELDS", 300)  # a model with 200,000 is slow to make
    model = exported()
    assert start_at_resized(model.SerializeToString()) is not None
    for node in range(4):  # each has fewer fields than the limit
        model.graph.node.insert(0, helper.make_node("Concat", ["x"] * 100, [f"y{node}"]))
    assert start_at_resized(model.SerializeToString()) is None


@pytest.mark.parametrize("change", [reordered, undescribed, unnamed])
def test_a_model_with_another_layout_is_loaded_whole(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = exported()
    expected = Predictor(save(model, tmp_path))(photo(1)).logits
    change(model)
    predictor = Predictor(save(model, tmp_path))
    assert predictor._sessions.get(None).get_inputs()[0].name == "images"
    np.testing.assert_array_equal(predictor(photo(1)).logits, expected)


@pytest.mark.parametrize("change", ["name", "type", "another"])
def test_inputs_that_are_not_those_of_an_export_are_refused(tmp_path: Path, change: str) -> None:
    model = exported()
    if change == "name":
        model.graph.input[0].name = model.graph.node[0].input[0] = "pictures"
    elif change == "type":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT8, ["N"]))
    with pytest.raises(BundleError):
        Predictor(save(model, tmp_path))


def test_a_file_with_two_graphs_is_not_edited(tmp_path: Path) -> None:
    content = exported().SerializeToString()
    assert (
        start_at_resized(
            content + onnx.ModelProto(graph=onnx.GraphProto(name="more")).SerializeToString()
        )
        is None
    )


def test_no_bytes_make_it_raise(tmp_path: Path) -> None:
    whole = exported().SerializeToString()
    random = np.random.default_rng(0)
    for length in range(0, len(whole), 97):
        start_at_resized(whole[:length])
    for position in random.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[position] ^= int(random.integers(1, 256))
        start_at_resized(bytes(damaged))
    for length in (0, 1, 20, 4096):
        assert start_at_resized(random.bytes(length)) is None
    assert start_at_resized(b"\xff" * 4096) is None
    assert start_at_resized(b"\x0a\0" * 1_000_000) is None  # nothing but empty fields


def test_a_model_that_gives_a_removed_name_again_is_not_edited() -> None:
    model = exported()
    lost = model.graph.node[0].output[0]
    assert lost == "resized"
    model.graph.node.append(helper.make_node("Identity", [model.graph.node[1].output[0]], [lost]))
    assert start_at_resized(model.SerializeToString()) is None
