"""One decoding policy for training, check and predictor: anything that holds a photo → an upright RGB picture.

| input                        | what happens                                                              |
|------------------------------|---------------------------------------------------------------------------|
| EXIF orientation             | applied; EXIF that can't be read counts as none                           |
| grayscale, palette           | to RGB                                                                    |
| alpha, transparency          | composited on white                                                       |
| 16 bits a channel            | the high byte                                                             |
| 32-bit integers              | 0..65535: the high byte of 16; otherwise smallest..largest → 0..255       |
| floats                       | 0..1: × 255; 0..255: rounded; otherwise smallest..largest → 0..255        |
| CMYK, YCCK, YCbCr, HSV       | to RGB; colour profiles are not applied; CMYK in JPEG is taken as         |
|                              | inverted only where Adobe's marker says so                                |
| animated, several pictures   | the first                                                                 |
| truncated, corrupt, empty    | ImageError                                                                |
| more pixels than the limit   | ImageError before decoding                                                |

Files are read by content, not by suffix. Formats that run another program (PostScript) are refused.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import warnings
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageChops
from PIL.ExifTags import Base

from edgetl.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray  # costs a program of one photo a millisecond

MAX_PIXELS = 100_000_000
_STREAM_BLOCK = 1 << 20  # bytes asked for at once: so much memory is reserved, whatever comes
_MAX_STREAM_BYTES = (
    1 << 30
)  # a stream has no size to look at first: no photo within any sane limit is longer

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[np.uint8]"

# Pillow's remarks about odd metadata and large pictures would reach the stderr of whoever embeds us;
# what matters of them is an ImageError here. Set once: changing filters at each call is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # else what it logs goes to stderr where nobody set up logging

_HEIC = {
    b"ftyp" + brand
    for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
}
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A program that classifies one photo pays for one plugin.
_COMMON_PLUGINS = {b"\xff\xd8\xff": "PIL.JpegImagePlugin", b"\x89PNG": "PIL.PngImagePlugin"}
# Other programs, no pixels at all, or a file inside the file, of any format and of another size than it says.
_REFUSED_FORMATS = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC", "BLP", "ICNS"})


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode ``source`` by the policy above → a loaded picture of mode "RGB", upright.

    source      a path, the bytes of an image file, a binary file object (read from where it stands),
                a PIL image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA)
    max_pixels  the largest height × width that is decoded

    Raises ImageError, and nothing else, for anything that is not one whole picture.
    """
    name = describe(source)
    try:
        if isinstance(source, np.ndarray):
            return _from_array(source, name, max_pixels)
        if isinstance(source, Image.Image):
            return _to_rgb(source, name, max_pixels)
        with _stream(source, name) as file:
            return _to_rgb(identify(file, name), name, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(name, "there is not enough memory to decode it") from error
    except OSError as error:
        raise ImageError(name, _reason(error)) from error
    except (
        Exception
    ) as error:  # Pillow's plugins meet hostile bytes with whatever their parsing trips over
        raise ImageError(name, f"it can't be decoded ({type(error).__name__}: {error})") from error


def describe(source: object) -> str:
    """How errors and results name ``source``: its path, or what kind of object it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {list(source.shape)}>"
    if isinstance(source, Image.Image):
        return str(
            getattr(source, "filename", "")
            or f"<PIL image {source.mode} {source.width}x{source.height}>"
        )
    stream_name = getattr(source, "name", None)
    return stream_name if isinstance(stream_name, str) else f"<{type(source).__name__}>"


def _stream(source: object, name: str) -> IO[bytes]:
    """A seekable binary file over ``source``, for the caller to close."""
    if isinstance(source, (str, os.PathLike)):
        # Opening a FIFO would wait for ever, and a device file never ends.
        path = Path(source)
        if path.parts[:1] in (("http:",), ("https:",)) and not path.exists():
            raise ImageError(
                name, "it is an address; photos are read from files", "Download it first."
            )
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()  # a folder that may not be read says so
            raise ImageError(name, "it is a folder")
        if not stat.S_ISREG(mode):
            raise ImageError(name, "it is not a regular file")
        return path.open("rb")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesIO(source)
    if not callable(getattr(source, "read", None)):
        raise ImageError(
            name,
            f"a photo can't be read from {type(source).__name__}",
            "Pass a path, bytes, a binary file, a PIL image or a uint8 array.",
        )
    content = BytesIO()
    while block := source.read(_STREAM_BLOCK):  # type: ignore[attr-defined]  # a pipe gives what it has, not all
        if not isinstance(block, bytes):
            raise ImageError(
                name,
                f"reading it gave {type(block).__name__}, not bytes",
                "Open it in binary mode.",
            )
        content.write(block)
        if content.tell() > _MAX_STREAM_BYTES:
            raise ImageError(name, f"the stream is longer than {_MAX_STREAM_BYTES >> 20} MiB")
    content.seek(0)
    return content


def identify(file: IO[bytes], name: str) -> Image.Image:
    """Read the header; no pixel is decoded yet.

    What ``Image.open`` does, less its own limit on pixels (fixed for the whole program; ours is an argument)
    and less the formats that we refuse. Like it, imports the rarer plugins only when the common ones pass.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError(name, "it is empty (0 bytes)")
    tried = set(_REFUSED_FORMATS)
    for load_plugins in (lambda: _load_common_plugin(prefix), Image.preinit, Image.init):
        load_plugins()
        for format_name in [known for known in Image.ID if known not in tried]:
            tried.add(format_name)
            factory, accept = Image.OPEN[format_name]
            try:
                if accept is None or accept(prefix) is True:
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # how a plugin says that the file is not of its format
    if prefix[4:12] in _HEIC:
        raise ImageError(name, "it is a HEIC photo, which is not read here: convert it to JPEG")
    raise ImageError(
        name,
        "it is not an image, or of a format that is not read here",
        "Convert it to JPEG or PNG if it is one.",
    )


def _load_common_plugin(prefix: bytes) -> None:
    for start, plugin in _COMMON_PLUGINS.items():
        if prefix.startswith(start):
            import_module(plugin)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(name, f"it has no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"it has {width}×{height} = {width * height:,} pixels; the limit is {max_pixels:,}",
            "Raise the limit with max_pixels if such photos are expected.",
        )


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image.width, image.height, name, max_pixels)
    if image.format == "TIFF":
        _silence_libtiff()
    image.load()
    _check_size(
        image.width, image.height, name, max_pixels
    )  # again: a plugin may find another size on the way
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(
            image
        )  # Pillow takes every CMYK JPEG to be inverted as Adobe's are
    upright = _turned(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        values = np.asarray(upright)
        grey, clear = Image.fromarray(_to_8_bits(values, name)), upright.info.get("transparency")
        if not isinstance(clear, int):
            return grey.convert("RGB")
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return _on_white(grey)
    if upright.has_transparency_data:
        return _on_white(upright)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


@cache
def _silence_libtiff() -> None:
    """Its decoder prints what is wrong with a file to stderr, past Python; Pillow raises an error besides."""
    import ctypes

    from PIL import _imaging

    try:
        # Asked of Pillow's own extension, whose libtiff it is. Where that is linked in for good, it can't be reached.
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    except (AttributeError, OSError):
        return


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(Base.Orientation))
    except Exception:  # metadata too broken to read says nothing; the pixels are whole
        turn = None
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = {
        key: value for key, value in image.info.items() if key == "transparency"
    }  # no EXIF: it is done
    return upright


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _to_8_bits(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Grayscale of more than 8 bits [H, W] → uint8 [H, W], by the rule in the table above."""
    if not np.isfinite(values).all():
        raise ImageError(name, "it holds values that are not finite numbers")
    low, high = values.min(), values.max()
    if values.dtype.kind != "f" and low >= 0 and high <= 0xFFFF:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = values.astype(np.float64) * 255.0
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        scaled = values.astype(np.float64)
    else:
        scaled = (values.astype(np.float64) - float(low)) * (
            255.0 / max(float(high) - float(low), 1e-300)
        )
    return np.floor(scaled + 0.5).astype(np.uint8)


def _from_array(array: NDArray[Any], name: str, max_pixels: int) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            name,
            f"an array of {array.dtype} {list(array.shape)} is not a photo",
            "Pass uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA), values 0..255.",
        )
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    return _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name, max_pixels)


def _reason(error: OSError) -> str:
    if error.strerror:  # the system's own words: no such file, permission denied
        return error.strerror.lower()
    return f"it is damaged ({error})" if str(error) else f"it is damaged ({type(error).__name__})"
