"""``start_run``: one run at a time in a process, whose torch is afterwards as it was."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

import torch

from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.run_start import start_run

CPU = TrainSettings(data="photos", device="cpu")


def flags() -> tuple[int, int, bool]:
    return (
        torch.initial_seed(),
        torch.get_deterministic_debug_mode(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_a_run_waits_for_that_of_another_thread(tmp_path: Path) -> None:
    before, began = flags(), time.monotonic()
    entered: list[float] = []

    def train() -> None:
        with start_run(CPU, tmp_path / "other", None, began) as context:
            entered.append(context.started)
            torch.manual_seed(5)

    other = Thread(target=train)
    with start_run(CPU, tmp_path / "one", None, began) as context:
        torch.manual_seed(4)
        other.start()
        other.join(0.2)
        assert other.is_alive() and not entered
        with start_run(CPU, tmp_path / "within", None, began):  # by the same thread
            torch.manual_seed(6)
        assert torch.initial_seed() == 4
    other.join()
    assert entered[0] > context.started  # the time that it may take begins after its wait
    assert flags() == before
