"""What a user names → photos: folders, files, lists and shards, here or in a store."""

from __future__ import annotations

import os
import weakref
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.errors import DataError, without_traceback
from edgetl.runtime.images.discovery import find_images, image_suffixes, is_folder
from edgetl.runtime.images.photo_list import (
    Columns,
    ListedPhoto,
    StrPath,
    is_photo_list,
    read_photo_list,
    refuse_list_options,
    require_files,
    role_names,
    true_label,
)
from edgetl.runtime.images.photo_shards import is_pattern, is_shard, read_shard, shards_of
from edgetl.runtime.images.stored_path import FileSpan, StoredPath, as_place, is_address
from edgetl.system.ordered_map import ordered_map
from edgetl.system.paths import name_below
from edgetl.system.temporary_folder import scratch_folder

_READERS = 16  # objects that are read from a store at a time


@dataclass(frozen=True)
class StoredPlace:
    """Shards, or a folder in a store, that are read when they are needed.

    name     as the user writes it
    columns  see ``stored_photos``
    """

    name: str
    columns: str | None = None

    def photos(self) -> Iterator[ListedPhoto]:
        """Its photos; damaged shards are yielded themselves."""
        return stored_photos(self.name, columns=self.columns, strict=False)

    def listed_photos(self) -> Iterator[ListedPhoto]:
        """The photos of a folder in a store, none of them read. Raises DataError."""
        place = as_place(self.name)
        refuse_list_options(place, self.columns, None)
        return _objects(place, photos_folder(place))


def no_photo_in(*places: StrPath) -> DataError:
    """The error where ``photos_in`` found nothing."""
    named = ", ".join(map(str, places))
    return DataError(f"There is no photo in {named}.", "Name a folder that holds some.")


def photos_in(
    place: str | Path, *, columns: Columns = None, root: StrPath | None = None
) -> list[ListedPhoto]:
    """The photos of a folder, of a list, of shards or of a store, or a single photo.

    What is in a store or in compressed shards is read once, from start to end, into a temporary
    file; TMPDIR says where. It goes when the photos are no longer used.

    Those of folders have no label here, since that depends on what the labels are: see
    ``true_label``. Raises DataError for what can't be read, and for files of a list that are not
    there.
    """
    if is_photo_list(place):
        photos = read_photo_list(place, columns=columns, root=root)
        require_files(place, photos)
        return local_photos(photos)
    if is_stored(place):
        return local_photos(stored_photos(place, columns=columns, root=root))
    refuse_list_options(place, columns, root)
    place = Path(place)
    found = [place] if place.is_file() else find_images(place)
    folder = place.parent if place.is_file() else place
    return [
        ListedPhoto(path, name_below(path, folder), None, None, row)
        for row, path in enumerate(found, 1)
    ]


def photos_folder(place: StrPath, root: StrPath | None = None) -> Path:
    """The folder that the names of ``photos_in(place, root=root)`` are relative to."""
    place = as_place(place)
    if is_photo_list(place):
        return as_place(root) if root else place.parent
    if is_shard(place):
        while is_pattern(str(place.parent)):
            place = place.parent
        return place.parent
    if is_address(place):
        return place.parent if _is_object(place) else place
    return place if place.is_dir() else place.parent


def label_folders(names: Iterable[str], root: StrPath | None = None) -> tuple[Path, ...]:
    """The folders in which folders are named as labels, of places as the user names them."""
    return tuple(
        photos_folder(name, root)
        for name in names
        if is_folder(Path(name)) or is_photo_list(name) or is_stored(name)
    )


def known_label(
    photo: Path, given: str | None, folders: Iterable[Path], labels: Container[str]
) -> str | None:
    """The true label of a photo, one of ``labels``; None where it is not known.

    given    what a list or a shard says
    folders  of ``label_folders``
    """
    folder = next((folder for folder in folders if photo.is_relative_to(folder)), photo.parent)
    return true_label(photo, given, folder, labels)


def is_stored(place: StrPath) -> bool:
    """Whether ``place`` is a shard, or a folder or photo in a store; a list is neither."""
    return is_shard(place) or (is_address(place) and not is_photo_list(place))


