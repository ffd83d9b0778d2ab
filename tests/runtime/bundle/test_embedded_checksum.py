"""The checksum in a lone model.onnx: damage to any byte is found, and every tool still reads it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from helpers import tiny_bundle
from helpers.pictures import photo
from onnx import TensorProto, helper

from edgetl import Predictor
from edgetl.cli.main import command as program
from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import METADATA_KEY
from edgetl.runtime.bundle.embedded_checksum import CHECKSUM_KEY, embed_checksum, verify_checksum

WITHOUT_CHECKSUM = tiny_bundle.onnx_bytes(tiny_bundle.card())
WITH_CHECKSUM = embed_checksum(WITHOUT_CHECKSUM)
ADDED = len(WITH_CHECKSUM) - len(WITHOUT_CHECKSUM)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def checked(path: Path) -> bool:
    return verify_checksum(path, path.read_bytes())


def info(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["info", *map(str, arguments)])


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        Predictor(put(path, content))
    assert caught.value.path == path
    return caught.value.message


def flipped(position: int, bits: int = 1) -> bytes:
    content = bytearray(WITH_CHECKSUM)
    content[position] ^= bits
    return bytes(content)


def test_a_model_with_a_checksum_gives_the_same_outputs(path: Path) -> None:
    with_checksum = Predictor(put(path, WITH_CHECKSUM))(photo(1))
    assert (
        with_checksum.logits.tolist()
        == Predictor(put(path, WITHOUT_CHECKSUM))(photo(1)).logits.tolist()
    )


def test_the_checksum_covers_everything_before_it() -> None:
    assert WITH_CHECKSUM.startswith(WITHOUT_CHECKSUM)
    assert WITH_CHECKSUM[-64:].decode() == hashlib.sha256(WITH_CHECKSUM[:-64]).hexdigest()
    assert embed_checksum(WITHOUT_CHECKSUM) == WITH_CHECKSUM


def test_onnx_and_onnxruntime_read_the_file_and_the_entry(path: Path) -> None:
    onnx.checker.check_model(str(put(path, WITH_CHECKSUM)), full_check=True)
    model = onnx.load(path)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY, CHECKSUM_KEY]
    metadata = (
        onnxruntime.InferenceSession(WITH_CHECKSUM, providers=["CPUExecutionProvider"])
        .get_modelmeta()
        .custom_metadata_map
    )
    assert metadata[CHECKSUM_KEY] == WITH_CHECKSUM[-64:].decode()


def test_a_flipped_bit_anywhere_is_found(path: Path) -> None:
    hundredths = range(0, len(WITHOUT_CHECKSUM), len(WITHOUT_CHECKSUM) // 100)
    card = range(WITH_CHECKSUM.index(b'{"card"'), len(WITHOUT_CHECKSUM), 50)
    for position in (*hundredths, *card, *range(len(WITHOUT_CHECKSUM), len(WITH_CHECKSUM))):
        for bits in (1, 0x80):
            assert "it is damaged: its SHA-256 is not the one that it carries" in refusal(
                path, flipped(position, bits)
            )


def test_damage_is_found_before_onnxruntime_sees_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_session(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("edgetl.runtime.inference.session_pool.open_session", open_session)
    refusal(path, flipped(len(WITH_CHECKSUM) // 2))


def test_a_truncated_file_is_refused(path: Path) -> None:
    hundredths = range(0, len(WITHOUT_CHECKSUM), len(WITHOUT_CHECKSUM) // 100)
    for length in (*hundredths, *range(len(WITHOUT_CHECKSUM) + 1, len(WITH_CHECKSUM))):
        refusal(path, WITH_CHECKSUM[:length])


@pytest.mark.parametrize("more", [b"\0", b"\n", bytes(4096), WITH_CHECKSUM])
def test_bytes_after_its_end_are_refused(path: Path, more: bytes) -> None:
    assert "damaged" in refusal(path, WITH_CHECKSUM + more)


def test_a_model_without_a_checksum_loads_and_info_says_so(path: Path) -> None:
    for content, expected in ((WITHOUT_CHECKSUM, "none"), (WITH_CHECKSUM, "fits")):
        Predictor(put(path, content))
        assert f"checksum     {expected}\n" in info(path).stdout
        assert json.loads(info(path, "--json").stdout)["checksum"] == expected


def test_a_bundle_has_all_its_checksums(tiny_bundle: Path) -> None:
    assert "checksum     fits\n" in info(tiny_bundle).stdout


def test_info_of_a_damaged_model_says_what_to_do(path: Path) -> None:
    result = info(put(path, flipped(500)))
    assert result.exit_code == 1
    assert (
        "it is damaged" in result.stderr
        and "Copy it again" in result.stderr
        and CHECKSUM_KEY in result.stderr
    )


def test_saved_again_unchanged_it_still_fits(path: Path) -> None:
    onnx.save(onnx.load_model_from_string(WITH_CHECKSUM), path)
    assert path.read_bytes() == WITH_CHECKSUM
    assert checked(path)


def test_a_model_changed_by_another_program_is_refused_unless_the_entry_is_removed(
    path: Path,
) -> None:
    model = onnx.load_model_from_string(WITH_CHECKSUM)
    model.doc_string = "mine"
    assert "its SHA-256 is not the one" in refusal(path, model.SerializeToString())
    model.functions.append(  # these come after the metadata, which is then not the end of the file
        helper.make_function(
            "mine",
            "f",
            ["x"],
            ["y"],
            [helper.make_node("Neg", ["x"], ["y"])],
            list(model.opset_import),
        )
    )
    model.opset_import.add(domain="mine", version=1)
    assert "changed after the export" in refusal(path, model.SerializeToString())
    entry = next(entry for entry in model.metadata_props if entry.key == CHECKSUM_KEY)
    model.metadata_props.remove(entry)
    assert Predictor(put(path, model.SerializeToString())).labels == tiny_bundle.ODD_LABELS
    assert not checked(path)


def test_an_entry_of_another_tool_at_the_end_is_not_taken_for_a_checksum(path: Path) -> None:
    model = onnx.load_model_from_string(WITHOUT_CHECKSUM)
    model.metadata_props.add(key="source.sha256", value="0" * 64)  # a key of the same length
    assert len(model.SerializeToString()) == len(WITH_CHECKSUM)
    assert Predictor(put(path, model.SerializeToString())).labels == tiny_bundle.ODD_LABELS


def test_a_checksum_that_is_not_at_the_end_is_refused(path: Path) -> None:
    with pytest.raises(BundleError, match="not at its end"):
        checked(put(path, os.urandom(70_000) + WITH_CHECKSUM[-ADDED:] + os.urandom(200_000)))


@pytest.mark.parametrize("length", [0, 1, ADDED - 1])
def test_a_file_too_short_for_a_checksum_has_none(path: Path, length: int) -> None:
    assert not checked(put(path, WITH_CHECKSUM[:length]))


def test_a_model_in_a_bundle_is_verified_by_the_manifest_only(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("edgetl.runtime.inference.session_pool.verify_checksum")
    assert Predictor(bundle_copy).labels == tiny_bundle.ODD_LABELS


def test_a_model_with_a_checksum_can_start_at_resized(path: Path) -> None:
    model = onnx.load_model_from_string(WITHOUT_CHECKSUM)
    height, width = tiny_bundle.card().spec.output_size(100, 100)
    model.graph.value_info.append(
        helper.make_tensor_value_info("resized", TensorProto.UINT8, ["N", height, width, 3])
    )
    predictor = Predictor(put(path, embed_checksum(model.SerializeToString())))
    assert predictor._input == "resized"
    whole = Predictor(put(path, WITH_CHECKSUM))(photo(1))
    assert predictor(photo(1)).logits.tolist() == pytest.approx(whole.logits.tolist(), abs=1e-5)
