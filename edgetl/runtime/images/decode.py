"""One decoding policy for training, check and predictor: any photo → an upright RGB image.

| input                      | what happens                                                       |
|----------------------------|--------------------------------------------------------------------|
| EXIF orientation           | applied; EXIF that can't be read counts as none                    |
| grayscale, palette         | to RGB                                                             |
| alpha, transparency        | composited on white                                                |
| 16 bits a channel          | the high byte                                                      |
| 32-bit integers            | 0..65535: the high byte of 16; else smallest..largest → 0..255     |
| floats                     | 0..1: × 255; 0..255: rounded; else smallest..largest → 0..255      |
| CMYK, YCCK, YCbCr, HSV     | to RGB; colour profiles are not applied; CMYK in JPEG counts as    |
|                            | inverted only if Adobe's marker says so                            |
| animated, several pictures | the first                                                          |
| HEIC, HEIF                 | with the extra heic; turned as the container says, not its EXIF;   |
|                            | 10 and 12 bits a channel to 8 by the decoder, before colour        |
| truncated, corrupt, empty  | ImageError                                                         |
| more pixels than the limit | ImageError before decoding                                         |

Files are read by content, not by suffix. Formats that run another program (PostScript) are refused.
"""

from __future__ import annotations

import errno
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
from edgetl.runtime.images import heif
from edgetl.runtime.images.stored_path import StoredPath
from edgetl.runtime.images.unreadable import MAX_PHOTO_BYTES, UNREACHABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray  # takes a millisecond at start

MAX_PIXELS = 100_000_000
_ORDER = "RGB or RGBA; from OpenCV frame[..., ::-1]"  # of an array's channels: nothing shows it
_STREAM_BLOCK = 1 << 20  # bytes per read; a read reserves them even if less arrives

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image"
    " | NDArray[np.uint8]"
)

# Pillow warns of odd metadata and large images on the stderr of the embedding program; what matters
# is an ImageError here. Set once, since changing the filters in each call is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Otherwise Pillow's log goes to stderr in programs that did not set up logging.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A program that classifies a single photo then imports a single plugin.
_COMMON_PLUGINS = {b"\xff\xd8\xff": "PIL.JpegImagePlugin", b"\x89PNG": "PIL.PngImagePlugin"}
# These run other programs, have no pixels, or contain a file of any format and another size.
_REFUSED_FORMATS = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC", "BLP", "ICNS"})
_OWN_FORMATS = _REFUSED_FORMATS | {heif.FORMAT}  # whatever plugins the program has registered


# What ``read_image`` says when the system failed, not the photo: it may be readable the next time.
_NO_MEMORY = "there is not enough memory to decode it"
_SYSTEM_REASONS = frozenset(
    {
        _NO_MEMORY,
        UNREACHABLE,
        heif.NO_DECODER,
        *(os.strerror(code).lower() for code in errno.errorcode),
    }
)


def may_pass(reason: str) -> bool:
    """Whether an ImageError for this ``reason`` may not come again, such as "permission denied"."""
    return reason in _SYSTEM_REASONS


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode ``source`` by the policy above → a loaded image of mode "RGB", upright.

    source      a path, the bytes of an image file, a binary file object (read from its position),
                a PIL image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4]
                (RGBA); OpenCV's frames are BGR: pass ``frame[..., ::-1]``
    max_pixels  the largest height × width that is decoded

    Raises ImageError, and nothing else, for anything that is not one whole image.
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
        raise ImageError(name, _NO_MEMORY) from error
    except OSError as error:
        raise ImageError(name, _reason(error)) from error
    except Exception as error:  # on hostile bytes, Pillow's plugins raise exceptions of any kind
        problem = f"{type(error).__name__}: {str(error).strip()}"
        raise ImageError(name, f"it can't be decoded ({problem})") from error


