#!/usr/bin/env python
"""Compare a bundle in every runtime, on a folder's photos and odd ones, and print Markdown tables.

    python scripts/runtime_matrix.py exported/pets --images DIR --keep DIR

The odd photos are made from the folder's first: EXIF orientations, CMYK, alpha and so on. A runtime
that is not set up here has no row; ARM64 has one for each processor. With --keep, rows that are in
that folder are not computed again: emulated ARM64 takes hours. Exit code 1 if a row fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from torch import nn

import edgetl
from edgetl.errors import MissingDependencyError, RuntimeUnavailableError
from edgetl.parity.check_photos import find_photos
from edgetl.parity.results import RuntimeResult
from edgetl.parity.runtimes import RUNTIMES, Subject
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.images.decode import read_image

ARM_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")  # of the Raspberry Pi 3, 4 and 5
COLUMNS = ("decoded", "resized", "normalized", "logits", "probabilities", "embedding", "ood_score")
SIZE = (240, 176)  # multiples of 16, for 4:4:0


def main() -> int:
    arguments = parse()
    bundle = Bundle.open(arguments.bundle)
    failed = False
    with tempfile.TemporaryDirectory(prefix="edgetl-matrix-") as scratch:
        keep = arguments.keep or Path(scratch) / "rows"
        keep.mkdir(parents=True, exist_ok=True)
        photos = Path(scratch) / "photos"
        given = [photo.path for photo in find_photos(arguments.images)[1]]
        photos.mkdir()
        for path in given:
            shutil.copy(path, photos)
        odd = write_odd_photos(read_image(given[0]), photos)
        for precision in arguments.precision or bundle.precisions:
            print(f"\n{precision}, {len(given)} photos and {odd} odd ones\n")
            print(markdown(["runtime", *(f"`{name}`" for name in COLUMNS), "photos"]))
            print(markdown(["---"] * (len(COLUMNS) + 2)))
            for name, cpu in rows(bundle, precision):
                file = keep / f"{precision}-{name}{cpu and f'-{cpu}'}.json"
                if not file.exists():
                    file.write_text(json.dumps(row(arguments.bundle, photos, precision, name, cpu)))
                values = json.loads(file.read_text())
                failed = failed or values["status"] == "failed"
                print(markdown(values["cells"]), flush=True)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every runtime, stage by stage, as Markdown.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--precision", action="append", help="only this one; repeatable")
    parser.add_argument("--keep", type=Path, help="folder for finished rows")
    return parser.parse_args()


def rows(bundle: Bundle, precision: str) -> Iterator[tuple[str, str]]:
    """(runtime, processor to imitate or "") of what is set up here."""
    subject = Subject.open(bundle.path, nn.Identity(), bundle.card, precision=precision)
    for name, kind in RUNTIMES.items():
        if not kind.judged or not (precision == "fp32" or kind.follows_precision):
            continue
        try:
            kind(subject).close()
        except (RuntimeUnavailableError, MissingDependencyError) as error:
            print(f"{name} skipped: {error}", file=sys.stderr)
            continue
        yield from ((name, cpu) for cpu in (ARM_CPUS if name == "arm64" else ("",)))


def row(bundle: Path, photos: Path, precision: str, name: str, cpu: str) -> dict[str, object]:
    """Its status and its cells."""
    if cpu:
        os.environ["QEMU_CPU"] = cpu
    # How near int8 comes to fp32 is a matter of the model; its golden photos are judged by bits.
    tolerance = None if precision == "fp32" else 1.0
    result = edgetl.check(bundle, photos, precision=precision, runtime=name, tolerance=tolerance)
    (run,) = result.runtimes
    # So is a label that it changes.
    by_model = precision != "fp32" and run.departure == "decision"
    status = "passed" if by_model else run.status
    print(f"{precision} {name} {cpu}: {status} {run.reason}", file=sys.stderr)
    return {"status": status, "cells": cells(run, f"`{name}`{cpu and f', {cpu}'}")}


def cells(run: RuntimeResult, title: str) -> list[str]:
    shown = []
    for name in COLUMNS:
        stage = run.stage(name)
        text = "" if stage is None else f"{stage.worst.largest:.1e}" if stage.differing else "equal"
        shown.append(text if stage is None or stage.passed else f"**{text}**")
    return [title, *shown, str(run.photos)]


def markdown(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_odd_photos(picture: Image.Image, folder: Path) -> int:
    """One photo of every kind that decoders get wrong; returns how many."""
    picture = picture.resize(SIZE)
    alpha = np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]).astype(np.uint8)
    clear = Image.merge("RGBA", [*picture.split(), Image.fromarray(alpha)])
    sixteen = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 251 + 7)
    palette = picture.quantize(64)
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "gray.jpg": (picture.convert("L"), {}),
        "progressive.jpg": (picture, {"progressive": True}),
        "444.jpg": (picture, {"subsampling": "4:4:4"}),
        "422.jpg": (picture, {"subsampling": "4:2:2"}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "icc.jpg": (picture, {"icc_profile": swapped_profile()}),
        "alpha.png": (clear, {}),
        "gray-alpha.png": (clear.convert("LA"), {}),
        "palette.png": (palette, {"transparency": 5}),
        "16-bit.png": (sixteen, {}),
        "icc.png": (picture, {"icc_profile": swapped_profile()}),
        "lossy.webp": (picture, {"quality": 80}),
        "lossless.webp": (picture, {"lossless": True}),
        "alpha.webp": (clear, {"lossless": True, "exact": True}),
        "icc.webp": (picture, {"icc_profile": swapped_profile()}),
    }
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        kinds[f"exif-{turn}.jpg"] = picture, {"exif": exif}
    kinds["exif-6.png"] = kinds["exif-6.webp"] = picture, kinds["exif-6.jpg"][1]
    for name, (image, options) in kinds.items():
        image.save(folder / f"odd-{name}", **options)  # type: ignore[arg-type]
    return len(kinds) + write_changed(folder)


def write_changed(folder: Path) -> int:
    """Kinds of JPEG that Pillow does not write: one byte of another kind's header is changed."""
    wide = bytearray((folder / "odd-422.jpg").read_bytes())
    wide[wide.index(b"\xff\xc0") + 11] = 0x12  # the same blocks, read as 4:4:0
    ycck = bytearray((folder / "odd-cmyk.jpg").read_bytes())
    ycck[ycck.index(b"Adobe") + 11] = 2
    for name, content in {"440.jpg": wide, "ycck.jpg": ycck}.items():
        (folder / f"odd-{name}").write_bytes(content)
    return 2


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: who applies it, rather than ignores it, is seen."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * count, 12):
        name = profile[at : at + 4]
        profile = profile[:at] + names.get(name, name) + profile[at + 4 :]
    return bytes(profile)


if __name__ == "__main__":
    sys.exit(main())
