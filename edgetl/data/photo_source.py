"""Where labelled photos come from: a data folder, or a list. No photo is read here."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.layout import (
    PART_OF,
    TEST,
    TRAIN,
    UNKNOWN,
    UNSPLIT,
    VAL,
    class_names,
    data_parts,
    layout_warnings,
    name_error,
    normalized_name,
    similar_names,
    too_few_classes,
)
from edgetl.data.stored_labels import labelled_by_place
from edgetl.errors import DataError
from edgetl.runtime.images.discovery import find_images
from edgetl.runtime.images.photo_list import (
    ListedPhoto,
    is_photo_list,
    read_photo_list,
    refuse_list_options,
    require_files,
    row_name,
)
from edgetl.runtime.images.photo_places import is_stored, local_photos, photos_folder, photos_in
from edgetl.runtime.images.stored_path import absolute_name, as_place, is_address
from edgetl.system.paths import is_there


@dataclass(frozen=True)
class PhotoSource:
    """A folder, or a list, shards or a store, and the options that say how to read them.

    path     the folder, the list, the shards or the address
    columns  of a list: "path=…,label=…,split=…", or a mapping, where its columns have other names
    root     of a list: the folder that its paths are relative to; "" for its own folder
    """

    path: Path
    columns: str | Mapping[str, str] = ""
    root: str = ""

    @classmethod
    def at(
        cls,
        place: str | os.PathLike[str],
        columns: str | Mapping[str, str] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> PhotoSource:
        """What the arguments of a function or a command describe, with absolute paths."""
        return cls(as_place(place).absolute(), columns or "", absolute_name(root) if root else "")

    @classmethod
    def of(cls, data: str | Path | PhotoSource) -> PhotoSource:
        """The source itself, or the one at a place without such options."""
        return data if isinstance(data, PhotoSource) else cls(as_place(data))

    @property
    def is_list(self) -> bool:
        """Whether it says itself which photos there are: a list, shards, or a store."""
        return self.is_stored or is_photo_list(self.path)

    @property
    def is_stored(self) -> bool:
        """Whether the photos are in shards or in a store, and not named in a list."""
        return is_stored(self.path)

    @property
    def is_gone(self) -> bool:
        """Whether nothing is there. Of shards and stores, only reading them tells."""
        return not (self.is_stored or is_address(self.path) or is_there(self.path))

    @property
    def folder(self) -> Path:
        """The folder that the photos' names are relative to, absolute."""
        return photos_folder(self.path, self.root).absolute()

    @property
    def is_split(self) -> bool:
        """Whether it says what to validate on. Raises DataError if it can't be read."""
        return VAL in (self.listed_parts() if self.is_list else self.folder_parts())

    def photos(self) -> list[ListedPhoto]:
        """All photos, or the single one: see ``photos_in``."""
        return photos_in(self.path, columns=self.columns, root=self.root)

    def folder_parts(self) -> dict[str, Path]:
        """``data_parts`` of a folder. Raises DataError, also for options that need a list."""
        refuse_list_options(self.path, self.columns, self.root)
        return data_parts(self.path.absolute())

    def listed_parts(self) -> dict[str, list[ListedPhoto]]:
        """Part → the photos of a list: "train", "val" and "test", or "" where training splits.

        In shards and stores there may be a part "unknown", too: photos of no class.
        Raises DataError for a list or shard that can't be read, and for parts of other names.
        """
        if self.is_stored:
            photos = labelled_by_place(self.photos())
        else:
            photos = local_photos(
                read_photo_list(
                    self.path.absolute(), columns=self.columns, root=self.folder, need_label=True
                )
            )
        parts: dict[str, list[ListedPhoto]] = {}
        for photo in photos:
            part = UNSPLIT
            if photo.split is not None:
                part = PART_OF.get(photo.split.strip().lower(), photo.split)
                if part not in (TRAIN, VAL, TEST, *((UNKNOWN,) if self.is_stored else ())):
                    where = f"{self.path}, {row_name(self.path, photo.row)}"
                    raise DataError(
                        f"{where}: {photo.split!r} is none of train, val and test.",
                        "Correct it, or have the photos split: --columns split=",
                    )
            parts.setdefault(part, []).append(photo)
        if VAL not in parts and TRAIN in parts:
            parts[UNSPLIT] = parts.pop(TRAIN)
        order = (UNSPLIT, TRAIN, VAL, TEST, UNKNOWN)
        return {part: parts[part] for part in order if part in parts}

    def parts_to_train(self) -> dict[str, list[ListedPhoto]]:
        """``listed_parts``. Raises DataError also if no photo is to train on."""
        parts = self.listed_parts()
        if not {TRAIN, UNSPLIT} & parts.keys():
            raise DataError(
                f"{self.path} marks no photo as train.",
                "Correct what it calls the parts: in the column or field split, the shards' names, "
                "or the folders train and val.",
            )
        return parts


