"""Features kept on disk, found by the photo's content and everything else that they depend on.

    <root>/<recipe>/<sha256>.npy    one shard: an array of (digest of the photo, feature)

A shard is written once, and its name is the checksum of its recipe and content. So a shard that is
damaged or of another recipe is recognised and removed, a killed run leaves only whole shards, and
runs that write at the same time don't disturb each other. A run that adds to a cache then removes
the shards that were not used for longest, down to ``MOST_BYTES``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TrainingError
from edgetl.system.atomic_write import atomic_write
from edgetl.training.config.option import flag

MOST_BYTES = 4 << 30  # features of about 600,000 photos by the default backbone

_FORMAT = 2
_DIGEST_BYTES = 32
_RECIPE_NAME, _SHARD_NAME = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}\.npy")
_UNFINISHED_NAME = re.compile(r"\.[0-9a-f]{64}\.npy\.\d+\.part")  # see ``atomic_write``
_STALE_SECONDS = 24 * 3600  # an unfinished shard that old was left by a run that was killed


def cache_folder(where: str) -> Path | None:
    """The folder to keep features in, or None for "off".

    where  "off", "auto" or a folder. "auto" is ``$XDG_CACHE_HOME/edgetl/features`` or
           ``~/.cache/edgetl/features``, and None for a user without a home

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

    In memory and, if ``root`` is given and can be used, on disk. A problem with the disk is never
    fatal: it is described in ``problem``, and the features stay in memory.

    shards  the files that were read or written
    """

    def __init__(self, root: Path | None, recipe: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.problem: str | None = None
        self.shards: set[Path] = set()
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._folder: Path | None = None
        if root is not None:
            canonical = json.dumps({"format": _FORMAT, **recipe}, sort_keys=True).encode()
            self._folder = root / hashlib.sha256(canonical).hexdigest()[:32]
            self._read(self._folder)

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: str) -> NDArray[np.float32]:
        """Float32 [features] of the photo whose file has this SHA-256 (hex). Raises KeyError."""
        return self._rows[digest]

    def add(self, digests: Sequence[str], features: NDArray[np.float32]) -> None:
        """Keep float32 [N, features], one row for each digest, and write them as one shard."""
        self._rows.update(zip(digests, features, strict=True))
        if self._folder is None or not digests:
            return
        row = [("digest", np.uint8, (_DIGEST_BYTES,)), ("feature", "<f4", features.shape[1:])]
        shard = np.empty(len(digests), row)
        content = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8)
        shard["digest"], shard["feature"] = content.reshape(-1, _DIGEST_BYTES), features
        try:
            self.shards.add(_write_shard(self._folder, shard))
        except OSError as error:
            reason = error.strerror or error
            self.problem = f"Features can't be kept in {self._folder.parent}: {reason}."
            self._folder = None

    def _read(self, folder: Path) -> None:
        try:
            shards = _files(folder, _SHARD_NAME) if folder.exists() else []
        except OSError as error:
            self._report_unreadable(folder, error)
            return
        for path in shards:
            try:
                self._take(path)
            except FileNotFoundError:  # another run has just removed it, to make room
                continue
            except OSError as error:
                self._report_unreadable(folder, error)

    def _report_unreadable(self, folder: Path, error: OSError) -> None:
        reason = error.strerror or error
        self.problem = f"Features kept in {folder.parent} can't be read: {reason}."

    def _take(self, path: Path) -> None:
        shard = load_shard(path)
        if shard is None:
            with suppress(OSError):  # a read-only cache is for its owner to repair
                path.unlink(missing_ok=True)
            return
        with suppress(OSError):  # a read-only cache may be read
            path.touch()  # the time of its last use
        digests = (row.tobytes().hex() for row in shard["digest"])
        self._rows.update(zip(digests, shard["feature"], strict=True))
        self.shards.add(path)


def make_room(root: Path, used: Collection[Path], most_bytes: int) -> None:
    """Remove the shards below ``root`` that were not used for longest, down to ``most_bytes``.

    used  shards that stay in any case: what one run needs, the next one will need too

    A run that has a removed shard open can still read it. Files that are not shards are left
    alone, except for those that killed runs left unfinished. Problems with the disk are ignored:
    the next run tries again.
    """
    with suppress(OSError):
        recipes = [
            folder
            for folder in root.iterdir()
            if _RECIPE_NAME.fullmatch(folder.name) and folder.is_dir()
        ]
        for path in (path for folder in recipes for path in _files(folder, _UNFINISHED_NAME)):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        shards = [path for folder in recipes for path in _files(folder, _SHARD_NAME)]
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in shards)
        excess = sum(size for _, size, _ in found) - most_bytes
        for _, size, path in found:
            if excess > 0 and path not in used:
                path.unlink()
                excess -= size


def _files(folder: Path, name: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name) and path.is_file())


def _checksum(folder: Path) -> Any:
    """Begin the checksum of a shard in ``folder``: a shard of another recipe must not match."""
    return hashlib.sha256(folder.name.encode())


def load_shard(path: Path) -> NDArray[Any] | None:
    """A shard, memory-mapped; None if its content doesn't match its name. Raises OSError."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, lambda: _checksum(path.parent)).hexdigest() != path.stem:
            return None
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _write_shard(folder: Path, shard: NDArray[Any]) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, shard, allow_pickle=False)
    content = buffer.getbuffer()
    checksum = _checksum(folder)
    checksum.update(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checksum.hexdigest()}.npy"
    atomic_write(path, lambda temporary: temporary.write_bytes(content))
    return path