def describe(source: object) -> str:
    """The name of ``source`` in errors and results: its path, or what kind of object it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {list(source.shape)}>"
    if isinstance(source, Image.Image):
        kind = f"<PIL image {source.mode} {source.width}x{source.height}>"
        return str(getattr(source, "filename", "") or kind)
    stream_name = getattr(source, "name", None)
    return stream_name if isinstance(stream_name, str) else f"<{type(source).__name__}>"


def _stream(source: object, name: str) -> IO[bytes]:
    """A seekable binary file over ``source``, for the caller to close."""
    if isinstance(source, StoredPath):
        return source.open("rb")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.parts[:1] in (("http:",), ("https:",)) and not path.exists():
            reason = "it is an address; photos are read from files"
            raise ImageError(name, reason, "Download it first.")
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()  # raises OSError for a folder that may not be read
            raise ImageError(name, "it is a folder")
        if not stat.S_ISREG(mode):  # opening a FIFO could wait for ever, and a device never ends
            raise ImageError(name, "it is not a regular file")
        return path.open("rb")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesIO(source)
    if not callable(getattr(source, "read", None)):
        raise ImageError(
            name,
            f"a photo can't be read from {type(source).__name__}",
            f"Pass a path, bytes, a binary file, a PIL image or a uint8 array ({_ORDER}).",
        )
    content = BytesIO()
    # Until the end, since a pipe returns what it has, not all that was asked for.
    while block := source.read(_STREAM_BLOCK):  # type: ignore[attr-defined]
        if not isinstance(block, bytes):
            reason = f"reading it gave {type(block).__name__}, not bytes"
            raise ImageError(name, reason, "Open it in binary mode.")
        content.write(block)
        if content.tell() > MAX_PHOTO_BYTES:
            raise ImageError(name, f"the stream is longer than {MAX_PHOTO_BYTES >> 20} MiB")
    content.seek(0)
    return content


def identify(file: IO[bytes], name: str) -> Image.Image:
    """Read the header; no pixel is decoded yet.

    Does what ``Image.open`` does, without its global limit on pixels and the refused formats. Like
    it, imports the rarer plugins only if the common ones fail.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError(name, "it is empty (0 bytes)")
    tried = set(_OWN_FORMATS)
    for start, plugin in _COMMON_PLUGINS.items():
        if prefix.startswith(start):
            import_module(plugin)
    for load_plugins in (lambda: None, Image.preinit, Image.init):
        load_plugins()
        for format_name in [known for known in Image.ID if known not in tried]:
            tried.add(format_name)
            factory, accept = Image.OPEN[format_name]
            try:
                if accept is None or accept(prefix) is True:
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # the file is not of this plugin's format
    if heif.is_heif(prefix):
        if file.seek(0, os.SEEK_END) > MAX_PHOTO_BYTES:  # the decoder reads all of it
            raise ImageError(name, f"the file is longer than {MAX_PHOTO_BYTES >> 20} MiB")
        file.seek(0)
        return heif.open_heif(file.read(), name)
    raise ImageError(
        name,
        "it is not an image, or of a format that is not read here",
        "Convert it to JPEG or PNG if it is one.",
    )


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
    _check_size(image.width, image.height, name, max_pixels)  # decoding may change the size
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for inverted, like Adobe's
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
    """Stop libtiff from printing errors to stderr; Pillow raises an exception for them anyway."""
    import ctypes

    from PIL import _imaging

    try:
        # Through Pillow's extension, which has its own libtiff; not possible if linked statically.
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    except (AttributeError, OSError):
        return


def _turned(image: Image.Image) -> Image.Image:
    if image.format == heif.FORMAT:
        return image
    try:
        turn = _TURNS.get(image.getexif().get(Base.Orientation))
    except Exception:  # broken metadata; the pixels are whole
        turn = None
    if turn is None:
        return image
    upright = image.transpose(turn)
    # Without the EXIF, which has been applied.
    upright.info = {key: image.info[key] for key in ("transparency",) if key in image.info}
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
        scale = 255.0 / max(float(high) - float(low), 1e-300)
        scaled = (values.astype(np.float64) - float(low)) * scale
    return np.floor(scaled + 0.5).astype(np.uint8)


def _from_array(array: NDArray[Any], name: str, max_pixels: int) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            name,
            f"an array of {array.dtype} {list(array.shape)} is not a photo",
            f"Pass uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], values 0..255 ({_ORDER}).",
        )
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    return _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name, max_pixels)


def _reason(error: OSError) -> str:
    if error.strerror:  # the system's message, such as "No such file or directory"
        return error.strerror.lower()
    return f"it is damaged ({error})" if str(error) else f"it is damaged ({type(error).__name__})"
