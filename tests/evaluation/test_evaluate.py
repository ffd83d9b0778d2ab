"""``edgetl.evaluate``: the figures, what is left out, and what was trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_bundle
from sklearn import metrics as reference

from edgetl import BundleError, DataError, Predictor, evaluate
from edgetl.data.photo_digests import pack
from edgetl.evaluation.evaluation_reports import as_html, as_json
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import measure_promises
from edgetl.runtime.bundle.bundle_folder import MANIFEST, TRAINING_PHOTOS


@pytest.fixture
def copied_set(test_set: Path, tmp_path: Path) -> Path:
    """A copy of the test set that a test may change."""
    return Path(shutil.copytree(test_set, tmp_path / "test"))


def listing(bundle: Path, copy: Path, digests: object) -> Path:
    """A copy of ``bundle`` whose manifest has ``digests`` of training photos."""
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_bytes())
    files = {name: (copy / name).read_bytes() for name in manifest["files"]}
    card = Predictor(bundle).card
    tiny_bundle.write_manifest(copy, card, files, [], **{TRAINING_PHOTOS: digests})
    return copy


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_figures_are_those_of_scikit_learn(insects, test_set):
    result = evaluate(insects, test_set)
    predictor = Predictor(insects)
    truth = [Path(file).parent.name for file in result.files]
    predicted = [predictor(test_set / file).label for file in result.files]
    assert sorted(result.files) == sorted(
        path.relative_to(test_set).as_posix() for path in test_set.rglob("*.png")
    )
    assert result.accuracy == reference.accuracy_score(truth, predicted) == 24 / 30
    assert (
        result.confusion == reference.confusion_matrix(truth, predicted, labels=result.labels)
    ).all()
    precision, recall, f1, photos = reference.precision_recall_fscore_support(
        truth, predicted, labels=result.labels
    )
    assert [found.photos for found in result.classes] == photos.tolist()
    found = [[one.precision, one.recall, one.f1] for one in result.classes]
    np.testing.assert_allclose(found, np.stack([precision, recall, f1], 1), atol=1e-6)
    assert result.metrics["loss"] == pytest.approx(
        reference.log_loss(truth, result.probabilities, labels=result.labels), rel=1e-5
    )
    assert (result.failed, result.unlabelled, result.left_out) == ({}, {}, 0)
    assert result.trained_on is None and result.warnings == []


def test_mistakes_come_first_the_most_confident_at_the_top(insects, test_set):
    result = evaluate(insects, test_set)
    assert len(result.mistakes) == 6
    assert result.photos[:6] == result.mistakes
    mistakes = [photo.confidence for photo in result.mistakes]
    hits = [photo.confidence for photo in result.photos[6:]]
    assert mistakes == sorted(mistakes, reverse=True) and hits == sorted(hits)
    predictor = Predictor(insects)
    for photo in result.mistakes:
        answer = predictor(test_set / photo.file)
        assert (photo.label, photo.confidence) == (answer.label, pytest.approx(answer.confidence))
        assert photo.truth == Path(photo.file).parent.name != photo.label


def test_what_does_not_count_is_named_and_counted(insects, copied_set):
    some = sorted((copied_set / "ant").iterdir())
    for folder, photos in (("Ant", some[:2]), ("wasp", some[2:3]), (".", some[3:4])):
        (copied_set / folder).mkdir(exist_ok=True)
        for photo in photos:
            photo.rename(copied_set / folder / photo.name)
    (copied_set / "bee/broken.png").write_bytes(b"no photo")
    result = evaluate(insects, copied_set)
    assert result.unlabelled == {"Ant": 2, "wasp": 1, ".": 1}
    assert list(result.failed) == ["bee/broken.png"]
    assert len(result.files) == result.metrics["photos"] == 26 and result.left_out == 5
    folders, failed = result.warnings
    assert "4 photos have no label of the model" in folders
    assert "Ant (2)" in folders and "wasp (1)" in folders
    assert "Is 'Ant' for 'ant' a misspelling?" in folders
    assert "bee/broken.png: it is not an image" in failed


def test_folders_below_a_class_belong_to_it_and_a_class_folder_may_be_named(insects, copied_set):
    photo = next((copied_set / "bee").iterdir())
    (copied_set / "bee/2024/ant").mkdir(parents=True)
    photo.rename(copied_set / "bee/2024/ant" / photo.name)
    result = evaluate(insects, copied_set)
    assert {one.truth for one in result.photos if "2024" in one.file} == {"bee"}
    alone = evaluate(insects, copied_set / "ant")
    assert {one.truth for one in alone.photos} == {"ant"}


def test_photos_that_were_trained_on_are_named_whatever_their_name(insects, copied_set, tmp_path):
    trained = sorted((copied_set / "bee").iterdir())[:2]
    elsewhere = [f"{number:064x}" for number in range(3)]
    bundle = listing(insects, tmp_path / "b", pack([*map(sha256, trained), *elsewhere]))
    trained[0].rename(copied_set / "bee/renamed.png")
    result = evaluate(bundle, copied_set)
    assert sorted(result.trained_on) == sorted(["bee/renamed.png", f"bee/{trained[1].name}"])
    (warning,) = result.warnings
    assert warning.startswith("The model was trained on 2 of these 30 photos")
    assert "bee/renamed.png" in warning
    assert evaluate(listing(insects, tmp_path / "c", pack(elsewhere)), copied_set).trained_on == ()


@pytest.mark.parametrize("damaged", ["abc", 3, None])
def test_a_damaged_list_of_training_photos_is_an_error(insects, test_set, tmp_path, damaged):
    bundle = listing(insects, tmp_path / "b", damaged)
    with pytest.raises(BundleError, match="training_photos is damaged"):
        evaluate(bundle, test_set)


def test_a_lone_model_can_be_evaluated(insects, test_set):
    whole, lone = evaluate(insects, test_set), evaluate(insects / "model.onnx", test_set)
    assert (lone.probabilities == whole.probabilities).all()
    assert (whole.precision, lone.precision, lone.trained_on) == ("fp32", "", None)


def test_nothing_to_measure_is_an_error(insects, test_set, tmp_path):
    with pytest.raises(DataError, match="There is no "):
        evaluate(insects, test_set / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photo in"):
        evaluate(insects, tmp_path / "empty")
    shutil.copytree(test_set / "ant", tmp_path / "wrong/ANT")
    with pytest.raises(
        DataError, match=r"\(ant, bee, cicada <b>\); its folders or labels: ANT"
    ) as error:
        evaluate(insects, tmp_path / "wrong")
    assert error.value.hint == "Is 'ANT' for 'ant' a misspelling?"
    with pytest.raises(DataError, match="its folders or labels: no folder"):
        evaluate(insects, tmp_path / "wrong/ANT")
    (tmp_path / "broken/ant").mkdir(parents=True)
    (tmp_path / "broken/ant/1.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"None of 1 photos can be classified; ant/1.png"):
        evaluate(insects, tmp_path / "broken")


def test_progress_counts_the_photos(insects, test_set):
    steps = []
    evaluate(insects, test_set, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("Classifying photos", 30, 30) and len(steps) == 31


def test_a_list_gives_labels_and_folders_do_where_it_has_none(insects, test_set, tmp_path):
    expected = evaluate(insects, test_set)
    rows = [(photo.file, photo.truth) for photo in expected.photos]
    listed = tmp_path / "test.csv"
    listed.write_text("file,kind\n" + "".join(f"{file},{truth}\n" for file, truth in rows))
    found = evaluate(insects, listed, columns="path=file,label=kind", root=test_set)
    assert sorted(found.photos) == sorted(expected.photos) and found.root == test_set
    assert found.images == str(listed) and f"{listed} ·" in as_html(found)
    one, other = (test_set / file for file, _ in rows[:2])
    listed.write_text(f"path,label\n{one},wasp\n{other},bee\n")
    found = evaluate(insects, listed)
    assert found.unlabelled == {"wasp": 1}
    assert [photo[:2] for photo in found.photos] == [(other.as_posix(), "bee")]
    paths = tmp_path / "paths.txt"
    paths.write_text("".join(f"{file}\n" for file, _ in rows))
    assert sorted(evaluate(insects, paths, root=test_set).photos) == sorted(expected.photos)
    with pytest.raises(DataError, match="no effect, since"):
        evaluate(insects, test_set, columns="path=file")


def test_of_a_list_with_parts_the_test_is_taken(insects, test_set, tmp_path):
    paths = sorted(test_set.rglob("*.png"))
    rows = [
        {"path": str(path), "label": path.parent.name, "split": "Test" if number % 3 else "train"}
        for number, path in enumerate(paths)
    ]
    (tmp_path / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert evaluate(insects, tmp_path / "photos.jsonl").metrics["photos"] == 20
    every = evaluate(insects, tmp_path / "photos.jsonl", columns={"split": ""})
    assert every.metrics == evaluate(insects, test_set).metrics


@pytest.fixture(scope="module")
def promising(insects: Path, test_set: Path, tmp_path_factory) -> tuple[Path, Path]:
    """A bundle that states how its answers for the test set are."""
    folder = tmp_path_factory.mktemp("promising") / "insects"
    found = evaluate(insects, test_set)
    answers = LabelledAnswers(found.labels, found.probabilities, found.targets)
    card = replace(found.card, promises=measure_promises(answers, "thirty photos"))
    return tiny_bundle.write(folder, card), test_set


def test_what_the_model_states_holds_on_the_same_photos(promising):
    result = evaluate(*promising)
    assert [check.stated.figure for check in result.statement] == ["accuracy", *["coverage"] * 2]
    assert [check.stated for check in result.statement] == [
        check.found for check in result.statement
    ]
    assert all(check.holds for check in result.statement) and result.warnings == []


def test_what_does_not_hold_is_a_warning(promising, copied_set):
    bundle, _ = promising
    shutil.move(copied_set / "ant", copied_set / "moved")
    shutil.move(copied_set / "bee", copied_set / "ant")
    shutil.move(copied_set / "moved", copied_set / "bee")
    result = evaluate(bundle, copied_set)
    accuracy = result.statement[0]
    assert not accuracy.holds and accuracy.stated.share == 24 / 30 > accuracy.found.share
    (warning,) = result.warnings
    assert f"answers that are right {accuracy.found.share:.1%}, stated 80.0% (" in warning
    values = json.loads(as_json(result))["statement"][0]
    assert values["holds"] is False and values["stated"]["count"] == 24
    section = as_html(result).partition('<section id="statement">')[2].partition("</section>")[0]
    assert "thirty photos" in section and "lower" in section
    assert '<section id="statement">' not in as_html(replace(result, card=tiny_bundle.card()))
