"""Training does without torch's compiler, which takes long to import; it works all the same."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from pathlib import Path

import torch

import edgetl.training.engine.new_run
from edgetl.training.config.recipes import resolve
from edgetl.training.head.logistic_regression import LogisticRegression
from edgetl.training.optim.optimizers import make_optimizer
from edgetl.training.torch_env import vision_libraries
from edgetl.training.torch_env.torch_flags import deterministic_algorithms, reproducible

targets, ones = torch.tensor([0, 1]), torch.ones(2)
with reproducible(torch.device("cpu")):
    assert torch.are_deterministic_algorithms_enabled()
    LogisticRegression(torch.eye(2), targets, ones, 2, 2).solve(1.0, None, 2)
assert not torch.are_deterministic_algorithms_enabled()
for name in ("sgd", "adam", "adamw"):
    weight = torch.ones(3, requires_grad=True)
    settings = resolve(Path(), {"optimizer": name, "strategy": "full", "lr": 0.1}, cuda=False)
    optimizer = make_optimizer(settings, [{"params": [weight]}], torch.device("cpu"))
    weight.sum().backward()
    optimizer.step()
    assert weight.requires_grad and (weight < 1).all()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert weight.grad is None
assert "torch._dynamo" not in sys.modules, "imported"

# Private: no library of today asks the placeholder for more than it has.
with vision_libraries._without_compiler():
    from torch._dynamo import graph_break
    from torch._dynamo.utils import is_compile_supported
assert graph_break is torch._dynamo.graph_break

asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
assert asked is not is_compile_supported
assert asked("cpu") == is_compile_supported("cpu")
assert asked("meta") is False

import torch._inductor.config as compiler

with deterministic_algorithms():
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert getattr(compiler, "deterministic", True), "the compiler was not told"
assert not getattr(compiler, "deterministic", False)

from torchvision import tv_tensors

image = tv_tensors.Image(torch.zeros(3, 2, 2))
assert type(tv_tensors.wrap(torch.ones(3, 2, 2), like=image)) is tv_tensors.Image
"""


def test_the_compiler_is_imported_when_it_is_asked() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
