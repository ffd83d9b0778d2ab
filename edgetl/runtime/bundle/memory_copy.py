"""A file's content in memory of our own: what was checked is what is run, whatever becomes of the file meanwhile."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, TypeAlias

Content: TypeAlias = "mmap.mmap | bytearray | bytes"

_BLOCK = 1 << 16  # bytes; in larger ones glibc keeps what is freed


class PrivateCopy:
    """Made by ``private_copy``."""

    def __init__(self, content: bytearray | None, file: IO[bytes] | None) -> None:
        self._content, self._file = content, file

    @property
    def source(self) -> IO[bytes] | bytes:
        """What onnxruntime is to load: an open file in memory, where there are such, else bytes."""
        return self._file or bytes(self._content or b"")

    @contextmanager
    def content(self) -> Iterator[mmap.mmap | bytearray]:
        """All of it, to be changed in place. Mapped no longer than needed: it would count beside what is made of it."""
        if self._file is None:
            assert self._content is not None
            yield self._content
        else:
            with mmap.mmap(self._file.fileno(), 0) as mapped:
                yield mapped


@contextmanager
def private_copy(file: BufferedReader) -> Iterator[PrivateCopy]:
    """Copy ``file`` from its start on. On Linux onnxruntime then reads it by a path, so that it stands in memory once."""
    try:
        memory = os.fdopen(os.memfd_create("model"), "w+b", buffering=0)
    except (AttributeError, OSError):  # not Linux, or not allowed there
        file.seek(0)
        yield PrivateCopy(bytearray(file.read()), None)
        return
    with memory:
        try:
            _copy(file, memory)
        except OSError:  # no room for it there (a limit on the size of files counts, too)
            file.seek(0)
            yield PrivateCopy(bytearray(file.read()), None)
            return
        empty = memory.tell() == 0  # which can't be mapped
        memory.seek(0)
        yield PrivateCopy(bytearray(), None) if empty else PrivateCopy(None, memory)


def _copy(file: BufferedReader, memory: IO[bytes]) -> None:
    length = os.fstat(file.fileno()).st_size
    position = 0
    try:
        while position < length:  # inside the kernel, 2 of 10 ms sooner
            position += (
                os.sendfile(memory.fileno(), file.fileno(), position, length - position) or length
            )
    except OSError:  # not from this file system
        pass
    file.seek(position)
    while position < length:
        block = file.read(_BLOCK)
        if memory.write(block) != len(block):
            raise OSError("no room")
        position += len(block) or length  # a file cut short meanwhile doesn't fit its checksum
    memory.seek(0, os.SEEK_END)
