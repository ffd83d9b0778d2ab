"""Two processes under torchrun train what one does at the same global batch; on CPUs, over gloo."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.forked import Forked, free_port
from helpers.photo_samples import cut_short
from helpers.training_runs import signal_in_step, small, train, weights_of
from torch.distributed.run import main as torchrun

from edgetl.data.image_folder import scan
from edgetl.errors import RuntimeUnavailableError, TrainingError
from edgetl.training.config.listener import Listener, RecordingListener
from edgetl.training.config.option import flag
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_context import RunContext
from edgetl.training.engine import run_backbone
from edgetl.training.engine.lr_finder import find_learning_rate
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.engine.train_state import read_state
from edgetl.training.engine.training_setup import prepare_training
from edgetl.training.evaluation.validation import Validation, scores
from edgetl.training.head.head_preparation import KnownPhotos
from edgetl.training.input.sampler import Sampler
from edgetl.training.models import checkpoint
from edgetl.training.models.backbone import Backbone
from edgetl.training.torch_env.distributed import Processes, choose_device, join

# A network with batch norm, whose statistics several processes on CPUs leave as they are.
OPTIONS: dict[str, Any] = {
    "backbone": "timm/test_resnet",
    "weights": "none",
    "image_size": 64,
    "strategy": "full",
    "warm_head": False,
    "norm_statistics": False,
    "device": "cpu",
    "workers": 1,
    "epochs": 2,
    "batch_size": 6,
    "optimizer": "sgd",
    "lr": 0.05,
    "class_weights": True,
    "mixup": 0.4,
    "cutmix": 0.5,
    "accumulate": 2,
    "clip": 1.0,
    "tensorboard": True,
}


def as_arguments(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        words += (
            [flag(name) if value else "--no-" + flag(name)[2:]]
            if isinstance(value, bool)
            else [flag(name), str(value)]
        )
    return words


def run_two(*arguments: str) -> str:
    """``edgetl`` in two processes with the variables that torchrun sets → what the first says."""
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    started = [
        Forked(
            *arguments,
            environment={
                **address,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": 2,
                "LOCAL_WORLD_SIZE": 2,
            },
        )
        for rank in range(2)
    ]
    found = [process.ended() for process in started]
    assert [code for code, _ in found] == [0, 0], found
    return found[0][1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, class_folder: Path) -> Path:
    """A run by one process and the same by two; batches and photos that don't divide evenly."""
    pair = tmp_path_factory.mktemp("pair")
    train(resolve(class_folder, OPTIONS, cuda=False), pair / "one")
    said = run_two("train", str(class_folder), "-o", str(pair / "two"), *as_arguments(OPTIONS))
    assert "Warning" not in said
    return pair


def test_the_weights_are_the_same_within_rounding(runs):
    one, two = weights_of(runs / "one"), weights_of(runs / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)


def test_batch_norm_over_processes_on_cpus_is_refused_before_photos_are_decoded(
    class_folder, tmp_path
):
    settings = resolve(class_folder, OPTIONS | {"norm_statistics": True}, cuda=False)
    folders = scan(class_folder)
    together = Processes(torch.device("cpu"), world_size=2)

    def prepare(backbone: str) -> None:
        network = build_backbone(
            replace(settings, backbone=backbone), folders.classes, processes=together
        )
        context = RunContext(settings, tmp_path, together, RecordingListener(Listener()), 0.0)
        prepare_training(context, folders, network, KnownPhotos(folders))

    with pytest.raises(TrainingError, match="on GPUs only") as refused:
        prepare("timm/test_resnet")
    assert "--no-norm-statistics" in refused.value.hint
    with pytest.raises(ValueError, match="process group"):  # without batch norm, it goes on
        prepare("timm/test_vit")


