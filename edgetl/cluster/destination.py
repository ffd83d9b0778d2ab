"""Where the parts of a result are written: a folder, or an address in a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from edgetl.errors import ResultsError
from edgetl.runtime.images.stored_path import is_address
from edgetl.system.atomic_write import atomic_write
from edgetl.system.remote_store import open_store, store_error, tried

T = TypeVar("T")

_LOCAL_ADDRESS = "file://"


class Destination:
    """A folder of files that are written whole or not at all, by any number of processes.

    name  a path, which need not exist, or an address such as "s3://bucket/answers"

    Stores are waited for, for some minutes, where they answer that they are busy. Every method
    raises ResultsError for a place that can't be read or written; MissingDependencyError.
    """

    def __init__(self, name: str) -> None:
        name = name.removeprefix(_LOCAL_ADDRESS)
        self.name = name.rstrip("/") or name
        self.is_local = not is_address(name)

    def __str__(self) -> str:
        return self.name

    def write(self, file: str, content: bytes) -> None:
        """Write one file; another process sees the old content or the new one."""
        if self.is_local:
            self._local(lambda: self._write_local(Path(self.name) / file, content), "written")
            return

        def put() -> None:
            store, path = open_store(self._address(file))
            store.pipe_file(path, content)

        tried(partial(store_error, ResultsError, "write"), self.name, put, patient=True)

    def read(self, file: str) -> bytes | None:
        """The content of one file; None if there is none of this name."""
        if self.is_local:
            return self._local(lambda: _content(Path(self.name) / file), "read")

        def get() -> bytes | None:
            store, path = open_store(self._address(file))
            try:
                content: bytes = store.cat_file(path)
            except FileNotFoundError:
                return None
            return content

        return tried(partial(store_error, ResultsError, "read"), self.name, get, patient=True)

    def files(self, *, patient: bool = True) -> list[str]:
        """The names of what is there, without those that begin with a point.

        patient  wait for minutes, as for what a run that has begun depends on
        """
        if self.is_local:
            return self._local(self._local_files, "read")

        def look() -> list[str]:
            store, path = open_store(self.name)
            found = store.find(path, maxdepth=1)
            return [str(name).rpartition("/")[2] for name in found]

        found = tried(partial(store_error, ResultsError, "read"), self.name, look, patient=patient)
        return sorted(name for name in found if not name.startswith("."))

    def remove_unfinished(self) -> None:
        """Remove what killed processes were writing."""
        if self.is_local:
            self._local(self._remove_unfinished, "written")

    def _remove_unfinished(self) -> None:
        for file in Path(self.name).glob(".*.part"):
            file.unlink(missing_ok=True)

    def _local_files(self) -> list[str]:
        try:
            names = [path.name for path in Path(self.name).iterdir()]
            return sorted(name for name in names if not name.startswith("."))
        except FileNotFoundError:
            return []

    def _write_local(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda temporary: temporary.write_bytes(content))

    def _local(self, action: Callable[[], T], verb: str) -> T:
        try:
            return action()
        except OSError as error:
            raise ResultsError(
                f"{self.name} can't be {verb}: {error.strerror or error}.",
                "Name another folder with --out, or make room.",
            ) from error

    def _address(self, file: str) -> str:
        return f"{self.name}/{file}"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
