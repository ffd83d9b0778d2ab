"""Lists of photos: CSV, TSV, JSON lines, Parquet, or a text file of paths."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgetl.errors import DataError
from edgetl.runtime.images.discovery import class_folder
from edgetl.runtime.images.photo_shards import is_shard
from edgetl.runtime.images.stored_path import StoredPath, as_place, is_address
from edgetl.system.message_text import first_few
from edgetl.system.missing_package import require_packages
from edgetl.system.paths import is_there

PATH, LABEL, SPLIT = "path", "label", "split"
GUESSED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    PATH: (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "image_file", "img", "img_path", "photo", "source"),
    ),
    LABEL: ("label", "class", "class_name", "category", "target", "truth"),
    SPLIT: ("split", "set", "subset", "part", "partition"),
}
"""What a column may be called, in any case, to be found without ``--columns``."""

COLUMNS_HELP = "Columns of a list with other names: path=FILE,label=CLASS,split=PART."
ROOT_HELP = "Folder that a list's paths are relative to, if not its own."
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
_ROLE = re.compile(r"(?:^|,)(path|label|split)=")  # a column's own name may hold commas
_COLUMNS = "Name the columns with --columns path=COLUMN,label=COLUMN,split=COLUMN."
_LISTED = 10  # rows in a message before "and N more"

StrPath = str | os.PathLike[str]
Columns = str | Mapping[str, str] | None
"""Of a list: "path=…,label=…,split=…", or the same as a mapping."""
Row = tuple[int, Mapping[str, Any]]  # number of the line or row, from 1, and its values by column


@dataclass(frozen=True)
class ListedPhoto:
    """One row of a list.

    path   absolute, or relative to the current folder if the list is
    name   the path as the list writes it; in a folder, below that
    label  the class, or None without one
    split  the part that it is in, as written, or None without one
    row    its line in the file, from 1; of a Parquet file its row
    """

    path: Path
    name: str
    label: str | None
    split: str | None
    row: int


def is_photo_list(path: StrPath) -> bool:
    """Whether ``path`` is a file that is read as a list, by its suffix.

    A Parquet file that holds photos themselves is none. Raises DataError for one in a store that
    can't be read.
    """
    place = as_place(path)
    if place.suffix.lower() not in _SUFFIXES:
        return False
    return (is_address(path) or place.is_file()) and not is_shard(path)


def refuse_list_options(place: str | Path | None, columns: Columns, root: StrPath | None) -> None:
    """Raise DataError for ``columns`` or ``root`` beside ``place``, which is no list.

    place  None: no photos were named, or several places without a list
    """
    why = "without a list of photos" if place is None else f"since {place} is no list"
    for option, value in (("--columns", columns), ("--root", root)):
        if value:
            raise DataError(f"{option}: no effect, {why}.", "Leave it out.")


def true_label(photo: Path, given: str | None, folder: Path, labels: Container[str]) -> str | None:
    """The label that a list gives, or without one that of ``class_folder``, if among ``labels``.

    folder  ``photos_folder``
    """
    if given is not None:
        return given if given in labels else None
    return class_folder(photo, folder if photo.is_relative_to(folder) else photo.parent, labels)


def read_photo_list(
    file: str | Path,
    *,
    columns: Columns = None,
    root: StrPath | None = None,
    need_label: bool = False,
) -> list[ListedPhoto]:
    """The photos that a list names, in its order, each file once.

    file        .csv, .tsv, .jsonl or .ndjson, .parquet; or .txt with one path in each line
    columns     "path=…,label=…,split=…", or the same as a mapping, for names that are none of
                ``GUESSED_COLUMNS``; an empty name says that there is no such column
    root        the folder that paths are relative to (default: that of ``file``)
    need_label  refuse a list without labels, and rows without a label or a split

    The files themselves are not looked at: see ``require_files``. Raises DataError for a list that
    can't be read, with the line where it is wrong; MissingDependencyError for Parquet without
    pyarrow.
    """
    file = as_place(file)
    folder = as_place(root) if root else file.parent
    names, rows = _read(file)
    chosen = _choose_columns(file, names, _given_columns(columns))
    if need_label and LABEL not in chosen:
        raise DataError(
            f"{file} has no column of labels{_held(names)}.",
            "Name it with --columns label=COLUMN."
            if names
            else "Give a CSV file with the columns path and label.",
        )
    found: dict[str, ListedPhoto] = {}
    for row, values in rows:
        cell = partial(_cell, file, row, values)
        path = cell(chosen[PATH])
        label, split = (
            cell(chosen[role], required=need_label) if role in chosen else ""
            for role in (LABEL, SPLIT)
        )
        place_of = as_place(path) if is_address(path) else folder / path
        photo = ListedPhoto(place_of, path, label or None, split or None, row)
        place = os.path.normcase(os.path.normpath(photo.path))  # Windows ignores case
        first = found.setdefault(place, photo)
        if (first.label, first.split) != (photo.label, photo.split):
            raise DataError(
                f"{file}: {path!r} is {_described(first)} in {row_name(file, first.row)}, "
                f"and {_described(photo)} in {row_name(file, row)}.",
                "Keep one of the two.",
            )
    if not found:
        raise DataError(f"{file} names no photo.", "Add a line for each photo.")
    return list(found.values())


def row_name(file: str | Path, row: int) -> str:
    """What messages call a row of a list: "line 3", or "row 2" of a Parquet file."""
    return f"{'row' if Path(file).suffix.lower() == '.parquet' else 'line'} {row}"


def require_files(file: str | Path, photos: Iterable[ListedPhoto]) -> None:
    """Raise DataError, naming the lines, if files that a list names are not there."""
    missing = list(missing_files(photos))
    if missing:
        named = [f"{row_name(file, photo.row)}: {photo.path}" for photo in missing]
        lines = [f"  {line}" for line in first_few(named, _LISTED)]
        what = "a file that is" if len(missing) == 1 else f"{len(missing):,} files that are"
        raise DataError(
            f"{file} names {what} not there:\n" + "\n".join(lines),
            "Correct these lines, or name the folder that paths are relative to with --root DIR.",
        )


def missing_files(photos: Iterable[ListedPhoto]) -> Iterator[ListedPhoto]:
    """Those of ``photos`` whose file does not exist. One that may not be read does.

    Those in a store are not asked for: reading them tells.
    """
    for photo in photos:
        if isinstance(photo.path, StoredPath):
            continue
        try:
            if not is_there(photo.path):
                yield photo
        except ValueError:  # a name with a zero byte
            yield photo
        except OSError:
            continue


def role_names(columns: Columns) -> Mapping[str, tuple[str, ...]]:
    """Role → what its column may be called, lower-case; () where ``columns`` say that none is."""
    given = _given_columns(columns)
    return {
        role: (given[role].lower(),) * bool(given[role]) if role in given else guesses
        for role, guesses in GUESSED_COLUMNS.items()
    }


def _given_columns(columns: Columns) -> Mapping[str, str]:
    """Role → column, from "path=file,label=class"."""
    if not columns:
        return {}
    if isinstance(columns, str):
        begin, *parts = _ROLE.split(columns)
        given = dict(zip(parts[::2], parts[1::2], strict=True))
        wrong = begin or ("" if given else columns)
    else:
        given = dict(columns)
        wrong = ", ".join(given.keys() - GUESSED_COLUMNS.keys())
    if wrong:
        raise DataError(
            f"--columns: {wrong!r} is none of path=, label= and split=.",
            "For example: --columns path=file,label=class,split=part",
        )
    return given


def _choose_columns(file: Path, names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Role → column. Raises DataError where that is not clear."""
    chosen = {}
    for role, guesses in GUESSED_COLUMNS.items():
        if role in given:
            found = [given[role]] if given[role] else []
            if found and found[0] not in names:
                raise DataError(
                    f"{file} has no column {found[0]!r}{_held(names)}.", "Correct --columns."
                )
        else:
            found = [name for name in names if name.strip().lower() in guesses]
        if len(found) > 1:
            raise DataError(
                f"{file}: the {role} could be in {' or '.join(map(repr, found))}.",
                f"Say which with --columns {role}={found[0]}",
            )
        if found:
            chosen[role] = found[0]
    if PATH not in chosen:
        raise DataError(
            f"{file} has no column of paths{_held(names)}.",
            "Name it with --columns path=COLUMN; the first line must name the columns.",
        )
    return chosen


