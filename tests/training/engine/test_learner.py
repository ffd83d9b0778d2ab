"""The learner: what a step computes with, compiled or not, and what its errors say."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.training_runs import equal, small, train, weights_of
from torch.utils._python_dispatch import TorchDispatchMode

from edgetl.errors import TrainingError
from edgetl.training.engine.learner import Learner
from edgetl.training.models.backbones import build
from edgetl.training.optim.losses import class_weights
from edgetl.training.torch_env.distributed import Processes


def _no_compiler():
    from torch._inductor.exc import InductorError  # imports the compiler

    return InductorError(RuntimeError("no compiler"), None)


@pytest.mark.parametrize(
    ("make_error", "advice"),
    [
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), "Halve --batch-size"),
        (
            lambda: RuntimeError("GET was unable to find an engine to execute this computation"),
            "Halve --batch-size",
        ),
        (_no_compiler, "Leave out --compile"),
    ],
)
def test_errors_that_another_option_avoids_name_it(
    two_parts, tmp_path, monkeypatch, make_error, advice
):
    def fail(*_):
        raise make_error()

    monkeypatch.setattr(Learner, "_loss", fail)
    with pytest.raises(TrainingError, match=advice):
        train(small(two_parts), tmp_path / "run")


def test_rare_classes_weigh_more(two_parts):
    weights = class_weights(
        small(two_parts, class_weights=True), SimpleNamespace(train_counts=(12, 3))
    )
    assert weights == pytest.approx([15 / 24, 15 / 6])


class _Copies(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.clone.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "timm/mobilenetv3_small_050", "mobilenet_v2"]
)
def test_activations_copy_nothing_and_learn_the_same(two_parts, name):
    images = torch.rand(2, 3, 64, 64)

    def gradients(prepare):
        backbone = build(name, 2, weights="none")
        torch.manual_seed(0)
        for parameter in backbone.module.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.2)
        prepare(backbone)
        with _Copies() as copies:
            loss = backbone.module.eval()(images).sum()
        loss.backward()
        return copies.count, [parameter.grad for parameter in backbone.module.parameters()]

    before, plain = gradients(lambda backbone: None)
    copies, mine = gradients(
        lambda backbone: Learner(
            backbone, small(two_parts), None, 1, Processes(torch.device("cpu"))
        )
    )
    assert before > 10 and copies == 0
    assert all(torch.equal(one, other) for one, other in zip(plain, mine, strict=True))


def test_a_compiled_network_learns_the_same(two_parts, tmp_path, monkeypatch):
    """With a backend that changes nothing: this machine may have no compiler."""
    train(small(two_parts, ema=0.9), tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    train(small(two_parts, ema=0.9, compile=True), tmp_path / "compiled")
    assert equal(weights_of(tmp_path / "plain"), weights_of(tmp_path / "compiled"))


def test_the_last_smaller_batch_of_an_epoch_compiles_nothing_again(
    two_parts, tmp_path, compiled_sizes
):
    train(small(two_parts, compile=True, batch_size=6), tmp_path / "run")  # 6, 6, 4 photos, twice
    assert compiled_sizes == [{6}]


def test_clipping_bounds_the_whole_gradient_not_each_number(two_parts):
    """One step of plain SGD at rate 1 moves the weights by the clipped gradient."""
    plain = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "lr": 1.0,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "scheduler": "none",
    }
    moved = {}
    for clip in (0.0, 0.01):
        settings = small(two_parts, **plain, layer_decay=1.0, ema=0.0, clip=clip)
        backbone = build("timm/small_backbone", 2, weights="none")
        before = {name: value.clone() for name, value in backbone.module.named_parameters()}
        learner = Learner(backbone, settings, None, 4, Processes(torch.device("cpu")))
        learner.train_mode()
        batch = SimpleNamespace(
            images=torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
            labels=torch.tensor([0, 1, 0, 1]),
            shard=SimpleNamespace(borrowed=0),
        )
        learner.step(0, 0, iter([batch]), 1, 4)
        steps = [
            value.detach() - before[name] for name, value in backbone.module.named_parameters()
        ]
        moved[clip] = torch.cat([step.flatten() for step in steps]).norm().item()
    assert moved[0.0] > 0.1
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)


def test_class_weights_mean_the_same_in_batches_of_any_size(two_parts):
    """At a tiny rate an epoch's steps add up to the gradient of the weighted loss."""
    plain = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "scheduler": "none",
    }
    settings = small(two_parts, **plain, layer_decay=1.0, ema=0.0, clip=0.0, norm_statistics=False)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, moved = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0]), {}
    for size in (8, 2):
        torch.manual_seed(0)
        backbone = build("timm/small_backbone", 2, weights="none")
        start = backbone.module.fc.bias.detach().clone()
        learner = Learner(
            backbone,
            settings,
            [8 / 14, 4.0],
            8 // size,
            Processes(torch.device("cpu")),
        )
        learner.train_mode()
        for step, (pictures, classes) in enumerate(
            zip(images.split(size), labels.split(size), strict=True)
        ):
            batch = SimpleNamespace(
                images=pictures, labels=classes, shard=SimpleNamespace(borrowed=0)
            )
            learner.step(0, step, iter([batch]), 1, size)
        moved[size] = (backbone.module.fc.bias.detach() - start) * size
    torch.testing.assert_close(moved[8], moved[2], rtol=0.02, atol=0)


def test_a_rate_that_is_set_keeps_the_proportions_of_the_layers(two_parts):
    settings = small(two_parts, lr=0.01, layer_decay=0.1, warmup=0.0, scheduler="none")
    learner = Learner(
        build("timm/small_backbone", 2, weights="none"),
        settings,
        None,
        4,
        Processes(torch.device("cpu")),
    )
    before = [group["lr"] for group in learner._optimizer.param_groups]
    learner.set_lr(0.5)
    after = [group["lr"] for group in learner._optimizer.param_groups]
    assert len(set(before)) > 2 and min(before) == pytest.approx(0.001)
    assert after == pytest.approx([50 * rate for rate in before])
