"""``edgetl.import_network``: files and modules that were trained elsewhere become runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.killed_writes import content, killed_at
from helpers.tiny_network import CROPPED, LABELS, tiny_network
from safetensors.torch import save_file
from torch import Tensor, nn

from edgetl.errors import CheckpointError, DataError, SpecError, TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.run_folder import BEST, LAST, METRICS
from edgetl.training.importing.description import read_labels
from edgetl.training.importing.import_result import ImportResult
from edgetl.training.importing.import_run import import_network
from edgetl.training.models.checkpoint import load
from edgetl.training.torch_env.vision_libraries import models, timm

TIMM = "timm/test_resnet"
TORCHVISION = "shufflenet_v2_x0_5"  # its smallest network whose classifier is one linear layer, fc
SMALL = {"size": 36, "crop": 32}
PICTURES = torch.randn(3, 3, 31, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def torchvision_network() -> nn.Module:
    torch.manual_seed(1)
    return models.get_model(TORCHVISION, num_classes=3).eval()


@pytest.fixture(scope="module")
def timm_network() -> nn.Module:
    torch.manual_seed(2)
    return timm.create_model("test_resnet", num_classes=3).eval()


def answers(network: nn.Module, pictures: Tensor = PICTURES) -> Tensor:
    with torch.no_grad():
        return network(pictures)


def imported(network: Any, tmp_path: Path, **options: Any) -> ImportResult:
    options = {"labels": LABELS, "spec": CROPPED, "out": tmp_path / "run", **options}
    return import_network(network, **options)


class WithProbabilities(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.network, self.scale = tiny_network(), scale

    def forward(self, normalized: Tensor) -> Tensor:
        return torch.softmax(self.scale * self.network(normalized), dim=1)


# Weights of named architectures


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_of_torchvision_keeps_its_classifier(torchvision_network, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = torchvision_network.state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    result = imported(path, tmp_path, spec=SMALL, backbone=TORCHVISION)
    trained = load(result.folder)
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        answers(trained.network, pictures), answers(torchvision_network, pictures)
    )
    assert not isinstance(trained.network, torch.jit.ScriptModule)
    assert (trained.card.labels, trained.card.backbone) == (LABELS, TORCHVISION)
    assert trained.card.spec == result.spec
    assert (result.spec.size, result.spec.crop) == (36, (32, 32))
    assert result.spec.mean == (0.485, 0.456, 0.406)  # as published
    assert (result.metrics, result.warnings) == ({}, ())
    assert not (result.folder / METRICS).exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "net."])
def test_wrapped_weights_of_timm_are_found(timm_network, tmp_path, wrapper, prefix):
    state = {prefix + name: value for name, value in timm_network.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    result = imported(tmp_path / "w.pth", tmp_path, spec=None, backbone=TIMM)
    pictures = torch.randn(2, 3, 160, 160)
    network = load(result.folder).network
    torch.testing.assert_close(answers(network, pictures), answers(timm_network, pictures))


def test_a_classifier_behind_dropout_is_taken_and_said(torchvision_network, tmp_path):
    state = {
        name.replace("fc.", "fc.1."): value
        for name, value in torchvision_network.state_dict().items()
    }  # as model.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 3)) names it
    torch.save(state, tmp_path / "w.pth")
    result = imported(tmp_path / "w.pth", tmp_path, spec=SMALL, backbone=TORCHVISION)
    assert any("fc.1" in note for note in result.notes)
    network = load(result.folder).network
    assert torch.equal(network.fc.weight, torchvision_network.fc.weight)


def test_a_classifier_of_several_layers_is_refused(torchvision_network, tmp_path):
    state = {
        name.replace("fc.", "fc.0."): value
        for name, value in torchvision_network.state_dict().items()
    } | {
        "fc.2.weight": torch.zeros(3, 3),
        "fc.2.bias": torch.zeros(3),
    }
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="not the one layer fc") as caught:
        imported(tmp_path / "w.pth", tmp_path, spec=SMALL, backbone=TORCHVISION)
    assert "torch.jit.script" in str(caught.value.hint)


def test_weights_without_a_classifier_are_for_training(torchvision_network, tmp_path):
    state = {
        name: value for name, value in torchvision_network.state_dict().items() if "fc." not in name
    }
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"no tensor fc\.weight") as caught:
        imported(tmp_path / "w.pth", tmp_path, backbone=TORCHVISION)
    assert "edgetl train DATA" in str(caught.value.hint)


def test_another_architecture_is_named_with_the_tensors(tmp_path):
    torch.save(models.resnet18(num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"missing layer1\.0\.conv3\.weight") as caught:
        imported(tmp_path / "w.pth", tmp_path, backbone="resnet50")
    assert "--backbone resnet18" in str(caught.value.hint)
    with pytest.raises(TrainingError, match="not the network that they belong to"):
        imported(tmp_path / "w.pth", tmp_path)


def test_a_classifier_that_is_one_number_is_none(tmp_path):
    torch.save({"fc.weight": torch.tensor(1.0)}, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="does not fit this backbone"):
        imported(tmp_path / "w.pth", tmp_path, spec=SMALL, backbone=TORCHVISION)


def test_options_of_lists_are_refused_without_photos(tmp_path):
    with pytest.raises(DataError, match="--columns: no effect, without a list of photos"):
        imported(tiny_network(), tmp_path, columns={"path": "file"})


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d")])
def test_another_number_of_labels_is_refused(torchvision_network, tmp_path, labels):
    torch.save(torchvision_network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=f"3 classes apart; {len(labels)} labels"):
        imported(tmp_path / "w.pth", tmp_path, labels=labels, backbone=TORCHVISION)
    with pytest.raises(TrainingError, match=f"3 classes apart; {len(labels)} labels"):
        imported(tiny_network(), tmp_path, labels=labels)
    assert not (tmp_path / "run").exists()


def test_a_state_dict_in_memory_is_refused_with_what_to_do(torchvision_network, tmp_path):
    with pytest.raises(TypeError, match="load the state dict into its module"):
        import_network(torchvision_network.state_dict(), ["ash", "brick"], out=tmp_path / "run")


def test_a_pickled_network_is_refused_and_never_unpickled(tmp_path):
    torch.save(tiny_network(), tmp_path / "whole.pth")
    with pytest.raises(TrainingError, match=r"TinyNetwork.*could run any code") as caught:
        imported(tmp_path / "whole.pth", tmp_path, backbone=TORCHVISION)
    assert "model.state_dict()" in str(caught.value.hint)
    assert "torch.jit.script" in str(caught.value.hint)


def test_a_run_is_not_imported_again(tmp_path):
    result = imported(tiny_network(), tmp_path)
    (result.folder / LAST).write_bytes(b"the state of a run that trains")
    for source in (result.folder, result.folder / BEST, result.folder / LAST):
        with pytest.raises(TrainingError, match="is a run of edgetl") as caught:
            imported(source, tmp_path, out=tmp_path / "other")
        assert "edgetl export" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["missing.pth", ".", "model.onnx"])
def test_what_is_no_file_of_pytorch_is_named(tmp_path, name):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(TrainingError, match="is not a file of PyTorch"):
        imported(tmp_path / name, tmp_path, backbone=TORCHVISION)


# TorchScript


@pytest.mark.parametrize("convert", ["script", "trace"])
@pytest.mark.parametrize("with_softmax", [False, True])
def test_torchscript_with_and_without_softmax(tmp_path, convert, with_softmax):
    network = WithProbabilities().eval() if with_softmax else tiny_network()
    program = (
        torch.jit.script(network) if convert == "script" else torch.jit.trace(network, PICTURES[:2])
    )
    program.save(tmp_path / "network.pt")
    result = imported(tmp_path / "network.pt", tmp_path)
    trained = load(result.folder)
    assert isinstance(trained.network, torch.jit.ScriptModule)
    assert trained.card.backbone == f"torchscript/{type(network).__name__}"
    expected = answers(network)
    if with_softmax:
        torch.testing.assert_close(answers(trained.network).softmax(1), expected)
        assert ["softmax" in note for note in result.notes] == [True]
    else:
        torch.testing.assert_close(answers(trained.network), expected)
        assert result.notes == ()


def test_a_softmax_that_hides_the_logits_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="rounds probabilities to 0"):
        imported(WithProbabilities(scale=1000.0), tmp_path)


def test_a_damaged_torchscript_file_is_named(tmp_path):
    path = tmp_path / "network.pt"
    torch.jit.script(tiny_network()).save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"running_mean", b"runnning_mea"))
    with pytest.raises(TrainingError, match=r"network\.pt"):
        imported(path, tmp_path)


# Modules


class HasLogits(nn.Module):
    """Like a classifier of Hugging Face: its logits are a field of what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_network()

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(logits=self.network(pixel_values), loss=None)


