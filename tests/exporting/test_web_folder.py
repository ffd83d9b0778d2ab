"""The folder for browsers: its models answer as the bundle's, and it says no more than it must."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_network import FREE, scored_card, tapped_network, tiny_card, tiny_detector
from helpers.tiny_network import tiny_network as network

from edgetl.errors import ExportError
from edgetl.exporting import web_folder
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.resized_network import cut_at_resized
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.exporting.web_folder import read_ort
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.inference.session import open_session

PRECISIONS = ("fp32", "fp16", "int8")


def pinned() -> Any:
    return json.loads((web_folder._SOURCE / "ort.json").read_text())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "best.safetensors").write_bytes(b"weights")
    photos = sorted(photo_folder.iterdir())
    return export_bundle(
        Deployment(tapped_network(), scored_card(), tiny_detector()),
        folder / "Süße Pets (2)",
        golden=photos[:2],
        formats=["onnx"],
        checkpoint=folder / "best.safetensors",
        training_photos="0123456789abcdef",
        precisions=PRECISIONS,
        precision_settings=PrecisionSettings(photos, [(photos[0], 0)], max_accuracy_drop=100),
        web=True,
    ).folder


@pytest.fixture
def ort_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the pinned version, as far as its checksums can tell."""
    described = pinned()
    dist = tmp_path / "onnxruntime-web/dist"
    dist.mkdir(parents=True)
    for name in (described["wasm"]["module"], described["wasm"]["binary"]):
        (dist / name).write_bytes(name.encode())
        described["integrity"][name] = web_folder._integrity(name.encode())
    (dist.parent / "package.json").write_text(json.dumps({"version": described["version"]}))
    monkeypatch.setattr(web_folder, "_pinned_ort", lambda: json.loads(json.dumps(described)))
    return dist.parent


def web_manifest(bundle: Path) -> Any:
    return json.loads((bundle / "web/manifest.json").read_text())


def test_every_file_has_its_checksum_in_the_bundle(exported: Path) -> None:
    bundle = Bundle.open(exported)
    present = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert present == {*bundle.manifest["files"], "manifest.json"}
    assert bundle.damage() == []
    expected = {"index.html", "edgetl.js", "page.js", "ort.json", "package.json", "golden/000.jpg"}
    assert {f"web/{name}" for name in expected} <= present
    page = exported / "web/page.js"
    page.write_bytes(page.read_bytes() + b"//")
    assert [error.path for error in bundle.damage()] == [page]
    page.write_bytes(page.read_bytes()[:-2])


def test_its_own_manifest_has_what_a_page_needs_and_no_more(exported: Path) -> None:
    manifest, whole = web_manifest(exported), Bundle.open(exported).manifest
    for key in ("schema", "name", "card", "models", "golden", "precisions"):
        assert manifest[key] == whole[key]
    assert not {"checkpoint", "training_photos"} & set(manifest)
    unlisted = {"web/manifest.json", "web/service-worker.js"}
    inside = {name: entry for name, entry in whole["files"].items() if name.startswith("web/")}
    listed = {f"web/{name}": entry for name, entry in manifest["files"].items()}
    assert listed == {name: entry for name, entry in inside.items() if name not in unlisted}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_models_give_the_bundles_answers_bit_by_bit(exported: Path, precision: str) -> None:
    name = Bundle.open(exported).manifest["models"][precision]
    model = onnx.load(exported / "web" / name)
    (taken,) = model.graph.input
    assert (taken.name, taken.type.tensor_type.elem_type) == ("resized", onnx.TensorProto.UINT8)
    assert not model.metadata_props  # or a reader would give it whole photos
    predictor = Predictor(exported, precision=precision)
    session = open_session(model.SerializeToString(), providers="cpu", name=name)
    for photo in Bundle.open(exported).golden:
        pixels = web_folder.open_onnx(onnx.load(exported / name))(
            np.asarray(read_image(exported / photo.file))[None]
        )
        outputs = session.run(None, {"resized": pixels["resized"]})
        prediction = predictor(exported / photo.file)
        values = dict(zip([value.name for value in model.graph.output], outputs, strict=True))
        assert np.array_equal(values["logits"][0], prediction.logits)
        assert np.array_equal(values["embedding"][0], prediction.embedding)
        assert values["ood_score"][0] == prediction.ood_score


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_in_its_models_is_of_double_precision(exported: Path, precision: str) -> None:
    name = Bundle.open(exported).manifest["models"][precision]
    whole, cut = (
        onnx.shape_inference.infer_shapes(onnx.load(folder / name), strict_mode=True)
        for folder in (exported, exported / "web")
    )

    def doubles(model: onnx.ModelProto) -> int:
        types = [value.type.tensor_type.elem_type for value in model.graph.value_info]
        types += [tensor.data_type for tensor in model.graph.initializer]
        return types.count(onnx.TensorProto.DOUBLE)

    assert doubles(cut) == 0 < doubles(whole)


