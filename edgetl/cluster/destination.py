"""Where the parts of a result are written: a folder, or an address in a store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

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

        def put() -> None:
            if not self.is_local:
                store, address = open_store(f"{self.name}/{file}")
                store.pipe_file(address, content)
                return
            path = Path(self.name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, lambda temporary: temporary.write_bytes(content))

        self._tried("write", put)

    def read(self, file: str) -> bytes | None:
        """The content of one file; None if there is none of this name."""

        def get() -> bytes | None:
            try:
                if self.is_local:
                    return (Path(self.name) / file).read_bytes()
                store, address = open_store(f"{self.name}/{file}")
                content: bytes = store.cat_file(address)
            except FileNotFoundError:
                return None
            return content

        return self._tried("read", get)

    def files(self, *, patient: bool = True) -> list[str]:
        """The names of what is there, without those that begin with a point.

        patient  wait for minutes, as for what a run that has begun depends on
        """

        def look() -> list[str]:
            if not self.is_local:
                store, address = open_store(self.name)
                return [str(name) for name in store.find(address, maxdepth=1)]
            with suppress(FileNotFoundError):
                return [path.name for path in Path(self.name).iterdir()]
            return []

        names = (name.rpartition("/")[2] for name in self._tried("read", look, patient=patient))
        return sorted(name for name in names if not name.startswith("."))

    def remove_unfinished(self) -> None:
        """Remove what killed processes were writing."""

        def remove() -> None:
            for file in Path(self.name).glob(".*.part"):
                file.unlink(missing_ok=True)

        if self.is_local:
            self._tried("write", remove)

    def _tried(
        self, verb: Literal["read", "write"], action: Callable[[], T], *, patient: bool = True
    ) -> T:
        if not self.is_local:
            make_error = partial(store_error, ResultsError, verb)
            return tried(make_error, self.name, action, patient=patient)
        try:
            return action()
        except OSError as error:
            raise ResultsError(
                f"{self.name} can't be {'read' if verb == 'read' else 'written'}: "
                f"{error.strerror or error}.",
                "Name another folder with --out, or make room.",
            ) from error