class Pair(HasLogits):
    """Like a classifier of Ultralytics: probabilities and logits."""

    def forward(self, x: Tensor) -> Any:
        logits = self.network(x)
        return logits.softmax(1), logits


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found = self.network(x)
        return found[1] if isinstance(found, tuple) else found.logits


@pytest.mark.parametrize("kind", [HasLogits, Pair])
def test_the_classifiers_of_other_libraries_are_wrapped(tmp_path, kind):
    with pytest.raises(TrainingError, match="not one tensor of logits") as caught:
        imported(kind(), tmp_path)
    assert "network(x).logits" in str(caught.value.hint)
    result = imported(Wrapped(kind()), tmp_path)
    network = load(result.folder).network
    torch.testing.assert_close(answers(network), answers(tiny_network()))


def test_a_module_is_not_changed(tmp_path):
    network = tiny_network().double().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    imported(network, tmp_path)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class OtherThings(nn.Module):
    """Does what the test says with a tiny network's logits."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.network, self.what = tiny_network(), what

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        if self.what == "batch":
            return logits - logits.mean(0)
        if self.what == "chance":
            return logits + torch.rand(1)
        if self.what == "nan":
            return logits / 0 - logits / 0
        if self.what == "features":
            return logits[:, :, None, None]
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("batch", "depend on the other photos of the batch"),
        ("chance", "another answer each time"),
        ("nan", "not finite"),
        ("features", r"float32 \[5, 3, 1, 1\], not with float32 \[5, classes\]"),
        ("size", "can't answer 5 photos of 31×32 pixels: mat1 and mat2"),
    ],
)
def test_a_network_that_can_not_be_exported_is_refused(tmp_path, what, message):
    with pytest.raises(TrainingError, match=message):
        imported(OtherThings(what), tmp_path)
    assert not (tmp_path / "run").exists()


# Labels, preprocessing, photos, the run folder


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ("ant,bee, ant", TrainingError, "'ant' is given twice"),
        ("ant,,bee", TrainingError, "Label 1 is empty"),
        ((), TrainingError, "There are no labels"),
        ((0, 1, 2), TypeError, "must be strings"),
        ("no such file.txt", TrainingError, "can't be read: No such file"),
    ],
)
def test_labels_that_can_not_be_used(tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        imported(tiny_network(), tmp_path, labels=labels)


def test_labels_are_read_from_a_file_or_split(tmp_path):
    (tmp_path / "labels.txt").write_text("two words\n花\nc\n", encoding="utf-8")
    result = imported(tiny_network(), tmp_path, labels=tmp_path / "labels.txt")
    assert result.labels == ("two words", "花", "c")
    result = imported(tiny_network(), tmp_path, labels="a, b,c", overwrite=True)
    assert result.labels == load(result.folder).card.labels == ("a", "b", "c")


def test_many_labels_are_no_file_whose_name_is_too_long():
    many = tuple(f"class {number}" for number in range(1000))
    assert read_labels(", ".join(many)) == many


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("shorter_side", 256, (224, 224))),
        ({"resize": "squash"}, ("squash", (224, 224), None)),
        ({"resize": "squash", "size": 64}, ("squash", (64, 64), None)),
        ({"resize": "squash", "size": (50, 60), "crop": 40}, ("squash", (50, 60), (40, 40))),
        ({"crop": (96, 128)}, ("shorter_side", 256, (96, 128))),
    ],
)
def test_fields_beside_the_published_preprocessing(tmp_path, fields, expected):
    result = imported(tiny_network(), tmp_path, spec=fields, backbone="resnet18")
    (note,) = result.notes
    assert note.startswith("Not given, so as published") and note.endswith("mean, std.")
    assert not any(f" {name}" in note for name in fields)
    spec = result.spec
    assert (spec.resize, spec.size, spec.crop) == expected
    assert spec.std == (0.229, 0.224, 0.225)


def test_without_an_architecture_the_preprocessing_must_be_given(tmp_path):
    with pytest.raises(TrainingError, match="not known: its mean, std"):
        imported(tiny_network(), tmp_path, spec={"size": 32})
    given = {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    spec = imported(tiny_network(), tmp_path, spec=given).spec
    half = (0.5, 0.5, 0.5)
    assert spec == PreprocessSpec("squash", (32, 32), "bilinear", None, half, half)
    for wrong, error in (({"std": [0, 0, 0]}, SpecError), ({"side": 3}, TypeError)):
        with pytest.raises(error):
            imported(tiny_network(), tmp_path, spec={**given, **wrong}, overwrite=True)
    with pytest.raises(TrainingError, match="different sizes"):
        free = PreprocessSpec("shorter_side", 24, "bilinear", None, half, half)
        imported(tiny_network(), tmp_path, spec=free, overwrite=True)


def test_photos_without_a_label_are_named(tmp_path, class_folder):
    with pytest.raises(DataError, match="its folders or labels: blue fish"):
        imported(tiny_network(), tmp_path, images=class_folder / "val")


def test_an_earlier_run_is_only_replaced_on_request(tmp_path):
    run = imported(tiny_network(), tmp_path).folder
    (run / METRICS).write_text("{}")
    with pytest.raises(CheckpointError, match="holds a run already"):
        imported(tiny_network(1), tmp_path)
    imported(tiny_network(1), tmp_path, overwrite=True)
    torch.testing.assert_close(answers(load(run).network), answers(tiny_network(1)))
    assert not (run / METRICS).exists()  # those were another network's


def test_replacing_a_run_mixes_nothing_at_whatever_step_it_is_killed(tmp_path):
    run = imported(tiny_network(), tmp_path).folder
    old = (run / BEST).read_bytes()
    for step in range(1, 50):
        (run / BEST).write_bytes(old)
        (run / METRICS).write_text("{}")
        with killed_at(step) as steps:
            imported(tiny_network(1), tmp_path, overwrite=True)
        found = content(run)
        assert found[BEST] == old or set(found) == {BEST}, step
        if len(steps) < step:
            break
    assert found[BEST] != old and step > 5


def test_importing_it_does_not_import_torch():
    code = "import sys, edgetl; edgetl.import_network; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
