"""The module's predictor gives the Python predictor's answers, and refuses what was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_bundle, web_folder
from helpers.hostile_photos import encoded
from helpers.pictures import photo
from helpers.web_folder import Node, load

from edgetl import Predictor
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image

SELF_TEST = {"do": "selftest"}
Change = Callable[..., Path]


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory, node_modules: Path) -> Path:
    return web_folder.write(tmp_path_factory.mktemp("web") / "web", node_modules)


@pytest.fixture
def changed(web: Path, tmp_path: Path) -> Change:
    """A function that copies the folder; with arguments, its manifest is signed with them."""

    def copy(name: str = "changed", **changes: Any) -> Path:
        folder = Path(shutil.copytree(web, tmp_path / name))
        return web_folder.sign(folder, **changes) if changes else folder

    return copy


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "one.jpg"
    path.write_bytes(encoded(photo(7, 120, 90), "JPEG"))
    return path


def golden_of(folder: Path) -> list[dict[str, Any]]:
    golden: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_bytes())["golden"]
    return golden


def predict(path: Path) -> dict[str, str]:
    return {"do": "predict", "file": str(path)}


def test_predictions_are_those_of_python(
    node: Node, web: Path, tiny_bundle: Path, picture: Path
) -> None:
    expected = Predictor(tiny_bundle)(picture)
    _, found, disposed = node(load(web), {**predict(picture), "top": 2}, {"do": "dispose"})
    assert (found["label"], found["index"]) == (expected.label, expected.index)
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-6)
    assert found["confidence"] == max(found["probabilities"])
    assert [score["label"] for score in found["top"]] == [s.label for s in expected.top(2)]
    assert found["ood_score"] is found["is_unknown"] is found["embedding"] is None
    assert disposed is None


def test_stages_are_those_of_python(node: Node, web: Path, picture: Path) -> None:
    card = tiny_bundle.card()
    loaded, stages, tested = node(load(web), {"do": "stages", "file": str(picture)}, SELF_TEST)
    assert loaded["labels"] == list(card.labels) and loaded["precision"] == "fp32"
    assert loaded["spec"] == card.spec.to_dict() and loaded["versions"] == {"maker": "1.0"}

    image = read_image(picture)
    resized = resize_image(image, card.spec)
    entry = tiny_bundle.golden_entry("one", np.asarray(image), card)
    assert stages["decoded"]["sha256"] == entry["decoded_sha256"]
    assert stages["resized"]["sha256"] == entry["resized_sha256"]
    in_rows = normalize(resized[None], card.spec).transpose(0, 2, 3, 1)  # as this model has it
    np.testing.assert_allclose(stages["normalized"], in_rows.ravel(), atol=1e-6)
    np.testing.assert_allclose(stages["logits"], entry["logits"], atol=1e-5)

    assert tested["passed"] and tested["stage"] is None and tested["tolerance"] == 1e-4
    assert [photo["file"] for photo in tested["photos"]] == [f"golden/00{i}.png" for i in range(3)]
    assert tested["steps"][-1] == [len(tested["steps"])] * 2


def test_photos_can_be_predicted_at_the_same_time(node: Node, web: Path, picture: Path) -> None:
    files = [picture, *sorted((web / "golden").iterdir())] * 3
    together = {"do": "together", "files": [str(file) for file in files]}
    _, labels, *alone = node(load(web), together, *map(predict, files))
    assert labels == [found["label"] for found in alone]


def test_changed_files_are_refused(node: Node, changed: Change, tmp_path: Path) -> None:
    model = changed("model") / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-100] ^= 1
    model.write_bytes(content)

    order = changed("order") / "manifest.json"
    manifest = json.loads(order.read_bytes())
    manifest["card"]["labels"].reverse()
    order.write_text(json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n")

    schema, empty = changed("schema", schema=3), tmp_path / "empty"
    empty.mkdir()
    results = node(*map(load, (model.parent, order.parent, schema, empty)))
    for result, message in zip(
        results,
        (
            "model.onnx: it is damaged: its SHA-256 is not the manifest's",
            "manifest.json: it was changed after the export",
            "manifest.json: its schema is 3; this module reads 1 and 2",
            "manifest.json: it can't be read",
        ),
        strict=True,
    ):
        assert result["error"]["name"] == "BundleError"
        assert message in result["error"]["message"]


def test_the_self_test_names_the_first_stage_that_differs(
    node: Node, web: Path, changed: Change
) -> None:
    changes = {
        "decode": {"decoded_sha256": "0" * 64},
        "resized": {"resized_sha256": "0" * 64},
        "logits": {"logits": [0.0] * 5},
        "probabilities": {"probabilities": [0.2] * 5},
    }
    requests = []
    for stage, change in changes.items():
        golden = golden_of(web)
        golden[1].update(change)
        requests += [load(changed(stage, golden=golden)), SELF_TEST]
    for stage, found in zip(changes, node(*requests)[1::2], strict=True):
        assert not found["passed"] and found["stage"] == stage
        assert [photo["passed"] for photo in found["photos"]] == [True, False, True]
        assert found["photos"][1]["reason"].startswith(f"{stage}: ")


def test_the_self_test_finds_damaged_files(node: Node, changed: Change) -> None:
    folder = changed()
    golden, licence = folder / "golden/002.png", folder / "codecs/zlib.txt"
    golden.write_bytes(golden.read_bytes()[:-1] + b"x")
    licence.write_text("other")
    nothing = changed("nothing", golden=[])
    _, found, _, refused = node(load(folder), SELF_TEST, load(nothing), SELF_TEST)
    damaged = {photo["file"]: photo["stage"] for photo in found["photos"] if not photo["passed"]}
    assert damaged == {"golden/002.png": "files", "codecs/zlib.txt": "files"}
    assert "it has no golden photos to test with" in refused["error"]["message"]


def test_portable_int8_logits_must_be_equal(node: Node, web: Path, changed: Change) -> None:
    golden = golden_of(web)
    _, *answers = node(load(web), *(predict(web / entry["file"]) for entry in golden))
    for entry, answer in zip(golden, answers, strict=True):
        entry["own_answers"] = {
            "int8": {name: answer[name] for name in ("logits", "probabilities")}
        }
    entries: dict[str, Any] = {"models": {"int8": "model.onnx"}, "golden": golden}
    portable = {"precisions": {"int8": {"portable_bits": True}}}
    exact = changed("exact", **entries, **portable)
    golden[0]["own_answers"]["int8"]["logits"][2] += 1e-6
    folders = exact, changed("off", **entries, **portable), changed("near", **entries)
    passed, failed, near = node(*(step for one in folders for step in (load(one), SELF_TEST)))[1::2]
    assert passed["passed"]
    assert (failed["stage"], failed["photos"][0]["stage"]) == ("logits", "logits")
    assert near["passed"] and near["tolerance"] == 0.05


def test_options_that_can_not_be_had(node: Node, web: Path, changed: Change) -> None:
    int8 = changed("int8", models={"int8": "model.onnx"})
    missing, wrong, threads = node(
        load(web, precision="int8"), load(int8, provider="webgpu"), load(web, threads=2)
    )
    assert "it holds no int8 model" in missing["error"]["message"]
    assert missing["error"]["hint"] == "It holds: fp32."
    assert "WebGPU gives other answers for int8" in wrong["error"]["message"]
    assert "onnxruntime-web can't be imported" in threads["error"]["message"]
    assert threads["error"]["hint"].startswith("Install it with: npm install onnxruntime-web@")


def test_another_provider_must_pass_the_self_test(
    node: Node, web: Path, node_modules: Path, picture: Path
) -> None:
    module = (node_modules / "onnxruntime-web/dist/ort.wasm.bundle.min.mjs").as_uri()

    def with_error(error: float) -> dict[str, Any]:
        return {**load(web, provider="webgpu"), "pretended": {"module": module, "error": error}}

    taken, found, refused = node(with_error(0), predict(picture), with_error(0.1))
    assert taken["precision"] == "fp32" and found["label"] in taken["labels"]
    message = refused["error"]["message"]
    assert message.startswith("WebGPU does not give the model's answers on this device (logits:")


def test_tolerances_are_those_of_python() -> None:
    from edgetl.runtime.bundle import probability_tolerances

    text = (web_folder.MODULE / "self-test.js").read_text()
    for name in ("PROBABILITY_TOLERANCES", "SAME_MODEL_TOLERANCES"):
        expected = getattr(probability_tolerances, name)
        line = next(line for line in text.splitlines() if line.startswith(f"const {name} = "))
        pairs = line.partition("{")[2].rstrip(" };").split(",")
        found = {key.strip(): float(value) for key, value in (pair.split(":") for pair in pairs)}
        assert found == expected
