"""Damaged and malicious files give an ImageError or a whole image, never anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile_photos import bombs, encoded, icns, oddities, whole_photos
from helpers.pictures import photo
from PIL import Image

from edgetl import Predictor
from edgetl.errors import ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, Source, read_image

# edgetl sets the same filter when imported, but pytest resets the filters before each test.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

WHOLE = whole_photos()
# A flipped bit may make a small image large: within the limit, but slow to decode by hundreds.
FEW_PIXELS = 1_000_000


def decode(content: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """The image, or None for an ImageError."""
    try:
        return np.asarray(read_image(content, max_pixels=max_pixels))
    except ImageError as error:
        assert error.reason, "an error must say why"
        return None


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing may be written to stdout or stderr, not even by C libraries."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_refused_or_decoded_whole(kind: str, tmp_path: Path) -> None:
    content = WHOLE[kind]
    expected = decode(content)
    assert expected is not None
    refused = 0
    for percent in range(100):
        part = content[: len(content) * percent // 100]
        picture = decode(part)
        refused += picture is None
        assert picture is None or np.array_equal(picture, expected), (
            f"{percent} % gave a part of the image"
        )
        for other in ways_in(part, tmp_path):
            assert same(picture, other), f"{percent} % differ between kinds of source"
    assert refused >= 25


def ways_in(content: bytes, folder: Path) -> Iterator[np.ndarray | None]:
    """``decode`` of ``content`` as a path, an open file and an image that Pillow has opened."""
    path = folder / "photo"
    path.write_bytes(content)
    yield decode(path)
    with path.open("rb") as file:
        yield decode(file)
    try:
        with Image.open(path) as image:
            yield decode(image)
    except (OSError, SyntaxError, ValueError):  # Pillow itself can't open it
        yield decode(content)


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bits_do_no_harm(kind: str) -> None:
    content = WHOLE[kind]
    random = np.random.default_rng(len(kind))
    for _ in range(150):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), random.integers(1, 6)):
            damaged[position] ^= 1 << int(random.integers(0, 8))
        decode(bytes(damaged), FEW_PIXELS)


@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bits_in_the_header_do_no_harm(kind: str) -> None:
    content = WHOLE[kind]
    for position in range(min(len(content), 80)):
        for bit in (0, 5):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            decode(bytes(damaged), FEW_PIXELS)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused(name: str) -> None:
    assert decode(bombs()[name]) is None


@pytest.mark.parametrize("name", oddities())
def test_odd_files_do_no_harm(name: str) -> None:
    decode(oddities()[name])


def test_odd_but_intact_files_are_read() -> None:
    whole = (
        "huge-exif-png",
        "huge-exif-webp",
        "broken-profile",
        "broken-profile-tiff",
        "broken-exif-1",
        "broken-exif-2",
    )
    for name in whole:
        picture = decode(oddities()[name])
        assert picture is not None, name
        assert picture.shape == (16, 16, 3)


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535), (30_000, 3)])
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP"])
def test_long_and_thin_photos(size: tuple[int, int], format_name: str, tiny_bundle: Path) -> None:
    content = encoded(Image.new("RGB", size, (9, 8, 7)), format_name)
    assert decode(content) is not None
    predictor = Predictor(tiny_bundle)
    assert predictor(content).confidence > 0


@pytest.mark.parametrize("suffix", ["jpg", "png", "txt", "onnx", ""])
def test_the_suffix_is_ignored(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"name.{suffix}"
    path.write_bytes(WHOLE["webp-lossless"])
    assert np.array_equal(np.asarray(read_image(path)), decode(WHOLE["webp-lossless"]))


@pytest.mark.parametrize(
    "make", ["folder", "pipe", "link to nothing", "link in a circle", "closed", "socket"]
)
def test_a_path_that_is_not_a_regular_file_is_refused_at_once(
    public_folder: Path, make: str, without_privileges: Callable[[], AbstractContextManager[None]]
) -> None:
    import socket

    path = public_folder / "photo.jpg"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "link to nothing":
        path.symlink_to(public_folder / "nothing")
    elif make == "link in a circle":
        path.symlink_to(path)
    elif make == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        photo(1).save(path)
        path.chmod(0)
    with without_privileges(), pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.source == str(path)


class Unhelpful(BytesIO):
    """A file object whose ``read`` raises or returns ``failure``."""

    def __init__(self, failure: object) -> None:
        super().__init__(WHOLE["png"])
        self.failure = failure

    def read(self, size: int | None = -1) -> bytes:
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure  # type: ignore[return-value]


@pytest.mark.parametrize(
    "failure",
    [OSError(5, "Input/output error"), ValueError("closed"), RuntimeError("?"), None, "text", b""],
)
def test_a_file_object_that_fails_is_an_image_error(failure: object) -> None:
    with pytest.raises(ImageError):
        read_image(Unhelpful(failure))


class EndlessStream:
    """A stream of ten blocks of any length."""

    blocks = 0

    def read(self, size: int) -> bytes:
        self.blocks += 1
        return bytes(size) if self.blocks <= 10 else b""


def test_a_stream_is_read_no_further_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.runtime.images.decode.MAX_PHOTO_BYTES", 1 << 21)
    stream = EndlessStream()
    with pytest.raises(ImageError, match="the stream is longer than 2 MiB"):
        read_image(stream)  # type: ignore[arg-type]
    assert stream.blocks == 3


def test_a_closed_file_and_a_closed_image_are_refused() -> None:
    file = BytesIO(WHOLE["png"])
    image = Image.open(file)
    image.close()
    file.close()
    for source in (file, image):
        with pytest.raises(ImageError):
            read_image(source)


def test_no_other_program_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for PostScript."""

    def started(*arguments: object, **_: object) -> None:
        raise AssertionError(f"started {arguments}")

    for name in ("subprocess.Popen", "subprocess.check_call", "subprocess.run", "os.system"):
        monkeypatch.setattr(name, started)
    for content in (encoded(photo(1), "EPS"), encoded(photo(1), "PDF")):
        assert decode(content) is None


