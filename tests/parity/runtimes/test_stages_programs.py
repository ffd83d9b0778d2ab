"""The rows of programs outside this process: what they show, and what happens if they fail."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest
from helpers import tampering
from helpers.small_export import Check, Exported
from PIL import Image
from rich.console import Console

from edgetl.cli.terminal.check_display import show
from edgetl.parity.reports.html_report import as_html
from edgetl.parity.results import CheckResult, RuntimeResult
from edgetl.parity.runtimes import RUNTIMES
from edgetl.parity.runtimes.cpp_program import CppProgram

_HEAD = f"""#!{sys.executable}
import sys, time
from edgetl.parity.stage_stream import read_message, write_message
source, target = sys.stdin.buffer, sys.stdout.buffer
"""
# Forwards photos to the real program, each with one pixel changed: another decoder.
_OTHER_DECODER = """
import io, os, subprocess
from PIL import Image
pipe = subprocess.PIPE
real = subprocess.Popen([os.environ["REAL"], *sys.argv[1:]], stdin=pipe, stdout=pipe)
while (photo := read_message(source)) is not None:
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    image.putpixel((3, 2), (1, 2, 3))
    image.save(changed := io.BytesIO(), "PNG")
    write_message(real.stdin, changed.getvalue())
    write_message(target, read_message(real.stdout))
"""


@pytest.fixture
def cpp(cpp_build: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real program of the row ``cpp``."""
    program = cpp_build / "edgetl-predict"
    monkeypatch.setenv("EDGETL_CPP", str(program))
    monkeypatch.setenv("REAL", str(program))
    return program


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the emulated Python: this one, so that no emulator is needed."""
    script(tmp_path / "arm64" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    monkeypatch.setenv("EDGETL_ARM64", str(tmp_path / "arm64"))


def script(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def row(result: CheckResult) -> RuntimeResult:
    (run,) = result.runtimes
    return run


@pytest.mark.usefixtures("emulated", "cpp")
def test_they_show_what_the_trained_network_shows(exported: Exported, run_check: Check) -> None:
    result = run_check(exported.subject(), "arm64", "cpp")
    assert result.passed, result.failures
    shown = {run.name: [stage.stage for stage in run.stages] for run in result.runtimes}
    assert shown == {
        "arm64": ["decoded", "resized", "normalized", "logits", "probabilities"],
        "cpp": ["decoded", "resized", "logits", "probabilities"],
    }
    assert all(run.photos == 7 and run.left_out == 0 for run in result.runtimes)


@pytest.mark.parametrize(
    ("runtime", "tamper", "stage"),
    [
        ("arm64", tampering.mean, "normalized"),
        ("arm64", tampering.weight, "logits"),
        ("cpp", tampering.weight, "logits"),
        ("cpp", tampering.softmax_twice, "probabilities"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.usefixtures("emulated", "cpp")
def test_a_changed_model_fails_at_its_stage(
    copied: Exported, run_check: Check, runtime: str, tamper: tampering.Tamper, stage: str
) -> None:
    tampering.tamper_with_onnx(copied.folder, copied.card.spec, tamper)
    assert row(run_check(copied.subject(), runtime)).departure == stage


@pytest.mark.parametrize("runtime", ["arm64", "cpp"])
@pytest.mark.usefixtures("emulated", "cpp")
def test_another_resize_fails_at_resized(copied: Exported, run_check: Check, runtime: str) -> None:
    tampering.change_spec(copied.folder, copied.card, interpolation="bilinear")
    run = row(run_check(copied.subject(), runtime))
    assert run.departure == "resized" and "bilinear instead of bicubic" in run.cause


def test_another_decoder_fails_at_decoded(
    exported: Exported,
    run_check: Check,
    cpp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGETL_CPP", script(tmp_path / "other", _HEAD + _OTHER_DECODER))
    run = row(run_check(exported.subject(), "cpp"))
    assert run.departure == "decoded", run.reason


@pytest.mark.usefixtures("cpp")
def test_photos_of_formats_it_does_not_decode_are_left_out(
    exported: Exported, run_check: Check, photos: Path, tmp_path: Path
) -> None:
    image = Image.open(next(photos.rglob("*.png")))
    image.save(tmp_path / "a.webp")
    skipped = row(run_check(exported.subject(), "cpp", images=tmp_path))
    assert skipped.status == "failed" and "No photo is of a format" in skipped.reason
    image.save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    result = run_check(exported.subject(), "cpp", images=tmp_path)
    run = row(result)
    assert (run.status, run.photos, run.left_out) == ("passed", 1, 1)
    printed = io.StringIO()
    show(result, Console(file=printed, width=120))
    for report in (printed.getvalue(), as_html(result)):
        assert "cpp: photos left out, of formats that it does not decode: 1" in report


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("time.sleep(600)", "0.png: the program did not answer within 1.5 seconds"),
        ("read_message(source); time.sleep(600)", "did not answer within 1.5 seconds"),
        ("sys.exit('Error: no such option: --stages')", "ended (1): Error: no such option"),
        ("read_message(source); write_message(target, b'hello world\\n')", "is no stage"),
        ("read_message(source); write_message(target, b'failed no memory\\n')", "no memory"),
    ],
)
def test_a_program_that_fails_ends_with_a_message(
    exported: Exported,
    run_check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rest: str,
    reason: str,
) -> None:
    monkeypatch.setattr(CppProgram, "seconds", 1.5)
    before = psutil.Process().children()
    monkeypatch.setenv("EDGETL_CPP", script(tmp_path / "program", _HEAD + rest))
    run = row(run_check(exported.subject(), "cpp"))
    assert run.status == "failed" and reason in run.reason
    assert psutil.Process().children() == before


def test_ctrl_c_kills_it(
    exported: Exported, run_check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = "import subprocess; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    monkeypatch.setenv("EDGETL_CPP", script(tmp_path / "program", _HEAD + forks))
    before = psutil.Process().children(recursive=True)  # of other tests
    started = []

    def interrupt() -> None:
        now = psutil.Process().children(recursive=True)
        started.extend(process for process in now if process not in before)
        os.kill(os.getpid(), signal.SIGINT)

    # Which a shell has processes in the background ignore.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(2.0, interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_check(exported.subject(), "cpp")
    finally:
        signal.signal(signal.SIGINT, handler)
    _, alive = psutil.wait_procs(started, timeout=10)
    assert started and not alive


def test_what_is_not_set_up_is_skipped_with_the_command(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("EDGETL_ARM64", "EDGETL_CPP"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    result = run_check(exported.subject(), "onnxruntime-cpu", "arm64", "cpp", "node")
    reasons = {run.name: run.reason for run in result.runtimes if run.status == "failed"}
    assert "scripts/arm64_environment DIR" in reasons["arm64"]
    assert "cmake -S examples/cpp" in reasons["cpp"]
    assert "--web --ort" in reasons["node"]


@pytest.mark.usefixtures("emulated")
def test_emulated_rows_run_only_where_they_are_asked_for(
    exported: Exported, run_check: Check, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "torchscript-fresh", RUNTIMES["torchscript"])  # quick to start
    result = run_check(exported.subject(), images=next(photos.rglob("*.png")))
    (run,) = [run for run in result.runtimes if run.name == "arm64"]
    assert run.status == "skipped" and "--runtime arm64" in run.reason
