"""Processes that don't start, see other files, or end: the others stop, with the right error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.forked import Forked, free_port

from edgetl.errors import TrainingError
from edgetl.training.engine import run_start
from edgetl.training.engine.agreement import Agreement
from edgetl.training.torch_env import distributed
from edgetl.training.torch_env.distributed import Processes, join

OPTIONS = [
    "--backbone",
    "timm/test_vit",
    "--weights",
    "none",
    "--strategy",
    "full",
    "--no-warm-head",
    "--device",
    "cpu",
    "--workers",
    "1",
    "--epochs",
    "2",
    "--batch-size",
    "6",
]


@pytest.fixture
def port() -> str:
    return free_port()


def machine(
    rank: int,
    count: int,
    folder: Path,
    port: str,
    *arguments: str,
    local: int = 1,
    before: Callable[[], None] | None = None,
) -> Forked:
    """Start a process in ``folder``, as if on its own machine; the first ``local`` share one."""
    on_first = rank < local
    environment = {
        "RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_RANK": rank if on_first else 0,
        "LOCAL_WORLD_SIZE": local if on_first else 1,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    words = ("train", *arguments, *OPTIONS)
    return Forked(*words, environment=environment, folder=folder, before=before)


@pytest.fixture
def machines(tmp_path: Path, class_folder: Path) -> list[Path]:
    """Two working directories with a copy of the photos in each."""
    for name in ("a", "b"):
        shutil.copytree(class_folder, tmp_path / name / "data")
    return [tmp_path / "a", tmp_path / "b"]


def test_processes_that_see_different_photos_are_an_error(machines, tmp_path, port):
    next(path for path in sorted((machines[1] / "data").rglob("*")) if path.is_file()).unlink()
    started = [
        machine(rank, 2, machines[rank], port, "data", "-o", str(tmp_path / "run"))
        for rank in range(2)
    ]
    found = [process.ended() for process in started]
    assert [code for code, _ in found] == [1, 1]
    assert all(
        "do not see the same photos" in said and "Traceback" not in said for _, said in found
    )


def test_a_run_folder_that_another_machine_does_not_see_is_an_error(machines, port):
    started = [machine(rank, 2, machines[rank], port, "data", "-o", "run") for rank in range(2)]
    found = [process.ended() for process in started]
    assert [code for code, _ in found] == [1, 1]
    assert all(
        "Not every process sees the same run" in said and "Traceback" not in said
        for _, said in found
    )
    assert not list((machines[0] / "run").iterdir())


def test_machines_may_have_different_numbers_of_processes(machines, tmp_path, port):
    """Two on the first, one on the other."""
    folders = [machines[0], machines[0], machines[1]]
    words = ("data", "-o", str(tmp_path / "run"))
    started = [machine(rank, 3, folders[rank], port, *words, local=2) for rank in range(3)]
    found = [process.ended() for process in started]
    assert [code for code, _ in found] == [0, 0, 0], found
    assert (tmp_path / "run/metrics.json").is_file()


def exit_before_the_run() -> None:
    run_start.require_seen_by_all = lambda *_: os._exit(1)


def test_a_process_reports_that_another_one_ended(machines, tmp_path, port):
    """The second process joins the first, and exits."""
    words = ("data", "-o", str(tmp_path / "run"))
    first = machine(0, 2, machines[0], port, *words)
    second = machine(1, 2, machines[1], port, *words, before=exit_before_the_run)
    code, said = first.ended()
    second.ended()
    assert code == 1 and "The connection to another process is lost" in said
    assert "Traceback" not in said and "gloo" not in said


def test_an_error_among_connected_processes_ends_the_program_at_once():
    """A thread that frees a tensor of the last exchange while Python exits may abort it."""
    connected = (
        "import atexit, sys, torch.distributed as dist; from edgetl.cli.main import main;"
        "dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1);"
        "atexit.register(print, 'Python ends.');"
        "sys.argv = ['edgetl', 'train', 'nowhere', '-o', 'run']; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", connected], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1 and found.stdout == "", found
    assert found.stderr.startswith("Error: ") and "nowhere" in found.stderr, found


def test_waiting_for_a_process_that_does_not_start_ends(monkeypatch, port):
    monkeypatch.setattr(distributed, "RENDEZVOUS_TIMEOUT", timedelta(seconds=2))
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(TrainingError, match="Not all 2 processes"), join("cpu"):
        pass


def test_all_reduce_max_in_one_process():
    assert Processes(torch.device("cpu")).all_reduce_max(True, 0.5) == [True, 0.5]


@pytest.mark.parametrize(
    ("seconds", "asked"), [(0.01, [1, 11, 21, 31]), (0.3, [1, 4, 7, 10]), (20.0, [1, 2, 3, 4])]
)
def test_processes_agree_to_stop_in_time_if_steps_are_slow(monkeypatch, seconds, asked):
    """torchrun kills what has not ended half a minute after Ctrl-C."""
    now, found = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    agreement = Agreement(SimpleNamespace(world_size=2, all_reduce_max=lambda *values: values))
    for step in range(1, 40):
        now[0] += seconds
        if agreement.is_due():
            found.append(step)
            assert agreement.exchange(True) == [True]
    assert found[: len(asked)] == asked
