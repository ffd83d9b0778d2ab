"""The report: complete, self-contained, for any labels and any number of classes."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.browser import in_chromium, wider_than_their_place
from helpers.no_figures import leave_out_figures
from PIL import Image
from scipy.special import softmax

from edgetl.data.image_folder import Sample
from edgetl.errors import CheckpointError, TrainingError
from edgetl.evaluation import confusion_drawing, plots
from edgetl.evaluation.metrics import class_metrics, metrics_summary
from edgetl.evaluation.report_page import EvidenceMaps
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_folder import REPORT
from edgetl.training.evaluation import report
from edgetl.training.evaluation.held_out_promises import held_out_promises
from edgetl.training.evaluation.report import ReportData, kept_weights, write_report
from edgetl.training.evaluation.run_comparison import PairedAccuracy, PairedAnswer, RunComparison
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.linear_head import fit_head

SPEC = PreprocessSpec("shorter_side", 256, "bicubic", (224, 224), (0.5,) * 3, (0.5,) * 3)
ODD_LABELS = (
    "<script>alert(1)</script>",
    'a "quoted" & <b>',
    "花 と 鳥",
    "line\nbreak",
    "{{ 7 * 7 }}",
    "'; --",
)


def results(
    folder: Path, labels: tuple[str, ...], *, photos: int = 120, temperature: float = 1.6
) -> ReportData:
    """A run in which about every fifth photo is classified wrongly; the photos exist."""
    rng = np.random.default_rng(len(labels))
    targets = np.arange(photos) % len(labels)
    logits = rng.normal(size=(photos, len(labels))) + 4 * np.eye(len(labels))[targets]
    wrong = rng.permutation(photos)[: photos // 5]
    logits[wrong, (targets[wrong] + 1) % len(labels)] += 9
    probabilities, untempered = (
        softmax(logits * factor, axis=1).astype(np.float32) for factor in (1.0, temperature)
    )
    paths = [folder / f"{number}.jpg" for number in range(photos)]
    for number, path in enumerate(paths):
        Image.new("RGB", (30 + number % 7, 20), (number * 2 % 256, 80, 90)).save(path)
    card = ModelCard(
        labels,
        SPEC,
        "efficientnet_lite0",
        temperature,
        metrics=metrics_summary(probabilities, targets, untempered=untempered),
        data={"train": 500, "fingerprint": "ab12"},
        versions={"torch": "2.13"},
    )
    return ReportData(
        card=card,
        classes=class_metrics(probabilities, targets, labels),
        probabilities=probabilities,
        untempered=untempered if temperature != 1 else None,
        targets=targets,
        paths=paths,
        seconds=83.0,
        device="2 CPU cores",
        train_counts=[100 + number for number in range(len(labels))],
        settings={"lr": 0.0005, "scale": [0.5, 1.0], "flip": True, "note": "<i>"},
        history=[
            {
                "epoch": e,
                "train_loss": 1 / e,
                "val_loss": 2 / e,
                "val_accuracy": 1 - 1 / (1 + e),
                "lr": 0.1 / e,
            }
            for e in (1, 2, 3)
        ],
        warnings=["Classes are <uneven>."],
    )


def earlier(folder: Path, labels: tuple[str, ...]) -> RunComparison:
    """A comparison with an earlier run, with a flipped answer of each kind."""
    flipped = (
        PairedAnswer("0.jpg", labels[0], labels[0], 0.6, labels[1], 0.7, is_new=False),
        PairedAnswer("1.jpg", labels[1], labels[0], 0.8, labels[1], 0.9, is_new=True),
    )
    groups = [PairedAccuracy.of(some) for some in (flipped[:1] * 900, flipped[1:], ())]
    classes = (("花",), ("<gone>",))
    return RunComparison(
        "runs/<old>", str(folder), *groups[:2], classes[0], groups[2], classes[1], 7, 5, 3, flipped
    )


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and its text."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data

    @property
    def words(self) -> str:
        """The text, with single spaces between words and figures."""
        return " ".join(self.text.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run: Path, data: ReportData) -> Page:
    return Page(write_report(run, data).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "my <run>"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what else is in a report: drawing takes most of its time."""
    leave_out_figures(monkeypatch.setattr)


def test_the_page_is_well_formed_and_needs_nothing_from_outside(run, tmp_path):
    page = page_of(run, results(tmp_path, ODD_LABELS))
    assert page.open == []
    assert not page.all("script")
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    identifiers = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    used = [
        attributes["xlink:href"][1:]
        for _, attributes in page.elements
        if "xlink:href" in attributes
    ]
    assert used
    assert set(used) <= set(identifiers)