def _held(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_LISTED])) + (", …" if len(names) > _LISTED else "")
    return f"; its columns are {shown}" if names != [PATH] else ""


def _described(photo: ListedPhoto) -> str:
    return " in ".join(repr(text) for text in (photo.label, photo.split) if text) or "not labelled"


def _cell(
    file: Path, row: int, values: Mapping[str, Any], column: str, *, required: bool = True
) -> str:
    """A path, label or split as text, "" if it is empty. Whole numbers are labels, too."""
    value = values.get(column)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    where = f"{file}, {row_name(file, row)}"
    if value in (None, ""):
        if not required:
            return ""
        raise DataError(f"{where}: {column!r} is empty.", "Fill it in, or remove the line.")
    raise DataError(f"{where}: {column!r} is {str(value)[:40]!r}, which is no text.", _COLUMNS)


def _read(file: Path) -> tuple[list[str], Iterator[Row]]:
    """(the columns, the rows) of a list. Raises DataError."""
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"{file} is no list of photos.", f"Lists end in {', '.join(_SUFFIXES)}.")
    try:
        if suffix == ".parquet":
            return _parquet(file)
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{file} can't be read: {error.strerror or error}.", "Check its name and its rights."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8.", "Save it as UTF-8, as CSV UTF-8 in Excel."
        ) from error
    if suffix == ".txt":
        return [PATH], (
            (number, {PATH: line}) for number, line in enumerate(_lines(text), 1) if line.strip()
        )
    if suffix in (".jsonl", ".ndjson"):
        rows = list(_json_rows(file, text))
        return list(dict.fromkeys(name for _, values in rows for name in values)), iter(rows)
    return _table(file, text, "\t" if suffix == ".tsv" else None)


