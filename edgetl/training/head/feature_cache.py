"""Features kept on disk, found again by the content of the photo and everything else that they depend on.

    <root>/<recipe>/<sha256>.npy        one shard: an array of (digest of the photo, feature), named by a checksum

A shard is written once, under a name that is the checksum of its recipe and content, and renamed into place. One that
is damaged, of another recipe or no shard at all is seen and thrown away, a killed run leaves whole shards, and runs
that write at the same time can't disturb each other. A run that adds to a cache then removes the shards that were not
used for longest, down to ``MOST_BYTES``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TrainingError
from edgetl.system.temporary_folder import umask
from edgetl.training.config.settings import flag

MOST_BYTES = 4 << 30  # features of about 600,000 photos by the default backbone

_FORMAT = 2
_DIGEST_BYTES = 32
_RECIPE_NAME, _SHARD_NAME = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}\.npy")
_TEMPORARY_NAME = re.compile(r"tmp\w+\.tmp")
_STALE_SECONDS = 24 * 3600  # a temporary file that old was left by a run that was killed


def cache_folder(where: str) -> Path | None:
    """Where features are kept: "off": nowhere; "auto": ``$XDG_CACHE_HOME/edgetl/features`` or
    ``~/.cache/edgetl/features``, and nowhere for a user without a home; else the folder of that name.

    Raises TrainingError for an empty name.
    """
    if not where.strip():
        raise TrainingError(
            f"{flag('feature_cache')} is {where!r}; it takes auto, off, or a folder."
        )
    if where.lower() != "auto":
        return None if where.lower() == "off" else Path(where)
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "edgetl" / "features"
    except RuntimeError:  # a user without a home folder, as in some containers
        return None


class FeatureCache:
    """Features of photos for one recipe (backbone, weights, preprocessing, runtime).

    In memory and, where ``root`` is given and can be used, on disk. Trouble with the disk is never fatal: it is
    said in ``problem`` and the features stay in memory.

    shards  the files that were read or written
    """

    def __init__(self, root: Path | None, recipe: Mapping[str, Any]) -> None:
        self.problem: str | None = None
        self.shards: set[Path] = set()
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._folder: Path | None = None
        if root is not None:
            canonical = json.dumps({"format": _FORMAT, **recipe}, sort_keys=True).encode()
            self._folder = root / hashlib.sha256(canonical).hexdigest()[:32]
            self._read()

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: str) -> NDArray[np.float32]:
        """float32 [features] of the photo whose file has the SHA-256 ``digest`` (hex). KeyError if it is not here."""
        return self._rows[digest]

    def add(self, digests: Sequence[str], features: NDArray[np.float32]) -> None:
        """Keep float32 [N, features], one row for each digest, and write them as one shard."""
        self._rows.update(zip(digests, features, strict=True))
        if self._folder is None or not digests:
            return
        shard = np.empty(len(digests), _row_type(features.shape[1]))
        shard["digest"] = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(
            -1, _DIGEST_BYTES
        )
        shard["feature"] = features
        try:
            self.shards.add(_write(self._folder, shard))
        except OSError as error:
            self.problem = (
                f"Features can't be kept in {self._folder.parent}: {error.strerror or error}."
            )
            self._folder = None

    def _read(self) -> None:
        assert self._folder is not None
        try:
            shards = _files(self._folder, _SHARD_NAME) if self._folder.exists() else []
        except OSError as error:
            self._tell(error)
            return
        for path in shards:
            try:
                self._take(path)
            except FileNotFoundError:  # another run made room just now
                continue
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        assert self._folder is not None
        self.problem = (
            f"Features kept in {self._folder.parent} can't be read: {error.strerror or error}."
        )

    def _take(self, path: Path) -> None:
        shard = _load(path)
        if shard is None:
            with suppress(OSError):  # a cache that others fill is theirs to mend
                path.unlink(missing_ok=True)
            return
        with suppress(OSError):  # a cache that others fill may be read
            path.touch()  # used last now
        digests = (row.tobytes().hex() for row in shard["digest"])
        self._rows.update(zip(digests, shard["feature"], strict=True))
        self.shards.add(path)


def make_room(root: Path, used: Collection[Path], most_bytes: int) -> None:
    """Remove the shards below ``root`` that no run used for longest, until they take ``most_bytes`` at most.

    used  shards that stay in any case: what one run needs is of use to the next, however much it is

    A run that has a shard open keeps what it read. Files that are no shards are left alone, but for what killed runs
    left behind. Trouble with the disk is passed over: the next run tries again.
    """
    with suppress(OSError):
        recipes = [
            folder
            for folder in root.iterdir()
            if _RECIPE_NAME.fullmatch(folder.name) and folder.is_dir()
        ]
        _remove_stale(recipes)
        shards = [path for folder in recipes for path in _files(folder, _SHARD_NAME)]
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in shards)
        excess = sum(size for _, size, _ in found) - most_bytes
        for _, size, path in found:
            if excess > 0 and path not in used:
                path.unlink()
                excess -= size


def _row_type(width: int) -> np.dtype[Any]:
    return np.dtype([("digest", np.uint8, (_DIGEST_BYTES,)), ("feature", "<f4", (width,))])


def _files(folder: Path, name: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name) and path.is_file())


def _checksum(folder: Path) -> Any:
    """Begins the checksum of a shard in ``folder``: a copy of another recipe's shard must not pass for one of this."""
    return hashlib.sha256(folder.name.encode())


def _load(path: Path) -> NDArray[Any] | None:
    """A shard, mapped into memory rather than read; None if its content is not what its name says."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, lambda: _checksum(path.parent)).hexdigest() != path.stem:
            return None
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _write(folder: Path, shard: NDArray[Any]) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, shard, allow_pickle=False)
    checksum = _checksum(folder)
    checksum.update(buffer.getbuffer())
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
        with suppress(OSError):  # not every disk has rights
            Path(temporary).chmod(0o666 & ~umask())  # for all who may read the folder
        return Path(temporary).replace(folder / f"{checksum.hexdigest()}.npy")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_stale(folders: Collection[Path]) -> None:
    for path in (path for folder in folders for path in _files(folder, _TEMPORARY_NAME)):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)
