"""In real browsers: photos and pixels of every kind, and onnxruntime-web from another server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import web_folder
from helpers.other_server import other_server
from helpers.web_photos import web_photos

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity.browser import PROGRAMS, BrowserPage, find_browser
from edgetl.runtime.images.decode import read_image

_PAGE = """<!doctype html><title>Module</title><script type="module">
import { decode } from "./decode.js";
import { sha256 } from "./checksum.js";
import { Predictor } from "./edgetl.js";

const bytesOf = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
const decoded = async (source) => {
  try {
    const { data, width, height } = await decode(await source);
    return [await sha256(data), height, width];
  } catch (error) {
    return error.message;
  }
};
const tested = async (options) => {
  try {
    const predictor = await Predictor.load("./", options);
    const { passed, photos } = await predictor.selftest();
    return passed ? "passed" : photos.find((photo) => !photo.passed).reason;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
};

const { photos, options } = await (await fetch("wanted")).json();
const image = new ImageData(new Uint8ClampedArray(await bytesOf("rgba")), 50, 40);
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [image.width, image.height];
canvas.getContext("2d").putImageData(image, 0, 0);
const results = {
  image: await decoded(image),
  canvas: await decoded(canvas),
  file: await decoded(new File(["no photo"], "notes.txt")),
  photos: {},
  loaded: [],
};
if (globalThis.VideoFrame) {
  const frame = new VideoFrame(canvas, { timestamp: 0 });
  results.frame = await decoded(frame);
  frame.close(); // or the console complains, whenever it is collected
}
for (const name of photos) results.photos[name] = await decoded(bytesOf(name));
for (const one of options) results.loaded.push(await tested(one));
await fetch("answer", { method: "POST", body: JSON.stringify(results) });
</script>"""


@pytest.fixture(scope="module")
def elsewhere(node_modules: Path) -> Iterator[str]:
    """The address of another server, which has onnxruntime-web."""
    with other_server(node_modules / "onnxruntime-web/dist") as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, elsewhere: str, node_modules: Path) -> Path:
    """A web folder that takes onnxruntime-web from ``elsewhere``."""
    folder = web_folder.write(tmp_path_factory.mktemp("web") / "web", node_modules)
    ort = json.loads((folder / "ort.json").read_bytes())
    ort["wasm"]["base"] = ort["webgpu"]["base"] = elsewhere
    ort["webgpu"]["binary"] = "ort.wasm.min.js"  # another file than the one with this checksum
    ort["integrity"]["ort.wasm.min.js"] = ort["integrity"][ort["wasm"]["binary"]]
    (folder / "ort.json").write_text(json.dumps(ort))
    return web_folder.sign(folder)


def results_in(
    browser: str,
    folder: Path,
    photos: dict[str, bytes],
    options: list[dict[str, Any]],
    **preferences: Any,
) -> dict[str, Any]:
    try:
        find_browser(browser)
    except RuntimeUnavailableError:
        pytest.skip(f"no {browser} here; .ci/run installs one")
    pages = {
        "module.html": _PAGE.encode(),
        "rgba": opaque().tobytes(),
        "wanted": json.dumps({"photos": list(photos), "options": options}).encode(),
        **photos,
    }
    settings: dict[str, Any] = {"pages": pages, "preferences": preferences}
    with BrowserPage(browser, folder, "module.html", **settings) as page:
        results: dict[str, Any] = json.loads(page.receive(120))
        results["console"] = page.console()
    return results


def opaque() -> np.ndarray:
    """RGBA; a canvas would keep other colours multiplied by alpha."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    pixels[:, :, 3] = 255
    return pixels


def described(pixels: np.ndarray) -> list[Any]:
    return [hashlib.sha256(pixels.tobytes()).hexdigest(), *pixels.shape[:2]]


def of_python(photos: dict[str, bytes]) -> dict[str, list[Any]]:
    return {name: described(np.asarray(read_image(photos[name]))) for name in photos}


@pytest.fixture(scope="module", params=list(PROGRAMS))
def found(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    options = [{}, {"provider": "webgpu"}, {"threads": 2}]
    return results_in(request.param, folder, web_photos(), options)


def test_values_are_those_of_python(found: dict[str, Any]) -> None:
    expected = described(opaque()[:, :, :3])
    assert found["image"] == found["canvas"] == expected
    assert found.get("frame", expected) == expected
    assert found["file"].startswith("notes.txt: it is not an image")
    assert found["photos"] == of_python(web_photos())


def test_a_runtime_from_elsewhere_is_verified(found: dict[str, Any], elsewhere: str) -> None:
    passed, other_content, threads = found["loaded"]
    assert passed == "passed"
    refused = f"EdgetlError: onnxruntime-web can't be read from {elsewhere}ort.wasm.min.js"
    assert other_content.startswith(refused)
    assert threads == "EdgetlError: Several threads need a page that is cross-origin isolated."
    # What the browser says of the content with another checksum.
    assert all("ort.wasm.min.js" in message for message in found["console"])


def test_protection_against_fingerprinting_is_noticed(folder: Path) -> None:
    """It changes what is read from a canvas, without an error; photos don't go through one."""
    photos = {name: web_photos()[name] for name in ("420-baseline.jpg", "rgba.png", "lossy.webp")}
    found = results_in("firefox", folder, photos, [], **{"privacy.resistFingerprinting": True})
    assert "this browser changes pixels that a page reads" in found["canvas"]
    assert found["image"] == described(opaque()[:, :, :3])
    assert found["photos"] == of_python(photos)
