"""`edgetl predict --ray` while workers, a node, the store and the command itself fail.

python scripts/cluster_stress.py exported/pets photos/
python scripts/cluster_stress.py exported/pets photos/ --photos 300 --away 3

Cuts small photos out of real ones and puts them into an S3 server on this machine, half of them in
tar shards. A Ray cluster of two nodes classifies them, while a worker is killed, the store answers
503 for a while, a node is removed and another added, the store is away once more, and the command
is killed with -9 and given again. Every row must be that of `edgetl predict --out` on one machine,
with no source twice and none missing, and memory must be constant.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pyarrow.parquet as pq
from PIL import Image
from s3_process import BUCKET, NO_LIMIT, S3Process, owner, s3_process, tar_of

from edgetl.cluster.work_unit import NamedPhoto, is_part, photo_units
from edgetl.runtime.images.discovery import find_images

SHARDS = f"s3://{BUCKET}/shards/*.tar"
OBJECTS = f"s3://{BUCKET}/objects"
OUT = "answers"
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
DAMAGED = 97  # one photo in so many is cut off
MOST_GROWTH = 0.10  # of resident memory from the first half of a process's work to the second
FEW_SAMPLES = 60  # in which memory still finds its size, and is not judged
PATIENCE = 600.0  # seconds without a new part
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.0f} s  {text}", flush=True)


def small_photos(folder: Path, count: int) -> Iterator[bytes]:
    """``count`` different JPEG files cut out of real photos, some of them damaged."""
    rng = random.Random(0)
    pictures = []
    for path in islice(find_images(folder), 100):
        with Image.open(path) as image:
            pictures.append(image.convert("RGB"))
    for number in range(count):
        picture = pictures[number % len(pictures)]
        width, height = (rng.randint(-(-side // 2), side) for side in picture.size)
        left = rng.randint(0, picture.width - width)
        top = rng.randint(0, picture.height - height)
        cut = picture.crop((left, top, left + width, top + height))
        cut.thumbnail((96, 96))
        buffer = io.BytesIO()
        cut.save(buffer, "JPEG", comment=str(number))
        content = buffer.getvalue()
        yield content[: len(content) // 2] if number % DAMAGED == DAMAGED - 1 else content


def upload(folder: Path, count: int) -> tuple[int, int]:
    """(objects, shards) that were put into the store; the last shard ends early."""
    shard_size = max(25, count // 80)
    store, photos = owner(), small_photos(folder, count)
    objects = count // 2
    for number, content in enumerate(islice(photos, objects)):
        store.put_object(Bucket=BUCKET, Key=f"objects/{number:06}.jpg", Body=content)
    shards, left = 0, count - objects
    while left:
        size = min(shard_size, left)
        some = enumerate(islice(photos, size))
        whole = tar_of((f"{number:06}.jpg", content) for number, content in some)
        left -= size
        content = whole if left else whole[: len(whole) // 2]
        store.put_object(Bucket=BUCKET, Key=f"shards/{shards:06}.tar", Body=content)
        shards += 1
    return objects, shards


class Cluster:
    """Ray on this machine: each node has processes of its own, and room for one worker."""

    def __init__(self, folder: str) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_TMPDIR"] = folder  # also for what all clusters of a machine would share
        from ray.cluster_utils import Cluster

        head = {**NODE, "include_dashboard": False}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(**NODE)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self) -> None:
        self._nodes.append(self._cluster.add_node(**NODE))

    def remove_node(self) -> None:
        """Kill the processes of the oldest node that is not the head."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


def actors() -> list[psutil.Process]:
    """The processes of this cluster that hold a predictor."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "PhotoClassifier" in " ".join(process.cmdline()):
                found.append(process)
    return found


class Memory:
    """Resident memory of the commands and of their workers, twice a second."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._driver: psutil.Process | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def watch(self, driver: int) -> None:
        self._driver = psutil.Process(driver)

    def _sample(self) -> None:
        while not self._done.wait(0.5):
            found = [("worker", process) for process in actors()]
            if self._driver is not None:
                found.append(("command", self._driver))
            for kind, process in found:
                with suppress(psutil.Error):
                    samples = self._samples[kind, process.pid]
                    samples.append(process.memory_info().rss)

    def is_constant(self) -> bool:
        """Print what there is to say, and judge the processes with enough samples."""
        self._done.set()
        self._thread.join()
        worst = 0.0
        for (kind, pid), samples in self._samples.items():
            if len(samples) < FEW_SAMPLES:
                continue
            quarter = len(samples) // 4  # the first one is the start
            first = median(samples[quarter : 2 * quarter])
            second = median(samples[2 * quarter :])
            growth = second / first - 1
            worst = max(worst, growth)
            sizes = f"{first / 1e6:.0f} MB, then {second / 1e6:.0f} MB ({growth:+.1%})"
            say(f"memory of {kind} {pid}: {sizes}, at most {max(samples) / 1e6:.0f} MB")
        return worst <= MOST_GROWTH


@dataclass(frozen=True)
class Failure:
    """Something that happens when so much of the result is written.

    at  share of the parts
    """

    at: float
    name: str
    action: Callable[[], None]


