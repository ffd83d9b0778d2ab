"""Labelled photos, read as classes, training photos and validation photos."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from PIL import Image

from edgetl.data.group_split import share_warnings, validation_digests
from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TRAIN,
    UNSPLIT,
    VAL,
    check_fractions,
    content_digest,
)
from edgetl.data.photo_source import PhotoSource, find_labelled, require_photos
from edgetl.errors import DataError, ImageError
from edgetl.runtime.images.decode import identify, read_image
from edgetl.system.machine import cores
from edgetl.system.message_text import counted, first_few
from edgetl.system.paths import name_below

PUT_BACK = "It could be read when the run began: put it back, then go on with --resume."
"""What to do about a photo that can no longer be read."""

_AT_ONCE = 32  # photos that a thread hashes before it is given others, at most
_PARTS = 64  # of few photos, so that every thread has some: they may be large, or far away
_LISTED = 10  # names in a message before "and N more"


@dataclass(frozen=True)
class Sample:
    """One photo: its file, the index of its class, and the SHA-256 of the file's bytes (hex)."""

    path: Path
    label: int
    digest: str


@dataclass(frozen=True)
class ImageFolders:
    """A data folder, or a list. ``train`` and ``val`` are sorted by class, then by path.

    root          the folder that the photos' names are relative to, absolute
    classes       class names (the folders' names), sorted; a label is an index into it
    warnings      sentences for the user about what was left out or looks odd
    val_fraction  the share that was chosen to validate on; None: the data say what ``val`` is
    unreadable    photos that were found and are in neither part, since they can't be decoded
    unknown       photos of no class in shards and stores, which are only judged with
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    val_fraction: float | None = None
    unreadable: tuple[Sample, ...] = ()
    unknown: tuple[Path, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over every photo's relative path, content and class.

        A list's labels and parts count, too, where they are not those of the folders. So a list of
        the photos in a data folder has the fingerprint of the folder.
        """
        lines = []
        for part, samples in ((TRAIN, self.train), (VAL, self.val)):
            for sample in samples:
                name, place = name_below(sample.path, self.root), f"{self.classes[sample.label]}/"
                place = f"{part}/{place}" if self.has_val_folder else place
                line = os.fsencode(name) + b"\0" + sample.digest.encode()
                lines.append(line if name.startswith(place) else line + b"\0" + place.encode())
        return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()

    @property
    def has_val_folder(self) -> bool:
        """Whether ``val`` is a folder of its own or marked in a list, not a share of all photos."""
        return self.val_fraction is None

    @property
    def val_share(self) -> float:
        """The share of the photos that is validated on, 0..1."""
        return len(self.val) / (len(self.train) + len(self.val))

    @property
    def train_counts(self) -> list[int]:
        """Training photos of each class, in class order."""
        return _counts(self.train, len(self.classes))

    @property
    def val_counts(self) -> list[int]:
        """Validation photos of each class, in class order."""
        return _counts(self.val, len(self.classes))

    @property
    def unreadable_counts(self) -> list[int]:
        """Photos of each class that can't be decoded, in class order."""
        return _counts(self.unreadable, len(self.classes))

    def without(self, unreadable: Mapping[Path, str]) -> ImageFolders:
        """Leave out photos that can't be decoded (path → reason), with a warning that lists them.

        Raises DataError if one of them is in a ``val`` folder, since the metrics would then mean
        something else; if a class has no training photo left; or if no validation photo is left.
        """
        if not unreadable:
            return self
        train, val = (
            tuple(sample for sample in part if sample.path not in unreadable)
            for part in (self.train, self.val)
        )
        if self.has_val_folder and len(val) < len(self.val):
            lost = [sample.path for sample in self.val if sample.path in unreadable]
            raise DataError(
                f"{counted(len(lost), 'photo')} to validate on can't be read:\n"
                f"{_listed(self.root, lost, unreadable)}",
                "Repair or remove these files, then run again. "
                "Metrics must cover every photo of val.",
            )
        require_photos(
            self.classes, (sample.label for sample in train), "no training photo that can be read"
        )
        if not val:
            raise DataError(
                f"{self.root}: no photo that fell into the validation part can be read.",
                "Add photos.",
            )
        left_out = [sample for sample in self.train + self.val if sample.path in unreadable]
        purpose = "to train on " if self.has_val_folder else ""
        warning = (
            f"{counted(len(left_out), 'photo')} {purpose}can't be read and left out:\n"
            f"{_listed(self.root, [sample.path for sample in left_out], unreadable)}"
        )
        left = replace(
            self,
            train=train,
            val=val,
            warnings=(*self.warnings, warning),
            unreadable=(*self.unreadable, *left_out),
        )
        new = [text for text in _split_warnings(left) if text not in self.warnings]
        return replace(left, warnings=(*left.warnings, *new))


