"""`edgetl predict --ray` on one machine against the same command without --ray, as ratios.

python scripts/bench_cluster.py exported/pets photos/
python scripts/bench_cluster.py exported/pets photos/ --photos 600 --rounds 3

Both classify the same photos: files, and tar shards in an S3 server on this machine. A round
measures each of them on few photos, which is the start, and on all; rates are those of the
difference. The figures of a round come one after the other, so that other programs disturb them
alike; what is printed are medians over the rounds. On a busy machine processor time says more than
the rate. Ray's own processes take some all the time, so that there a photo has more of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psutil
from s3_process import BUCKET, S3Process, owner, s3_process, tar_of

from edgetl.runtime.images.discovery import find_images
from edgetl.system.machine import cores, processor

START = 64  # photos, two units of work
SHARD = START // 2
SAMPLE_SECONDS = 0.2


class Usage(NamedTuple):
    """What a command took.

    wall       seconds
    processor  seconds of all its processes
    workers    of them, seconds of Ray's workers, or of the command without Ray
    requests   to the store
    """

    wall: float
    processor: float
    workers: float
    requests: float


@dataclass(frozen=True)
class Place:
    """The same photos in one form.

    few   START of them
    all   all
    """

    name: str
    few: str
    all: str


def write_files(photos: Sequence[Path], count: int, folder: Path) -> Place:
    """``count`` names for the photos, in two folders."""
    for number, photo in enumerate(islice(cycle(photos), count)):
        for place in ("few", "all") if number < START else ("all",):
            (folder / place).mkdir(exist_ok=True)
            name = folder / place / f"{number:06}{photo.suffix}"
            name.symlink_to(photo.absolute())
    return Place("files", str(folder / "few"), str(folder / "all"))


def upload_shards(photos: Sequence[Path], count: int) -> Place:
    """The same photos in tar shards, in the store."""
    store, chosen = owner(), islice(cycle(photos), count)
    shards = -(-count // SHARD)
    for number in range(shards):
        some = enumerate(islice(chosen, SHARD))
        shard = tar_of((f"{at:06}{photo.suffix}", photo.read_bytes()) for at, photo in some)
        store.put_object(Bucket=BUCKET, Key=f"{number:06}.tar", Body=shard)
    names = [
        f"s3://{BUCKET}/{{000000..{last:06}}}.tar" for last in (START // SHARD - 1, shards - 1)
    ]
    return Place("tar shards on S3", *names)


def measured(arguments: Sequence[str], store: S3Process) -> Usage:
    """Run ``edgetl predict``. Raises CalledProcessError."""
    command = [sys.executable, "-m", "edgetl", "predict", *arguments]
    before, start = store.requests.value, time.perf_counter()
    used: dict[int, float] = {}
    workers: set[int] = set()
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in (process, *process.children(recursive=True)):
                    with suppress(psutil.Error):
                        used[one.pid] = sum(one.cpu_times()[:2])
                        if "PhotoClassifier" in " ".join(one.cmdline()):
                            workers.add(one.pid)
            with suppress(psutil.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
        wall = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            print(log.read().decode(), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    of_workers = sum(used[pid] for pid in workers or {process.pid})
    return Usage(wall, sum(used.values()), of_workers, store.requests.value - before)


def one_round(
    bundle: Path, place: Place, folder: Path, store: S3Process
) -> dict[str, tuple[Usage, Usage]]:
    """Way → (of few photos, of all)."""
    found = {}
    for way, out, options in (("local", "a.parquet", ()), ("ray", "answers", ("--ray",))):
        usages = []
        for photos in (place.few, place.all):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                arguments = [str(bundle), photos, "--out", f"{scratch}/{out}", *options]
                usages.append(measured(arguments, store))
        found[way] = (usages[0], usages[1])
    return found


def summary(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(place: Place, rounds: Sequence[dict[str, tuple[Usage, Usage]]], photos: int) -> None:
    """Print what the rounds say of a place."""

    def each(way: str, field: str) -> list[float]:
        """Of one photo."""
        return [
            (getattr(found[way][1], field) - getattr(found[way][0], field)) / photos
            for found in rounds
        ]

    def ratios(field: str) -> str:
        return summary(
            [a / b for a, b in zip(each("local", field), each("ray", field), strict=True)]
        )

    print(f"{place.name}: --ray against local")
    print(f"  photos for a second                    {ratios('wall')}")
    print(f"  photos for a second of processor time  {ratios('processor')}")
    print(f"  … without Ray's own processes          {ratios('workers')}")
    for way in ("local", "ray"):
        rate = 1 / statistics.median(each(way, "wall"))
        cost = 1000 * statistics.median(each(way, "processor"))
        start = statistics.median(found[way][0].wall for found in rounds)
        requests = 1000 * statistics.median(each(way, "requests"))
        print(
            f"  {way:<6} {rate:7.1f} photos/s, {cost:6.2f} ms of processor time a photo, "
            f"{START} photos take {start:.1f} s, {requests:.0f} requests for 1,000 photos",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos_from", metavar="photos", type=Path)
    parser.add_argument("--photos", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.update(RAY_worker_niceness="0")  # it is 15, and other programs would come first
    photos = list(islice(find_images(arguments.photos_from), 200))
    machine = {"processor": processor(), "cores": cores(), "load": os.getloadavg()[0]}
    print(json.dumps({**machine, "photos": arguments.photos, "rounds": arguments.rounds}))
    with tempfile.TemporaryDirectory() as name, s3_process() as store:
        folder = Path(name)
        places = [
            write_files(photos, arguments.photos, folder),
            upload_shards(photos, arguments.photos),
        ]
        for place in places:
            rounds = [
                one_round(arguments.bundle, place, folder, store) for _ in range(arguments.rounds)
            ]
            report(place, rounds, arguments.photos - START)


if __name__ == "__main__":
    main()
