"""In real browsers, too, photos and pixels of every kind are decoded to the same values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from helpers.web_folder import MODULE
from helpers.web_photos import web_photos

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity.browser import PROGRAMS, BrowserPage, find_browser
from edgetl.runtime.images.decode import read_image

WIDTH, HEIGHT = 50, 40
_PAGE = """<!doctype html><title>Sources</title><script type="module">
import { decode } from "./decode.js";
import { sha256 } from "./checksum.js";

const bytesOf = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
const image = new ImageData(new Uint8ClampedArray(await bytesOf("rgba")), 50, 40);
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [50, 40];
canvas.getContext("2d").putImageData(image, 0, 0);
const sources = { image, canvas };
if (globalThis.VideoFrame) sources.frame = new VideoFrame(canvas, { timestamp: 0 });
const results = {};
const tell = async (name, source) => {
  try {
    const { data, width, height } = await decode(await source);
    results[name] = [await sha256(data), height, width];
  } catch (error) {
    results[name] = error.message;
  }
};
for (const [name, source] of Object.entries(sources)) await tell(name, source);
for (const name of await (await fetch("names")).json()) await tell(name, bytesOf(name));
await tell("file", new File(["no photo"], "notes.txt"));
await fetch("answer", { method: "POST", body: JSON.stringify(results) });
</script>"""


def results_in(browser: str, photos: dict[str, bytes], **preferences: Any) -> dict[str, Any]:
    try:
        find_browser(browser)
    except RuntimeUnavailableError:
        pytest.skip(f"no {browser} here; .ci/run installs one")
    pages = {
        "sources.html": _PAGE.encode(),
        "rgba": rgba().tobytes(),
        "names": json.dumps(list(photos)).encode(),
        **photos,
    }
    options: dict[str, Any] = {"pages": pages, "preferences": preferences}
    with BrowserPage(browser, MODULE, "sources.html", **options) as page:
        results: dict[str, Any] = json.loads(page.receive(120))
        assert page.console() == []
    return results


def rgba() -> np.ndarray:
    """Opaque, since a canvas keeps colours multiplied by alpha."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, :, 3] = 255
    return pixels


def described(pixels: np.ndarray) -> list[Any]:
    return [hashlib.sha256(pixels.tobytes()).hexdigest(), *pixels.shape[:2]]


@pytest.mark.parametrize("browser", list(PROGRAMS))
def test_values_are_those_of_python(browser: str) -> None:
    photos = web_photos()
    found = results_in(browser, photos)
    assert found.pop("file").startswith("notes.txt: it is not an image")
    for name in ("image", "canvas", *(["frame"] if "frame" in found else [])):
        assert found.pop(name) == described(rgba()[:, :, :3]), name
    assert found == {
        name: described(np.asarray(read_image(content))) for name, content in photos.items()
    }


def test_protection_against_fingerprinting_is_noticed() -> None:
    """It changes what is read from a canvas, without an error; photos don't go through one."""
    photos = {name: web_photos()[name] for name in ("420-baseline.jpg", "rgba.png", "lossy.webp")}
    found = results_in("firefox", photos, **{"privacy.resistFingerprinting": True})
    assert "this browser changes pixels that a page reads" in found["canvas"]
    assert found["image"] == described(rgba()[:, :, :3])
    for name, content in photos.items():
        assert found[name] == described(np.asarray(read_image(content)))
