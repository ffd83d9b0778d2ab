"""The steps of scripts/int8_bits, which says how they are used.

int8_bits.py prepare BUNDLE PHOTOS LIMIT FOLDER   writes model.onnx and pixels.npy
int8_bits.py run FOLDER NAME                      writes NAME.logits, without edgetl
int8_bits.py compare BUNDLE FOLDER NAME           compares all others with NAME, as a table

The last one fails if a bit differs although the bundle's manifest allows none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stated_of(bundle: Path) -> dict[str, Any]:
    """What the bundle's manifest says about its int8 model."""
    stated: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())["precisions"][
        "int8"
    ]
    return stated


def prepare(bundle: Path, photos: Path, limit: str, folder: Path) -> None:
    """The int8 network from ``resized`` on, and the photos' resized pixels, uint8 [N, h, w, 3]."""
    import onnx

    from edgetl import Predictor
    from edgetl.exporting.formats.resized_network import cut_at_resized
    from edgetl.runtime.images.decode import read_image
    from edgetl.runtime.images.discovery import find_images
    from edgetl.runtime.images.resize import resize_image

    predictor = Predictor(bundle, precision="int8")
    onnx.save(cut_at_resized(onnx.load(bundle / "model.int8.onnx")), folder / "model.onnx")
    found = find_images(photos)
    count = min(int(limit), len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    pixels = [resize_image(read_image(path), predictor.card.spec) for path in chosen]
    np.save(folder / "pixels.npy", np.stack(pixels))
    stated = stated_of(bundle)
    print(f"{len(chosen)} photos, {predictor.card.backbone}; the manifest says portable_bits:")
    print(f"{stated.get('portable_bits')} {stated.get('why_not_portable', '')}", flush=True)


def run(folder: Path, name: str) -> None:
    """One photo at a time, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    pixels = np.load(folder / "pixels.npy")
    logits = [
        session.run(["logits"], {"resized": pixels[i : i + 1]})[0] for i in range(len(pixels))
    ]
    np.concatenate(logits).tofile(folder / f"{name}.logits")
    print(f"{name}: done with onnxruntime {onnxruntime.__version__}", flush=True)


def compare(folder: Path, name: str) -> bool:
    """Whether all that ran gave the same bits."""
    photos = len(np.load(folder / "pixels.npy", mmap_mode="r"))

    def read(file: Path) -> NDArray[np.float32]:
        return np.fromfile(file, np.float32).reshape(photos, -1)

    reference, same = read(folder / f"{name}.logits"), True
    print("\n| runtime | photos | same bits | largest difference of a logit |\n|---|---|---|---|")
    for file in sorted(folder.glob("*.logits")):
        logits = read(file)
        equal = int((logits.view(np.uint32) == reference.view(np.uint32)).all(1).sum())
        same = same and equal == photos
        difference = np.abs(logits - reference).max()
        print(f"| {file.stem} | {photos:,} | {equal:,} | {difference:.2g} |")
    return same


def main(step: str, *words: str) -> int:
    if step == "prepare":
        bundle, photos, limit, folder = words
        prepare(Path(bundle), Path(photos), limit, Path(folder))
    elif step == "run":
        run(Path(words[0]), words[1])
    else:
        bundle, folder, name = words
        same = compare(Path(folder), name)
        return 1 if stated_of(Path(bundle)).get("portable_bits") and not same else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
