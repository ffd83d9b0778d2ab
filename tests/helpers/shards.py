"""Shards of photos, as other tools write them: tar archives of webdataset, Parquet of Hugging Face.

The photos of a list or a folder of class folders, in the order that edgetl takes them in.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from helpers.pictures import photo

Member = tuple[str, bytes]


def write_class_folders(folder: Path, count: int) -> Path:
    """So many photos, in turn in the folders ``two words`` and ``plain``."""
    for number in range(count):
        place = folder / ("plain" if number % 2 else "two words")
        place.mkdir(exist_ok=True)
        photo(number, 30 + number, 20).save(place / f"{number}.png")
    return folder


def members(folder: Path, *, label: str = "cls") -> list[list[Member]]:
    """The samples of a folder of class folders: each is a photo and its label.

    label  "cls", "txt" or "json": the member that has the label; "": the photo's folder alone
    """
    samples = []
    for number, path in enumerate(sorted(folder.glob("*/*"))):
        name = path.parent.name
        texts = {"cls": name, "txt": f"{name}\n", "json": json.dumps({"label": name, "size": 1})}
        if not label:
            samples.append([(f"{name}/{number:04}{path.suffix}", path.read_bytes())])
            continue
        note = (f"{number:04}.{label}", texts[label].encode())
        samples.append([(f"{number:04}{path.suffix}", path.read_bytes()), note])
    return samples


def write_tar(file: Path, samples: Iterable[Iterable[Member]]) -> Path:
    """A tar archive, compressed if its name ends in gz."""
    mode = "w:gz" if file.name.endswith("gz") else "w"
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for sample in samples:
            for name, content in sample:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


def write_tars(folder: Path, samples: list[list[Member]], count: int) -> str:
    """``count`` archives of equal parts of the samples; returns the pattern that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(samples) // count)
    for number in range(count):
        part = samples[number * size : (number + 1) * size]
        write_tar(folder / f"{number:03}.tar", part)
    return f"{folder}/{{000..{count - 1:03}}}.tar"


def write_parquet(file: Path, folder: Path, *, row_group: int = 5) -> Path:
    """A file as Hugging Face's ``datasets`` writes it: image column, and labels as numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(path.name for path in folder.iterdir())
    photos = sorted(folder.glob("*/*"))
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in photos],
        "label": [names.index(path.parent.name) for path in photos],
    }
    pq.write_table(pa.table(rows, schema), file, row_group_size=row_group)
    return file
