"""Shards: files that hold many photos, tar archives and Parquet files, here or in a store."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgetl.errors import DataError
from edgetl.runtime.images.stored_path import as_place, is_address

if TYPE_CHECKING:
    from edgetl.runtime.images.tar_shard import ShardPhoto

PARQUET_SUFFIX = ".parquet"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", PARQUET_SUFFIX)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000  # that a pattern such as {000000..000099} may stand for


def is_shard(place: str | os.PathLike[str]) -> bool:
    """Whether ``place`` is a shard, or a pattern such as ``{000..099}.tar`` or ``*.parquet``.

    A Parquet file is looked into, since it may be a list of paths instead. Raises DataError for
    one in a store that can't be read, MissingDependencyError.
    """
    name = os.fspath(place)
    if not _suffix_text(name).endswith(SHARD_SUFFIXES):
        return False
    is_one = not is_pattern(name) if is_address(name) else Path(name).is_file()
    if is_one and _suffix_text(name).endswith(PARQUET_SUFFIX):
        return _holds_photos_in_store(name) if is_address(name) else _holds_photos(name)
    return is_one or is_pattern(name)


def is_pattern(name: str) -> bool:
    """Whether it stands for several names. A question mark in the address of a page is none."""
    return "{" in name or _is_glob(name)


def _is_glob(name: str) -> bool:
    return ("*" in name or "?" in name) and not _is_page(name)


def _is_page(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _suffix_text(name: str) -> str:
    """What a suffix is looked for at the end of: without the query of a web page's address."""
    return (name.partition("?")[0] if _is_page(name) else name).lower()


def shards_of(place: str | os.PathLike[str]) -> list[Path]:
    """The shards that ``place`` stands for, in order. Raises DataError if there is none."""
    names = list(_expand_braces(os.fspath(place)))
    if not any(map(_is_glob, names)):
        return [as_place(name) for name in names]
    found: list[str] = []
    for name in names:
        if is_address(name):
            from edgetl.runtime.images.store import matching_objects

            found += matching_objects(name)
        else:
            found += sorted(glob.glob(name))  # noqa: PTH207  it may be absolute
    if not found:
        raise DataError(f"There is no {place}.", "Check the pattern.")
    return [as_place(name) for name in found]


def read_shard(shard: Path, columns: Mapping[str, tuple[str, ...]]) -> Iterator[ShardPhoto]:
    """The photos of one shard, in its order.

    columns  "path", "label" and "split" → what columns, or keys of JSON, may be called

    Raises OSError for a damaged shard, after the photos before the damage; DataError for one that
    is not there, MissingDependencyError.
    """
    with open_shard(shard) as file:
        if _suffix_text(str(shard)).endswith(PARQUET_SUFFIX):
            from edgetl.runtime.images.parquet_shard import read_parquet

            yield from read_parquet(file, columns)
        else:
            from edgetl.runtime.images.tar_shard import read_tar

            yield from read_tar(file, shard, columns, on_disk=not is_address(shard))


def open_shard(shard: Path) -> IO[bytes]:
    """A shard, opened to read. Raises DataError if it can't be."""
    if is_address(shard):
        from edgetl.runtime.images.store import open_object

        return open_object(os.fspath(shard))
    try:
        return shard.open("rb")
    except OSError as error:
        raise DataError(f"{shard} can't be read: {error.strerror}.", "Check its name.") from error


def _holds_photos(name: str) -> bool:
    from edgetl.runtime.images.parquet_shard import holds_photos

    with open_shard(as_place(name)) as file:
        return holds_photos(file)


_holds_photos_in_store = cache(_holds_photos)  # each look is some requests, and there are several


def _expand_braces(name: str) -> Iterator[str]:
    """As a shell does: "{08..11}" counts, with as many digits; "{a,b}" lists."""
    parts = _BRACES.split(name)
    choices: list[list[str]] = []
    for number, text in enumerate(parts):
        if number % 2 == 0:
            choices.append([text])
        elif numbers := _RANGE.fullmatch(text):
            first, last = map(int, numbers.groups())
            if not 0 <= last - first < _MOST_SHARDS:
                raise DataError(f"{name}: {{{text}}} counts to nothing.", "Write {000..099}.")
            choices.append([f"{i:0{len(numbers[1])}}" for i in range(first, last + 1)])
        else:
            choices.append(text.split(","))
    if math.prod(map(len, choices)) > _MOST_SHARDS:
        raise DataError(
            f"{name} stands for more than {_MOST_SHARDS:,} shards.", "Write a shorter range."
        )
    return ("".join(chosen) for chosen in itertools.product(*choices))