def test_new_and_resumed_runs_and_the_search_for_a_rate_share_batch_norm(
    two_parts, tmp_path, monkeypatch
):
    def share(backbone: Backbone, processes: Processes) -> Backbone:
        raise TrainingError(f"batch norm over {processes.world_size}")

    settings = small(two_parts, norm_statistics=True, epochs=1)
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    train(settings, tmp_path / "run")
    monkeypatch.setattr(run_backbone, "sync_batch_norm", share)
    for begin in (
        lambda: train(settings, tmp_path / "new"),
        lambda: resume(tmp_path / "run"),
        lambda: find_learning_rate(settings, tmp_path / "rates", scan(two_parts)),
    ):
        with pytest.raises(TrainingError, match="batch norm over 1"):
            begin()


def test_metrics_are_over_all_processes_each_photo_once(runs):
    one, two = (json.loads((runs / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["photos"] == two["photos"] == 15
    assert one["accuracy"] == two["accuracy"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    rows = [
        list(csv.DictReader((runs / name / "history.csv").read_text().splitlines()))
        for name in ("one", "two")
    ]
    for mine, theirs in zip(*rows, strict=True):
        assert float(mine["train_loss"]) == pytest.approx(float(theirs["train_loss"]), rel=1e-3)
        assert mine["train_accuracy"] == theirs["train_accuracy"]


def test_damaged_photos_in_any_process_are_left_out_of_validation(tmp_path, class_folder):
    """Two processes on a folder with them are as one on a folder without."""
    data = shutil.copytree(class_folder / "train", tmp_path / "data")
    whole = scan(data)
    assert len(whole.val) == 6
    lost = [whole.val[row].path for row in (0, 1, 3)]  # of both shares
    for path in lost:
        cut_short(path, data)
    sound = whole.without(dict.fromkeys(lost, "cut short"))
    options = {**OPTIONS, "epochs": 1, "accumulate": 1, "tensorboard": False}
    train(resolve(data, options, cuda=False), tmp_path / "one", folders=sound)
    run_two("train", str(data), "-o", str(tmp_path / "two"), *as_arguments(options))
    one, two = (
        list(csv.DictReader((tmp_path / name / "validation.csv").read_text().splitlines()))
        for name in ("one", "two")
    )
    assert len(one) == 3
    assert {row["file"]: (row["label"], row["answer"]) for row in one} == {
        row["file"]: (row["label"], row["answer"]) for row in two
    }
    surely = [{row["file"]: float(row["confidence"]) for row in rows} for rows in (one, two)]
    assert surely[0] == pytest.approx(surely[1], abs=1e-4)


def test_one_process_writes(runs):
    names = [{path.name for path in (runs / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1]
    assert len(list((runs / "two/tensorboard").iterdir())) == 1


def test_a_run_of_two_processes_can_be_looked_at_by_one(runs):
    state = read_state(runs / "two")["train_state"]
    assert state["finished"] and state["epoch"] == 2
    with pytest.raises(Exception, match="is finished"):
        resume(runs / "two")


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize(
    ("photos", "batch", "processes"), [(20, 6, 2), (21, 8, 3), (13, 4, 1), (5, 64, 2), (27, 8, 3)]
)
def test_the_shares_of_all_processes_are_the_batch(photos, batch, processes, least):
    sampler = Sampler([0] * photos, batch, 3, processes=processes, min_per_process=least)
    seen = []
    for number in range(sampler.batches):
        shards = [sampler.shard(1, number, rank) for rank in range(processes)]
        assert np.array_equal(
            np.concatenate([shard.indices for shard in shards]), sampler.whole(1, number)
        )
        assert min(len(shard.indices) for shard in shards) >= least
        seen += sampler.whole(1, number).tolist()
    assert len(set(seen)) == len(seen) > photos - least * processes


def test_the_steps_of_an_epoch_take_all_its_photos():
    for sampler in (
        Sampler([0] * 21, 4, 0, accumulate=2),
        Sampler([0] * 21, 4, 0, accumulate=2, min_per_process=2),
    ):
        taken = [sampler.of_step(step) for step in range(sampler.steps)]
        assert sum(batches for batches, _ in taken) == sampler.batches
        assert sum(photos for _, photos in taken) == sum(
            len(sampler.whole(0, number)) for number in range(sampler.batches)
        )


def test_every_epoch_has_its_own_order_whatever_was_drawn_before():
    one, other = Sampler(range(10), 4, 5), Sampler(range(10), 4, 5)
    for epoch in (3, 0, 2):
        other.whole(epoch, 0)
    assert np.array_equal(one.whole(2, 1), other.whole(2, 1))
    assert not np.array_equal(one.whole(1, 0), one.whole(2, 0))


def test_balanced_batches_draw_each_class_equally_often():
    labels = [0] * 900 + [1] * 100
    sampler = Sampler(labels, 50, 0, balanced=True)
    drawn = np.concatenate(
        [
            sampler.labels[sampler.whole(epoch, n)]
            for epoch in range(4)
            for n in range(sampler.batches)
        ]
    )
    assert abs(drawn.mean() - 0.5) < 0.03


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "meta", "cpu:x"])
def test_a_device_that_is_not_here_is_an_error(name):
    with pytest.raises(RuntimeUnavailableError):
        choose_device(name)


def test_two_processes_stop_together_and_resume_with_the_same_result(runs, tmp_path, class_folder):
    """Each gets SIGTERM in the middle of an epoch, at its own step, and again from torchrun."""
    stopping = tmp_path / "stopping.py"
    stopping.write_text(STOPPING)
    options = as_arguments(OPTIONS | {"tensorboard": False})
    words = ["train", str(class_folder), "-o", str(tmp_path / "run"), *options]
    two = ["--standalone", "--nproc-per-node", "2"]
    stopped = Forked(*two, str(stopping), *words, program=torchrun)
    code, said = stopped.ended()
    assert code != 0
    assert "edgetl train --resume" in said
    standing = read_state(tmp_path / "run")["train_state"]
    assert not standing["finished"]
    run_two("train", "--resume", str(tmp_path / "run"))
    whole, resumed = weights_of(runs / "two"), weights_of(tmp_path / "run")
    for key in whole:
        torch.testing.assert_close(whole[key], resumed[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_all_processes_judge_the_network_that_is_kept(class_folder, tmp_path, ema):
    changes = {"epochs": 1, "tensorboard": False, "ema": ema}
    run_two("train", str(class_folder), "-o", str(tmp_path), *as_arguments(OPTIONS | changes))
    (row,) = csv.DictReader((tmp_path / "history.csv").read_text().splitlines())
    kept = checkpoint.load(tmp_path)
    folders = scan(class_folder)
    validation = Validation(
        folders.val, kept.card.spec, Processes(torch.device("cpu")), tmp_path, threads=1
    )
    alone = scores(validation.logits(kept.network), validation.labels)
    assert float(row["val_loss"]) == pytest.approx(alone.loss, rel=1e-5)
    assert float(row["val_accuracy"]) == alone.accuracy


STOPPING = """
import os, signal
from edgetl.cli.main import main
from edgetl.training.engine.learner import Learner

plain, steps = Learner.step, 0


def step(self, *arguments):
    global steps
    steps += 1
    if steps == 1 + int(os.environ["RANK"]):
        signal.raise_signal(signal.SIGTERM)
    plain(self, *arguments)


Learner.step = step
main()
"""


def test_a_world_size_that_is_not_a_number_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(RuntimeUnavailableError, match="WORLD_SIZE is 'many'"), join("cpu"):
        pass


def test_what_the_main_process_computes_or_raises_is_known_to_all():
    refused = TrainingError("nothing fits")

    class Other(Processes):
        """A second process; the first one found ``result``, or failed."""

        result: tuple[Any, Any] = (None, None)

        def all_gather(self, value):
            return [self.result, value]

    def compute():
        raise AssertionError("in the main process alone")

    other = Other(torch.device("cpu"), rank=1, world_size=2)
    Other.result = ("found", None)
    assert other.from_main(compute) == "found"
    Other.result = (None, refused)
    with pytest.raises(TrainingError, match="nothing fits"):
        other.from_main(compute)

    def refuse():
        raise refused

    alone = Processes(torch.device("cpu"))
    assert alone.from_main(lambda: 3) == 3
    with pytest.raises(TrainingError, match="nothing fits"):
        alone.from_main(refuse)
