"""Mistakes in the use of commands give a message and an exit code, and never destroy a file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.photo_samples import cut_short
from PIL import Image

from edgetl import CheckpointError, ExportError
from edgetl.cli.main import command as program
from edgetl.data.image_folder import scan
from edgetl.exporting.photo_selection import run_data
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.run_lock import lock_run_folder

SPEC = PreprocessSpec("squash", (32, 32), "bicubic", None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def typed(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell in which ``edgetl`` is this checkout's."""
    shell = f'edgetl() {{ "{sys.executable}" -m edgetl "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", shell],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def failed_plainly(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "report.html"])
def test_a_run_never_overwrites_a_file_that_is_not_its_own(
    name: str, class_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    done = CliRunner().invoke(
        program, ["train", str(class_folder), "-o", str(tmp_path), "--weights", "none"]
    )
    assert done.exit_code != 0
    assert name in done.output
    assert (tmp_path / name).read_text() == "mine"


def test_the_error_for_a_link_loop_names_it(
    class_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    loop = tmp_path / "a"
    loop.symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    photo = next(path for path in sorted(class_folder.rglob("*")) if path.is_file())
    predicted = CliRunner().invoke(
        program, ["predict", str(tiny_bundle), str(loop), str(photo), "--json"]
    )
    assert predicted.exit_code == 1, predicted.exception
    assert len(predicted.stdout.splitlines()) == 2 and "symbolic links" in predicted.output
    trained = CliRunner().invoke(program, ["train", str(class_folder), "-o", str(loop)])
    assert trained.exit_code == 1 and "symbolic links" in trained.output, trained.output


def test_only_one_run_at_a_time_can_use_a_folder(tmp_path: Path) -> None:
    with (
        lock_run_folder(tmp_path),
        pytest.raises(CheckpointError, match="Another process"),
        lock_run_folder(tmp_path),
    ):
        pass
    with lock_run_folder(tmp_path):  # free again
        pass


def test_data_with_other_classes_is_refused(class_folder: Path) -> None:
    settings = {"data": str(class_folder), "val_fraction": 0.2}
    card = ModelCard(("blue fish", "green, leaf", "red 花"), SPEC, "resnet18")
    assert run_data(settings, card, "golden photos", "hint").classes == card.labels
    with pytest.raises(ExportError, match="other classes"):
        run_data(settings, replace(card, labels=("blue fish", "red 花")), "golden photos", "hint")


def test_validation_photos_that_a_run_left_out_stay_left_out(
    class_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(class_folder / "train", tmp_path / "photos"))
    settings = {"data": str(folder), "val_fraction": 0.2, "columns": ""}
    data = scan(folder)
    lost = data.val[0].path
    cut_short(lost, folder)
    card = ModelCard(
        data.classes,
        SPEC,
        "resnet18",
        data={"fingerprint": scan(folder).without({lost: "cut"}).fingerprint},
    )
    assert lost not in {
        sample.path for sample in run_data(settings, card, "golden photos", "hint").val
    }


def test_a_run_of_before_the_split_by_rank_keeps_its_validation_photos(
    class_folder: Path, tmp_path: Path
) -> None:
    """It chose the photos whose digests are below the share."""
    folder = Path(shutil.copytree(class_folder / "train", tmp_path / "photos"))
    data = scan(folder)
    card = ModelCard(data.classes, SPEC, "resnet18", data={"fingerprint": data.fingerprint})
    settings = {"data": str(folder), "val_fraction": 0.2}
    found = run_data(settings, card, "golden photos", "hint")
    low = {s for s in data.train + data.val if int(s.digest[:4], 16) < 0.2 * 2**16}
    assert low and low <= {*found.val} and {*found.val} != {*data.val}
    assert sorted(found.train + found.val, key=str) == sorted(data.train + data.val, key=str)
    for digests in ({s.digest for s in found.val if s.label == n} for n in range(3)):
        assert len(digests) == 1 or digests <= {s.digest for s in low}


def test_a_report_never_replaces_a_photo_or_a_file_of_a_bundle_or_run(
    class_folder: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "run").mkdir()
    for name in ("best.safetensors", "metrics.json"):
        (tmp_path / "run" / name).write_text("{}")
    for target in (
        photo,
        tmp_path / "manifest.json",
        tmp_path / "new.json",
        tmp_path / "run/metrics.json",
    ):
        before = target.read_bytes() if target.exists() else None
        done = CliRunner().invoke(
            program, ["data", "check", str(class_folder), "--json", str(target)]
        )
        assert done.exit_code == 2
        assert "name another file" in done.output
        assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("selftest", "--threads", "100000"),
        ("selftest", "--tolerance", "nan"),
        ("selftest", "--tolerance", "-1"),
        ("check", "--max-accuracy-drop", "nan"),
        ("export", "--max-accuracy-drop", "nan"),
    ],
)
def test_impossible_numbers_are_usage_errors(
    command: str, option: str, value: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(program, [command, str(tmp_path), option, value])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_on_standard_output_is_valid_in_every_encoding(
    encoding: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    name = "é😀.png"
    Image.new("RGB", (20, 20)).save(tmp_path / name)
    shell = [sys.executable, "-m", "edgetl", "predict", str(tiny_bundle), str(tmp_path), "--json"]
    done = subprocess.run(
        shell, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert Path(json.loads(done.stdout)["source"]).name == name
    assert (name.encode() in done.stdout) == (encoding == "utf-8")


def test_a_full_disk_is_reported(class_folder: Path) -> None:
    failed_plainly(typed(f'edgetl data check "{class_folder}" >/dev/full'), "No space left")


def test_a_closed_standard_output_is_an_error(class_folder: Path) -> None:
    failed_plainly(typed(f'edgetl data check "{class_folder}" >&-'), "Standard output is closed")


def test_a_closed_standard_output_is_none_where_the_answer_is_in_a_file(
    tiny_bundle: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    done = typed(f'edgetl predict "{tiny_bundle}" "{photo_folder}" --out "{out}" <&- >&-')
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == len(list(photo_folder.iterdir()))


def test_a_deleted_working_directory_is_an_error_before_torch_is_imported(
    class_folder: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    run = str(tmp_path / "run")
    Path(run).mkdir()
    for line in (
        ["train", str(class_folder), "-o", run],
        ["train", "--resume", run],
        ["export", run, "-o", str(tmp_path / "bundle")],
        ["check", str(tiny_bundle), "--images", str(class_folder)],
    ):
        done = CliRunner().invoke(program, line)
        assert done.exit_code == (2 if line[0] == "check" else 1), done.output
        assert "current folder does not exist any more" in done.output
    done = CliRunner().invoke(program, ["selftest", str(tiny_bundle)])  # needs no torch
    assert done.exit_code == 0, done.output


def test_characters_missing_from_the_encoding_are_escaped(class_folder: Path) -> None:
    done = typed(f'edgetl data check "{class_folder}"', PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u82b1" in done.stdout


WAITING = """
import signal, sys, tempfile, time
from edgetl.cli import info
from edgetl.cli.main import main

def wait(**_):
    with tempfile.TemporaryDirectory(dir=sys.argv[2]):
        print("ready", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt as error:
            if IMPORTING:
                raise ImportError("initialization failed") from error
            raise

# A background job inherits a SIGINT that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
info.command.callback = wait
main()
"""


@pytest.mark.parametrize("importing", [False, True])  # a C extension raises ImportError instead
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_command_that_is_ended_early_leaves_nothing_behind(
    number: int, code: int, importing: bool, tmp_path: Path
) -> None:
    program = WAITING.replace("IMPORTING", str(importing))
    line = [sys.executable, "-c", program, "info", str(tmp_path)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


def test_a_name_in_an_error_of_the_system_is_escaped() -> None:
    """A bell, as click leaves other control sequences out of a pipe."""
    failing = "import sys; from edgetl.cli import main\n"
    failing += "def command(**_): raise PermissionError(13, 'Permission denied', 'a\\a.jpg')\n"
    failing += "main.command = command; main.main()"
    done = subprocess.run([sys.executable, "-c", failing], capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr == b"Error: a\\x07.jpg: Permission denied.\n"


SPINS = """
import os
from edgetl.cli import main

main._run = lambda: print(os.environ.get("GOMP_SPINCOUNT")) or 0
main.main()
"""


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_openmp_threads_spin_briefly_unless_the_environment_says_otherwise(
    given: dict[str, str], spins: str
) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", SPINS],
        capture_output=True,
        text=True,
        env={**environment, **given},
        timeout=60,
    )
    assert done.stdout.split() == [spins]
