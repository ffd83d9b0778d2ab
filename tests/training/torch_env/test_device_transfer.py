"""Networks laid out for their device."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgetl.training.torch_env.device_transfer import channels_last


def test_channels_last_leaves_3d_filters_alone():
    """As lambda networks have; torch's own way of laying filters out for a device refuses them."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1), nn.Conv3d(1, 2, 3)
    )
    before = [parameter.clone() for parameter in network.parameters()]
    moved = channels_last(network, torch.device("cpu"))
    assert moved is network and all(map(torch.equal, network.parameters(), before))
    usual = copy.deepcopy(network[:3]).to(memory_format=torch.channels_last)
    strides = [parameter.stride() for parameter in network[:3].parameters()]
    assert strides == [parameter.stride() for parameter in usual.parameters()]
    # One channel: both layouts are the same, but for that of its gradients.
    assert network[1].weight.stride() == (9, 1, 3, 1)
