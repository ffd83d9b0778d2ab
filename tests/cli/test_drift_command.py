"""``edgetl drift``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.drifting_answers import answers, held_out, write_answers, write_bundle
from helpers.pictures import photo

import edgetl
from edgetl.cli.main import command as program
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.results.records import columns, csv_line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["drift", *map(str, arguments)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("drift") / "insects", [60, 60])


@pytest.fixture
def same(bundle: Path, tmp_path: Path) -> Path:
    return write_answers(tmp_path / "same.jsonl", bundle, answers([40, 40]))


@pytest.fixture
def moved(bundle: Path, tmp_path: Path) -> Path:
    return write_answers(tmp_path / "moved.jsonl", bundle, answers([40, 40], shift=1.0))


def test_no_drift_is_exit_code_0(bundle, same):
    done = run(bundle, same)
    assert (done.exit_code, done.stderr) == (0, "")
    first, second, third, fourth = done.stdout.splitlines()
    assert first == "No sign that the photos differ from those that the model was trained on."
    assert "80 photos compared with 120 held-out ones" in second
    assert re.match(r"Accuracy about \d+\.\d% \(.*\), estimated without labels; ", third)
    assert re.match(r"Unknown \d+\.\d% \(.*\), 5\.0% of photos like those of the tr", fourth)


def test_drift_is_exit_code_1_with_the_labels_and_photos_that_make_it(bundle, moved):
    done = run(bundle, moved)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "The photos look different from those that the model was trained on."
    assert lines[3].startswith("Take that for the best case")
    assert "more than chance explains: 5.0% of photos like" in lines[4]
    assert [line.split()[0] for line in lines[5:8]] == ["label", "ant", "bee"]
    assert len(lines) == 8 + 1 + 5 and lines[-1].endswith(".jpg")


def test_another_mix_of_classes_is_said_and_is_exit_code_0(bundle, tmp_path):
    done = run(bundle, write_answers(tmp_path / "mix.jsonl", bundle, answers([75, 5])))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].endswith("The labels come in other shares.")


def test_fewer_false_alarms_can_be_asked_for(bundle, tmp_path):
    file = write_answers(tmp_path / "a.jsonl", bundle, answers([20, 20], shift=0.15))
    p_value = json.loads(run(bundle, file, "--json").stdout)["p_value"]
    assert 0.002 < p_value < 0.9
    for level, code in ((p_value * 0.9, 0), (p_value * 1.1, 1)):
        assert run(bundle, file, "--false-alarms", level).exit_code == code


def test_no_level_is_taken_below_which_nothing_would_be_a_drift(bundle, moved):
    assert run(bundle, moved, "--false-alarms", 0.003).exit_code == 1
    for level in (0.0029, 0, 1):
        assert run(bundle, moved, "--false-alarms", level).exit_code == 2
        with pytest.raises(ValueError, match=r"at least 0\.003"):
            edgetl.drift(bundle, moved, level=level)


def test_json_has_every_figure_and_every_photo(bundle, moved):
    done = run(bundle, moved, "--json")
    values = json.loads(done.stdout)
    assert done.exit_code == 1 and values["drifted"] is True and values["schema"] == 1
    assert len(values["photos"]) == values["compared"] == 80 and values["held_out"] == 120
    assert sum(one["part"] for one in values["photos"]) == pytest.approx(1)
    assert sum(one["part"] for one in values["classes"]) == pytest.approx(1)
    assert values["accuracy"]["interval"][0] <= values["accuracy"]["value"] <= 1
    unknown = values["unknown"]
    assert unknown["share"] == unknown["photos"] / 80 and unknown["is_higher"] is True
    assert unknown["interval"][0] > unknown["expected"] == 0.05
    again = json.loads(run(bundle, moved, "--json").stdout)
    assert {**again, "seconds": 0} == {**values, "seconds": 0}


def test_the_page_shows_the_photos(bundle, tmp_path):
    found = answers([20, 20], shift=1.0)
    names = [str(tmp_path / name) for name in found.names]
    photo(1).save(names[0])
    object.__setattr__(found, "names", tuple(names))
    file = write_answers(tmp_path / "a.jsonl", bundle, found)
    done = run(bundle, file, "--html", tmp_path / "drift.html")
    assert done.exit_code == 1 and done.stderr == f"html: {tmp_path / 'drift.html'}\n"
    page = (tmp_path / "drift.html").read_text("utf-8")
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert "The photos look different" in text and "40 photos, 40 of them compared" in text
    assert page.count("<figure") == 24 and "can no longer be read" in text
    assert not re.search(r'<script|(src|href)="(?!data:|#)', page)
    assert "<svg" in page and "Drift" in html.unescape(text)


def test_few_photos_are_compared_with_a_warning(bundle, tmp_path):
    done = run(bundle, write_answers(tmp_path / "few.jsonl", bundle, answers([4, 3])))
    assert done.exit_code == 0
    assert re.search(r"Warning: With 7 photos, a change .* fewer than 5\d% of them", done.stderr)


def test_frames_of_a_video_are_warned_of(bundle, tmp_path):
    file = write_answers(tmp_path / "video.jsonl", bundle, answers([15, 15]))
    lines = file.read_text("utf-8")
    file.write_text(lines + lines, "utf-8")
    assert "Warning: 30 of 60 photos are nearly the same as another one" in run(bundle, file).stderr


def test_a_bundle_without_held_out_answers_says_what_to_do(tiny_bundle, same):
    done = run(tiny_bundle, same)
    assert done.exit_code == 2 and "without --no-unknown" in done.stderr


def test_held_out_answers_without_embeddings_say_where_the_reason_is(same, tmp_path, monkeypatch):
    known = held_out([10, 10])
    nothing = np.empty((0, 0), np.float16), np.empty(0, np.float32)
    unscored = HeldOut(known.labels, known.logits, *nothing)
    monkeypatch.setattr("helpers.drifting_answers.held_out", lambda _: unscored)
    done = run(write_bundle(tmp_path / "plain", [10, 10]), same)
    assert done.exit_code == 2 and "--no-unknown" not in done.stderr
    assert "The report of its run says why it can't tell unknown photos." in done.stderr


def test_answers_as_csv_say_how_to_collect_them(bundle, tmp_path):
    with tmp_path.joinpath("answers.csv").open("wb") as file:
        file.write(csv_line(columns(("cat", "dog"))) + b"a.jpg,0,,cat,0.9,cat,0.9,0.1\n")
    done = run(bundle, tmp_path / "answers.csv")
    assert done.exit_code == 2
    assert "have no embeddings" in done.stderr and "--embeddings --out" in done.stderr


def test_answers_of_another_model_are_refused(bundle, same):
    same.write_text(re.sub(r'"model": "\w+"', '"model": "0"', same.read_text("utf-8")), "utf-8")
    done = run(bundle, same)
    assert done.exit_code == 2 and "row 1: an answer of another model (0;" in done.stderr


def test_nothing_to_compare_is_exit_code_2(bundle, tmp_path):
    for place in (tmp_path / "missing", tmp_path):
        done = run(bundle, place)
        assert done.exit_code == 2 and "Traceback" not in done.output


def test_a_damaged_bundle_is_exit_code_2(bundle, same, tmp_path):
    broken = write_bundle(tmp_path / "broken", [20, 20])
    content = bytearray((broken / "held_out.npz").read_bytes())
    content[40] ^= 1
    (broken / "held_out.npz").write_bytes(content)
    done = run(broken, same)
    assert done.exit_code == 2 and "held_out.npz" in done.stderr
