"""Classify a folder of photos into a CSV file, one row per photo; start it again and it continues.

python examples/classify_folder.py exported/pets photos answers.csv

`edgetl predict MODEL PHOTOS --out answers.csv` does the same and more. This is the program to start
from if the rows should look different, or go somewhere else.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from edgetl import Prediction, Predictor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
COLUMNS = ("photo", "label", "confidence", "error")


def find_photos(folder: Path) -> list[Path]:
    """Every photo below ``folder``, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def photos_done(table: Path) -> set[str]:
    """The photos that have a row already. A row that was cut short by a crash is removed."""
    if not table.exists():
        return set()
    content = table.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        table.write_bytes(whole)
    with table.open(newline="", encoding="utf-8") as file:
        return {row["photo"] for row in csv.DictReader(file)}


def classify(model: Path, folder: Path, table: Path) -> tuple[int, int]:
    """Add a row for each photo that has none yet → (photos classified, photos that failed)."""
    done = photos_done(table)
    photos = [path for path in find_photos(folder) if str(path) not in done]
    predictor = Predictor(model)
    failures = 0
    with table.open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if file.tell() == 0:
            rows.writerow(COLUMNS)
        for photo, answer in zip(photos, predictor.batch(photos), strict=True):
            if isinstance(answer, Prediction):
                rows.writerow((photo, answer.label, f"{answer.confidence:.6f}", ""))
            else:
                rows.writerow((photo, "", "", answer.reason))
                failures += 1
            file.flush()  # so that a crash loses nothing that was computed
    return len(photos) - failures, failures


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify a folder of photos into a CSV file.")
    parser.add_argument("model", type=Path, help="a bundle folder or a model.onnx")
    parser.add_argument("folder", type=Path, help="the photos")
    parser.add_argument("table", type=Path, help="the CSV file; continued if it exists")
    arguments = parser.parse_args()
    classified, failures = classify(arguments.model, arguments.folder, arguments.table)
    print(f"{classified} photos classified, {failures} failed → {arguments.table}")


if __name__ == "__main__":
    main()
