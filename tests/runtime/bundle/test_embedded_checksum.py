"""A lone model.onnx notices damage by itself: every byte of it counts, and every tool still reads it."""

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
from edgetl.runtime.bundle.embedded_checksum import SEAL_KEY, embed_checksum, verify_checksum

UNSEALED = tiny_bundle.onnx_bytes(tiny_bundle.card())
SEALED = embed_checksum(UNSEALED)
ADDED = len(SEALED) - len(UNSEALED)


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
    content = bytearray(SEALED)
    content[position] ^= bits
    return bytes(content)


def test_a_sealed_model_answers_as_before(path: Path) -> None:
    sealed = Predictor(put(path, SEALED))(photo(1))
    assert sealed.logits.tolist() == Predictor(put(path, UNSEALED))(photo(1)).logits.tolist()


def test_the_checksum_is_that_of_all_in_front_of_it() -> None:
    assert SEALED.startswith(UNSEALED)
    assert SEALED[-64:].decode() == hashlib.sha256(SEALED[:-64]).hexdigest()
    assert embed_checksum(UNSEALED) == SEALED


def test_onnx_and_onnxruntime_read_it_and_the_entry(path: Path) -> None:
    onnx.checker.check_model(str(put(path, SEALED)), full_check=True)
    model = onnx.load(path)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY, SEAL_KEY]
    metadata = (
        onnxruntime.InferenceSession(SEALED, providers=["CPUExecutionProvider"])
        .get_modelmeta()
        .custom_metadata_map
    )
    assert metadata[SEAL_KEY] == SEALED[-64:].decode()


def test_a_flipped_bit_anywhere_is_damage(path: Path) -> None:
    hundredths = range(0, len(UNSEALED), len(UNSEALED) // 100)
    card = range(SEALED.index(b'{"card"'), len(UNSEALED), 50)
    for position in (*hundredths, *card, *range(len(UNSEALED), len(SEALED))):
        for bits in (1, 0x80):
            assert "it is damaged: its SHA-256 is not the one that it carries" in refusal(
                path, flipped(position, bits)
            )


def test_damage_is_found_before_onnxruntime_sees_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_session(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("edgetl.runtime.inference.predictor.open_session", open_session)
    refusal(path, flipped(len(SEALED) // 2))


def test_a_truncated_file_is_refused(path: Path) -> None:
    hundredths = range(0, len(UNSEALED), len(UNSEALED) // 100)
    for length in (*hundredths, *range(len(UNSEALED) + 1, len(SEALED))):
        refusal(path, SEALED[:length])


@pytest.mark.parametrize("more", [b"\0", b"\n", bytes(4096), SEALED])
def test_bytes_after_its_end_are_refused(path: Path, more: bytes) -> None:
    assert "damaged" in refusal(path, SEALED + more)


def test_a_model_without_a_checksum_loads_and_info_says_so(path: Path) -> None:
    for content, expected in ((UNSEALED, "none"), (SEALED, "fits")):
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
        and SEAL_KEY in result.stderr
    )


def test_saved_again_unchanged_it_still_fits(path: Path) -> None:
    onnx.save(onnx.load_model_from_string(SEALED), path)
    assert path.read_bytes() == SEALED
    assert checked(path)


def test_a_change_by_another_program_is_refused_until_the_entry_is_removed(path: Path) -> None:
    model = onnx.load_model_from_string(SEALED)
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
    entry = next(entry for entry in model.metadata_props if entry.key == SEAL_KEY)
    model.metadata_props.remove(entry)
    assert Predictor(put(path, model.SerializeToString())).labels == tiny_bundle.ODD_LABELS
    assert not checked(path)


def test_another_tools_entry_at_the_end_is_not_taken_for_ours(path: Path) -> None:
    model = onnx.load_model_from_string(UNSEALED)
    model.metadata_props.add(key="source.sha256", value="0" * 64)  # a key as long as ours
    assert len(model.SerializeToString()) == len(SEALED)
    assert Predictor(put(path, model.SerializeToString())).labels == tiny_bundle.ODD_LABELS


def test_a_checksum_is_found_wherever_it_stands(path: Path) -> None:
    with pytest.raises(BundleError, match="not at its end"):
        checked(put(path, os.urandom(70_000) + SEALED[-ADDED:] + os.urandom(200_000)))


@pytest.mark.parametrize("length", [0, 1, ADDED - 1])
def test_a_file_too_short_for_a_checksum_has_none(path: Path, length: int) -> None:
    assert not checked(put(path, SEALED[:length]))


def test_a_bundles_model_is_held_to_its_manifest_alone(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("edgetl.runtime.inference.predictor.verify_checksum")
    assert Predictor(bundle_copy).labels == tiny_bundle.ODD_LABELS


def test_the_part_that_the_predictor_runs_is_cut_from_a_sealed_file_too(path: Path) -> None:
    model = onnx.load_model_from_string(UNSEALED)
    height, width = tiny_bundle.card().spec.output_size(100, 100)
    model.graph.value_info.append(
        helper.make_tensor_value_info("resized", TensorProto.UINT8, ["N", height, width, 3])
    )
    predictor = Predictor(put(path, embed_checksum(model.SerializeToString())))
    assert predictor._input == "resized"
    whole = Predictor(put(path, SEALED))(photo(1))
    assert predictor(photo(1)).logits.tolist() == pytest.approx(whole.logits.tolist(), abs=1e-5)
