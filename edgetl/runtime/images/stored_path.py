"""Paths of photos that are no files of their own: objects of a store, bytes within a shard.

Code that works on files works on them as well: they have names, parents and suffixes, and are read
with ``open``, ``read_bytes`` and ``stat``. Nothing is ever written to them.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

# pathlib chooses a class for the system; only that one can be subclassed in every version.
if TYPE_CHECKING:
    _SystemPath = Path
else:
    _SystemPath = type(Path())
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*:/+")


FileState = tuple[int, int, int]
"""Inode, size in bytes and time of the last change of a file: another one differs in some."""


def file_state(file: IO[bytes]) -> FileState:
    """That of an open file."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class FileSpan:
    """Bytes ``offset`` … ``offset + size`` of a local file.

    owner  keeps a temporary file in place as long as one of its spans is in use
    state  the file's ``file_state`` when the span was found; None: no other program writes it
    """

    file: Path
    offset: int
    size: int
    owner: object = field(default=None, compare=False, repr=False)
    state: FileState | None = field(default=None, compare=False, repr=False)

    def read(self) -> bytes:
        """Raises OSError, also where the file was changed or replaced."""
        with self.file.open("rb") as file:
            if self.state not in (None, file_state(file)):
                raise OSError(f"{self.file} was changed after its photos were listed")
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.file} has become shorter")
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        # The owner stays in its process.
        return FileSpan, (self.file, self.offset, self.size, None, self.state)


Content = bytes | FileSpan | OSError
"""What a photo's bytes are, where they are, or why they can't be read."""


class StoredPath(_SystemPath):
    """The path of a photo in a store or a shard, or of a folder there.

    Its text is the address, such as "s3://bucket/cats/1.jpg", or "shards/000.tar/cats/1.jpg".
    """

    content: Content | None = None  # None: the object at this address
    _address: str | None = None  # as it was given, since pathlib shortens some
    label: str | None = None  # the true one, where the shard says it

    @classmethod
    def at(cls, address: str) -> StoredPath:
        """The object or folder at an address."""
        return _restored(address, None, address, None)

    @classmethod
    def holding(cls, name: str | Path, content: Content, label: str | None = None) -> StoredPath:
        """A photo whose content is known, and maybe its label."""
        return _restored(name, content, getattr(name, "_address", None), label)

    @property
    def address(self) -> str:
        """As it was given, of something in a store; else the path."""
        return self._address or str(self)

    def read_bytes(self) -> bytes:
        """The photo's file. Raises OSError."""
        if isinstance(self.content, OSError):
            raise self.content
        if isinstance(self.content, FileSpan):
            return self.content.read()
        if self.content is not None:
            return self.content
        from edgetl.runtime.images.store import read_object

        return read_object(self.address)

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[bytes]:  # type: ignore[override]
        """As ``Path.open`` in mode "rb", the only one. Raises OSError."""
        if mode != "rb":
            raise ValueError(f"{self} can only be opened with mode 'rb', not {mode!r}")
        return BytesIO(self.read_bytes())

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind and size alone. Raises OSError."""
        if isinstance(self.content, OSError):
            raise self.content
        if isinstance(self.content, FileSpan):
            size = self.content.size
        elif self.content is not None:
            size = len(self.content)
        elif is_address(str(self)):
            from edgetl.runtime.images.store import object_size

            size = object_size(self.address)
        else:
            return super().stat()
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it can be read, as far as that is known without reading it."""
        try:
            self.stat()
        except OSError:
            return False
        return True

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """As ``exists``: folders of stores are names only."""
        return self.exists()

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """No: folders of stores are names only."""
        return False

    def is_symlink(self) -> bool:
        """No: a store has none."""
        return False

    def is_absolute(self) -> bool:
        """Whether it does not depend on the current folder, as no address does."""
        return is_address(str(self)) or super().is_absolute()

    def absolute(self) -> StoredPath:
        """Itself, where it is an address."""
        return self if self.is_absolute() else super().absolute()

    def __str__(self) -> str:
        # pathlib takes the second slash of an address for one too many.
        text = super().__str__()
        begin = _ADDRESS.match(text)
        if begin is None:
            return text
        slashes = "///" if begin[0].startswith("file:") else "//"  # which has no host
        return begin[0].rstrip("/") + slashes + text[begin.end() :].replace("\\", "/")

    def __fspath__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (str(self), self.content, self._address, self.label)


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether ``name`` is that of something in a store, such as "s3://bucket/photos"."""
    begin = _ADDRESS.match(os.fspath(name))
    return begin is not None and "://" in begin[0]


def as_place(name: str | os.PathLike[str]) -> Path:
    """The path of a file or folder, or that of an address."""
    if isinstance(name, Path):
        return name
    return StoredPath.at(os.fspath(name)) if is_address(name) else Path(name)


def absolute_name(name: str | os.PathLike[str]) -> str:
    """The name of the same file or folder from wherever it is read; an address as it is."""
    return os.fspath(as_place(name).absolute())


def _restored(
    name: str | Path, content: Content | None, address: str | None, label: str | None
) -> StoredPath:
    path = StoredPath(name)
    path.content, path._address, path.label = content, address, label
    return path
