"""``edgetl evaluate``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers import tiny_bundle as tiny
from helpers.pictures import photo

from edgetl import Predictor, evaluate
from edgetl.cli.main import command as program
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import measure_promises


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def photos(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos, of which the model gets nine right, and the most confident is wrong."""
    folder = tmp_path_factory.mktemp("test-photos")
    predictor = Predictor(tiny_bundle)
    answers = [predictor(photo(seed)) for seed in range(10)]
    surest = max(range(10), key=lambda seed: answers[seed].confidence)
    for seed, answer in enumerate(answers):
        other = "plain" if answer.label != "plain" else "花"
        place = folder / (other if seed == surest else answer.label)
        place.mkdir(exist_ok=True)
        photo(seed).save(place / f"{seed}.png")
    return folder


def test_the_table_the_accuracy_and_the_mistakes_are_printed(tiny_bundle, photos):
    done = run(tiny_bundle, photos)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "photos", "precision", "recall", "F1"]
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "two words",
        'a,"b"',
        "line\\nbreak",
        "花",
        "plain",
    ]
    assert lines[6].startswith("Accuracy 90.00% (59.6% to 98.2%) on 10 photos, loss ")
    assert lines[7] == "1 mistake, the most confident first:"
    assert "→" in lines[8] and lines[8].endswith(".png") and len(lines) == 9


def test_what_the_model_states_is_printed_beside_what_is_found(tiny_bundle, photos, tmp_path):
    found = evaluate(tiny_bundle, photos)
    answers = LabelledAnswers(found.labels, found.probabilities, found.targets)
    promises = measure_promises(answers, "ten photos")
    stated = replace(promises.statement[0], count=1000, photos=1000, interval=(0.99, 1.0))
    promises = replace(promises, statement=(stated, *promises.statement[1:]))
    bundle = tiny.write(tmp_path / "promising", replace(found.card, promises=promises))
    done = run(bundle, photos)
    warning = "Lower than the model states: answers that are right 90.0%, stated 100.0% (99.0% to"
    assert warning in done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()[7:9]] == [
        "stated by the model stated here",
        "answers that are right 100.0% (99.0% to 100.0%) 90.0% lower",
    ]


def test_reports_are_written_and_named(tiny_bundle, photos, tmp_path):
    files = {kind: tmp_path / f"report.{kind}" for kind in ("html", "json", "csv")}
    done = run(
        tiny_bundle, photos, *(word for kind in files for word in (f"--{kind}", files[kind]))
    )
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [f"{kind}: {path}" for kind, path in files.items()]
    assert json.loads(files["json"].read_text("utf-8"))["metrics"]["accuracy"] == 0.9
    with files["csv"].open(newline="", encoding="utf-8") as table:
        assert len(list(csv.DictReader(table))) == 10
    assert "Confusion matrix" in files["html"].read_text("utf-8")


def test_photos_left_out_are_named_and_the_exit_code_is_1(tiny_bundle, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "test"))
    (folder / "Plain").mkdir()
    photo(50).save(folder / "Plain/50.png")
    (folder / "plain").mkdir(exist_ok=True)
    (folder / "plain/broken.png").write_bytes(b"no photo")
    done = run(tiny_bundle, folder)
    assert done.exit_code == 1
    assert "Warning: 1 photo has no label of the model" in done.stderr
    assert "Is 'Plain' for 'plain' a misspelling?" in done.stderr
    assert "Warning: 1 photo can't be classified and is left out: plain/broken.png" in done.stderr
    assert "on 10 photos" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--html", "a.html", "--csv", "./a.html"), 2, "--html, --json and --csv each need"),
        (("--csv", "photos.txt"), 2, "exists and is not a report"),
        (("--precision", "int8"), 1, "holds no int8 model"),
    ],
)
def test_wrong_arguments(tiny_bundle, photos, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("photos.txt").write_text("a list\n")
    done = run(tiny_bundle, photos, *arguments)
    assert done.exit_code == code and message in done.stderr
    assert Path("photos.txt").read_text() == "a list\n"


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_list_of_photos_is_never_replaced_by_a_report(tiny_bundle, photos, tmp_path, option):
    listed, report = tmp_path / "photos.csv", tmp_path / "report.csv"
    listed.write_text("path,label\n1.png,plain\n")
    done = run(tiny_bundle, listed, option, listed)
    assert done.exit_code == 2 and "exists and is not a report" in done.stderr
    assert listed.read_text() == "path,label\n1.png,plain\n"
    for _ in range(2):  # its own is
        assert run(tiny_bundle, photos, "--csv", report).exit_code == 0


def test_a_folder_without_labels_is_an_error(tiny_bundle, photo_folder):
    done = run(tiny_bundle, photo_folder)
    assert done.exit_code == 1
    assert "has a label of the model" in done.stderr


def test_of_many_classes_the_worst_are_printed(tmp_path):
    from helpers import tiny_bundle

    labels = tuple(f"class {number:02}" for number in range(40))
    bundle = tiny_bundle.write(tmp_path / "many", tiny_bundle.card(labels=labels))
    predictor = Predictor(bundle)
    for seed in range(4):
        place = tmp_path / "test" / predictor(photo(seed)).label
        place.mkdir(parents=True, exist_ok=True)
        photo(seed).save(place / f"{seed}.png")
    lines = run(bundle, tmp_path / "test").stdout.splitlines()
    assert lines[31] == "… and 10 classes with a higher F1" and "Accuracy 100.00%" in lines[32]
