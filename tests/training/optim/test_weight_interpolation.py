"""Weights half-way between two networks: of every tensor once, and judged as they are."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers.training_runs import small, train
from torch import Tensor, nn

from edgetl.training.engine.learner import Learner
from edgetl.training.engine.train_state import read_state
from edgetl.training.optim.weight_interpolation import WeightInterpolation
from edgetl.training.torch_env.distributed import Processes


class Twice(nn.Module):
    """One layer under two names, batch norm, and a bias cached between evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.bias = nn.Parameter(torch.zeros(3))
        self._kept: Tensor | None = None

    def train(self, mode: bool = True) -> Twice:
        if mode:
            self._kept = None
        return super().train(mode)

    def forward(self, values: Tensor) -> Tensor:
        if self._kept is None:
            self._kept = self.bias * 1
        return self.norm(self.second(self.first(values))) + (
            self.bias if self.training else self._kept
        )


@pytest.fixture
def ends() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    start = Twice()
    end = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(torch.randn_like(parameter))
    end(torch.randn(8, 3))  # batch norm counts it, and measures
    return start.train().eval(), end.train().eval()


def test_every_weight_is_half_way_and_counters_are_the_last(
    ends: tuple[nn.Module, nn.Module],
) -> None:
    start, end = (network.state_dict() for network in ends)
    middle = WeightInterpolation(ends[0]).to(ends[1]).state_dict()
    for name, value in middle.items():
        torch.testing.assert_close(
            value, (start[name] + end[name]) / 2 if value.is_floating_point() else end[name]
        )
    assert int(middle["norm.num_batches_tracked"]) == 1


def test_what_a_network_caches_in_one_evaluation_is_not_used_in_the_next() -> None:
    network = Twice().eval()
    values = torch.randn(4, 3)
    with torch.no_grad():
        before = network(values)
        network.bias.add_(1.0)
        assert torch.equal(network(values), before)
        evaluated = Learner.evaluated_network(
            SimpleNamespace(
                _average=None, _network=network, _processes=Processes(torch.device("cpu"))
            )
        )  # type: ignore[arg-type]
        torch.testing.assert_close(evaluated(values), before + 1.0)


def test_with_a_random_head_no_interpolation_is_validated(two_parts, tmp_path):
    settings = {"backbone": "squeezenet1_1", "image_size": 48, "epochs": 1, "warm_head": True}
    train(small(two_parts, **settings), tmp_path / "run")
    state = read_state(tmp_path / "run")
    assert state["learner"]["interpolation"] is None
    assert [row["epoch"] for row in state["train_state"]["history"]] == [1]
