"""``edgetl train`` as it is typed: what it prints, its exit codes, no option ignored."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.forked import Forked
from helpers.small_backbone import SMALL_BACKBONE
from helpers.training_runs import small

from edgetl.cli import train as train_module
from edgetl.cli.main import command as program
from edgetl.training.config.listener import Listener
from edgetl.training.config.option import flag
from edgetl.training.config.settings import OPTIONS
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.lr_finder import FoundRate
from edgetl.training.engine.run_photos import find_photos
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_state import read_state
from edgetl.training.models.checkpoint import load

SMALL = shlex.split(
    f"--backbone {SMALL_BACKBONE} --weights none --strategy full --image-size 32 "
    "--batch-size 8 --epochs 1 --no-warm-head --workers 1 --device cpu"
)
FRESH = [*SMALL, "--backbone", "timm/test_resnet"]
"""Of a process that does not know the backbone of the tests."""


def edgetl(*arguments: object) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


def test_training_prints_classes_result_and_the_next_command(class_folder, tmp_path):
    result = edgetl("train", class_folder, "-o", tmp_path / "pets", *SMALL)
    assert result.exit_code == 0, result.output
    for said in (
        "green, leaf",
        "36",
        "15",
        "val accuracy",
        "Validation accuracy",
        f"edgetl export {tmp_path}/pets -o exported/pets",
    ):
        assert said in result.output
    kept = json.loads((tmp_path / "pets/metrics.json").read_text())
    assert (f"Kept: epoch {kept['epoch']}; the loss" in result.output) == (
        kept["epoch"] > 0 and not kept["midway"]
    )
    accuracy, low, high = map(
        float, re.search(r"accuracy ([\d.]+)% \(([\d.]+)% to ([\d.]+)%\)", result.output).groups()
    )
    assert low < accuracy < high
    assert (tmp_path / "pets/best.safetensors").is_file()
    assert (tmp_path / "pets/report.html").is_file()


@pytest.mark.parametrize("options", [SMALL, [*SMALL[:4], "--feature-cache", "off"]])
def test_the_table_the_report_and_the_result_count_what_can_be_read(
    class_folder, tmp_path, options
):
    data = shutil.copytree(class_folder / "train", tmp_path / "data")
    for name in ("blue fish", "red 花"):  # one side of copies, so neither is validated on
        (data / name / "broken.jpg").write_bytes(b"<html>404 Not Found</html>")
    done = edgetl("train", data, "-o", tmp_path / "run", *options)
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    card = load(tmp_path / "run").card
    rows = [line.split() for line in done.output.split("class ")[1].splitlines()[:5]]
    assert rows[0] == ["train", "val", "can't", "be", "read"]
    numbers = {" ".join(row[:-3]): [int(number) for number in row[-3:]] for row in rows[1:]}
    assert numbers["green, leaf"][2] == 0 and numbers["3 classes"][2] == 2
    assert sum(numbers["3 classes"]) == 38 and "38 photos of 3 classes" in done.output
    assert numbers["3 classes"][:2] == [card.data["train"], card.data["val"]]
    assert numbers["3 classes"][1] == metrics["photos"]
    share = f"{metrics['photos'] / 36:.1%} of the photos"
    assert f"Validated on: {share}" in done.output
    assert share in (tmp_path / "run/report.html").read_text("utf-8")
    assert "classes at once" not in done.output


def test_ctrl_c_says_how_to_go_on_and_that_works(class_folder, tmp_path, monkeypatch):
    plain = Learner.step

    def step(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", step)
        stopped = edgetl("train", class_folder, "-o", tmp_path / "run", *SMALL)
    assert stopped.exit_code == 130
    assert f"edgetl train --resume {tmp_path}/run" in stopped.output
    refused = edgetl("train", class_folder, "-o", tmp_path / "run", *SMALL)
    assert refused.exit_code == 1
    assert "holds a run already" in refused.output
    resumed = edgetl("train", "--resume", tmp_path / "run")
    assert resumed.exit_code == 0, resumed.output


def test_looking_for_photos_is_part_of_the_time(class_folder, tmp_path, monkeypatch):
    plain, late = time.monotonic, [0.0]

    def slow(*arguments):
        late[0] = 1000.0
        return find_photos(*arguments)

    monkeypatch.setattr("edgetl.training.engine.train_run.find_photos", slow)
    monkeypatch.setattr("time.monotonic", lambda: plain() + late[0])
    result = edgetl(
        "train", class_folder, "-o", tmp_path / "run", *SMALL, "--epochs", 9, "--max-time", 10
    )
    assert "Ended in epoch 1 of 9: the time was up." in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train"], 2, "edgetl train DATA -o RUN"),
        (["train", "DATA"], 2, "edgetl train DATA -o RUN"),
        (["train", "DATA", "-o", "OUT", "--device", "cuda:77"], 1, "CUDA device"),
        (["train", "DATA", "-o", "OUT", "--backbone", "resnet51"], 1, "Did you mean"),
        (["train", "DATA", "-o", "OUT", "--epochs", "3"], 1, "no effect where the head is solved"),
        (["train", "DATA", "-o", "OUT", "--scheduler", "linear"], 2, "Invalid value"),
        (
            ["train", "DATA", "-o", "OUT", "--precision", "fp16", "--strategy", "full"],
            1,
            "fp16 is for GPUs",
        ),
        (["train", "NOWHERE", "-o", "OUT"], 1, "is not a folder"),
        (["train", "DATA", "-o", "DATA"], 1, "lies inside the folder of the photos"),
        (["train", "DATA", "-o", "DATA/train/run"], 1, "lies inside the folder of the photos"),
        (["train", "DATA", "-o", "FULL"], 1, "holds 'mine.txt' and no run"),
        (["train", "DATA", "-o", "FULL", "--overwrite"], 1, "holds 'mine.txt' and no run"),
        (["trian", "DATA"], 2, "Did you mean train?"),
        (["print", "DATA"], 2, "Did you mean predict?"),
        (["train", "", "-o", "OUT"], 2, "The name is empty"),
        (["train", "DATA", "-o", ""], 2, "The name is empty"),
        (["export", "DATA", "-o", ""], 2, "The name is empty"),
        (["train", "DATA", "-o", "OUT", "--seed", "1" + 400 * "0"], 1, "--seed"),
        (["train", "--resume", "NOWHERE"], 1, "nothing to resume"),
        (
            ["train", "--resume", "NOWHERE", "--epochs", "3", "-o", "OUT"],
            2,
            "leave out --epochs, -o",
        ),
    ],
)
def test_wrong_use_ends_with_a_sentence_and_not_a_traceback(
    class_folder, tmp_path, arguments, code, said
):
    places = {
        "DATA": str(class_folder),
        "OUT": str(tmp_path / "out"),
        "NOWHERE": str(tmp_path / "nowhere"),
    }
    places["FULL"], places["DATA/train/run"] = (
        str(tmp_path / "full"),
        str(class_folder / "train/run"),
    )
    Path(places["FULL"]).mkdir()
    Path(places["FULL"], "mine.txt").touch()
    result = edgetl(*[places.get(word, word) for word in arguments])
    assert result.exit_code == code, result.output
    assert said in result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert not Path(places["OUT"], "best.safetensors").exists()


WITHOUT_TORCH = """
import json
import sys
from click.testing import CliRunner
from edgetl.cli.main import command