def scan(
    data: str | Path | PhotoSource, *, val_fraction: float = DEFAULT_VAL_FRACTION
) -> ImageFolders:
    """Read ``data/train/<class>/…`` with ``data/val/<class>/…``, or split one ``data/<class>/…``.

    The same goes for a list of photos, with or without a column that says what to validate on. The
    split depends on the photos' contents alone, and gives each class photos in both parts (see
    ``validation_digests``). Each photo that is added or removed moves one other at most, renaming
    moves none, and duplicates are in the same part, so that no validation photo is trained on.
    Hashing runs at the disk's speed (SHA-256: 1.5 GB/s per core), and leaves the files in the page
    cache for the decoder.

    val_fraction  share of photos to validate on, above 0 and below 1; unused if ``data`` is split

    Only photos with several labels or in both parts are decoded here: see ``find_unreadable``.
    Raises DataError for what can't be trained on.
    """
    source = PhotoSource.of(data)
    check_fractions(val_fraction)
    root, files = source.folder, find_labelled(source)
    # Hashing can take minutes, so it comes after everything that can refuse the photos.
    samples = {part: _hashed(root, photos) for part, photos in files.parts.items()}
    if UNSPLIT in samples:
        train, val = _split(source.path, files.classes, samples[UNSPLIT], val_fraction)
    else:
        train, val = samples[TRAIN], samples[VAL]
    folders = ImageFolders(
        root,
        files.classes,
        train,
        val,
        val_fraction=val_fraction if UNSPLIT in samples else None,
        unknown=files.unknown,
    )
    return replace(folders, warnings=(*_warnings(folders), *files.warnings))


