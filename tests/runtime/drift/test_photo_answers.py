"""Answers that were collected earlier, and answers that can't be compared."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from edgetl.errors import DataError, ImageError, ResultsError
from edgetl.runtime.drift.photo_answers import is_answers_file, of_predictions, read_answers
from edgetl.runtime.images.stored_path import as_place
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results.file_formats import open_results

LABELS = ("cat", "花")
MODELS = {"m1", "m2"}


def predicted(name: str, first: float = 0.75) -> Prediction:
    shares = np.array([first, 1 - first], np.float32)
    embedding = np.array([0.1, -2, 3e-5, 1 / 3], np.float32)
    return Prediction(
        name, LABELS, shares, shares, ood_score=0.5, is_unknown=first == 0.5, embedding=embedding
    )


@pytest.fixture(params=[".jsonl", ".parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three answers, and a photo without one."""
    path = tmp_path / f"answers{request.param}"
    with open_results(path, "m1", LABELS, unknown=True, embeddings=True) as results:
        for number in range(3):
            results.append(predicted(f"{number}.jpg", 0.25 * number + 0.25), "cat")
        results.append(ImageError("broken.jpg", "it is no photo"))
    return path


def test_collected_answers_are_read_back(file):
    assert is_answers_file(file)
    found = read_answers(file, LABELS, MODELS)
    assert found.names == ("0.jpg", "1.jpg", "2.jpg") and len(found) == 3
    assert found.probabilities.tolist() == [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]
    assert found.predicted.tolist() == [1, 0, 0] and found.confidence[0] == 0.75
    half = np.float16([0.1, -2, 3e-5, 1 / 3]).astype(np.float32)
    assert (found.embedding == half).all() and found.ood_score.tolist() == [0.5] * 3
    assert found.is_unknown.tolist() == [False, True, False]
    assert found.failed == {"broken.jpg": "it is no photo"}


@pytest.mark.parametrize("place", ["folder", "store"])
def test_answers_in_parts_are_read_as_one_table(tmp_path, place):
    for part, numbers in (("part-b.parquet", (2, 3)), ("part-a.parquet", (0, 1))):
        with open_results(tmp_path / part, "m1", LABELS, unknown=True, embeddings=True) as results:
            for number in numbers:
                results.append(predicted(f"{number}.jpg"))
    (tmp_path / "_manifest.json").write_text("{}", encoding="utf-8")
    answers = tmp_path
    if place == "store":
        for file in tmp_path.iterdir():
            fsspec.filesystem("memory").pipe_file(f"/drift/answers/{file.name}", file.read_bytes())
        answers = as_place("memory://drift/answers/")
    assert is_answers_file(answers)
    assert read_answers(answers, LABELS, MODELS).names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert not is_answers_file(as_place("memory://drift"))


def test_a_table_that_was_begun_without_embeddings_stays_so(tmp_path):
    path = tmp_path / "answers.parquet"
    with open_results(path, "m1", LABELS) as results:
        results.append(predicted("1.jpg"))
    with pytest.raises(ResultsError, match="--embeddings given only once"):
        open_results(path, "m1", LABELS, embeddings=True)
    with pytest.raises(ResultsError, match="no place for embeddings"):
        open_results(tmp_path / "answers.csv", "m1", LABELS, embeddings=True)


def test_answers_of_another_model_are_refused(file):
    with pytest.raises(DataError, match=r"row 1: an answer of another model \(m1; .* m3\)"):
        read_answers(file, LABELS, {"m3"})


def test_answers_with_other_labels_are_refused(file):
    with pytest.raises(DataError, match="row 1: not an answer of this model"):
        read_answers(file, ("cat", "dog"), MODELS)


def row(**changes: object) -> dict[str, object]:
    values = {"source": "1.jpg", "model": "m1", "label": "cat", "confidence": 1.0}
    values |= {"probabilities": {"cat": 1.0, "花": 0.0}, "embedding": [1.0, 2.0]}
    values |= {"ood_score": 1.0, "unknown": False}
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(embedding=None)], "row 1: no embedding"),
        ([row(), row(ood_score=None)], "row 2: no embedding or no ood_score"),
        ([row(unknown=None)], "row 1: not an answer"),
        ([row(unknown="no")], "row 1: not an answer"),
        ([row(probabilities={"cat": 1.0, "花": 1.0})], "row 1: not an answer"),
        ([row(embedding=["x", 1])], "row 1: not an answer"),
        ([row(embedding=[float("nan"), 1])], "row 1: not an answer"),
        ([row(embedding=5)], "row 1: not an answer"),
        ([row(embedding=[[1.0], [2.0]])], "row 1: not an answer"),
        ([row(embedding=[10**400, 1])], "row 1: not an answer"),
        ([row(embedding=[1e300, 1])], "row 1: .* very large"),
        ([row(ood_score=1e300)], "row 1: .* very large"),
        ([row(probabilities={"cat": [1.0], "花": [0.0]})], "row 1: not an answer"),
        ([row(probabilities={"cat": 1e300, "花": -1e300})], "row 1: not an answer"),
        ([row(probabilities={"cat": 2.0, "花": -1.0})], "row 1: not an answer"),
        ([row(), row(embedding=[1.0])], "row 2: not an answer"),
        ([row(error="gone")], "no answer to compare; 1.jpg: gone"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_its_row(rows, message, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(values) + "\n" for values in rows), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_answers(path, LABELS, MODELS)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row())[:30], encoding="utf-8")
    assert len(read_answers(path, LABELS, MODELS)) == 1


def test_a_file_that_is_damaged_is_an_error(tmp_path):
    for name, content in (("a.jsonl", b"{\n"), ("a.jsonl", b"[1]\n"), ("a.parquet", b"PAR1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not"):
            read_answers(tmp_path / name, LABELS, MODELS)


def test_a_list_of_photos_is_no_file_of_answers(tmp_path):
    path = tmp_path / "photos.jsonl"
    path.write_text('{"source": "1.jpg", "label": "cat"}\n', encoding="utf-8")
    assert not is_answers_file(path) and not is_answers_file(tmp_path)


def test_answers_of_a_predictor():
    results = [predicted("1.jpg"), ImageError("2.jpg", "it is no photo")]
    found = of_predictions(results, ["1.jpg", "2.jpg"])
    assert found.names == ("1.jpg",) and found.failed == {"2.jpg": "it is no photo"}
