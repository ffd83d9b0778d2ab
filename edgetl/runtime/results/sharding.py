"""Splitting the photos of a job over machines: a photo's name decides its shard."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgetl.runtime.images.discovery import is_folder, is_walked, walk_images
from edgetl.runtime.images.photo_list import ListedPhoto
from edgetl.runtime.images.photo_places import StoredPlace
from edgetl.runtime.images.stored_path import StoredPath, is_address

Place = str | Path | ListedPhoto | StoredPlace
_PATTERN = re.compile(r"[{*?]")  # where a name begins to stand for several


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` parts, counted from 1. A photo's path decides its part."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard {self.index}/{self.count}: it must be I/N with 1 ≤ I ≤ N")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "I/N". Raises ValueError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard {text!r}: it must be I/N, as in 2/8")
        return cls(int(index), int(count))

    def holds(self, name: str) -> bool:
        """Whether the photo ``name`` is in this part."""
        try:
            content = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a list may name what no file can be called
            content = name.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(content).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def photos_of(arguments: Sequence[Place], shard: Shard, *, read: bool = True) -> Iterator[Path]:
    """The photos of ``shard`` among files, and folders with everything below them, each path once.

    Within a folder, the path below the folder decides a photo's shard, and in a list the path that
    it writes, so that it is the same wherever the photos are mounted. Of photos in shards and
    stores, it is the name below the folder that holds them.

    read  False: photos of folders in stores come without their content; there are no shards
    """
    found = _photos_of(arguments, shard, read=read)
    return _once(found) if _may_overlap(arguments) else found


def _may_overlap(arguments: Sequence[Place]) -> bool:
    """Whether places in stores or shards may have photos in common, as far as their names tell."""
    stored = (place.name for place in arguments if isinstance(place, StoredPlace))
    begins = [_PATTERN.split(name)[0] for name in stored]
    if begins:
        listed = (photo.path for photo in arguments if isinstance(photo, ListedPhoto))
        begins = sorted([*begins, *(os.fspath(path) for path in listed if is_address(path))])
    return any(later.startswith(begin) for begin, later in pairwise(begins))


def _once(photos: Iterable[Path]) -> Iterator[Path]:
    """Without a second photo of the same name in stores and shards; the names stay in memory."""
    seen: set[str] = set()
    for photo in photos:
        if isinstance(photo, StoredPath):
            if (name := os.fspath(photo)) in seen:
                continue
            seen.add(name)
        yield photo


def _photos_of(arguments: Sequence[Place], shard: Shard, *, read: bool) -> Iterator[Path]:
    places: dict[Path | StoredPlace, tuple[Path, str]] = {}
    folders: set[Path] = set()
    for argument in reversed(arguments):  # of several for the same path, the first is kept
        if isinstance(argument, StoredPlace):
            places[argument] = Path(), argument.name
            continue
        if isinstance(argument, ListedPhoto):
            path, name = argument.path, argument.name
        else:
            path = Path(argument)
            name = path.as_posix()
        absolute = Path(os.path.normpath(path.absolute()))
        places[absolute] = path, name
        if not isinstance(argument, ListedPhoto) and is_folder(absolute):
            folders.add(absolute)  # one that a list names is a photo that can't be read
    for place, (path, name) in reversed(places.items()):
        if isinstance(place, StoredPlace):
            found = place.photos() if read else place.listed_photos()
            yield from (photo.path for photo in found if shard.holds(photo.name))
            continue
        if any(is_walked(place, folder) for folder in folders.intersection(place.parents)):
            continue  # comes with that folder
        if place not in folders:
            if shard.holds(name):
                yield path
            continue
        for photo in walk_images(path, strict=False):
            if shard.holds(photo.relative_to(path).as_posix()):
                yield photo
