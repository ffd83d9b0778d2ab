"""What the predictor loads of a model: the part behind the resize where it can be cut, the whole where it can't."""

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
from edgetl.runtime.inference import network_part as cutting
from edgetl.runtime.inference.network_part import network_edits, set_bytes

CARD = tiny_bundle.card()


def exported() -> onnx.ModelProto:
    """The tiny model with its value ``resized`` described, as exports are."""
    model = onnx.load_model_from_string(tiny_bundle.onnx_bytes(CARD))
    height, width = CARD.spec.output_size(100, 100)
    model.graph.value_info.append(
        helper.make_tensor_value_info("resized", TensorProto.UINT8, ["N", height, width, 3])
    )
    return model


def cut(content: bytes) -> bytes | None:
    edits = network_edits(content)
    if edits is None:
        return None
    part = bytearray(content)
    set_bytes(part, edits)
    return bytes(part)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_part_is_a_valid_model_from_resized_on(tmp_path: Path) -> None:
    whole = exported()
    content = cut(whole.SerializeToString())
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


def test_it_answers_as_the_whole(tmp_path: Path) -> None:
    part, whole = (Predictor(save(exported(), tmp_path)) for _ in range(2))
    whole = Predictor(tiny_bundle.write(tmp_path / "bundle", CARD))
    assert part._session(None).get_inputs()[0].name == "resized"
    assert whole._session(None).get_inputs()[0].name == "images"
    for width, height in [(40, 30), (30, 40), (12, 12), (3, 200)]:
        picture = photo(5, width, height)
        np.testing.assert_array_equal(part(picture).logits, whole(picture).logits)
        assert part.resize(picture).shape == (8, 8, 3)
        assert whole.resize(picture).shape == (12, 12, 3)


def test_systems_without_files_in_memory_get_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(exported(), tmp_path)
    expected = Predictor(path)(photo(1)).logits
    monkeypatch.delattr("os.memfd_create")
    predictor = Predictor(path)
    assert predictor._session(None).get_inputs()[0].name == "resized"
    np.testing.assert_array_equal(predictor(photo(1)).logits, expected)


def reordered(model: onnx.ModelProto) -> None:
    """What the network needs is made before ``resized``, which a part without it can't be run with."""
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    model.graph.node.insert(0, helper.make_node("Identity", [scale.name], ["its copy"]))
    model.graph.node[3].input[1] = "its copy"


def undescribed(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]


def unnamed(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "smaller"


def with_default(model: onnx.ModelProto) -> None:
    """The input has a default, which what is left would take for what it is given."""
    model.graph.initializer.append(
        helper.make_tensor("images", TensorProto.UINT8, [1, 12, 12, 3], bytes(432), raw=True)
    )


def with_sparse_default(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("images", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))


def test_a_model_that_gives_its_input_another_value_is_not_cut(tmp_path: Path) -> None:
    for change in (with_sparse_default, with_default):
        model = exported()
        change(model)
        assert cut(model.SerializeToString()) is None
    with pytest.raises(BundleError):  # onnxruntime does not count what has a default as an input
        Predictor(save(model, tmp_path))


def test_a_second_graph_behind_a_number_that_others_shorten_is_not_cut(tmp_path: Path) -> None:
    whole = exported().SerializeToString()
    hidden = onnx.GraphProto(
        initializer=[helper.make_tensor("images", TensorProto.UINT8, [0], b"", raw=True)]
    )
    content = hidden.SerializeToString()
    tag = bytes(
        [7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10]
    )  # graph, and a bit above the 32 that count
    assert cut(whole + tag + bytes([len(content)]) + content) is None


def test_so_many_fields_are_read_of_a_file_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "_MOST_FIELDS", 300)
    model = exported()
    assert cut(model.SerializeToString()) is not None
    for node in range(4):  # few enough each
        model.graph.node.insert(0, helper.make_node("Concat", ["x"] * 100, [f"y{node}"]))
    assert cut(model.SerializeToString()) is None


@pytest.mark.parametrize("change", [reordered, undescribed, unnamed])
def test_a_model_saved_in_another_way_is_loaded_whole(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = exported()
    expected = Predictor(save(model, tmp_path))(photo(1)).logits
    change(model)
    predictor = Predictor(save(model, tmp_path))
    assert predictor._session(None).get_inputs()[0].name == "images"
    np.testing.assert_array_equal(predictor(photo(1)).logits, expected)


@pytest.mark.parametrize("change", ["name", "type", "another"])
def test_inputs_that_are_not_an_exports_are_refused_though_the_part_would_run(
    tmp_path: Path, change: str
) -> None:
    model = exported()
    if change == "name":
        model.graph.input[0].name = model.graph.node[0].input[0] = "pictures"
    elif change == "type":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT8, ["N"]))
    with pytest.raises(BundleError):
        Predictor(save(model, tmp_path))


def test_a_file_of_two_graphs_is_not_cut(tmp_path: Path) -> None:
    content = exported().SerializeToString()
    assert (
        cut(content + onnx.ModelProto(graph=onnx.GraphProto(name="more")).SerializeToString())
        is None
    )


def test_whatever_the_bytes_it_is_cut_or_left(tmp_path: Path) -> None:
    whole = exported().SerializeToString()
    random = np.random.default_rng(0)
    for length in range(0, len(whole), 97):
        cut(whole[:length])
    for position in random.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[position] ^= int(random.integers(1, 256))
        cut(bytes(damaged))
    for length in (0, 1, 20, 4096):
        assert cut(random.bytes(length)) is None
    assert cut(b"\xff" * 4096) is None
    assert cut(b"\x0a\0" * 1_000_000) is None  # nothing but empty fields


def test_a_later_node_that_gives_a_lost_name_again_is_not_cut_off() -> None:
    model = exported()
    lost = model.graph.node[0].output[0]
    assert lost == "resized"
    model.graph.node.append(helper.make_node("Identity", [model.graph.node[1].output[0]], [lost]))
    assert cut(model.SerializeToString()) is None