for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(command, arguments)
    print(json.dumps([result.output, result.exit_code, "torch" in sys.modules]))
"""
WRONG_CALLS = [
    (["NOWHERE", "-o", "OUT"], "is not a folder"),
    (["DATA", "-o", "OUT", "--lr", "-1"], "must be above 0"),
    (["DATA", "-o", "OUT", "--strategy", "features", "--epochs", "3"], "no effect"),
    (["DATA", "-o", "USED"], "holds a run already"),
    (["--resume", "NOWHERE"], "nothing to resume"),
    (["--resume", "DATA"], "Name a run's folder"),
    (["--resume", "FILE"], "USED"),
    (["DATA", "-o", "FILE"], "is a file"),
    (["DATA", "-o", "OUT", "--weights", "nowhere.pth"], "no weights file nowhere.pth"),
    (["DATA", "-o", "OUT", "--weights", "DATA"], "is a folder, not a file of weights"),
    (["DATA", "-o", "OUT", "--weights", "MODEL"], "is not a file of weights"),
    (["PARTS", "-o", "OUT", "--val-fraction", "0.5"], "no effect where there is a folder val/"),
    (
        ["DATA", "-o", "OUT", "--feature-cache", "INSIDE"],
        "Choose another folder with --feature-cache",
    ),
]


@pytest.fixture(scope="module")
def answers_to_wrong_calls(class_folder, tmp_path_factory):
    """(places by name, (output, exit code, whether torch was imported) of each call)."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "used").mkdir()
    (folder / "used/best.safetensors").touch()
    places = {
        "DATA": class_folder,
        "OUT": folder / "out",
        "NOWHERE": folder / "nowhere",
        "USED": folder / "used",
        "FILE": folder / "used/best.safetensors",
        "INSIDE": class_folder / "cache",
        "MODEL": folder / "model.onnx",
        "PARTS": folder / "parts",
    }
    places["MODEL"].touch()
    places["PARTS"].mkdir()
    for part in ("train", "val"):
        (places["PARTS"] / part).symlink_to(class_folder)
    called = [
        ["train", *(str(places.get(word, word)) for word in arguments)]
        for arguments, _ in WRONG_CALLS
    ]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(called)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return places, [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(WRONG_CALLS)), ids=[said for _, said in WRONG_CALLS])
