"""Write scikit-learn's 1,797 digits as PNG files: FOLDER/{train,val}/<digit>/<n>.png."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

VAL_EVERY = 5
SCALE = 8  # 8×8 becomes 64×64, so that people can see them, too


def main(folder: Path) -> None:
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    seen = dict.fromkeys(range(10), 0)
    for image, label in zip(pixels, digits.target.tolist(), strict=True):
        number = seen[label]
        seen[label] += 1
        split = "val" if number % VAL_EVERY == 0 else "train"
        target = folder / split / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(image, np.ones((SCALE, SCALE), np.uint8))).save(
            target / f"{number}.png"
        )
    print(f"{sum(seen.values())} photos of {len(seen)} classes in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: write_digits.py FOLDER")
    main(Path(sys.argv[1]))