def _split(
    place: Path, classes: Sequence[str], samples: Sequence[Sample], val_fraction: float
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, val). Raises DataError if a class has no photo to train on, or val has none."""
    validating = validation_digests(
        ((sample.digest, sample.label) for sample in samples), val_fraction
    )
    train, val = (
        tuple(sample for sample in samples if (sample.digest in validating) == chosen)
        for chosen in (False, True)
    )
    hint = "Add photos, or say yourself what to validate on."
    problem = "photos, but none of them fell into the training part"
    require_photos(classes, (sample.label for sample in train), problem, hint)
    if not val:
        raise DataError(f"{place}: no photo fell into the validation part.", hint)
    return train, val


def read_sample(sample: Sample) -> Image.Image:
    """The photo, as ``read_image`` returns it.

    Raises ImageError, also if the file has changed since the scan: the data's fingerprint and the
    cached features would belong to another photo.
    """
    picture = read_image(sample.path)
    try:
        unchanged = content_digest(sample.path) == sample.digest
    except OSError as error:  # removed meanwhile
        raise ImageError(str(sample.path), (error.strerror or str(error)).lower()) from error
    if not unchanged:
        raise ImageError(str(sample.path), "it changed while it was read")
    return picture


def find_unreadable(
    samples: Iterable[Sample],
    *,
    threads: int | None = None,
    done: Callable[[], object] | None = None,
) -> dict[Path, str]:
    """Decode every photo once, and return those that can't be decoded: path → reason.

    threads  photos at a time (default: one for each core); Pillow decodes outside Python's GIL
    done     called after each photo, e.g. a ``ProgressCounter``
    """

    def problem(sample: Sample) -> str | None:
        try:
            read_sample(sample)
        except ImageError as error:
            return error.reason
        return None

    unreadable: dict[Path, str] = {}
    with ThreadPoolExecutor(threads or cores()) as pool:
        samples = list(samples)
        for sample, reason in zip(samples, pool.map(problem, samples), strict=True):
            if reason is not None:
                unreadable[sample.path] = reason
            if done is not None:
                done()
    return unreadable


def require_readable_val(folders: ImageFolders) -> None:
    """Raise DataError, as ``ImageFolders.without``, if headers show that it will be raised.

    Headers take a moment, and tell a format that can't be read here. Only where one does is every
    photo of ``val`` decoded, so that the error names them all.
    """
    if not folders.has_val_folder:
        return
    with ThreadPoolExecutor(cores()) as pool:
        recognised = all(pool.map(_is_recognised, (sample.path for sample in folders.val)))
    if not recognised:
        folders.without(find_unreadable(folders.val))


def _is_recognised(path: Path) -> bool:
    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with path.open("rb") as file:
            identify(file, str(path))
    except Exception:  # Pillow raises many kinds for a broken file
        return False
    return True


def _hashed(root: Path, photos: Sequence[tuple[Path, int]]) -> tuple[Sample, ...]:
    """``photos`` (path, label) with the digests of their contents."""

    def read(photo: tuple[Path, int]) -> Sample:
        path, label = photo
        try:
            return Sample(path, label, content_digest(path))
        except OSError:  # decoding it fails, too, and reports why
            name = os.fsencode(name_below(path, root))
            return Sample(path, label, hashlib.sha256(name).hexdigest())

    # Handing photos over to threads one by one takes longer than reading small ones.
    size = min(_AT_ONCE, 1 + len(photos) // _PARTS)
    some = [photos[start : start + size] for start in range(0, len(photos), size)]
    with ThreadPoolExecutor() as pool:
        samples = pool.map(lambda part: [read(photo) for photo in part], some)
        return tuple(chain.from_iterable(samples))


def _split_warnings(folders: ImageFolders) -> Iterator[str]:
    """Sentences about classes with no validation photo, or far more or fewer than asked for."""
    train, val = (
        dict(zip(folders.classes, counts, strict=True))
        for counts in (folders.train_counts, folders.val_counts)
    )
    if missing := [name for name, count in val.items() if not count]:
        yield (
            f"No photo of {', '.join(missing)} fell into the validation part: "
            "the metrics say nothing about it. Add photos of it, or make a val/ folder."
        )
    if folders.val_fraction is not None:
        every = {name: train[name] + val[name] for name in folders.classes}
        yield from share_warnings("to validate on", folders.val_fraction, val, every)


def _warnings(folders: ImageFolders) -> Iterator[str]:
    yield from _split_warnings(folders)
    train, val = (
        {(sample.digest, sample.label) for sample in part} for part in (folders.train, folders.val)
    )
    labels = Counter(digest for digest, _ in train | val)
    ambiguous = {digest for digest, count in labels.items() if count > 1}
    shared = {digest for digest, _ in train} & {digest for digest, _ in val}
    # Broken downloads are often the same error page, which is no copy of a photo.
    doubtful = {s.digest: s for s in folders.train + folders.val if s.digest in ambiguous | shared}
    unreadable = find_unreadable(doubtful.values())
    broken = {digest for digest, sample in doubtful.items() if sample.path in unreadable}
    if ambiguous := ambiguous - broken:
        yield (
            f"{counted(len(ambiguous), 'photo')} in several classes at once, "
            "where all labels but one are wrong: edgetl data check names them."
        )
    if shared := shared - broken:
        yield (
            f"{counted(len(shared), 'photo')} in train/ and val/ at once: "
            "the metrics will look better than they are."
        )


def _counts(samples: Iterable[Sample], classes: int) -> list[int]:
    count = Counter(sample.label for sample in samples)
    return [count[label] for label in range(classes)]


def _listed(root: Path, paths: Sequence[Path], reasons: Mapping[Path, str]) -> str:
    """One line for each of the first photos, whatever their names hold, and how many more."""
    names = [name_below(path, root).replace("\n", "\\n") for path in paths]
    lines = [f"{name}: {reasons[path]}" for name, path in zip(names, paths, strict=True)]
    return "\n".join(f"  {line}" for line in first_few(lines, _LISTED))
