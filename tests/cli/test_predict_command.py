"""``edgetl predict``: the table, the JSON lines, the exit codes, and odd names."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from helpers import tiny_bundle as tiny
from helpers.pictures import photo
from PIL import Image

from edgetl import Predictor
from edgetl.cli.main import command as program
from edgetl.runtime.bundle.abstention import SureAnswers
from edgetl.runtime.bundle.prediction_sets import PredictionSets
from edgetl.runtime.bundle.promises import Promises
from edgetl.runtime.images.decode import MAX_PIXELS


def predict(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)], input=stdin)


def records(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_table(tiny_bundle: Path, photo_folder: Path) -> None:
    first, second = photo_folder / "0-64x48.jpg", photo_folder / "1-48x64.png"
    result = predict(tiny_bundle, first, second, "--top", 2)
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["confidence", "label", "photo"]
    assert [
        row.endswith(str(path)) for row, path in zip(rows[::2], (first, second), strict=True)
    ] == [True, True]
    expected = Predictor(tiny_bundle)(first).top(2)
    assert rows[0].split()[0] == f"{expected[0].confidence:.2%}"
    assert [row.index(str(path)) for row, path in zip(rows[::2], (first, second), strict=True)] == [
        header.index("photo")
    ] * 2


def test_each_label_is_shown_on_one_line(tiny_bundle: Path, photo_folder: Path) -> None:
    result = predict(tiny_bundle, photo_folder / "0-64x48.jpg", "--top", 5)
    assert len(result.stdout.splitlines()) == 6
    for shown in ("two words", 'a,"b"', r"line\nbreak", "花", "plain"):
        assert shown in result.stdout


def test_json_lines(tiny_bundle: Path, photo_folder: Path) -> None:
    path = photo_folder / "0-64x48.jpg"
    result = predict(tiny_bundle, path, "--json")
    assert result.exit_code == 0
    (record,) = records(result)
    prediction = Predictor(tiny_bundle)(path)
    assert list(record) == ["source", "label", "confidence", "probabilities"]
    assert record["source"] == str(path)
    assert record["label"] == prediction.label
    assert record["confidence"] == pytest.approx(prediction.confidence)
    assert record["probabilities"] == pytest.approx(
        dict(zip(tiny.ODD_LABELS, prediction.probabilities, strict=True))
    )
    assert "花" in result.stdout


def test_json_of_the_best_classes_only(tiny_bundle: Path, photo_folder: Path) -> None:
    path = photo_folder / "0-64x48.jpg"
    (whole,) = records(predict(tiny_bundle, path, "--json"))
    (record,) = records(predict(tiny_bundle, path, "--json", "--top", 2))
    best = sorted(whole["probabilities"].items(), key=lambda item: -item[1])[:2]
    assert list(record["probabilities"].items()) == best
    assert {**record, "probabilities": whole["probabilities"]} == whole
    (all_of_them,) = records(predict(tiny_bundle, path, "--json", "--top", 99))
    assert all_of_them == whole
    failed = predict(tiny_bundle, photo_folder / "missing.jpg", "--json", "--top", 2)
    assert list(records(failed)[0]) == ["source", "error"]


@pytest.mark.parametrize("option", [["--top", 1], ["--set", 0.9], ["--json"]])
def test_options_that_do_not_apply_to_a_results_file_are_usage_errors(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path, option: list[object]
) -> None:
    result = predict(tiny_bundle, photo_folder, "--out", tmp_path / "a.jsonl", *option)
    assert result.exit_code == 2
    assert "leave out --top and --json, and --set" in result.stderr
    assert not (tmp_path / "a.jsonl").exists()


@pytest.fixture(scope="module")
def promising(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is sure from 99 % on, and whose sets of 90 % have at least half."""
    sets = PredictionSets((0.9,), (0.5,), 50, {}, (0.5,))
    promises = Promises("50 photos", sets, (), (SureAnswers(None, 0.9, 0.95, 0.99),))
    card = replace(tiny.card(), promises=promises)
    return tiny.write(tmp_path_factory.mktemp("promising") / "promising", card)


