"""``edgetl check``: exit codes, the checkpoint it compares with, and the files it writes."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import click
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from helpers.small_backbone import SMALL_BACKBONE
from onnx import numpy_helper
from PIL import Image
from torch import nn

from edgetl.cli.main import command
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.parity.runtimes import RUNTIMES
from edgetl.runtime.bundle.bundle_folder import MANIFEST, manifest_bytes
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.predictor import Predictor
from edgetl.training.config.run_folder import BEST
from edgetl.training.models import backbones, checkpoint

LABELS = ("cat", "dog")


@dataclass(frozen=True)
class Project:
    """A run, its export and photos, side by side as a user has them."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "pets"

    @property
    def bundle(self) -> Path:
        return self.folder / "exported" / "pets"

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def check(self, *arguments: object) -> Result:
        """``edgetl check`` on the bundle and the photos, quick unless another runtime is named."""
        options = [str(argument) for argument in arguments]
        if not {"--runtime", "--against"} & set(options):
            options += ["--runtime", "onnxruntime-cpu"]
        return CliRunner().invoke(
            command, ["check", str(self.bundle), "--images", str(self.photos), *options]
        )


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("project"))
    torch.manual_seed(1)
    backbone = backbones.build(SMALL_BACKBONE, 2, weights="none")
    spec = PreprocessSpec("shorter_side", 36, "bicubic", (32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    trained = checkpoint.Trained(backbone.module.eval(), ModelCard(LABELS, spec, SMALL_BACKBONE))
    project.run.mkdir(parents=True)
    checkpoint.save(trained, project.run / BEST)
    export_bundle(
        Deployment(trained.network, trained.card),
        project.bundle,
        golden=(),
        checkpoint=project.run / BEST,
    )
    for number in range(4):
        path = project.photos / LABELS[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (40, 50 + number, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return project.folder


@pytest.fixture
def project(exported_once: Path, tmp_path: Path) -> Project:
    shutil.copytree(exported_once, tmp_path / "project")
    return Project(tmp_path / "project")


def damage_the_model(project: Project) -> None:
    """Move every weight of the head."""
    model = onnx.load(project.bundle / "model.onnx")
    head = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == head.input[1])
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name)
    )
    onnx.save(model, project.bundle / "model.onnx")


def test_an_export_that_agrees_exits_0(project: Project) -> None:
    result = project.check()
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.stdout and "4 photos" in result.stdout


def test_an_export_that_differs_exits_1_names_the_stage_and_writes_every_report(
    project: Project,
) -> None:
    damage_the_model(project)
    files = {
        kind: project.folder / "reports" / f"check.{kind}" for kind in ("json", "junit", "html")
    }
    result = project.check(*(word for kind, path in files.items() for word in (f"--{kind}", path)))
    assert result.exit_code == 1
    assert "FAILED" in result.stdout and "model.onnx" in result.stdout
    assert "onnxruntime-cpu: logits: " in result.stdout
    values = json.loads(files["json"].read_text(encoding="utf-8"))
    assert values["passed"] is False
    assert [run["departure"] for run in values["runtimes"]] == ["logits"]
    root = ElementTree.parse(files["junit"]).getroot()
    assert int(root.attrib["failures"]) >= 2
    assert "Not the same answer" in files["html"].read_text(encoding="utf-8")


def test_a_bundle_that_cant_be_opened_exits_1_with_its_reports(project: Project) -> None:
    (project.bundle / MANIFEST).write_text("{}")
    report = project.folder / "check.xml"
    result = project.check("--junit", report)
    assert result.exit_code == 1
    assert MANIFEST in result.stdout and "nothing compared" in result.stdout
    assert ElementTree.parse(report).getroot().attrib["failures"] == "1"


def test_a_checkpoint_that_was_trained_again_is_refused(project: Project) -> None:
    file = project.run / BEST
    trained = checkpoint.load(file)
    checkpoint.save(checkpoint.Trained(trained.network, trained.card, {"epochs": 2}), file)
    result = project.check()
    assert result.exit_code == 2
    assert (
        "no longer the checkpoint that was exported" in result.output
        and "--checkpoint" in result.output
    )
    asked = project.check("--checkpoint", project.run)
    assert asked.exit_code == 0, asked.output


def test_a_bundle_that_was_written_through_a_link_knows_its_checkpoint(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    shutil.rmtree(project.bundle.parent)
    project.bundle.parent.symlink_to(tmp_path / "disk/deep")
    trained = checkpoint.load(project.run)
    export_bundle(
        Deployment(trained.network, trained.card),
        project.bundle,
        golden=(),
        checkpoint=project.run / BEST,
    )
    assert project.check().exit_code == 0
    (project.folder / "way").symlink_to(project.bundle)
    line = ["check", project.folder / "way", "--images", project.photos]
    result = CliRunner().invoke(command, [*map(str, line), "--runtime", "onnxruntime-cpu"])
    assert result.exit_code == 0, result.output


def test_a_report_that_cant_be_written_exits_1(project: Project) -> None:
    result = project.check("--json", project.bundle / "model.onnx" / "report.json")
    assert result.exit_code == 1 and "can't be written" in result.output


def test_a_report_that_cant_be_written_keeps_neither_the_others_nor_the_verdict_back(
    project: Project, tmp_path: Path
) -> None:
    result = project.check(
        "--json", project.bundle / "model.onnx" / "report.json", "--junit", tmp_path / "junit.xml"
    )
    assert result.exit_code == 1 and "can't be written" in result.output
    assert "PASSED" in result.stdout and (tmp_path / "junit.xml").is_file()


def test_a_torchscript_model_outside_the_bundle_is_not_opened(project: Project) -> None:
    manifest = json.loads((project.bundle / MANIFEST).read_text())
    shutil.copy(project.bundle / "model.ts.pt", project.folder / "other.ts.pt")
    manifest["torchscript"] = "../../other.ts.pt"
    (project.bundle / MANIFEST).write_bytes(manifest_bytes(manifest))
    result = project.check("--runtime", "torchscript")
    assert result.exit_code == 1 and "does not name it" in " ".join(result.output.split())


def test_a_missing_checkpoint_is_named(project: Project) -> None:
    shutil.move(project.run, project.folder / "elsewhere")
    result = project.check()
    assert result.exit_code == 2
    assert "gone" in result.output and "--checkpoint RUN" in result.output
    assert project.check("--checkpoint", project.folder / "elsewhere").exit_code == 0
    assert project.check("--checkpoint", project.folder / "nowhere").exit_code == 2


def test_a_bundle_that_names_no_checkpoint(project: Project) -> None:
    manifest = json.loads((project.bundle / MANIFEST).read_bytes())
    manifest["checkpoint"] = {"path": None, "sha256": None}
    (project.bundle / MANIFEST).write_bytes(manifest_bytes(manifest))
    result = project.check()
    assert result.exit_code == 2
    assert "--checkpoint RUN" in result.output


def test_a_checkpoint_of_another_network_fails(project: Project) -> None:
    other = backbones.build(SMALL_BACKBONE, 2, weights="none").module.eval()
    card = checkpoint.load(project.run).card
    with torch.no_grad():
        for parameter in other.parameters():
            nn.init.normal_(parameter, 0, 0.3)
    checkpoint.save(checkpoint.Trained(other, card), project.folder / "other.safetensors")
    assert project.check("--checkpoint", project.folder / "other.safetensors").exit_code == 1


def test_a_lone_model_needs_the_checkpoint_named(project: Project) -> None:
    lone = shutil.copy(project.bundle / "model.onnx", project.folder)
    arguments = ["check", str(lone), "--images", str(project.photos), "--runtime", "predictor"]
    assert CliRunner().invoke(command, arguments).exit_code == 2
    assert (
        CliRunner().invoke(command, [*arguments, "--checkpoint", str(project.run)]).exit_code == 0
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ("--runtime", "tflite"),
        ("--max-accuracy-drop", "1"),
        ("--images", "no/such/folder"),
        ("--precision", "fp8"),
        ("--tolerance", "-1"),
        ("--limit", "0"),
    ],
)
def test_wrong_arguments_exit_2(project: Project, wrong: tuple[str, str]) -> None:
    result = project.check(*wrong)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""


def test_reports_are_written_though_the_pipe_is_closed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("edgetl.cli.terminal.check_display.show", closed)
    project.check("--json", tmp_path / "r.json", "--runtime", "predictor")
    assert json.loads((tmp_path / "r.json").read_text())["passed"]


def test_two_reports_in_one_file_exit_2(project: Project, tmp_path: Path) -> None:
    result = project.check(
        "--json", tmp_path / "r.json", "--html", tmp_path / "../" / tmp_path.name / "r.json"
    )
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "r.json").exists()


