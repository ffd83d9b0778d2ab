"""The decoding policy, row by row, for every kind of source."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import photo
from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, Source, describe, read_image

ORIENTATION = 0x0112


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def pixels(source: Source) -> np.ndarray:
    image = read_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def on_three_channels(gray: object) -> np.ndarray:
    return np.repeat(np.asarray(gray, np.uint8)[:, :, np.newaxis], 3, axis=2)


def blend(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composited on white, rounded to nearest."""
    a = alpha.astype(np.float64)[..., np.newaxis] / 255
    return np.floor(color * a + 255 * (1 - a) + 0.5).astype(np.uint8)


COLOR = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
GRAY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
ALPHA = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)
DEEP = (np.arange(24, dtype=np.uint16).reshape(4, 6) * 2741) + 131


def palette(transparent: int | None = None) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([9, 8, 7, 60, 50, 40, 255, 0, 128])
    for x in range(3):
        image.putpixel((x, 0), x)
    return encoded(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def two_frames(format_name: str, **options: object) -> bytes:
    second = Image.new("RGB", (6, 4), (1, 200, 3))
    return encoded(
        Image.fromarray(COLOR), format_name, save_all=True, append_images=[second], **options
    )


LOW = np.array([[0.0, 0.25, 1.0]], np.float32)  # a float image in 0..1
BYTES = np.array([[0.0, 99.6, 255.0]], np.float32)
WIDE = np.array([[-100.0, 0.0, 300.0]], np.float32)
CASES: dict[str, tuple[bytes, np.ndarray]] = {
    "RGB": (encoded(Image.fromarray(COLOR), "PNG"), COLOR),
    "grayscale": (encoded(Image.fromarray(GRAY), "PNG"), on_three_channels(GRAY)),
    "one bit": (encoded(Image.fromarray(GRAY > 100), "PNG"), on_three_channels((GRAY > 100) * 255)),
    "palette": (palette(), np.array([[[9, 8, 7], [60, 50, 40], [255, 0, 128]]], np.uint8)),
    "palette with a clear colour": (
        palette(1),
        np.array([[[9, 8, 7], [255, 255, 255], [255, 0, 128]]], np.uint8),
    ),
    "alpha": (encoded(Image.fromarray(np.dstack([COLOR, ALPHA])), "PNG"), blend(COLOR, ALPHA)),
    "alpha in WebP": (
        encoded(Image.fromarray(np.dstack([COLOR, ALPHA])), "WEBP", lossless=True, exact=True),
        blend(COLOR, ALPHA),
    ),
    "grayscale with alpha": (
        encoded(Image.fromarray(np.dstack([GRAY, ALPHA])), "PNG"),
        blend(on_three_channels(GRAY), ALPHA),
    ),
    "a clear colour in RGB": (
        encoded(Image.fromarray(COLOR), "PNG", transparency=tuple(int(v) for v in COLOR[0, 0])),
        np.where((COLOR[0, 0] == COLOR).all(axis=2, keepdims=True), np.uint8(255), COLOR),
    ),
    "16 bits": (encoded(Image.fromarray(DEEP), "PNG"), on_three_channels(DEEP >> 8)),
    "16 bits in TIFF": (encoded(Image.fromarray(DEEP), "TIFF"), on_three_channels(DEEP >> 8)),
    "32-bit integers below 65536": (
        encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
        on_three_channels(DEEP >> 8),
    ),
    "32-bit integers": (
        encoded(Image.fromarray(np.array([[-1000, 0, 101_000]], np.int32)), "TIFF"),
        on_three_channels([[0, 3, 255]]),  # 1000 / 102000 × 255 = 2.5, rounded up
    ),
    "floats 0..1": (encoded(Image.fromarray(LOW), "TIFF"), on_three_channels([[0, 64, 255]])),
    "floats 0..255": (encoded(Image.fromarray(BYTES), "TIFF"), on_three_channels([[0, 100, 255]])),
    "floats": (encoded(Image.fromarray(WIDE), "TIFF"), on_three_channels([[0, 64, 255]])),
    "one float value": (
        encoded(Image.fromarray(np.full((1, 3), 1e30, np.float32)), "TIFF"),
        on_three_channels([[0] * 3]),
    ),
    "animated GIF": (two_frames("GIF"), COLOR),
    "animated WebP": (two_frames("WEBP", lossless=True), COLOR),
    "animated PNG": (two_frames("PNG"), COLOR),
    "several pages": (two_frames("TIFF"), COLOR),
    "BMP": (encoded(Image.fromarray(COLOR), "BMP"), COLOR),
    "JPEG 2000": (encoded(Image.fromarray(COLOR), "JPEG2000"), COLOR),
    "ICO": (
        encoded(Image.fromarray(COLOR).resize((16, 16)), "ICO"),
        np.asarray(Image.fromarray(COLOR).resize((16, 16))),
    ),
    "PPM": (encoded(Image.fromarray(COLOR), "PPM"), COLOR),
}


@pytest.mark.parametrize("name", CASES)
def test_each_row_of_the_policy(name: str) -> None:
    content, expected = CASES[name]
    np.testing.assert_array_equal(pixels(content), expected)


LOSSY = {
    "JPEG": encoded(photo(1), "JPEG"),
    "progressive": encoded(photo(1), "JPEG", progressive=True),
    "gray JPEG": encoded(photo(1).convert("L"), "JPEG"),
    "RGB JPEG": encoded(photo(1), "JPEG", keep_rgb=True),
    "CMYK JPEG": encoded(photo(1).convert("CMYK"), "JPEG", quality=95),
    "MPO": encoded(photo(1), "MPO", save_all=True, append_images=[photo(2)]),
    "WebP": encoded(photo(1), "WEBP"),
    "AVIF": encoded(photo(1), "AVIF"),
    "CMYK TIFF": encoded(photo(1).convert("CMYK"), "TIFF"),
    "YCbCr TIFF": encoded(photo(1).convert("YCbCr"), "TIFF"),
    "LAB TIFF": encoded(Image.new("LAB", (64, 48), (128, 0, 0)), "TIFF"),
}


def ways_in(content: bytes, folder: Path) -> dict[str, Callable[[], Source]]:
    path = folder / "photo.bin"  # the suffix does not matter
    path.write_bytes(content)

    def after_other_bytes() -> Source:
        file = BytesIO(b"12345" + content)
        file.seek(5)
        return file

    return {
        "path": lambda: path,
        "string": lambda: str(path),
        "bytes": lambda: content,
        "bytearray": lambda: bytearray(content),
        "memoryview": lambda: memoryview(content),
        "BytesIO": lambda: BytesIO(content),
        "from the file's position": after_other_bytes,
        "not seekable": lambda: Unseekable(content),
        "PIL": lambda: Image.open(BytesIO(content)),
    }


class Unseekable(BytesIO):
    """Like a socket or standard input."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("not seekable")


@pytest.mark.parametrize("name", [*CASES, *LOSSY])
def test_every_kind_of_source_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    content = CASES[name][0] if name in CASES else LOSSY[name]
    expected = pixels(content)
    for way, source in ways_in(content, tmp_path).items():
        np.testing.assert_array_equal(pixels(source()), expected, err_msg=way)
    with (tmp_path / "photo.bin").open("rb") as file:
        np.testing.assert_array_equal(pixels(file), expected)
    np.testing.assert_array_equal(pixels(expected), expected, err_msg="array")


@pytest.mark.parametrize("shape", ["[H, W]", "[H, W, 1]", "[H, W, 3]", "[H, W, 4]"])
def test_arrays_are_decoded_like_files(shape: str) -> None:
    array = {
        "[H, W]": GRAY,
        "[H, W, 1]": GRAY[:, :, np.newaxis],
        "[H, W, 3]": COLOR,
        "[H, W, 4]": np.dstack([COLOR, ALPHA]),
    }[shape]
    in_file = encoded(Image.fromarray(array.squeeze()), "PNG")
    np.testing.assert_array_equal(pixels(array), pixels(in_file))
    # Rows and axes may have any order in memory.
    np.testing.assert_array_equal(pixels(array[::-1]), pixels(in_file)[::-1])
    np.testing.assert_array_equal(pixels(np.asfortranarray(array)), pixels(in_file))


TURNED = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_the_orientation_is_applied_for_every_kind_of_source(
    format_name: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    as_taken = pixels(encoded(photo(1), format_name))
    content = encoded(photo(1), format_name, exif=exif)
    expected = TURNED[orientation](as_taken)
    for way, source in ways_in(content, tmp_path).items():
        np.testing.assert_array_equal(pixels(source()), expected, err_msg=way)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_counts_as_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(
        pixels(encoded(photo(1), "JPEG", exif=exif)), pixels(encoded(photo(1), "JPEG"))
    )


def test_an_image_is_not_turned_twice() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = read_image(encoded(photo(1), "JPEG", exif=exif))
    np.testing.assert_array_equal(pixels(image), np.asarray(image))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg_with_and_without_the_inversion_of_adobe(adobe: bool) -> None:
    color = Image.new("RGB", (32, 32), (200, 30, 90))
    # Pillow writes it inverted, with Adobe's marker.
    content = encoded(color.convert("CMYK"), "JPEG", quality=95)
    if not adobe:
        marker = content.index(b"\xff\xee")
        inverted = Image.eval(color.convert("CMYK"), lambda value: 255 - value)
        content = encoded(inverted, "JPEG", quality=95)
        content = content[:marker] + content[marker + 16 :]
        assert b"Adobe" not in content
    np.testing.assert_allclose(pixels(content)[16, 16], (200, 30, 90), atol=4)


def test_ycck_jpeg() -> None:
    # The file contains luma and chroma of the ink (255 − red), and 255 − black.
    red, black = (190, 20, 30), 40
    luma = Image.new("RGB", (1, 1), tuple(255 - v for v in red)).convert("YCbCr").getpixel((0, 0))
    # Pillow inverts it when it saves it.
    stored = Image.new("CMYK", (32, 32), (*(255 - v for v in luma), black))
    content = bytearray(encoded(stored, "JPEG", quality=100))
    transform = content.index(b"Adobe") + 11
    assert content[transform] == 0
    content[transform] = 2  # YCCK
    expected = [v * (255 - black) / 255 for v in red]
    np.testing.assert_allclose(pixels(bytes(content))[16, 16], expected, atol=4)


def test_the_current_frame_of_a_pil_image_is_taken() -> None:
    image = Image.open(BytesIO(two_frames("TIFF")))
    image.seek(1)
    np.testing.assert_array_equal(pixels(image)[0, 0], (1, 200, 3))


def test_a_pil_image_is_not_changed() -> None:
    image = Image.fromarray(np.dstack([COLOR, ALPHA]))
    before = np.asarray(image).copy()
    read_image(image)
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image), before)


def test_a_colour_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(COLOR), "PNG", icc_profile=profile)), COLOR
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 [4, 4, 3]"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 [4, 4, 2]"),
        (np.zeros((2, 4, 4, 3), np.uint8), "uint8 [2, 4, 4, 3]"),
        (np.zeros(7, np.uint8), "uint8 [7]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels (4×0)"),
        (b"", "it is empty"),
        (b"GIF89", "it is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is not an image"),
        (42, "can't be read from int"),
        (None, "can't be read from NoneType"),
        (Image.new("RGB", (0, 3)), "no pixels (0×3)"),
        (encoded(Image.fromarray(np.array([[0.0, np.nan]], np.float32)), "TIFF"), "not finite"),
        (encoded(Image.fromarray(np.array([[0.0, np.inf]], np.float32)), "TIFF"), "not finite"),
        ("/no/such/photo.jpg", "no such file"),
        ("a\0b.jpg", "null"),
        (tempfile.gettempdir(), "it is a folder"),
        ("/dev/zero", "not a regular file"),
    ],
)
def test_the_error_names_what_is_not_a_photo(source: Source, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(source)
    assert reason in caught.value.message
    assert caught.value.source == describe(source)


def test_a_text_file_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with (tmp_path / "a.txt").open() as file, pytest.raises(ImageError, match="not bytes"):
        read_image(file)  # type: ignore[arg-type]


def test_max_pixels_applies_to_every_kind_of_source(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(COLOR), "PNG")
    sources = [way() for way in ways_in(content, tmp_path).values()]
    for source in [*sources, COLOR]:
        with pytest.raises(ImageError, match=r"6×4 = 24 pixels; the limit is 23"):
            read_image(source, max_pixels=23)
    assert pixels(content).shape == (4, 6, 3)
    assert MAX_PIXELS == 100_000_000


def test_each_kind_of_source_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "花.jpg"
    photo(1).save(path)
    assert describe(path) == str(path)
    assert describe(b"123") == "<3 bytes>"
    assert describe(COLOR) == "<array uint8 [4, 6, 3]>"
    assert describe(BytesIO()) == "<BytesIO>"
    with Image.open(path) as image:
        assert describe(image) == str(path)
    assert describe(Image.new("RGB", (3, 2))) == "<PIL image RGB 3x2>"
    with path.open("rb") as file:
        assert describe(file) == str(path)


@pytest.mark.parametrize("clear", [0, 300, 65535])
def test_transparent_grey_of_16_bits_is_composited_on_white(clear: int) -> None:
    values = np.arange(0, 256, dtype=np.uint16).reshape(16, 16) * 257
    values[0, :4] = clear
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG", transparency=clear)
    picture = np.asarray(read_image(file.getvalue()))
    expected = np.where(values == clear, 255, values >> 8)
    np.testing.assert_array_equal(picture, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("address", ["https://example.com/a.jpg", Path("http://example.com/a.jpg")])
def test_a_url_is_refused(address: Source) -> None:
    with pytest.raises(ImageError, match="it is an address"):
        read_image(address)


def test_a_frame_of_opencv_is_turned_to_rgb_by_a_view(tmp_path: Path) -> None:
    rgb = np.asarray(photo(1))
    bgr = np.ascontiguousarray(rgb[..., ::-1])  # as OpenCV reads it
    np.testing.assert_array_equal(pixels(bgr[..., ::-1]), rgb)
    for wrong in (rgb.astype(np.float32), 3):
        with pytest.raises(ImageError) as error:
            read_image(wrong)  # type: ignore[arg-type]
        assert "from OpenCV frame[..., ::-1]" in str(error.value.hint)