IN_A_SMALL_PROCESS = """
import json, resource, sys
from pathlib import Path
from edgetl.errors import ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, read_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = in_use + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before, outcomes = peak(), {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        outcomes[path.name] = list(read_image(path).size)
    except ImageError as error:
        outcomes[path.name] = error.reason
print(json.dumps([peak() - before, outcomes]))
"""


def test_memory_stays_below_what_max_pixels_allows(tmp_path: Path) -> None:
    """A decompression bomb must take far less than 100 million pixels do, which is 400 MB."""
    for name, content in {**bombs(), **oddities()}.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", IN_A_SMALL_PROCESS, tmp_path, str(1 << 30)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    grown, outcomes = json.loads(done.stdout)
    assert set(outcomes) == set(bombs()) | set(oddities())
    assert grown < 200e6, outcomes


def test_too_little_memory_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("1", (9_000, 9_000)), "PNG"))
    command = [sys.executable, "-c", IN_A_SMALL_PROCESS, tmp_path, str(60 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[1] == {"large.png": "there is not enough memory to decode it"}


def test_a_folder_of_all_of_them_is_classified_to_its_end_without_a_warning(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    for kind, content in {**WHOLE, **oddities(), **bombs()}.items():
        (tmp_path / f"{kind}.png").write_bytes(content)
        damaged = bytearray(content)
        damaged[int(random.integers(0, len(content)))] ^= 255
        (tmp_path / f"{kind}-damaged.png").write_bytes(damaged)
    command = [
        sys.executable,
        "-W",
        "default",
        "-m",
        "edgetl",
        "predict",
        tiny_bundle,
        tmp_path,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    failed = sum("error" in row for row in rows)
    assert len(rows) == len(list(tmp_path.iterdir()))
    assert len(bombs()) <= failed < len(rows)
    assert done.returncode == 1
    assert done.stderr == f"{failed} of {len(rows)} photos could not be classified.\n"


@pytest.mark.parametrize("compression", [1, 5])
def test_a_file_inside_a_file_is_not_opened(compression: int) -> None:
    """IPTC data may contain any other image, such as one that starts a program."""

    def field(tag: tuple[int, int], value: bytes) -> bytes:
        return bytes([0x1C, *tag]) + len(value).to_bytes(2, "big") + value

    inner = encoded(Image.new("RGB", (64, 64)), "PNG")
    assert decode(icns(inner)) is None
    head = (
        field((3, 20), b"\0\x40")
        + field((3, 30), b"\0\x40")
        + field((3, 60), b"\3\0")
        + field((3, 120), bytes([compression]))
    )
    assert decode(head + field((8, 10), inner)) is None