def test_what_is_wrong_with_the_call_is_said_before_torch_is_imported(
    answers_to_wrong_calls, number
):
    places, answers = answers_to_wrong_calls
    output, exit_code, imported_torch = answers[number]
    said = WRONG_CALLS[number][1]
    assert str(places.get(said, said)) in output
    assert exit_code in (1, 2)
    assert not imported_torch


def test_commands_to_go_on_with_can_be_pasted(class_folder, tmp_path):
    run = tmp_path / "my run's"
    result = edgetl("train", class_folder, "-o", run, *SMALL)
    (line,) = (line for line in result.output.splitlines() if line.startswith("Next: "))
    assert shlex.split(line.removeprefix("Next: ")) == [
        "edgetl",
        "export",
        str(run),
        "-o",
        "exported/my run's",
    ]
    again = edgetl("train", class_folder, "-o", run, *SMALL)
    assert again.exit_code == 1 and "holds a run already" in again.output
    command = train_module._how_to_resume(run, None).removeprefix("Go on with: ")
    assert shlex.split(command)[-1] == str(run)


def test_a_class_that_is_hardly_recognised_is_named_beside_the_accuracy(capsys):
    classes = [
        {"label": "cat", "recall": 0.98, "photos": 100},
        {"label": "dog\n", "recall": 0.25, "photos": 4},
    ]
    classes.append({"label": "nobody", "recall": None, "photos": 0})
    train_module._print_weakest_class({"accuracy": 0.95, "classes": classes})
    assert capsys.readouterr().out == "Weakest class: dog\\n, 25.0% of its 4 photos recognised\n"
    train_module._print_weakest_class({"accuracy": 0.34, "classes": classes})
    assert capsys.readouterr().out == ""


def test_labels_that_look_wrong_are_mentioned_where_there_are_any(tmp_path, capsys):
    classes = [{"label": "cat", "recall": 0.9, "photos": 10}]
    metrics = {"accuracy": 0.9, "accuracy_interval": (0.6, 1.0), "photos": 10, "loss": 0.1}
    metrics |= {"epoch": 0, "midway": False, "classes": classes}
    result = TrainResult(tmp_path, True, metrics, small(tmp_path))
    for is_there in (False, True):
        train_module._print_result(result, None)
        sentence = f"Some labels look wrong: edgetl data review {tmp_path}\n"
        assert (sentence in capsys.readouterr().out) is is_there
        (tmp_path / "doubtful.csv").touch()