def test_labels_of_any_kind_are_text(run, tmp_path):
    page = page_of(run, results(tmp_path, ODD_LABELS))
    for label in ODD_LABELS:
        assert label in page.text
    assert "Classes are <uneven>." in page.text
    assert "my <run>" in page.text


@pytest.mark.usefixtures("no_figures")
def test_the_headline_figures_are_the_metrics(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    text = page_of(run, data).words
    summary = metrics_summary(data.probabilities, data.targets, untempered=data.untempered)
    low, high = summary["accuracy_interval"]
    assert f"{summary['accuracy']:.1%}".replace("%", " %") in text
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %" in text
    assert f"{100 * summary['calibration_error_before']:.1f} % before temperature scaling" in text
    assert "1 min 23 s" in text
    assert "201 training photos" in text


@pytest.mark.usefixtures("no_figures")
def test_mistakes_are_thumbnails_the_most_confident_first(run, tmp_path):
    data = results(tmp_path, ("cat", "dog", "owl"), photos=200)
    page = page_of(run, data)
    pictures = page.all("img")
    predicted, confidence = data.probabilities.argmax(1), data.probabilities.max(1)
    wrong = [
        number
        for number in np.argsort(-confidence, kind="stable")
        if predicted[number] != data.targets[number]
    ]
    assert [attributes["alt"].split("/")[-1] for attributes in pictures] == [
        f"{number}.jpg" for number in wrong[:24]
    ]
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0]["src"].partition(",")[2])))
    assert first.format == "JPEG"
    assert abs(first.getpixel((5, 5))[0] - wrong[0] * 2 % 256) < 8


@pytest.mark.usefixtures("no_figures")
def test_beside_mistakes_is_what_speaks_for_the_predicted_class(run, tmp_path):
    data, asked = results(tmp_path, ("cat", "dog", "owl")), []

    def maps(photos):
        asked.extend(photos)
        return [None, *(np.eye(2, dtype=np.float32) for _ in photos[1:])]

    page = page_of(run, dataclasses.replace(data, evidence=EvidenceMaps(maps, SPEC)))
    predicted = [data.card.labels[index] for index in data.probabilities.argmax(1)]
    assert asked == [(path, predicted[data.paths.index(path)]) for path, _ in asked]
    assert len(asked) == 24
    pictures = [attributes["alt"] for attributes in page.all("img")]
    for number, (path, label) in enumerate(asked):
        after = pictures[pictures.index(f"{tmp_path.name}/{path.name}") + 1]
        assert (after == f"what speaks for {label}") == (number > 0)


@pytest.mark.usefixtures("no_figures")
def test_what_changed_since_an_earlier_run_is_shown_with_the_wrong_answers(run, tmp_path):
    labels = ("cat", "<dog>")
    data = results(tmp_path, labels)
    assert "What changed" not in page_of(run, data).text
    since = earlier(tmp_path, labels)
    page = page_of(
        run, dataclasses.replace(data, targets=data.probabilities.argmax(1), since=since)
    )
    assert [picture["alt"].split("/")[-1] for picture in page.all("img")] == ["0.jpg", "1.jpg"]
    for said in (
        "What changed since runs/<old>",
        "Photos: 7 added, 5 removed. Classes: 花 added, <gone> removed.",
        "validated on by both 900 100.0 % 0.0 % 900 0",
        "in 0.0 % of all cases on the photos that both validated on, in",
        "100.0 % of all cases on new photos.",
        "Right before, wrong now: 1",
        "cat → <dog> 70.0 %",
        "<dog> → cat 80.0 %",
    ):
        assert said in page.words.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.usefixtures("no_figures")
