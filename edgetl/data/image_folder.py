"""A folder of labelled photos, read as classes and two parts: what is trained on and what is judged on."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TEST,
    TRAIN,
    VAL,
    WHOLE,
    check_val_fraction,
    class_names,
    content_digest,
    data_parts,
    look_of,
    no_text,
    oddities,
    too_few_classes,
    validation_digests,
)
from edgetl.errors import DataError, ImageError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.discovery import find_images
from edgetl.system.machine import cores

_NOTHING = hashlib.sha256().hexdigest()  # of empty files, which are no copies of one photo
_LISTED = 10  # names in a message before "and N more"


@dataclass(frozen=True)
class Sample:
    """One photo: its file, the index of its class, and the SHA-256 of the file's bytes (hex)."""

    path: Path
    label: int
    digest: str


@dataclass(frozen=True)
class ImageFolders:
    """A data folder. ``train`` and ``val`` are sorted by class, then by path.

    root         the folder that was scanned, absolute
    classes      class names (the folders' names), sorted; a label is an index into it
    warnings     sentences for the user about what was left out or looks odd
    fingerprint  SHA-256 (hex) over every photo's relative path and content
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    warnings: tuple[str, ...]
    fingerprint: str

    @property
    def has_val_folder(self) -> bool:
        """Whether ``val`` are the photos of a folder, and no share of all photos."""
        return self.val[0].path.is_relative_to(self.root / VAL)

    @property
    def train_counts(self) -> list[int]:
        """Training photos of each class, in class order."""
        return _counts(self.train, len(self.classes))

    @property
    def val_counts(self) -> list[int]:
        """Validation photos of each class, in class order."""
        return _counts(self.val, len(self.classes))

    def without(self, unreadable: Mapping[Path, str]) -> ImageFolders:
        """Leave out photos that can't be decoded (path → reason), with a warning that lists them.

        Raises DataError if one of a ``val`` folder is among them: leaving it out would change what the metrics mean. And if
        a class has no training photo left, or nothing is left to validate on.
        """
        if not unreadable:
            return self
        train, val = (
            tuple(sample for sample in part if sample.path not in unreadable)
            for part in (self.train, self.val)
        )
        lost = [sample.path for sample in self.val if sample.path in unreadable]
        if lost and self.has_val_folder:
            raise DataError(
                f"{_photos(len(lost))} to validate on can't be read:\n{_listed(self.root, lost, unreadable)}",
                "Repair or remove these files, then run again. Metrics must cover every photo of val/.",
            )
        _require_photos(
            self.classes, (sample.label for sample in train), "no training photo that can be read"
        )
        if not val:
            raise DataError(
                f"{self.root}: no photo that fell into the validation part can be read.",
                "Add photos.",
            )
        left_out = [sample.path for sample in self.train + self.val if sample.path in unreadable]
        what = (
            "to train on can't be read and left out"
            if self.has_val_folder
            else "can't be read and left out"
        )
        warning = f"{_photos(len(left_out))} {what}:\n{_listed(self.root, left_out, unreadable)}"
        fingerprint = _fingerprint(self.root, train + val)
        left = replace(
            self, train=train, val=val, warnings=(*self.warnings, warning), fingerprint=fingerprint
        )
        newly = [sentence for sentence in _unjudged(left) if sentence not in self.warnings]
        return replace(left, warnings=(*left.warnings, *newly))


def scan(root: str | Path, *, val_fraction: float = DEFAULT_VAL_FRACTION) -> ImageFolders:
    """Read ``root/train/<class>/…`` with ``root/val/<class>/…``, or split one ``root/<class>/…``.

    The split puts a photo into validation by the hash of its bytes, and sees that each class has photos on both sides (see
    ``validation_digests``). Adding, removing or renaming photos moves no other one, but in tiny classes, and copies of a
    photo fall on one side, so that none is both trained and judged on. Hashing runs at the disk's speed (SHA-256: 1.5 GB/s
    a core), and leaves the files in the page cache for the decoder.

    val_fraction  share of photos to validate on, above 0 and below 1; used only where there is no ``val`` folder

    No photo is decoded here: see ``find_unreadable``. Raises DataError for a layout that can't be trained on.
    """
    root = Path(root).absolute()
    check_val_fraction(val_fraction)
    parts = data_parts(root)
    if WHOLE not in parts:
        return _read_parts(root, parts)
    classes, found = _read_classes(root)
    samples = _hashed(root, found)
    by_class: list[list[str]] = [[] for _ in classes]
    for sample in samples:
        by_class[sample.label].append(sample.digest)
    validating = validation_digests(by_class, val_fraction)
    train = tuple(sample for sample in samples if sample.digest not in validating)
    val = tuple(sample for sample in samples if sample.digest in validating)
    fix = "Add photos, or make train/ and val/ folders."
    _require_photos(
        classes,
        (sample.label for sample in train),
        "photos, but none of them fell into the training part",
        fix,
    )
    if not val:
        raise DataError(f"{root}: no photo fell into the validation part.", fix)
    return _folders(root, parts, classes, train, val)


PUT_BACK = "It could be read when the run began: put it back, then go on with --resume."
"""What to do about a photo that can't be read any more."""


def read_sample(sample: Sample) -> Image.Image:
    """The photo, as ``read_image`` gives it. Raises ImageError also for a file that is no longer what was scanned: what
    is said of the photos, their fingerprint and their features, would be of others."""
    picture = read_image(sample.path)
    try:
        same = content_digest(sample.path) == sample.digest
    except OSError as error:  # it is gone by now
        raise ImageError(str(sample.path), (error.strerror or str(error)).lower()) from error
    if not same:
        raise ImageError(str(sample.path), "it changed while it was read")
    return picture


