"""The report files say what the result says."""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.browser import wider_than_their_place
from rich.console import Console

from edgetl.cli.terminal.check_display import show
from edgetl.errors import EdgetlError
from edgetl.parity.reports.html_report import as_html, check_cards
from edgetl.parity.reports.json_report import as_json
from edgetl.parity.reports.junit_report import as_junit
from edgetl.parity.results import (
    Accuracy,
    AgainstResult,
    CheckResult,
    ClassAccuracy,
    Comparison,
    Decisions,
    Disagreement,
    Finding,
    Flip,
    Gap,
    RuntimeResult,
    StageResult,
)
from edgetl.system.atomic_write import write_report_file


def stage(name: str, largest: float, limit: float, problem: str | None = None) -> StageResult:
    gap = Gap("cat/0.png", largest, limit, problem, (1, 2), 0.5, 0.5 + largest, 3, 12)
    return StageResult(name, gap, 3, 12, 0.001)


@pytest.fixture
def failed(photos: Path) -> CheckResult:
    """A failed finding, and runtimes that passed, differ, raised, were skipped, and are shown."""
    good = [stage("resized", 0.0, 0.0), stage("probabilities", 1e-6, 1e-4)]
    bad = [
        stage("resized", 0.0, 0.0),
        stage("logits", math.inf, 1e-3, "4 values are NaN or infinite"),
    ]
    bad.append(stage("probabilities", 0.4, 1e-4))
    answers = (Comparison("cat/0.png", 0.4, "<b>cat</b>", 0.9, "dog & co", 0.5),)
    flips = (Flip("cat/0.png", "cat", "dog", 0.8), Flip("dog/1.png", "cat", "dog", 1e-6, tie=True))
    return CheckResult(
        bundle="exported/pets",
        root=photos,
        precision="fp32",
        tolerance=1e-4,
        findings=(Finding("files", True, "3 files"), Finding("labels", False, "label 0 is '\x00'")),
        runtimes=(
            RuntimeResult.judge("one", 7, good, Decisions(7), 0.5),
            RuntimeResult.judge("two", 7, bad, Decisions(7, flips, answers, 0.1, math.inf), 0.5),
            RuntimeResult("three", "failed", "ValueError: kernel exploded"),
            RuntimeResult("four", "skipped", "not installed"),
            RuntimeResult.judge("five", 7, bad, Decisions(7), 0.5, judged=False),
        ),
        photos=7,
        unreadable={"broken.jpg": "it is damaged"},
        seconds=1.5,
        machine={"python": "3.11"},
    )


@pytest.fixture
def against(photos: Path) -> AgainstResult:
    classes = (ClassAccuracy("cat", 4, 0.5, 1.0), ClassAccuracy("dog", 3, 1.0, 1.0))
    return AgainstResult(
        new="exported/new",
        old="exported/old",
        root=photos,
        photos=7,
        unreadable={},
        disagreements=(Disagreement("cat/0.png", "dog", 0.6, "cat", 0.9, "cat"),),
        largest=0.5,
        kl_mean=0.01,
        accuracy=Accuracy(7, 5 / 7, 1.0, classes),
        unlabelled=0,
        gates=(
            Finding("photos", True, "the same"),
            Finding("accuracy", False, "28.57 points lost, 0.5 allowed"),
        ),
        seconds=1.0,
        machine={},
    )


def test_junit_parses_and_counts_right(failed: CheckResult) -> None:
    root = ElementTree.fromstring(as_junit(failed))
    cases = root.findall("testsuite/testcase")
    outcomes = [child.tag for case in cases for child in case]
    assert outcomes.count("failure") == 4  # labels; logits, probabilities and the decision of two
    assert outcomes.count("error") == 1 and outcomes.count("skipped") == 1
    for element in (root, root.find("testsuite")):
        assert element is not None
        counted = {
            name: int(element.attrib[name]) for name in ("tests", "failures", "errors", "skipped")
        }
        assert counted == {"tests": len(cases), "failures": 4, "errors": 1, "skipped": 1}
    assert "five" not in {case.attrib["classname"] for case in cases}
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(names)) == len(names)
    messages = {
        (c.attrib["classname"], c.attrib["name"]): e.attrib["message"] for c in cases for e in c
    }
    assert messages["three", "run"] == "ValueError: kernel exploded"
    assert "NaN" in messages["two", "logits"]
    assert "dog/1.png" not in messages["two", "decision"]  # a tie is no failure