def test_a_model_of_other_answers_is_refused(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
        cut = cut_at_resized(model)
        bias = next(tensor for tensor in cut.graph.initializer if tensor.name.endswith("head.bias"))
        values = onnx.numpy_helper.to_array(bias) + np.float32(1e-6)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return cut

    monkeypatch.setattr(web_folder, "cut_at_resized", spoiled)
    with pytest.raises(ExportError, match="fp32 model gives other logits"):
        export_bundle(
            Deployment(network(), tiny_card()), tmp_path / "out", golden=[], formats=["onnx"],
            web=True,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_photo_of_any_size_fits_where_the_network_takes_it(tmp_path: Path) -> None:
    """Where nothing is cropped, the input's height and width are open."""
    folder = export_bundle(
        Deployment(network(), tiny_card(FREE)), tmp_path / "out", golden=[], formats=["onnx"],
        web=True,
    ).folder  # fmt: skip
    (taken,) = onnx.load(folder / "web/model.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim][1:3] == ["h", "w"]
    assert web_manifest(folder)["golden"] == []


def test_onnxruntime_is_taken_from_the_cdn_by_name_and_checksum(exported: Path) -> None:
    described = json.loads((exported / "web/ort.json").read_text())
    assert described == pinned()
    for build in ("wasm", "webgpu"):
        assert f"onnxruntime-web@{described['version']}/" in described[build]["base"]
        for name in (described[build]["module"], described[build]["binary"]):
            assert described["integrity"][name].startswith("sha384-")
    page = (exported / "web/index.html").read_text()
    assert f"connect-src 'self' https://{described['wasm']['base'].split('/')[2]};" in page
    assert not (exported / "web/ort").exists()


@pytest.mark.parametrize("inside", ["", "dist"])
def test_or_it_is_copied_beside_the_page(tmp_path: Path, ort_package: Path, inside: str) -> None:
    folder = export_bundle(
        Deployment(network(), tiny_card()), tmp_path / "out", golden=[], formats=["onnx"],
        web=True, ort=ort_package / inside,
    ).folder  # fmt: skip
    described = json.loads((folder / "web/ort.json").read_text())["wasm"]
    assert described["base"] == "ort/"
    files = {path.name for path in (folder / "web/ort").iterdir()}
    assert files == {described["module"], described["binary"], "LICENSE"}
    assert f"ort/{described['module']}" in web_manifest(folder)["files"]


def test_another_version_is_refused(ort_package: Path) -> None:
    binary = ort_package / "dist" / pinned()["wasm"]["binary"]
    binary.write_bytes(b"other")
    (ort_package / "package.json").write_text('{"version": "1.17.0"}')
    hint = f"npm install --ignore-scripts onnxruntime-web@{pinned()['version']}"
    with pytest.raises(ExportError, match=r"but of 1\.17\.0") as error:
        read_ort(ort_package)
    assert hint in str(error.value)
    (ort_package / "package.json").unlink()
    with pytest.raises(ExportError, match=rf"{binary.name} is not that of onnxruntime-web"):
        read_ort(ort_package)
    binary.unlink()
    with pytest.raises(ExportError, match="No such file") as error:
        read_ort(ort_package)
    assert hint in str(error.value)


def test_another_model_is_another_service_worker(exported: Path, tmp_path: Path) -> None:
    folder = export_bundle(
        Deployment(network(1), tiny_card()), tmp_path / "out", golden=[], formats=["onnx"],
        web=True,
    ).folder  # fmt: skip
    first, second = ((path / "web/service-worker.js").read_text() for path in (exported, folder))
    assert first != second
    assert {len(first), len(second)} == {len(first)}  # the version alone differs
    assert 'VERSION = ""' not in first


def test_npm_takes_it_for_a_package(exported: Path, tmp_path: Path) -> None:
    package = json.loads((exported / "web/package.json").read_text())
    assert package["name"] == "s-e-pets-2"
    assert package["peerDependencies"] == {"onnxruntime-web": pinned()["version"]}
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here; .ci/run installs one")
    command = [npm, "pack", "--dry-run", "--json", "--ignore-scripts", "--offline"]
    done = subprocess.run(
        command, cwd=exported / "web", capture_output=True, text=True, timeout=120, check=True
    )
    (packed,) = json.loads(done.stdout)
    listed = {file["path"] for file in packed["files"]}
    assert {*web_manifest(exported)["files"], "manifest.json", "service-worker.js"} == listed


def test_the_guide_names_the_version_that_is_pinned() -> None:
    guide = Path(web_folder.__file__).parents[2] / "docs/guides/web.md"
    named = re.findall(r"onnxruntime-web@(\S+)", guide.read_text(encoding="utf-8"))
    assert set(named) == {pinned()["version"]}
