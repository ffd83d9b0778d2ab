"""The programs in examples/ do what they say, run as a reader runs them."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pytest
from fastapi.testclient import TestClient
from helpers.pictures import photo
from nbclient import NotebookClient

from edgetl import Predictor

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str | Path) -> str:
    """What the example ``name`` prints. Fails the test if it fails."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    """Eight photos, and a file that is none."""
    folder = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_a_folder_is_classified_into_a_table(tiny_bundle, photos, tmp_path):
    table = tmp_path / "answers.csv"
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "8 photos classified, 1"
    )
    answers = rows(table)
    assert [Path(row["photo"]).name for row in answers] == sorted(p.name for p in photos.iterdir())
    assert all(bool(row["label"]) != bool(row["error"]) for row in answers)


def test_a_stopped_classification_continues_where_it_was(tiny_bundle, photos, tmp_path):
    table = tmp_path / "answers.csv"
    run("classify_folder.py", tiny_bundle, photos, table)
    whole = table.read_bytes()
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:4]) + lines[4][:7])  # killed in the middle of the fourth row
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "5 photos classified, 1"
    )
    assert table.read_bytes() == whole
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "0 photos classified, 0"
    )
    assert table.read_bytes() == whole


def test_photos_are_sorted_by_class(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    printed = run("sort_photos.py", tiny_bundle, photos, target, "--once", "--sure", "0")
    assert printed.count("→") == 9
    assert not list(photos.iterdir())
    assert [path.name for path in (target / "unreadable").iterdir()] == ["broken.jpg"]
    assert sum(path.is_file() for path in target.rglob("*")) == 9
    assert not (target / "unsure").exists()


def test_photos_without_a_sure_answer_are_set_aside(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    run("sort_photos.py", tiny_bundle, photos, target, "--once", "--sure", "1.1")
    assert len(list((target / "unsure").iterdir())) == 8


def test_a_photo_of_the_same_name_is_not_overwritten(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    again = Path(shutil.copytree(photos, tmp_path / "again"))
    for incoming in (photos, again):
        run("sort_photos.py", tiny_bundle, incoming, target, "--once", "--sure", "1.1")
    assert len(list((target / "unsure").iterdir())) == 16


def loaded(name: str) -> ModuleType:
    """The example ``name`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_service_answers_as_the_command_does(tiny_bundle, photos, monkeypatch):
    monkeypatch.setenv("MODEL", str(tiny_bundle))
    client = TestClient(loaded("service").create_app())
    path = photos / "0-64x48.jpg"
    answer = client.post("/predict", files={"photo": ("cat.jpg", path.read_bytes())})
    expected = {**Predictor(tiny_bundle)(path).to_dict(), "source": "cat.jpg"}
    assert (answer.status_code, answer.json()) == (200, expected)
    best = client.post("/predict?top=2", files={"photo": ("cat.jpg", path.read_bytes())}).json()
    assert len(best["probabilities"]) == 2
    assert client.get("/health").json() == {"passed": True, "photos": 3}


def test_a_service_refuses_what_is_no_photo_with_the_reason(tiny_bundle):
    client = TestClient(loaded("service").create_app(str(tiny_bundle)))
    answer = client.post("/predict", files={"photo": ("notes.txt", b"no photo")})
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert detail["photo"] == "notes.txt" and "it is not an image" in detail["reason"]


class FakeCapture:
    """What cv2.VideoCapture does, for frames in memory (RGB; OpenCV gives BGR)."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = iter(frames)
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def set(self, name: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        frame = next(self.frames, None)
        return frame is not None, None if frame is None else np.ascontiguousarray(frame[..., ::-1])

    def release(self) -> None:
        self.released = True


def test_a_camera_loop_prints_the_label_when_it_changes(tiny_bundle, monkeypatch, capsys):
    predictor = Predictor(tiny_bundle)
    frames = [np.asarray(photo(seed)) for seed in range(20)]
    answers = {predictor(frame).label: frame for frame in frames}
    (first, one), (second, other) = list(answers.items())[:2]
    capture = FakeCapture([one] * 6 + [other] * 6)
    stand_in = SimpleNamespace(VideoCapture=lambda source: capture, CAP_PROP_BUFFERSIZE=38)
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    monkeypatch.setattr(sys, "argv", ["camera.py", str(tiny_bundle), "--sure", "0"])
    loaded("camera").main()
    assert [line.rpartition("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        first,
        second,
    ]
    assert capture.released


def test_a_camera_loop_says_nothing_of_which_it_is_unsure(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())
    capture = FakeCapture([np.asarray(photo(1))] * 3)
    assert not list(loaded("camera").labels(capture, Predictor(tiny_bundle), sure=1.01))


@pytest.mark.filterwarnings("default")  # of the kernel's packages
def test_the_notebook_runs_and_its_results_show_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "examples/first_model.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    small = 'backbone="timm/test_resnet", weights="none", image_size=32, feature_cache="off"'
    for cell in notebook.cells:
        cell.source = cell.source.replace('"runs/digits", ', f'"runs/digits", {small}, ')
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = "".join(
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "execute_result"
    )
    assert shown.count("<iframe sandbox srcdoc=") == 4
    for words in ("Confusion matrix", "Compared with the trained network", "The same answer"):
        assert words in shown
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "no-such-photo.png: no such file" in printed and "holds a run already" in printed
