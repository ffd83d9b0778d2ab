"""The exported folder as an npm package: a program imports it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.tiny_network import scored_card, tapped_network, tiny_detector
from helpers.web_folder import MODULE

from edgetl import Predictor
from edgetl.exporting import web_folder
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment

_PROGRAM = """
import { readFile } from "node:fs/promises";
import { Predictor } from "pets";

const predictor = await Predictor.load(new URL("./", import.meta.resolve("pets/manifest.json")));
const { label, probabilities } = await predictor.predict(await readFile(process.argv[2]));
const { passed } = await predictor.selftest();
console.log(JSON.stringify({ label, probabilities: [...probabilities], passed }));
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """A folder with a package ``pets`` in its ``node_modules``; its bundle is in ``pets/``."""
    folder = tmp_path_factory.mktemp("program")
    deployment = Deployment(tapped_network(), scored_card(), tiny_detector())
    photos = sorted(photo_folder.iterdir())[:2]
    export_bundle(deployment, folder / "pets", golden=photos, formats=["onnx"], web=True)
    shutil.copytree(folder / "pets/web", folder / "node_modules/pets")
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def test_a_program_in_node_gets_pythons_answers(
    program: Path, node_modules: Path, photo_folder: Path
) -> None:
    node = shutil.which("node")
    assert node is not None  # where there are node_modules
    for package in ("onnxruntime-web", "onnxruntime-common"):
        (program / "node_modules" / package).symlink_to(node_modules / package)
    (program / "main.js").write_text(_PROGRAM)
    photo = photo_folder / "0-64x48.jpg"
    command = [node, "--liftoff-only", "main.js", photo]  # WebAssembly as it is first compiled
    done = subprocess.run(command, cwd=program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found, expected = json.loads(done.stdout), Predictor(program / "pets")(photo)
    assert found["passed"] and found["label"] == expected.label
    assert found["probabilities"] == pytest.approx(expected.probabilities.tolist(), abs=1e-5)


def test_one_version_of_onnxruntime_is_pinned_for_all(node_modules: Path) -> None:
    pinned = json.loads((MODULE / "ort.json").read_text())
    lock = json.loads((Path(__file__).parent / "package-lock.json").read_text())
    package = lock["packages"][f"node_modules/{pinned['package']}"]
    assert package["version"] == pinned["version"]
    dist = node_modules / pinned["package"] / "dist"
    for build in ("wasm", "webgpu"):
        assert f"{pinned['package']}@{pinned['version']}/" in pinned[build]["base"]
        for name in (pinned[build]["module"], pinned[build]["binary"]):
            content = (dist / name).read_bytes()
            assert web_folder._integrity(content) == pinned["integrity"][name]
