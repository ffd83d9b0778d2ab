"""Reading photos and shards from stores: s3://, gs://, az://, https:// … Nothing is written."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from edgetl.errors import DataError
from edgetl.runtime.images.unreadable import MAX_PHOTO_BYTES, UNREACHABLE
from edgetl.system.remote_store import S3, is_refused, is_web, open_store, store_error, tried

_BLOCK = 8 << 20  # bytes per request of a shard


def read_object(address: str) -> bytes:
    """The bytes of an object. Raises OSError with a reason that is meant to be read.

    That of an object longer than ``MAX_PHOTO_BYTES`` is that it is: no more of it is read.
    """

    def read() -> bytes:
        store, path = open_store(address)
        if is_web(address):
            buffer = _Buffer()
            store.get_file(path, buffer)
            return buffer.getvalue()
        try:
            # A part of known length takes one request, where s3fs asks for the size of a whole one.
            content: bytes = store.cat_file(path, start=0, end=MAX_PHOTO_BYTES + 1)
        except Exception:
            if store.info(path)["size"] != 0:  # of an empty object, no part can be read
                raise
            return b""
        if len(content) > MAX_PHOTO_BYTES:
            raise _TooLongError
        return content

    return tried(object_error, address, read)


def wait_for_object(address: str) -> None:
    """Wait until an object can be read, for some minutes. Raises OSError."""

    def look() -> None:
        store, path = open_store(address)
        if is_web(address):  # many servers answer with the whole file
            store.info(path)
        else:
            store.cat_file(path, start=0, end=1)

    tried(object_error, address, look, patient=True)


def object_size(address: str) -> int:
    """The size of an object in bytes, 0 if the store does not say. Raises OSError."""

    def look() -> int:
        store, path = open_store(address)
        found = store.info(path)
        if found["type"] == "directory":
            raise IsADirectoryError(address)
        return int(found["size"] or 0)

    return tried(object_error, address, look)


def open_object(address: str) -> IO[bytes]:
    """An object as a file that asks for a block at a time. Raises DataError.

    From the web, a temporary copy: many servers send no parts of files, and fsspec can take a whole
    file for a part.
    """

    def download() -> IO[bytes]:
        store, path = open_store(address)
        file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        try:
            store.get_file(path, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    if is_web(address):
        return tried(_data_error, address, download)
    return tried(_data_error, address, lambda: io.BufferedReader(_ObjectReader(address), _BLOCK))


def list_objects(address: str) -> Iterator[str]:
    """The addresses of all objects below a folder, sorted. Raises DataError if there is none.

    Those of S3 come page by page, so that a folder of any size takes little memory; of other
    stores, fsspec lists all at once.
    """
    if address.startswith(S3):
        return _s3_objects(address)

    def look() -> list[str]:
        store, path = open_store(address)
        # On the web, folders that can't be listed would be left out.
        options = {"on_error": "raise"} if is_web(address) else {}
        found: list[str] = sorted(store.find(path, **options))
        if not found:
            store.info(path)  # raises FileNotFoundError
        return [address.rstrip("/") + name.removeprefix(path.rstrip("/")) for name in found]

    return iter(tried(_data_error, address, look))


def _s3_objects(address: str) -> Iterator[str]:
    """In S3's own order, which is sorted."""

    def look() -> tuple[list[str], dict[str, str]]:
        """The keys of the page that begins at ``start``, and where the next one does."""
        store, path = open_store(address)
        bucket, prefix, _ = store.split_path(path.rstrip("/") + "/")
        page = store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **start)
        keys = [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ())]
        if not (keys or start):
            store.info(path)  # raises FileNotFoundError
        token = page.get("NextContinuationToken")
        return keys, {"ContinuationToken": token} if token else {}

    start: dict[str, str] = {}
    while True:
        keys, start = tried(_data_error, address, look)
        yield from (f"{address.rstrip('/')}/{key}" for key in keys if not key.endswith("/"))
        if not start:
            return


def matching_objects(pattern: str) -> list[str]:
    """The addresses that match a pattern with * and ?, sorted. Raises DataError."""

    def look() -> list[str]:
        store, path = open_store(pattern)
        begin = pattern.removesuffix(path)
        return [begin + name for name in sorted(store.glob(path))]

    return tried(_data_error, pattern, look)


class _ObjectReader(io.RawIOBase):
    """An object's bytes; a read that fails is tried again where it stopped."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._position = 0
        self._file: Any = None  # as it stays if it can't be opened
        self._file = self._open()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence, self._file.size)
        self._position = max(begin + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = tried(object_error, self._address, lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()

    def _open(self) -> Any:
        store, path = open_store(self._address)
        # The buffer above asks for whole blocks: a second cache would hold them twice.
        return store.open(path, "rb", cache_type="none")

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open()
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            content: bytes = self._file.read(size)
        except Exception:
            self._file = None  # its connection may be broken: the next try opens another
            raise
        return content


class _TooLongError(ValueError):
    """An object that is longer than ``MAX_PHOTO_BYTES``."""


class _Buffer(io.BytesIO):
    """Takes the bytes of a photo. Raises _TooLongError: a server may send without end."""

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > MAX_PHOTO_BYTES:
            raise _TooLongError
        return super().write(content)


def object_error(address: str, cause: BaseException) -> OSError:
    """Why a photo, or a shard in place of its photos, can't be read."""
    if isinstance(cause, _TooLongError):
        return OSError(errno.EFBIG, f"it is longer than {MAX_PHOTO_BYTES >> 20} MiB", address)
    if isinstance(cause, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    if is_refused(cause):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), address)
    return OSError(errno.EIO, UNREACHABLE, address)


_data_error = partial(store_error, DataError, "read")  # of a place or shard
