"""``python -m edgetl.demo``: its steps on small data, and its digits."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from helpers.pictures import write_photo
from PIL import Image

from edgetl import demo
from edgetl.cli.main import command as program

QUICK = {
    "train": shlex.split(
        "--backbone timm/test_resnet --weights none --image-size 32 --resize published "
        "--feature-cache off"
    ),
    "export": ["--format", "onnx"],
    "check": ["--runtime", "onnxruntime-cpu"],
}


def test_the_digits_are_written_as_class_folders(tmp_path: Path) -> None:
    assert demo.write_digits(tmp_path / "digits") == 1797
    counts = {
        part: len(list((tmp_path / "digits" / part).glob("?/*.png"))) for part in ("train", "val")
    }
    assert counts == {"train": 1433, "val": 364}
    assert len(list((tmp_path / "digits/val").iterdir())) == 10
    with Image.open(tmp_path / "digits/train/7/1.png") as picture:
        assert picture.size == (64, 64)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the demo's commands in this process, quickly; returns their command lines."""
    lines: list[list[str]] = []

    def run(line: list[str]) -> SimpleNamespace:
        lines.append(line)
        words = line[3:]
        done = CliRunner().invoke(program, words + QUICK.get(words[0], []))
        return SimpleNamespace(returncode=done.exit_code)

    monkeypatch.setattr(demo.subprocess, "run", run)
    return lines


def write_two_digits(folder: Path) -> int:
    for label, colour in (("0", (200, 80, 60)), ("1", (60, 90, 200))):
        for number in range(12):
            part = "train" if number % 4 else "val"
            write_photo(folder / part / label / f"{number}.png", colour, number + 50 * int(label))
    return 24


def test_every_step_runs(
    tmp_path: Path,
    in_process: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "write_digits", write_two_digits)
    work = tmp_path / "a demo"
    done = CliRunner().invoke(demo.main, [str(work), "--device-python", "python-of-the-device"])
    assert done.exit_code == 0, done.output
    called = [(line[0], line[3]) for line in in_process]
    workstation = [(sys.executable, name) for name in ("train", "export", "check")]
    device = [("python-of-the-device", name) for name in ("selftest", "predict", "info")]
    assert called == workstation + device
    for file in ("runs/digits/report.html", "parity.html", "parity.xml", "parity.json"):
        assert (work / file).stat().st_size > 0
    assert '$ edgetl selftest "' in done.output and "== Done in" in done.output


def test_a_step_that_fails_ends_it_with_its_exit_code(
    tmp_path: Path, in_process: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "write_digits", lambda folder: 0)
    done = CliRunner().invoke(demo.main, [str(tmp_path / "demo")])
    assert done.exit_code == 1 and [line[3] for line in in_process] == ["train"]


def test_without_the_extra_train_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    done = CliRunner().invoke(demo.main, [str(tmp_path / "demo")])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert 'Install it with: pip install "edgetl[train]"' in done.output


def test_torch_is_blocked_where_no_other_python_is_named(tiny_bundle: Path) -> None:
    code = demo._WITHOUT_TORCH.replace("main()", "import torch")
    blocked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "import of torch halted" in blocked.stderr
    line = [sys.executable, "-c", demo._WITHOUT_TORCH, "selftest", str(tiny_bundle)]
    assert subprocess.run(line, capture_output=True).returncode == 0
