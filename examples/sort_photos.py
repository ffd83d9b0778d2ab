"""Watch a folder and sort the photos that arrive into one folder per class.

python examples/sort_photos.py exported/pets incoming sorted --sure 0.9

Photos with less confidence than --sure go to sorted/unsure, for a person to look at; files that are
no photos go to sorted/unreadable. With --once it sorts what is there and ends.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from edgetl import EdgetlError, Predictor


class PhotoSorter:
    """Moves each photo into the folder of its class.

    predictor  loaded once, used for every photo
    target     holds one folder per class, ``unsure`` and ``unreadable``
    sure       confidence, 0..1, below which a photo goes to ``unsure``
    """

    def __init__(self, predictor: Predictor, target: Path, sure: float) -> None:
        self.predictor = predictor
        self.target = target
        self.sure = sure

    def folder_for(self, photo: Path) -> str:
        """Name of the folder that ``photo`` belongs in."""
        try:
            prediction = self.predictor(photo)
        except EdgetlError:
            return "unreadable"
        if prediction.confidence < self.sure:
            return "unsure"
        # The label comes from the model's file, which may not be yours: it must not lead elsewhere.
        return prediction.label.replace("/", "_").strip(".") or "unnamed"

    def sort(self, photo: Path) -> Path:
        """Move ``photo`` → where it is now. A file of the same name is not overwritten."""
        folder = self.target / self.folder_for(photo)
        folder.mkdir(parents=True, exist_ok=True)
        place, number = folder / photo.name, 1
        while place.exists():
            place = folder / f"{photo.stem}-{number}{photo.suffix}"
            number += 1
        return photo.rename(place)


def arrived(folder: Path, settled: float) -> list[Path]:
    """Files in ``folder`` that nobody has written to for ``settled`` seconds, oldest first."""
    now = time.time()
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    files.sort(key=lambda path: path.stat().st_mtime)
    return [path for path in files if now - path.stat().st_mtime >= settled]


def main() -> None:
    parser = argparse.ArgumentParser(description="Sort the photos that arrive in a folder.")
    parser.add_argument("model", type=Path, help="a bundle folder or a model.onnx")
    parser.add_argument("incoming", type=Path, help="the folder to watch")
    parser.add_argument("sorted", type=Path, help="where to move photos, on the same disk")
    parser.add_argument("--sure", type=float, default=0.9, help="least confidence, 0..1")
    parser.add_argument("--once", action="store_true", help="sort what is there, then end")
    arguments = parser.parse_args()
    sorter = PhotoSorter(Predictor(arguments.model), arguments.sorted, arguments.sure)
    while True:
        for photo in arrived(arguments.incoming, settled=0 if arguments.once else 2):
            print(f"{photo.name} → {sorter.sort(photo).parent.name}", flush=True)
        if arguments.once:
            return
        time.sleep(1)


if __name__ == "__main__":
    main()