def test_names_in_an_error_are_escaped_for_the_terminal(project: Project) -> None:
    line = ["check", str(project.bundle), "--images", "gone\x1b[31m.txt"]
    done = CliRunner().invoke(command, line, color=True)
    assert done.exit_code == 2 and "gone\\x1b[31m.txt" in done.stderr
    assert "\x1b" not in done.stderr


def test_no_photos_exits_2(project: Project) -> None:
    shutil.rmtree(project.photos)
    project.photos.mkdir()
    result = project.check()
    assert result.exit_code == 2
    assert "no photos" in result.output


@pytest.mark.parametrize("missing", ["bundle", "photos", "run"])
def test_where_nothing_can_be_compared_the_junit_file_says_why(
    project: Project, missing: str
) -> None:
    shutil.rmtree(getattr(project, missing))
    report = project.folder / "parity.xml"
    result = project.check("--junit", report)
    assert result.exit_code == 2
    suites = ElementTree.parse(report).getroot()
    assert (suites.get("tests"), suites.get("errors")) == ("1", "1")
    error = suites.find("testsuite/testcase/error")
    assert error is not None and error.get("message") in result.output


def test_output_in_a_pipe_is_not_wrapped(project: Project) -> None:
    damage_the_model(project)
    for photo in list(project.photos.rglob("*.png")):  # any may be the one that is furthest off
        photo.rename(photo.with_name(f"{'long ' * 40}{photo.name}"))
    runner = CliRunner(env={"COLUMNS": None})
    line = ["check", project.bundle, "--images", project.photos, "--runtime", "onnxruntime-cpu"]
    output = runner.invoke(command, list(map(str, line))).stdout
    (furthest,) = (row for row in output.splitlines() if row.startswith("furthest: "))
    assert "long " * 40 in furthest and "a probability off by" in furthest


