"""A run without epochs that is killed while it writes its files mixes nothing, and is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.killed_writes import content, killed_at
from helpers.pictures import COLOURS, write_photo
from helpers.training_runs import features_of, small, train

from edgetl.cli.main import command as program
from edgetl.errors import CheckpointError, RuntimeUnavailableError, TrainingError
from edgetl.exporting.export_run import export
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import (
    BEST,
    LAST,
    METRICS,
    REPORT,
    is_resumable,
    metrics_belong,
    require_free,
    unfinished_head,
)
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine import finalize as finalize_module
from edgetl.training.engine import new_run
from edgetl.training.engine.resumed_run import resume
from edgetl.training.evaluation.report import ReportData
from edgetl.training.head.head_preparation import PreparedHead
from edgetl.training.models import checkpoint

# Of the files of a run without epochs, those that hold no time.
SAME_BITS = (BEST, METRICS, "validation.csv")


def write_line(folder: Path, data: ReportData) -> None:
    """In place of the report, whose drawings take a second."""
    write_atomically(folder / REPORT, lambda path: path.write_text(f"{data.seconds}"))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Build one backbone and fit each head once for all tests, and write a report of one line."""
    with pytest.MonkeyPatch.context() as patch:
        prepare, build = new_run.prepare_head, cache(new_run.build_backbone)
        heads: dict[Path, PreparedHead] = {}

        def once(context, backbone, folders):
            if folders.root not in heads:
                heads[folders.root] = prepare(context, backbone, folders)
            return heads[folders.root]

        patch.setattr(new_run, "prepare_head", once)
        patch.setattr(new_run, "build_backbone", build)
        patch.setattr(finalize_module, "write_report", write_line)
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Of a run without epochs."""
    data = tmp_path_factory.mktemp("data")
    for label in ("ash", "brick"):
        for number in range(10):
            part = "train" if number < 6 else "val"
            write_photo(data / part / label / f"{number}.png", COLOURS[label], number)
    return features_of(data)


@pytest.fixture(scope="module")
def whole(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(settings, folder)
    return content(folder)


def killed(settings: TrainSettings, run: Path, step: int, *, overwrite: bool = False) -> bool:
    """Whether the run died at that step; else it was done before."""
    with killed_at(step) as steps:
        train(settings, run, overwrite=overwrite)
    return len(steps) >= step


def killed_before_its_report(settings: TrainSettings, run: Path) -> None:
    """Leave a run with nothing but its weights."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(finalize_module, "write_report", lambda *_: 1 / 0)
        train(settings, run)
    assert set(content(run)) == {BEST}


def has_same_bits(run: Path, whole: dict[str, bytes]) -> bool:
    found = content(run)
    return set(found) == set(whole) and all(found[name] == whole[name] for name in SAME_BITS)


@pytest.mark.parametrize("way", ["same command", "resume"])
def test_a_run_killed_at_any_step_is_finished_with_the_same_bits(
    settings: TrainSettings, whole: dict[str, bytes], tmp_path: Path, way: str
) -> None:
    resumed = 0
    for step in range(1, 100):
        run = tmp_path / f"run{step}"
        died = killed(settings, run, step)
        if way == "resume" and is_resumable(run):
            resumed += 1
            assert resume(run).finished
        elif (run / METRICS).exists():  # it died after its last file, or not at all
            assert not died or step > 10
        else:
            assert train(settings, run).finished
        assert has_same_bits(run, whole), step
        assert [path.name for path in run.iterdir() if path.name[0] == "."] == []
        if not died:
            break
    assert not died and step > 10
    assert resumed > 5 or way != "resume"


