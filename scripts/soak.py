"""Many predictions with one predictor: is memory constant, are threads' answers the serial ones?

python scripts/soak.py exported/pets photos/ --predictions 10000
python scripts/soak.py exported/pets photos/ --bulk 100000      memory of one `edgetl predict --out`
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from edgetl import Predictor
from edgetl.errors import ImageError
from edgetl.runtime.images.discovery import find_images

PAGE = os.sysconf("SC_PAGESIZE")
WARM_UP = 500
MOST_GROWTH = 0.02
MOST_BULK_GROWTH = 0.10


def resident(process: int | str = "self") -> int:
    """Resident memory, bytes (Linux); 0 of a process that has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def answer(predictor: Predictor, photo: Path) -> bytes | str:
    try:
        return predictor(photo).logits.tobytes()
    except ImageError as error:
        return error.reason


def soak(predictor: Predictor, photos: list[Path], predictions: int) -> float:
    """Growth of resident memory after the first predictions, as a share of what it was."""
    endless = cycle(photos)
    for photo in islice(endless, WARM_UP):
        answer(predictor, photo)
    before = resident()
    start = time.perf_counter()
    for photo in islice(endless, predictions):
        answer(predictor, photo)
    growth = resident() / before - 1
    rate = predictions / (time.perf_counter() - start)
    print(
        f"{predictions} predictions, {rate:.0f} a second: "
        f"{before / 1e6:.1f} MB, growth {growth:+.2%}"
    )
    return growth


def differences(predictor: Predictor, photos: list[Path], calls: int, threads: int = 8) -> int:
    """How many of ``calls`` from ``threads`` at once get another answer than one by one."""
    expected = [answer(predictor, photo) for photo in photos]
    with ThreadPoolExecutor(threads) as pool:
        same = pool.map(
            lambda i: answer(predictor, photos[i % len(photos)]) == expected[i % len(photos)],
            range(calls),
        )
        different = calls - sum(map(bool, same))
    print(f"{calls} calls from {threads} threads: {different} differ from the serial answers")
    return different


def bulk(bundle: Path, photos: list[Path], count: int, scratch: Path) -> float:
    """Growth of memory over ``count`` hard links to ``photos``, after a fifth of the time."""
    folder = scratch / "photos"
    for number in range(count):
        place = folder / f"{number // 1000:04}"
        place.mkdir(parents=True, exist_ok=True)
        photo = photos[number % len(photos)]
        os.link(photo, place / f"{number:06}{photo.suffix}")
    out = scratch / "answers.jsonl"
    arguments = [str(bundle), str(folder), "--out", str(out)]
    command = [sys.executable, "-m", "edgetl", "predict", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    sizes = [0]
    while process.poll() is None:
        time.sleep(0.1)
        sizes.append(resident(process.pid))
    early, late = max(sizes[: len(sizes) // 5], default=0), max(sizes)
    growth = late / early - 1 if early else math.inf
    rate = count / (time.perf_counter() - start)
    print(
        f"{count} photos in bulk, {rate:.0f} a second: {early / 1e6:.1f} MB, growth {growth:+.2%}"
    )
    answered = out.read_bytes().count(b"\n") if out.exists() else 0
    print(f"{answered} of them answered")
    return growth if answered == count else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, help="a folder")
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument(
        "--threads", type=int, help="inside one run of the model; default: the cores"
    )
    parser.add_argument(
        "--bulk", type=int, metavar="PHOTOS", help="measure `edgetl predict --out` instead"
    )
    arguments = parser.parse_args()
    if arguments.bulk:
        # Hard links need the photos' disk: run this from there.
        with tempfile.TemporaryDirectory(dir=".") as scratch:
            photos = find_images(arguments.photos)
            grown = bulk(arguments.bundle, photos, arguments.bulk, Path(scratch))
        sys.exit(0 if grown <= MOST_BULK_GROWTH else 1)
    predictor = Predictor(arguments.bundle, threads=arguments.threads)
    photos = find_images(arguments.photos)
    flat = soak(predictor, photos, arguments.predictions) <= MOST_GROWTH
    same = differences(predictor, photos, arguments.predictions) == 0
    sys.exit(0 if flat and same else 1)


if __name__ == "__main__":
    main()
