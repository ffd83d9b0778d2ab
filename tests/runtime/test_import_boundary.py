"""The device has no torch: fresh processes in which the training packages can't be imported."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from helpers.drifting_answers import answers, write_answers, write_bundle

import edgetl.runtime
from edgetl.cli.main import command as program

FORBIDDEN = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "matplotlib",
    "jinja2",
    "safetensors",
    "rich",
)
ALLOWED = {"edgetl", "numpy", "onnxruntime", "PIL"}

BLOCKED = f"""
import sys
for name in {FORBIDDEN!r}:
    sys.modules[name] = None  # an import of it raises ImportError
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run_edgetl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(
        BLOCKED + "sys.argv = ['edgetl', *sys.argv[1:]]\nfrom edgetl.cli.main import main\nmain()",
        *arguments,
    )


def test_importing_edgetl_imports_no_heavy_package() -> None:
    done = run("import sys, edgetl; print(*sorted(m for m in sys.modules if '.' not in m))")
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "PIL", "onnxruntime", "click", *FORBIDDEN} & set(done.stdout.split())


def test_a_predictor_of_files_imports_nothing_for_stores() -> None:
    done = run("import sys; from edgetl import Predictor; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert "edgetl.runtime.images.store" not in done.stdout.split()


def test_the_predictor_of_a_check_runs_where_only_a_device_s_packages_are() -> None:
    """As ``edgetl check --runtime arm64`` starts it."""
    done = run(BLOCKED + "from edgetl.parity.runtimes.shipped_predictor import main")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_during_the_import_of_onnxruntime_is_not_reported_as_its_error(
    tmp_path: Path,
) -> None:
    """Its compiled module imports others, and reports any error there as a failed import."""
    (tmp_path / "onnxruntime.py").write_text(
        "raise ImportError('initialization failed') from KeyboardInterrupt()\n"
    )
    program = "import sys\nsys.path.insert(0, sys.argv[1])\n"
    program += "from edgetl.runtime.inference.session import import_onnxruntime\n"
    program += "try:\n    import_onnxruntime()\nexcept KeyboardInterrupt:\n    print('interrupted')"
    done = run(program, str(tmp_path))
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--nonsense"], 2)])
def test_ctrl_c_at_exit_changes_nothing(arguments: list[str], code: int) -> None:
    """torch takes seconds to shut down, and Python would show a traceback if interrupted there."""
    program = (
        "import os, signal, sys\nfrom edgetl.cli.main import main\n"
        "try:\n    main()\nfinally:\n    os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == code and "Traceback" not in done.stderr


def test_help_works_without_the_training_packages() -> None:
    done = run_edgetl("--help")
    assert done.returncode == 0, done.stderr
    assert "  predict " in done.stdout


@pytest.mark.parametrize("command", program.list_commands(click.Context(program)))
def test_help_of_each_command_works_without_them(command: str) -> None:
    done = run_edgetl(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout


def test_predict_selftest_and_info_work_without_them(tiny_bundle: Path) -> None:
    golden = str(tiny_bundle / "golden" / "000.png")
    predicted = run_edgetl("predict", str(tiny_bundle), golden, "--json")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert json.loads(predicted.stdout)["source"] == golden
    for command in ("selftest", "info"):
        done = run_edgetl(command, str(tiny_bundle))
        assert (done.returncode, done.stderr) == (0, "")


def test_a_drift_imports_nothing_above_the_runtime(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", [30, 30])
    file = write_answers(tmp_path / "answers.jsonl", bundle, answers([20, 20]))
    above = tuple(f"edgetl.{room}" for room in ("training", "evaluation", "exporting", "parity"))
    code = (
        "try:\n    main()\nfinally:\n"
        f"    assert not [name for name in sys.modules if name.startswith({above!r})]"
    )
    start = BLOCKED + "from edgetl.cli.main import main\nsys.argv[0] = 'edgetl'\n"
    done = run(start + code, "drift", str(bundle), str(file))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_prediction_imports_only_what_the_device_has(tiny_bundle: Path) -> None:
    code = """
import site, sys
from pathlib import Path
import numpy as np
from edgetl import Predictor
predictor = Predictor(sys.argv[1])
predictor(np.zeros((5, 5, 3), np.uint8))
predictor.selftest()
list(predictor.batch([b""]))
installed = [Path(p) for p in site.getsitepackages()]
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and any(Path(file).is_relative_to(p) for p in installed):
        print(name.partition(".")[0])
"""
    done = run(code, str(tiny_bundle))
    assert done.returncode == 0, done.stderr
    shown = {name for name in done.stdout.split() if not name.startswith(("_", "__editable__"))}
    assert shown <= ALLOWED, shown - ALLOWED


def test_a_training_command_names_the_missing_package(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").touch()  # a folder without it is named first
    done = run_edgetl("export", str(tmp_path), "-o", str(tmp_path / "bundle"))
    assert done.returncode == 1
    assert "needs" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_and_bulk_prediction_work_without_them(tiny_bundle: Path, tmp_path: Path) -> None:
    golden = str(tiny_bundle / "golden")
    for arguments in (
        ("bench", str(tiny_bundle), "--images", golden, "--runs", "2", "--json"),
        ("predict", str(tiny_bundle), golden, "--out", str(tmp_path / "answers.csv")),
    ):
        done = run_edgetl(*arguments)
        assert done.returncode == 0, done.stderr


def test_an_evaluation_works_without_them_but_for_its_html_report(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle / "golden", tmp_path / "test/plain")
    arguments = ("evaluate", str(tiny_bundle), str(tmp_path / "test"))
    done = run_edgetl(*arguments, "--json", str(tmp_path / "test.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "test.json").read_text("utf-8"))["metrics"]["photos"] == 3
    done = run_edgetl(*arguments, "--html", str(tmp_path / "test.html"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: The HTML report needs the extra report")
    assert 'pip install "edgetl[report]"' in done.stderr


def test_telemetry_is_off(tiny_bundle: Path, tmp_path: Path) -> None:
    """onnxruntime's telemetry writes to the home folder, and complains if it can't."""
    for home in (tmp_path / "home", Path("/proc/nowhere")):
        environment = {**os.environ, "HOME": str(home)}
        for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        command = [
            sys.executable,
            "-m",
            "edgetl",
            "predict",
            str(tiny_bundle),
            str(tiny_bundle / "golden" / "000.png"),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not home.exists()


@pytest.mark.parametrize(
    "file", sorted(Path(edgetl.runtime.__path__[0]).rglob("*.py")), ids=lambda file: file.stem
)
def test_the_runtime_unpickles_nothing_and_knows_no_torch(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in imported} & {
        "pickle",
        "marshal",
        "shelve",
        "dill",
        "torch",
        "onnx",
    }
    assert not any(
        isinstance(node, ast.keyword) and node.arg == "allow_pickle" for node in ast.walk(tree)
    )


def test_dir_lists_the_lazily_loaded_names() -> None:
    assert set(edgetl.__all__) <= set(dir(edgetl))