def _lines(text: str) -> list[str]:
    """Without line ends; other characters that Python takes for line ends may be in a name."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _table(file: Path, text: str, delimiter: str | None) -> tuple[list[str], Iterator[Row]]:
    header = text.partition("\n")[0]
    # Excel separates by semicolons where the decimal point is a comma.
    delimiter = delimiter or max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def cells() -> Iterator[tuple[int, list[str]]]:
        try:
            for values in reader:
                if values:
                    yield reader.line_num, values
        except csv.Error as error:
            raise DataError(
                f"{file}, line {reader.line_num}: {error}.", "Is a quotation mark missing?"
            ) from error

    lines = cells()
    _, names = next(lines, (0, [""]))
    if len(set(names)) < len(names):
        raise DataError(f"{file} names a column twice: {', '.join(names)}.", "Rename one of them.")

    def rows() -> Iterator[Row]:
        for number, values in lines:
            if len(values) != len(names):
                raise DataError(
                    f"{file}, line {number}: {len(values)} values for {len(names)} columns.",
                    'Put a value that holds the separator in quotation marks: "a,b.jpg".',
                )
            yield number, dict(zip(names, values, strict=True))

    return names, rows()


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}, line {number}: not JSON ({error}).", "Each line is one JSON object."
            ) from error
        if not isinstance(values, dict):
            raise DataError(
                f"{file}, line {number}: not a JSON object.",
                'Each line is one, such as {"path": "1.jpg", "label": "cat"}',
            )
        yield number, values


def _parquet(file: Path) -> tuple[list[str], Iterator[Row]]:
    require_packages("Reading Parquet", "parquet", "pyarrow")
    import pyarrow.parquet

    try:
        # pyarrow is given an open file: it takes some names for addresses, and can't encode others.
        with file.open("rb") as source:
            table = pyarrow.parquet.read_table(source)
        return table.column_names, enumerate(table.to_pylist(), 1)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file} is not a Parquet file ({error}).", "Write it again.") from error