def test_find_lr_writes_a_table_and_a_plot(class_folder, tmp_path):
    result = edgetl(
        "train", class_folder, "-o", tmp_path / "run", "--find-lr", *SMALL, "--optimizer", "sgd"
    )
    assert result.exit_code == 0, result.output
    assert "Suggested: --lr" in result.output
    rows = (tmp_path / "run/lr.csv").read_text().splitlines()
    assert rows[0] == "lr,loss" and len(rows) > 20
    assert (tmp_path / "run/lr.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run/best.safetensors").exists()


@pytest.mark.parametrize("given", [[], ["--warm-head"]])
def test_find_lr_names_no_rate_where_it_found_none(class_folder, tmp_path, monkeypatch, given):
    found = FoundRate([1e-3], [1.0], None, bool(given), tmp_path / "lr.csv", tmp_path / "lr.png")
    monkeypatch.setattr(
        "edgetl.training.engine.lr_finder.find_learning_rate", lambda *_, **__: found
    )
    result = edgetl(
        "train", class_folder, "-o", tmp_path / "run", "--find-lr", *SMALL, *given, "--lr", 3
    )
    assert (
        "hardly falls at any rate; no --lr is suggested" in result.output
        and "--lr 3" not in result.output
    )
    assert ("--no-warm-head shows" in result.output) == bool(given)


def test_help_fits_on_a_screen_and_names_the_way_to_the_rest():
    lines = edgetl("train", "--help").output.splitlines()
    assert len(lines) <= 40
    shown = {
        word.rstrip(",") for line in lines for word in line.split()[:2] if word.startswith("-")
    }
    assert {
        "-o",
        "--resume",
        "--strategy",
        "--backbone",
        "--epochs",
        "--image-size",
        "--device",
        "--help-all",
    } <= shown
    assert "--momentum" not in shown


def test_the_whole_help_shows_every_option_in_its_group():
    text = edgetl("train", "--help-all").output
    places = [
        text.index(f"\n{heading}:\n")
        for heading in ("Run", "Model", "Data", "Recipe", "Photos", "Machine")
    ]
    assert places == sorted(places)
    assert text[places[0] :].split()[1] == "-o,"
    assert "--tensorboard" in text[places[0] : places[1]] and "--seed" in text[places[-1] :]
    assert all(flag(name) in text for name in OPTIONS)


