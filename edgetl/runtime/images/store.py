"""Reading from stores through fsspec: s3://, gs://, az://, https:// … Nothing is written to them.

Credentials are those that each store's own package finds: environment variables, files in the home
folder, the machine's role. What fails for a reason that can pass, such as an answer of 503 or a
broken connection, is tried again, a little later each time.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

from edgetl.errors import DataError, EdgetlError, MissingDependencyError
from edgetl.runtime.images.stored_path import UNREACHABLE

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

_PAUSES = (0.5, 1, 2, 4, 8)  # seconds before another try
_is_away = False  # whether the last tries were all in vain
_BLOCK = 8 << 20  # bytes per request of a shard
_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, ValueError, TypeError, NotImplementedError),
)
_MAY_PASS_STATUS = (408, 425, 429)  # of HTTP's client errors
# Of botocore, google-auth and azure-identity, which are not imported for their names.
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")


def read_object(address: str) -> bytes:
    """The bytes of an object. Raises OSError with a reason that is meant to be read."""

    def read() -> bytes:
        store, path = _open(address)
        content: bytes = store.cat_file(path)
        return content

    return _tried(_os_error, address, read)


def object_size(address: str) -> int:
    """The size of an object in bytes, 0 if the store does not say. Raises OSError."""

    def look() -> int:
        store, path = _open(address)
        found = store.info(path)
        if found["type"] == "directory":
            raise IsADirectoryError(address)
        return int(found["size"] or 0)

    return _tried(_os_error, address, look)


def open_object(address: str) -> IO[bytes]:
    """An object as a file that asks for a block at a time. Raises DataError.

    From the web, a temporary copy: many servers send no parts of files, and fsspec can take a whole
    file for a part.
    """

    def download() -> IO[bytes]:
        store, path = _open(address)
        file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        try:
            store.get_file(path, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    if _is_web(address):
        return _tried(_data_error, address, download)
    return _tried(_data_error, address, lambda: io.BufferedReader(_ObjectReader(address), _BLOCK))


def list_objects(address: str) -> list[str]:
    """The addresses of all objects below a folder, or its own if it is an object; sorted.

    Raises DataError if there is none.
    """

    def look() -> list[str]:
        store, path = _open(address)
        # On the web, folders that can't be listed would be left out.
        options = {"on_error": "raise"} if _is_web(address) else {}
        found: list[str] = sorted(store.find(path, **options))
        if not found:
            store.info(path)  # raises FileNotFoundError
        return [address.rstrip("/") + name.removeprefix(path.rstrip("/")) for name in found]

    return _tried(_data_error, address, look)


def matching_objects(pattern: str) -> list[str]:
    """The addresses that match a pattern with * and ?, sorted. Raises DataError."""

    def look() -> list[str]:
        store, path = _open(pattern)
        begin = pattern.removesuffix(path)
        return [begin + name for name in sorted(store.glob(path))]

    return _tried(_data_error, pattern, look)


def _retried(action: Callable[[], T]) -> T:
    """What ``action`` returns, tried again where its exception may not come again.

    Once all tries were in vain, others are made only once, until one succeeds: while a store is
    away, a million photos must not be waited for one by one.
    """
    global _is_away
    for pause in (*_PAUSES, None):
        try:
            found = action()
        except Exception as error:
            if _is_final(_cause(error)):
                raise
            if pause is None or _is_away:
                _is_away = True
                raise
            time.sleep(pause)
        else:
            _is_away = False
            return found
    raise AssertionError("the last try returns or raises")


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
        content = _tried(_os_error, self._address, lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()

    def _open(self) -> Any:
        store, path = _open(self._address)
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


def _open(address: str) -> tuple[AbstractFileSystem, str]:
    """(store, path in it). Raises DataError for an address with a password."""
    user, at, host = address.partition("://")[2].partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise DataError(
            f"An address of {host} has a password in it, which results and messages would show.",
            "Leave it out, and give credentials as the store's own package reads them.",
        )
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError("fsspec", f"Reading {address}", "remote") from error
    # A listing of millions of objects would stay in memory, and another program may add some.
    store, path = url_to_fs(address, use_listings_cache=False, **_options(address))
    return store, path


def _options(address: str) -> dict[str, Any]:
    """botocore would try again for minutes, inside of each try here."""
    if address.startswith(("s3://", "s3a://")):
        return {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    return {}


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _cause(error: BaseException) -> BaseException:
    """The error itself, or what fsspec's HTTP calls a missing file, such as an answer of 503."""
    cause = error.__cause__
    is_http = cause is not None and type(cause).__module__.startswith("aiohttp")
    if cause is None or not is_http or getattr(cause, "status", None) == 404:
        return error
    return cause


def _is_final(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _MAY_PASS_STATUS
    return isinstance(error, (*_FINAL, EdgetlError)) or type(error).__name__ in _NO_CREDENTIALS


def _is_refused(error: BaseException) -> bool:
    return (
        isinstance(error, PermissionError)
        or getattr(error, "status", None) in (401, 403)
        or type(error).__name__ in _NO_CREDENTIALS
    )


def _tried(
    make_error: Callable[[str, BaseException], Exception], address: str, action: Callable[[], T]
) -> T:
    """What ``action`` returns. Raises what ``make_error`` makes, MissingDependencyError."""
    try:
        return _retried(action)
    except EdgetlError:
        raise
    except ImportError as error:
        raise _missing_package(address, error) from error
    except Exception as error:
        raise make_error(address, _cause(error)) from error


def _os_error(address: str, cause: BaseException) -> OSError:
    """The error of a photo."""
    if isinstance(cause, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    if _is_refused(cause):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), address)
    return OSError(errno.EIO, UNREACHABLE, address)


def _data_error(address: str, cause: BaseException) -> DataError:
    """The error of a place or shard."""
    if isinstance(cause, FileNotFoundError):
        hint = "Check the address; does the bucket exist?"
        return DataError(f"There is no {address}.", hint)
    if _is_refused(cause):
        return DataError(
            f"{address}: the store refuses access ({_text(cause)}).",
            "Set the store's usual credentials, such as AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, and check what they may read.",
        )
    if isinstance(cause, ValueError) and str(cause).startswith("Protocol not known"):
        return DataError(
            f"{address}: {address.partition('://')[0]}:// is no kind of address that fsspec knows.",
            "Use one such as s3://, gs://, az:// or https://, or install the package for it.",
        )
    return DataError(
        f"{address} can't be read: {_text(cause)}.", "Check the address and the connection."
    )


def _missing_package(address: str, error: ImportError) -> MissingDependencyError:
    package = (error.name or "").partition(".")[0]
    for word in str(error).split():  # fsspec: "Install s3fs to access S3"
        if word in ("s3fs", "gcsfs", "adlfs", "aiohttp"):
            package = word
    return MissingDependencyError(package or "a package", f"Reading {address}", "remote")


def _text(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
