"""Photos as files, in shards and in a store: rate, peak memory, and whether the answers are equal.

    python scripts/bench_remote.py exported/pets [--photos 20000] [--without-store]

Writes small photos into a temporary folder, as files, tar shards and Parquet, and into an S3 server
on this machine (moto's, whose speed limits the last rows). Each place is classified by a process
of its own, ``edgetl predict --out``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from s3_process import BUCKET, owner, s3_process, tar_of

_SHARD = 1000  # photos
_MOST_OBJECTS = 5000  # uploading more takes longer than all the rest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--without-store", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder, arguments.photos)
        places = {
            "files": str(folder / "files"),
            "tar shards": str(folder / "shards/*.tar"),
            "Parquet": str(folder / "photos.parquet"),
        }
        print(f"{arguments.photos:,} photos of 64×48 pixels")
        if arguments.without_store:
            compare(arguments.bundle, places, folder)
            return
        with s3_process():
            upload(folder)
            if arguments.photos <= _MOST_OBJECTS:
                places["objects on S3"] = f"s3://{BUCKET}/files"
            places["tar shards on S3"] = f"s3://{BUCKET}/shards/*.tar"
            places["Parquet on S3"] = f"s3://{BUCKET}/photos.parquet"
            compare(arguments.bundle, places, folder)


def write_photos(folder: Path, count: int) -> None:
    """``count`` different photos, in every form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    (folder / "files").mkdir()
    (folder / "shards").mkdir()
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    with pq.ParquetWriter(folder / "photos.parquet", schema) as table:
        for start in range(0, count, _SHARD):
            rows: list[dict[str, Any]] = []
            for number in range(start, min(start + _SHARD, count)):
                coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
                buffer = io.BytesIO()
                coarse.resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
                file = f"{number:07}.jpg"
                (folder / "files" / file).write_bytes(buffer.getvalue())
                rows.append({"bytes": buffer.getvalue(), "path": file})
            shard = tar_of((row["path"], row["bytes"]) for row in rows)
            (folder / f"shards/{start // _SHARD:06}.tar").write_bytes(shard)
            table.write_table(pa.table({"image": rows}, schema))


def upload(folder: Path) -> None:
    """The photos in ``folder``, as objects of the bucket; shards alone where many."""
    store = owner()
    files = [*folder.glob("files/*")]
    few = files if len(files) <= _MOST_OBJECTS else []
    for path in [*folder.glob("shards/*"), *folder.glob("*.parquet"), *few]:
        key = path.relative_to(folder).as_posix()
        store.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def compare(bundle: Path, places: dict[str, str], folder: Path) -> None:
    """Classify each place, and print a row for it."""
    print(f"{'place':<18} {'photos/s':>9} {'of files':>9} {'peak MB':>8}  answers")
    expected: list[object] = []
    base = 0.0
    for kind, place in places.items():
        out = folder / f"{kind}.jsonl"
        command = [sys.executable, "-m", "edgetl", "predict", str(bundle), place, "--out", str(out)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        found = [(row.get("label"), row.get("probabilities"), row.get("error")) for row in rows]
        expected, rate = expected or list(found), len(rows) / seconds
        base = base or rate
        same = "equal" if found == expected and status == 0 else "DIFFERENT"
        peak = usage.ru_maxrss / 1024
        print(f"{kind:<18} {rate:>9,.0f} {rate / base:>9.2f} {peak:>8.0f}  {same}", flush=True)


if __name__ == "__main__":
    main()
