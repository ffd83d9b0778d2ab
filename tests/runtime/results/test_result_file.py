"""Results files: written rows can be read back, and a run that was killed can be continued."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl import Prediction
from edgetl.errors import ImageError, MissingDependencyError, PredictionError, ResultsError
from edgetl.runtime.results import records, result_file
from edgetl.runtime.results.file_formats import RESULT_FORMATS, open_results
from edgetl.runtime.results.records import plain_name

LABELS = ("a,b", 'say "hi"', "new\nline", "花")
SUFFIXES = list(RESULT_FORMATS)


def result(name: str, best: int = 0) -> Prediction:
    probabilities = np.full(4, 0.125, np.float32)
    probabilities[best] = 0.625
    return Prediction(name, LABELS, np.log(probabilities), probabilities)


RESULTS = [
    result("plain.jpg"),
    result('odd, "name"\r\nof two lines.jpg', 2),
    ImageError("broken.jpg", "it is damaged\n(somehow)"),
    result("花.jpg", 3),
    result(os.fsdecode(b"no \xff unicode.jpg"), 1),
]
NAMES = [item.source for item in RESULTS]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a finished file, read without edgetl."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def write(
    path: Path, results: Sequence[Prediction | ImageError | PredictionError], model: str = "m1"
) -> None:
    with open_results(path, model, LABELS) as file:
        for item in results:
            if item.source not in file:
                file.append(item)


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"results{request.param}"


def test_what_is_written_can_be_read_back(path: Path) -> None:
    write(path, RESULTS)
    rows = read(path)
    assert [row["source"] for row in rows[:4]] == NAMES[:4]
    assert {row["model"] for row in rows} == {"m1"}
    assert [row.get("label") or None for row in rows] == [
        "a,b",
        "new\nline",
        None,
        "花",
        'say "hi"',
    ]
    assert rows[2]["error"] == "it is damaged\n(somehow)"
    assert float(rows[0]["confidence"]) == pytest.approx(0.625)
    probabilities = (
        rows[1]["probabilities"]
        if path.suffix == ".jsonl"
        else {n: rows[1][f"p({n})"] for n in LABELS}
    )
    assert {name: float(value) for name, value in probabilities.items()} == {
        "a,b": 0.125, 'say "hi"': 0.125, "new\nline": 0.625, "花": 0.125,
    }  # fmt: skip


def test_a_model_that_failed_is_a_failed_row_that_names_the_model(path: Path) -> None:
    write(path, [PredictionError("a.jpg", "m.onnx", "the model failed: reason", "Hint.")])
    (row,) = read(path)
    assert row["error"] == "m.onnx: the model failed: reason"
    with open_results(path, "m1", LABELS) as file:
        assert file.failed == 1


def test_a_file_name_that_is_not_unicode_is_kept(path: Path) -> None:
    write(path, RESULTS)
    shown = read(path)[4]["source"]
    assert shown == (NAMES[4] if path.suffix == ".jsonl" else "no \\udcff unicode.jpg")
    with open_results(path, "m1", LABELS) as file:
        assert NAMES[4] in file


def test_a_byte_and_the_text_of_its_escape_are_different_names(path: Path) -> None:
    names = [
        os.fsdecode(name)
        for name in (b"\xff", b"\\udcff", b"\\\\udcff", b"\xff\\", b"\\udcff\\", b"\\x", b"\\\xff")
    ]
    for wanted in range(len(names)):
        path.unlink(missing_ok=True)
        write(path, [result(names[wanted])])
        with open_results(path, "m1", LABELS) as file:
            assert [name in file for name in names] == [name == names[wanted] for name in names]


@given(st.text("\\ud8cf\udcff\udc5ca", max_size=12), st.text("\\ud8cf\udcff\udc5ca", max_size=12))
def test_different_names_are_written_differently(first: str, second: str) -> None:
    assert (plain_name(first) == plain_name(second)) == (first == second)
    plain_name(first).encode()


def test_ordinary_names_are_written_unchanged() -> None:
    for name in ("photos/花.jpg", r"C:\Users\me\1.jpg", r"a\u00ff.jpg"):
        assert plain_name(name) == name


def test_existing_rows_are_known_and_not_written_again(path: Path) -> None:
    write(path, RESULTS[:3])
    with open_results(path, "m1", LABELS) as file:
        assert len(file) == 3
        assert [name in file for name in NAMES] == [True] * 3 + [False] * 2
        assert file.failed == 1
    write(path, RESULTS)
    write(path, RESULTS)
    assert len(read(path)) == len(RESULTS)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_row_that_was_cut_off_is_written_again(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"results{suffix}"
    write(path, RESULTS)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        write(path, RESULTS)
        assert path.read_bytes() == whole, length


def test_a_parquet_run_that_stopped_continues_from_its_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    with pytest.raises(KeyboardInterrupt), open_results(path, "m1", LABELS) as file:
        file.append(RESULTS[0])
        file.append(RESULTS[1])
        raise KeyboardInterrupt
    assert not path.exists()
    waiting = tmp_path / "results.parquet.partial"
    waiting.write_bytes(waiting.read_bytes()[:-5])
    with open_results(path, "m1", LABELS) as file:
        assert len(file) == 1
        for item in RESULTS[1:]:
            file.append(item)
    assert [row["source"] for row in read(path)[:4]] == NAMES[:4]
    assert list(tmp_path.iterdir()) == [path]


def test_a_parquet_run_killed_after_replacing_its_table_writes_nothing_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "results.parquet"
    write(path, RESULTS[:2])
    with (
        pytest.raises(KeyboardInterrupt),
        open_results(tmp_path / "other.parquet", "m1", LABELS) as file,
    ):
        file.append(RESULTS[1])
        raise KeyboardInterrupt
    (tmp_path / "other.parquet.partial").rename(tmp_path / "results.parquet.partial")
    write(path, RESULTS)
    assert len(read(path)) == len(RESULTS)


@pytest.mark.parametrize("in_the_table", [True, False])
def test_failures_in_the_partial_file_of_a_parquet_table_are_counted_once(
    in_the_table: bool, tmp_path: Path
) -> None:
    path, waiting = tmp_path / "results.parquet", [RESULTS[2], ImageError("c.jpg", "it is empty")]
    write(path, [*RESULTS[:2], *(waiting if in_the_table else [])])
    with (
        pytest.raises(KeyboardInterrupt),
        open_results(tmp_path / "other.parquet", "m1", LABELS) as file,
    ):
        for item in waiting:
            file.append(item)
        raise KeyboardInterrupt
    (tmp_path / "other.parquet.partial").rename(tmp_path / "results.parquet.partial")
    with open_results(path, "m1", LABELS) as file:
        assert (len(file), file.failed) == (4, 2)


@pytest.mark.parametrize("name", ["run:1", "s3:a", "file:x", os.fsdecode(b"no \xff unicode")])
def test_a_parquet_table_can_have_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also names that look like the beginning of a URL, as relative paths without a folder."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.parquet")
    write(path, RESULTS[:2])
    write(path, RESULTS)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with path.open("rb") as file:
        assert pyarrow.parquet.read_table(file).num_rows == len(RESULTS)


def test_a_link_to_a_parquet_table_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.parquet").symlink_to("there/table.parquet")
    for results in (RESULTS[:2], RESULTS):
        write(tmp_path / "link.parquet", results)
    assert (tmp_path / "link.parquet").is_symlink()
    assert len(read(tmp_path / "there/table.parquet")) == len(RESULTS)


def test_parquet_rows_are_written_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.runtime.results.parquet_file._ROWS_IN_MEMORY", 10)
    path = tmp_path / "many.parquet"
    write(path, [result(f"{i}.jpg") for i in range(25)])
    write(path, [result(f"{i}.jpg") for i in range(47)])
    assert [row["source"] for row in read(path)] == [f"{i}.jpg" for i in range(47)]
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 6


def test_results_of_two_models_are_never_mixed(path: Path) -> None:
    write(path, RESULTS[:2])
    before = path.read_bytes()
    with pytest.raises(
        ResultsError, match=r"holds results of another model \(m1; this one is m2\)"
    ):
        write(path, RESULTS, model="m2")
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_other_labels_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"results{suffix}"
    write(path, RESULTS)
    with pytest.raises(
        ResultsError, match="not a result of edgetl predict with this model's labels"
    ):
        open_results(path, "m1", ("cat", "dog"))


@pytest.mark.parametrize(
    "content",
    [b"words\n", b"{}\n", b"[]\n", b"\0\n", b"1,2,3\n", b"\xff\xfe\n", b"no line end", b'"'],
)
def test_a_file_with_other_content_is_left_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ResultsError):
        write(path, RESULTS)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_csv_row_of_another_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write(path, RESULTS)
    path.write_bytes(path.read_bytes() + b"1,2\n")
    with pytest.raises(ResultsError, match="2 columns"):
        write(path, RESULTS)


ODD_NAMES = [
    "a\rb.jpg",
    "\rc.jpg",
    "d\r",
    "e\nf.jpg",
    "\n",
    "g\r\n\r.jpg",
    '"h"\r"i".jpg',
    "\r,m1,.jpg",
]


def test_a_name_with_a_line_end_is_kept_by_every_continuation(path: Path) -> None:
    results = [result(name) for name in ODD_NAMES]
    write(path, results[:3])
    write(path, results[:6])
    write(path, results)
    write(path, results)
    assert [row["source"] for row in read(path)] == ODD_NAMES


def test_a_csv_row_cut_off_anywhere_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    for name in ODD_NAMES:
        results = [*RESULTS, result(name)]
        path.unlink(missing_ok=True)
        write(path, results[:-1])
        start = path.stat().st_size
        write(path, results)
        whole = path.read_bytes()
        for length in range(start, len(whole)):
            path.write_bytes(whole[:length])
            write(path, results)
            assert path.read_bytes() == whole, length


@pytest.mark.parametrize("damage", ['"x"y', '"x', "x\ry", 'x,"', '"x""'])
@pytest.mark.parametrize(
    "after", [[result("a.jpg"), result("b.jpg")], [*RESULTS[1:], result("a.jpg")]]
)
def test_a_damaged_csv_row_does_not_lose_those_after_it(
    damage: str, after: list[Prediction | ImageError], tmp_path: Path
) -> None:
    path = tmp_path / "results.csv"
    write(path, [RESULTS[0], result("hurt.jpg"), *after])
    damaged = path.read_bytes().replace(b"hurt.jpg", damage.encode())
    for cut in (0, 5):  # 5: the last row is cut off as well
        path.write_bytes(damaged[: len(damaged) - cut])
        with pytest.raises(ResultsError, match=r"results.csv, line \d+: not a result"):
            write(path, RESULTS)
        assert path.read_bytes() == damaged[: len(damaged) - cut]


def test_a_kill_loses_the_rows_of_one_second_at_most(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(
        "edgetl.runtime.results.result_file.time", SimpleNamespace(monotonic=lambda: now)
    )
    with open_results(path, "m1", LABELS) as file:
        for count in (1, 2):
            now += 1.01
            file.append(result(f"{count}.jpg"))
            seen = file.path.read_bytes()  # what a kill would leave
            assert [name in seen for name in (b"1.jpg", b"2.jpg")] == [True, count == 2]


def test_one_writer_at_a_time(path: Path) -> None:
    with (
        open_results(path, "m1", LABELS),
        pytest.raises(ResultsError, match="being written by another process"),
    ):
        open_results(path, "m1", LABELS)
    write(path, RESULTS)


@pytest.mark.parametrize("name", ["results.txt", "results", "nowhere/results.jsonl"])
def test_a_file_that_can_not_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResultsError):
        open_results(tmp_path / name, "m1", LABELS)
    with pytest.raises(ResultsError):
        open_results(tmp_path, "m1", LABELS)


def test_the_error_for_missing_pyarrow_gives_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"edgetl\[parquet\]"):
        open_results(tmp_path / "results.parquet", "m1", LABELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"source": "a.jpg", "label": "cat", "note": "by hand"}'),
        ("b.jsonl", b'{"source": "a.jpg", "model": "another", "label": "cat"}'),
    ],
)
def test_another_programs_line_without_an_end_is_not_taken_for_a_cut_off_row(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ResultsError, match="cut off"):
        open_results(tmp_path / name, "0123456789abcdef", ("cat", "dog"))
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_true_labels_are_in_a_column_where_they_are_known(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"results{suffix}"
    with open_results(path, "m1", LABELS) as file:
        for item, truth in zip(RESULTS, (LABELS[2], None, LABELS[1]), strict=False):
            file.append(item, truth)
    truths = [row.get("truth") or None for row in read(path)]
    assert truths == [LABELS[2], None, LABELS[1]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_true_labels_is_continued_without_them(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"results{suffix}"
    module = {".csv": "csv_file", ".parquet": "parquet_file"}[suffix]
    older = records.columns(LABELS, truth=False)
    with monkeypatch.context() as patch:  # as an earlier version wrote it
        patch.setattr(result_file, "columns", lambda labels, **_: older)
        patch.setattr(f"edgetl.runtime.results.{module}.columns", lambda labels, truth: older)
        write(path, RESULTS[:2])
    with open_results(path, "m1", LABELS) as file:
        assert len(file) == 2
        file.append(RESULTS[2], LABELS[0])
        file.append(RESULTS[3], LABELS[0])
    rows = read(path)
    assert list(rows[0]) == older and "truth" not in older
    assert [row["label"] or None for row in rows] == [LABELS[0], LABELS[2], None, LABELS[3]]
    with open_results(path, "m1", LABELS) as file:
        assert len(file) == 4 and file.failed == 1
