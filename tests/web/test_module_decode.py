"""The module's pixels are those of the Python runtime, that is, Pillow's."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile_photos import bombs, encoded, whole_photos
from helpers.pictures import photo
from helpers.web_folder import MODULE, Node
from helpers.web_photos import web_photos
from PIL import Image

from edgetl.runtime.images.decode import MAX_PIXELS, read_image

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def pixels_of(image: Image.Image) -> dict[str, object]:
    content = np.asarray(image).tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"sha256": digest, "height": image.height, "width": image.width}


def test_pixels_are_those_of_python(node: Node, tmp_path: Path) -> None:
    photos = web_photos()
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    found = node(*({"do": "decode", "file": str(tmp_path / name)} for name in photos))
    expected = [pixels_of(read_image(content)) for content in photos.values()]
    different = [
        (name, got)
        for name, got, wanted in zip(photos, found, expected, strict=True)
        if got != wanted
    ]
    assert different == []


def test_those_photos_tell_the_orientations_apart() -> None:
    photos = web_photos()
    for suffix in ("jpeg", "png", "webp"):
        turned = [pixels_of(read_image(photos[f"turn-{turn}.{suffix}"])) for turn in range(1, 9)]
        assert len({str(pixels) for pixels in turned}) == 8


def test_formats_are_refused_by_name(node: Node, tmp_path: Path) -> None:
    names = {
        "gif": "GIF",
        "avif": "AVIF",
        "heic": "HEIC",
        "tiff": "TIFF",
        "bmp": "BMP",
        "jpeg2000": "JPEG 2000",
        "ico": "ICO",
    }
    photos = whole_photos()
    for name in names:
        (tmp_path / name).write_bytes(photos[name])
    results = node(*({"do": "decode", "file": str(tmp_path / name)} for name in names))
    for name, result in zip(names.values(), results, strict=True):
        assert result["error"]["name"] == "ImageError"
        assert f"it is {name}, which is not decoded here" in result["error"]["message"]
        assert result["error"]["hint"] == "Convert it to JPEG, PNG or WebP."


def test_too_many_pixels_are_refused_before_decoding(node: Node, tmp_path: Path) -> None:
    huge = {name: bombs()[name] for name in ("png", "png-tall", "jpeg", "webp")}
    for name, content in huge.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "small").write_bytes(encoded(photo(1, 20, 10), "JPEG"))
    *results, refused, taken = node(
        *({"do": "decode", "file": str(tmp_path / name)} for name in huge),
        {"do": "decode", "file": str(tmp_path / "small"), "maxPixels": 199},
        {"do": "decode", "file": str(tmp_path / "small"), "maxPixels": 200},
    )
    for result in results:
        assert f"the limit is {MAX_PIXELS:,}" in result["error"]["message"]
    assert "it has 20×10 = 200 pixels; the limit is 199" in refused["error"]["message"]
    assert (taken["width"], taken["height"]) == (20, 10)


def test_pixels_with_alpha_are_composited_on_white(node: Node, tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (50, 60, 4), np.uint8)
    rgba[:5, :, 3], rgba[5:10, :, 3] = 0, 255
    (tmp_path / "rgba").write_bytes(rgba.tobytes())
    request = {"do": "pixels", "file": str(tmp_path / "rgba"), "width": 60}
    found, wrong = node({**request, "height": 50}, {**request, "height": 49})
    assert found == pixels_of(read_image(rgba))
    assert "12000 bytes are not 60×49 RGBA pixels" in wrong["error"]["message"]


def test_damaged_decoders_are_refused(node: Node, tmp_path: Path) -> None:
    module = tmp_path / "web"
    shutil.copytree(MODULE, module)
    codecs = module / "codecs/codecs.wasm"
    content = bytearray(codecs.read_bytes())
    content[len(content) // 2] ^= 1
    codecs.write_bytes(content)
    (tmp_path / "photo").write_bytes(encoded(photo(1), "PNG"))
    (result,) = node({"do": "decode", "file": str(tmp_path / "photo")}, module=module)
    assert result["error"]["name"] == "BundleError"
    assert "codecs.wasm: it is damaged" in result["error"]["message"]


def test_checksums_without_the_browsers_own(node: Node, tmp_path: Path) -> None:
    """On a page that is not secure, as of a device on the local network, the browser has none."""
    contents = [bytes(range(256)) * 5, *(b"x" * size for size in (0, 55, 56, 63, 64, 65, 119))]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    files = [str(tmp_path / str(number)) for number in range(len(contents))]
    found = node(*({"do": "checksums", "file": file} for file in files))
    assert found == [[hashlib.sha256(content).hexdigest()] * 2 for content in contents]