def test_an_unreadable_folder_and_a_missing_package_exit_2(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: str | Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", guarded)
        closed = project.check()
    assert closed.exit_code == 2 and "Permission denied" in closed.output

    def without_torch(*_: object, **__: object) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("edgetl.parity.check_model.check", without_torch)
    missing = project.check()
    assert (
        missing.exit_code == 2
        and "edgetl check needs the extra train; torch is not installed" in missing.output
    )


def test_a_missing_model_exits_2(project: Project, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for line in (
        [project.bundle, "--precision", "int8"],
        [tmp_path / "none"],
        [project.bundle, "--against", tmp_path / "none"],
        [project.bundle, "--against", project.bundle, "--precision", "int8"],
    ):
        done = CliRunner().invoke(
            command, ["check", *map(str, line), "--images", str(project.photos)]
        )
        assert (done.exit_code, done.stdout) == (2, ""), done.output


def test_a_requested_runtime_that_cant_run_exits_1(project: Project) -> None:
    result = project.check("--runtime", "onnxruntime-cuda", "--runtime", "onnxruntime-cpu")
    assert result.exit_code == 1
    assert "onnxruntime-cuda" in result.stdout


def test_limit_and_tolerance(project: Project) -> None:
    result = project.check("--limit", 2, "--tolerance", 0.01)
    assert result.exit_code == 0
    assert "2 photos" in result.stdout and "tolerance 0.01" in result.stdout


def test_against_another_bundle_needs_no_checkpoint(project: Project) -> None:
    shutil.copytree(project.bundle, project.folder / "exported" / "new")
    shutil.rmtree(project.run)
    report = project.folder / "against.html"
    result = project.check(
        "--against", project.folder / "exported" / "new", "--max-accuracy-drop", 0, "--html", report
    )
    assert result.exit_code == 0, result.output
    assert "agreement 100.00%" in result.stdout
    assert "accuracy, old → new" in report.read_text(encoding="utf-8")
    assert project.check("--against", project.bundle, "--runtime", "predictor").exit_code == 2


def test_against_a_worse_bundle_exits_1(project: Project) -> None:
    """The same network with its labels swapped, on photos in folders named by the old one."""
    trained, worse = checkpoint.load(project.run), project.folder / "worse"
    export_bundle(
        Deployment(trained.network, replace(trained.card, labels=LABELS[::-1])), worse, golden=()
    )
    predictor = Predictor(project.bundle)
    for photo in list(project.photos.rglob("*.png")):
        target = project.folder / "sorted" / predictor(photo).label / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, target)
    line = ["check", worse, "--against", project.bundle, "--images", project.folder / "sorted"]
    results = [
        CliRunner().invoke(command, [*map(str, line), "--max-accuracy-drop", limit])
        for limit in ("99", "100")
    ]
    assert [result.exit_code for result in results] == [1, 0]
    assert "100.00 points lost, 99 allowed" in results[0].stdout


def test_against_with_a_tolerance_limits_the_probabilities(project: Project) -> None:
    """The same network at another temperature: every label stays, every probability moves."""
    trained = checkpoint.load(project.run)
    other, report = project.folder / "other", project.folder / "check.json"
    export_bundle(
        Deployment(trained.network, replace(trained.card, temperature=2.0)), other, golden=()
    )
    line = ["check", other, "--against", project.bundle, "--images", project.photos]
    for limit, passed in (("1e-9", False), ("1", True)):
        options = ["--json", str(report), "--tolerance", limit]
        result = CliRunner().invoke(command, [*map(str, line), *options])
        assert result.exit_code == (0 if passed else 1), result.output
        gates = {
            gate["name"]: gate["passed"]
            for gate in json.loads(report.read_text(encoding="utf-8"))["gates"]
        }
        assert gates == {"photos": True, "probabilities": passed}


@pytest.mark.parametrize("which", ["new", "old"])
def test_against_a_damaged_bundle_is_a_failure_with_its_reports(
    project: Project, which: str
) -> None:
    whole = shutil.copytree(project.bundle, project.folder / "whole")
    damage_the_model(project)
    pair = (project.bundle, whole) if which == "new" else (whole, project.bundle)
    files = {kind: project.folder / f"check.{kind}" for kind in ("json", "junit", "html")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    line = ["check", pair[0], "--against", pair[1], "--images", project.photos, *options]
    result = CliRunner().invoke(command, list(map(str, line)))
    assert result.exit_code == 1, result.output
    assert "FAILED  nothing compared" in result.stdout and "agreement" not in result.stdout
    assert (
        "model.onnx" in json.loads(files["json"].read_text(encoding="utf-8"))["gates"][0]["message"]
    )
    assert 'failures="1"' in files["junit"].read_text(encoding="utf-8")
    page = files["html"].read_text(encoding="utf-8")
    assert "Nothing could be compared" in page and "nan" not in page and "model.onnx" in page


def test_a_lone_model_has_the_tolerance_of_the_given_precision(project: Project) -> None:
    model = str(project.bundle / "model.onnx")
    line = ["check", model, "--checkpoint", str(project.run), "--images", str(project.photos)]
    float32, int8 = (
        CliRunner().invoke(command, [*line, "--runtime", "predictor", *more])
        for more in ([], ["--precision", "int8"])
    )
    assert "fp32, tolerance 0.0001" in float32.stdout and "int8, tolerance 0.25" in int8.stdout


def test_the_help_names_every_runtime(project: Project) -> None:
    text = CliRunner().invoke(command, ["check", "--help"]).stdout
    words = set(
        re.split(r"[\s,.]+", re.sub(r"-\s+", "-", text))
    )  # a name may be broken at its hyphen
    assert {name for name, kind in RUNTIMES.items() if kind.judged} <= words
    context = click.Context(command)
    check = command.get_command(context, "check")
    assert check is not None
    assert all(isinstance(option, click.Argument) or option.help for option in check.params)
