"""Training again with more photos or one more class: seconds, beside a run from an empty cache.

    python scripts/bench_retrain.py photos/ [--added 0.1] [--rounds 3]

``photos/`` holds ``train/CLASS/`` and ``val/CLASS/``. First an earlier run is made without a share
of the photos, or without the last class; then every round times, each as a process of its own,

    cached   the same photos and those that were added, features of the earlier ones cached
    since    the same, compared with the earlier run (--since)
    empty    all photos, with an empty cache

and at the end the weights of the three are compared, bit for bit.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--added", type=float, default=0.1, help="share of the photos (0.1)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for kind in ("photos", "class"):
            folder = Path(name, kind)
            some = link(arguments.photos, folder / "earlier", kind, arguments.added)
            every = link(arguments.photos, folder / "every", kind, 0.0)
            added = "a class" if kind == "class" else f"{every - some:,} photos"
            print(f"{added} added to {some:,} photos")
            compare(folder, arguments.rounds)


def link(photos: Path, to: Path, kind: str, left_out: float) -> int:
    """Links to ``photos`` in ``to``: without a share of each class, or the last class. How many."""
    count = 0
    for part in ("train", "val"):
        classes = sorted(path for path in (photos / part).iterdir() if path.is_dir())
        if kind == "class" and left_out:
            classes.pop()
        for folder in classes:
            files = sorted(folder.iterdir())
            if kind == "photos":
                files = files[: len(files) - round(left_out * len(files))]
            (to / part / folder.name).mkdir(parents=True)
            for file in files:
                (to / part / folder.name / file.name).symlink_to(file.absolute())
            count += len(files)
    return count


def compare(folder: Path, rounds: int) -> None:
    """Time the runs, and print their medians and whether their weights are equal."""
    cache = folder / "features"
    train(folder, "earlier", "earlier", cache)
    seconds: dict[str, list[float]] = {"cached": [], "since": [], "empty": []}
    for _ in range(rounds):
        for name, found in seconds.items():
            # The cache of the earlier run alone, and none of a round before.
            own = folder / f"features-{name}"
            shutil.rmtree(own, ignore_errors=True)
            if name != "empty":
                shutil.copytree(cache, own)
            since = ["--since", str(folder / "earlier-run")] if name == "since" else []
            found.append(train(folder, "every", name, own, since))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in medians.items():
        ratio = median / medians["empty"]
        print(
            f"{name:<8} {median:6.1f} s ({min(seconds[name]):.1f} to {max(seconds[name]):.1f}),",
            end="",
        )
        print(f"  {ratio:.2f} of an empty cache")
    first, *others = (load_file(folder / f"{name}-run" / "best.safetensors") for name in seconds)
    equal = all(
        other.keys() == first.keys()
        and all(value.tobytes() == other[key].tobytes() for key, value in first.items())
        for other in others
    )
    print(f"weights: {'the same bits' if equal else 'OTHER BITS'}")


def train(folder: Path, photos: str, name: str, cache: Path, options: Sequence[str] = ()) -> float:
    """Seconds of ``edgetl train``, of ``folder / photos``, with features cached in ``cache``."""
    command = [sys.executable, "-m", "edgetl", "train", str(folder / photos)]
    command += ["-o", str(folder / f"{name}-run"), "--overwrite", "--feature-cache", str(cache)]
    started = time.perf_counter()
    output = subprocess.DEVNULL
    subprocess.run([*command, *options], check=True, stdout=output, stderr=output)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
