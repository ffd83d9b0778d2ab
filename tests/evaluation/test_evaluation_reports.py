"""The reports of an evaluation: HTML, JSON, CSV, and the view in a notebook."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl import MissingDependencyError, evaluate
from edgetl.evaluation.evaluation_reports import as_csv, as_html, as_json
from edgetl.evaluation.evaluation_result import EvaluationResult
from edgetl.system import missing_package


@pytest.fixture(scope="module")
def result(insects: Path, test_set: Path, tmp_path_factory) -> EvaluationResult:
    """Of the test set, with a photo that can't be read and a folder that is no label."""
    folder = shutil.copytree(test_set, tmp_path_factory.mktemp("reports") / "test")
    (folder / "bee/broken <i>.png").write_bytes(b"no photo")
    shutil.copytree(folder / "ant", folder / "wasp <u>")
    return evaluate(insects, folder)


def test_the_page_shows_figures_mistakes_and_what_is_left_out(result):
    page = as_html(result)
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    text = html.unescape(text)
    assert "80.0 %" in text and "test photos" in text
    assert page.count('<img src="data:image/jpeg') == len(result.mistakes) == 6
    assert "All 6 mistakes, the most confident first" in text
    assert "drawn from 200 photos on" in text
    for name in ("wasp <u>", "bee/broken <i>.png", "cicada <b>"):
        assert name in text
    assert not re.search(r"<script|<u>|<i>\.|cicada <b>", page)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "does not list its training photos" in text


def test_the_page_lists_the_photos_that_were_trained_on(result):
    page = as_html(replace(result, trained_on=("ant/00.png",)))
    section = page.partition('<section id="photos">')[2].partition("</section>")[0]
    assert "ant/00.png" in section and "trained on" in section
    assert "does not list" not in page


def test_json_has_every_figure(result):
    values = json.loads(as_json(result))
    assert values["metrics"] == dict(result.metrics)
    assert values["confusion"] == result.confusion.tolist()
    assert [one["label"] for one in values["classes"]] == list(result.labels)
    assert values["mistakes"][0]["file"] == result.mistakes[0].file
    assert len(values["mistakes"]) == 6 and values["calibration"] == []
    assert list(values["failed"]) == ["bee/broken <i>.png"]
    assert values["unlabelled"] == dict(result.unlabelled)
    assert values["trained_on"] is None and values["schema"] == 1


def test_csv_has_every_labelled_photo(result):
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert [row["file"] for row in rows[:30]] == [photo.file for photo in result.photos]
    assert sum(row["truth"] != row["label"] for row in rows[:30]) == 6
    assert rows[30]["file"] == "bee/broken <i>.png" and rows[30]["error"] and not rows[30]["label"]
    assert {row["trained_on"] for row in rows} == {""}
    known = csv.DictReader(io.StringIO(as_csv(replace(result, trained_on=(rows[3]["file"],)))))
    assert [row["trained_on"] for row in known] == ["no"] * 3 + ["yes"] + ["no"] * 26 + [""]


def test_a_notebook_shows_the_page(result):
    shown = result._repr_html_()
    assert shown is not None and shown.startswith("<iframe sandbox srcdoc=")
    page = html.unescape(re.search('srcdoc="([^"]*)"', shown)[1])
    assert page.startswith("<!doctype html>") and "Most confident mistakes" in page


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_the_packages_the_error_says_what_to_install(result, monkeypatch, package):
    found = missing_package.find_spec
    monkeypatch.setattr(
        missing_package, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(MissingDependencyError, match=f"{package} is not installed") as error:
        as_html(result)
    assert error.value.hint == 'Install it with: pip install "edgetl[report]"'
    assert result._repr_html_() is None
    assert json.loads(as_json(result)) and as_csv(result)
