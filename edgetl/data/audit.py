"""What is wrong with a data folder, found before it costs a training run. Nothing is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgetl.data.duplicates import Copies, lookalikes, same_content
from edgetl.data.inspection import Inspection, Progress, inspect_all, walk_files
from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TEST,
    TRAIN,
    UNEVEN_RATIO,
    VAL,
    WHOLE,
    class_names,
    data_parts,
    no_text,
    oddities,
    too_few_classes,
    validation_digests,
)

TINY_SIDE = 32  # pixels: with a side below it, little but noise is left after the enlargement to a network's input
DARK_LEVEL = 32  # of 0..255; where no spot is brighter, a photo of the night is rare
HUGE_PIXELS = 40_000_000  # beyond, decoding one photo takes longer than training on some hundred
_ONCE_SPLIT = " once training splits them"

Level = Literal["error", "warning"]
Key = tuple[str, str]  # (part, class)


@dataclass(frozen=True)
class DataIssue:
    """One thing that is wrong.

    kind     what, in a word or two: "empty", "truncated", "exact duplicate", …
    message  a sentence
    paths    the files concerned, relative to the folder, with slashes; () where it is about the folder
    """

    level: Level
    kind: str
    message: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditResult:
    """All that ``audit_folder`` saw. Files count as photos by their suffix.

    counts       photos that can be decoded: part ("train", "val", "test", or "" for a folder not yet split) → class → number
    rotated      share of the decoded photos that EXIF turns or mirrors, 0..1
    median_size  (width, height) in pixels of a photo of median area; None if no photo can be decoded
    """

    root: Path
    files: int
    counts: Mapping[str, Mapping[str, int]]
    rotated: float
    median_size: tuple[int, int] | None
    findings: tuple[DataIssue, ...]

    @property
    def errors(self) -> int:
        """How many findings make training fail or its metrics untrue."""
        return sum(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "schema": 1, "root": str(self.root), "errors": self.errors}


def audit_folder(
    root: str | Path, *, threads: int | None = None, progress: Progress | None = None
) -> AuditResult:
    """Read and decode every file below ``root``, a data folder in a layout that training takes.

    Raises DataError if ``root`` is not a folder, or has one of train/ and val/ without the other.
    """
    root = Path(root).absolute()
    parts = data_parts(root)
    if (
        WHOLE not in parts and (root / TEST).is_dir()
    ):  # training leaves it alone, but not what it shares with train/
        parts[TEST] = root / TEST
    counts = {part: dict.fromkeys(class_names(folder), 0) for part, folder in parts.items()}
    levels = 1 if WHOLE in parts else 2
    inspections = list(
        inspect_all(list(walk_files(root, levels)), threads=threads, progress=progress)
    )
    homes = {item.path: _home(item.path, parts) for item in inspections}
    for item in inspections:
        part, name = homes[item.path]
        if item.usable and name in counts.get(part, {}):
            counts[part][name] += 1
    housed = [item for item in inspections if homes[item.path][1]]
    copies = same_content(housed)
    sides = {item.path: homes[item.path] for item in housed if item.usable}
    if WHOLE in parts:
        validating = _validating((item for item in housed if item.photo and item.digest), homes)
        fates = {
            item.path: VAL if item.digest in validating else TRAIN for item in housed if item.usable
        }
        sides = {path: (fate, homes[path][1]) for path, fate in fates.items()}
    findings = [
        *_class_findings(counts, parts),
        *(_split_findings(sides, counts[WHOLE]) if WHOLE in counts else ()),
        *(
            DataIssue("warning", "odd folders", said)
            for said in oddities(parts, [item.path for item in housed if item.photo])
        ),
        *(finding for item in housed for finding in file_findings(item, root)),
        *_strays(inspections, homes, root),
        *_exact_duplicates(copies, homes, root),
        *_near_duplicates(copies, sides, root, split=WHOLE not in parts),
    ]
    usable = [item for item in housed if item.usable]
    return AuditResult(
        root=root,
        files=len(inspections),
        counts=counts,
        rotated=sum(item.rotated for item in usable) / max(len(usable), 1),
        median_size=_median_size(usable),
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
    )


def file_findings(item: Inspection, root: Path) -> Iterator[DataIssue]:
    """What is wrong with one file by itself."""
    paths = (relative(item.path, root),)
    if not item.photo:
        if item.problem is None:
            yield DataIssue(
                "warning",
                "unusual suffix",
                f"a {item.format} photo that training passes over for its suffix",
                paths,
            )
        else:
            yield DataIssue("warning", "not a photo", "not a photo; training passes over it", paths)
    elif item.problem is not None:
        yield DataIssue("error", _kind_of(item.problem), item.problem, paths)
    else:
        size = f"{item.width}×{item.height}"
        if item.suffix_lies:
            yield DataIssue(
                "warning", "wrong suffix", f"a {item.format} file named {item.path.suffix}", paths
            )
        if min(item.width, item.height) < TINY_SIDE:
            yield DataIssue("warning", "tiny", f"{size} pixels", paths)
        if item.width * item.height > HUGE_PIXELS:
            yield DataIssue(
                "warning", "huge", f"{size} pixels: slow to decode in every epoch", paths
            )
        if item.blank:
            yield DataIssue("warning", "blank", "nearly one colour", paths)
        elif item.fingerprint is not None and item.fingerprint.thumbnail.max() < DARK_LEVEL:
            yield DataIssue(
                "warning",
                "dark",
                "hardly brighter than black: 12-bit values in a 16-bit file look so",
                paths,
            )


def relative(path: Path, root: Path) -> str:
    """``path`` as findings name it."""
    return path.relative_to(root).as_posix()


def _home(path: Path, parts: Mapping[str, Path]) -> Key:
    """The part and class that a file belongs to; class "" where it lies outside every class folder."""
    for part, folder in parts.items():
        if path.is_relative_to(folder):
            inner = path.relative_to(folder).parts
            return part, inner[0] if len(inner) > 1 else ""
    return "", ""


def _median_size(usable: Iterable[Inspection]) -> tuple[int, int] | None:
    sizes = sorted(
        ((item.width, item.height) for item in usable), key=lambda size: size[0] * size[1]
    )
    return sizes[len(sizes) // 2] if sizes else None


def _kind_of(problem: str) -> str:
    if "0 bytes)" in problem:
        return "empty"
    return "truncated" if "truncated" in problem.lower() else "unreadable"


def _class_findings(
    counts: Mapping[str, Mapping[str, int]], parts: Mapping[str, Path]
) -> Iterator[DataIssue]:
    counts = {part: classes for part, classes in counts.items() if part != TEST}
    names = sorted({name for classes in counts.values() for name in classes})
    for unreadable in filter(None, map(no_text, names)):
        yield DataIssue("error", "classes", f"{unreadable.message} {unreadable.hint}")
    if (error := too_few_classes(next(iter(parts.values())), names)) is not None:
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
            small, large = (
                min(present, key=present.__getitem__),
                max(present, key=present.__getitem__),
            )
            message = (
                f"{large!r} has {present[large]:,} photos{where}, {small!r} only {present[small]:,}"
            )
            yield DataIssue("warning", "uneven classes", message)


def _validating(photos: Iterable[Inspection], homes: Mapping[Path, Key]) -> set[str]:
    """Digests of the photos that training judges by, of a folder that is not split yet."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for item in photos:
        by_class[homes[item.path][1]].append(item.digest)
    return validation_digests([by_class[name] for name in sorted(by_class)], DEFAULT_VAL_FRACTION)


