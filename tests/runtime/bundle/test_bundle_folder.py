"""Reading a bundle: any damage is refused with an error that names the file and the reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_bundle

from edgetl import Predictor
from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import Bundle, manifest_bytes


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and give it a valid checksum."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_bytes(manifest_bytes(manifest))


def open_all(path: Path) -> None:
    """Read every file of the bundle."""
    for error in Bundle.open(path).damage():
        raise error


def test_an_intact_bundle_is_read(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.damage() == []
    assert bundle.precisions == ("fp32",)
    assert bundle.model_name() == bundle.model_name("fp32") == "model.onnx"
    assert bundle.read("model.onnx") == (tiny_bundle / "model.onnx").read_bytes()
    assert bundle.card.labels == ("two words", 'a,"b"', "line\nbreak", "花", "plain")
    assert [golden.file for golden in bundle.golden] == [f"golden/00{i}.png" for i in range(3)]


def test_a_flipped_byte_anywhere_in_the_manifest_is_found(bundle_copy: Path) -> None:
    file = bundle_copy / "manifest.json"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= int(random.integers(1, 256))
        file.write_bytes(damaged)
        with pytest.raises(BundleError) as caught:
            Bundle.open(bundle_copy)
        assert caught.value.path == file, position


@pytest.mark.parametrize("name", ["model.onnx", "golden/000.png", "golden/002.png"])
def test_a_flipped_byte_anywhere_in_a_file_is_found(bundle_copy: Path, name: str) -> None:
    opened = Bundle.open(bundle_copy)
    whole = (bundle_copy / name).read_bytes()
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(BundleError, match="it is damaged") as caught:
            opened.check(name, damaged)
        assert caught.value.path == bundle_copy / name
    (bundle_copy / name).write_bytes(damaged)
    with pytest.raises(BundleError, match="it is damaged"):
        opened.read(name)
    with pytest.raises(BundleError, match="it is damaged"):
        open_all(bundle_copy)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_file_is_found(bundle_copy: Path, name: str, length: int) -> None:
    content = (bundle_copy / name).read_bytes()
    (bundle_copy / name).write_bytes(content[:length])
    with pytest.raises(BundleError) as caught:
        Predictor(bundle_copy)
    assert caught.value.path == bundle_copy / name


def test_a_longer_file_is_found(bundle_copy: Path) -> None:
    with (bundle_copy / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="bytes and should have"):
        Predictor(bundle_copy)


@pytest.mark.parametrize("name", ["model.onnx", "golden/001.png"])
def test_a_missing_file_is_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    with pytest.raises(BundleError, match="it is missing") as caught:
        open_all(bundle_copy)
    assert caught.value.path == bundle_copy / name


def test_a_folder_without_a_manifest_is_no_bundle(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"it has no manifest\.json"):
        Predictor(bundle_copy)


def test_no_such_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle or model"):
        Predictor(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("schema", "hint"),
    [(3, "Install a newer edgetl"), (0, "Export it again"), ("1", "Export"), (None, "Export")],
)
def test_another_schema_is_refused(bundle_copy: Path, schema: object, hint: str) -> None:
    rewrite(bundle_copy, lambda manifest: manifest.update(schema=schema))
    with pytest.raises(
        BundleError, match=f"its schema is {schema!r}; this edgetl reads 1"
    ) as caught:
        Bundle.open(bundle_copy)
    assert hint in str(caught.value.hint)


def test_a_later_schema_names_the_version_that_reads_it(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda manifest: manifest.update(schema=3, requires_edgetl="9.1.0"))
    with pytest.raises(BundleError, match="its schema is 3") as caught:
        Bundle.open(bundle_copy)
    assert caught.value.hint == "Install edgetl 9.1.0 or newer."


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b"3", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'],
)
def test_a_manifest_with_other_content_is_refused(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle_copy)
    assert caught.value.path == bundle_copy / "manifest.json"


KEYS = ("card", "models", "files", "golden", "name", "created", "checkpoint", "versions", "opset")


@pytest.mark.parametrize("key", KEYS)
def test_a_manifest_with_a_missing_key_is_refused(bundle_copy: Path, key: str) -> None:
    rewrite(bundle_copy, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=key):
        Bundle.open(bundle_copy)


def test_a_manifest_with_an_impossible_file_name_is_refused(bundle_copy: Path) -> None:
    rewrite(
        bundle_copy,
        lambda manifest: manifest["files"].update({"\ud800": {"bytes": 5, "sha256": ""}}),
    )
    with pytest.raises(BundleError, match="surrogates"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("key", ["card", "models", "files", "golden", "checkpoint"])
@pytest.mark.parametrize("value", [None, 3, "text", [1], {"a": 1}, {"a": [2]}, [{"file": "x"}]])
def test_a_manifest_with_a_value_of_another_type_is_refused(
    bundle_copy: Path, key: str, value: object
) -> None:
    rewrite(bundle_copy, lambda manifest: manifest.update({key: value}))
    with pytest.raises(BundleError):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "golden/../../x", "C:\\x", "..", "", "a\0b"]
)
def test_a_path_outside_the_folder_is_refused(bundle_copy: Path, name: str) -> None:
    def point_outside(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["model.onnx"]
        manifest["models"]["fp32"] = name

    shutil.copy(bundle_copy / "model.onnx", bundle_copy.parent / "model.onnx")
    rewrite(bundle_copy, point_outside)
    with pytest.raises(BundleError, match="leads outside the folder"):
        Predictor(bundle_copy)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden"])
def test_a_link_is_refused(bundle_copy: Path, name: str, tmp_path: Path) -> None:
    shutil.move(bundle_copy / name, tmp_path / "elsewhere")
    (bundle_copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="it is a link") as caught:
        open_all(bundle_copy)
    assert caught.value.path == bundle_copy / name


def test_a_link_to_the_bundle_itself_is_fine(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle_copy)
    open_all(tmp_path / "current")


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(bundle_copy: Path) -> None:
    for name in ("model.onnx", "manifest.json"):
        (bundle_copy / name).unlink()
        os.mkfifo(bundle_copy / name)
        with pytest.raises(BundleError):
            open_all(bundle_copy)


def test_a_file_that_the_manifest_does_not_name_is_never_read(bundle_copy: Path) -> None:
    (bundle_copy / "model.int8.onnx").write_bytes(b"anything")
    rewrite(bundle_copy, lambda manifest: manifest["models"].update(int8="model.int8.onnx"))
    with pytest.raises(BundleError, match=r"'model.int8.onnx' is not among its files"):
        Bundle.open(bundle_copy)


def test_the_error_for_a_missing_precision_lists_the_available_ones(bundle_copy: Path) -> None:
    with pytest.raises(BundleError, match=r"it holds no int8 model\nIt holds: fp32\."):
        Predictor(bundle_copy, precision="int8")
    rewrite(bundle_copy, lambda manifest: manifest.update(models={}))
    with pytest.raises(BundleError, match="it holds no ONNX model"):
        Predictor(bundle_copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": ["a", "b"]}, "does not have one answer for each label"),
        ({"labels": ["a"] * 5}, "the same one twice"),
        ({"labels": []}, "no labels"),
        ({"labels": [1, 2, 3, 4, 5]}, "not a list of strings"),
        ({"labels": "abcde"}, "not a list of strings"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": "inf"}, "temperature is inf"),
        ({"labels": ["a", "\ud800", "c"]}, "not valid Unicode"),
        ({"temperature": None}, "incomplete"),
        ({"spec": {"version": 2}}, "version 2 is not known"),
    ],
)
def test_an_invalid_model_card_is_refused(
    bundle_copy: Path, change: dict[str, Any], reason: str
) -> None:
    rewrite(bundle_copy, lambda manifest: manifest["card"].update(change))
    with pytest.raises(BundleError, match=reason):
        Bundle.open(bundle_copy)


def test_a_manifest_that_describes_another_model_is_refused(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda manifest: manifest["card"]["labels"].reverse())
    with pytest.raises(BundleError, match="differs from the manifest's"):
        Predictor(bundle_copy)


def test_a_golden_photo_that_is_not_among_the_files_is_refused(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda manifest: manifest["golden"][0].update(file="golden/other.png"))
    with pytest.raises(BundleError, match="is not among its files"):
        Bundle.open(bundle_copy)


def test_a_file_that_may_not_be_read_is_named(
    public_folder: Path,
    tiny_bundle: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
) -> None:
    for name in ("model.onnx", "manifest.json"):
        bundle = Path(shutil.copytree(tiny_bundle, public_folder / name))
        (bundle / name).chmod(0)
        with (
            without_privileges(),
            pytest.raises(BundleError, match=r"it can't be read \(Permission denied\)") as caught,
        ):
            open_all(bundle)
        assert caught.value.path == bundle / name


def test_a_folder_that_may_not_be_read_and_a_name_that_is_too_long(
    public_folder: Path,
    tiny_bundle: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
) -> None:
    closed = public_folder / "closed"
    shutil.copytree(tiny_bundle, closed / "bundle")
    for folder in (closed / "bundle" / "golden", closed / "bundle", closed):
        before = folder.stat().st_mode
        folder.chmod(0)
        with without_privileges():
            for path in (closed / "bundle", closed / "bundle" / "model.onnx"):
                if folder.name == "golden":
                    with pytest.raises(BundleError, match="Permission denied"):
                        open_all(closed / "bundle")
                else:
                    with pytest.raises(BundleError, match="Permission denied"):
                        Predictor(path)
        folder.chmod(before)
    with pytest.raises(BundleError, match="can't be read"):
        Predictor("x" * 5000)


def test_a_flipped_byte_of_the_model_is_found_before_onnxruntime_sees_it(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_session(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("edgetl.runtime.inference.session_pool.open_session", open_session)
    whole = (bundle_copy / "model.onnx").read_bytes()
    for position in range(0, len(whole), len(whole) // 50):
        content = bytearray(whole)
        content[position] ^= 1
        (bundle_copy / "model.onnx").write_bytes(content)
        with pytest.raises(BundleError, match="it is damaged") as caught:
            Predictor(bundle_copy)
        assert caught.value.path == bundle_copy / "model.onnx"


# A lone model.


def lone(path: Path, metadata: dict[str, str] | None = None, **card: Any) -> Path:
    path.write_bytes(tiny_bundle.onnx_bytes(tiny_bundle.card(**card), metadata=metadata))
    return path


def test_a_lone_model_needs_no_other_file(tmp_path: Path) -> None:
    assert Predictor(lone(tmp_path / "m.onnx")).labels == tiny_bundle.ODD_LABELS


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"PK\x03\x04", b"not a model", os.urandom(4096)]
)
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Predictor(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "it was not exported by edgetl"),
        ({"edgetl": ""}, "its metadata is damaged"),
        ({"edgetl": "[]"}, "its schema is None"),
        ({"edgetl": '{"schema": 3}'}, "its schema is 3"),
        ({"edgetl": '{"schema": 1}'}, "no model card"),
        ({"edgetl": '{"schema": 1, "card": 3}'}, "incomplete"),
        (
            {
                "edgetl": json.dumps(
                    {"schema": 1, "card": {**tiny_bundle.card().to_dict(), "versions": [[1, "x"]]}}
                )
            },
            "incomplete",
        ),
        ({"edgetl": "[" * 100_000}, "its metadata is damaged"),
    ],
)
def test_a_model_not_written_by_edgetl_is_refused(
    tmp_path: Path, metadata: dict[str, str], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        Predictor(lone(tmp_path / "m.onnx", metadata))


def test_labels_that_do_not_fit_the_outputs_are_refused(tmp_path: Path) -> None:
    from edgetl.runtime.bundle.bundle_folder import METADATA_KEY, card_metadata

    fewer = card_metadata(tiny_bundle.card(labels=("a", "b")))
    with pytest.raises(BundleError, match="it has 2 labels for logits of shape"):
        Predictor(lone(tmp_path / "m.onnx", {METADATA_KEY: fewer}))


@pytest.mark.parametrize(
    "what", ["input name", "input type", "an output missing", "an output without axes"]
)
def test_a_model_with_other_inputs_or_outputs_is_refused(tmp_path: Path, what: str) -> None:
    import onnx

    model = onnx.load_model_from_string(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    graph = model.graph
    if what == "input name":
        graph.input[0].name = graph.node[0].input[0] = "pictures"
    elif what == "input type":
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif what == "an output missing":
        del graph.output[1]
    else:
        graph.node.append(
            onnx.helper.make_node("ReduceSum", ["probabilities"], ["sum"], keepdims=0)
        )
        graph.node[-2].output[0] = graph.node[-1].input[0] = "kept"
        graph.node[-1].output[0] = "probabilities"
        del graph.output[1].type.tensor_type.shape.dim[:]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError):
        Predictor(path)


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    tensor = next(value for value in model.graph.initializer if value.name == "weights")
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "secret.bin"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError):
        Predictor(path)


def test_the_error_for_a_checkpoint_says_to_export_it(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    with pytest.raises(BundleError, match="it is a training checkpoint") as caught:
        Predictor(tmp_path / "best.safetensors")
    assert "edgetl export" in str(caught.value.hint)