def test_answers_that_are_not_sure_are_marked(promising: Path, photo_folder: Path) -> None:
    predictor = Predictor(promising)
    photos = sorted(photo_folder.iterdir())
    answers = [predictor(path) for path in photos]
    assert {answer.is_sure for answer in answers} == {True, False}
    header, *rows = predict(promising, *photos).stdout.splitlines()
    for row, path, answer in zip(rows, photos, answers, strict=True):
        label = answer.label.replace("\n", "\\n")
        expected = label if answer.is_sure else f"unsure ({label})"
        assert row[header.index("label") :].split("  ")[0] == expected
        assert row.endswith(f"  {path}")
    shown = records(predict(promising, *photos, "--json"))
    assert [record["sure"] for record in shown] == [answer.is_sure for answer in answers]


def test_files_of_every_format_tell_sure_answers(promising: Path, photo_folder: Path, tmp_path):
    expected = [Predictor(promising)(path).is_sure for path in sorted(photo_folder.iterdir())]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        result = predict(promising, photo_folder, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert predict(promising, photo_folder, "--out", tmp_path / name).exit_code == 0  # again
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["sure"] for row in csv.DictReader(file)] == list(map(str, expected))
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table["sure"].to_pylist() == expected
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["sure"] for line in lines] == expected


def test_a_set_is_shown_in_place_of_the_best_classes(promising: Path, photo_folder: Path) -> None:
    photos = sorted(photo_folder.iterdir())
    sets = [Predictor(promising)(path).prediction_set(0.9) for path in photos]
    assert {len(found) for found in sets} > {1}
    _, *rows = predict(promising, *photos, "--set", 0.9).stdout.splitlines()
    assert len(rows) == sum(map(len, sets))
    shown = records(predict(promising, *photos, "--json", "--set", 0.9))
    assert [tuple(record["prediction_set"]) for record in shown] == sets


def test_a_set_that_can_not_be_had_is_an_error(tiny_bundle: Path, photo_folder: Path) -> None:
    path = photo_folder / "0-64x48.jpg"
    result = predict(tiny_bundle, path, "--set", 0.9)
    assert result.exit_code == 1
    assert "no prediction sets" in result.stderr
    for options in (["--set", 95], ["--set", "nan"], ["--set", 0.9, "--top", 2]):
        assert predict(tiny_bundle, path, *options).exit_code == 2