def test_ctrl_c_before_the_first_step_and_after_the_last_says_how_to_go_on(
    class_folder, tmp_path, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for what, said in (
        ("new_run.prepare_training", "The same command begins again"),
        ("epochs.finalize", f"--resume {tmp_path}/epochs.finalize"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"edgetl.training.engine.{what}", interrupted)
            stopped = edgetl("train", class_folder, "-o", tmp_path / what, *SMALL)
        assert (stopped.exit_code, said in stopped.output) == (130, True), stopped.output


def test_ctrl_c_speaks_of_the_feature_cache_where_there_is_one(class_folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgetl.training.engine.new_run.prepare_head", interrupted)
    for cache, spoken_of in ((tmp_path / "cache", True), ("off", False)):
        stopped = edgetl("train", class_folder, "-o", tmp_path / "run", "--feature-cache", cache)
        assert (stopped.exit_code, "feature cache" in stopped.output) == (130, spoken_of), (
            stopped.output
        )


def test_ctrl_c_as_soon_as_a_run_goes_on_loses_nothing_and_says_so(
    class_folder, tmp_path, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("edgetl.training.engine.epochs.finalize", interrupted)
        edgetl("train", class_folder, "-o", run, *SMALL)
    monkeypatch.setattr("edgetl.training.engine.resumed_run.find_photos", interrupted)
    stopped = edgetl("train", "--resume", run)
    assert stopped.exit_code == 130
    assert f"Go on with: edgetl train --resume {run}\n" in stopped.output
    earlier = tmp_path / "earlier"
    edgetl("train", class_folder, "-o", earlier, *SMALL)
    stopped = edgetl("train", "--resume", run, "--since", earlier)
    assert f"Go on with: edgetl train --resume {run} --since {earlier}\n" in stopped.output


def test_a_finished_run_is_told_from_one_that_never_began(class_folder, tmp_path):
    given = (
        "--backbone",
        SMALL_BACKBONE,
        "--weights",
        "none",
        "--device",
        "cpu",
        "--feature-cache",
        "off",
    )
    assert edgetl("train", class_folder, "-o", tmp_path / "run", *given).exit_code == 0
    resumed = edgetl("train", "--resume", tmp_path / "run")
    assert resumed.exit_code == 1
    assert "is finished" in resumed.output
    shown = edgetl("info", tmp_path / "run")
    assert f"edgetl export {tmp_path}/run" in shown.output


@pytest.mark.parametrize(
    ("rank", "processes", "talks"),
    [(None, None, True), ("0", "2", True), ("1", "2", False), ("1", None, True), ("1", "1", True)],
)
def test_of_torchruns_processes_one_talks(monkeypatch, rank, processes, talks):
    for name, value in (("RANK", rank), ("WORLD_SIZE", processes)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with train_module.display() as listener:
        assert (type(listener) is not Listener) == talks


@pytest.mark.parametrize("strategy", ["features", "full"])
def test_on_a_terminal_the_result_stands_in_lines_of_its_own(class_folder, tmp_path, strategy):
    given = SMALL if strategy == "full" else [*SMALL[:4], "--feature-cache", "off"]
    screen, end = pty.openpty()
    words = ["train", str(class_folder), "-o", str(tmp_path / "run"), *given]
    environment = {"COLUMNS": "110", "TERM": "xterm"}
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # EIO, once nobody writes there any more
            while part := os.read(screen, 65536):
                shown.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    code, _ = Forked(*words, environment=environment, output=os.ttyname(end)).ended()
    os.close(end)
    reader.join()
    os.close(screen)
    assert code == 0, shown.decode()
    lines = (
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().replace("\x1b[2K", "\n"))
        .replace("\r", "\n")
        .split("\n")
    )
    assert any("Decoding" in line or "Computing features" in line for line in lines)
    for beginning in ("Validation accuracy", "Checkpoint: ", "Report: ", "Next: edgetl export"):
        assert [line for line in lines if line.startswith(beginning)], shown.decode()


def test_a_terminal_that_is_closed_ends_a_run_that_goes_on_from_there(class_folder, tmp_path):
    run = tmp_path / "run"
    words = [
        "train",
        str(class_folder),
        "-o",
        str(run),
        *FRESH,
        "--epochs",
        "100000",
        "--save-every",
        "1000",
    ]
    process, screen = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup would ignore it
        os.execv(sys.executable, [sys.executable, "-m", "edgetl", *words])
    shown = b""
    while b"epoch   2" not in shown:
        shown += os.read(screen, 65536)
    os.close(screen)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert read_state(run)["train_state"]["epoch"] >= 1


def test_a_log_that_can_not_be_written_does_not_end_a_run(class_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "edgetl",
        "train",
        class_folder,
        "-o",
        tmp_path / "run",
        *FRESH,
    ]
    with Path("/dev/full").open("w") as log:
        assert (
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, check=False).returncode
            == 0
        )
    assert (tmp_path / "run/report.html").is_file()


def test_a_run_whose_photos_were_moved_goes_on_where_they_are(class_folder, tmp_path, monkeypatch):
    plain = Learner.step

    def step(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        plain(self, *arguments)

    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(class_folder, data)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", step)
        assert edgetl("train", data, "-o", run, *SMALL).exit_code == 130
    data.rename(tmp_path / "moved")
    lost = edgetl("train", "--resume", run)
    assert lost.exit_code == 1 and f"edgetl train DATA --resume {run}" in lost.output
    other = edgetl("train", class_folder.parent, "--resume", run)
    assert other.exit_code == 1
    assert edgetl("train", tmp_path / "moved", "--resume", run).exit_code == 0


def test_stopped_before_it_began_a_run_does_not_point_to_the_one_before(
    class_folder, tmp_path, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for what in (
        "epochs.finalize",
        "new_run.prepare_training",
    ):  # the first leaves a run that could go on
        with monkeypatch.context() as patch:
            patch.setattr(f"edgetl.training.engine.{what}", interrupted)
            stopped = edgetl("train", class_folder, "-o", tmp_path / "run", *SMALL, "--overwrite")
    assert "The same command begins again" in stopped.output
