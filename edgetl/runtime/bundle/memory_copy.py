"""A copy of a file in memory: what was verified is what runs, even if the file changes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, TypeAlias

Content: TypeAlias = "mmap.mmap | bytearray | bytes"

_BLOCK = 1 << 16  # bytes; glibc does not return larger blocks to the system


class InMemoryCopy:
    """Made by ``in_memory_copy``."""

    def __init__(self, content: bytearray | None, file: IO[bytes] | None) -> None:
        self._content, self._file = content, file

    @property
    def source(self) -> IO[bytes] | bytes:
        """What onnxruntime loads: an open file in memory where the system has them, else bytes."""
        return self._file or bytes(self._content or b"")

    @contextmanager
    def content(self) -> Iterator[mmap.mmap | bytearray]:
        """The whole content, which may be changed in place.

        Mapped only while it is needed: it would count as memory beside what is made of it.
        """
        if self._file is None:
            assert self._content is not None
            yield self._content
        else:
            with mmap.mmap(self._file.fileno(), 0) as mapped:
                yield mapped


@contextmanager
def in_memory_copy(file: BufferedReader) -> Iterator[InMemoryCopy]:
    """Copy all of ``file``.

    On Linux the copy is a file in memory, which onnxruntime reads by its path, so that the content
    is in memory only once.
    """
    try:
        memory = os.fdopen(os.memfd_create("model"), "w+b", buffering=0)
    except (AttributeError, OSError):  # not Linux, or not allowed there
        file.seek(0)
        yield InMemoryCopy(bytearray(file.read()), None)
        return
    with memory:
        try:
            _copy(file, memory)
        except OSError:  # no room for it there; a limit on the size of files applies as well
            file.seek(0)
            yield InMemoryCopy(bytearray(file.read()), None)
            return
        empty = memory.tell() == 0  # an empty file can't be mapped
        memory.seek(0)
        yield InMemoryCopy(bytearray(), None) if empty else InMemoryCopy(None, memory)


def _copy(file: BufferedReader, memory: IO[bytes]) -> None:
    source, target = file.fileno(), memory.fileno()
    length = os.fstat(source).st_size
    position = 0
    try:
        while position < length:  # inside the kernel: 8 instead of 10 ms
            position += os.sendfile(target, source, position, length - position) or length
    except OSError:  # not supported by this file system
        pass
    file.seek(position)
    while position < length:
        block = file.read(_BLOCK)
        if memory.write(block) != len(block):
            raise OSError("no room")
        position += len(block) or length  # a file that was cut short will fail its checksum
    memory.seek(0, os.SEEK_END)