def test_junit_of_two_bundles(against: AgainstResult) -> None:
    root = ElementTree.fromstring(as_junit(against))
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "1")


def test_a_runtime_that_gave_no_answer_fails_in_junit_too(failed: CheckResult) -> None:
    silent = RuntimeResult.judge("silent", 2, [stage("resized", 0, 0)], Decisions(0), 0.1)
    root = ElementTree.fromstring(as_junit(replace(failed, findings=(), runtimes=(silent,))))
    assert root.attrib["failures"] == "1"


def test_json_is_strict_and_complete(failed: CheckResult, against: AgainstResult) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(name)

    values = json.loads(as_json(failed), parse_constant=refuse)
    assert (values["schema"], values["passed"], values["photos"]) == (1, False, 7)
    two = values["runtimes"][1]
    assert (two["name"], two["status"], two["departure"]) == ("two", "failed", "logits")
    assert (
        two["stages"][1]["worst"] | {"largest": None, "problem": "4 values are NaN or infinite"}
        == two["stages"][1]["worst"]
    )
    assert two["decisions"]["flips"][1]["tie"] is True
    assert json.loads(as_json(against), parse_constant=refuse)["agreement"] == pytest.approx(6 / 7)


class Links(HTMLParser):
    """Collects everything that a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", ["failed", "against"])
def test_html_is_self_contained(name: str, request: pytest.FixtureRequest) -> None:
    page = as_html(request.getfixturevalue(name))
    reader = Links()
    reader.feed(page)
    assert all(link.startswith("data:") for link in reader.links)
    assert sum(link.startswith("data:image/jpeg;base64,") for link in reader.links) == 1
    assert not re.search(r"url\(|@import|<script", page)
    assert "Undefined" not in page and "None" not in reader.text


def test_html_shows_what_was_found(failed: CheckResult) -> None:
    reader = Links()
    reader.feed(as_html(failed))
    for words in (
        "Not the same answer everywhere",
        "1 of 3",
        "<b>cat</b> 90.0 %",
        "dog & co",
        "kernel exploded",
        "broken.jpg",
    ):
        assert words in reader.text, words


def test_html_shows_photos_beyond_their_limit_first(failed: CheckResult) -> None:
    """0.2 may be within the limit of an int8 model, and 0.01 beyond that of a float32 model."""

    def runtime(name: str, limit: float, *answers: tuple[str, float]) -> RuntimeResult:
        worst = tuple(
            Comparison(photo, distance, "cat", 0.9, "cat", 0.9 - distance)
            for photo, distance in answers
        )
        return RuntimeResult.judge(
            name,
            7,
            [stage("probabilities", worst[0].distance, limit)],
            Decisions(7, (), worst),
            0.5,
        )

    runs = (
        runtime("int8", 0.25, ("cat/0.png", 0.2), ("dog/1.png", 0.1)),
        runtime("ts", 1e-4, ("dog/1.png", 0.01)),
    )
    cards = check_cards(replace(failed, tolerance=0.25, runtimes=runs))
    assert [(card.photo, card.bad, card.answers[1][0]) for card in cards] == [
        ("dog/1.png", True, "ts"),
        ("cat/0.png", False, "int8"),
    ]


def test_html_mentions_labels_that_differ_within_the_tolerance(failed: CheckResult) -> None:
    runs = tuple(replace(run, status="passed") for run in failed.runtimes if run.decisions.flips)
    findings = tuple(replace(finding, passed=True) for finding in failed.findings)
    passed = replace(failed, runtimes=runs, findings=findings)
    most = max(len(run.decisions.flips) for run in runs)
    assert passed.passed and most > 0
    assert f"Within the tolerance everywhere, {most} of 7 photos with another label" in as_html(
        passed
    )
    same = replace(passed, runtimes=tuple(replace(run, decisions=Decisions(7)) for run in runs))
    assert "The same answer everywhere" in as_html(same)


def test_a_comparison_without_a_limit_gives_no_verdict(against: AgainstResult) -> None:
    free = replace(against, gates=against.gates[:1], largest=None, kl_mean=None)
    page = as_html(free)
    assert "✓" not in page and "✗" not in page and "their labels differ" in page
    console = Console(file=io.StringIO(), width=120)
    show(free, console)
    said = console.file.getvalue()
    assert "COMPARED" in said and "PASSED" not in said and "different labels" in said
    console = Console(file=io.StringIO(), width=120)
    show(against, console)
    assert "FAILED" in console.file.getvalue()


@pytest.mark.parametrize(
    ("width", "missing"),
    [(80, {"first off", "KL", "score", "maps"}), (100, {"first off", "KL"}), (140, set())],
)
def test_the_table_has_the_columns_that_fit(width: int, missing: set[str]) -> None:
    names = ("resized", "normalized", "logits", "probabilities", "ood_score", "evidence")
    stages = [stage(name, 2e-5, 1e-4) for name in names]
    run = RuntimeResult.judge("onnxruntime-unoptimized", 7, stages, Decisions(7), 0.5)
    console = Console(file=io.StringIO(), width=width)
    show(CheckResult(bundle="b", root=Path(), findings=(), runtimes=(run,)), console)
    table = console.file.getvalue()
    assert "…" not in table and "2.0e-05" in table
    assert {name for name in ("first off", "KL", "score", "maps") if name not in table} == missing


def test_a_photo_that_was_deleted_is_shown_as_gone(failed: CheckResult, tmp_path: Path) -> None:
    assert "gone" in as_html(replace(failed, root=tmp_path))


def test_a_report_replaces_the_one_before_at_once(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "check.json"
    write_report_file(path, "one")
    write_report_file(path, "two 花")
    assert path.read_text(encoding="utf-8") == "two 花"
    assert [file.name for file in path.parent.iterdir()] == ["check.json"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_report_has_the_permissions_of_new_files(tmp_path: Path, mask: int) -> None:
    """It shows photos, so that a private umask must keep it private."""
    before = os.umask(mask)
    try:
        write_report_file(tmp_path / "check.json", "one")
    finally:
        os.umask(before)
    assert (tmp_path / "check.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_report_goes_through_links_and_pipes_and_leaves_them_in_place(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    write_report_file(link, "through the link")
    assert link.is_symlink() and target.read_text() == "through the link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_report_file(pipe, "through the pipe")
    assert os.read(reader, 100) == b"through the pipe" and pipe.is_fifo()
    os.close(reader)


def test_names_that_are_not_unicode_can_be_reported(failed: CheckResult, tmp_path: Path) -> None:
    odd = replace(failed, unreadable={"\udcff.jpg": "it is damaged"}, bundle="\udcfe")
    for number, kind in enumerate((as_json, as_junit, as_html)):
        write_report_file(tmp_path / str(number), kind(odd))
    assert json.loads((tmp_path / "0").read_text(encoding="utf-8"))["unreadable"] == odd.unreadable
    assert (
        ElementTree.parse(tmp_path / "1").getroot().attrib["tests"]
        == ElementTree.fromstring(as_junit(failed)).attrib["tests"]
    )


def test_a_report_that_cant_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetlError, match="check"):
        write_report_file(tmp_path / "file" / "check.xml", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EdgetlError, match="folder"):
        write_report_file(tmp_path / "folder", "text")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_notebook_shows_the_html_report(failed: CheckResult) -> None:
    shown = html.unescape(failed._repr_html_() or "")
    assert shown.startswith("<iframe sandbox srcdoc=")
    assert "Not the same answer everywhere" in shown and "&lt;b&gt;cat&lt;/b&gt;" in shown


def test_on_a_phone_nothing_is_cut_or_scrolls_sideways(
    failed: CheckResult, against: AgainstResult, tmp_path: Path
) -> None:
    for number, result in enumerate((failed, against)):
        page = tmp_path / f"{number}.html"
        page.write_text(as_html(result), encoding="utf-8")
        assert wider_than_their_place(page, tmp_path, 390) == []


def test_the_terminal_says_how_many_photos_are_beyond_a_limit_that_was_passed(
    failed: CheckResult,
) -> None:
    off = replace(stage("logits", 2.0, 0.5), beyond=2, allowed=3)
    run = RuntimeResult.judge("one", 30, [off], Decisions(30), 0.5)
    assert run.status == "passed"
    console = Console(file=io.StringIO(), width=200)
    show(replace(failed, runtimes=(run,), photos=30), console)
    assert "beyond the limit of logits: 2 photos; 3 of 30 may be" in console.file.getvalue()