def test_label_issues_are_shown_with_their_predictions(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    assert "Possible label issues" not in page_of(run, data).text
    photo = Sample(data.paths[7], 1, "")
    page = page_of(
        run,
        dataclasses.replace(
            data, targets=data.probabilities.argmax(1), label_issues=[(photo, 0, 0.913)]
        ),
    )
    assert [picture["alt"].split("/")[-1] for picture in page.all("img")] == ["7.jpg"]
    shown = page.words.partition("Possible label issues")[2]
    assert "dog → cat 91.3" in shown


@pytest.mark.usefixtures("no_figures")
def test_of_many_label_issues_the_likeliest_errors_are_shown_and_counted(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"), photos=20)
    issues = [
        (Sample(path, 1, ""), 0, 0.9 - number / 100) for number, path in enumerate(data.paths)
    ]
    page = page_of(
        run, dataclasses.replace(data, targets=data.probabilities.argmax(1), label_issues=issues)
    )
    assert [picture["alt"].split("/")[-1] for picture in page.all("img")] == [
        f"{number}.jpg" for number in range(12)
    ]
    assert "the likeliest errors first: 12 of 20 (all are in doubtful.csv)" in page.words
    assert (
        "doubtful.csv" not in page_of(run, dataclasses.replace(data, label_issues=issues[:12])).text
    )


def test_interpolated_weights_are_marked_on_no_curve(run, tmp_path, monkeypatch):
    drawn = {}
    plain = plots.line_plot
    monkeypatch.setattr(
        plots,
        "line_plot",
        lambda name, *rest, **more: drawn.update({name: more}) or plain(name, *rest, **more),
    )
    data = results(tmp_path, ("cat", "dog"))
    card = dataclasses.replace(data.card, metrics={**data.card.metrics, "epoch": 2, "midway": True})
    text = page_of(run, dataclasses.replace(data, card=card)).words
    assert drawn["loss"]["chosen"] is drawn["accuracy"]["chosen"] is None
    assert (
        "the mean of those at the start and those of epoch 2" in text
        and "dashed line marks" not in text
    )


@pytest.mark.usefixtures("no_figures")
def test_a_photo_that_is_gone_does_not_stop_the_report(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    for path in data.paths:
        path.unlink()
    page = page_of(run, data)
    assert not page.all("img")
    assert "can no longer be read" in page.text


def test_a_run_without_mistakes_epochs_or_temperature(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"), temperature=1.0)
    data = dataclasses.replace(
        data, targets=data.probabilities.argmax(1), history=(), train_counts=(), warnings=()
    )
    page = page_of(run, data)
    assert "classified correctly" in page.text
    assert "Training loss" not in page.text
    assert "temperature scaling" not in page.text
    assert "100.0" in page.text


def test_the_cross_validation_of_the_head_is_two_curves(run, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots,
        "line_plot",
        lambda name, series, **options: drawn.update({name: (series, options)}) or "",
    )
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    head = fit_head(rng.normal(labels[:, None], 1.5, (60, 4)).astype(np.float32), labels, 2)
    data = dataclasses.replace(
        results(tmp_path, ("cat", "dog")), history=(), cross_validation=head.cross_validation
    )
    assert f"The linear head is {head.recipe.describe()}" in page_of(run, data).words
    for name, scores, chosen in (
        ("head0", head.cross_validation.logistic_scores, head.recipe.C),
        ("head1", head.cross_validation.shrinkage_scores, head.recipe.shrinkage),
    ):
        series, options = drawn[name]
        points = [score.parameter for score in scores], [score.loss for score in scores]
        assert series == {"loss": points} and chosen in points[0]
        assert options["chosen"] == chosen
    drawn.clear()
    without = dataclasses.replace(head.cross_validation, shrinkage_scores=())
    page_of(run, dataclasses.replace(data, cross_validation=without))
    assert drawn.keys() == {"head0"}  # no discriminant was tried


def test_curves_fit_their_legends_and_mark_the_kept_epoch(run, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots,
        "line_plot",
        lambda name, series, **options: drawn.update({name: (series, options)}) or "",
    )
    data = results(tmp_path, ("cat", "dog"))
    history = [{"epoch": 0, "train_loss": None, "val_loss": 3.0, "lr": None}, *data.history]
    card = dataclasses.replace(data.card, metrics={**data.card.metrics, "epoch": 2})
    text = page_of(run, dataclasses.replace(data, card=card, history=history)).words
    assert drawn["loss"][0] == {
        "train": ([1, 2, 3], [1, 1 / 2, 1 / 3]),
        "val": ([0, 1, 2, 3], [3.0, 2, 1, 2 / 3]),
    }
    assert drawn["lr"][0] == {"lr": ([1, 2, 3], [0.1, 0.05, 0.1 / 3])}
    assert [drawn[name][1]["chosen"] for name in ("loss", "accuracy", "lr")] == [2, 2, None]
    assert "Epoch 0 is the linear head that training started from" in text


@pytest.mark.usefixtures("no_figures")
def test_the_report_says_where_the_photos_are_and_how_they_were_split(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    told = dataclasses.replace(
        data, settings={**data.settings, "data": "/photos/pets"}, validated_on="the folder val/"
    )
    text = page_of(run, told).text
    assert "/photos/pets" in text and "the folder val/" in text


def test_one_epoch_and_rows_with_missing_values_can_be_drawn(run, tmp_path):
    history = [
        {"epoch": 1, "train_loss": 0.5, "val_loss": None},
        {"epoch": 2, "train_loss": 0.4, "val_loss": 0.6},
    ]
    for rows in (history, history[:1]):
        assert (
            "Loss"
            in page_of(
                run, dataclasses.replace(results(tmp_path, ("cat", "dog")), history=rows)
            ).text
        )


def test_plots_take_the_colours_of_the_page(run, tmp_path):
    text = write_report(run, results(tmp_path, ("cat", "dog"))).read_text(encoding="utf-8")
    assert "stroke: var(--series-2)" in text
    assert "#01020" not in text


def test_matplotlib_is_left_as_it_was(run, tmp_path):
    before = dict(matplotlib.rcParams)
    write_report(run, results(tmp_path, ("cat", "dog")))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("classes", "drawn"), [(2, 2), (10, 10), (120, 120), (400, 60)])
def test_every_number_of_the_confusion_matrix_has_a_cell(classes, drawn):
    rng = np.random.default_rng(0)
    matrix = np.diag(rng.integers(1, 50, classes))
    matrix[0, 1] += 7
    labels = [f"class {number}" for number in range(classes)]
    drawing = confusion_drawing.draw(matrix, labels)
    assert (drawing.drawn, drawing.all) == (drawn, classes)
    (cell,) = [cell for cell in drawing.cells if cell.row != cell.column]
    assert (drawing.names[cell.row], drawing.names[cell.column], cell.count) == (
        "class 0",
        "class 1",
        7,
    )
    assert cell.share == 7 / matrix[0].sum()
    assert cell.title.startswith("class 0 → class 1: 7 of ")
    assert all(
        drawing.cells[0].opacity >= other.opacity > 0
        for other in drawing.cells
        if other.share <= drawing.cells[0].share
    )


def test_long_labels_are_shortened_and_kept_as_titles():
    drawing = confusion_drawing.draw(np.eye(2, dtype=np.int64), ["a" * 80, "花" * 40])
    assert drawing.labels == ("a" * 11 + "…" + "a" * 10, "花" * 5 + "…" + "花" * 5)
    assert drawing.names == ("a" * 80, "花" * 40)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("classes", "fits"), [(2, True), (10, True), (16, False), (200, False)])
def test_a_matrix_of_few_classes_has_a_drawing_for_narrow_screens(run, tmp_path, classes, fits):
    labels = tuple(f"class {number}" for number in range(classes))
    drawing = confusion_drawing.draw(np.eye(classes, dtype=np.int64), labels, narrow=True)
    assert drawing.fits_narrow_screen == fits
    assert not fits or drawing.numbered
    if classes < 20:
        page = page_of(run, results(tmp_path, labels))
        assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 1 + fits


def test_six_classes_with_long_names_fit_a_phone(run, tmp_path):
    labels = tuple(f"a long name of the class {number}" for number in range(6))
    data = dataclasses.replace(results(tmp_path, labels), since=earlier(tmp_path, labels))
    logits = np.log(data.probabilities)
    rows, nothing = np.arange(len(logits)), np.empty(0, np.int64)
    held_out = HeldOutAnswers(nothing, rows, data.targets.astype(np.int32), logits)
    _, promises = held_out_promises(held_out, labels, 1.0)
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, promises=promises))
    path = write_report(run, data)
    page = path.read_text("utf-8")
    assert "sets of 95\N{NO-BREAK SPACE}% with the right label" in page
    assert not re.search(r">[^<>]*\d%", page.split("</style>")[1])  # all shares in one form
    assert wider_than_their_place(path, tmp_path, 360) == []


def trials() -> list[ModelTrial]:
    """Two networks at two sizes."""
    return [
        ModelTrial(
            name, size, precision, ms, None, 13_470_000, 900, accuracy, (0.9, 0.98), 0.1, ms == 9.5
        )
        for name, size, precision, ms, accuracy in (
            ("efficientnet_lite0", 192, "fp32", 6.0, 0.93),
            ("efficientnet_lite0", 256, "fp32", 9.5, 0.95),
            ("efficientnet_lite1", 192, "int8", 8.0, 0.94),
            ("efficientnet_lite1", 256, "int8", 12.0, 0.96),
        )
    ]


def test_what_a_budget_has_chosen_among(run, tmp_path, monkeypatch):
    drawn = []
    plain = plots.estimates_plot
    monkeypatch.setattr(
        plots,
        "estimates_plot",
        lambda *rest, **more: drawn.append((*rest, more)) or plain(*rest, **more),
    )
    data = results(tmp_path, ("cat", "dog"))
    assert "Which model" not in page_of(run, data).words
    page = page_of(run, dataclasses.replace(data, trials=trials()))
    assert "the same 900 training photos" in page.words
    row = r"efficientnet_lite1@256 int8\s*12\.0\s*13\.47\s*96\.0\s%\s*90\.0 – 98\.0\s*0\.100"
    assert re.search(row, page.text)
    assert sum(dict(found).get("class") == "chosen" for _, found in page.elements) == 1
    ((_, series, options),) = drawn
    assert options["chosen"] == 9.5
    assert {name: [point.x for point in points] for name, points in series.items()} == {
        "efficientnet_lite0": [6.0, 9.5],
        "efficientnet_lite1": [8.0, 12.0],
    }
    assert wider_than_their_place(run / REPORT, tmp_path, 390) == []


def test_one_candidate_and_too_few_photos_are_no_drawing(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    untried = [dataclasses.replace(trial, photos=0) for trial in trials()]
    for few in (trials()[1:2], untried):
        page = page_of(run, dataclasses.replace(data, trials=few))
        assert "Which model for this device" in page.words
        assert ("too few training photos to compare" in page.words) == (few is untried)
        assert 'id="tradeoff' not in (run / REPORT).read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_can_not_be_written_keeps_the_earlier_report(run, tmp_path, monkeypatch):
    data = results(tmp_path, ("cat", "dog"))
    before = write_report(run, data).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_report(run, dataclasses.replace(data, seconds=1.0))
    assert (run / report.REPORT).read_bytes() == before


def test_outputs_that_are_not_finite_are_refused(run, tmp_path):
    data = results(tmp_path, ("cat", "dog"))
    data.probabilities[0, 0] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        write_report(run, data)
    assert list(run.iterdir()) == []


def test_each_figure_is_in_its_section(run, tmp_path):
    data = results(tmp_path, ("cat", "dog", "emu"), photos=240)
    data = dataclasses.replace(data, settings={"lr": 0.00321, "flip": True})
    text = write_report(run, data).read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL))
    assert "<svg" in sections["calibration"] and "<svg" in sections["confusion"]
    predicted = data.probabilities.argmax(1)
    for index, label in enumerate(data.card.labels):
        hits = ((predicted == index) & (data.targets == index)).sum()
        precision, recall = hits / (predicted == index).sum(), hits / (data.targets == index).sum()
        f1 = 2 * precision * recall / (precision + recall)
        row = next(
            row
            for row in re.findall(r"<tr>(.*?)</tr>", sections["classes"])
            if f"<td>{label}</td>" in row
        )
        shown = [float(share) for share in re.findall(r"([\d.]+)\N{NO-BREAK SPACE}%", row)]
        assert shown == pytest.approx([100 * precision, 100 * recall, 100 * f1], abs=0.051)
    for name, value in (("lr", "0.00321"), ("flip", "yes"), *data.card.versions.items()):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in sections["about"]


def test_few_photos_have_no_calibration_curve(run, tmp_path):
    text = write_report(run, results(tmp_path, ("cat", "dog"), photos=199)).read_text("utf-8")
    calibration = text.partition('id="calibration"')[2].partition("</section>")[0]
    assert "drawn from 200 photos on" in calibration and "<svg" not in calibration
    assert "If only sure answers count" in calibration


@pytest.mark.parametrize("labels", [ODD_LABELS, tuple(f"class {number}" for number in range(120))])
def test_a_browser_opens_it_without_errors(run, tmp_path, labels):
    path = write_report(run, results(tmp_path, labels))
    shot = tmp_path / "shot.png"
    done = in_chromium(path, tmp_path, "--window-size=400,1200", f"--screenshot={shot}")
    assert "CONSOLE" not in done.stderr
    with Image.open(shot) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100  # something was drawn


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"epoch": 0, "midway": False}, "those that training started with"),
        ({"epoch": 3, "midway": False}, "of epoch 3"),
        ({"epoch": 12, "midway": True}, "the mean of those at the start and those of epoch 12"),
    ],
)
def test_the_kept_weights_in_words(metrics: dict, words: str) -> None:
    assert kept_weights(metrics) == words