def _split_findings(fates: Mapping[Path, Key], counts: Mapping[str, int]) -> Iterator[DataIssue]:
    """What training would find lacking once it has split a folder that is not split yet. counts: class → usable photos."""
    share = f"at a validation share of {DEFAULT_VAL_FRACTION}, the default"
    trained, judged = (
        {name for side, name in fates.values() if side == wanted} for wanted in (TRAIN, VAL)
    )
    for name, photos in counts.items():
        if photos and name not in trained:
            yield DataIssue(
                "error",
                "classes",
                f"class {name!r} would have no photo to train on, {share}: add photos of it",
            )
        elif photos and judged and name not in judged:
            yield DataIssue(
                "warning",
                "classes",
                f"class {name!r} would have no photo to validate on, {share}: add photos of it",
            )
    if fates and not judged:
        yield DataIssue(
            "error", "classes", f"no photo would be there to validate on, {share}: add photos"
        )


def _strays(
    inspections: Iterable[Inspection], homes: Mapping[Path, Key], root: Path
) -> Iterator[DataIssue]:
    message = "a photo outside every class folder; training does not see it"
    for item in inspections:
        if item.usable and not homes[item.path][1]:
            yield DataIssue("warning", "stray photo", message, (relative(item.path, root),))


def _exact_duplicates(copies: Copies, homes: Mapping[Path, Key], root: Path) -> Iterator[DataIssue]:
    for same in copies.values():
        if len(same) > 1:
            leak = _across(same, homes)
            message = f"the same bytes {len(same)} times{leak}"
            yield DataIssue(
                "error" if leak else "warning", "exact duplicate", message, _paths(same, root)
            )


def _near_duplicates(
    copies: Copies, homes: Mapping[Path, Key], root: Path, *, split: bool
) -> Iterator[DataIssue]:
    for found in lookalikes(copies, lambda item: homes[item.path][1]):
        alike = [item for digest in found.digests for item in copies[digest]]
        across = _across(alike, homes, "" if split else _ONCE_SPLIT)
        if found.crowd:
            message = f"{len(alike)} photos look much the same{across}: a fixed camera's, or copies of a few"
            yield DataIssue("warning", "alike", message, _paths(alike, root))
            continue
        message = f"{len(alike)} photos that look the same{', mirrored or turned' if found.turned else ''}{across}"
        message += "; edgetl data split keeps them on one side" * (_ONCE_SPLIT in across)
        yield DataIssue("warning", "near duplicate", message, _paths(alike, root))


def _across(items: Iterable[Inspection], homes: Mapping[Path, Key], when: str = "") -> str:
    """What copies leak across, as the end of a sentence; "" if they share part and class. when: they are in two parts."""
    parts, classes = (sorted({homes[item.path][side] for item in items}) for side in (0, 1))
    leaks = [f"in {' and '.join(parts)}{when}"] if len(parts) > 1 else []
    leaks += [f"labelled {' and '.join(map(repr, classes))}"] if len(classes) > 1 else []
    return f", {', '.join(leaks)}" if leaks else ""


def _paths(items: Iterable[Inspection], root: Path) -> tuple[str, ...]:
    return tuple(sorted(relative(item.path, root) for item in items))
