"""Pieces of work: photos whose answers become one file, wherever they are classified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from edgetl.runtime.images.photo_list import ListedPhoto
from edgetl.runtime.images.photo_places import StoredPlace
from edgetl.runtime.images.photo_shards import is_shard, shards_of
from edgetl.runtime.images.stored_path import is_address
from edgetl.runtime.results.parquet_rows import PARTS
from edgetl.runtime.results.records import plain_name
from edgetl.runtime.results.result_file import source_digest
from edgetl.runtime.results.sharding import Shard, photos_of

_SHARD_PART, _PHOTOS_PART = "part-shard-", "part-photos-"
_SUFFIX = ".parquet"
# Of photos that are files or objects of their own, which are some seconds to minutes of work.
_MOST_IN_PART, _FEWEST_IN_PART = 1_000, 32
_PARTS = 64  # of a small job, so that no worker is left without work


class NamedPhoto(NamedTuple):
    """A photo that is a file or object of its own.

    source  its path or address
    label   the true one, where a list says it
    """

    source: str
    label: str | None

    @property
    def digest(self) -> bytes:
        """What its rows are told by."""
        return source_digest(plain_name(self.source))


@dataclass(frozen=True)
class WorkUnit:
    """Photos that become one part: those of a shard, or up to a thousand of others.

    part       the file's name, which the photos decide
    shard      its path or address, "" for other photos
    columns    what the shard's columns are called, as the user wrote it
    was_there  whether the part was there before this run
    """

    part: str
    shard: str = ""
    columns: str | None = None
    photos: tuple[NamedPhoto, ...] = ()
    was_there: bool = False

    def to_json(self) -> str:
        """Text for ``from_json``; file names may hold bytes that are not Unicode."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkUnit:
        """The unit that ``to_json`` wrote."""
        values = json.loads(text)
        photos = tuple(NamedPhoto(*photo) for photo in values.pop("photos"))
        return cls(**values, photos=photos)


def is_part(file: str) -> bool:
    """Whether a file is called as parts are."""
    return fnmatchcase(file, PARTS)


def is_photos_part(file: str) -> bool:
    """Whether a file is called as parts of photos that are in no shard."""
    return is_part(file) and file.startswith(_PHOTOS_PART)


def shard_units(arguments: Iterable[object]) -> list[WorkUnit]:
    """A unit for each shard among the arguments of a command, each shard once. Raises DataError."""
    units: dict[str, WorkUnit] = {}
    for argument in arguments:
        if isinstance(argument, StoredPlace) and is_shard(argument.name):
            for shard in shards_of(argument.name):
                name = os.fspath(shard)
                part = _part(_SHARD_PART, [source_digest(plain_name(name))])
                key = name if is_address(name) else str(Path(name).absolute())
                units.setdefault(key, WorkUnit(part, name, argument.columns))
    return list(units.values())


def photos_outside_shards(arguments: Sequence[str | ListedPhoto | StoredPlace]) -> list[NamedPhoto]:
    """The other photos among the arguments, each once; those of stores are listed, not read.

    Raises DataError.
    """
    given = {
        argument.path: argument.label
        for argument in arguments
        if isinstance(argument, ListedPhoto) and argument.label is not None
    }
    others = [
        argument
        for argument in arguments
        if not (isinstance(argument, StoredPlace) and is_shard(argument.name))
    ]
    found = photos_of(others, Shard(), read=False)
    return [NamedPhoto(os.fspath(path), given.get(path)) for path in found]


def photo_units(
    photos: Sequence[NamedPhoto], done: Iterable[bytes], again: dict[bytes, str]
) -> list[WorkUnit]:
    """Units for the photos that have no answer yet.

    The whole list decides which photos belong together, done or not, so that two runs over the same
    photos, one of which was cut off from its workers, write the same parts and not two for a photo.

    done   digests of photos with an answer
    again  digest → the part with an error that may pass, which is written again
    """
    standing = frozenset(done)
    units: dict[str, list[NamedPhoto]] = {}
    size = min(max(len(photos) // _PARTS, _FEWEST_IN_PART), _MOST_IN_PART)
    for start in range(0, len(photos), size):
        block = photos[start : start + size]
        digests = [photo.digest for photo in block]
        own = _part(_PHOTOS_PART, digests)
        for photo, digest in zip(block, digests, strict=True):
            if digest not in standing:
                units.setdefault(again.get(digest, own), []).append(photo)
    return [WorkUnit(part, photos=tuple(chosen)) for part, chosen in units.items()]


def _part(kind: str, digests: Iterable[bytes]) -> str:
    return kind + hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest() + _SUFFIX
