"""Photos in tar archives, in webdataset's layout: one sample is the members of one name, up to its
first dot.

``cat/1.jpg`` is a photo; ``cat/1.cls``, ``cat/1.txt`` or ``cat/1.json`` beside it has its label,
and that of ``cat/1.left.jpg``, unless there is a ``cat/1.left.cls``.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from edgetl.runtime.images.discovery import image_suffixes
from edgetl.runtime.images.stored_path import Content, FileSpan, FileState, file_state
from edgetl.runtime.images.unreadable import MAX_PHOTO_BYTES

_LABEL_SUFFIXES = (".cls", ".json", ".txt")  # the first that is there counts
_MAX_LABEL = 1 << 20  # bytes of a member that holds a label
_MAX_MEMBER = 1 << 40  # a damaged size would be skipped for ever
_MOST_HELD = 64 << 20  # bytes of one sample's photos in memory
_BLOCK = 1 << 20
_END = bytes(tarfile.BLOCKSIZE)  # every archive ends in at least two such blocks


class ShardPhoto(NamedTuple):
    """A photo in a shard: its name there, its content, and its label and part where it has them."""

    name: str
    content: Content
    label: str | None = None
    split: str | None = None


@dataclass
class _Sample:
    """Members of one name, as far as they have been read."""

    key: str = ""
    photos: list[tuple[str, Content]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # name → text, or the values of a .json
    held: int = 0  # bytes of photos in memory

    def read(self, columns: Mapping[str, tuple[str, ...]]) -> Iterator[ShardPhoto]:
        for name, content in self.photos:
            label, split = self._note(name, ".cls"), None
            if (values := self._note(name, ".json")) is not None:
                values = values if isinstance(values, dict) else {"label": values}
                found = {role: _value(values, names) for role, names in columns.items()}
                label, split = label or found["label"], found["split"]
            yield ShardPhoto(name, content, label or self._note(name, ".txt") or None, split)

    def _note(self, photo: str, suffix: str) -> Any:
        """What is said of this photo, or else of the sample: names may have dots of their own."""
        own = self.notes.get(photo.removesuffix(PurePosixPath(photo).suffix) + suffix)
        return self.notes.get(self.key + suffix) if own is None else own

    def add(self, name: str, content: Content) -> None:
        self.photos.append((name, content))
        if isinstance(content, bytes):
            self.held += len(content)


def read_tar(
    file: IO[bytes], shard: Path, columns: Mapping[str, tuple[str, ...]], *, on_disk: bool
) -> Iterator[ShardPhoto]:
    """The photos of an archive, in its order; one sample is in memory at a time.

    file     the archive from its start, also from a pipe
    shard    its path, which decides whether it is compressed
    columns  "label" and "split" → what these may be called in a .json member
    on_disk  ``shard`` is a local file: photos are then left where they are, unless it is compressed

    Raises OSError where the archive is damaged or ends early, after the photos before that.
    """
    compressed = shard.name.lower().partition("?")[0].endswith("gz")
    state = file_state(file) if on_disk and not compressed else None
    stream: Any = _Tail(gzip.GzipFile(fileobj=file) if compressed else file)
    names: set[str] = set()
    sample = _Sample()
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as opened:
            archive: Any = opened  # whose list of members has no type
            while (member := archive.next()) is not None:
                archive.members.clear()  # else it keeps all of them
                if not 0 <= member.size <= _MAX_MEMBER:
                    raise tarfile.ReadError(f"{member.name!r} can't have {member.size} bytes")
                if not member.isfile() or (name := _clean(member.name)) is None:
                    continue
                if name in names:
                    raise OSError(f"it holds {name!r} twice")
                names.add(name)
                key, suffix = _key(name), PurePosixPath(name).suffix.lower()
                # A sample that fills the memory is rather many, with dots in their names.
                if key != sample.key or sample.held > _MOST_HELD:
                    yield from sample.read(columns)
                    sample = _Sample(key)
                if suffix in _LABEL_SUFFIXES:
                    text = _text(archive, member)
                    sample.notes[name[: -len(suffix)] + suffix] = (
                        json.loads(text) if suffix == ".json" else text
                    )
                elif suffix in image_suffixes():
                    sample.add(name, _content(archive, member, shard, state))
        yield from sample.read(columns)
        while stream.read(_BLOCK):
            pass
    except (tarfile.TarError, EOFError, ValueError, RecursionError, zlib.error) as error:
        del sample.photos[-1:]  # which may be cut
        yield from sample.read(columns)
        raise OSError(f"the archive is damaged or ends early: {error}") from error
    finally:
        stream.release()
    if stream.tail != _END:
        raise OSError("the archive ends early")


class _Tail:
    """A stream that remembers its last block: a cut archive may end between two members."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file: IO[bytes] | gzip.GzipFile = file
        self.tail = b""

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.tail = (self.tail + content[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        return content

    def release(self) -> None:
        """Forget the file: an archive refers to itself, so it stays until garbage is collected."""
        self._file = io.BytesIO()


def _content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path, state: FileState | None
) -> Content:
    """Where the photo is in ``shard``, a file of that state, or else its bytes."""
    if member.issparse():
        return OSError("it is stored without its zeros")
    if member.size > MAX_PHOTO_BYTES:
        return OSError(f"it is longer than {MAX_PHOTO_BYTES >> 20} MiB")
    if state is not None:
        return FileSpan(shard, member.offset_data, member.size, state=state)
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    if member.size > _MAX_LABEL or file is None:
        raise ValueError(f"{member.name} is longer than {_MAX_LABEL >> 20} MiB")
    try:
        return file.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{member.name} is not UTF-8") from error


def _value(values: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    for name, value in values.items():
        if name.strip().lower() in names and value is not None and value != "":
            return str(value)
    return None


def _clean(name: str) -> str | None:
    """The name without what could lead out of the shard; None for a hidden file."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts or any(part.startswith(".") for part in parts):
        return None
    return "/".join(parts)


def _key(name: str) -> str:
    """What the members of a sample share: the path up to the first dot of the name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]