@dataclass(frozen=True)
class LabelledFiles:
    """Photos and their classes.

    classes   sorted
    parts     "train" and "val", or "" for photos to split → (file, index of its class), by class
              and path
    warnings  sentences about what may be a mistake
    unknown   photos of no class, which are beside the parts in shards and stores
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[tuple[Path, int]]]
    warnings: tuple[str, ...]
    unknown: tuple[Path, ...] = ()


def find_labelled(source: PhotoSource) -> LabelledFiles:
    """The photos to train and to validate on.

    Raises DataError for what can't be trained on: unknown parts, too few classes, classes without
    photos or in one part only, and files of a list that are not there.
    """
    found = _in_list(source) if source.is_list else _in_folders(source)
    for name in (str(source.folder), *found.classes):
        if (error := name_error(name)) is not None:
            raise error
    return found


def too_few_labels(file: Path, labels: Sequence[str]) -> DataError | None:
    """Why the labels of a list are not enough to train on, or None."""
    if len(labels) >= 2:
        return None
    return DataError(
        f"{file} has one label only, {labels[0]}; a classifier needs two or more.",
        "Add photos of another class.",
    )


def require_photos(
    classes: Sequence[str], labels: Iterable[int], problem: str, hint: str | None = None
) -> None:
    """Raises DataError if ``labels`` lack a class."""
    present = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty:
        noun = "Class" if len(empty) == 1 else "Classes"
        raise DataError(
            f"{noun} {', '.join(map(repr, empty))}: {problem}.",
            hint
            or "Add photos to the folder, or remove the class (from train/ and val/, if split).",
        )


def _in_folders(source: PhotoSource) -> LabelledFiles:
    places = source.folder_parts()
    if UNSPLIT not in places:
        train, val = (class_names(places[part]) for part in (TRAIN, VAL))
        _require_same_classes(source, train, val)
    parts = {}
    for part, folder in places.items():
        classes = class_names(folder)
        if (error := too_few_classes(folder, classes)) is not None:
            raise error
        parts[part] = [
            (path, label)
            for label, name in enumerate(classes)
            for path in find_images(folder / name)
        ]
        require_photos(classes, (label for _, label in parts[part]), f"no photo in {folder}")
    photos = [path for found in parts.values() for path, _ in found]
    has_test = UNSPLIT not in places and (source.folder / TEST).is_dir()
    warnings = (
        *_left_alone(has_test),
        *_on_unknown(
            classes,
            is_split=UNSPLIT not in places,
            is_beside=UNSPLIT not in places and (source.folder / UNKNOWN).is_dir(),
        ),
        *layout_warnings(places, photos),
    )
    return LabelledFiles(tuple(classes), parts, warnings)


def _in_list(source: PhotoSource) -> LabelledFiles:
    listed = source.parts_to_train()
    has_test = listed.pop(TEST, None) is not None
    unknown = tuple(photo.path for photo in listed.pop(UNKNOWN, ()))
    require_files(source.path, [photo for photos in listed.values() for photo in photos])
    labels = {part: {str(photo.label) for photo in photos} for part, photos in listed.items()}
    if VAL in labels:
        _require_same_classes(source, labels[TRAIN], labels[VAL])
    classes = sorted(set().union(*labels.values()))
    if (error := too_few_labels(source.path, classes)) is not None:
        raise error
    index = {name: label for label, name in enumerate(classes)}
    parts = {
        part: sorted(
            ((photo.path, index[str(photo.label)]) for photo in photos),
            key=lambda found: (found[1], found[0].as_posix()),
        )
        for part, photos in listed.items()
    }
    warnings = (
        *_left_alone(has_test),
        *(_on_unknown(classes, is_split=VAL in labels, is_beside=True) if unknown else ()),
        *similar_names(classes),
    )
    return LabelledFiles(tuple(classes), parts, warnings, unknown)


def _left_alone(has_test: bool) -> Iterator[str]:
    if has_test:
        yield f"{TEST}/ is left alone: it is used neither to train nor to validate."


def _on_unknown(classes: Collection[str], *, is_split: bool, is_beside: bool) -> Iterator[str]:
    """What photos named unknown count as; ``is_beside``: some are beside the parts."""
    if UNKNOWN in classes and not is_split:
        yield (
            f"{UNKNOWN}/ is a class here, as any other folder. A model notices photos unlike its "
            "training photos without one; to judge how well, put the folder beside train/ and val/."
        )
    elif is_beside:
        if UNKNOWN in classes:
            yield f"{UNKNOWN}/ beside train/ is left alone, since {UNKNOWN} is a class, too."
        else:
            yield f"{UNKNOWN}/ only judges how well unknown photos are noticed; nothing learns it."


def _require_same_classes(
    source: PhotoSource, train: Collection[str], val: Collection[str]
) -> None:
    """Raises DataError if classes are in one part only; too few classes are reported elsewhere."""
    only_in = {TRAIN: set(train) - set(val), VAL: set(val) - set(train)}
    if len(train) < 2 or not any(only_in.values()):
        return
    similar = set(map(normalized_name, only_in[TRAIN])) & set(map(normalized_name, only_in[VAL]))
    shown = ascii if similar else str
    differences = [
        f"only in {part}/: {', '.join(map(shown, sorted(names)))}"
        for part, names in only_in.items()
        if names
    ]
    hint = "Each class needs a folder of the same name in both."
    if source.is_list:
        hint = "Each class needs photos in both."
    raise DataError(
        f"{source.path}: the classes of train/ and val/ differ; {'; '.join(differences)}.",
        "Names that look the same must consist of the same characters, too." if similar else hint,
    )