def find_unreadable(
    samples: Iterable[Sample], *, threads: int | None = None, done: Callable[[], None] | None = None
) -> dict[Path, str]:
    """Decode every photo once → those that can't be, with the reason.

    threads  how many photos at a time (default: one for each core); Pillow decodes outside the interpreter's lock
    done     called after each photo, for a progress bar
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


def _read_parts(root: Path, parts: Mapping[str, Path]) -> ImageFolders:
    names = {part: set(class_names(parts[part])) for part in (TRAIN, VAL)}
    if len(names[TRAIN]) > 1 and names[TRAIN] != names[VAL]:
        lone = {TRAIN: names[TRAIN] - names[VAL], VAL: names[VAL] - names[TRAIN]}
        alike = set(map(look_of, lone[TRAIN])) & set(map(look_of, lone[VAL]))
        shown = {
            part: ", ".join(map(ascii if alike else str, sorted(held)))
            for part, held in lone.items()
        }
        raise DataError(
            f"{root}: the classes of train/ and val/ differ; "
            f"{'; '.join(f'only in {part}/: {held}' for part, held in shown.items() if held)}.",
            "Names that look the same must be of the same letters, too."
            if alike
            else "Each class needs a folder of the same name in both.",
        )
    classes, train = _read_classes(parts[TRAIN])
    _, val = _read_classes(parts[VAL])
    return _folders(root, parts, classes, _hashed(root, train), _hashed(root, val))


def _read_classes(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Class names of one folder of class folders, and its photos with their labels."""
    names = class_names(folder)
    if (error := too_few_classes(folder, names)) is not None:
        raise error
    found = [
        (path, label) for label, name in enumerate(names) for path in find_images(folder / name)
    ]
    _require_photos(names, (label for _, label in found), f"no photo in {folder}")
    return tuple(names), found


def _require_photos(
    classes: Sequence[str], labels: Iterable[int], what: str, hint: str | None = None
) -> None:
    present = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty:
        noun = "Class" if len(empty) == 1 else "Classes"
        raise DataError(
            f"{noun} {', '.join(map(repr, empty))}: {what}.",
            hint
            or "Add photos to the folder, or remove the class, from train/ and val/ where there are these.",
        )


def _hashed(root: Path, found: Sequence[tuple[Path, int]]) -> tuple[Sample, ...]:
    with ThreadPoolExecutor() as pool:
        digests = pool.map(partial(_digest, root), (path for path, _ in found))
        return tuple(
            Sample(path, label, digest)
            for (path, label), digest in zip(found, digests, strict=True)
        )


def _digest(root: Path, path: Path) -> str:
    try:
        return content_digest(path)
    except OSError:  # it can't be decoded either, and is reported then, with its reason
        return hashlib.sha256(os.fsencode(path.relative_to(root))).hexdigest()


def _folders(
    root: Path,
    parts: Mapping[str, Path],
    classes: tuple[str, ...],
    train: tuple[Sample, ...],
    val: tuple[Sample, ...],
) -> ImageFolders:
    for name in (str(root), *classes):
        if (error := no_text(name)) is not None:
            raise error
    folders = ImageFolders(root, classes, train, val, (), _fingerprint(root, train + val))
    return replace(
        folders,
        warnings=(
            *_warnings(folders, parts),
            *oddities(parts, [sample.path for sample in train + val]),
        ),
    )


def _unjudged(folders: ImageFolders) -> Iterable[str]:
    unjudged = [
        name for name, count in zip(folders.classes, folders.val_counts, strict=True) if not count
    ]
    if unjudged:
        said = f"No photo of {', '.join(unjudged)} fell into the validation part: the metrics say nothing about it."
        yield f"{said} Add photos of it, or make a val/ folder."


def _warnings(folders: ImageFolders, parts: Mapping[str, Path]) -> Iterable[str]:
    yield from _unjudged(folders)
    shared = {sample.digest for sample in folders.train} & {
        sample.digest for sample in folders.val
    } - {_NOTHING}
    if WHOLE not in parts and (folders.root / TEST).is_dir():
        yield f"{TEST}/ is left alone: neither trained nor judged on."
    labels = {
        (sample.digest, sample.label)
        for sample in folders.train + folders.val
        if sample.digest != _NOTHING
    }
    torn = sum(count > 1 for count in Counter(digest for digest, _ in labels).values())
    if torn:
        yield f"{_photos(torn)} in several classes at once, where all labels but one are wrong: edgetl data check names them."
    if shared:
        yield f"{_photos(len(shared))} in train/ and val/ at once: the metrics will look better than they are."


def _fingerprint(root: Path, samples: Collection[Sample]) -> str:
    lines = sorted(
        os.fsencode(sample.path.relative_to(root).as_posix()) + b"\0" + sample.digest.encode()
        for sample in samples
    )
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def _counts(samples: Iterable[Sample], classes: int) -> list[int]:
    count = Counter(sample.label for sample in samples)
    return [count[label] for label in range(classes)]


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count:,} photos"


def _listed(root: Path, paths: Sequence[Path], reasons: Mapping[Path, str]) -> str:
    names = [str(path.relative_to(root)).replace("\n", "\\n") for path in paths[:_LISTED]]
    lines = [f"  {name}: {reasons[path]}" for name, path in zip(names, paths, strict=False)]
    return "\n".join(
        [*lines, f"  and {len(paths) - _LISTED:,} more"] if len(paths) > _LISTED else lines
    )
