"""Lists of photos in every format, and messages for those that can't be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgetl.errors import DataError, MissingDependencyError
from edgetl.runtime.images.photo_list import (
    is_photo_list,
    missing_files,
    read_photo_list,
    require_files,
)
from edgetl.runtime.images.photo_places import photos_in

ROWS = [
    {"path": "a.jpg", "label": "cat", "split": "train"},
    {"path": "in, a folder/b.jpg", "label": 'red 花 "x"', "split": "val"},
]


def csv_text(separator: str) -> str:
    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in cells]
    return "\n".join(separator.join(row) for row in quoted) + "\n"


def write(folder: Path, suffix: str) -> Path:
    """``ROWS`` as a list of this format."""
    file = folder / f"photos{suffix}"
    if suffix == ".parquet":
        import pyarrow.parquet

        with file.open("wb") as target:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), target)
    elif suffix == ".txt":
        file.write_text("\n".join(row["path"] for row in ROWS))
    elif suffix in (".jsonl", ".ndjson"):
        lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
        file.write_text("\n\n".join(lines), "utf-8")
    else:
        file.write_text(csv_text("\t" if suffix == ".tsv" else ","), "utf-8")
    return file


def listed(folder: Path, text: str, name: str = "photos.csv", **options: object) -> list[tuple]:
    file = folder / name
    file.write_bytes(text.encode("utf-8"))
    found = read_photo_list(file, **options)  # type: ignore[arg-type]
    return [(str(photo.path.relative_to(folder)), photo.label, photo.split) for photo in found]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt"])
def test_every_format_gives_the_same_photos(tmp_path, suffix):
    file = write(tmp_path, suffix)
    assert is_photo_list(file)
    photos = read_photo_list(file)
    assert [photo.path for photo in photos] == [tmp_path / row["path"] for row in ROWS]
    if suffix != ".txt":
        assert [photo.label for photo in photos] == [row["label"] for row in ROWS]
        assert [photo.split for photo in photos] == ["train", "val"]
    lines = {".csv": [2, 3], ".tsv": [2, 3], ".jsonl": [1, 3], ".ndjson": [1, 3]}
    assert [photo.row for photo in photos] == lines.get(suffix, [1, 2])


def test_only_files_with_the_suffix_of_a_list_are_lists(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "photo.jpg").touch()
    assert not any(map(is_photo_list, (*tmp_path.iterdir(), tmp_path / "missing.csv")))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffFilename;Class\r\na.jpg;cat\r\n",  # as Excel saves it
        "image\tcategory\na.jpg\tcat\n",
        "id,File_Path,label\n\n7,a.jpg,cat",
    ],
)
def test_separators_line_ends_and_usual_names_are_found(tmp_path, text):
    assert listed(tmp_path, text) == [("a.jpg", "cat", None)]


@pytest.mark.parametrize(
    "columns",
    ["path=my, file,label=kind,split=", {"path": "my, file", "label": "kind", "split": ""}],
)
def test_columns_can_be_named(tmp_path, columns):
    text = '"my, file",kind,label,split\na.jpg,cat,x,y\n'
    assert listed(tmp_path, text, columns=columns) == [("a.jpg", "cat", None)]


def test_paths_are_relative_to_the_list_or_to_the_root(tmp_path):
    file = tmp_path / "photos.csv"
    file.write_text(f"path\na.jpg\n{tmp_path}/b.jpg\n")
    inner, absolute = (photo.path for photo in read_photo_list(file, root=tmp_path / "root"))
    assert (inner, absolute) == (tmp_path / "root/a.jpg", tmp_path / "b.jpg")


def test_numbers_are_labels(tmp_path):
    text = '{"path": "a.jpg", "label": 7}\n{"path": "b.jpg", "label": "7"}\n'
    assert [label for _, label, _ in listed(tmp_path, text, "photos.jsonl")] == ["7", "7"]


def test_a_file_that_is_named_twice_is_one_photo(tmp_path):
    text = "path,label\na.jpg,cat\n./x/../a.jpg,cat\n"
    assert listed(tmp_path, text) == [("a.jpg", "cat", None)]
    with pytest.raises(DataError, match=r"'a.jpg' is 'cat' in line 2, and 'dog' in line 3"):
        listed(tmp_path, "path,label\na.jpg,cat\na.jpg,dog\n")


def test_labels_may_be_missing_where_none_are_needed(tmp_path):
    text = "path,label\na.jpg,cat\nb.jpg,\n"
    assert listed(tmp_path, text)[1] == ("b.jpg", None, None)
    with pytest.raises(DataError, match=r"line 3: 'label' is empty"):
        listed(tmp_path, text, need_label=True)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "has no column of paths"),
        ("a.csv", "path,label\n", "names no photo"),
        ("a.csv", "a.jpg,cat\nb.jpg,dog\n", "no column of paths; its columns are 'a.jpg', 'cat'"),
        ("a.csv", "path,file\na,b\n", r"the path could be in 'path' or 'file'"),
        ("a.csv", "path,path\na,b\n", "names a column twice"),
        ("a.csv", "path,label\na,b.jpg,cat\n", "line 2: 3 values for 2 columns"),
        ("a.csv", 'path,label\n"a.jpg,cat\n', "line 2: unexpected end of data"),
        ("a.csv", "path\n\n\n,\n", "line 4: 2 values for 1 columns"),
        ("a.csv", "path,label\n,cat\n", "line 2: 'path' is empty"),
        ("a.jsonl", '{"path": "a"}\n{"path"\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("a.jsonl", '{"path": {"bytes": 1}}', "line 1: 'path' is .* which is no text"),
        ("a.jsonl", '{"path": "a", "label": true}', "'label' is 'True', which is no text"),
        ("a.txt", "\n", "names no photo"),
        ("a.parquet", "x", "is not a Parquet file"),
        ("a.xlsx", "x", "is no list of photos"),
    ],
)
def test_what_can_not_be_read_is_said_with_its_line(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said) as caught:
        listed(tmp_path, text, name)
    assert caught.value.hint


def test_a_list_that_is_not_utf8_or_not_there_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("path\nä.jpg\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8"):
        read_photo_list(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"b\.csv can't be read: No such file"):
        read_photo_list(tmp_path / "b.csv")


@pytest.mark.parametrize("columns", ["file", "path", "x=1,path=file", {"file": "path"}])
def test_impossible_columns_are_refused(tmp_path, columns):
    with pytest.raises(DataError, match=r"--columns: .* is none of path=, label= and split="):
        listed(tmp_path, "file\na.jpg\n", columns=columns)


def test_a_named_column_must_exist(tmp_path):
    with pytest.raises(DataError, match="has no column 'kind'; its columns are 'path'"):
        listed(tmp_path, "path,label\na,b\n", columns="label=kind")


@pytest.mark.parametrize(("name", "text"), [("a.csv", "path\na.jpg\n"), ("a.txt", "a.jpg")])
def test_labels_that_are_needed_must_be_there(tmp_path, name, text):
    with pytest.raises(DataError, match="has no column of labels"):
        listed(tmp_path, text, name, need_label=True)


def test_missing_files_are_named_with_their_lines(tmp_path):
    (tmp_path / "a.jpg").touch()
    file = tmp_path / "photos.csv"
    file.write_text("path\na.jpg\n" + "".join(f"{number}.jpg\n" for number in range(12)))
    photos = read_photo_list(file)
    assert [photo.row for photo in missing_files(photos)] == list(range(3, 15))
    with pytest.raises(
        DataError, match=r"names 12 files that are not there:\n  line 3: "
    ) as caught:
        require_files(file, photos)
    assert caught.value.message.endswith("\n  and 2 more")
    assert "--root DIR" in str(caught.value.hint)
    require_files(file, photos[:1])


def test_photos_come_from_a_folder_a_list_or_one_file(tmp_path):
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "photos.csv").write_text("file,label\nb.jpg,cat\n")
    assert [photo.path.name for photo in photos_in(tmp_path)] == ["a.jpg", "b.jpg"]
    assert [photo.path.name for photo in photos_in(tmp_path / "b.jpg")] == ["b.jpg"]
    (listed_one,) = photos_in(tmp_path / "photos.csv", columns="path=file")
    assert (listed_one.path, listed_one.label) == (tmp_path / "b.jpg", "cat")
    for options in ({"columns": "path=file"}, {"root": tmp_path}):
        with pytest.raises(DataError, match=r"no effect, since .* is no list"):
            photos_in(tmp_path, **options)
    with pytest.raises(DataError, match="names a file that is not there"):
        photos_in(tmp_path / "photos.csv", root=tmp_path / "elsewhere")


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    file = write(tmp_path, ".parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="Reading Parquet needs the extra parquet"):
        read_photo_list(file)