def test_a_bad_photo_is_reported_and_the_others_are_classified(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a photo")
    good = photo_folder / "0-64x48.jpg"
    result = predict(tiny_bundle, good, bad, tmp_path / "missing.jpg", good, "--json")
    assert result.exit_code == 1
    assert [sorted(record) for record in records(result)[1:3]] == [["error", "source"]] * 2
    assert records(result)[0] == records(result)[3]
    assert records(result)[1]["error"] == "it is not an image, or of a format that is not read here"
    assert records(result)[2] == {
        "source": str(tmp_path / "missing.jpg"),
        "error": "no such file or directory",
    }
    assert result.stderr == "2 of 4 photos could not be classified.\n"
    too_long = predict(tiny_bundle, good, f"{'a' * 300}.jpg", good, "--json")
    assert too_long.exit_code == 1
    assert [sorted(record) for record in records(too_long)][1] == ["error", "source"]
    table = predict(tiny_bundle, good, bad)
    assert table.exit_code == 1
    assert f"error  {bad}: it is not an image" in table.stdout


def test_a_folder_is_walked_in_order(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in (
        "b/2.png",
        "a/deep/1.JPG",
        "c.webp",
        ".hidden/x.png",
        "b/.x.png",
        "b/notes.txt",
        "b/movie.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(1).save(path, "PNG")
    result = predict(tiny_bundle, tmp_path, "--json")
    assert result.exit_code == 0
    expected = [str(tmp_path / name) for name in ("a/deep/1.JPG", "b/2.png", "c.webp")]
    assert [record["source"] for record in records(result)] == expected


def test_an_empty_folder_is_a_usage_error(tiny_bundle: Path, tmp_path: Path) -> None:
    result = predict(tiny_bundle, tmp_path)
    assert result.exit_code == 2
    assert f"There is no photo in {tmp_path}" in result.stderr


def test_an_empty_folder_beside_others_gives_a_warning(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    for given in ([], ["--out", tmp_path / "answers.csv"]):
        result = predict(tiny_bundle, tmp_path / "none", photo_folder, *given)
        assert result.exit_code == 0
        assert f"Warning: there is no photo in {tmp_path / 'none'}.\n" in result.stderr
        assert str(photo_folder) not in result.stderr


def test_a_warning_is_one_line_whatever_names_hold(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "none\nError: all of it").mkdir()
    result = predict(tiny_bundle, tmp_path / "none\nError: all of it", photo_folder)
    assert result.exit_code == 0
    assert result.stderr == f"Warning: there is no photo in {tmp_path}/none\\nError: all of it.\n"


def test_a_photo_in_place_of_the_model_is_a_usage_error(
    tiny_bundle: Path, photo_folder: Path
) -> None:
    result = predict(sorted(photo_folder.iterdir())[0], tiny_bundle)
    assert result.exit_code == 2
    assert "The model comes first" in result.stderr


def test_standard_input(tiny_bundle: Path, photo_folder: Path) -> None:
    path = photo_folder / "0-64x48.jpg"
    (record,) = records(predict(tiny_bundle, "-", "--json", stdin=path.read_bytes()))
    assert (
        record["probabilities"] == records(predict(tiny_bundle, path, "--json"))[0]["probabilities"]
    )
    assert predict(tiny_bundle, "-", "--json").exit_code == 1, "nothing came"


def test_a_file_name_can_have_any_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    name = b"\xff\xfe new\nline \x1b[31m.png"
    content = tmp_path / "a.png"
    photo(1).save(content)
    content.rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    table = predict(tiny_bundle, tmp_path)
    assert table.exit_code == 0, table.output
    assert len(table.stdout.splitlines()) == 2
    assert "\x1b" not in table.stdout
    (record,) = records(predict(tiny_bundle, tmp_path, "--json"))
    assert os.fsencode(str(record["source"])).endswith(name)


def test_a_folder_that_may_not_be_read_is_a_failed_row(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.png", "b/2.png", "c/3.png"):
        (tmp_path / name).parent.mkdir()
        photo(1).save(tmp_path / name)
    scandir = os.scandir

    def guarded(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", guarded)
    result = predict(tiny_bundle, tmp_path, "--json")
    assert result.exit_code == 1
    assert [record.get("error") for record in records(result)] == [None, "permission denied", None]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--top", "0"], ["--threads", "0"], ["--precision", "int4"], ["--max-pixels", "x"]],
)
def test_usage_errors(tiny_bundle: Path, photo_folder: Path, arguments: list[str]) -> None:
    assert predict(tiny_bundle, *([photo_folder, *arguments] if arguments else [])).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--providers", "tpu"], "The execution provider tpu is not in the installed onnxruntime."),
        (["--providers", "cpu,tpu"], "The execution provider tpu is not"),
        (["--precision", "int8"], "it holds no int8 model"),
    ],
)
def test_a_missing_provider_or_precision_is_an_error_with_a_hint(
    tiny_bundle: Path, photo_folder: Path, arguments: list[str], message: str
) -> None:
    result = predict(tiny_bundle, photo_folder, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 2, "a message and a hint"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The options of each predictor that is made."""
    options: list[dict[str, object]] = []

    def record(model: str, **given: Any) -> Predictor:
        predictor = Predictor(model, **given)
        options.append(predictor.options)
        return predictor

    monkeypatch.setattr("edgetl.runtime.inference.predictor.Predictor", record)
    return options


def test_options_are_passed_to_the_predictor(
    tiny_bundle: Path, photo_folder: Path, made: list[dict[str, object]]
) -> None:
    options = ["--max-pixels", 100, "--threads", 3, "--providers", "CPU,cpu", "--precision", "fp32"]
    result = predict(tiny_bundle, photo_folder / "0-64x48.jpg", *options)
    assert result.exit_code == 1
    assert "the limit is 100" in result.stdout
    predict(tiny_bundle, photo_folder / "0-64x48.jpg", "--providers", "cpu")
    assert made == [
        {"providers": ["CPU", "cpu"], "threads": 3, "precision": "fp32", "max_pixels": 100},
        {"providers": "cpu", "threads": None, "precision": None, "max_pixels": MAX_PIXELS},
    ]


def test_many_photos_run_on_one_thread_each_by_default(
    tiny_bundle: Path, photo_folder: Path, made: list[dict[str, object]]
) -> None:
    for options in ([], ["--threads", 3]):
        assert predict(tiny_bundle, photo_folder, *options).exit_code == 0
    assert [options["threads"] for options in made] == [1, 3]


def test_a_damaged_bundle_is_an_error(bundle_copy: Path, photo_folder: Path) -> None:
    (bundle_copy / "model.onnx").write_bytes(b"x")
    result = predict(bundle_copy, photo_folder)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {bundle_copy / 'model.onnx'}: ")


def test_a_closed_pipe_gives_no_traceback(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(60):
        Image.new("L", (3, 3), number).save(tmp_path / f"{number}.png")
    command = (
        f'"{sys.executable}" -m edgetl predict "{tiny_bundle}" "{tmp_path}" --json | head -n 1'
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_photos_in_folders_named_as_labels_give_an_accuracy(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    photos = sorted(photo_folder.iterdir())
    answers = [Predictor(tiny_bundle)(path).label for path in photos]
    wrong = next(label for label in ("two words", "plain") if label != answers[0])
    for number, (path, label) in enumerate(zip(photos, [wrong, *answers[1:]], strict=True)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{number}{path.suffix}")
    told = "Accuracy 87.50% (7 of 8), taking folder names as true labels"
    assert predict(tiny_bundle, tmp_path / "photos").stderr == f"{told}\n"
    written = predict(tiny_bundle, tmp_path / "photos", "--out", tmp_path / "a.csv").stderr
    assert told in written.splitlines()
    shutil.copy(photos[1], tmp_path / "photos" / answers[1] / "new.png")
    again = predict(tiny_bundle, tmp_path / "photos", "--out", tmp_path / "a.csv").stderr
    assert "Accuracy 100.00% (1 of 1), taking folder names as true labels, of the new" in again
    deep = (
        tmp_path / "photos" / answers[1] / wrong / "deeper"
    )  # of the outer folder's class, as in training
    deep.mkdir(parents=True)
    (tmp_path / "photos" / answers[1] / "new.png").rename(deep / "new.png")
    told = "Accuracy 88.89% (8 of 9), taking folder names as true labels\n"
    assert told in predict(tiny_bundle, tmp_path / "photos").stderr
    shutil.copy(photos[0], tmp_path / "photos")
    assert "Accuracy" not in predict(tiny_bundle, tmp_path / "photos").stderr


def test_the_most_doubtful_photos_are_kept_whatever_is_written(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    for more in ((), ("--out", tmp_path / "answers.jsonl")):
        done = predict(tiny_bundle, photo_folder, *more, "--keep-doubtful", tmp_path / "kept", 3)
        assert done.exit_code == 0, done.output
        assert f"photos to label: {tmp_path / 'kept'}\n" in done.stderr
        (day,) = (tmp_path / "kept").iterdir()
        rows = [json.loads(line) for line in (day / "answers.jsonl").read_text().splitlines()]
        assert len(rows) == 3 and len(list(day.iterdir())) == 4
        assert all(Path(row["original"]).parent == photo_folder for row in rows)
        assert rows[0]["doubt"] >= rows[1]["doubt"] >= rows[2]["doubt"]


def test_doubtful_photos_are_not_kept_among_those_that_are_classified(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    done = predict(tiny_bundle, photo_folder, "--keep-doubtful", photo_folder / "kept", 3)
    assert done.exit_code == 2 and "lies in" in done.stderr
    assert not (photo_folder / "kept").exists()
    done = predict(tiny_bundle, "-", "--keep-doubtful", tmp_path, 3)
    assert done.exit_code == 2 and "not standard input" in done.stderr


def test_embeddings_need_a_file_and_a_model_that_gives_them(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    done = predict(tiny_bundle, photo_folder, "--embeddings")
    assert done.exit_code == 2 and "needs --out" in done.stderr
    done = predict(tiny_bundle, photo_folder, "--embeddings", "--out", tmp_path / "a.jsonl")
    assert done.exit_code == 2 and "gives none" in done.stderr
    assert not (tmp_path / "a.jsonl").exists()
