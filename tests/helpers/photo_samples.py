"""Photo files as a scan finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.data.image_folder import Sample, scan
from edgetl.data.layout import content_digest


def sample_of(path: Path) -> Sample:
    """The sample of one file, of the first class."""
    return Sample(path, 0, content_digest(path))


def assorted_photos(folder: Path) -> list[Sample]:
    """A plain JPEG, a turned one, CMYK, PNG, grey, one cut short, one that is no photo."""
    y, x = np.mgrid[0:60, 0:90]
    image = Image.fromarray(np.stack([x * 2, y * 4, x + y], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "0.jpg", quality=95)
    image.save(folder / "1.jpg", exif=exif, quality=95)
    image.convert("CMYK").save(folder / "2.jpg")
    image.save(folder / "3.png")
    image.convert("L").save(folder / "4.jpg", quality=95)
    (folder / "5.jpg").write_bytes((folder / "0.jpg").read_bytes()[:-300])
    (folder / "6.jpg").write_bytes(b"text")
    return [sample_of(path) for path in sorted(folder.iterdir())]


def cut_short(photo: Path, data: Path) -> None:
    """Truncate ``photo``, in a folder of classes that training splits, so that no photo moves."""
    whole, before = photo.read_bytes(), {sample.path for sample in scan(data).val}
    for length in range(60, 200):
        photo.write_bytes(whole[:length])
        if {sample.path for sample in scan(data).val} == before:
            return
    raise AssertionError(f"{photo} moves, however it is cut")
