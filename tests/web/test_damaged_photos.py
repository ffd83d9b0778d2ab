"""Damaged photos are an ImageError each, as in Python: never a hang, never half a picture."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile_photos import encoded, oddities
from helpers.pictures import photo
from helpers.web_folder import Node
from helpers.web_photos import web_photos

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import read_image

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def digest(content: bytes) -> str | None:
    """Of the pixels that Python's runtime reads; None if it refuses the photo."""
    try:
        return hashlib.sha256(np.asarray(read_image(content)).tobytes()).hexdigest()
    except ImageError:
        return None


def cut_short() -> dict[str, bytes]:
    """Photos of each kind without their end."""
    names = "420-baseline.jpg", "420-progressive.jpg", "cmyk.jpg", "rgba.png", "interlaced-rgb.png"
    return {
        f"{name}-{length}": content[:length]
        for name in (*names, "lossy.webp", "alpha-lossless.webp")
        for content in [web_photos()[name]]
        for length in (3, 12, 30, len(content) // 3, len(content) * 2 // 3, len(content) - 20)
    }


def test_photos_without_their_end_are_refused(node: Node, tmp_path: Path) -> None:
    photos = {**cut_short(), "empty": b"", "text": b"no photo at all"}
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    found = node(*({"do": "decode", "file": str(tmp_path / name)} for name in photos))
    taken = [name for name, got in zip(photos, found, strict=True) if "error" not in got]
    assert taken == []
    assert {got["error"]["name"] for got in found} == {"ImageError"}
    assert "it is empty (0 bytes)" in found[-2]["error"]["message"]


def test_changed_bytes_are_taken_or_refused_as_in_python(node: Node, tmp_path: Path) -> None:
    """But PNG is refused for checksums that Pillow does not look at, too.

    Of a damaged JPEG that is taken, Pillow's own pixels differ between processors.
    """
    rng, photos = random.Random(0), {}
    for name in ("420-baseline.jpg", "cmyk.jpg", "rgb.png", "lossy.webp", "alpha.webp"):
        for number in range(40):
            content = bytearray(web_photos()[name])
            for _ in range(rng.choice([1, 3, 20])):
                content[rng.randrange(12, len(content))] = rng.randrange(256)
            photos[f"{number}-{name}"] = bytes(content)
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    found = node(*({"do": "decode", "file": str(tmp_path / name)} for name in photos))
    for (name, content), got in zip(photos.items(), found, strict=True):
        expected = digest(content)
        if "error" in got:
            assert got["error"]["name"] == "ImageError"
            assert expected is None or name.endswith("png"), (name, got)
        elif name.endswith("jpg"):
            assert expected is not None, name
        else:
            assert got["sha256"] == expected, name


def test_odd_files_do_no_harm(node: Node, tmp_path: Path) -> None:
    scans = encoded(photo(1, 160, 120), "JPEG", progressive=True)
    start = scans.rindex(b"\xff\xda")
    photos = {**oddities(), "thousand-scans": scans[:start] + scans[start:-2] * 1000 + b"\xff\xd9"}
    photos["no-scan"] = scans[: scans.index(b"\xff\xda")] + b"\xff\xd9"
    frame = photos["no-scan"].index(b"\xff\xc2")
    photos["no-rows"] = scans[: frame + 5] + struct.pack(">H", 0) + scans[frame + 7 :]
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    found = node(*({"do": "decode", "file": str(tmp_path / name)} for name in photos))
    results = dict(zip(photos, found, strict=True))
    assert "it has too many scans" in results["thousand-scans"]["error"]["message"]
    assert all(got["error"]["name"] == "ImageError" for got in found if "error" in got)
    assert all("error" in results[name] for name in ("no-scan", "no-rows", "no-data", "only-magic"))


def test_thousands_of_texts_that_are_small_in_the_file_are_not_inflated(
    node: Node, tmp_path: Path
) -> None:
    text = zlib.compress(b'tiff:Orientation="6"'.ljust(1 << 20))
    data = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + text
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    content = encoded(photo(1, 40, 20), "PNG")
    (tmp_path / "texts.png").write_bytes(content[:33] + chunk * 5000 + content[33:])
    [found] = node({"do": "decode", "file": str(tmp_path / "texts.png")})
    assert (found["width"], found["height"]) == (20, 40)  # turned, as the last one says


def test_memory_comes_back(node: Node, tmp_path: Path) -> None:
    """Also that of decoders that failed half way, and of large photos."""
    small = {
        "jpeg": web_photos()["420-progressive.jpg"][:-400],
        "png": web_photos()["rgba.png"][:-400],
        "webp": web_photos()["lossy.webp"][:-100],
    }
    picture = photo(4, 200, 160).resize((2000, 1600))
    large = {
        "large.jpeg": encoded(picture, "JPEG", progressive=True),
        "large.png": encoded(picture, "PNG", compress_level=1)[:-2000],
    }
    for name, content in {**small, **large}.items():
        (tmp_path / name).write_bytes(content)
    failing, growing = node(
        {"do": "many", "files": [str(tmp_path / name) for name in small], "rounds": 100},
        {"do": "many", "files": [str(tmp_path / name) for name in large], "rounds": 5},
    )
    assert (failing["errors"], growing["errors"]) == (300, 5)
    # MiB; what is kept of a decoder is at least 1, of a large photo 20.
    assert failing["grown"] < 100 and growing["grown"] < 100