@pytest.mark.parametrize("earlier", ["features", "epochs"])
def test_replacing_a_run_mixes_nothing_at_whatever_step_it_is_killed(
    settings: TrainSettings, whole: dict[str, bytes], tmp_path: Path, earlier: str
) -> None:
    old = tmp_path / "old"
    train(
        replace(settings, seed=1)
        if earlier == "features"
        else small(Path(settings.data), epochs=1),
        old,
    )
    before = content(old)
    for step in range(1, 100):
        run = Path(shutil.copytree(old, tmp_path / f"run{step}"))
        died = killed(settings, run, step, overwrite=True)
        found = content(run)
        weights = checkpoint.load(run)  # at no time is there none
        if METRICS in found:
            assert metrics_belong(run, weights.card.to_dict()), step
            assert found[METRICS] == (whole if found[BEST] == whole[BEST] else before)[METRICS]
            assert train(settings, run, overwrite=True).finished
        elif found[BEST] == whole[BEST]:
            # Nothing of the earlier run is beside the new weights, and resuming finishes the new.
            assert LAST not in found and found.get(REPORT) != before[REPORT], step
            assert resume(run).finished
        else:
            assert found[BEST] == before[BEST]
            assert train(settings, run, overwrite=True).finished
        assert has_same_bits(run, whole), step
        if not died:
            break
    assert not died and step > 10


def test_other_settings_do_not_replace_an_unfinished_run_by_accident(
    settings: TrainSettings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed_before_its_report(settings, run)
    before = content(run)
    with pytest.raises(CheckpointError, match="holds a run already") as refused:
        train(replace(settings, seed=1), run)
    assert "--resume" in str(refused.value.hint) and "--overwrite" in str(refused.value.hint)
    with pytest.raises(CheckpointError, match="holds a run already"):
        require_free(run, overwrite=False)  # as edgetl import asks
    assert content(run) == before
    train(replace(settings, seed=1), run, overwrite=True)


def test_an_unfinished_run_is_not_finished_on_other_photos(
    settings: TrainSettings, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    moved = replace(settings, data=str(shutil.copytree(settings.data, data)))
    killed_before_its_report(moved, run)
    before = content(run)
    (data / "train/ash/5.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new_run, "prepare_head", without_photo(data / "train/ash/5.png"))
        for finish in (partial(train, moved), resume):
            with pytest.raises(TrainingError, match="have changed since the run began"):
                finish(run)
            assert content(run) == before


def without_photo(photo: Path):
    """``prepare_head``, as if a head had been fitted without that photo."""
    prepare = new_run.prepare_head

    def prepare_without(context, backbone, folders):
        prepared = prepare(context, backbone, folders)
        return replace(prepared, folders=prepared.folders.without({photo: "gone"}))

    return prepare_without


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_command_finishes_a_run_that_was_killed(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Also where the settings depend on a device that is not known before torch is imported."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run, settings = tmp_path / "run", replace(settings, device=device)
    train(settings, tmp_path / "whole")
    killed_before_its_report(settings, run)
    given = ["--backbone", settings.backbone, "--weights", "none", "--feature-cache", "off"]
    given += ["--resize", settings.resize, "--device", device]
    line = ["train", settings.data, "-o", str(run), *given]
    done = CliRunner().invoke(program, line)
    assert done.exit_code == 0, done.output
    assert has_same_bits(run, content(tmp_path / "whole"))
    again = CliRunner().invoke(program, line)
    assert again.exit_code == 1 and "holds a run already" in again.output


def test_a_device_that_is_not_there_is_named_before_the_photos_are_looked_at(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    killed_before_its_report(settings, run)
    monkeypatch.setattr("edgetl.training.engine.resumed_run.find_photos", None)
    with pytest.raises(RuntimeUnavailableError, match="cuda:99 is not one of them"):
        resume(run, device="cuda:99")


def test_a_run_whose_weights_were_replaced_under_its_metrics_is_recognised(
    settings: TrainSettings, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """As an earlier version left them when it was killed."""
    run = tmp_path / "run"
    train(settings, run)
    metrics = json.loads(whole[METRICS])
    (run / METRICS).write_text(json.dumps({**metrics, "loss": metrics["loss"] + 1}))
    result = export(run, tmp_path / "bundle", golden=0, format="torchscript")
    assert any("of other weights" in said and "--resume" in said for said in result.warnings)
    assert unfinished_head(run) is not None
    assert resume(run).finished
    assert has_same_bits(run, whole)
    assert export(run, tmp_path / "bundle", golden=0, format="torchscript").warnings == ()


def test_exporting_an_unfinished_run_says_how_to_finish_it(
    settings: TrainSettings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed_before_its_report(settings, run)
    (warning,) = export(run, tmp_path / "bundle", golden=0, format="torchscript").warnings
    assert "is not finished" in warning and f"--resume {run}" in warning
