"""Photos in Parquet files that hold the bytes of each, such as Hugging Face's data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from edgetl.runtime.images.stored_path import Content
from edgetl.runtime.images.tar_shard import ShardPhoto
from edgetl.system.missing_package import require_packages

if TYPE_CHECKING:
    import pyarrow

_ROWS = 16  # decoded at a time
_BUFFER = 1 << 20  # bytes read at a time of each column: a row group may be larger than the memory
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}  # of most photos


def holds_photos(file: IO[bytes]) -> bool:
    """Whether a column holds photos. A file of paths, or no Parquet file at all, does not.

    Raises MissingDependencyError without pyarrow.
    """
    require_packages("Reading Parquet", "parquet", "pyarrow")
    import pyarrow.parquet

    try:
        return _photo_column(pyarrow.parquet.read_schema(file), ()) is not None
    except (pyarrow.ArrowException, OSError):
        return False


def read_parquet(file: IO[bytes], columns: Mapping[str, tuple[str, ...]]) -> Iterator[ShardPhoto]:
    """The photos of a file, in its order; a few rows are in memory at a time.

    columns  "path", "label" and "split" → what these columns may be called

    Raises OSError where the file is damaged, MissingDependencyError without pyarrow.
    """
    require_packages("Reading Parquet", "parquet", "pyarrow")
    import pyarrow.parquet

    try:
        # Not read ahead: that would hold whole row groups.
        table = pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        schema = table.schema_arrow
        photos = _photo_column(schema, columns["path"])
        if photos is None:
            raise OSError("it has no column of photos")
        roles = {role: _column(schema.names, columns[role]) for role in ("label", "split")}
        wanted = [photos, *(name for name in roles.values() if name)]
        classes = {role: _class_names(schema, name) for role, name in roles.items()}
        number = 0
        for batch in table.iter_batches(_ROWS, columns=wanted, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                texts = [_text(row.get(name), classes[role]) for role, name in roles.items()]
                yield ShardPhoto(*_photo(row[photos], number), *texts)
    # Text may be no UTF-8, a date out of Python's range.
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise OSError(f"the Parquet file is damaged: {str(error).splitlines()[0]}") from error


def _photo_column(schema: pyarrow.Schema, names: Sequence[str]) -> str | None:
    """The column of bytes, or of structures with a field ``bytes``; first one of ``names``."""
    import pyarrow.types

    found = []
    for item in schema:
        kind = item.type
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            found.append(item.name)
    return next((name for name in found if name.lower() in names), found[0] if found else None)


def _column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in names if name.strip().lower() in wanted), None)


def _class_names(schema: pyarrow.Schema, column: str | None) -> Sequence[str]:
    """What the numbers in a column of Hugging Face's type ClassLabel stand for; () for others."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        names = metadata["info"]["features"][column]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _text(value: Any, classes: Sequence[str]) -> str | None:
    if isinstance(value, int) and 0 <= value < len(classes):
        return classes[value]
    if value is None or value == "" or (classes and value == -1):  # of photos without a label
        return None
    return str(value)


def _photo(value: Any, number: int) -> tuple[str, Content]:
    """(name, content) of a row; the name begins with its number, since others may repeat."""
    content, name = value, None
    if isinstance(value, dict):
        content, name = value["bytes"], value.get("path")
    if content is None:
        return f"{number:08}", OSError("the row holds no photo")
    if isinstance(name, str) and name:
        return f"{number:08}-{PurePosixPath(name.replace(chr(92), '/')).name}", content
    begin = bytes(content[:4])
    suffix = next((end for start, end in _SUFFIXES.items() if begin.startswith(start)), "")
    return f"{number:08}{suffix}", content