def stored_photos(
    place: StrPath, *, columns: Columns = None, root: StrPath | None = None, strict: bool = True
) -> Iterator[ListedPhoto]:
    """The photos of shards, or of a folder in a store, with their content, a few at a time.

    strict  False: a shard that is damaged is yielded itself, after the photos before the damage,
            and reading it as a photo fails

    Raises DataError for a place or shard that can't be read, MissingDependencyError.
    """
    folder = photos_folder(place)
    if not is_shard(place):
        refuse_list_options(as_place(place), columns, root)
        return fetched(_objects(as_place(place), folder))
    refuse_list_options(as_place(place), None, root)
    return shard_photos(shards_of(place), folder, columns, strict=strict)


def shard_photos(
    shards: Iterable[Path], folder: Path, columns: Columns = None, *, strict: bool
) -> Iterator[ListedPhoto]:
    """The photos of ``shards``, with names below ``folder``; see ``stored_photos``."""
    roles = role_names(columns)
    for shard in shards:
        row = 0
        try:
            for row, photo in enumerate(read_shard(shard, roles), 1):
                path = StoredPath.holding(shard / photo.name, photo.content, photo.label)
                yield ListedPhoto(path, name_below(path, folder), photo.label, photo.split, row)
        except OSError as error:
            if strict:
                hint = f"{row:,} of its photos can be read. Write it again, or leave it out."
                raise DataError(f"{shard}: {error.strerror or error}.", hint) from error
            broken = StoredPath.holding(shard, error)
            yield ListedPhoto(broken, name_below(shard, folder), None, None, row + 1)


def _objects(place: Path, folder: Path) -> Iterator[ListedPhoto]:
    from edgetl.runtime.images.store import list_objects

    address = os.fspath(place)
    if _is_object(place):
        yield ListedPhoto(place, place.name, None, None, 1)
        return
    row = 0
    for name in list_objects(address):
        inner = Path(name.removeprefix(address))
        hidden = any(part.startswith(".") for part in inner.parts)
        if not hidden and inner.suffix.lower() in image_suffixes():
            row += 1
            path = StoredPath.at(name)
            yield ListedPhoto(path, name_below(path, folder), None, None, row)


def _is_object(place: Path) -> bool:
    """Whether an address is that of a photo, not of a folder; web pages are no folders."""
    address = os.fspath(place)
    is_page = address.startswith(("http://", "https://")) and not address.endswith("/")
    return is_page or place.suffix.lower() in image_suffixes()


def fetched(photos: Iterable[ListedPhoto]) -> Iterator[ListedPhoto]:
    """The same photos; those in a store with their content, read several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    with (
        ThreadPoolExecutor(_READERS, thread_name_prefix="edgetl-read") as pool,
        closing(ordered_map(pool, _fetch, photos, _READERS)) as found,
    ):
        yield from found


def _fetch(photo: ListedPhoto) -> ListedPhoto:
    if not (isinstance(photo.path, StoredPath) and photo.path.content is None):
        return photo
    try:
        content: bytes | OSError = photo.path.read_bytes()
    except OSError as error:
        content = without_traceback(error)
    return replace(photo, path=StoredPath.holding(photo.path, content))


class _PackedFile:
    """A temporary file that photos are appended to; it goes with the last of them."""

    def __init__(self) -> None:
        stack = ExitStack()
        self.path = stack.enter_context(scratch_folder("edgetl-photos")) / "photos"
        self._file = stack.enter_context(self.path.open("wb"))
        self._end = 0
        weakref.finalize(self, _close, stack, os.getpid())

    def add(self, content: bytes) -> FileSpan:
        self._file.write(content)
        self._file.flush()
        span = FileSpan(self.path, self._end, len(content), self)
        self._end += len(content)
        return span


def _close(stack: ExitStack, process: int) -> None:
    if os.getpid() == process:  # processes that were forked use the file, and don't own it
        stack.close()


def local_photos(photos: Iterable[ListedPhoto]) -> list[ListedPhoto]:
    """The photos, those whose content is in memory or in a store from a temporary file.

    Raises DataError if that has no room.
    """
    found, packed = [], None
    for photo in fetched(photos):
        if isinstance(photo.path, StoredPath) and isinstance(photo.path.content, bytes):
            try:
                packed = packed or _PackedFile()
                span = packed.add(photo.path.content)
            except OSError as error:
                raise DataError(
                    f"There is no room for a temporary copy of the photos: {error.strerror}.",
                    "Set TMPDIR to a folder on a larger disk.",
                ) from error
            photo = replace(photo, path=StoredPath.holding(photo.path, span))
        found.append(photo)
    return found
