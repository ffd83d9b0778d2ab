"""Photos of every kind that the JavaScript module decodes."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from helpers.hostile_photos import encoded, png_chunk, whole_photos
from helpers.pictures import photo

SIZE = (97, 61)  # odd, so that blocks of chroma are cut


@cache
def web_photos() -> dict[str, bytes]:
    """Name → content; every one is decoded by Python's runtime, too."""
    return {
        **_jpegs(),
        **_pngs(),
        **_webps(),
        **_turned(),
        **{
            f"whole-{name}": content
            for name, content in whole_photos().items()
            if name.startswith(("jpeg", "progressive", "cmyk", "mpo", "png", "webp"))
            and name != "jpeg2000"
        },
    }


def _picture() -> Image.Image:
    return photo(3, *SIZE)


def _with_alpha() -> Image.Image:
    picture = _picture().convert("RGBA")
    picture.putalpha(photo(9, *SIZE).convert("L"))
    return picture


def _jpegs() -> dict[str, bytes]:
    picture, cmyk = _picture(), encoded(_picture().convert("CMYK"), "JPEG")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    adobe = cmyk.index(b"\xff\xee")
    (length,) = struct.unpack(">H", cmyk[adobe + 2 : adobe + 4])
    inverted = cmyk[:adobe] + cmyk[adobe + 2 + length :]  # without Adobe's marker
    found = {
        f"{name}-{kind}.jpg": encoded(
            picture, "JPEG", quality=60, subsampling=subsampling, progressive=kind == "progressive"
        )
        for name, subsampling in {"444": 0, "422": 1, "420": 2, "411": "4:1:1"}.items()
        for kind in ("baseline", "progressive")
    }
    return {
        **found,
        "440.jpg": _as_440(picture),
        "gray.jpg": encoded(picture.convert("L"), "JPEG"),
        "rgb.jpg": encoded(picture, "JPEG", keep_rgb=True),
        "cmyk.jpg": cmyk,
        "cmyk-without-adobe.jpg": inverted,
        "profile.jpg": encoded(picture, "JPEG", icc_profile=profile),
        "restart.jpg": encoded(picture, "JPEG", restart_marker_blocks=2),
        "more-after-end.jpg": encoded(picture, "JPEG") + b"more",
        "large.jpg": encoded(photo(4, 700, 900), "JPEG", quality=95),
    }


def _as_440(picture: Image.Image) -> bytes:
    """A JPEG whose chroma is halved from top to bottom only, which Pillow does not write.

    It is one of 4:2:2 with its sampling factors exchanged, of a size that has as many blocks then.
    """
    content = bytearray(encoded(picture.resize((96, 96)), "JPEG", subsampling=1))
    frame = content.index(b"\xff\xc0")
    assert content[frame + 11] == 0x21
    content[frame + 11] = 0x12
    return bytes(content)


def _pngs() -> dict[str, bytes]:
    picture, alpha = _picture(), _with_alpha()
    gray = np.asarray(picture.convert("L"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257 + np.arange(SIZE[0], dtype=np.uint16))
    palette = picture.quantize(200)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "rgb.png": encoded(picture, "PNG"),
        "rgb-clear.png": encoded(picture, "PNG", transparency=tuple(picture.getpixel((3, 3)))),
        "rgba.png": encoded(alpha, "PNG"),
        "gray.png": encoded(picture.convert("L"), "PNG"),
        "gray-clear.png": encoded(picture.convert("L"), "PNG", transparency=100),
        "gray-alpha.png": encoded(alpha.convert("LA"), "PNG"),
        "16-bit.png": encoded(deep, "PNG"),
        "16-bit-clear.png": encoded(deep, "PNG", transparency=int(deep.getpixel((5, 5)))),
        "16-bit-rgb.png": _deep_png(2, 3),
        "16-bit-gray-alpha.png": _deep_png(4, 2),
        "16-bit-rgba.png": _deep_png(6, 4),
        "1-bit.png": encoded(picture.convert("1"), "PNG"),
        "1-bit-clear.png": encoded(picture.convert("1"), "PNG", transparency=1),
        "palette.png": encoded(palette, "PNG"),
        "palette-clear.png": encoded(palette, "PNG", transparency=bytes([0, 128, 255, 7])),
        **{
            f"palette-{bits}-bits.png": encoded(picture.quantize(2**bits), "PNG", bits=bits)
            for bits in (1, 2, 4)
        },
        **{f"interlaced-{kind}.png": _interlaced(kind) for kind in ("rgb", "rgba")},
        "profile.png": encoded(picture, "PNG", icc_profile=profile),
    }


def _raw_png(kind: int, depth: int, rows: bytes, width: int, height: int, interlaced: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def _deep_png(kind: int, channels: int) -> bytes:
    """Random values of 16 bits."""
    values = np.random.default_rng(kind).integers(0, 65536, (20, 30, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return _raw_png(kind, 16, rows, 30, 20, 0)


def _interlaced(kind: str) -> bytes:
    """Adam7, which Pillow reads but does not write."""
    pixels = np.asarray(_picture() if kind == "rgb" else _with_alpha())
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2)]
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, down, left, across in [*passes, (1, 2, 0, 1)]
        for row in pixels[top::down, left::across]
    )
    return _raw_png(2 if kind == "rgb" else 6, 8, rows, *SIZE, 1)


def _webps() -> dict[str, bytes]:
    picture, alpha = _picture(), _with_alpha()
    return {
        "lossy.webp": encoded(picture, "WEBP", quality=70),
        "lossless.webp": encoded(picture, "WEBP", lossless=True),
        "alpha.webp": encoded(alpha, "WEBP", quality=50),
        "alpha-lossless.webp": encoded(alpha, "WEBP", lossless=True),
        "animated.webp": encoded(alpha, "WEBP", save_all=True, append_images=[picture]),
        "large.webp": encoded(photo(4, 700, 900), "WEBP"),
    }


def _turned() -> dict[str, bytes]:
    picture = _picture()
    found = {
        f"turn-{turn}.{kind.lower()}": encoded(picture, kind, exif=_exif(turn))
        for turn in range(1, 9)
        for kind in ("JPEG", "PNG", "WEBP")
    }
    xmp = '<x tiff:Orientation="6"/>'
    text, packed = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    packed.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
    raw = PngImagePlugin.PngInfo()
    digits = _exif(8).tobytes().hex()
    raw.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2}\n{digits}\n", zip=True)
    return {
        **found,
        "turn-xmp.jpg": encoded(picture, "JPEG", xmp=xmp.encode()),
        "turn-xmp.webp": encoded(picture, "WEBP", xmp=xmp.encode()),
        "turn-xmp.png": encoded(picture, "PNG", pnginfo=text),
        "turn-packed-xmp.png": encoded(picture, "PNG", pnginfo=packed),
        "turn-raw-profile.png": encoded(picture, "PNG", pnginfo=raw),
        "turn-unknown.jpg": encoded(picture, "JPEG", exif=_exif(9)),
        "turn-no-tiff.jpg": encoded(picture, "JPEG", exif=b"Exif\0\0nothing", xmp=xmp.encode()),
    }


def _exif(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = turn, "words " * 20
    return exif
