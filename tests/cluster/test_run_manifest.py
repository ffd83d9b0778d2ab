"""A destination belongs to one model, one set of options and one run at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.cluster.destination import Destination
from edgetl.cluster.run_manifest import RunManifest, require_run
from edgetl.errors import ResultsError
from edgetl.runtime.results.parquet_rows import RUN_MANIFEST

LABELS = ("cat", "花")


def manifest(folder: Path, model: str = "1234", **options: object) -> RunManifest:
    return RunManifest(Destination(str(folder)), model, LABELS, {"embeddings": False, **options})


def test_it_says_whose_answers_these_are_and_whether_all_are_there(tmp_path: Path):
    first = manifest(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    first.begin()
    begun = json.loads((tmp_path / "out" / RUN_MANIFEST).read_text("utf-8"))
    assert begun["complete"] is False and begun["model"] == "1234" and begun["labels"] == [*LABELS]
    first.complete({"photos": 3, "failed": 1, "parts": 1})
    done = json.loads((tmp_path / "out" / RUN_MANIFEST).read_text("utf-8"))
    assert {**done, "complete": False} == {**begun, "photos": 3, "failed": 1, "parts": 1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "9999"}, r"another model \(1234; this one is 9999\)"),
        ({"embeddings": True}, r"other options: --embeddings was False, is True\."),
    ],
)
def test_answers_of_another_model_or_with_other_options_are_left_alone(
    tmp_path: Path, changed: dict[str, object], message: str
):
    manifest(tmp_path).begin()
    before = (tmp_path / RUN_MANIFEST).read_bytes()
    with pytest.raises(ResultsError, match=message):
        manifest(tmp_path, **changed)
    assert (tmp_path / RUN_MANIFEST).read_bytes() == before


@pytest.mark.parametrize("content", [None, b"no JSON", b"[]", b'{"schema": 2}'])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, content: bytes | None):
    (tmp_path / "photo.jpg").write_bytes(b"1")
    if content is not None:
        (tmp_path / RUN_MANIFEST).write_bytes(content)
    with pytest.raises(ResultsError, match="holds something else"):
        manifest(tmp_path)


def test_a_run_notices_another_one_at_the_same_place(tmp_path: Path):
    first, second = manifest(tmp_path), manifest(tmp_path)
    first.begin()
    second.begin()
    with pytest.raises(ResultsError, match="Another run writes to"):
        first.complete({})


def test_a_worker_notices_a_folder_that_is_not_the_one_of_the_command(tmp_path: Path):
    with pytest.raises(ResultsError, match="not the same folder on every machine"):
        require_run(Destination(str(tmp_path)), "1")