class Run:
    """``edgetl predict --ray``, given again if it was killed."""

    def __init__(self, bundle: Path, address: str, memory: Memory, log: Path) -> None:
        arguments = [str(bundle), SHARDS, OBJECTS, "--out", f"s3://{BUCKET}/{OUT}"]
        self._command = command(*arguments, "--ray", address)
        self._memory, self._log = memory, log
        self.begin()

    def begin(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self._memory.watch(self.process.pid)

    def kill(self) -> None:
        """Kill the command with -9, and give it again."""
        self.process.kill()
        self.process.wait()
        self.begin()

    def wait_for(self, store: S3Process, parts: int) -> None:
        """Wait until so many parts are written. Raises RuntimeError."""
        seen, since = store.parts.value, time.monotonic()
        while store.parts.value < parts:
            if self.process.poll() is not None:
                raise RuntimeError(f"the command ended early, with {self.process.returncode}")
            if store.parts.value > seen:
                seen, since = store.parts.value, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise RuntimeError(f"no new part for {PATIENCE:.0f} seconds")
            time.sleep(0.05)


def kill_worker() -> None:
    random.choice(actors()).kill()


def refuse(store: S3Process, seconds: float) -> None:
    store.busy.set()
    time.sleep(seconds)
    store.busy.clear()


def fail_and_finish(run: Run, store: S3Process, failures: list[Failure], parts: int) -> int:
    """Let everything happen, and wait for the end; returns the exit code."""
    for failure in failures:
        at = max(1, round(failure.at * parts))
        store.limit.value = at
        run.wait_for(store, at)
        say(f"{store.parts.value} of {parts} parts: {failure.name}")
        failure.action()
        store.limit.value = at + 1
        before = time.monotonic()
        run.wait_for(store, at + 1)
        say(f"the next part {time.monotonic() - before:.1f} s later")
    store.limit.value = NO_LIMIT
    run.wait_for(store, parts)
    return run.process.wait(PATIENCE)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgetl", "predict", *arguments]


def table_rows(tables: Iterator[Any]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def answers() -> Iterator[Any]:
    """The tables of all parts in the store."""
    pages = owner().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{OUT}/")
    for entry in (entry for page in pages for entry in page["Contents"]):
        if is_part(entry["Key"].rpartition("/")[2]):
            body = owner().get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
            yield pq.read_table(io.BytesIO(body))


def are_equal(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> bool:
    """Compare all columns; print what differs."""
    sources = Counter(row["source"] for row in found)
    twice = [source for source, count in sources.items() if count > 1]
    rows = {row["source"]: row for row in found}
    missing = [row["source"] for row in expected if row["source"] not in rows]
    others = [row for row in expected if row["source"] in rows and rows[row["source"]] != row]
    errors = sum(row["error"] is not None for row in found)
    say(
        f"{len(found)} rows, {len(expected)} on one machine, {errors} of them "
        f"errors: {len(twice)} twice, {len(missing)} missing, {len(others)} different"
    )
    for row in others[:3]:
        print(f"  {row}\n  {rows[row['source']]}")
    for source in [*twice, *missing][:6]:
        print(f"  {source}")
    return len(found) == len(expected) and not (twice or missing or others)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets are in it
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            cluster.shutdown()


def stress(arguments: argparse.Namespace, folder: Path, store: S3Process) -> bool:
    objects, shards = upload(arguments.photos_from, arguments.photos)
    names = [NamedPhoto(f"{OBJECTS}/{number:06}.jpg", None) for number in range(objects)]
    parts = shards + len(photo_units(names, (), {}))
    say(f"{arguments.photos} photos: {objects} objects, the others in {shards} shards")
    local = folder / "local.parquet"
    sources = [str(arguments.bundle), SHARDS, OBJECTS]
    expected_code = subprocess.run(command(*sources, "--out", str(local)), check=False).returncode
    expected = table_rows(iter([pq.read_table(local)]))
    say("classified on one machine")
    memory, log = Memory(), folder / "log"
    with running_cluster() as cluster:
        say("a cluster of two nodes runs")
        run = Run(arguments.bundle, cluster.address, memory, log)
        away = f"the store answers 503 for {arguments.away:g} s"
        failures = [
            Failure(0.10, "a worker is killed", kill_worker),
            Failure(0.20, away, lambda: refuse(store, arguments.away)),
            Failure(0.35, "a node is removed", cluster.remove_node),
            Failure(0.45, "a node is added", cluster.add_node),
            Failure(0.60, away, lambda: refuse(store, arguments.away)),
            Failure(0.75, "the command is killed, and given again", run.kill),
            Failure(0.85, "a worker is killed", kill_worker),
        ]
        try:
            code = fail_and_finish(run, store, failures, parts)
        finally:
            run.process.kill()
            print(log.read_text("utf-8").rstrip())
    say(f"exit code {code}, {store.refused.value} of {store.requests.value} requests refused")
    equal = are_equal(expected, table_rows(answers()))
    return all([equal, code == expected_code, memory.is_constant()])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos_from", metavar="photos", type=Path)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--away", type=float, default=30, help="seconds")
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder, s3_process() as store:
        passed = stress(arguments, Path(folder), store)
    print("passed" if passed else "FAILED")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
