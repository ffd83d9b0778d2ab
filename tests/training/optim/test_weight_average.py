"""The moving average of weights."""

from __future__ import annotations

import torch

from edgetl.training.optim.weight_average import WeightAverage


def test_the_average_follows_trained_weights_and_statistics_but_not_frozen_weights():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    network[0].bias.requires_grad_(False)
    average = WeightAverage(network, 0.9)
    start = {key: value.clone() for key, value in average.network.state_dict().items()}
    expected = start["0.weight"].double()
    for step in range(1, 200):
        with torch.no_grad():
            network[0].weight.add_(0.1)
            network[1].running_mean.add_(1.0)
            network[1].num_batches_tracked.add_(1)
        average.update()
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * network[0].weight.detach().double()
        torch.testing.assert_close(
            average.network[0].weight.double(), expected, rtol=1e-5, atol=1e-5
        )
    state = average.network.state_dict()
    assert torch.equal(state["0.bias"], start["0.bias"])
    assert state["1.num_batches_tracked"] == 199
    assert 180 < state["1.running_mean"].min() < 199
