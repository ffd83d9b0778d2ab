"""What is wrong with a data folder or a list, found before training. Nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from edgetl.data.duplicates import by_content, find_near_duplicates
from edgetl.data.group_split import validation_digests
from edgetl.data.inspection import Inspection, inspect_all, walk_files
from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TEST,
    TRAIN,
    UNEVEN_RATIO,
    UNKNOWN,
    UNSPLIT,
    VAL,
    class_names,
    layout_warnings,
    name_error,
    similar_names,
    too_few_classes,
)
from edgetl.data.photo_source import PhotoSource, too_few_labels
from edgetl.errors import DataError
from edgetl.runtime.images.photo_list import missing_files, row_name
from edgetl.system.paths import name_below
from edgetl.system.progress import Progress, no_progress

TINY_SIDE = 32  # pixels; enlarged to a network's input, a shorter side is little but noise
DARK_LEVEL = 32  # of 0..255; even photos taken at night usually have brighter spots
HUGE_PIXELS = 40_000_000  # decoding a larger photo takes longer than training on some hundred

Level = Literal["error", "warning"]
Place = tuple[str, str]  # (part, class)


@dataclass(frozen=True)
class DataIssue:
    """One thing that is wrong.

    kind     what, in a word or two: "empty", "truncated", "exact duplicate", …
    message  a sentence
    paths    the files concerned, relative to the folder, with slashes; () if it is about the folder
    """

    level: Level
    kind: str
    message: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditResult:
    """What ``audit_folder`` found. Files count as photos by their suffix.

    counts       photos that can be decoded: part → class → number; the parts are "train", "val" and
                 "test", or "" for a folder without parts
    rotated      share of the decoded photos that EXIF rotates or mirrors, 0..1
    median_size  (width, height) in pixels of a photo of median area; None if none can be decoded
    unknown      photos in ``unknown/`` that can be decoded
    """

    root: Path
    files: int
    counts: Mapping[str, Mapping[str, int]]
    rotated: float
    median_size: tuple[int, int] | None
    findings: tuple[DataIssue, ...]
    unknown: int = 0

    @property
    def errors(self) -> int:
        """How many findings make training fail or its metrics wrong."""
        return sum(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "schema": 1, "root": str(self.root), "errors": self.errors}


def audit_folder(
    data: str | Path | PhotoSource, *, threads: int | None = None, progress: Progress = no_progress
) -> AuditResult:
    """Read and decode every file of ``data``, a folder in a layout that training takes, or a list.

    threads  files read at a time (default: one for each core)

    Raises DataError if ``data`` is neither, has one of train/ and val/ without the other, or is a
    list that can't be read.
    """
    source = PhotoSource.of(data)
    found = _list_files(source) if source.is_list else _folder_files(source)
    root, places = found.root, found.places
    inspections = list(inspect_all(list(places), threads=threads, progress=progress))
    if source.is_list:  # which says itself that they are photos, whatever their suffix
        inspections = [replace(item, photo=True) for item in inspections]
    in_classes = [item for item in inspections if places[item.path][1]]
    unknown = [item for item in inspections if item.photo and places[item.path][0] == UNKNOWN]
    usable = [item for item in in_classes if item.usable]
    of_place = Counter(places[item.path] for item in usable)
    counts = {
        part: {name: of_place[part, name] for name in names}
        for part, names in found.classes.items()
    }
    copies = by_content(in_classes)
    unsplit = UNSPLIT in counts
    split_places = _split_places(in_classes, places) if unsplit else places
    findings = [
        *_class_findings(counts, found.too_few),
        *(_split_findings(split_places.values(), counts[UNSPLIT]) if unsplit else ()),
        *_odd_classes(found, [item.path for item in in_classes if item.photo]),
        *(
            finding
            for item in in_classes
            for finding in file_findings(item, root, found.missing.get(item.path))
        ),
        *(
            stray_photo(item, root)
            for item in inspections
            if item.usable and places[item.path][0] != UNKNOWN and not places[item.path][1]
        ),
        *(
            replace(finding, level="warning")  # training does without them
            for item in unknown
            if not item.usable
            for finding in file_findings(item, root)
        ),
        *_exact_duplicates(copies.values(), places, root),
        *_near_duplicates(copies, split_places, root, unsplit=unsplit),
    ]
    sizes = sorted(((item.width, item.height) for item in usable), key=prod)
    return AuditResult(
        root=source.path.absolute(),
        files=len(inspections),
        counts=counts,
        rotated=sum(item.rotated for item in usable) / max(len(usable), 1),
        median_size=sizes[len(sizes) // 2] if sizes else None,
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
        unknown=sum(item.usable for item in unknown),
    )


@dataclass(frozen=True)
class _Files:
    """The files to look at.

    root     the folder that their names are relative to
    classes  part → its classes
    places   file → its part and class; class "" if it lies outside every class folder, part UNKNOWN
             if it is in the folder of photos that only judge
    folders  part → its folder, where there are folders
    missing  file that is not there → the line of the list that names it
    too_few  why these classes can't be trained on, or None
    """

    root: Path
    classes: Mapping[str, Sequence[str]]
    places: Mapping[Path, Place]
    too_few: DataError | None
    folders: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[Path, str] = field(default_factory=dict)


def _folder_files(source: PhotoSource) -> _Files:
    root, parts = source.folder, source.folder_parts()
    unsplit = UNSPLIT in parts
    if not unsplit and (root / TEST).is_dir():
        parts[TEST] = root / TEST  # not used in training, but its photos must not be in train/
    places = {path: _place(path, parts) for path in walk_files(root, 1 if unsplit else 2)}
    classes = {part: class_names(folder) for part, folder in parts.items()}
    names = sorted({name for part in classes if part != TEST for name in classes[part]})
    if not unsplit and UNKNOWN not in names:
        unknown = root / UNKNOWN
        places |= {path: (UNKNOWN, "") for path in places if path.is_relative_to(unknown)}
    return _Files(root, classes, places, too_few_classes(next(iter(parts.values())), names), parts)


def _list_files(source: PhotoSource) -> _Files:
    parts = source.parts_to_train()
    parts.pop(UNKNOWN, None)
    places = {
        photo.path: (part, str(photo.label)) for part, found in parts.items() for photo in found
    }
    classes = {part: sorted({str(photo.label) for photo in found}) for part, found in parts.items()}
    names = sorted({name for part in classes if part != TEST for name in classes[part]})
    missing = missing_files(photo for found in parts.values() for photo in found)
    return _Files(
        source.folder,
        classes,
        places,
        too_few_labels(source.path, names),
        missing={photo.path: row_name(source.path, photo.row) for photo in missing},
    )


def file_findings(item: Inspection, root: Path, line: str | None = None) -> Iterator[DataIssue]:
    """What is wrong with one file by itself.

    line  "line 3" of the list that names it, if it is not there
    """

    def issue(level: Level, kind: str, message: str) -> DataIssue:
        return DataIssue(level, kind, message, (name_below(item.path, root),))

    size = f"{item.width}×{item.height} pixels"
    if line is not None:
        yield issue("error", "missing", f"no such file; {line} of the list names it")
    elif item.problem is not None and not item.photo:
        yield issue("warning", "not a photo", "not a photo; training ignores it")
    elif item.problem is not None:
        kind = "truncated" if "truncated" in item.problem.lower() else "unreadable"
        yield issue("error", "empty" if "0 bytes)" in item.problem else kind, item.problem)
    elif not item.photo:
        message = f"a {item.format} photo that training ignores for its suffix"
        yield issue("warning", "unusual suffix", message)
    else:
        if item.wrong_suffix:
            message = f"a {item.format} file named {item.path.suffix}"
            yield issue("warning", "wrong suffix", message)
        if min(item.width, item.height) < TINY_SIDE:
            yield issue("warning", "tiny", size)
        if item.width * item.height > HUGE_PIXELS:
            yield issue("warning", "huge", f"{size}: slow to decode in every epoch")
        if item.blank:
            yield issue("warning", "blank", "nearly one colour")
        elif item.fingerprint is not None and item.fingerprint.thumbnail.max() < DARK_LEVEL:
            message = "hardly brighter than black: 12-bit values in a 16-bit file look so"
            yield issue("warning", "dark", message)


def stray_photo(item: Inspection, root: Path) -> DataIssue:
    """The finding for a photo that belongs to no class."""
    message = "a photo outside every class folder; training ignores it"
    return DataIssue("warning", "stray photo", message, (name_below(item.path, root),))


def _place(path: Path, parts: Mapping[str, Path]) -> Place:
    """The part and the class of a file; class "" if it lies outside every class folder."""
    for part, folder in parts.items():
        if path.is_relative_to(folder):
            inner = path.relative_to(folder).parts
            return part, inner[0] if len(inner) > 1 else ""
    return "", ""


def _split_places(
    in_classes: Iterable[Inspection], places: Mapping[Path, Place]
) -> dict[Path, Place]:
    """Where the usable photos of a folder without parts are after training has split it."""
    photos = (
        (item.digest, places[item.path][1]) for item in in_classes if item.photo and item.digest
    )
    validating = validation_digests(photos, DEFAULT_VAL_FRACTION)
    return {
        item.path: (VAL if item.digest in validating else TRAIN, places[item.path][1])
        for item in in_classes
        if item.usable
    }


def _class_findings(
    counts: Mapping[str, Mapping[str, int]], too_few: DataError | None
) -> Iterator[DataIssue]:
    counts = {part: classes for part, classes in counts.items() if part != TEST}
    names = sorted({name for classes in counts.values() for name in classes})
    errors = [*map(name_error, names), too_few]
    for error in filter(None, errors):
        yield DataIssue("error", "classes", f"{error.message} {error.hint}")
    for part, classes in counts.items():
        where = f" in {part}/" if part else ""
        for name in names:
            if name not in classes:
                yield DataIssue("error", "classes", f"class {name!r} has no folder{where}")
            elif not classes[name]:
                yield DataIssue("error", "classes", f"class {name!r} has no usable photo{where}")
        present = {name: number for name, number in classes.items() if number}
        if present and max(present.values()) >= UNEVEN_RATIO * min(present.values()):
            small = min(present, key=present.__getitem__)
            large = max(present, key=present.__getitem__)
            numbers = f"{present[large]:,} photos{where}, {small!r} only {present[small]:,}"
            yield DataIssue("warning", "uneven classes", f"{large!r} has {numbers}")


def _odd_classes(found: _Files, photos: Iterable[Path]) -> Iterator[DataIssue]:
    kind, sentences = "odd folders", layout_warnings(found.folders, photos)
    if not found.folders:
        names = {name for part in found.classes.values() for name in part}
        kind, sentences = "odd names", similar_names(names)
    for sentence in sentences:
        yield DataIssue("warning", kind, sentence)


def _split_findings(places: Iterable[Place], counts: Mapping[str, int]) -> Iterator[DataIssue]:
    """What is missing once training has split the folder. counts: class → usable photos."""
    places = set(places)
    share = f"at a validation share of {DEFAULT_VAL_FRACTION}, the default"
    validated = any(part == VAL for part, _ in places)
    for name, photos in counts.items():
        missing = f"class {name!r} would have no photo to"
        if photos and (TRAIN, name) not in places:
            message = f"{missing} train on, {share}: add photos of it"
            yield DataIssue("error", "classes", message)
        elif photos and validated and (VAL, name) not in places:
            message = f"{missing} validate on, {share}: add photos of it"
            yield DataIssue("warning", "classes", message)
    if places and not validated:
        message = f"there would be no photo to validate on, {share}: add photos"
        yield DataIssue("error", "classes", message)


def _exact_duplicates(
    copies: Iterable[Sequence[Inspection]], places: Mapping[Path, Place], root: Path
) -> Iterator[DataIssue]:
    for same in copies:
        if len(same) > 1:
            leak = _leak(same, places)
            message = f"the same bytes {len(same)} times{leak}"
            level: Level = "error" if leak else "warning"
            yield DataIssue(level, "exact duplicate", message, _paths(same, root))


def _near_duplicates(
    copies: Mapping[str, Sequence[Inspection]],
    places: Mapping[Path, Place],
    root: Path,
    *,
    unsplit: bool,
) -> Iterator[DataIssue]:
    after = " once training splits them" if unsplit else ""
    for found in find_near_duplicates(copies, lambda item: places[item.path][1]):
        items = [item for digest in found.digests for item in copies[digest]]
        leak = _leak(items, places, after)
        kind = "near duplicate"
        if found.static_scene:
            kind = "alike"
            message = f"{len(items)} photos look much the same{leak}: "
            message += "from a fixed camera, or copies of a few"
        else:
            rotated = ", mirrored or rotated" if found.rotated else ""
            message = f"{len(items)} photos that look the same{rotated}{leak}"
            if after and after in leak:
                message += "; edgetl data split keeps them in one part"
        yield DataIssue("warning", kind, message, _paths(items, root))


def _leak(items: Iterable[Inspection], places: Mapping[Path, Place], after: str = "") -> str:
    """The parts and the classes that copies are in, as the end of a sentence; "" if one of each.

    after: when they will be in these parts.
    """
    parts, classes = (sorted({places[item.path][index] for item in items}) for index in (0, 1))
    leaks = [f"in {' and '.join(parts)}{after}"] if len(parts) > 1 else []
    leaks += [f"labelled {' and '.join(map(repr, classes))}"] if len(classes) > 1 else []
    return f", {', '.join(leaks)}" if leaks else ""


def _paths(items: Iterable[Inspection], root: Path) -> tuple[str, ...]:
    return tuple(sorted(name_below(item.path, root) for item in items))
