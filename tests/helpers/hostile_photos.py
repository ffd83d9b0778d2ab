"""Files to test a decoder with: intact ones of every kind to be damaged, and malicious ones."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from helpers.heic import heic
from helpers.pictures import photo


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


@cache
def whole_photos() -> dict[str, bytes]:
    """One good file of every kind that photos come in."""
    picture, other = photo(1, 80, 60), photo(2, 80, 60)
    alpha = picture.convert("RGBA")
    alpha.putalpha(picture.convert("L"))
    gray = np.asarray(picture.convert("L"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words " * 50
    return {
        "jpeg": encoded(picture, "JPEG", exif=exif),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "mpo": encoded(picture, "MPO", save_all=True, append_images=[other]),
        "png": encoded(picture, "PNG", exif=exif),
        "png-alpha": encoded(alpha, "PNG"),
        "png-1bit": encoded(picture.convert("1"), "PNG"),
        "png-16bit": encoded(Image.fromarray(gray.astype(np.uint16) << 8), "PNG"),
        "png-palette": encoded(picture.quantize(16), "PNG", transparency=3),
        "png-animated": encoded(picture, "PNG", save_all=True, append_images=[other]),
        "gif": encoded(picture, "GIF", save_all=True, append_images=[other]),
        "webp": encoded(picture, "WEBP", exif=exif),
        "webp-lossless": encoded(alpha, "WEBP", lossless=True),
        "webp-animated": encoded(picture, "WEBP", save_all=True, append_images=[other]),
        "avif": encoded(picture, "AVIF"),
        "heic": heic(picture, exif=exif),
        "tiff": encoded(picture, "TIFF"),
        "tiff-lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "tiff-float": encoded(Image.fromarray(gray.astype(np.float32) / 255), "TIFF"),
        "tiff-fax": encoded(picture.convert("1"), "TIFF", compression="group4"),
        "bmp": encoded(picture, "BMP"),
        "jpeg2000": encoded(picture, "JPEG2000"),
        "ico": encoded(picture, "ICO"),
        "ppm": encoded(picture, "PPM"),
        "tga": encoded(picture, "TGA", compression="tga_rle"),
        "sgi": encoded(picture, "SGI"),
        "pcx": encoded(picture, "PCX"),
        # Small, since Pillow decodes these in Python.
        "dds": encoded(picture.resize((32, 24)), "DDS"),
        "qoi": encoded(picture.resize((32, 24)), "QOI"),
    }


def icns(in_png: bytes) -> bytes:
    """An Apple icon of one picture, 128×128 pixels."""
    entry = b"ic07" + struct.pack(">I", 8 + len(in_png)) + in_png
    return b"icns" + struct.pack(">I", 8 + len(entry)) + entry


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    """A one-bit PNG that claims any size, with or without the data for it."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _resized_header(content: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    """``content`` with the size in its header overwritten."""
    at = content.index(marker) + offset
    return content[:at] + size + content[at + len(size) :]


@cache
def bombs() -> dict[str, bytes]:
    """Small files that claim more than 100 million pixels; none may be decoded."""
    zeros = zlib.compress(bytes(15_000 * 15_000 // 8), 1)
    small = photo(1, 16, 16)
    in_png = png(15_000, 15_000, data=zeros)
    directory = struct.pack("<HHH", 0, 1, 1) + struct.pack(
        "<BBBBHHII", 0, 0, 0, 0, 1, 32, len(in_png), 22
    )
    gif = encoded(small, "GIF")
    webp = encoded(small, "WEBP", save_all=True, append_images=[photo(2, 16, 16)])
    return {
        "png": png(15_000, 15_000, data=zeros),
        "png-wide": png(2**31 - 1, 1),
        "png-tall": png(1, 2**31 - 1),
        "jpeg": _resized_header(
            encoded(small, "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)
        ),
        "gif": gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:],
        "webp": _resized_header(webp, b"VP8X", 12, b"\xfe\x3f\x00\xfe\x3f\x00"),
        "bmp": _resized_header(
            encoded(small, "BMP"), b"BM", 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)
        ),
        "tiff": encoded_tiff(2**31, 2**31),
        "ppm": b"P6 100000 100000 255\n" + bytes(100),
        "ico-png": directory + in_png,
        "jpeg2000": _resized_header(
            encoded(small, "JPEG2000"), b"\xff\x51", 6, struct.pack(">II", 100_000, 100_000)
        ),
        "jp2-box": _resized_header(
            encoded(small, "JPEG2000"), b"ihdr", 4, struct.pack(">II", 100_000, 100_000)
        ),
    }


def encoded_tiff(width: int, height: int) -> bytes:
    """A TIFF header that claims a gray image of that size."""
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, 2**31),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", 0)
    )


@cache
def oddities() -> dict[str, bytes]:
    """Files that may be read or refused, but must do no harm."""
    small = photo(1, 16, 16)
    text_bomb = png_chunk(b"zTXt", b"words\0\0" + zlib.compress(bytes(100_000_000), 1))
    profile_bomb = png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(100_000_000), 1))
    row = zlib.compress(bytes(2), 9)
    looping = encoded_tiff(4, 4)
    looping = looping[:-4] + struct.pack("<I", 8)  # the next directory is this one
    broken_exif = [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(60_000),
    ]
    return {
        "text-bomb": png(8, 1, text_bomb, data=row),
        "profile-bomb": png(8, 1, profile_bomb, data=row),
        "huge-exif-png": encoded(small, "PNG", exif=b"Exif\0\0II*\0" + bytes(20_000_000)),
        "huge-exif-webp": encoded(small, "WEBP", exif=b"Exif\0\0II*\0" + bytes(20_000_000)),
        "broken-profile": encoded(small, "JPEG", icc_profile=b"not a profile" * 1000),
        "broken-profile-tiff": encoded(small, "TIFF", icc_profile=b"\xff" * 1000),
        "looping-tiff": looping,
        "no-size": png(0, 0),
        "no-data": png(10, 10),
        "too-little-data": png(100, 100, data=row),
        "only-magic": b"\x89PNG\r\n\x1a\n",
        "gif-of-no-frames": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        "xbm": b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {\n0x01};\n",
        **{
            f"broken-exif-{i}": encoded(small, "JPEG", exif=exif)
            for i, exif in enumerate(broken_exif)
        },
    }
