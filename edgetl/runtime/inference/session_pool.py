"""The onnxruntime sessions of one model, opened when first needed, and again after a fork."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import (
    Bundle,
    open_to_read,
    os_errors_as_bundle_error,
    require_model,
)
from edgetl.runtime.bundle.embedded_checksum import verify_checksum
from edgetl.runtime.bundle.memory_copy import in_memory_copy
from edgetl.runtime.bundle.tensor_names import EVIDENCE
from edgetl.runtime.inference.protobuf_edits import (
    apply_edits,
    edits_to_start_at_resized,
    edits_without_output,
)
from edgetl.runtime.inference.session import Providers, open_session

if TYPE_CHECKING:
    import onnxruntime


class ReplacedError(BundleError):
    """The model was replaced after it was opened."""


class SessionPool:
    """One session for each number of threads, all of the same, verified model file.

    They leave out the model's evidence, which costs time, but for those that are asked for it.

    path       absolute path of a bundle folder or a lone model.onnx
    bundle     the opened bundle, or None for a lone model
    precision  which of the bundle's models; None: its default
    providers  execution providers, see ``Providers``

    May be shared by threads, and works in a forked process.
    """

    def __init__(
        self, path: Path, bundle: Bundle | None, precision: str | None, providers: Providers
    ) -> None:
        self._path, self._bundle, self._providers = path, bundle, providers
        self._file_name = bundle.model_name(precision) if bundle else ""
        self._identity: tuple[int, ...] | None = None  # of a lone model's file
        self._forget_sessions()
        _pools.add(self)

    def get(self, threads: int | None, *, evidence: bool = False) -> onnxruntime.InferenceSession:
        """The session with ``threads`` threads in each run (None: one per core).

        evidence  it gives the model's evidence, too, if there is some

        Raises ReplacedError if the model was replaced since, BundleError if it is damaged or can't
        be loaded, RuntimeUnavailableError, MissingDependencyError.
        """
        key = threads, evidence
        session = self._sessions.get(key)
        if session is None:
            with self._lock:
                session = self._sessions.get(key)
                if session is None:
                    try:
                        session = self._sessions[key] = self._open(threads, evidence)
                    except BundleError as error:
                        if self._is_replaced():
                            raise self._replaced() from error
                        raise
        return session

    def sha256(self) -> str:
        """SHA-256 of the model file, as hex digits. Raises BundleError."""
        if self._bundle is not None:
            return str(self._bundle.manifest["files"][self._file_name]["sha256"])
        with self._open_lone_model() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _open(self, threads: int | None, evidence: bool) -> onnxruntime.InferenceSession:
        if self._bundle is not None:
            file, path = self._bundle.open_file(self._file_name), self._path / self._file_name
        else:
            file, path = self._open_lone_model(), self._path
        with os_errors_as_bundle_error(path), file, in_memory_copy(file) as copy:
            with copy.content() as content:
                # It may be damaged, or not the one that was opened.
                if self._bundle is None:
                    verify_checksum(self._path, content)
                else:
                    self._bundle.check(self._file_name, content)
                edits = edits_to_start_at_resized(content) or {}
                if not evidence:
                    edits |= edits_without_output(content, EVIDENCE) or {}
                original = {position: content[position] for position in edits}
                apply_edits(content, edits)
            open_copy = partial(open_session, providers=self._providers, threads=threads, name=path)
            try:
                return open_copy(copy.source)
            except BundleError:  # saved by another program, which may have reordered its nodes
                if not edits:
                    raise
            with copy.content() as content:
                apply_edits(content, original)
            return open_copy(copy.source)

    def _is_replaced(self) -> bool:
        """Whether there is another bundle now, which explains any error."""
        if self._bundle is None:
            return False
        try:
            return Bundle.open(self._path).manifest != self._bundle.manifest
        except BundleError:
            return False

    def _open_lone_model(self) -> BufferedReader:
        """The same file each time, open for reading. Raises BundleError."""
        with os_errors_as_bundle_error(self._path):
            require_model(self._path)
            if not self._path.is_file():
                raise BundleError(self._path, "it is not a regular file")
        file = open_to_read(self._path)
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._identity not in (None, identity):
            file.close()
            raise self._replaced()
        self._identity = identity
        return file

    def _replaced(self) -> ReplacedError:
        return ReplacedError(
            self._path,
            "it was replaced after it was loaded",
            "Make a new Predictor for the new model.",
        )

    def _forget_sessions(self) -> None:
        self._sessions: dict[tuple[int | None, bool], onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def _after_fork(self) -> None:
        """Replace the sessions in a forked process: their threads exist in the parent only.

        A run would wait for those threads for ever, and so would the session's destructor. An extra
        reference keeps the old sessions from being destroyed, even at the end of the process.
        """
        import ctypes

        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._forget_sessions()


_pools: weakref.WeakSet[SessionPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_after_fork)
